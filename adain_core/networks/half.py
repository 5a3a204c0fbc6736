"""16 bits around the mean colour: only a picture's difference from a flat picture of that colour is computed in 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..crossing import to_device
from .layers import Arithmetic, Convolution, Convolve

GRAIN = 1 / 64  # the distance of colours that count as the same; differences of as much are computed precisely enough
EVERY = 8  # rows and columns of which one is looked at for a picture's colour


Constants = dict[nn.Module, Tensor]


class FlatColor(Arithmetic):
    """Computes a flat picture, of one colour, as a picture of one pixel in float32; `constants` holds the result
    `(1, C, 1, 1)` of each convolution.
    """

    def __init__(self, convolve: Convolve):
        super().__init__(convolve)
        self.constants: Constants = {}

    def relu(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.linear(convolution, x).relu()

    def linear(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.constants.setdefault(convolution, super().linear(convolution, x))

    def rectified(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.constants.setdefault(module, x).relu()


def bounds_of(constants: Constants) -> Tensor:
    """`min(c, 0)` and `-max(c, 0)` of all constants `c`, one after the other, `(2, C, 1, 1)`."""
    # of all layers together, since each operation on a GPU takes time, however small
    constant = torch.cat(list(constants.values()), 1)
    below = constant.clamp(max=0)
    return torch.cat([below, below - constant])


def split(bounds: Tensor, constants: Constants) -> Constants:
    """The part of each of the `constants` in their `bounds_of`."""
    return dict(zip(constants, bounds.split([part.shape[1] for part in constants.values()], 1), strict=True))


class AroundColor(Arithmetic):
    """Computes a picture's difference from a flat picture in 16 bits; `bounds` are the `bounds_of` the results of `FlatColor`
    for that, each layer's, in 16 bits, and `constants` these results, for a network with an `output`.

    In flat areas the difference is small, and so is its rounding error, which AdaIN enlarges together with it. Where the
    difference `d` has rectified features, `relu(c + d) - relu(c) = max(d + min(c, 0), -max(c, 0))`: `c` matters only where `d`
    is as large, so that it may be rounded too. Sums, pooling and cropping of differences give the differences of the results.
    """

    def __init__(self, convolve: Convolve, bounds: Constants, constants: Constants | None = None):
        super().__init__(convolve)
        self.bounds, self.constants = bounds, constants or {}

    def relu(self, convolution: Convolution, x: Tensor) -> Tensor:
        below, least = self.bounds[convolution]
        return torch.maximum(self.convolve(convolution, x, below.flatten()), least)

    def linear(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.convolve(convolution, x, x.new_zeros(convolution.out_channels))

    def rectified(self, module: nn.Module, x: Tensor) -> Tensor:
        below, least = self.bounds[module]
        return torch.maximum(x + below, least)

    def output(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.linear(convolution, x) + self.constants[convolution]  # in float32


@dataclass(frozen=True)
class FlatPicture:
    """A flat picture of the `color` `(1, 3, 1, 1)`: the `features` of its layers, and the `bounds` that `AroundColor` needs."""

    color: Tensor
    features: list[Tensor]
    bounds: Constants


def flat_picture(
    color: Tensor, activations: Callable[[FlatColor], list[Tensor]], convolve: Convolve, like: Tensor
) -> FlatPicture:
    """The flat picture of a colour, whose `activations` are computed where it lies, on the device and in the type of `like`."""
    flat = FlatColor(convolve)
    features = activations(flat)
    parts = [color, *features, bounds_of(flat.constants)]
    if color.device != like.device:  # they cross together
        together = to_device(torch.cat([part.flatten() for part in parts]), like.device)
        sizes = [part.numel() for part in parts]
        parts = [x.view(part.shape) for x, part in zip(together.split(sizes), parts, strict=True)]
    color, *features, bounds = parts
    return FlatPicture(color, features, split(bounds.to(like.dtype), flat.constants))


def near_color(images: Tensor) -> tuple[int, ...]:
    """About the mean colour of RGB pictures `(B, 3, H, W)`, in multiples of `GRAIN`."""
    color = images[:, :, ::EVERY, ::EVERY].float().mean((0, 2, 3))
    return tuple(round(number / GRAIN) for number in color.tolist())
