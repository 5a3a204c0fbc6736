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


@dataclass(frozen=True)
class Lesson:
    """Pictures `(B, 3, S, S)` and the loss network's features of them, at each layer that is taught."""

    pictures: Tensor
    features: list[Tensor]


class EncoderObjective(nn.Module):
    """The share of the loss network's features that the encoder's do not explain, summed over its layers.

    The encoder's layers, at strides 2, 4 and 8, are compared with the loss network's `loss_layers` after the first, which
    have these strides in a VGG-19. Each is mapped there by the affine map of least squares, in closed form on running second
    moments. `running` are these moments, of each layer: the mean products of its features, and a 1, with themselves and with
    the loss network's, and the latter's mean squares. `dtype` is the type of the encoder's activations. Raises AdainError for
    an encoder with more layers than the loss network can teach.
    """

    def __init__(self, loss_network: Encoder, encoder: Encoder, dtype: torch.dtype):
        super().__init__()
        self.loss_network, self.encoder, self.dtype = loss_network, encoder, dtype
        self.layers = loss_network.loss_layers[1 : 1 + len(encoder.layers)]
        if len(self.layers) < len(encoder.layers):
            raise AdainError(f"{loss_network.name!r} can teach {len(self.layers)} strides; give no more channels.")
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
            self.running = moments
        losses = {
            name: (x @ linear_map(*known) - y).square().sum(1).mean() / variance(*known)
            for name, (x, y), known in zip(self.layers, pairs, moments, strict=True)
        }
        return reduce(torch.add, losses.values()), losses


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
