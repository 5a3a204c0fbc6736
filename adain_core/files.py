"""Reading and writing files so that nothing is lost."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

Item = TypeVar("Item")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` at the end, or is removed after an error.

    Raises FileNotFoundError where the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first.")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp is private to its owner; a result has the mode that any new file gets.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: str | Path) -> None:
    """Remove what killed runs left of writing to `path` with `replacing`; nobody else may be writing to it now."""
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.stem)}.*{path.suffix}"):
        leftover.unlink(missing_ok=True)


def version(path: str | Path) -> tuple[int, int]:
    """What differs once a file has changed: its time and size."""
    status = Path(path).stat()
    return status.st_mtime_ns, status.st_size


def read_ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same items, of which a thread makes up to `depth` before they are asked for."""
    end, pending, iterator = object(), deque(), iter(items)
    with ThreadPoolExecutor(1) as reader:
        while True:
            while len(pending) < depth:
                pending.append(reader.submit(next, iterator, end))
            item = pending.popleft().result()
            if item is end:
                return
            pending.append(reader.submit(next, iterator, end))
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


def read_safetensors(path: str | Path, names: Iterable[str] | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, copied into memory: a mapped file could not be replaced on Windows.

    `names` are the tensors to read; None takes all. Raises FileNotFoundError, or ValueError where the file is no whole
    safetensors file or lacks one of the names.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if names is None else names
            return {name: file.get_tensor(name).clone() for name in names}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}); download or make it again.") from None
