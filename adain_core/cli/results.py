"""The files for the results of pictures, and the reports of what was written and what failed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import AdainError
from ..files import check_folder, check_writable, printable, remove_leftovers
from ..images import SAVE_FORMATS, count_frames, list_images, save_format
from .options import say

SHEET = "contact-sheet"  # the name of its file, beside the results that it shows


def result_pairs(contents: Sequence[Path], output: Path) -> list[tuple[Path, Path]]:
    """A picture, each picture of a folder, or each of several pictures, with the file for its result.

    Raises AdainError or OSError, before any work, if a result cannot be written.
    """
    content = contents[0]
    if len(contents) > 1:
        if wrong := next((path for path in contents if path.is_dir()), None):
            raise AdainError(f"{wrong} is a folder; several contents must be pictures: give a folder alone.")
        if missing := next((path for path in contents if not path.is_file()), None):
            raise FileNotFoundError(f"there is no picture {missing}.")
        if output.exists() and not output.is_dir() or output.suffix.lower() in SAVE_FORMATS:
            raise AdainError(f"{output} is not a folder; name a folder for the results of {len(contents)} contents.")
        return _pairs([(source, source.name) for source in contents], output)
    if content.is_dir():
        if (output.exists() and not output.is_dir()) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} is not a folder for the results; name a folder outside of {content}.")
        return _pairs([(source, source.relative_to(content)) for source in list_images(content)], output)
    if not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    target = output / _writable(Path(content.name)) if output.is_dir() else output
    save_format(target)
    check_target(content, target)
    remove_leftovers(target)
    return [(content, target)]


def style_pairs(contents: Sequence[Path], output: Path, styles: Sequence[str]) -> list[tuple[Path, list[Path]]]:
    """As `result_pairs`, with a file for each of the styles, by their names.

    It is OUT/STYLE for one picture, OUT/CONTENT/STYLE for one of many.
    """
    if output.suffix.lower() in SAVE_FORMATS or (output.exists() and not output.is_dir()):
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
    for source, targets in pairs:
        for target in filter(Path.exists, targets):
            check_target(source, target)
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


def check_target(content: Path, target: Path) -> None:
    """Raise AdainError or OSError if the result of the file `content` cannot be written to `target`."""
    check_writable(target)
    if target.exists() and target.samefile(content):
        raise AdainError(f"{target} is the content itself; name another file for the result.")


def check_styles_kept(styles: Sequence[Path], targets: Sequence[Path]) -> None:
    """Raise AdainError if a result would replace one of the styles."""
    kept = {path.resolve() for path in styles}
    if replaced := next((target for target in targets if target.resolve() in kept), None):
        raise AdainError(f"{replaced} is one of the styles; name another place for the result.")


def print_failures(failures: Sequence[str], total: int) -> int:
    """Print the failures of `total` pictures, each once. Returns the exit status, which is 1 if something failed."""
    failures = list(dict.fromkeys(map(printable, failures)))  # an unreadable style fails once for each content
    if failures:
        print(f"adain: {len(failures)} of {total} pictures could not be stylised:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


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
    if animated := [str(path) for path in dict.fromkeys(pictures) if count_frames(path) > 1]:
        print(f"adain: only the first frame is taken of {', '.join(animated)}{advice}.", file=sys.stderr)


def _pairs(places: Sequence[tuple[Path, Path | str]], output: Path) -> list[tuple[Path, Path]]:
    """The pictures with the files for their results in the folder `output`, which need not exist."""
    pairs = [(source, output / _writable(Path(place))) for source, place in places]
    _check_different([target for _, target in pairs])
    check_folder(output)
    for source, target in pairs:
        if target.exists() and target.samefile(source):
            raise AdainError(f"{target} is the content itself; name another folder for the results.")
    return pairs


def _check_different(targets: Sequence[Path]) -> None:
    if twice := [target for target, count in Counter(targets).items() if count > 1]:
        raise AdainError(f"two of the pictures would both be written to {twice[0]}; rename one of them.")


def _writable(path: Path) -> Path:
    """`path`; `.png` is appended if its format can only be read."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")
