"""How a decoder paints flat areas: the strength of the texture, and the part of it that is a regular grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..images import resize_to
from ..losses import fine_part, grid_variance

SLOPE = 4  # pixels a side to which a content is reduced before it is enlarged again


@dataclass(frozen=True)
class FlatArea:
    """The texture and the grid in the result of a flat content.

    `texture`: the standard deviation of the fine part, in grey levels of 255. `grid`: the share of that part's variance that
    repeats every `GRID_PERIOD` pixels.
    """

    texture: float
    grid: float


def slope_of(content: Tensor) -> Tensor:
    """Pictures `(B, 3, H, W)` in [0, 1] reduced to their slow changes of colour."""
    return resize_to(resize_to(content, (SLOPE, SLOPE)), content.shape[2:])


def flat_area(result: Tensor) -> FlatArea:
    """The texture and grid of a result `(1, 3, H, W)` in [0, 1] of a content without detail.

    H and W are at least `GRID_PERIOD`. The fine part is `losses.fine_part` of the grey picture.
    """
    fine = fine_part(255 * result.float().mean(1, keepdim=True))
    variance = fine.var(correction=0)
    return FlatArea(variance.sqrt().item(), (grid_variance(fine).mean() / variance.clamp_min(1e-12)).item())
