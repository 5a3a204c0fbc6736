"""The progress of long work: the working function reports it by `tell`, and the callback given to `showing` receives it.

The functions between the two pass nothing on. The callback belongs to a thread; threads that read or write files report
nothing.
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

    An exception in it stops the work. The count begins anew with each function that is called inside (`stylize` calls
    `transfer` and `decode`), and when work is tried again because the memory ran out.
    """
    token = _shown.set(progress)
    try:
        yield
    finally:
        _shown.reset(token)


def tell(done: int, total: int, pictures: Tensor | None = None) -> None:
    """Report that `done` of `total` parts are done to the innermost `showing` around the work, if there is one."""
    if progress := _shown.get():
        progress(done, total, pictures)


@contextlib.contextmanager
def part_of(done: int, total: int, steps: int = 1) -> Iterator[None]:
    """Count the work inside as the next `steps` of `total`, after `done` steps; its reports are scaled to this.

    They are passed on without pictures. The last of the steps counts as done only after the end; report it with `tell`.
    """
    progress = _shown.get()

    def show(inner_done: int, inner_total: int, pictures: Tensor | None) -> None:
        if progress:
            progress(done + min(inner_done * steps // inner_total, steps - 1), total, None)

    with showing(show):
        yield


class Counter:
    """Counts the steps of work, `total` of them, and reports how many are done, beginning with 0."""

    def __init__(self, total: int):
        self.done, self.total = 0, total
        tell(0, total)

    @contextlib.contextmanager
    def part(self, steps: int = 1) -> Iterator[None]:
        """Count the work inside as the next `steps`; it may report its own progress."""
        with part_of(self.done, self.total, steps):
            yield
        self.done += steps
        tell(self.done, self.total)
