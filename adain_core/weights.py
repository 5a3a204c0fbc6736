"""Networks from names: a bundled model, a file of this project, or a public file."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors.torch import save

from . import hub, legacy
from .catalog import Entry, catalog, find_entry, network_file
from .devices import resolve_dtype
from .errors import AdainError
from .files import FULL, parse_json, read_safetensors, replacing
from .networks import ARCHITECTURES, Decoder, Encoder
from .networks.base import State
from .progress import part_of

Result = TypeVar("Result")
Kind = TypeVar("Kind", Encoder, Decoder)

FORMAT = "adain-network-1"
ROLES = ("encoder", "decoder")
# What a network file says of its network, beside the weights. A file may say more, or less, than this version knows.
DESCRIPTION = ("role", "architecture", "config", "name", "encoder_name", "encoder_fingerprint", "recipe", "licence")


@dataclass(frozen=True)
class NetworkFile:
    """A network as it is stored: `role` is "encoder" or "decoder", `encoder_fingerprint` the one it is or reads.

    `recipe` says how it was trained (any JSON), `licence` under what terms it may be used.
    """

    role: str
    architecture: str
    config: dict
    state: State
    name: str
    encoder_name: str = ""
    encoder_fingerprint: str = ""
    recipe: dict = field(default_factory=dict)
    licence: str = ""

    def __post_init__(self) -> None:
        texts = ("role", "architecture", "name", "encoder_name", "encoder_fingerprint", "licence")
        for kind, names in ((str, texts), (dict, ("config", "recipe"))):
            if wrong := next((name for name in names if not isinstance(getattr(self, name), kind)), None):
                raise AdainError(f"its description has no proper {wrong}.")

    def build(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Encoder | Decoder:
        """The network, frozen, for use. Raises AdainError where weights and architecture do not fit."""
        if self.role not in ROLES or self.architecture not in ARCHITECTURES:
            raise AdainError(f"the {self.role} architecture {self.architecture!r} is not known; update ComfyUI-AdaIN.")
        # Outside of inference mode, in which a host may call: weights made there could not be trained through.
        with torch.inference_mode(False):
            with torch.device("meta"):  # what a description says gets memory once the weights are there
                network = getattr(ARCHITECTURES[self.architecture], self.role)(self.config)
            network.load(self.state)
            network.name = self.name
            if isinstance(network, Decoder):
                network.encoder_name, network.encoder_fingerprint = self.encoder_name, self.encoder_fingerprint
            network.dtype = dtype
            return network.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def checked(self) -> NetworkFile:
        """The network, with an encoder's own name and fingerprint. Raises AdainError where the weights do not fit."""
        built = self.build()
        if isinstance(built, Decoder):
            return self
        return replace(self, encoder_name=self.name, encoder_fingerprint=built.fingerprint)


def load_encoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Encoder:
    """The encoder of a name in the catalog, of a file (this project's safetensors, or a public `.pth` or `.safetensors`),
    or of "hf:owner/repo/file"; what is on the Hugging Face Hub is pulled the first time.

    `DIR/NAME` stands for the file `DIR/NAME-encoder.safetensors`, and so one name for both networks of a training.
    `dtype`: "auto" (16 bits where the device multiplies them fast), a name such as "float16" or a torch.dtype. Raises
    FileNotFoundError for a name that is none of these, HubError where a pull fails, and AdainError for a file that holds no
    encoder.
    """
    return load_network(name, Encoder, device, dtype)


def load_decoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Decoder:
    """The decoder of a name or a file; as `load_encoder`."""
    return load_network(name, Decoder, device, dtype)


def load_network(name: str, kind: type[Kind], device: str | torch.device, dtype: str | torch.dtype) -> Kind:
    """`load_encoder` or `load_decoder`, by the `kind`."""
    dtype = resolve_dtype(dtype, device)
    with part_of(0, 1):  # the bytes of a pull are not what a caller counts; `network_path` tells them
        path = network_path(name, kind.role)

    def use(network: NetworkFile) -> Kind:
        _check_role(network, kind.role, "it")
        return cast(Kind, network.build(device, dtype))

    return _read(path, use)


def network_path(name: str, role: str) -> Path:
    """The file of a network, which is pulled as by `pull` if it is on the Hub and not yet here.

    Names and errors are as in `load_encoder`.
    """
    entry = find_entry(name, role)
    if entry and entry.mirrors:
        return pull(entry)
    candidates = [*([entry.path] if entry else []), Path(name), Path(network_file(name, role))]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        names = ", ".join(entry.name for entry in catalog() if entry.role == role and entry.available) or "none"
        known = next((f"; {name} is {entry.about}" for entry in catalog() if entry.name == name), "")
        raise FileNotFoundError(
            f"there is no {role} {name!r}: it is no file, no hf:owner/repo/file and no name in the catalog ({names}){known}."
        )
    return path


