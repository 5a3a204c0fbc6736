"""How far a measurement is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]  # how many steps are done, and of how many


class Counter:
    """Calls `progress`, where there is one, with how many steps of `total` are done."""

    def __init__(self, progress: Progress | None, total: int):
        self.progress, self.done, self.total = progress, 0, total

    def advance(self) -> None:
        """One more step is done."""
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)
