"""Exact streaming: a picture is computed in tiles, with the same result as in one piece.

The result of a convolution at a position depends on pixels around it; how far these reach is a network's halo. A tile is
computed together with its halo and then cropped, and so has the values of the whole picture; padding happens only at the
picture's true borders.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .crossing import mark, to_device
from .devices import exact_float32, free_memory, is_out_of_memory, release_memory
from .errors import AdainError
from .images import LEAST_ALPHA, resize_mask
from .networks import Encoder
from .progress import tell
from .statistics import ChannelStatistics, channel_statistics

SMALLEST_TILE = 64
# In memory at once: the input, the padded input, the output and the convolution's work space.
COPIES = 4
KEPT = 8  # times what one layer holds is what all layers of a network hold for a gradient
# On GPUs, padding and convolutions count the values of a tensor in 32 bits with a sign, on Apple's its bytes in 32 bits.
MOST_VALUES, MOST_BYTES = (1 << 31) - (1 << 26), (1 << 32) - (1 << 27)  # less what padding adds
Result = TypeVar("Result")


class Pictures(Protocol):
    """Pictures `(B, 3, H, W)` that are read or written in parts: a tensor, or for example a file."""

    shape: torch.Size

    def __len__(self) -> int: ...

    def __getitem__(self, index: tuple[slice, slice, slice, slice], /) -> Tensor: ...

    def __setitem__(self, index: tuple[slice, slice, slice, slice], part: Tensor, /) -> None: ...


@dataclass(frozen=True)
class Window:
    """A part of a picture in pixels, from `top` up to `bottom` and from `left` up to `right`."""

    top: int
    bottom: int
    left: int
    right: int

    def grow(self, halo: int, stride: int, size: Sequence[int]) -> Window:
        """The window with at least `halo` pixels more on each side, in multiples of `stride`, inside the picture."""
        halo = -(-halo // stride) * stride
        return Window(
            max(0, self.top - halo), min(size[0], self.bottom + halo), max(0, self.left - halo), min(size[1], self.right + halo)
        )

    def positions(self, stride: int) -> tuple[slice, slice]:
        """The rows and columns of the features of this `stride` that the window covers."""
        return slice(self.top // stride, -(-self.bottom // stride)), slice(self.left // stride, -(-self.right // stride))

    def inside(self, outer: Window, stride: int) -> tuple[slice, slice]:
        """The window's rows and columns in the features, of this `stride`, of the larger window `outer`."""
        rows, columns = self.positions(stride)
        top, left = outer.top // stride, outer.left // stride
        return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


