"""The layouts of public PyTorch networks for AdaIN: `nn.Sequential` state dicts, numbered by layer."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from .catalog import ROLES
from .errors import AdainError
from .networks.base import State
from .networks.vgg import VGGDecoder, VGGEncoder
from .pickled import read_pickled

# What trainings put around a state dict, and before the names in it: wrappers for several GPUs and for compilation, and models
# that hold both networks
WRAPPERS = ("state_dict", "model_state_dict", "model", "params", "net", "network")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")
ENCODER_LAYERS = (0, 2, 5, 9, 12, 16, 19, 22, 25, 29)
DECODER_LAYERS = (1, 5, 8, 11, 14, 18, 21, 25, 28)
PARTS = {"enc_1": 0, "enc_2": 4, "enc_3": 11, "enc_4": 18}  # of the encoder, and the layers before them
DEEPEST = 4  # dicts around a state dict
# The fingerprint of the paper's normalised VGG-19: all public decoders read it, but their files do not say so.
PAPER_ENCODER = "a8657bd8b7ab519605a4521717a943cb25eab91e4d8f1c901d0ef419cc490bea"


def read_state(path: str | Path) -> State:
    """The state dict of a PyTorch file (`.pth`, `.pt`, `.bin`), on the CPU; it may lie in a checkpoint, beside other values.

    Raises the errors of `read_pickled`, and AdainError for a file that holds no named tensors.
    """
    content = read_pickled(path)
    for _ in range(DEEPEST):
        if not isinstance(content, dict) or any(isinstance(value, Tensor) for value in content.values()):
            break
        inner = [key for key in (*WRAPPERS, *ROLES) if isinstance(content.get(key), dict)]
        if {*ROLES} <= {*inner}:  # a network of each role
            parts = ((f"{role}.{name}", value) for role in ROLES for name, value in content[role].items())
            content = dict(parts)
        elif inner:
            content = content[inner[0]]
    if not isinstance(content, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        raise AdainError(f"{path} is not a state dict of named tensors; save one with torch.save(net.state_dict(), ...).")
    return {name: tensor.detach() for name, tensor in content.items()}


def rename(state: State, wanted: str = "") -> tuple[str, State]:
    """Role ("encoder" or "decoder") and state in this project's names, of a public state dict.

    Names may have a prefix, such as `module.`. Of a model that holds both networks it is the `wanted` one, or the decoder,
    which is what trainings change. Encoder layers above relu4_1 are left out. Raises AdainError for any other layout.
    """
    state = {_of_encoder(name): tensor for name, tensor in _without_prefixes(state).items()}
    for role in (wanted, *reversed(ROLES)):
        part = {name.removeprefix(f"{role}."): tensor for name, tensor in state.items() if name.startswith(f"{role}.")}
        if role and part:
            state = _without_prefixes(part)
            break
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


def _of_encoder(name: str) -> str:
    """A name in one of the parts `enc_1` to `enc_4` that public models cut their encoder into, as one of the whole."""
    part, _, rest = name.partition(".")
    number, _, kind = rest.partition(".")
    return f"encoder.{int(number) + PARTS[part]}.{kind}" if part in PARTS and number.isdecimal() else name


def _without_prefixes(state: State) -> State:
    """The state without the prefixes that all of its names have."""
    while state and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), "")):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
