"""The files for the results of pictures, and the reports of what was written and what failed."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..devices import is_out_of_memory
from ..errors import AdainError
from ..files import FULL, check_folder, check_not_sources, check_writable, printable, remove_leftovers
from ..images import SAVE_FORMATS, count_frames, list_images, save_format
from ..video import SAVE_FORMATS as VIDEO_FORMATS
from .options import print_failures, say

SHEET = "contact-sheet"  # the name of its file, beside the results that it shows


def result_pairs(contents: Sequence[Path], output: Path, others: Sequence[str | Path] = ()) -> list[tuple[Path, Path]]:
    """A picture, each picture of a folder, or each of several pictures, with the file for its result.

    Raises AdainError or OSError, before any work, if a result cannot be written or would replace a content or one of
    the `others` that are read.
    """
    content = contents[0]
    if len(contents) > 1:
        if wrong := next((path for path in contents if path.is_dir()), None):
            raise AdainError(f"{wrong} is a folder; several contents must be pictures: give a folder alone.")
        if missing := next((path for path in contents if not path.is_file()), None):
            raise FileNotFoundError(f"there is no picture {missing}.")
        if _is_file(output):
            raise AdainError(f"{output} is not a folder; name a folder for the results of {len(contents)} contents.")
        return _pairs([(source, source.name) for source in contents], output, others)
    if content.is_dir():
        if _is_file(output) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} is not a folder for the results; name a folder outside of {content}.")
        return _pairs([(source, source.relative_to(content)) for source in list_images(content)], output, others)
    if not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    target = output / _writable(Path(content.name)) if output.is_dir() else output
    save_format(target)
    check_target(content, target, others)
    remove_leftovers(target)
    return [(content, target)]


def style_pairs(
    contents: Sequence[Path], output: Path, styles: Sequence[str], others: Sequence[str | Path]
) -> list[tuple[Path, list[Path]]]:
    """As `result_pairs`, with a file for each of the styles, by their names.

    It is OUT/STYLE for one picture, OUT/CONTENT/STYLE for one of many.
    """
    if _is_file(output):
        raise AdainError(f"{output} is not a folder; name a folder for the results of --each.")
    content = contents[0]
    if len(contents) > 1 or content.is_dir():
        found = [(source, place.with_suffix(""), place.suffix) for source, place in result_pairs(contents, output)]
        _check_different([folder for _, folder, _ in found])
    elif not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    else:
        check_folder(output)
        found = [(content, output, _writable(Path(content.name)).suffix)]
    pairs = [(source, [folder / f"{name}{ending}" for name in styles]) for source, folder, ending in found]
    sheets = [(source, folder / f"{SHEET}.png") for source, folder, _ in found]
    _check_kept([*((source, target) for source, targets in pairs for target in targets), *sheets], others)
    for target in (target for _, targets in pairs for target in targets if os.path.exists(target)):
        check_writable(target)
    return pairs


def style_names(paths: Sequence[Path]) -> list[str]:
    """A name for the result in the style of each file: its own without the extension, with its folder's where names meet.

    Raises AdainError if names meet then too.
    """
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else f"{path.resolve().parent.name}_{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [f"{name}{path.suffix.replace('.', '_')}" for name, path in zip(names, paths, strict=True)]
    if twice := [name for name, count in Counter([*names, SHEET]).items() if count > 1]:
        raise AdainError(f"two styles would both be called {twice[0]} in the results; rename one of them.")
    return names


def check_target(content: Path, target: Path, others: Sequence[str | Path]) -> None:
    """Raise AdainError or OSError if the result of `content` cannot be written to `target`, or would replace a source."""
    _check_kept([(content, target)], others)
    check_writable(target)


class Failures:
    """The errors of single items, so that one that fails does not end a run of many."""

    def __init__(self, total: int, alone: bool = False):
        """Of `total` pictures; one that stands `alone` is not noted, its errors are raised."""
        self.total, self.alone = total, alone
        self.items: dict[str, Path] = {}  # by their messages: an unreadable style fails once for each content

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
            self.items[message if str(item) in message else f"{item}: {message}"] = item

    def printed(self) -> int:
        """Print the failures, each once. Returns the exit status, which is 1 if something failed."""
        if self.items:
            count = len(set(self.items.values()))
            print_failures(f"{count} of {self.total} pictures could not be stylised", self.items)
        return 1 if self.items else 0


def print_written(what: str, start: float) -> None:
    """Say what was written, and how long it took since `start` on the monotonic clock."""
    seconds = time.monotonic() - start
    minutes, hours = divmod(round(seconds), 60), divmod(round(seconds / 60), 60)
    took = f"{seconds:.1f} s" if seconds < 59.95 else "{} min {} s".format(*minutes)
    if minutes[0] >= 60:
        took = "{} h {} min".format(*hours)
    say(f"wrote {what} in {took}.")


def print_animations(pictures: Sequence[Path], advice: str = "") -> None:
    """Say of which pictures only the first frame is taken, and the `advice` what to do for the others."""
    if animated := [printable(str(path)) for path in dict.fromkeys(pictures) if count_frames(path) > 1]:
        print(f"adain: only the first frame is taken of {', '.join(animated)}{advice}.", file=sys.stderr)


def _pairs(
    places: Sequence[tuple[Path, Path | str]], output: Path, others: Sequence[str | Path]
) -> list[tuple[Path, Path]]:
    """The pictures with the files for their results in the folder `output`, which need not exist."""
    pairs = [(source, output / _writable(Path(place))) for source, place in places]
    _check_different([target for _, target in pairs])
    _check_kept(pairs, others)
    check_folder(output)
    return pairs


def _check_kept(pairs: Sequence[tuple[Path, Path]], others: Sequence[str | Path]) -> None:
    """Raise AdainError if one of the results would replace a content, or one of the `others` that are read."""
    for content, target in pairs:
        if os.path.exists(target) and target.samefile(content):
            raise AdainError(f"{target} is the content itself; name another place for the result.")
    check_not_sources((target for _, target in pairs), (*(content for content, _ in pairs), *others))


def _check_different(targets: Sequence[Path]) -> None:
    if twice := [target for target, count in Counter(targets).items() if count > 1]:
        raise AdainError(f"two of the pictures would both be written to {twice[0]}; rename one of them.")


def _is_file(output: Path) -> bool:
    """Whether it is a file, or named like one that would be written."""
    return not output.is_dir() and (output.exists() or output.suffix.lower() in {*SAVE_FORMATS, *VIDEO_FORMATS})


def _writable(path: Path) -> Path:
    """`path`; `.png` is appended if its format can only be read."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")
