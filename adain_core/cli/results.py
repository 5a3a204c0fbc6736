"""Where the results of a picture or of a folder of pictures are written, and what is said of those that failed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import AdainError
from ..files import check_folder, check_writable, remove_leftovers
from ..images import SAVE_FORMATS, list_images, save_format


def result_pairs(content: Path, output: Path) -> list[tuple[Path, Path]]:
    """The picture `content`, or each picture of that folder, with the file to write its result to.

    Raises AdainError or OSError, before any work, where a result cannot be written there.
    """
    if content.is_dir():
        if (output.exists() and not output.is_dir()) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} cannot take the results of a folder; name another folder, outside of {content}.")
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
    return [(content, target)]


def check_target(content: Path, target: Path) -> None:
    """Raise AdainError or OSError where the result of the file `content` cannot be written to `target`."""
    check_writable(target)
    remove_leftovers(target)
    if target.exists() and target.samefile(content):
        raise AdainError(f"{target} is the content itself; name another file for the result.")


def print_failures(failures: Sequence[str], total: int) -> int:
    """Print the failures of `total` pictures, each once; the exit status, which is 1 where there are any."""
    failures = list(dict.fromkeys(failures))  # a style that cannot be read fails with each of its contents
    if failures:
        print(f"adain: {len(failures)} of {total} pictures could not be stylised:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


def _writable(path: Path) -> Path:
    """`path`, or where its format is only read, with `.png` behind it."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")