def pull(entry: Entry, refresh: bool = False) -> Path:
    """The file of a network on the Hub, in this project's layout, checked; made once, or anew with `refresh`.

    While it is pulled, its bytes are told. Raises HubError where it cannot be had, AdainError where it is no such network.
    """
    if entry.path.is_file() and not refresh:
        return entry.path
    try:
        with hub.one_at_a_time():
            if refresh or not entry.path.is_file():
                write_network(_from_hub(entry, refresh), entry.path, None)
    except hub.HubError as error:
        raise hub.HubError(f"{entry.name} cannot be pulled: {error}") from None
    except OSError as error:
        if error.errno not in (*FULL, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        why = f"the disk of {hub.assets()} is full; free some space" if error.errno in FULL else f"{hub.assets()} is read-only"
        raise hub.HubError(f"{entry.name} cannot be pulled: {why}, or set HF_HOME to a folder on another disk.") from None
    return entry.path


def read_network(path: str | Path) -> NetworkFile:
    """A network file of this project, or a public one renamed to its layout; all weights are checked against it.

    Raises FileNotFoundError, or AdainError with the file's name and what is wrong.
    """
    return _read(path, NetworkFile.checked)


def write_network(network: NetworkFile, path: str | Path, dtype: str | torch.dtype | None = "float32") -> None:
    """Write a network as safetensors, kernels in `dtype` (None: as they are), biases in float32.

    It is written beside `path` first and then renamed.
    """
    dtype = dtype and resolve_dtype(dtype)
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith("bias") else dtype or tensor.dtype).contiguous()
        for name, tensor in network.state.items()
    }
    description = {name: getattr(network, name) for name in DESCRIPTION}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, {"format": FORMAT, "network": json.dumps(description)}))


def _read(path: str | Path, use: Callable[[NetworkFile], Result]) -> Result:
    """What `use` makes of the network in a file; an error of it, or of the file, names the file."""
    path = Path(path)
    metadata = {}
    if path.suffix.lower() == ".safetensors":
        state, metadata = read_safetensors(path)
    else:
        state = legacy.read_state(path)
    try:
        if metadata.get("format") == FORMAT:
            return use(_described(state, metadata.get("network", "")))
        if metadata.get("format", "").startswith("adain-"):
            raise AdainError(f"it is a file of the format {metadata['format']}, not {FORMAT}.")
        role, state = legacy.rename(state)
        return use(NetworkFile(role, "vgg19", {}, state, path.stem, "vgg19", legacy.PAPER_ENCODER))
    except AdainError as error:
        raise AdainError(f"{path} cannot be used: {error}") from None


def _described(state: State, description: str) -> NetworkFile:
    """A network by its weights and the description in its file. Raises AdainError where that is damaged."""
    fields = parse_json(description)
    if not isinstance(fields, dict):
        raise AdainError("its description is not one of this version.")
    given = {name: fields[name] for name in DESCRIPTION if name in fields}
    if missing := [name for name in ("role", "architecture", "config", "name") if name not in given]:
        raise AdainError(f"its description is not one of this version (it has no {missing[0]}).")
    return NetworkFile(state=state, **given)


def _check_role(network: NetworkFile, role: str, source: object) -> None:
    if network.role != role:
        articles = {"encoder": "an encoder", "decoder": "a decoder"}
        raise AdainError(f"{source} holds {articles[network.role]}, not {articles[role]}.")


def _from_hub(entry: Entry, refresh: bool) -> NetworkFile:
    if entry.tensors:
        network = _of_tensors(entry)
    else:
        network = read_network(hub.pull_file(entry.mirrors, entry.sha256, refresh))
        if not entry.name.startswith("hf:"):
            network = replace(network, name=entry.name)
    _check_role(network, entry.role or network.role, entry.name)
    network = network.checked()
    if network.role == "encoder" and entry.fingerprint not in ("", network.encoder_fingerprint):
        raise AdainError(f"{entry.name} has another fingerprint than expected; the file on the Hub is not the right one.")
    return replace(network, licence=entry.licence or network.licence)


def _of_tensors(entry: Entry) -> NetworkFile:
    """A network whose tensors are some of those in a safetensors file."""
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in entry.tensors.items() for part in ("weight", "bias")}
    hashes = {theirs: entry.hashes.get(theirs, "") for theirs in names.values()}
    found = hub.pull_tensors(entry.mirrors, hashes, entry.sha256)
    state = {ours: found[theirs] for ours, theirs in names.items()}
    if entry.mean:
        mean, std = (torch.tensor(numbers, dtype=torch.float32) for numbers in (entry.mean, entry.std))
        state |= {"preprocess.weight": torch.diag(1 / std)[:, :, None, None], "preprocess.bias": -mean / std}
    return NetworkFile(entry.role, entry.architecture, {}, state, entry.name)
