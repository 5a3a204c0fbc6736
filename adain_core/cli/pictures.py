"""`adain stylize` of a picture or a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ..background import read_ahead, write_behind
from ..color import keep_colors
from ..files import make_folder
from ..images import check_sides, load_image, resize, save_image
from ..large import needs_streaming
from ..progress import Counter
from ..stylize import stylize
from .large import check_large_picture, stylize_large_picture
from .options import StylizeOptions, progress_bar
from .results import Failures, result_pairs
from .style_sources import StyleSources


def stylize_pictures(options: StylizeOptions) -> int:
    """Write the results. Returns the exit status, which is 1 if some pictures of a folder failed."""
    is_folder, pairs = options.content.is_dir(), result_pairs(options.content, options.output, options.sources)
    sources = StyleSources.read(options)
    if not is_folder and needs_streaming(options.content):
        check_large_picture(options, *pairs[0], sources.style_files)
    encoder, decoder = options.load_networks()
    style_of = sources.mixer(encoder)

    failures = Failures(len(pairs), alone=not is_folder)

    def write(result: Tensor, source: Path, target: Path) -> None:
        with failures.noted(source):
            make_folder(target.parent)
            save_image(result, target)

    contents = _load([source for source, _ in pairs], options.size)
    with write_behind() as later, progress_bar("picture", shown=len(pairs) > 1):
        counter = Counter(len(pairs))
        for (source, target), content in zip(pairs, contents, strict=True):
            with counter.part(), failures.noted(source):
                if isinstance(content, Exception):
                    raise content
                if content is None:
                    stylize_large_picture(options, encoder, decoder, style_of, source, target)
                    continue
                check_sides(content, target)
                with progress_bar("tile", delay=1):
                    result = stylize(
                        encoder, decoder, content, style_of(content), options.alpha, options.content_statistics or "image",
                        tile=options.tile, texture=options.texture_or(1.0),
                    )  # fmt: skip
                later(write, keep_colors(result, content) if options.keep_colors else result, source, target)
    return failures.printed()


def _load(paths: Sequence[Path], size: int) -> Iterator[Tensor | Exception | None]:
    """The pictures, read ahead; None in place of one too large for memory, the error in place of an unreadable one."""

    def load(path: Path) -> Tensor | Exception | None:
        try:
            return None if needs_streaming(path) else resize(load_image(path), size)
        except Exception as error:  # raised where the others are
            return error

    return read_ahead(map(load, paths))
