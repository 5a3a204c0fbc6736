"""Styles by their names: bundled ones, and those that were saved as style files."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..catalog import BUNDLED
from ..errors import AdainError
from ..files import read_safetensors
from ..images import IMAGE_EXTENSIONS, list_images
from ..style import FORMAT, Style, load_style

ENDING = ".safetensors"
FOLDERS = "ADAIN_STYLES"  # names folders of saved styles, as PATH does


def bundled_styles() -> list[Path]:
    """The files of the bundled styles."""
    return _styles_in(BUNDLED / "styles")


def saved_styles() -> list[Path]:
    """The style files in the current folder and in those that ADAIN_STYLES names."""
    return [path for folder in _folders() for path in _styles_in(folder)]


def named_styles() -> dict[str, Path]:
    """The files of all styles by the names that `style_files` takes, bundled ones first; a saved one may replace one."""
    paths = [*bundled_styles(), *reversed(saved_styles())]
    return {path.stem: path for path in paths}


def style_files(name: str | Path) -> list[Path]:
    """The pictures and style files that `name` stands for: a file, all of them in a folder and below, or the style of a name.

    A file with the extension of one need not exist. Raises FileNotFoundError for another name, AdainError for a folder
    without styles.
    """
    path = Path(name)
    if path.is_dir():
        return list_images(path, frozenset({ENDING}))
    if path.is_file() or path.suffix.lower() in (*IMAGE_EXTENSIONS, ENDING):
        return [path]
    named = f"{name}{ENDING}"
    if found := next((folder / named for folder in (*_folders(), BUNDLED / "styles") if (folder / named).is_file()), None):
        return [found]
    similar = difflib.get_close_matches(path.name, named_styles(), 1)
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


def _styles_in(folder: Path) -> list[Path]:
    """The style files in a folder, which need not exist; other files are left out."""
    return [path for path in sorted(folder.glob(f"*{ENDING}")) if _is_style(path)]


def _is_style(path: Path) -> bool:
    try:
        return read_safetensors(path, [])[1].get("format", "").startswith(FORMAT.rstrip("0123456789"))
    except (AdainError, OSError):
        return False
