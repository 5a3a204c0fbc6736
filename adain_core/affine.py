"""AdaIN as an affine map of features: over the components of a style, their masks, and the windows of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor

from .images import resize_mask
from .statistics import ChannelStatistics, affine_pair
from .style import Component
from .tiling import Window


@dataclass(frozen=True)
class AffineMap:
    """AdaIN on one level: for each component of a style, `scale` and `shift` `(B, C)` and a `gain` at each position."""

    scales: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]

    def __call__(self, x: Tensor, pictures: slice, window: Window, stride: int) -> Tensor:
        """The map of features `x`, of some `pictures` of the batch in a window: `x + sum gain ((scale - 1) x + shift)`."""
        rows, columns = window.positions(stride)

        def part(tensor: Tensor) -> Tensor:
            tensor = tensor if len(tensor) == 1 else tensor[pictures]
            return (tensor if tensor.shape[2:] == (1, 1) else tensor[:, :, rows, columns]).to(x.device)

        scale, shift = x.new_ones(1, dtype=torch.float32), x.new_zeros(1, dtype=torch.float32)
        for component_scale, component_shift, gain in zip(self.scales, self.shifts, map(part, self.gains), strict=True):
            scale = scale + gain * (part(component_scale[:, :, None, None]) - 1)
            shift = shift + gain * part(component_shift[:, :, None, None])
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)


def affine_map(
    components: Sequence[Component],
    level: int,
    statistics: Sequence[ChannelStatistics],
    positions: Sequence[int],
    alpha: float,
    regional: bool,
) -> AffineMap:
    """AdaIN on a level whose features have the size `positions` (h, w), given the content's `statistics` on this level.

    The first are the whole picture's. If `regional`, those inside the mask of each component with a mask follow.
    """
    of_picture, *others = statistics
    of_regions = iter(others)
    pairs = []
    for component in components:
        has_region = regional and component.mask is not None
        content = _region_or_picture(next(of_regions), of_picture) if has_region else of_picture
        pairs.append(affine_pair(content, component.levels[level]))
    scales, shifts = zip(*pairs, strict=True)
    return AffineMap(scales, shifts, tuple(alpha * gain for gain in gains(components, positions)))


def gains(components: Sequence[Component], size: Sequence[int]) -> list[Tensor]:
    """`c * a_k` of each component, `(B, 1, h, w)`, or `(B, 1, 1, 1)` where no component has a mask."""
    weights = [component.weight[:, None, None, None] for component in components]
    masks = [
        torch.ones_like(weight) if component.mask is None else resize_mask(component.mask, size)
        for component, weight in zip(components, weights, strict=True)
    ]
    parts = [weight * mask for weight, mask in zip(weights, masks, strict=True)]
    # A style of weight 0 (the end of a sweep) covers nothing.
    covered = (mask * (weight > 0) for weight, mask in zip(weights, masks, strict=True))
    coverage, total = reduce(torch.add, covered).clamp(max=1), reduce(torch.add, parts)
    return [coverage * part / total.where(total > 0, torch.ones_like(total)) for part in parts]


def _region_or_picture(region: ChannelStatistics, picture: ChannelStatistics) -> ChannelStatistics:
    """The statistics of a region; those of the picture if the region is smaller than one position."""
    return region.map(partial(torch.where, region.count >= 1), picture)
