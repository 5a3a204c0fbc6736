"""Exact streaming: a picture in tiles with enough around each that they fit together as if it had been worked on whole.

A convolution sees a little beyond its own position, and so does a network: its halo. A tile that is computed with its halo,
and then cut, has the whole picture's values; padding happens at the picture's true borders alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from .devices import exact_float32, free_memory, is_out_of_memory, release_memory
from .errors import AdainError
from .images import resize_mask
from .networks import Encoder
from .progress import tell
from .statistics import ChannelStatistics, channel_statistics

SMALLEST_TILE = 64
# Input, padded input, output and the convolution's work space are alive at once.
COPIES = 4
Result = TypeVar("Result")


class Pictures(Protocol):
    """Pictures `(B, 3, H, W)` of which parts are read or written: a tensor, or what keeps them elsewhere."""

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
        """Rows and columns of the features of `stride` that it covers."""
        return slice(self.top // stride, -(-self.bottom // stride)), slice(self.left // stride, -(-self.right // stride))

    def inside(self, outer: Window, stride: int) -> tuple[slice, slice]:
        """Its rows and columns among the features, of `stride`, of the window `outer` around it."""
        rows, columns = self.positions(stride)
        top, left = outer.top // stride, outer.left // stride
        return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


@dataclass(frozen=True)
class Plan:
    """How much is worked on at once: `pictures` of a batch, in tiles of `side` pixels."""

    pictures: int
    side: int

    def smaller(self) -> Plan | None:
        """Half as many pictures, else tiles of half the side; None where that would be too small to be worth it."""
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
    """How a batch of `count` pictures of `size` is worked on, on the device and in the number type of `sample`.

    `tile`: None takes the largest that half of the free memory has room for, 0 the whole picture, else a side in pixels.
    `values_per_pixel` are the network's at its widest. Raises AdainError for a tile that is too small.
    """
    check_tile(tile)
    room = free_memory(sample.device) / 2 / (values_per_pixel * COPIES * sample.element_size())
    side = tile or max(size)
    if tile is None and size[0] * size[1] > room:
        side = max(SMALLEST_TILE, (int(room**0.5) - 2 * halo) // SMALLEST_TILE * SMALLEST_TILE)
    if sample.device.type == "cpu":
        return Plan(1, side)  # several pictures at once are no faster there
    height, width = (min(length, side + 2 * halo) for length in size)
    return Plan(max(1, min(count, int(room // (height * width)))), side)


def check_tile(tile: int | None) -> None:
    """Raise AdainError for a tile that is too small; None and 0 leave the choice to `plan`."""
    if tile is not None and tile != 0 and tile < SMALLEST_TILE:
        raise AdainError(f"tile is {tile}; give at least {SMALLEST_TILE} pixels, or 0 for the whole picture.")


def run_in_memory(work: Callable[[Plan], Result], attempt: Plan) -> Result:
    """`work(plan)`, again with a smaller plan each time that memory runs out; at the smallest the error is raised."""
    while True:
        try:
            return work(attempt)
        except Exception as error:
            smaller = attempt.smaller() if is_out_of_memory(error) else None
            if smaller is None:
                raise
        # outside of the handler, which keeps the tensors of the failed attempt alive
        release_memory()
        attempt = smaller


def encode_window(encoder: Encoder, pictures: Pictures, part: slice, window: Window) -> list[Tensor]:
    """The encoder's levels of a part of `pictures` `(B, 3, H, W)` in the window, as they are in the levels of the whole."""
    stride = encoder.levels[-1].stride
    outer = window.grow(encoder.halo, stride, pictures.shape[2:])
    device = next(encoder.parameters()).device
    levels = encoder.encode(pictures[(part, slice(None), *outer.positions(1))].to(device))
    return [x[(..., *window.inside(outer, level.stride))] for x, level in zip(levels, encoder.levels, strict=True)]


def grid(size: Sequence[int], stride: int) -> list[int]:
    """Rows and columns of the features of a picture of `size`."""
    return [-(-side // stride) for side in size]


def measure(
    encoder: Encoder, pictures: Pictures, masks: Sequence[Tensor], attempt: Plan, keep: bool = False
) -> tuple[list[list[ChannelStatistics]], list[Tensor]]:
    """Statistics of the features of `pictures` `(B, 3, H, W)`: for each level, of the whole, then by each of the `masks`.

    They are on the CPU. Masks are `(B or 1, 1, H, W)` of any size. With `keep`, for a plan of one window, the levels are
    given back as well.
    """
    size = pictures.shape[2:]
    weights = [[None, *(resize_mask(mask, grid(size, level.stride)) for mask in masks)] for level in encoder.levels]
    windows, parts = attempt.windows(size, encoder.levels[-1].stride), list(attempt.parts(len(pictures)))
    steps = itertools.count()
    tell(next(steps), len(parts) * len(windows))
    measured, kept = [], []
    for part in parts:
        found = []
        for window in windows:
            levels = encode_window(encoder, pictures, part, window)
            here = [
                _statistics(x, mask, part, window.positions(level.stride))
                for x, masks_here, level in zip(levels, weights, encoder.levels, strict=True)
                for mask in masks_here
            ]
            found = [a.merge(b) for a, b in zip(found, here, strict=True)] if found else here
            tell(next(steps), len(parts) * len(windows))
        measured.append([statistics.map(Tensor.cpu) for statistics in found])
        if keep:
            kept.append(levels)
    flat = iter([ChannelStatistics.concatenate(batch) for batch in zip(*measured, strict=True)])
    return [[next(flat) for _ in level] for level in weights], [torch.cat(level) for level in zip(*kept, strict=True)]


def measure_in_memory(
    encoder: Encoder, pictures: Tensor, masks: Sequence[Tensor] = (), tile: int | None = None
) -> list[list[ChannelStatistics]]:
    """What `measure` finds, in parts that fit the memory; `tile` is as in `plan`."""
    sample = next(encoder.parameters())
    attempt = plan(tile, len(pictures), pictures.shape[2:], encoder.halo, encoder.values_per_pixel, sample)
    with torch.no_grad(), exact_float32():
        return run_in_memory(lambda attempt: measure(encoder, pictures, masks, attempt)[0], attempt)


def _statistics(x: Tensor, mask: Tensor | None, part: slice, positions: tuple[slice, slice]) -> ChannelStatistics:
    if mask is None:
        return channel_statistics(x)
    return channel_statistics(x, (mask if len(mask) == 1 else mask[part])[(..., *positions)])
