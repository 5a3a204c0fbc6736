"""The boil of a clip: how much a stylised picture changes where its content only moves."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..images import resize

STEPS = (8, 3)  # pixels a frame: a stride of VGG at relu4_1, which hides what is bound to its grid, and one across it
FRAMES = 8
SIZE = 256
MARGIN = 16  # pixels beside the border: there results see padding, which does not move


def boil(
    stylise: Callable[[Tensor], Tensor], still: Tensor, step: int, frames: int = FRAMES, size: int = SIZE
) -> float:
    """Mean absolute difference, motion undone, between neighbouring frames of a still panned by `step` pixels a frame.

    `still` `(1, 3, H, W)` in [0, 1] is resized so that a window of `size` x `size` pixels can move right `frames - 1`
    times; `stylise` maps each window `(1, 3, size, size)` to a picture of its size. Compared is what both frames show, but
    for 16 pixels at their borders. Raises ValueError where nothing is left to compare.
    """
    if frames < 2 or not 0 < step < size - 2 * MARGIN:
        raise ValueError(f"{frames} frames of {size} pixels, {step} apart, cannot be compared; take 2 or more that overlap.")
    way = (frames - 1) * step
    still = resize(still, size + way)
    top, left = ((side - room) // 2 for side, room in zip(still.shape[2:], (size, size + way), strict=True))
    differences = []
    before = None
    for start in range(left, left + way + 1, step):
        frame = stylise(still[:, :, top : top + size, start : start + size])[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        if before is not None:
            differences.append((frame[..., :-step] - before[..., step:]).abs().mean().item())
        before = frame
    return sum(differences) / len(differences)
