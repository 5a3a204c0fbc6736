"""The layouts of public PyTorch networks for AdaIN: `nn.Sequential` state dicts, numbered by layer."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .errors import AdainError
from .networks.base import State
from .networks.vgg import VGGDecoder, VGGEncoder
from .pickled import read_pickled

ENCODER_LAYERS = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29)
DECODER_LAYERS = (1, 5, 8, 11, 14, 18, 21, 25, 28)
# The fingerprint of the paper's normalised VGG-19: all public decoders read it, but their files do not say so.
PAPER_ENCODER = "a8657bd8b7ab519605a4521717a943cb25eab91e4d8f1c901d0ef419cc490bea"


def read_state(path: str | Path) -> State:
    """The state dict of a PyTorch file (`.pth`, `.pt`, `.bin`), on the CPU.

    Raises the errors of `read_pickled`, and AdainError for a file that holds anything else than named tensors.
    """
    state = read_pickled(path)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise AdainError(f"{path} is not a state dict of named tensors; save one with torch.save(net.state_dict(), ...).")
    return {name: tensor.detach() for name, tensor in state.items()}


def rename(state: State) -> tuple[str, State]:
    """Role ("encoder" or "decoder") and state in this project's names, of a public state dict.

    Encoder layers above relu4_1 are left out. Raises AdainError for any other layout.
    """
    if "0.weight" in state:
        layers, names, role = ENCODER_LAYERS, VGGEncoder({}).layer_names(), "encoder"
    elif state.keys() == {f"{layer}.{part}" for layer in DECODER_LAYERS for part in ("weight", "bias")}:
        layers, names, role = DECODER_LAYERS, [name for name, _, _ in VGGDecoder.layers], "decoder"
    else:
        raise AdainError("the layout of the weights is unknown; give AdaIN's public VGG-19 encoder or decoder.")
    try:
        return role, {
            f"{name}.{part}": state[f"{layer}.{part}"]
            for layer, name in zip(layers, names, strict=True)
            for part in ("weight", "bias")
        }
    except KeyError as error:
        raise AdainError(f"the weights have no {error.args[0]}; the file is incomplete or of another architecture.") from None
