"""The boil of a clip: how much a stylised picture changes where its content only moves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AdainError
from ..images import resize

FRAMES = 8
SIZE = 256
MARGIN = 48  # pixels at the borders that are left out: padding, which does not move, changes VGG-19's results there


@dataclass(frozen=True)
class Pan:
    """A window that moves right over a still by `step` pixels a frame."""

    step: int

    def __str__(self) -> str:
        return f"pan, {self.step} pixels a frame"

    def fits(self, size: int) -> bool:
        """Whether neighbouring frames of `size` pixels overlap inside their margins."""
        return 0 < self.step < size - 2 * MARGIN

    def clip(self, still: Tensor, frames: int, size: int) -> Tensor:
        """The frames `(frames, 3, size, size)` of a still `(1, 3, H, W)`."""
        way = (frames - 1) * self.step
        still = resize(still, size + way)
        top, left = ((side - room) // 2 for side, room in zip(still.shape[2:], (size, size + way), strict=True))
        windows = still[0, :, top : top + size, left : left + size + way].unfold(2, size, self.step)
        return windows.permute(2, 0, 1, 3)

    def difference(self, before: Tensor, after: Tensor) -> Tensor:
        """The difference of neighbouring frames `(B, 3, H, W)`, in the area that both show."""
        return after[..., : -self.step] - before[..., self.step :]


@dataclass(frozen=True)
class Zoom:
    """A window around the middle of a still that shows it `rate` times larger with each frame."""

    rate: float

    def __str__(self) -> str:
        return f"zoom, {self.rate - 1:.0%} a frame"

    def fits(self, size: int) -> bool:
        """Whether neighbouring frames of `size` pixels overlap inside their margins."""
        return self.rate > 1 and size > 2 * MARGIN

    def clip(self, still: Tensor, frames: int, size: int) -> Tensor:
        """The frames `(frames, 3, size, size)` of a still `(1, 3, H, W)`; the last shows it pixel by pixel."""
        sides = [size * self.rate**index for index in reversed(range(frames))]
        still = resize(still, math.ceil(sides[0]))
        return torch.cat([_middle(still, side, size) for side in sides]).clamp(0, 1)

    def difference(self, before: Tensor, after: Tensor) -> Tensor:
        """The difference of neighbouring frames `(B, 3, S, S)`; the earlier one is enlarged (bicubic)."""
        side = before.shape[3]
        return after - _middle(before, side / self.rate, side)


Motion = Pan | Zoom
# A pan by the stride of VGG-19 at relu4_1, which hides errors bound to its grid; one across that grid; and a zoom, which moves
# every place by a different distance.
MOTIONS: tuple[Motion, ...] = (Pan(8), Pan(3), Zoom(1.01))


def boil(
    stylise: Callable[[Tensor], Tensor], still: Tensor, motion: Motion, frames: int = FRAMES, size: int = SIZE
) -> float:
    """Mean absolute difference, motion undone, between neighbouring frames of a moving view of a still.

    `still` `(1, 3, H, W)` in [0, 1] is resized so that all `frames`, of `size` x `size` pixels, lie inside; `stylise` maps
    them, `(frames, 3, size, size)`, to pictures of their size. The area that both frames show is compared, without 48 pixels
    at their borders. Raises AdainError if this area is empty.
    """
    if frames < 2 or not motion.fits(size):
        raise AdainError(f"{frames} frames of {size} pixels ({motion}) cannot be compared; take 2 or more that overlap.")
    results = stylise(motion.clip(still, frames, size))[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    return motion.difference(results[:-1], results[1:]).abs().mean().item()


def _middle(pictures: Tensor, side: float, size: int) -> Tensor:
    """The square of `side` pixels in the middle of pictures `(B, C, H, W)`, drawn with `size` x `size` pixels."""
    height, width = pictures.shape[2:]
    maps = pictures.new_tensor([[side / width, 0, 0], [0, side / height, 0]]).expand(len(pictures), -1, -1)
    grid = F.affine_grid(maps, [len(pictures), 1, size, size], align_corners=False)
    return F.grid_sample(pictures, grid, "bicubic", "border", align_corners=False)
