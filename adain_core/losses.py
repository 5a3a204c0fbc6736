"""The losses of trainings and measurements, as functions of features or pictures.

The paper writes Euclidean norms; its published code, and all code since, takes mean squared errors. So does this file.
Features may be 16-bit; every loss is summed in float32 or better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import AdainError
from .statistics import ChannelStatistics, channel_statistics

GRID_PERIOD = 8  # pixels; the stride of the coarsest features: a network without noise repeats with this period


def content_loss(features: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of features `(B, C, H, W)` to the AdaIN target, or to the content's features, of equal shape.

    Source: Huang and Belongie 2017, equation 12.
    """
    return F.mse_loss(features.float(), target.float())


def style_loss(
    features: Sequence[Tensor], statistics: Sequence[ChannelStatistics], weights: Sequence[float] | None = None
) -> Tensor:
    """Sum over layers of `mse(mu, mu_s) + mse(sigma, sigma_s)`, each layer times its weight (default 1).

    `features` are `(B, C, H, W)` of each layer, `statistics` those of the style, of batch B or 1. Raises ValueError where
    the numbers of layers differ. Source: Huang and Belongie 2017, equation 13.
    """
    pairs = zip(features, statistics, strict=True)
    return _weighted_sum([statistics_loss(channel_statistics(x), target) for x, target in pairs], weights)


def statistics_loss(own: ChannelStatistics, target: ChannelStatistics) -> Tensor:
    """`mse(mu, mu_s) + mse(sigma, sigma_s)`: the style loss of one layer, whose batches are equal, or one of them 1."""
    return _mean_square(own.mean - target.mean) + _mean_square(own.std - target.std)


def gram_matrix(x: Tensor) -> Tensor:
    """Mean product of every two channels of `x` `(B, C, H, W)` over its positions, `(B, C, C)`.

    The mean, not the sum: it does not depend on the size of the picture. Source: Gatys, Ecker and Bethge 2016, equation 3.
    """
    flat = x.float().flatten(2)
    return flat @ flat.mT / flat.shape[2]


def gram_loss(features: Sequence[Tensor], grams: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """Sum over layers of the mean squared error of Gram matrices, each layer times its weight (default 1).

    `features` are `(B, C, H, W)` of each layer, `grams` the style's `gram_matrix` of each. Raises ValueError where the
    numbers of layers differ. Source: Gatys, Ecker and Bethge 2016, equations 4 and 5.
    """
    return _weighted_sum([_mean_square(gram_matrix(x) - gram) for x, gram in zip(features, grams, strict=True)], weights)


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of vertical neighbours plus that of horizontal ones, of pictures `(B, C, H, W)`."""
    images = images.float()
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def fine_part(images: Tensor) -> Tensor:
    """What pictures `(B, C, H, W)` have beyond themselves reduced to a `GRID_PERIOD`th and enlarged again, in float32."""
    images = images.float()
    reduced = [max(1, side // GRID_PERIOD) for side in images.shape[2:]]
    coarse = F.interpolate(images, reduced, mode="bicubic", antialias=True)
    return images - F.interpolate(coarse, images.shape[2:], mode="bicubic", antialias=True)


def grid_variance(fine: Tensor) -> Tensor:
    """Variance `(B, C)` of what repeats every `GRID_PERIOD` pixels in `fine` `(B, C, H, W)`, whose sides are at least that."""
    cells = fine.unfold(2, GRID_PERIOD, GRID_PERIOD).unfold(3, GRID_PERIOD, GRID_PERIOD)
    return cells.mean((2, 3)).var((2, 3), correction=0)


def grid_loss(images: Tensor) -> Tensor:
    """Mean `grid_variance` of the fine part of pictures `(B, C, H, W)`: of the mesh that strided networks draw."""
    return grid_variance(fine_part(images)).mean()


def consistency_loss(images: Tensor, shifted: Tensor, offset: tuple[int, int] = (0, 0)) -> Tensor:
    """Mean squared error where two results overlap: `shifted` begins `offset` = (down, right) pixels into `images`.

    Both are `(B, C, H, W)`, of any H and W. An offset of (0, 0) compares two results of the same place, such as those of a
    picture and its noised copy. Raises AdainError if nothing overlaps.
    """
    (top, left), (mirrored_top, mirrored_left) = [max(0, o) for o in offset], [max(0, -o) for o in offset]
    images, shifted = images[:, :, top:, left:], shifted[:, :, mirrored_top:, mirrored_left:]
    height, width = (min(a, b) for a, b in zip(images.shape[2:], shifted.shape[2:], strict=True))
    if 0 in (height, width):
        raise AdainError(f"nothing overlaps at the offset {offset}; give an offset smaller than the pictures.")
    return F.mse_loss(shifted[:, :, :height, :width].float(), images[:, :, :height, :width].float())


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean()


def _weighted_sum(parts: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    weights = [1.0] * len(parts) if weights is None else weights
    return torch.stack([weight * part for weight, part in zip(weights, parts, strict=True)]).sum()
