"""Networks by their names: bundled models, files of this project, and public files."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar, cast

import torch
from safetensors.torch import save

from . import hub, legacy
from .catalog import ROLES, Entry, catalog, find_entry, network_file
from .devices import resolve_dtype
from .errors import AdainError
from .files import FULL, parse_json, read_safetensors, remove_leftovers, text_of, write_file
from .networks import ARCHITECTURES, Decoder, Encoder
from .networks.base import State
from .networks.fast import fast_format
from .progress import part_of

Result = TypeVar("Result")
Kind = TypeVar("Kind", Encoder, Decoder)

FORMAT = "adain-network-1"
FORMER = "pyramid"  # the architecture of the small networks of version 0.1
# The fields that describe the network in its file, beside the weights. Files of other versions may have more or fewer.
DESCRIPTION = ("role", "architecture", "config", "name", "encoder_name", "encoder_fingerprint", "recipe", "licence")


@dataclass(frozen=True)
class NetworkFile:
    """A network as it is stored. `role` is "encoder" or "decoder".

    `encoder_name` and `encoder_fingerprint` identify the encoder: the network itself, or the one whose features a decoder
    reads. `recipe` says how it was trained (any JSON), `licence` names the terms of its use.
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
                raise AdainError(f"the {wrong} in its description has the wrong type.")

    def build(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Encoder | Decoder:
        """The frozen network, for use. Raises AdainError if weights and architecture do not fit."""
        if self.architecture == FORMER:
            raise AdainError(
                f"its architecture {FORMER!r} is of ComfyUI-AdaIN 0.1 alone; train the network again, or use that version."
            )
        if self.role not in ROLES or self.architecture not in ARCHITECTURES:
            raise AdainError(f"the {self.role} architecture {self.architecture!r} is unknown; update ComfyUI-AdaIN.")
        # A host may call this in inference mode, but no gradients can pass through weights made in it.
        with torch.inference_mode(False):
            with torch.device("meta"):  # without memory, until the weights are found to fit the description
                network = getattr(ARCHITECTURES[self.architecture], self.role)(self.config)
            network.load(self.state)
            network.name = self.name
            if isinstance(network, Decoder):
                network.encoder_name, network.encoder_fingerprint = self.encoder_name, self.encoder_fingerprint
            network.dtype = dtype
            return network.eval().requires_grad_(False).to(device).to(memory_format=fast_format(torch.device(device), dtype))

    def checked(self) -> NetworkFile:
        """The network; an encoder gets its own name and fingerprint. Raises AdainError if the weights do not fit."""
        built = self.build()
        if isinstance(built, Decoder):
            return self
        return replace(self, encoder_name=self.name, encoder_fingerprint=built.fingerprint)


def load_encoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Encoder:
    """The encoder with a name of the catalog, of a file (this project's safetensors, or a public `.pth` or `.safetensors`),
    or of "hf:owner/repo/file"; a file on the Hugging Face Hub is pulled the first time.

    `DIR/NAME` stands for the file `DIR/NAME-encoder.safetensors`, so one name serves for both networks of a training.
    `dtype`: "auto" (16 bits if the device multiplies them fast), a name such as "float16" or a torch.dtype. Raises
    FileNotFoundError for an unknown name, HubError if a pull fails, and AdainError if the file does not hold an encoder.
    """
    return load_network(name, Encoder, device, dtype)


def load_decoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Decoder:
    """The decoder of a name or a file; names, arguments and errors are as in `load_encoder`."""
    return load_network(name, Decoder, device, dtype)


def load_network(name: str, kind: type[Kind], device: str | torch.device, dtype: str | torch.dtype) -> Kind:
    """`load_encoder` for the `kind` Encoder, `load_decoder` for Decoder."""
    dtype = resolve_dtype(dtype, device)
    with part_of(0, 1):  # a caller does not count the bytes of a pull; `network_path` reports them
        path = network_path(name, kind.role)

    def use(network: NetworkFile) -> Kind:
        _check_role(network, kind.role, "it")
        return cast(Kind, network.build(device, dtype))

    return _read(path, use, kind.role)


def network_path(name: str, role: str) -> Path:
    """The file of a network; it is pulled, as by `pull`, if it is on the Hub and not on this machine yet.

    Names and errors are as in `load_encoder`.
    """
    entry = find_entry(name, role)
    if entry and entry.mirrors:
        return pull(entry)
    path = next((path for path in network_files(name, role) if path.is_file()), None)
    if path is None:
        names = ", ".join(entry.name for entry in catalog() if entry.role == role and entry.available) or "none"
        about = next((f"; {name} is {entry.about}" for entry in catalog() if entry.name == name), "")
        raise FileNotFoundError(
            f"there is no {role} {name!r}; give a file, hf:owner/repo/file or a name in the catalog ({names}){about}."
        )
    return path


def network_files(name: str, role: str) -> list[Path]:
    """The files that a name of a network may stand for, of which the first that there is counts; no folder shadows the catalog.

    Raises AdainError for a name on the Hub that is not one.
    """
    entry = find_entry(name, role)
    if entry and (entry.mirrors or entry.path.is_file()):
        return [entry.path]
    return [*([entry.path] if entry else []), Path(name), Path(network_file(name, role))]


def pull(entry: Entry, refresh: bool = False) -> Path:
    """The file of a network on the Hub, checked, in this project's layout; made once, or anew with `refresh`.

    Reports how many bytes are pulled. Raises HubError if the pull fails, AdainError if the file does not hold the network.
    """
    if entry.path.is_file() and not refresh:
        return entry.path
    try:
        with hub.one_at_a_time():
            remove_leftovers(entry.path)
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


def read_network(path: str | Path, role: str = "") -> NetworkFile:
    """A network file of this project, or a public one renamed to its layout; all weights are checked against it.

    Of a public file that holds both networks it is the one of this `role`, or the decoder.

    Raises FileNotFoundError, or AdainError with the file's name and what is wrong.
    """
    return _read(path, NetworkFile.checked, role)


def stated_fingerprint(path: str | Path) -> str:
    """The fingerprint that the file of an encoder states of it, by its metadata alone; "" if it states none.

    Loading the network tells whether it is true.
    """
    try:
        described = parse_json(read_safetensors(path, [])[1].get("network", ""))
        return str(described["encoder_fingerprint"])
    except (AdainError, OSError, KeyError, TypeError):
        return ""


def write_network(network: NetworkFile, path: str | Path, dtype: str | torch.dtype | None = "float32") -> None:
    """Write a network as safetensors, kernels in `dtype` (None keeps theirs), biases in float32.

    A temporary file is written beside `path`, then renamed. Raises AdainError for weights that `dtype` cannot hold.
    """
    dtype = dtype and resolve_dtype(dtype)
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith("bias") else dtype or tensor.dtype).contiguous()
        for name, tensor in network.state.items()
    }
    converted = state if dtype else {}
    if name := next((n for n, tensor in converted.items() if tensor.isinf().any() and not network.state[n].isinf().any()), ""):
        raise AdainError(f"{name} holds numbers too large for {state[name].dtype}; choose another number type for {path}.")
    description = {name: getattr(network, name) for name in DESCRIPTION}
    write_file(path, save(state, {"format": FORMAT, "network": json.dumps(description)}))


