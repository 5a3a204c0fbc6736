"""Encoders: a picture to features, by layers with names."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import DownsampleConv2d, Layer, ReflectionConv2d, ReluAround, in_bands, relu_layer

State = dict[str, Tensor]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of the weights in a file
MOST_LEVELS, MOST_CHANNELS = 8, 4096  # a description that says more is damaged


@dataclass(frozen=True)
class Level:
    """One set of features on which AdaIN acts: its layer's name, its channels and its stride in pixels."""

    name: str
    channels: int
    stride: int


class Encoder(nn.Module):
    """Base of the encoders. `levels` lists where AdaIN acts, shallow first; `name` and `fingerprint` say which network.

    `dtype` is the number type that is computed in; the weights stay float32, so that copies are exact.
    `halo`: how many pixels around it a feature may depend on, beyond those of its own position. `values_per_pixel`: the most
    activations there are, for each pixel of the picture, in one layer.
    """

    architecture: str
    levels: tuple[Level, ...]
    halo: int
    values_per_pixel: float

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.name = self.architecture
        self.fingerprint = ""
        self.dtype = torch.float32

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> list[Tensor]:
        """Features of RGB pictures `(B, 3, H, W)` in [0, 1] at the named layers (default: `levels`), in their order.

        In 16 bits, `levels` are those around the pictures' mean colour (`ReluAround`), in float32. Raises ValueError for a
        layer that there is not.
        """
        raise NotImplementedError

    def load_network(self, state: State) -> None:
        """Take the weights of a network file and their fingerprint. Raises ValueError where they do not fit."""
        load_checked(self, state)
        self.fingerprint = fingerprint(state, self.layer_names())

    def layer_names(self) -> list[str]:
        """Convolutions of a network file in their order."""
        return [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]


class VGGEncoder(Encoder):
    """VGG-19 (Simonyan and Zisserman 2015) up to relu4_1, reflection padding, 2x2 max pooling with ceil_mode.

    A network file also holds `preprocess`, the 1x1 convolution from RGB in [0, 1] to what the network was trained on
    (BGR around a mean for the paper's file); it is folded into conv1_1, which is exact under reflection padding.
    """

    architecture = "vgg19"
    levels = (Level("relu4_1", 512, 8),)
    blocks = ((64, 64), (128, 128), (256, 256, 256, 256), (512,))
    # a 3x3 convolution sees one position beyond its own, pooling none
    halo = sum(len(widths) * 2**block for block, widths in enumerate(blocks))
    values_per_pixel = blocks[0][0]

    def __init__(self, config: dict):
        super().__init__(config)
        channels = 3
        for block, widths in enumerate(self.blocks, 1):
            for index, width in enumerate(widths, 1):
                setattr(self, f"conv{block}_{index}", ReflectionConv2d(channels, width))
                channels = width

    def layer_names(self) -> list[str]:
        return ["preprocess", *super().layer_names()]

    def load_network(self, state: State) -> None:
        check_weights(state, _shapes(self) | {"preprocess.weight": (3, 3, 1, 1), "preprocess.bias": (3,)})
        self.fingerprint = fingerprint(state, self.layer_names())
        kernel, bias = state["preprocess.weight"].double()[:, :, 0, 0], state["preprocess.bias"].double()
        first = state["conv1_1.weight"].double()
        folded = {
            "conv1_1.weight": torch.einsum("oihw,ic->ochw", first, kernel).float(),
            "conv1_1.bias": (state["conv1_1.bias"].double() + first.sum((2, 3)) @ bias).float(),
        }
        load_checked(self, {k: v for k, v in state.items() if not k.startswith("preprocess.")} | folded)

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> list[Tensor]:
        wanted = list(layers or [level.name for level in self.levels])
        found: dict[str, Tensor | None] = dict.fromkeys(wanted)
        deepest, x, layer = max(wanted), images.to(self.dtype), relu_layer
        around = layers is None and self.dtype.itemsize == 2
        if around:
            convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
            layer, x = ReluAround.begin(convolutions, images, self.dtype)
        for block, widths in enumerate(self.blocks, 1):
            names = [name for index in range(1, len(widths) + 1) if (name := f"relu{block}_{index}") <= deepest]
            if not names:
                break
            part = partial(self._block, layer=layer, names=names, found=found, pool=names[-1] < deepest)
            halo = len(names) + len(names) % 2
            x = part(x) if found.keys() & names else in_bands(part, x, halo, 0.5, max(widths) * x.shape[3])
        for name, features in found.items():
            if features is None:
                raise ValueError(f"VGG-19 up to relu4_1 has no layer {name!r}.")
        if around:
            return [layer.whole(self._convolution(name), found[name]) for name in wanted]
        return [found[name] for name in wanted]

    def _convolution(self, name: str) -> nn.Conv2d:
        """The one before the layer `name`."""
        return getattr(self, name.replace("relu", "conv"))

    def _block(self, x: Tensor, layer: Layer, names: Sequence[str], found: dict[str, Tensor | None], pool: bool) -> Tensor:
        """Of the layers `names` of a block, those that `found` has are put there."""
        for name in names:
            x = layer(self._convolution(name), x)
            if name in found:
                found[name] = x
        return F.max_pool2d(x, 2, ceil_mode=True) if pool else x


