"""Teaching a small encoder to see as the loss network sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor, nn

from ..errors import AdainError
from ..networks import Encoder

MEMORY = 0.98  # of the running moments, at each step
RIDGE = 1e-4  # of the mean square of a layer's features
PROBE = 64  # pixels a side of a picture on which strides show


@dataclass(frozen=True)
class Lesson:
    """Pictures `(B, 3, S, S)`, contents and then as many styles, and the loss network's features of them, at each layer that is
    taught.
    """

    pictures: Tensor
    features: list[Tensor]

    def pairs(self) -> list[Lesson]:
        """Each content with its style as a lesson; copies, so that keeping one does not keep the whole lesson's memory."""
        count = len(self.pictures) // 2
        return [self._of([index, count + index]) for index in range(count)]

    @staticmethod
    def combined(contents: Sequence[Lesson], styles: Sequence[Lesson]) -> Lesson:
        """The contents of some pairs with the styles of as many others."""
        chosen = [pair._of([0]) for pair in contents] + [pair._of([1]) for pair in styles]
        features = zip(*(each.features for each in chosen), strict=True)
        return Lesson(torch.cat([each.pictures for each in chosen]), [torch.cat(layer) for layer in features])

    def _of(self, places: list[int]) -> Lesson:
        def chosen(x: Tensor) -> Tensor:
            # a list of indices would be sent to a GPU, which would be waited for
            return torch.cat([x[place : place + 1] for place in places])

        return Lesson(chosen(self.pictures), list(map(chosen, self.features)))


class FeatureMaps:
    """The affine maps of an encoder's layers to those of the loss network that have their strides: in a VGG-19 1, 2, 4 and 8.

    They are those of least squares, in closed form on running second moments. `layers` are the loss network's; `running` the
    moments, of each layer: the mean products of the encoder's features, and a 1, with themselves and with the loss network's,
    and the latter's mean squares. Raises AdainError for an encoder with a stride that the loss network does not have.
    """

    def __init__(self, loss_network: Encoder, encoder: Encoder):
        self.layers = _layers_of_its_strides(loss_network, encoder)
        self.running: list[list[Tensor]] = []

    def unexplained(self, features: Sequence[Tensor], wanted: Sequence[Tensor]) -> dict[str, Tensor]:
        """The share of the variance of the `wanted` features that the encoder's do not explain, by the layers' names.

        Both are `(B, C, h, w)` for each layer. Shares that are not finite leave the moments as they were.
        """
        pairs = [(_with_one(_positions(x)), _positions(y)) for x, y in zip(features, wanted, strict=True)]
        with torch.no_grad():
            moments = [[x.T @ x / len(x), x.T @ y / len(x), y.square().mean(0)] for x, y in pairs]
            moments = self._merged(moments, lambda new, old: torch.lerp(new, old, MEMORY))
        shares = {
            name: (x @ linear_map(squares, products) - y).square().sum(1).mean() / variance(products, powers)
            for name, (x, y), (squares, products, powers) in zip(self.layers, pairs, moments, strict=True)
        }
        finite = reduce(torch.add, shares.values()).isfinite()  # else the step is skipped
        if self.running or finite.cpu():  # a GPU is waited for in the first step alone
            self.running = self._merged(moments, lambda new, old: torch.where(finite, new, old))
        return shares

    def _merged(self, moments: list[list[Tensor]], merge: Callable[[Tensor, Tensor], Tensor]) -> list[list[Tensor]]:
        """New moments merged with the running ones, where there are any."""
        if not self.running:
            return moments
        pairs = zip(moments, self.running, strict=True)
        return [[merge(new, old) for new, old in zip(*pair, strict=True)] for pair in pairs]


class EncoderObjective(nn.Module):
    """The share of the loss network's features that the encoder's do not explain, summed over the encoder's layers.

    `dtype` is the type of the encoder's activations. Raises AdainError as `FeatureMaps` does.
    """

    def __init__(self, loss_network: Encoder, encoder: Encoder, dtype: torch.dtype):
        super().__init__()
        self.loss_network, self.encoder, self.dtype = loss_network, encoder, dtype
        self.maps = FeatureMaps(loss_network, encoder)

    @torch.no_grad()
    def prepare(self, content: Tensor, style: Tensor) -> Lesson:
        """Contents and styles `(B, 3, S, S)` as pictures to learn from."""
        pictures = torch.cat([content, style]).contiguous(memory_format=torch.channels_last)
        return Lesson(pictures, self.loss_network.features(pictures, self.maps.layers))

    def forward(self, lesson: Lesson, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the unexplained shares, and each by the name of the loss network's layer."""
        device = lesson.pictures.device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            found = self.encoder.features(lesson.pictures, self.encoder.layers)
        losses = self.maps.unexplained(found, lesson.features)
        return reduce(torch.add, losses.values()), losses


@torch.no_grad()
def _layers_of_its_strides(loss_network: Encoder, encoder: Encoder) -> list[str]:
    """For each of the encoder's layers the last of the loss network's that has its stride."""
    picture = next(encoder.parameters()).new_zeros(1, 3, PROBE, PROBE)
    found = zip(loss_network.loss_layers, loss_network.features(picture, loss_network.loss_layers), strict=True)
    names = {x.shape[2]: name for name, x in found}
    sides = {name: x.shape[2] for name, x in zip(encoder.layers, encoder.features(picture, encoder.layers), strict=True)}
    if strange := next((name for name, side in sides.items() if side not in names), None):
        raise AdainError(f"{loss_network.name!r} cannot teach {strange}; give fewer channels, or another loss encoder.")
    return [names[side] for side in sides.values()]


def linear_map(squares: Tensor, products: Tensor) -> Tensor:
    """The least-squares map `(C + 1, K)` of features and a 1, given their mean products `(C + 1, C + 1)` and those with the
    K wanted features; nearly singular systems are held back by a small ridge.
    """
    ridge = RIDGE * squares.diagonal()[:-1].mean()
    system = squares + ridge * torch.eye(len(squares), device=squares.device)
    return torch.linalg.solve_ex(system, products)[0]  # without a look at errors, for which a GPU would be waited for


def variance(products: Tensor, powers: Tensor) -> Tensor:
    """The total variance of the wanted features, given their mean squares `(K,)` and, as the last products, their means."""
    return (powers - products[-1].square()).sum()


def _positions(x: Tensor) -> Tensor:
    """Features `(B, C, h, w)` as float32 `(B h w, C)`."""
    return x.float().movedim(1, -1).flatten(0, 2)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
