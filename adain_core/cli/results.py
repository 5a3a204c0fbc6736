"""The files for the results of a picture or a folder of pictures, and the report of failures."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import AdainError
from ..files import check_folder, check_writable, remove_leftovers
from ..images import SAVE_FORMATS, list_images, save_format


def result_pairs(content: Path, output: Path) -> list[tuple[Path, Path]]:
    """The picture `content`, or each picture of that folder, with the file for its result.

    Raises AdainError or OSError, before any work, if a result cannot be written.
    """
    if content.is_dir():
        if (output.exists() and not output.is_dir()) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} is not a folder for the results; name a folder outside of {content}.")
        pairs = [(source, output / _writable(source.relative_to(content))) for source in list_images(content)]
        if twice := [target for target, count in Counter(target for _, target in pairs).items() if count > 1]:
            raise AdainError(f"two pictures in {content} would both be written to {twice[0]}; rename one of them.")
        check_folder(output)
        return pairs
    if not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    target = output / _writable(Path(content.name)) if output.is_dir() else output
    save_format(target)
    check_target(content, target)
    remove_leftovers(target)
    return [(content, target)]


def check_target(content: Path, target: Path) -> None:
    """Raise AdainError or OSError if the result of the file `content` cannot be written to `target`."""
    check_writable(target)
    if target.exists() and target.samefile(content):
        raise AdainError(f"{target} is the content itself; name another file for the result.")


def print_failures(failures: Sequence[str], total: int) -> int:
    """Print the failures of `total` pictures, each once. Returns the exit status, which is 1 if something failed."""
    failures = list(dict.fromkeys(failures))  # an unreadable style fails once for each content
    if failures:
        print(f"adain: {len(failures)} of {total} pictures could not be stylised:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def _writable(path: Path) -> Path:
    """`path`; `.png` is appended if its format can only be read."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")
