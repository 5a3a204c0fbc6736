"""`adain dataset`: a stylised data set, the pictures of a folder each in styles drawn at random."""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..color import keep_colors
from ..devices import rank_and_size
from ..errors import AdainError
from ..files import fingerprint, make_folder, remove_leftovers, write_file, writing_folder
from ..images import check_sides, list_images, load_image, resize, save_image
from ..networks.base import check_seed
from ..progress import Counter
from ..style import Style, encode_style
from ..stylize import stylize
from . import options
from .results import Failures, print_written, result_pairs


@dataclass(frozen=True)
class DatasetOptions(options.ResultOptions):
    """The folders of contents and of styles; `per_picture` styles are drawn under `seed` for each content."""

    contents: Path
    styles: Path
    per_picture: int
    seed: int


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    text = "stylise the pictures of a folder, each in styles drawn at random"
    parser = subparsers.add_parser("dataset", help=text, description=f"{text}; started again, it goes on")
    parser.add_argument("contents", type=Path, metavar="CONTENTS", help="folder of pictures, with its sub-folders")
    parser.add_argument("styles", type=Path, metavar="STYLES", help="folder of style pictures, with its sub-folders")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="folder for the results, in the same sub-folders as the contents, named CONTENT-stylized-STYLE",
    )  # fmt: skip
    options.add_draw(parser)
    options.add_networks(parser)
    options.add_alpha(parser)
    options.add_size(parser)
    options.add_working_size(parser)
    options.add_style_size(parser, "--style-size")
    options.add_keep_colors(parser)
    options.add_texture(parser)
    options.add_tile(parser)
    options.add_max_pixels(parser)
    options.add_device(parser)
    options.add_dtype(parser)
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Stylise the data set. The styles of a picture depend only on its name and the seed, so an interrupted run goes on."""
    start = time.monotonic()
    given = options.given(DatasetOptions, arguments)
    if not given.contents.is_dir():
        raise AdainError(f"{given.contents} is not a folder; give a folder of content pictures.")
    check_seed(given.seed)
    if given.output.resolve().is_relative_to(given.styles.resolve()):
        raise AdainError(f"{given.output} is inside of {given.styles}: its pictures would be styles; name a folder outside.")
    styles = list_images(given.styles)
    names = style_names(styles, given.styles)
    if not 1 <= given.per_picture <= len(names):
        raise AdainError(f"--per-picture is {given.per_picture}; there are {len(names)} styles to draw from.")
    rank, processes = rank_and_size()
    pairs = result_pairs([given.contents], given.output, styles)[rank::processes]
    encoder, decoder = given.load_networks()

    @functools.lru_cache(maxsize=1024)
    def style_of(path: Path) -> Style | Exception:
        """The style of a picture, or the error if it cannot be read."""
        try:
            return encode_style(encoder, load_image(path), given.style_size)
        except (AdainError, OSError) as error:
            return error

    failures, written, kept = Failures(len(pairs)), 0, 0
    texture = given.texture_or(1.0)
    recipe = (
        given.alpha, given.size, given.style_size, given.working_size, given.detail, given.keep_colors, texture,
        encoder.dtype, decoder.dtype, given.seed, given.per_picture,
        sorted((name, path.stat().st_size) for path, name in names.items()),
    )  # fmt: skip
    with (
        writing_folder(given.output, rank),
        _one_recipe(given.output, fingerprint(recipe, encoder.state_dict(), decoder.state_dict()), rank, processes),
        options.progress_bar("picture", shown=rank == 0),
    ):
        counter = Counter(len(pairs))
        for source, place in pairs:
            with counter.part(), failures.noted(source):
                drawn = draw_styles(source.relative_to(given.contents), list(names), given.per_picture, given.seed)
                targets = {path: place.with_name(f"{place.stem}-stylized-{names[path]}{place.suffix}") for path in drawn}
                missing = {path: target for path, target in targets.items() if not os.path.exists(target)}
                kept += len(targets) - len(missing)
                if not missing:
                    continue
                content = resize(load_image(source), given.size)
                check_sides(content, place)
                for path, target in missing.items():
                    with failures.noted(path):
                        style = style_of(path)
                        if isinstance(style, Exception):
                            raise style
                        with failures.noted(source):
                            result = stylize(
                                encoder, decoder, content, style, given.alpha, tile=given.tile,
                                working_size=given.working_size, detail=given.detail, texture=texture,
                            )  # fmt: skip
                            make_folder(target.parent)
                            remove_leftovers(target)
                            save_image(keep_colors(result, content) if given.keep_colors else result, target)
                            written += 1
    status = failures.printed()
    beside = f", beside {kept} that were there and are kept as they are" if kept else ""
    print_written(f"{written} pictures to {given.output}{beside}", start)
    return status


@contextlib.contextmanager
def _one_recipe(folder: Path, recipe: str, rank: int, processes: int) -> Iterator[None]:
    """Note the recipe in `folder` until its pictures are done. Raises AdainError if some of them are of another recipe."""
    notes = [folder / f".dataset-{number}.json" for number in range(processes)]
    for other in folder.glob(".dataset-*.json"):
        with contextlib.suppress(FileNotFoundError):  # another process is done
            if other.read_text(errors="replace") != json.dumps(recipe):
                raise AdainError(
                    f"{folder} holds an unfinished data set of other settings; give the same ones to go on, name another"
                    f" folder, or remove {other} to mix both."
                )
    write_file(notes[rank], json.dumps(recipe))
    yield
    notes[rank].unlink(missing_ok=True)
    for other in set(folder.glob(".dataset-*.json")) - set(notes):  # a killed run may have had more processes
        other.unlink(missing_ok=True)


def draw_styles(name: Path, styles: Sequence[Path], count: int, seed: int) -> list[Path]:
    """`count` different styles, drawn for the picture `name` of a data set."""
    # on Linux a name may be any bytes
    return random.Random(f"{seed} {name.as_posix()}".encode(errors="surrogateescape")).sample(styles, count)


def style_names(styles: Sequence[Path], folder: Path) -> dict[Path, str]:
    """A name for each style picture in `folder`, used in the names of results: its path, with _ between its folders.

    The extension is left out if the names are unique without it. Raises AdainError if they are not unique with it either.
    """
    paths = [path.relative_to(folder).as_posix().replace("/", "_") for path in styles]
    stems = [path.rpartition(".")[0] for path in paths]
    names = stems if len(set(stems)) == len(stems) else paths
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise AdainError(f"two styles in {folder} would both be called {twice[0]} in the results; rename one of them.")
    return dict(zip(styles, names, strict=True))
