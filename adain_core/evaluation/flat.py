"""How a decoder paints flat areas: the strength of the texture, and the part of it that is a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

SLOPE = 4  # pixels a side to which a content is reduced before it is enlarged again
PERIOD = 8  # pixels; the stride of the coarsest features: a network without noise repeats with this period


@dataclass(frozen=True)
class FlatArea:
    """The texture and the grid in the result of a flat content.

    `texture`: the standard deviation of the fine part, in grey levels of 255. `grid`: the share of that part's variance that
    repeats every `PERIOD` pixels.
    """

    texture: float
    grid: float


def slope_of(content: Tensor) -> Tensor:
    """Pictures `(B, 3, H, W)` in [0, 1] reduced to their slow changes of colour."""
    return _enlarged(_resized(content, (SLOPE, SLOPE)), content).clamp(0, 1)


def flat_area(result: Tensor) -> FlatArea:
    """The texture and grid of a result `(1, 3, H, W)` in [0, 1] of a content without detail, H and W multiples of `PERIOD`.

    Its fine part is the difference from the same picture, reduced to an eighth of its sides and enlarged again.
    """
    grey = 255 * result.float().mean(1, keepdim=True)
    fine = (grey - _enlarged(_resized(grey, [side // PERIOD for side in grey.shape[2:]]), grey))[0, 0]
    cell = fine.unfold(0, PERIOD, PERIOD).unfold(1, PERIOD, PERIOD).mean((0, 1))
    variance = fine.var(correction=0)
    return FlatArea(variance.sqrt().item(), (cell.var(correction=0) / variance.clamp_min(1e-12)).item())


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(images, size=list(size), mode="bicubic", antialias=True)


def _enlarged(images: Tensor, like: Tensor) -> Tensor:
    return _resized(images, list(like.shape[2:]))
