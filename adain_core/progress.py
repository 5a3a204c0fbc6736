"""How far work is: the function that works tells it, and the one that is shown it is called, whatever lies between them.

This holds within a thread. Threads that are started to read ahead or to write tell nobody, and have nothing to tell.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from torch import Tensor

# Called with how many parts of the work are done, of how many, and the last part's pictures `(B, 3, H, W)` or None.
Progress = Callable[[int, int, Tensor | None], None]
_shown: ContextVar[Progress | None] = ContextVar("shown", default=None)


@contextlib.contextmanager
def showing(progress: Progress) -> Iterator[None]:
    """Have `progress(done, total, pictures)` called before, between and after the parts of the work inside.

    An exception from it ends the work. The count begins anew with each function that is called inside, for `stylize` with
    its `transfer` and its `decode`, and where memory ran out.
    """
    token = _shown.set(progress)
    try:
        yield
    finally:
        _shown.reset(token)


def tell(done: int, total: int, pictures: Tensor | None = None) -> None:
    """Say how far the work is to the innermost `showing` around it, if there is one."""
    if progress := _shown.get():
        progress(done, total, pictures)


@contextlib.contextmanager
def part_of(done: int, total: int, steps: int = 1) -> Iterator[None]:
    """The work inside is the next `steps` of `total`, after `done`: what it tells is told so, and without its pictures.

    The last of these steps is done after the end, which is not told here.
    """
    progress = _shown.get()

    def show(inner_done: int, inner_total: int, pictures: Tensor | None) -> None:
        if progress:
            progress(done + min(inner_done * steps // inner_total, steps - 1), total, None)

    with showing(show):
        yield


class Counter:
    """Counts the steps of work, of which there are `total`, and tells how many are done, at first that none is."""

    def __init__(self, total: int):
        self.done, self.total = 0, total
        tell(0, total)

    @contextlib.contextmanager
    def part(self, steps: int = 1) -> Iterator[None]:
        """The next `steps` are done inside, by work that may tell how far it is by itself."""
        with part_of(self.done, self.total, steps):
            yield
        self.done += steps
        tell(self.done, self.total)
