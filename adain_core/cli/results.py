"""The files for the results of a picture or a folder of pictures, and the report of failures."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..devices import is_out_of_memory
from ..errors import AdainError
from ..files import FULL, check_folder, check_not_sources, check_writable, remove_leftovers
from ..images import SAVE_FORMATS, list_images, save_format


def result_pairs(content: Path, output: Path, others: Iterable[str | Path] = ()) -> list[tuple[Path, Path]]:
    """The picture `content`, or each picture of that folder, with the file for its result.

    Raises AdainError or OSError, before any work, if a result cannot be written or would replace a content or one of
    the `others` that are read.
    """
    if content.is_dir():
        if (output.exists() and not output.is_dir()) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} is not a folder for the results; name a folder outside of {content}.")
        pairs = [(source, output / _writable(source.relative_to(content))) for source in list_images(content)]
        if twice := [target for target, count in Counter(target for _, target in pairs).items() if count > 1]:
            raise AdainError(f"two pictures in {content} would both be written to {twice[0]}; rename one of them.")
        check_not_sources((target for _, target in pairs), (*(source for source, _ in pairs), *others))
        check_folder(output)
        return pairs
    if not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    target = output / _writable(Path(content.name)) if output.is_dir() else output
    save_format(target)
    check_target(content, target, others)
    return [(content, target)]


def check_target(content: Path, target: Path, others: Iterable[str | Path] = ()) -> None:
    """Raise AdainError or OSError if the result of `content` cannot be written to `target`, or would replace a source."""
    if target.exists() and target.samefile(content):
        raise AdainError(f"{target} is the content itself; name another file for the result.")
    check_not_sources([target], others)
    check_writable(target)
    remove_leftovers(target)


class Failures:
    """The errors of single items, so that one that fails does not end a run of many."""

    def __init__(self, total: int, alone: bool = False):
        """Of `total` pictures; one that stands `alone` is not noted, its errors are raised."""
        self.total, self.alone, self.messages = total, alone, []

    @contextlib.contextmanager
    def noted(self, item: Path) -> Iterator[None]:
        """Note an error of the work inside, which is on `item`, and go on; raise it for a full disk, which fails all items."""
        try:
            yield
        except Exception as error:
            expected = isinstance(error, (AdainError, OSError)) or is_out_of_memory(error)
            if not expected or self.alone or getattr(error, "errno", None) in FULL:
                raise
            message = "the memory is too small for it" if is_out_of_memory(error) else str(error)
            self.messages.append(message if str(item) in message else f"{item}: {message}")

    def printed(self) -> int:
        """Print the failures, each once. Returns the exit status, which is 1 if something failed."""
        messages = list(dict.fromkeys(self.messages))  # an unreadable style fails once for each content
        if messages:
            start = f"adain: {len(messages)} of {self.total} pictures could not be stylised:"
            print(start, *messages, sep="\n  ", file=sys.stderr)
        return 1 if messages else 0


def _writable(path: Path) -> Path:
    """`path`; `.png` is appended if its format can only be read."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")
