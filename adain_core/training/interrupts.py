"""What stops a training from outside: signals, and the death of a process that reads pictures."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# Ctrl-C; what the system and a closed terminal send; the end of a child process, of which PyTorch's handler raises an error
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD") if hasattr(signal, name)]


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside, signals wait for the end; their handlers, and what these raise, come then.

    Only the main thread handles signals; in others there is nothing to do.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []
    handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, lambda number, frame: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(waiting):
            handlers[number](number, None)


def is_dead_worker(error: BaseException) -> bool:
    """Whether PyTorch says that a process that reads pictures has died."""
    return isinstance(error, RuntimeError) and "DataLoader worker (pid" in str(error)
