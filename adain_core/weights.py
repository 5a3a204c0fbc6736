"""Networks from names: a bundled model, a file of this project, or a public file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save

from . import legacy
from .decoder import DECODERS, Decoder
from .devices import resolve_dtype
from .encoder import ENCODERS, Encoder, State
from .files import read_safetensors, replacing

FORMAT = "adain-network-1"
_HERE = Path(__file__).resolve().parent
# In a checkout the folder stands beside the package, in an installed wheel inside it.
BUNDLED = next((f for f in (_HERE / "weights_data", _HERE.parent / "weights") if f.is_dir()), _HERE.parent / "weights")


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

    def build(self, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32) -> Encoder | Decoder:
        """The network, frozen, for use. Raises ValueError where weights and architecture do not fit."""
        kinds = {"encoder": ENCODERS, "decoder": DECODERS}.get(self.role, {})
        if self.architecture not in kinds:
            raise ValueError(f"the {self.role} architecture {self.architecture!r} is not known; update ComfyUI-AdaIN.")
        # Outside of inference mode, in which a host may call: weights made there could not be trained through.
        with torch.inference_mode(False):
            network = kinds[self.architecture](self.config)
            network.load_network(self.state)
            network.name = self.name
            if self.role == "decoder":
                network.encoder_name, network.encoder_fingerprint = self.encoder_name, self.encoder_fingerprint
            return network.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def load_encoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Encoder:
    """The encoder of a bundled name or a file (this project's safetensors, or a public `.pth` or `.safetensors`).

    `DIR/NAME` stands for the file `DIR/NAME-encoder.safetensors`, and so one name for both networks of a training.
    `dtype`: "auto", a name such as "float16" or a torch.dtype. Raises FileNotFoundError for a name that is neither, and
    ValueError for a file that holds no encoder.
    """
    return _load(name, "encoder", device, dtype)


def load_decoder(name: str = "lite", device: str | torch.device = "cpu", dtype: str | torch.dtype = "auto") -> Decoder:
    """The decoder of a bundled name or a file; as `load_encoder`."""
    return _load(name, "decoder", device, dtype)


def bundled_names(role: str) -> list[str]:
    """Names of the bundled networks of a role."""
    return sorted(path.name.removesuffix(f"-{role}.safetensors") for path in BUNDLED.glob(f"*-{role}.safetensors"))


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
            network = NetworkFile(state=state, **json.loads(metadata["network"]))
        elif metadata.get("format", "").startswith("adain-"):
            raise ValueError(f"it is a file of the format {metadata['format']}, not {FORMAT}.")
        else:
            role, state = legacy.rename(state)
            network = NetworkFile(role, "vgg19", {}, state, path.stem, "vgg19", legacy.PAPER_ENCODER)
        built = network.build()
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be used: {error}") from None
    if isinstance(built, Encoder):
        return replace(network, encoder_name=network.name, encoder_fingerprint=built.fingerprint)
    return network


def write_network(network: NetworkFile, path: str | Path, dtype: str | torch.dtype = "float32") -> None:
    """Write a network as safetensors, kernels in `dtype`, biases in float32; beside `path` first and then renamed."""
    dtype = resolve_dtype(dtype)
    state = {
        name: tensor.detach().cpu().to(torch.float32 if name.endswith("bias") else dtype).contiguous()
        for name, tensor in network.state.items()
    }
    description = {key: value for key, value in vars(network).items() if key != "state"}
    with replacing(path) as temporary:
        temporary.write_bytes(save(state, {"format": FORMAT, "network": json.dumps(description)}))


def _load(name: str, role: str, device: str | torch.device, dtype: str | torch.dtype) -> Encoder | Decoder:
    dtype = resolve_dtype(dtype)
    file = f"{name}-{role}.safetensors"
    path = next((path for path in (BUNDLED / file, Path(name), Path(file)) if path.is_file()), None)
    if path is None:
        names = ", ".join(bundled_names(role)) or "none"
        raise FileNotFoundError(f"there is no {role} {name!r}: it is no file, and no bundled name (there are: {names}).")
    network = read_network(path)
    if network.role != role:
        articles = {"encoder": "an encoder", "decoder": "a decoder"}
        raise ValueError(f"{path} holds {articles[network.role]}, not {articles[role]}.")
    return network.build(device, dtype)
