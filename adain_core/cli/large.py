"""`adain stylize` of pictures too large for memory, from file to file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from ..errors import AdainError
from ..files import make_folder
from ..large import MAX_PIXELS, check_large, stylize_file
from ..networks import Decoder, Encoder
from ..style import Style
from .options import StylizeOptions, progress_bar


def check_large_picture(options: StylizeOptions, source: Path, target: Path, styles: Sequence[Style] = ()) -> None:
    """Raise AdainError or OSError if the picture, by its header and these options, cannot be stylised in parts."""
    if options.mask or options.size or options.match_colors or options.refine:
        raise AdainError(
            f"{source} is too large for --mask, --size, --match-colors and --refine; leave them out, or make it smaller."
        )
    check_large(source, target, styles, options.max_pixels or MAX_PIXELS)


def stylize_large_picture(
    options: StylizeOptions,
    encoder: Encoder,
    decoder: Decoder,
    style_of: Callable[[Tensor | None], Style],
    source: Path,
    target: Path,
) -> None:
    """Write the result of `source` to `target`. Raises AdainError or OSError before any work."""
    make_folder(target.parent)
    check_large_picture(options, source, target)
    with progress_bar("tile", delay=1):
        stylize_file(
            encoder, decoder, source, target, style_of(None), options.alpha, options.tile, options.keep_colors,
            options.max_pixels or MAX_PIXELS, options.texture_or(1.0), options.working_size, options.detail,
        )  # fmt: skip
