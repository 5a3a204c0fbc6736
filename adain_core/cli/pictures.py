"""`adain stylize` of a picture, a folder of pictures or several pictures."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from ..background import read_ahead, write_behind
from ..color import keep_colors
from ..evaluation.sheet import draw_contact_sheet
from ..files import make_folder, remove_leftovers, writing_folder
from ..images import check_sides, load_image, on_white, resize, save_image, to_pil, without_hidden, write_picture
from ..large import needs_streaming
from ..networks import Decoder, Encoder
from ..progress import Counter
from ..refine import check_refinable, refine
from ..style import Style
from ..stylize import stylize
from ..working import enlarged, reduced
from .large import check_large_picture, stylize_large_picture
from .options import StylizeOptions, progress_bar
from .results import SHEET, Failures, print_animations, print_written, result_pairs, style_names, style_pairs
from .style_sources import StyleSources

SHEET_SIDE = 256  # pixels of the longest side of a picture on a contact sheet


def stylize_pictures(options: StylizeOptions) -> int:
    """Write the results. Returns the exit status, which is 1 if some pictures of many failed."""
    start = time.monotonic()
    if options.each:
        names = style_names(options.styles)
        results = style_pairs(options.contents, options.output, names, options.sources)
    else:
        names = []
        pairs = result_pairs(options.contents, options.output, options.sources)
        results = [(source, [target]) for source, target in pairs]
    pairs = [(source, target) for source, targets in results for target in targets]
    is_one = len(options.contents) == 1 and not options.content.is_dir()
    sources = StyleSources.read(options)
    if is_one and needs_streaming(options.content):
        check_large_picture(options, *pairs[0], sources.style_files)
    print_animations([source for source, _ in results], "; where OUT is a video, a GIF or PNG is a clip" if is_one else "")
    print_animations(options.style_pictures)
    encoder, decoder = options.load_networks(sources.style_files)
    for style in sources.style_files if options.refine else ():
        check_refinable(style, encoder)
    mixers = _mixers(sources, encoder)
    goals = _mixers(sources, encoder.for_losses()) if options.refine else []

    failures, written = Failures(len(results), alone=is_one), []

    def write(result: Tensor, source: Path, target: Path) -> None:
        with failures.noted(source):
            make_folder(target.parent)
            save_image(result, target)
            written.append(target)

    contents = _load([source for source, _ in results], options.size, len(mixers))
    held = contextlib.nullcontext() if is_one and not options.each else writing_folder(options.output)
    with held, write_behind() as later, progress_bar("picture", shown=len(pairs) > 1):
        counter = Counter(len(pairs))
        for number, ((source, target), content) in enumerate(zip(pairs, contents, strict=True)):
            style_of = mixers[number % len(mixers)]
            with counter.part(), failures.noted(source):
                if isinstance(content, Exception):
                    raise content
                if content is None:
                    stylize_large_picture(options, encoder, decoder, style_of, source, target)
                    written.append(target)
                    continue
                check_sides(content, target)
                goal = goals[number % len(goals)](content) if goals else None
                result = _stylized(options, encoder, decoder, content, style_of(content), goal)
                later(write, keep_colors(result, content) if options.keep_colors else result, source, target)
    sheets = 0
    if options.each:
        done = set(written)
        for source, targets in results:
            with failures.noted(source):
                sheets += _write_sheet(source, {name: path for name, path in zip(names, targets, strict=True) if path in done})
    status = failures.printed()
    if written:
        print_written(_described(written, sheets, options), start)
    return status


def _mixers(sources: StyleSources, encoder: Encoder) -> list[Callable[[Tensor | None], Style]]:
    """A function from a content to its style for each result of one content; the styles are encoded."""
    with progress_bar("style", delay=1):
        parts, found = sources.split(), []
        counter = Counter(len(parts))
        for part in parts:
            with counter.part():
                found.append(part.mixer(encoder))
    return found


def _stylized(
    options: StylizeOptions, encoder: Encoder, decoder: Decoder, content: Tensor, style: Style, goal: Style | None
) -> Tensor:
    """The result, which with a `goal` is refined at the size that it is worked on."""
    small = content if goal is None else reduced(content, options.working_size)
    with progress_bar("tile", delay=1):
        result = stylize(
            encoder, decoder, small, style, options.alpha, options.content_statistics or "image",
            tile=options.tile, working_size=options.working_size, detail=options.detail, texture=options.texture_or(1.0),
        )  # fmt: skip
    if goal is None:
        return result
    with progress_bar("step"):
        result = refine(encoder, result, small, goal, options.refine, options.alpha, tile=options.tile)
    return enlarged(result, content, small, style, options.alpha, options.detail)


def _load(paths: Sequence[Path], size: int, times: int) -> Iterator[Tensor | Exception | None]:
    """Each picture so many times, read ahead; None in place of one too large for memory, the error for an unreadable one."""

    def load(path: Path) -> Tensor | Exception | None:
        try:
            return None if needs_streaming(path) else without_hidden(resize(load_image(path), size))
        except Exception as error:  # raised where the others are
            return error

    for picture in read_ahead(map(load, paths)):
        for _ in range(times):
            yield picture


def _write_sheet(content: Path, results: dict[str, Path]) -> bool:
    """Write a contact sheet of a content and its results, by the names of their styles, beside them.

    Returns whether there is one: not of pictures that are all too large for memory.
    """
    pictures = [_thumbnail(path) for path in (content, *results.values())]
    if not results or not any(pictures):
        return False
    path = next(iter(results.values())).with_name(f"{SHEET}.png")
    remove_leftovers(path)
    write_picture(draw_contact_sheet(pictures, [content.stem, *results]), path, "PNG")
    return True


def _thumbnail(path: Path) -> Image.Image | None:
    """A small copy of a picture; None for one too large for memory."""
    if needs_streaming(path):
        return None
    picture = to_pil(on_white(load_image(path)))
    picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
    return picture


def _described(written: Sequence[Path], sheets: int, options: StylizeOptions) -> str:
    """Which results, and whether contact sheets, were written, in words."""
    mixed = f" in a mix of {len(options.styles)} styles" if len(options.styles) > 1 and not options.each else ""
    if len(written) == 1 and not options.each:
        return f"{written[0]}{mixed}"
    pictures = "1 picture" if len(written) == 1 else f"{len(written)} pictures"
    return f"{pictures}{mixed}{f' and {SHEET}.png' if sheets else ''} to {options.output}"
