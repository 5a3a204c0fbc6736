"""Networks from names: a bundled model, a file of this project, or a public file."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save

from . import hub, legacy
from .catalog import Entry, catalog, find_entry
from .decoder import DECODERS, Decoder
from .devices import resolve_dtype
from .encoder import ENCODERS, Encoder, State
from .files import FULL, parse_json, read_safetensors, replacing

FORMAT = "adain-network-1"


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
                raise ValueError(f"its description has no proper {wrong}.")

    def build(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Encoder | Decoder:
        """The network, frozen, for use. Raises ValueError where weights and architecture do not fit."""
        kinds = {"encoder": ENCODERS, "decoder": DECODERS}.get(self.role, {})
        if self.architecture not in kinds:
            raise ValueError(f"the {self.role} architecture {self.architecture!r} is not known; update ComfyUI-AdaIN.")
        # Outside of inference mode, in which a host may call: weights made there could not be trained through.
        with torch.inference_mode(False):
            with torch.device("meta"):  # what a description says gets memory once the weights are there
                network = kinds[self.architecture](self.config)
            network.load_network(self.state)
            network.name = self.name
            if self.role == "decoder":
                network.encoder_name, network.encoder_fingerprint = self.encoder_name, self.encoder_fingerprint
            network.dtype = dtype
            return network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)


def load_encoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Encoder:
    """The encoder of a name in the catalog, of a file (this project's safetensors, or a public `.pth` or `.safetensors`),
    or of "hf:owner/repo/file"; what is on the Hugging Face Hub is pulled the first time.

    `DIR/NAME` stands for the file `DIR/NAME-encoder.safetensors`, and so one name for both networks of a training.
    `dtype`: "auto" (16 bits where the device multiplies them fast), a name such as "float16" or a torch.dtype. Raises
    FileNotFoundError for a name that is none of these, HubError where a pull fails, and ValueError for a file that holds no
    encoder.
    """
    return _load(name, "encoder", device, dtype)


def load_decoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Decoder:
    """The decoder of a name or a file; as `load_encoder`."""
    return _load(name, "decoder", device, dtype)


def network_path(name: str, role: str, progress: hub.Progress | None = None) -> Path:
    """The file of a network, which is pulled if it is on the Hub and not yet here; names and errors as in `load_encoder`.

    `progress(done, total)` is called in bytes while something is pulled; what it raises stops the pull.
    """
    entry = find_entry(name, role)
    if entry and entry.mirrors:
        return pull(entry, progress)
    candidates = [*([entry.path] if entry else []), Path(name), Path(f"{name}-{role}.safetensors")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        names = ", ".join(entry.name for entry in catalog() if entry.role == role and entry.available) or "none"
        known = next((f"; {name} is {entry.about}" for entry in catalog() if entry.name == name), "")
        raise FileNotFoundError(
            f"there is no {role} {name!r}: it is no file, no hf:owner/repo/file and no name in the catalog ({names}){known}."
        )
    return path


def pull(entry: Entry, progress: hub.Progress | None = None, refresh: bool = False) -> Path:
    """The file of a network on the Hub, in this project's layout, checked; made once, or anew with `refresh`.

    `progress` as in `network_path`. Raises HubError where it cannot be had, ValueError where it is no such network.
    """
    if entry.path.is_file() and not refresh:
        return entry.path
    try:
        with hub.one_at_a_time(progress):
            if refresh or not entry.path.is_file():
                write_network(_from_hub(entry, progress, refresh), entry.path, None)
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

    Raises FileNotFoundError, or ValueError with the file's name and what is wrong.
    """
    path = Path(path)
    metadata = {}
    if path.suffix.lower() == ".safetensors":
        state, metadata = read_safetensors(path)
    else:
        state = legacy.read_state(path)
    try:
        if metadata.get("format") == FORMAT:
            network = _described(state, metadata.get("network", ""))
        elif metadata.get("format", "").startswith("adain-"):
            raise ValueError(f"it is a file of the format {metadata['format']}, not {FORMAT}.")
        else:
            role, state = legacy.rename(state)
            network = NetworkFile(role, "vgg19", {}, state, path.stem, "vgg19", legacy.PAPER_ENCODER)
        return _checked(network)
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from None


def write_network(network: NetworkFile, path: str | Path, dtype: str | torch.dtype | None = "float32") -> None:
    """Write a network as safetensors, kernels in `dtype` (None: as they are), biases in float32.

    It is written beside `path` first and then renamed.
    """
    dtype = dtype and resolve_dtype(dtype)
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith("bias") else dtype or tensor.dtype).contiguous()
        for name, tensor in network.state.items()
    }
    description = {key: value for key, value in vars(network).items() if key != "state"}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, {"format": FORMAT, "network": json.dumps(description)}))


def _load(name: str, role: str, device: str | torch.device, dtype: str | torch.dtype) -> Encoder | Decoder:
    dtype = resolve_dtype(dtype, device)
    path = network_path(name, role)
    network = read_network(path)
    _check_role(network, role, path)
    return network.build(device, dtype)


def _described(state: State, description: str) -> NetworkFile:
    """A network by its weights and the description in its file. Raises ValueError where that is none."""
    try:
        return NetworkFile(state=state, **parse_json(description))
    except TypeError as error:
        raise ValueError(f"its description is not one of this version ({error}).") from None


def _checked(network: NetworkFile) -> NetworkFile:
    """The network, with an encoder's own name and fingerprint. Raises ValueError where the weights do not fit."""
    built = network.build()
    if isinstance(built, Decoder):
        return network
    return replace(network, encoder_name=network.name, encoder_fingerprint=built.fingerprint)


def _check_role(network: NetworkFile, role: str, source: object) -> None:
    if network.role != role:
        articles = {"encoder": "an encoder", "decoder": "a decoder"}
        raise ValueError(f"{source} holds {articles[network.role]}, not {articles[role]}.")


def _from_hub(entry: Entry, progress: hub.Progress | None, refresh: bool) -> NetworkFile:
    if entry.tensors:
        network = _of_tensors(entry, progress)
    else:
        network = read_network(hub.pull_file(entry.mirrors, entry.sha256, progress, refresh))
        if not entry.name.startswith("hf:"):
            network = replace(network, name=entry.name)
    _check_role(network, entry.role or network.role, entry.name)
    network = _checked(network)
    if network.role == "encoder" and entry.fingerprint not in ("", network.encoder_fingerprint):
        raise ValueError(f"{entry.name} has another fingerprint than expected; the file on the Hub is not the right one.")
    return replace(network, licence=entry.licence or network.licence)


def _of_tensors(entry: Entry, progress: hub.Progress | None) -> NetworkFile:
    """A network whose tensors are some of those in a safetensors file."""
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in entry.tensors.items() for part in ("weight", "bias")}
    hashes = {theirs: entry.hashes.get(theirs, "") for theirs in names.values()}
    found = hub.pull_tensors(entry.mirrors, hashes, entry.sha256, progress)
    state = {ours: found[theirs] for ours, theirs in names.items()}
    if entry.mean:
        mean, std = torch.tensor(entry.mean), torch.tensor(entry.std)
        state |= {"preprocess.weight": torch.diag(1 / std)[:, :, None, None], "preprocess.bias": -mean / std}
    return NetworkFile(entry.role, entry.architecture, {}, state, entry.name)