class PyramidEncoder(Encoder):
    """A small encoder: `channels` features at strides 2, 4, 8, ...; AdaIN acts on each."""

    architecture = "pyramid"

    def __init__(self, config: dict):
        super().__init__(config)
        widths = whole_numbers(config, "channels", 1, MOST_CHANNELS)
        self.down = nn.ModuleList(map(DownsampleConv2d, [3, *widths[:-1]], widths))
        self.conv = nn.ModuleList(ReflectionConv2d(width, width) for width in widths)
        self.levels = tuple(Level(f"stride{2**i}", width, 2**i) for i, width in enumerate(widths, 1))
        # downsampling sees one position of its input beyond its own, the convolution after it one of its own
        self.halo = sum(level.stride // 2 + level.stride for level in self.levels)
        self.values_per_pixel = max(3.0, widths[0] / 4)

    def forward(self, images: Tensor, layers: Sequence[str] | None = None) -> list[Tensor]:
        x, layer, found = images.to(self.dtype), relu_layer, {}
        around = layers is None and self.dtype.itemsize == 2
        if around:
            convolutions = [module for pair in zip(self.down, self.conv, strict=True) for module in pair]
            layer, x = ReluAround.begin(convolutions, images, self.dtype)
        for level, down, conv in zip(self.levels, self.down, self.conv, strict=True):
            x = layer(conv, layer(down, x))
            found[level.name] = layer.whole(conv, x) if around else x
        if unknown := set(layers or ()) - found.keys():
            raise ValueError(f"the encoder has no layer {min(unknown)!r}; it has {', '.join(found)}.")
        return [found[name] for name in layers or found]


def fingerprint(state: State, layers: Sequence[str]) -> str:
    """SHA-256 of a network's float32 biases in layer order, then of its kernels' shapes as text.

    Biases stay float32 in every file, so that copies in different precision agree.
    """
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(state[f"{layer}.bias"].float().numpy().astype("<f4").tobytes())
    for layer in layers:
        digest.update(str(tuple(state[f"{layer}.weight"].shape)).encode())
    return digest.hexdigest()


def whole_numbers(config: dict, name: str, least: int, most: int) -> list[int]:
    """A list in a network's description, of one number for each level. Raises ValueError for what is none."""
    numbers = config.get(name)
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= MOST_LEVELS:
        raise ValueError(f"its {name} are no list of one to {MOST_LEVELS} numbers.")
    if not all(type(number) is int and least <= number <= most for number in numbers):
        raise ValueError(f"its {name} are not all whole numbers from {least} to {most}.")
    return numbers


def check_weights(state: State, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise ValueError, in one sentence, unless `state` has exactly these names and shapes, of finite numbers."""
    for name in sorted(expected.keys() | state.keys()):
        found = tuple(state[name].shape) if name in state else None
        if found != expected.get(name):
            raise ValueError(
                f"the weights do not fit the architecture: {name} is {found or 'missing'}"
                f" where {expected.get(name) or 'nothing'} is expected."
            )
        if state[name].dtype not in DTYPES:
            raise ValueError(f"{name} is of {state[name].dtype}; convert the weights to float32 or float16.")
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"the weights hold values that are not finite in {name}; the file is damaged.")


def load_checked(module: nn.Module, state: State) -> None:
    """`load_state_dict` that says in one sentence what does not fit, before a module without memory is given any."""
    check_weights(state, _shapes(module))
    if next(module.parameters()).is_meta:
        module.to_empty(device="cpu")
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


ENCODERS: dict[str, type[Encoder]] = {cls.architecture: cls for cls in (VGGEncoder, PyramidEncoder)}
