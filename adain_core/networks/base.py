"""What an encoder and a decoder are, and how their weights are checked, marked and loaded."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from ..errors import AdainError
from . import fast
from .half import AroundColor, FlatColor
from .layers import Arithmetic, Convolution, ResidualBlock
from .texture import NO_TEXTURE, Texture

if TYPE_CHECKING:
    from typing_extensions import Self

State = dict[str, Tensor]

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of the weights in a file
AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # kinds of device that have it
MOST_LEVELS, MOST_CHANNELS, MOST_BLOCKS = 8, 4096, 64  # a description that says more is damaged


@dataclass(frozen=True)
class Level:
    """One set of features on which AdaIN acts: its layer's name, its channels and its stride in pixels."""

    name: str
    channels: int
    stride: int


class Network(nn.Module):
    """Base of encoders and decoders, made of a `config` as JSON has it; `name` says which network it is.

    `dtype` is the number type that is computed in; the weights stay float32, so that copies are exact. `plain`: whether each
    layer is computed as it is written, so that gradients pass; else by the faster and equal ways of `fast.py`, for use.
    `halo`: how many pixels around it a feature, or a pixel, may depend on, beyond those of its own position.
    `values_per_pixel`: the most activations there are, for each pixel of the picture, in one layer.
    """

    role: ClassVar[str]
    architecture: str
    halo: int
    values_per_pixel: float

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.name = self.architecture
        self.dtype = torch.float32
        self.plain = False
        self._kernels = fast.Kernels()

    def load(self, state: State) -> None:
        """Take the weights of a network file. Raises AdainError where they do not fit."""
        load_checked(self, state)

    def initialize(self, seed: int) -> None:
        """Draw weights to begin a training with."""
        initialize(self, seed)

    def copy_for(self, device: torch.device, dtype: torch.dtype = torch.float32, plain: bool = True) -> Self:
        """A frozen copy on `device`; made outside of inference mode, a plain one can be trained through."""
        copied = copy.deepcopy(self)
        copied.dtype, copied.plain = dtype, plain
        return copied.requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    def layer_names(self) -> list[str]:
        """Convolutions of a network file in their order."""
        return [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]

    def convolve(self, layer: Convolution, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """A layer of this network, by the way that `plain` says; every convolution of a network is computed here."""
        return layer(x, bias) if self.plain else fast.convolve(layer, x, self._kernels, bias)

    def in_bands(
        self, layers: Callable[[Tensor], Tensor], x: Tensor, halo: int, scale: float, values_per_row: int
    ) -> Tensor:
        """`layers(x)`, on a CPU by `fast.in_bands` unless the network is plain."""
        if self.plain or x.device.type != "cpu":
            return layers(x)
        return fast.in_bands(layers, x, halo, scale, values_per_row)

    @contextlib.contextmanager
    def _computing(self, *inputs: Tensor) -> Iterator[None]:
        """Whatever a caller's autocast would do, a network for use computes in its own number type, and a plain one too in 16
        bits, whose constants (`half.py`) autocast would round.

        Raises AdainError where gradients are wanted of a network that is not plain.
        """
        if not self.plain and torch.is_grad_enabled():
            if any(tensor.requires_grad for tensor in (*inputs, *self.parameters())):
                raise AdainError(f"{self.name!r} is loaded for use, without gradients; set `plain` to True to train.")
        if self.plain and self.dtype.itemsize > 2:
            yield
            return
        kind = inputs[0].device.type
        with torch.autocast(kind, enabled=False) if kind in AUTOCAST else contextlib.nullcontext():
            yield

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._kernels.clear()  # weights move, or change their type
        return super()._apply(fn, recurse)


class Encoder(Network):
    """Base of the encoders: a picture to features, by layers with names.

    `levels` lists where AdaIN acts, shallow first; `layers` all the layers that can be asked for, in the order in which they
    are computed. `perceptual`: whether losses in its features, at `loss_layers`, say how much alike pictures look.
    `fingerprint` says which network it is.
    """

    role = "encoder"
    levels: tuple[Level, ...]
    layers: tuple[str, ...]
    perceptual: ClassVar[bool] = False

    def __init__(self, config: dict):
        super().__init__(config)
        self.fingerprint = ""

    @property
    def loss_layers(self) -> tuple[str, ...]:
        """The layers that losses compare, shallow first."""
        return tuple(level.name for level in self.levels)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The levels of RGB pictures `(B, 3, H, W)` in [0, 1], shallow first; float32 (float64 in that `dtype`).

        In 16 bits what sets the pictures apart from their mean colour is computed (`half.py`).
        """
        names = [level.name for level in self.levels]
        with self._computing(images):
            if self.dtype.itemsize > 2:
                found = self.activations(images.to(self.dtype), names, Arithmetic(self.convolve))
                return [found[name] for name in names]
            color = images.float().mean((0, 2, 3), keepdim=True)
            flat = FlatColor(self.convolve, self.dtype)
            known = self.activations(color, names, flat)
            around = AroundColor(self.convolve, flat.constants)
            found = self.activations((images.float() - color).to(self.dtype), names, around)
            return [found[name].float() + known[name] for name in names]

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Features of RGB pictures `(B, 3, H, W)` in [0, 1] at the named layers, in their order, of the type `dtype`.

        Raises AdainError for a layer that the encoder does not have.
        """
        if unknown := [name for name in layers if name not in self.layers]:
            raise AdainError(f"the encoder {self.name!r} has no layer {unknown[0]!r}; it has {', '.join(self.layers)}.")
        with self._computing(images):
            found = self.activations(images.to(self.dtype), layers, Arithmetic(self.convolve))
            return [found[name] for name in layers]

    def activations(self, x: Tensor, names: Collection[str], arithmetic: Arithmetic) -> dict[str, Tensor]:
        """The layers `names` of pictures `x`, every convolution computed by `arithmetic`."""
        raise NotImplementedError

    def load(self, state: State) -> None:
        super().load(state)
        self.fingerprint = fingerprint(state, self.layer_names())


class Decoder(Network):
    """Base of the decoders: features back to a picture, without normalization.

    `encoder_fingerprint` and `encoder_name` say whose features it reads: of levels with so many `channels`, the coarsest of
    which has the `stride` in pixels.
    """

    role = "decoder"
    stride: int
    channels: tuple[int, ...]

    def __init__(self, config: dict):
        super().__init__(config)
        self.encoder_fingerprint = ""
        self.encoder_name = ""

    @classmethod
    def for_encoder(cls, encoder: Encoder, blocks: Sequence[int] | None = None) -> Self:
        """A new decoder for the features of `encoder`, with so many residual blocks at each level where it has any.

        Raises AdainError for blocks that do not fit.
        """
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor], texture: Texture = NO_TEXTURE) -> Tensor:
        """Pictures `(B, 3, H, W)`, not clamped, from one tensor of features per level, shallow first; float32.

        H and W are the features' size times their stride, which may be a little more than the content's. A decoder that
        reads no texture gives the same with any. In 16 bits what sets the features apart from their means is computed
        (`half.py`).
        """
        with self._computing(*features):
            if self.dtype.itemsize > 2:
                return self.draw([level.to(self.dtype) for level in features], Arithmetic(self.convolve), texture)
            means = [level.float().mean((0, 2, 3), keepdim=True) for level in features]
            flat = FlatColor(self.convolve, self.dtype)
            self.draw(means, flat, NO_TEXTURE)
            rests = [(level.float() - mean).to(self.dtype) for level, mean in zip(features, means, strict=True)]
            return self.draw(rests, AroundColor(self.convolve, flat.constants), texture)

    def draw(self, features: Sequence[Tensor], arithmetic: Arithmetic, texture: Texture) -> Tensor:
        """The pictures of `features`, every convolution computed by `arithmetic`."""
        raise NotImplementedError

    def fit_inverse(self, encoder: Encoder, images: Tensor) -> None:
        """Make this the inverse of `encoder` on RGB `images` `(B, 3, H, W)` in [0, 1], in closed form, to begin a training.

        Raises AdainError for an architecture that has no such way.
        """
        raise AdainError(f"a decoder of the kind {self.architecture} is not found in closed form; start from something else.")

    @classmethod
    def has_inverse(cls) -> bool:
        """Whether `fit_inverse` is there."""
        return cls.fit_inverse is not Decoder.fit_inverse


