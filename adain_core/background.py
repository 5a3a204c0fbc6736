"""Reading ahead and writing behind: threads read and write files while the networks compute."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items; a thread makes up to `depth` of them in advance."""
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
    """Gives `call(function, *arguments)`: a thread makes the calls in their order, and the caller goes on meanwhile.

    At most `depth` calls wait; a further `call` blocks. An error of a call is raised by a later `call`, or at the end of the
    `with` block, which waits for all calls.
    """
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(1) as writer:

        def call(function: Callable[..., object], *arguments: object) -> None:
            while len(pending) >= depth:
                pending.popleft().result()
            pending.append(writer.submit(function, *arguments))

        yield call
        for submitted in pending:
            submitted.result()
