"""Reading ahead and writing behind: threads that have files ready before, and away after, the networks work."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items, of which a thread makes up to `depth` before they are asked for."""
    end, pending, iterator = object(), deque(), iter(items)
    with ThreadPoolExecutor(1) as reader:
        while True:
            while len(pending) <= depth:
                pending.append(reader.submit(next, iterator, end))
            item = pending.popleft().result()
            if item is end:
                return
            yield item


@contextlib.contextmanager
def write_behind(depth: int = 2) -> Iterator[Callable[..., None]]:
    """Gives `call(function, *arguments)`, which has a thread make the calls in their order while others are prepared.

    At most `depth` wait. What one raises is raised by a later one, or at the end, by which all are made.
    """
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(1) as writer:

        def call(function: Callable[..., object], *arguments: object) -> None:
            while len(pending) >= depth:
                pending.popleft().result()
            pending.append(writer.submit(function, *arguments))

        yield call
        for made in pending:
            made.result()