@dataclass(frozen=True)
class Plan:
    """How much is computed at once: `pictures` of a batch, in tiles of `side` pixels."""

    pictures: int
    side: int

    def smaller(self) -> Plan | None:
        """Half as many pictures, or for one picture tiles of half the side; None if these would be below `SMALLEST_TILE`."""
        if self.pictures > 1:
            return Plan(self.pictures // 2, self.side)
        return Plan(1, self.side // 2) if self.side >= 2 * SMALLEST_TILE else None

    def parts(self, count: int) -> Iterator[slice]:
        """Consecutive parts of a batch of `count` pictures."""
        return (slice(start, min(start + self.pictures, count)) for start in range(0, count, self.pictures))

    def windows(self, size: Sequence[int], stride: int) -> list[Window]:
        """The tiles of a picture of `size`, row by row; their corners lie on multiples of `stride`."""
        side = -(-self.side // stride) * stride
        return [
            Window(top, min(top + side, size[0]), left, min(left + side, size[1]))
            for top in range(0, size[0], side)
            for left in range(0, size[1], side)
        ]


def plan(tile: int | None, count: int, size: Sequence[int], halo: int, values_per_pixel: float, sample: Tensor) -> Plan:
    """The plan for a batch of `count` pictures of `size`, on the device and in the number type of `sample`.

    `tile`: a side in pixels; None takes the largest tile that fits half of the free memory, and a GPU's largest tensor, 0 the
    whole picture. `values_per_pixel`: see `Network`. Raises AdainError for a tile that is too small.
    """
    check_tile(tile)
    room = free_memory(sample.device) / 2 / (values_per_pixel * COPIES * sample.element_size())
    if sample.device.type != "cpu":
        room = min(room, MOST_VALUES / values_per_pixel)
    if sample.device.type == "mps":
        room = min(room, MOST_BYTES / sample.element_size() / values_per_pixel)
    side = tile or max(size)
    if tile is None and size[0] * size[1] > room:
        side = max(SMALLEST_TILE, (int(room**0.5) - 2 * halo) // SMALLEST_TILE * SMALLEST_TILE)
    if sample.device.type == "cpu":
        return Plan(1, side)  # on a CPU several pictures at once are not faster
    height, width = (min(length, side + 2 * halo) for length in size)
    return Plan(max(1, min(count, int(room // (height * width)))), side)


def check_tile(tile: int | None) -> None:
    """Raise AdainError for a tile that is too small; None and 0 leave the choice to `plan`."""
    if tile is not None and tile != 0 and tile < SMALLEST_TILE:
        raise AdainError(f"tile is {tile}; give at least {SMALLEST_TILE} pixels, or 0 for the whole picture.")


def run_in_memory(work: Callable[[Plan], Result], attempt: Plan) -> Result:
    """The result of `work(plan)`; each time the memory runs out, work begins anew with a smaller plan.

    Raises the error of the smallest plan.
    """
    while True:
        try:
            return work(attempt)
        except Exception as error:
            smaller = attempt.smaller() if is_out_of_memory(error) else None
            if smaller is None:
                raise
        # outside of the `except` block, which keeps the tensors of the failed attempt alive
        release_memory()
        attempt = smaller


def encode_window(encoder: Encoder, pictures: Pictures, part: slice, window: Window) -> list[Tensor]:
    """The encoder's levels of a `part` of `pictures` `(B, 3, H, W)` in the window, equal to those of whole pictures there."""
    stride = encoder.levels[-1].stride
    outer = window.grow(encoder.halo, stride, pictures.shape[2:])
    levels = encoder.encode(pictures[(part, slice(None), *outer.positions(1))])
    return [x[(..., *window.inside(outer, level.stride))] for x, level in zip(levels, encoder.levels, strict=True)]


def grid(size: Sequence[int], stride: int) -> list[int]:
    """Rows and columns of the features of a picture of `size`."""
    return [-(-side // stride) for side in size]


def measure(
    encoder: Encoder,
    pictures: Pictures,
    masks: Sequence[Tensor],
    attempt: Plan,
    keep: bool = False,
    visible: Pictures | None = None,
) -> tuple[list[list[ChannelStatistics]], list[Tensor]]:
    """Statistics of the features of `pictures` `(B, 3, H, W)`: for each level, of whole pictures, then of each of the `masks`.

    They are on the encoder's device, and carry no gradients. Masks are `(B or 1, 1, H, W)` of any size; `visible`, of the size
    of the pictures and as many, is below `LEAST_ALPHA` at pixels that count nowhere. With `keep`, which needs a plan of one
    window, also returns the levels.
    """
    size = pictures.shape[2:]
    weights = [[None, *(resize_mask(mask, grid(size, level.stride)) for mask in masks)] for level in encoder.levels]
    windows, parts = attempt.windows(size, encoder.levels[-1].stride), list(attempt.parts(len(pictures)))
    steps = itertools.count()
    tell(next(steps), len(parts) * len(windows))
    measured, kept_levels = [], []
    before, device = None, encoder.weights_device
    for part in parts:
        merged = []
        for window in windows:
            levels = encode_window(encoder, pictures, part, window)
            seen = None if visible is None else visible[(part, slice(None), *window.positions(1))] >= LEAST_ALPHA
            of_window = [
                _statistics(x.detach(), mask, seen, part, window, level.stride)
                for x, level_masks, level in zip(levels, weights, encoder.levels, strict=True)
                for mask in level_masks
            ]
            merged = [a.merge(b) for a, b in zip(merged, of_window, strict=True)] if merged else of_window
            if before:  # the host prepares the next window while a GPU works on this one, but no more
                before()
            before = mark(device)
            tell(next(steps), len(parts) * len(windows))
        measured.append(merged)
        if keep:
            kept_levels.append(levels)
    flat = iter([ChannelStatistics.concatenate(batch) for batch in zip(*measured, strict=True)])
    return [[next(flat) for _ in level] for level in weights], list(map(_together, zip(*kept_levels, strict=True)))


def measure_in_memory(
    encoder: Encoder,
    pictures: Tensor,
    mask: Tensor | None = None,
    tile: int | None = None,
    visible: Tensor | None = None,
) -> list[ChannelStatistics]:
    """The statistics of `measure` under one mask, or of whole pictures, on the CPU, in parts that fit the memory.

    `tile` is as in `plan`, `visible` as in `measure`.
    """
    attempt = plan(tile, len(pictures), pictures.shape[2:], encoder.halo, encoder.values_per_pixel, encoder.sample())

    def measured(encoder: Encoder) -> list[ChannelStatistics]:
        masks = [] if mask is None else [mask.cpu()]
        found = run_in_memory(lambda attempt: measure(encoder, pictures, masks, attempt, visible=visible)[0], attempt)
        return [level[-1].map(Tensor.cpu) for level in found]

    with torch.no_grad(), exact_float32():
        found = measured(encoder)
        if encoder.dtype == torch.float16 and not all(level.m2.isfinite().all() for level in found):
            found = measured(encoder.in_float32())
    return found


def _together(parts: tuple[Tensor, ...]) -> Tensor:
    """The parts of a batch in one tensor; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _statistics(
    x: Tensor, mask: Tensor | None, seen: Tensor | None, part: slice, window: Window, stride: int
) -> ChannelStatistics:
    """Of features `x` of a window: where there is a `mask`, `(B or 1, 1, h, w)`, and where the window's pixels are `seen`."""
    if mask is not None:
        mask = (mask if len(mask) == 1 else mask[part])[(..., *window.positions(stride))]
    if seen is not None:
        # the shares of whole strides, at a border of what there is of one: the same in every tile
        share = F.avg_pool2d(seen.float(), stride, ceil_mode=True, count_include_pad=False)
        mask = share if mask is None else to_device(mask, share.device) * share
    return channel_statistics(x, mask)
