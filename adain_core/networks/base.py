"""The base classes of encoders and decoders; checking, fingerprints and loading of their weights."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..crossing import to_device
from ..errors import AdainError
from . import fast
from .half import GRAIN, AroundColor, FlatColor, FlatPicture, bounds_of, flat_picture, near_color, split
from .layers import Arithmetic, Convolution, ResidualBlock
from .texture import NO_TEXTURE, Texture

if TYPE_CHECKING:
    from typing_extensions import Self

State = dict[str, Tensor]

STORED_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # of the weights in a file
AUTOCAST = ("cpu", "cuda", "xpu", "mps")  # kinds of device that have it
KEPT_COLORS = 64  # flat pictures that an encoder keeps, of some kilobytes each
MOST_LEVELS, MOST_CHANNELS, MOST_BLOCKS = 8, 4096, 64  # a description with larger numbers is damaged


@dataclass(frozen=True)
class Level:
    """One set of features on which AdaIN acts: its layer's name, its channels and its stride in pixels."""

    name: str
    channels: int
    stride: int


class Network(nn.Module):
    """Base of encoders and decoders, made from a `config` of JSON values; `name` is shown to users.

    `dtype` is the number type of the computation; the weights stay float32, so that copies are exact. `plain`: each layer is
    computed as it is written, and gradients can pass; otherwise by the equal but faster code of `fast.py`, for use.
    `halo`: the distance in pixels, beyond its own position, up to which a feature, or a pixel, depends on the picture.
    `values_per_pixel`: the number of activations for each pixel of the picture in the largest layer.
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
        """Load the weights of a network file. Raises AdainError if they do not fit."""
        load_checked(self, state)

    def initialize(self, seed: int) -> None:
        """Draw random weights for the beginning of a training."""
        initialize(self, seed)

    def constrain(self) -> None:
        """Restore what an architecture holds of its weights, after a training step has moved them; most hold nothing."""

    def copy_for(self, device: torch.device, dtype: torch.dtype = torch.float32, plain: bool = True) -> Self:
        """A frozen copy on `device`. Gradients can pass through a plain one that was made outside of inference mode."""
        copied = copy.deepcopy(self)
        copied.dtype, copied.plain = dtype, plain
        return copied.requires_grad_(False).to(device).to(memory_format=fast.fast_format(torch.device(device), dtype))

    def in_float32(self) -> Self:
        """The same network, which shares its weights, computing in float32."""
        shared = copy.copy(self)
        shared.dtype = torch.float32
        return shared

    @property
    def weights_device(self) -> torch.device:
        """The device that the weights are on. Not named `device`: ComfyUI sets an attribute of that name on models."""
        return next(self.parameters()).device

    def sample(self) -> Tensor:
        """An empty tensor on the device, and in the number type, that the network computes in."""
        return torch.empty(0, dtype=self.dtype, device=self.weights_device)

    def layer_names(self) -> list[str]:
        """The convolutions of a network file in their order."""
        return [name for name, module in self.named_modules() if isinstance(module, nn.Conv2d)]

    def convolve(self, layer: Convolution, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Compute a layer of this network, as `plain` says; every convolution of a network is computed here."""
        return layer(x, bias) if self.plain else fast.convolve(layer, x, self._kernels, bias)

    def convolve_flat(self, layer: Convolution, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`convolve` of flat features, given as one pixel `(1, C, 1, 1)`, whose result is one pixel too.

        It is computed on the device of `x`, on which a network for use keeps what it needs for that.
        """

        def summed(weight: Tensor) -> Tensor:
            return weight.sum((2, 3), keepdim=True)

        if self.plain:
            return F.conv2d(x, summed(layer.weight), layer.bias if bias is None else bias)
        kernel, own = self._kernels.of(
            layer, ("flat", x.device), lambda weight: [part.to(x.device) for part in (summed(weight), layer.bias.detach())]
        )
        return F.conv2d(x, kernel, own if bias is None else bias)

    def in_bands(self, layers: Callable[[Tensor], Tensor], x: Tensor, halo: int, scale: float, values_per_row: int) -> Tensor:
        """`layers(x)`, on a CPU by `fast.in_bands` unless the network is plain."""
        if self.plain or x.device.type != "cpu":
            return layers(x)
        return fast.in_bands(layers, x, halo, scale, values_per_row)

    @contextlib.contextmanager
    def _computing(self, *inputs: Tensor) -> Iterator[None]:
        """Ignore the caller's autocast: a network for use computes in its own number type, and so does a plain one in 16 bits,
        whose constants (`half.py`) autocast would round.

        Raises AdainError if gradients are needed and the network is not plain.
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
        self._kernels.clear()  # the weights move, or change their type
        return super()._apply(fn, recurse)


class Encoder(Network):
    """Base of the encoders: they turn a picture into features at named layers.

    `levels` lists the layers on which AdaIN acts, shallow first; `layers` the names of all layers whose features are
    available, in the order of their computation. `perceptual`: whether losses of its features, at `loss_layers`, measure how
    similar pictures look. `fingerprint` identifies the network by its weights.
    """

    role = "encoder"
    levels: tuple[Level, ...]
    layers: tuple[str, ...]
    perceptual: ClassVar[bool] = False

    def __init__(self, config: dict):
        super().__init__(config)
        self.fingerprint = ""

    @property
    def loss_levels(self) -> tuple[Level, ...]:
        """The layers that losses compare, shallow first."""
        return self.levels

    @property
    def loss_layers(self) -> tuple[str, ...]:
        """The names of the `loss_levels`."""
        return tuple(level.name for level in self.loss_levels)

    def for_losses(self, plain: bool = False) -> Self:
        """A frozen copy in float32 whose levels are the `loss_levels`: a style of it has the statistics of each."""
        copied = self.copy_for(self.weights_device, plain=plain)
        copied.levels = self.loss_levels
        return copied

    def encode(self, images: Tensor) -> list[Tensor]:
        """The levels of RGB pictures `(B, 3, H, W)` in [0, 1], shallow first; float32, or float64 in that `dtype`.

        In 16 bits only the pictures' difference from about their mean colour is computed (`half.py`). Pixels far outside
        [0, 1] may overflow float16; `in_float32` has room for them. The pictures may be on the CPU.
        """
        here = to_device(images, self.weights_device)
        names = [level.name for level in self.levels]
        with self._computing(here):
            if self.dtype.itemsize > 2:
                return self._listed(here.to(self.dtype), names, Arithmetic(self.convolve))
            flat = self._flat(images, here, names)
            difference = (here.float() - flat.color).to(self.dtype)
            differences = self._listed(difference, names, AroundColor(self.convolve, flat.bounds))
            return [each + x for each, x in zip(differences, flat.features, strict=True)]

    def _flat(self, images: Tensor, here: Tensor, names: Sequence[str]) -> FlatPicture:
        """A flat picture of about the mean colour of `images`, of which `here` is the copy on the network's device.

        It is kept for the next pictures of about this colour, if that can be told without waiting for a GPU. It is computed on
        the CPU then, since a GPU takes longer to begin each of its operations than the CPU for all of one pixel.
        """

        def made(color: Tensor) -> FlatPicture:
            like = here.new_empty(0, dtype=self.dtype)
            return flat_picture(color, partial(self._listed, color, names), self.convolve_flat, like)

        if self.plain or images.device.type != "cpu":
            return made(here.float().mean((0, 2, 3), keepdim=True))
        first = next(module for module in self.modules() if isinstance(module, Convolution))
        kept = self._kernels.of(first, (self.dtype, *names), lambda weight: {})
        if (place := near_color(images)) not in kept:
            if len(kept) == KEPT_COLORS:
                kept.clear()
            kept[place] = made(torch.tensor(place).mul(GRAIN).view(1, 3, 1, 1))
        return kept[place]

    def features(self, images: Tensor, layers: Sequence[str]) -> list[Tensor]:
        """Features of RGB pictures `(B, 3, H, W)` in [0, 1] at the named layers, in their order, of the type `dtype`.

        Raises AdainError for a layer that the encoder does not have.
        """
        if unknown := [name for name in layers if name not in self.layers]:
            raise AdainError(f"the encoder {self.name!r} has no layer {unknown[0]!r}; it has {', '.join(self.layers)}.")
        with self._computing(images):
            return self._listed(images.to(self.dtype), layers, Arithmetic(self.convolve))

    def _listed(self, x: Tensor, names: Sequence[str], arithmetic: Arithmetic) -> list[Tensor]:
        """The `activations` in the order of `names`."""
        found = self.activations(x, names, arithmetic)
        return [found[name] for name in names]

    def activations(self, x: Tensor, names: Collection[str], arithmetic: Arithmetic) -> dict[str, Tensor]:
        """The features of pictures `x` at the layers `names`, every convolution computed by `arithmetic`."""
        raise NotImplementedError

    def load(self, state: State) -> None:
        super().load(state)
        self.fingerprint = fingerprint(state, self.layer_names())


class Decoder(Network):
    """Base of the decoders: they turn features into a picture, without normalization.

    `encoder_fingerprint` and `encoder_name` identify the encoder whose features it reads. `channels` are those of the levels,
    shallow first; `stride` is that of the coarsest level in pixels. `centred`: whether 16 bits compute the features' difference
    from their means (`half.py`), which is a little slower, and which a deep decoder needs to be precise. `textured`: whether it
    reads the texture.
    """

    role = "decoder"
    stride: int
    channels: tuple[int, ...]
    centred: ClassVar[bool] = False
    textured: ClassVar[bool] = False

    def __init__(self, config: dict):
        super().__init__(config)
        self.encoder_fingerprint = ""
        self.encoder_name = ""

    @classmethod
    def for_encoder(cls, encoder: Encoder, blocks: Sequence[int] | None = None) -> Self:
        """A new decoder for the features of `encoder`, with `blocks` residual blocks at each stride (if it has any).

        Raises AdainError for numbers of blocks that do not fit.
        """
        raise NotImplementedError

    def forward(self, features: Sequence[Tensor], texture: Texture = NO_TEXTURE) -> Tensor:
        """Pictures `(B, 3, H, W)`, not clamped, from one tensor of features per level, shallow first; float32.

        H and W are the features' size times their stride, which may be a little more than the content's. Decoders
        that are not `textured` ignore the texture.
        """
        with self._computing(*features):
            if self.dtype.itemsize > 2 or not self.centred:
                pictures = self.draw([level.to(self.dtype) for level in features], Arithmetic(self.convolve), texture)
                return pictures if self.dtype == torch.float64 else pictures.float()
            means = [level.float().mean((0, 2, 3), keepdim=True) for level in features]
            flat = FlatColor(self.convolve_flat)
            self.draw(means, flat, NO_TEXTURE)
            differences = [(level.float() - mean).to(self.dtype) for level, mean in zip(features, means, strict=True)]
            bounds = split(bounds_of(flat.constants).to(self.dtype), flat.constants)
            return self.draw(differences, AroundColor(self.convolve, bounds, flat.constants), texture)

    def draw(self, features: Sequence[Tensor], arithmetic: Arithmetic, texture: Texture) -> Tensor:
        """The pictures of `features`, every convolution computed by `arithmetic`."""
        raise NotImplementedError

    def fit_inverse(self, encoder: Encoder, images: Tensor) -> None:
        """Make this the inverse of `encoder` on RGB `images` `(B, 3, H, W)` in [0, 1], in closed form, to begin a training.

        Raises AdainError for an architecture without a closed form.
        """
        raise AdainError(f"a decoder of the kind {self.architecture} has no closed form; start from something else.")

    @classmethod
    def has_inverse(cls) -> bool:
        """Whether the architecture has a `fit_inverse`."""
        return cls.fit_inverse is not Decoder.fit_inverse


@dataclass(frozen=True)
class Architecture:
    """Both halves of an architecture, registered under its name."""

    encoder: type[Encoder]
    decoder: type[Decoder]


def fingerprint(state: State, layers: Sequence[str]) -> str:
    """SHA-256 of a network's float32 biases in layer order, then of its kernels' shapes as text.

    Biases stay float32 in every file, so that copies of different precision have the same fingerprint.
    """
    digest = hashlib.sha256()
    for layer in layers:
        digest.update(state[f"{layer}.bias"].float().numpy().astype("<f4").tobytes())
    for layer in layers:
        digest.update(str(tuple(state[f"{layer}.weight"].shape)).encode())
    return digest.hexdigest()


def initialize(network: nn.Module, seed: int) -> None:
    """Draw He-normal kernels; residual blocks begin near the identity, a decoder's pictures near mid-grey.

    Raises AdainError for a seed out of range, as `check_seed` does.
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
    """Raise AdainError for a seed below 0 or of more than 64 bits; PyTorch's generators refuse these."""
    if not 0 <= seed < 2**64:
        raise AdainError(f"the seed is {seed}; give a whole number from 0 to 2^64 - 1.")


def whole_numbers(config: dict, name: str, least: int, most: int) -> list[int]:
    """The list `name` in a network's description, a number for each level. Raises AdainError if it is damaged."""
    numbers = config.get(name)
    if not isinstance(numbers, list) or not 1 <= len(numbers) <= MOST_LEVELS:
        raise AdainError(f"its {name} are not a list of one to {MOST_LEVELS} numbers.")
    if not all(type(number) is int and least <= number <= most for number in numbers):
        raise AdainError(f"its {name} are not all whole numbers from {least} to {most}.")
    return numbers


def check_weights(state: State, expected: dict[str, tuple[int, ...]]) -> None:
    """Raise AdainError unless `state` has exactly the names and shapes `expected`, and finite numbers."""
    for name in sorted(expected.keys() | state.keys()):
        found = tuple(state[name].shape) if name in state else None
        if found != expected.get(name):
            raise AdainError(
                f"the weights do not fit the architecture: {name} is {found or 'missing'}"
                f", but {expected.get(name) or 'nothing'} is expected."
            )
        if state[name].dtype not in STORED_DTYPES:
            raise AdainError(f"{name} is of {state[name].dtype}; convert the weights to float32 or float16.")
        if not torch.isfinite(state[name].float()).all():  # of float64, numbers may be too large for float32
            raise AdainError(f"the weights hold values that are not finite in {name}; the file is damaged.")


def load_checked(module: nn.Module, state: State) -> None:
    """`load_state_dict` after `check_weights`; a module on the meta device gets its memory only then."""
    check_weights(state, shapes(module))
    if next(module.parameters()).is_meta:
        module.to_empty(device="cpu").float()
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's weights by their names."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
