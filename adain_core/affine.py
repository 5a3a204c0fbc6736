"""AdaIN as an affine map of features: over the components of a style, their masks, and the windows of a picture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor

from .crossing import to_device
from .images import resize_mask, resize_smoothly
from .statistics import ChannelStatistics, affine_pair
from .style import Component, Style, mix_styles
from .tiling import Window

ROUNDING = 1e-6  # masks that fill a picture together may miss 1 by it


@dataclass(frozen=True)
class AffineMap:
    """AdaIN on one level: for each component of a style, `scale` and `shift` `(B, C)` and a `gain` at each position.

    Without masks there are no `gains`, and one scale and shift for all components together. Scales and shifts are on the
    content's device, gains, which may be as large as a clip, on the CPU.
    """

    scales: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]

    def __call__(self, x: Tensor, pictures: slice, window: Window, stride: int) -> Tensor:
        """The map of features `x`, of some `pictures` of the batch in a window: `x + sum gain ((scale - 1) x + shift)`."""

        def part(tensor: Tensor) -> Tensor:
            return to_device(window_of(tensor, pictures, window, stride), x.device)

        scales, shifts = ([part(each[:, :, None, None]) for each in pairs] for pairs in (self.scales, self.shifts))
        scale, shift = _weighted(scales, shifts, list(map(part, self.gains))) if self.gains else (scales[0], shifts[0])
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

    The first are the whole picture's. If `regional`, those inside the mask of each component with a mask follow. The style is
    on the CPU.
    """
    of_picture, *others = statistics
    of_regions = iter(others)
    pairs = []
    for component in components:
        has_region = regional and component.mask is not None
        content = _region_or_picture(next(of_regions), of_picture) if has_region else of_picture
        pairs.append(affine_pair(content, component.levels[level]))
    scales, shifts = zip(*pairs, strict=True)
    strengths = [alpha * gain for gain in gains(components, positions)]
    if any(component.mask is not None for component in components):
        return AffineMap(scales, shifts, tuple(strengths))
    if len(strengths) == 1 and (strengths[0] == 1).all():
        return AffineMap(scales, shifts, ())
    scale, shift = _weighted(scales, shifts, [to_device(gain[:, :, 0, 0], scales[0].device) for gain in strengths])
    return AffineMap((scale,), (shift,), ())


def _weighted(scales: Sequence[Tensor], shifts: Sequence[Tensor], gains: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The scale and the shift of the maps' differences from the identity, weighted by their gains."""
    scale = 1 + reduce(torch.add, (gain * (scale - 1) for gain, scale in zip(gains, scales, strict=True)))
    return scale, reduce(torch.add, map(torch.mul, gains, shifts))


def coverage(components: Sequence[Component], size: Sequence[int]) -> Tensor:
    """`c = min(1, sum m)` at each pixel of pictures of `size`: `(B, 1, H, W)`, or `(B, 1, 1, 1)` if no component has a mask."""
    covered = _coverage(components, [_mask(component, size, resize_smoothly) for component in components])
    return covered.where(covered < 1 - ROUNDING, torch.ones_like(covered))


def shown(content: Tensor, stylized: Tensor, covered: Tensor) -> Tensor:
    """The content where nothing is `covered`, going over to `stylized` where a sixteenth is.

    Beside a mask the decoder still sees the style, so that a soft mask would end in a line.
    """
    if covered.shape[2:] == (1, 1):
        return torch.where(covered > 0, stylized, content)
    return torch.lerp(content, stylized, (16 * covered).clamp(max=1))


def window_of(tensor: Tensor, pictures: slice, window: Window, stride: int) -> Tensor:
    """The part of a tensor `(B or 1, C, h, w)`, or `(B or 1, C, 1, 1)`, of some `pictures` of the batch in a window."""
    tensor = tensor if len(tensor) == 1 else tensor[pictures]
    return tensor if tensor.shape[2:] == (1, 1) else tensor[(..., *window.positions(stride))]


def gains(components: Sequence[Component], size: Sequence[int]) -> list[Tensor]:
    """`c * a_k` of each component, `(B, 1, h, w)`, or `(B, 1, 1, 1)` where no component has a mask."""
    masks = [_mask(component, size, resize_mask) for component in components]
    parts = [component.weight[:, None, None, None] * mask for component, mask in zip(components, masks, strict=True)]
    covered, total = _coverage(components, masks), reduce(torch.add, parts)
    return [covered * part / total.where(total > 0, torch.ones_like(total)) for part in parts]


def mask_size(components: Sequence[Component]) -> Sequence[int]:
    """The size (H, W) of the largest mask; one pixel if no component has a mask."""
    sizes = [component.mask.shape[2:] for component in components if component.mask is not None]
    return max(sizes, key=math.prod, default=(1, 1))


def interpolate_styles(first: Style, last: Style, share: Tensor) -> Style:
    """The styles on the way from one to another, each with `share` `(N,)` in [0, 1] of the last and the rest of the first.

    Each maps features to the weighted mean of what both styles map them to. A mix by `mix_styles` with masks covers all that
    either of them covers instead. Raises the errors of `mix_styles`.
    """
    share = share.float()
    shares = 1 - share, share
    mix = mix_styles([first, last], shares)
    if all(component.mask is None for component in mix.components):
        return mix
    masks = []
    for style, part in zip((first, last), shares, strict=True):
        masks += [part[:, None, None, None] * gain for gain in gains(style.components, mask_size(style.components))]
    weight = torch.full_like(share, 1 / len(masks))  # the masks hold the shares
    parts = zip(mix.components, masks, strict=True)
    return dataclasses.replace(mix, components=tuple(dataclasses.replace(c, weight=weight, mask=mask) for c, mask in parts))


def _mask(component: Component, size: Sequence[int], resized: Callable[[Tensor, Sequence[int]], Tensor]) -> Tensor:
    return component.weight.new_ones(1, 1, 1, 1) if component.mask is None else resized(component.mask, size)


def _coverage(components: Sequence[Component], masks: Sequence[Tensor]) -> Tensor:
    # A style of weight 0 (the end of a sweep) covers nothing.
    covered = (mask * (c.weight > 0)[:, None, None, None] for c, mask in zip(components, masks, strict=True))
    return reduce(torch.add, covered).clamp(max=1)


def _region_or_picture(region: ChannelStatistics, picture: ChannelStatistics) -> ChannelStatistics:
    """The statistics of a region; those of the picture if the region is smaller than one position."""
    return region.map(partial(torch.where, region.count >= 1), picture)