def average_networks(
    models: Sequence[Mapping[str, NetworkFile]], weights: Sequence[float] | None = None, name: str = ""
) -> dict[str, NetworkFile]:
    """The networks, by their role, whose weights are the means of those of `models`, in the roles that all of these have.

    Trainings that go on from the same networks end on different sides of a minimum, and their mean is often better than each
    (Wortsman et al. 2022, model soups); that of others is worthless. The `weights` of the models (default equal) are normalised
    to a sum of 1. An encoder that all have stays as it is. The recipe lists theirs; a licence is kept if all have it. Raises
    AdainError for negative or all-zero weights, for a wrong number of them, and for networks that differ in architecture or
    read different encoders.
    """
    weights = [1.0] * len(models) if weights is None else weights
    if len(models) < 2:
        raise AdainError("a mean is of several models; give at least two.")
    if len(weights) != len(models):
        raise AdainError(f"{len(weights)} weights do not fit {len(models)} models; give one weight for each.")
    if min(weights) < 0 or not 0 < (total := sum(weights)) < math.inf:
        raise AdainError("the weights of a mean must be finite, at least 0 and not all 0.")
    roles = [role for role in ROLES if all(role in model for model in models)]
    if not roles:
        raise AdainError("the models have no network in common; one has an encoder alone, another a decoder alone.")
    read = [{network.encoder_fingerprint for network in model.values()} for model in models]
    if any(len(each) > 1 for each in read) or ("encoder" not in roles and len(set.union(*read)) > 1):
        raise AdainError("their decoders are for different encoders; average trainings that went on from the same networks.")
    means = {role: _mean([model[role] for model in models], [weight / total for weight in weights], name) for role in roles}
    if encoder := means.get("encoder"):
        seen = {"encoder_name": encoder.encoder_name, "encoder_fingerprint": encoder.encoder_fingerprint}
        means |= {role: replace(network, **seen) for role, network in means.items()}
    return means


