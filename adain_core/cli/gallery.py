"""Styles by their names: bundled ones, and those that were saved as style files."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..catalog import BUNDLED
from ..errors import AdainError
from ..files import read_safetensors
from ..images import image_extensions, list_images
from ..style import FORMAT, Style, load_style

ENDING = ".safetensors"
FOLDERS = "ADAIN_STYLES"  # names folders of saved styles, as PATH does


def bundled_styles() -> dict[str, Path]:
    """The files of the bundled styles, by their names."""
    return _styles_in(BUNDLED / "styles")


def saved_styles() -> dict[str, Path]:
    """The style files in the current folder, and in the folders that ADAIN_STYLES names and below, by their names."""
    here, *others = _folders()
    saved = {}
    for folder in reversed(others):  # of two styles of a name, the first one is taken
        saved |= _styles_in(folder)
    return saved | _styles_in(here, "*")


def named_styles() -> dict[str, Path]:
    """The files of all styles by the names that `style_files` takes, the bundled ones first."""
    return bundled_styles() | saved_styles()


def style_files(name: str | Path) -> list[Path]:
    """The pictures and style files that `name` stands for: a file, all of them in a folder and below, or the style of a name.

    A file with the extension of one need not exist. Raises FileNotFoundError for another name, AdainError for a folder
    without styles.
    """
    path = Path(name)
    if path.is_dir():
        return list_images(path, frozenset({ENDING}))
    if path.is_file() or path.suffix.lower() in image_extensions() | {ENDING}:
        return [path]
    named = f"{name}{ENDING}"
    if found := next((folder / named for folder in (*_folders(), BUNDLED / "styles") if (folder / named).is_file()), None):
        return [found]
    names = {known.rpartition("/")[2]: known for known in named_styles()}
    similar = [names[close] for close in difflib.get_close_matches(path.name, names, 1)]
    hint = f"did you mean {similar[0]}?" if similar else "adain style list shows the names of styles."
    raise FileNotFoundError(f"there is no picture, folder or style {str(name)!r}; {hint}")


def is_style_file(path: Path) -> bool:
    return path.suffix.lower() == ENDING


def read_style(path: Path) -> Style:
    """The style of a file. Raises AdainError for a picture, with what to do, and the errors of `load_style`."""
    if not is_style_file(path):
        raise AdainError(f"{path} is a picture; make a style of it with `adain style make`.")
    return load_style(path)


def _folders() -> list[Path]:
    named = os.environ.get(FOLDERS, "").split(os.pathsep)
    return [Path(), *(Path(folder) for folder in named if folder)]


def _styles_in(folder: Path, pattern: str = "**/*") -> dict[str, Path]:
    """The style files in a folder, which need not exist, by their names; other files are left out."""
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob(pattern + ENDING))}
    return {name: path for name, path in files.items() if _is_style(path)}


def _is_style(path: Path) -> bool:
    try:
        return read_safetensors(path, [])[1].get("format", "").startswith(FORMAT.rstrip("0123456789"))
    except (AdainError, OSError):
        return False
