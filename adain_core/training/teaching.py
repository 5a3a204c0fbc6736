"""Teaching a small encoder to see as the loss network sees."""

from __future__ import annotations

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
    """Pictures `(B, 3, S, S)` and the loss network's features of them, at each layer that is taught."""

    pictures: Tensor
    features: list[Tensor]


class EncoderObjective(nn.Module):
    """The share of the loss network's features that the encoder's do not explain, summed over its layers.

    Each of the encoder's layers is compared with the one of the loss network's `loss_layers` that has its stride: in a VGG-19
    these have 1, 2, 4 and 8. It is mapped there by the affine map of least squares, in closed form on running second moments.
    `running` are these moments, of each layer: the mean products of its features, and a 1, with themselves and with the loss
    network's, and the latter's mean squares. `dtype` is the type of the encoder's activations. Raises AdainError for a layer
    of a stride that the loss network does not have.
    """

    def __init__(self, loss_network: Encoder, encoder: Encoder, dtype: torch.dtype):
        super().__init__()
        self.loss_network, self.encoder, self.dtype = loss_network, encoder, dtype
        self.layers = _layers_of_its_strides(loss_network, encoder)
        self.running: list[list[Tensor]] = []

    @torch.no_grad()
    def prepare(self, content: Tensor, style: Tensor) -> Lesson:
        """Contents and styles `(B, 3, S, S)` as pictures to learn from."""
        pictures = torch.cat([content, style]).contiguous(memory_format=torch.channels_last)
        return Lesson(pictures, self.loss_network.features(pictures, self.layers))

    def forward(self, lesson: Lesson, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the unexplained shares, and each by the name of the loss network's layer."""
        device = lesson.pictures.device.type
        with torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32):
            found = self.encoder.features(lesson.pictures, self.encoder.layers)
        pairs = [(_with_one(_positions(x)), _positions(y)) for x, y in zip(found, lesson.features, strict=True)]
        with torch.no_grad():
            moments = [[x.T @ x / len(x), x.T @ y / len(x), y.square().mean(0)] for x, y in pairs]
            if self.running:
                moments = [
                    [torch.lerp(new, old, MEMORY) for new, old in zip(*pair, strict=True)]
                    for pair in zip(moments, self.running, strict=True)
                ]
        losses = {
            name: (x @ linear_map(*known) - y).square().sum(1).mean() / variance(*known)
            for name, (x, y), known in zip(self.layers, pairs, moments, strict=True)
        }
        total = reduce(torch.add, losses.values())
        if total.isfinite():  # else the step is skipped
            self.running = moments
        return total, losses


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


def linear_map(squares: Tensor, products: Tensor, powers: Tensor) -> Tensor:
    """The least-squares map `(C + 1, K)` of features and a 1, given their mean products `(C + 1, C + 1)` and those with the
    K wanted features; nearly singular systems are held back by a small ridge.
    """
    ridge = RIDGE * squares.diagonal()[:-1].mean()
    return torch.linalg.solve(squares + ridge * torch.eye(len(squares), device=squares.device), products)


def variance(squares: Tensor, products: Tensor, powers: Tensor) -> Tensor:
    """The total variance of the wanted features, given their mean squares `(K,)` and, as the last products, their means."""
    return (powers - products[-1].square()).sum()


def _positions(x: Tensor) -> Tensor:
    """Features `(B, C, h, w)` as float32 `(B h w, C)`."""
    return x.float().movedim(1, -1).flatten(0, 2)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)