def _mean(networks: Sequence[NetworkFile], shares: Sequence[float], name: str) -> NetworkFile:
    """The mean of networks of one role. Raises AdainError if they differ in architecture."""
    first, others = networks[0], networks[1:]
    kinds = [(network.architecture, network.config) for network in networks]
    if other := next((kind for kind in kinds if kind != kinds[0]), None):
        raise AdainError(f"a {first.role} is {kinds[0][0]} {kinds[0][1]}, another {other[0]} {other[1]}; such have no mean.")
    recipe = {"mean_of": [{"share": share, "recipe": n.recipe} for share, n in zip(shares, networks, strict=True)]}
    licence = first.licence if all(n.licence == first.licence for n in others) else ""
    mean = replace(first, name=name or first.name, recipe=recipe, licence=licence)
    if first.role == "encoder" and all(n.encoder_fingerprint == first.encoder_fingerprint for n in others):
        return replace(first, name=mean.name, encoder_name=mean.name)
    summed = {key: torch.zeros_like(tensor, dtype=torch.float32) for key, tensor in first.state.items()}
    for share, network in zip(shares, networks, strict=True):
        for key, total in summed.items():
            total.add_(network.state[key].float(), alpha=share)
    return replace(mean, state=summed).checked()


def _read(path: str | Path, use: Callable[[NetworkFile], Result], role: str = "") -> Result:
    """The result of `use(network)` for the network in a file; its errors, and those of the file, name the file.

    Of a public file that holds both networks it is the one of this `role`.
    """
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
            raise AdainError(f"it is a file of the format {metadata['format'][:40]!r}, not {FORMAT!r}.")
        role, state = legacy.rename(state, role)
        return use(NetworkFile(role, "vgg19", {}, state, path.stem, "vgg19", legacy.PAPER_ENCODER))
    except AdainError as error:
        raise AdainError(f"{path} cannot be used: {error}") from None


def _described(state: State, description: str) -> NetworkFile:
    """A network from its weights and the description in its file. Raises AdainError if that is damaged."""
    fields = parse_json(description)
    if not isinstance(fields, dict):
        raise AdainError("its description is damaged or of another version.")
    given = {name: fields[name] for name in DESCRIPTION if name in fields}
    given |= {name: text_of(given, name) for name, value in given.items() if isinstance(value, str)}
    if missing := [name for name in ("role", "architecture", "config", "name") if name not in given]:
        raise AdainError(f"its description is damaged or of another version (it lacks the {missing[0]}).")
    return NetworkFile(state=state, **given)


def _check_role(network: NetworkFile, role: str, source: object) -> None:
    if network.role != role:
        articles = {"encoder": "an encoder", "decoder": "a decoder"}
        raise AdainError(f"{source} holds {articles[network.role]}, not {articles[role]}.")


def _from_hub(entry: Entry, refresh: bool) -> NetworkFile:
    if entry.tensors:
        return _accepted(entry, _of_tensors(entry))
    before = [file.cached() for file in entry.mirrors]
    path = hub.pull_file(entry.mirrors, entry.sha256, refresh)
    try:
        network = read_network(path, entry.role)
        return _accepted(entry, network if entry.name.startswith("hf:") else replace(network, name=entry.name))
    except AdainError as error:
        if path not in before:  # else it is there for others
            hub.remove(path)
        raise AdainError(str(error).replace(str(path), entry.name)) from None


def _accepted(entry: Entry, network: NetworkFile) -> NetworkFile:
    """The network, with the licence of its entry. Raises AdainError if it is not the one of the entry."""
    _check_role(network, entry.role or network.role, entry.name)
    network = network.checked()
    if network.role == "encoder" and entry.fingerprint not in ("", network.encoder_fingerprint):
        raise AdainError(f"the fingerprint of {entry.name} is not the expected one; the file on the Hub is a wrong one.")
    return replace(network, licence=entry.licence or network.licence)


def _of_tensors(entry: Entry) -> NetworkFile:
    """A network from some of the tensors of a safetensors file on the Hub."""
    names = {f"{ours}.{part}": f"{theirs}.{part}" for ours, theirs in entry.tensors.items() for part in ("weight", "bias")}
    hashes = {theirs: entry.hashes.get(theirs, "") for theirs in names.values()}
    pulled = hub.pull_tensors(entry.mirrors, hashes, entry.sha256)
    state = {ours: pulled[theirs] for ours, theirs in names.items()}
    if entry.mean:
        mean, std = (torch.tensor(numbers, dtype=torch.float32) for numbers in (entry.mean, entry.std))
        state |= {"preprocess.weight": torch.diag(1 / std)[:, :, None, None], "preprocess.bias": -mean / std}
    return NetworkFile(entry.role, entry.architecture, {}, state, entry.name)