@dataclass(frozen=True)
class Architecture:
    """Both halves of an architecture, registered under its name."""

    encoder: type[Encoder]
    decoder: type[Decoder]


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


def initialize(network: nn.Module, seed: int) -> None:
    """He-normal kernels; residual blocks begin near the identity, a decoder's pictures around mid-grey.

    Raises AdainError for a seed that `check_seed` refuses.
    """
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    convolutions = [module for module in network.modules() if isinstance(module, Convolution)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(convolution.bias)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                module.conv2.weight.mul_(0.1)
        if isinstance(network, Decoder):
            convolutions[-1].weight.mul_(0.1)
            convolutions[-1].bias.fill_(0.5)


def check_seed(seed: int) -> None:
    """Raise AdainError for a seed that is below 0 or has more than 64 bits, which no generator of random numbers takes."""
    if not 0 <= seed < 2**64:
        raise AdainError(f"the seed is {seed}; give a whole number from 0 to 2^64 - 1.")


def whole_numbers(config: dict, name: str, least: int, most: int) -> list[int]:
    """A list in a network's description, of one number for each level. Raises AdainError where it is damaged."""
    numbers = config.get(name)
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= MOST_LEVELS:
        raise AdainError(f"its {name} are no list of one to {MOST_LEVELS} numbers.")
    if not all(type(number) is int and least <= number <= most for number in numbers):
        raise AdainError(f"its {name} are not all whole numbers from {least} to {most}.")
    return numbers


def check_weights(state: State, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise AdainError, in one sentence, unless `state` has exactly these names and shapes, of finite numbers."""
    for name in sorted(expected.keys() | state.keys()):
        found = tuple(state[name].shape) if name in state else None
        if found != expected.get(name):
            raise AdainError(
                f"the weights do not fit the architecture: {name} is {found or 'missing'}"
                f" where {expected.get(name) or 'nothing'} is expected."
            )
        if state[name].dtype not in DTYPES:
            raise AdainError(f"{name} is of {state[name].dtype}; convert the weights to float32 or float16.")
        if not torch.isfinite(state[name]).all():
            raise AdainError(f"the weights hold values that are not finite in {name}; the file is damaged.")


def load_checked(module: nn.Module, state: State) -> None:
    """`load_state_dict` that says in one sentence what does not fit, before a module without memory is given any."""
    check_weights(state, shapes(module))
    if next(module.parameters()).is_meta:
        module.to_empty(device="cpu").float()
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each of its weights."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
