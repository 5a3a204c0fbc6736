"""The styles for `adain stylize`: pictures and style files, masked and mixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from ..color import match_colors
from ..errors import AdainError
from ..images import check_mask, load_image, load_mask, resize
from ..networks import Encoder
from ..style import Style, encode_style, load_style, mix_shares, mix_styles
from .gallery import is_style_file
from .options import StylizeOptions


@dataclass(frozen=True)
class StyleSources:
    """The style pictures and styles, each with its mask or None, read before the networks are loaded."""

    options: StylizeOptions
    sources: tuple[Tensor | Style, ...]
    masks: tuple[Tensor | None, ...]

    @classmethod
    def read(cls, options: StylizeOptions) -> StyleSources:
        """Read the files. Raises AdainError for options that do not fit each other, AdainError or OSError for bad files."""
        if options.match_colors and any(map(is_style_file, options.styles)):
            raise AdainError("--match-colors needs style pictures: a style file has no pixels; use --keep-colors instead.")
        names = options.mask or ("-",) * len(options.styles)
        if len(names) != len(options.styles):
            raise AdainError(
                f"{len(names)} masks do not fit {len(options.styles)} styles; give one for each; - means everywhere."
            )
        if options.weights:
            mix_shares(options.weights, [1] * len(options.styles))
        masks = tuple(None if name == "-" else _read_mask(name) for name in names)
        size = 0 if options.match_colors else options.style_size  # colours are matched at full size
        return cls(options, tuple(read_source(path, size) for path in options.styles), masks)

    @property
    def style_files(self) -> list[Style]:
        """The styles that were read from style files."""
        return [source for source in self.sources if isinstance(source, Style)]

    def split(self) -> list[StyleSources]:
        """The sources of one result each: with the option `each` those of one style, else all of them, which are mixed."""
        if not self.options.each:
            return [self]
        return [dataclasses.replace(self, sources=(s,), masks=(m,)) for s, m in zip(self.sources, self.masks, strict=True)]

    def mixer(self, encoder: Encoder) -> Callable[[Tensor | None], Style]:
        """A function from a content to its style; the style is encoded only once, unless it takes each content's colours.

        Raises AdainError for a style file of several styles, which are for a clip.
        """
        if several := next((style for style in self.style_files if style.batch > 1), None):
            raise AdainError(f"the style {several.name!r} is {several.batch} styles for as many frames; give it to a clip.")
        if self.options.match_colors:
            return partial(self.mix, encoder)
        style = self.mix(encoder)
        return lambda content: style

    def mix(self, encoder: Encoder, content: Tensor | None = None) -> Style:
        """The mixed style; style pictures take the colours of `content` first, if that is given."""
        styles = []
        for source, mask in zip(self.sources, self.masks, strict=True):
            if content is not None and isinstance(source, Tensor):
                source = match_colors(source, content)
            style = encode_source(source, encoder, self.options.style_size)
            styles.append(style if mask is None else style.masked(mask))
        return mix_styles(styles, self.options.weights)


def read_source(path: Path, size: int) -> Tensor | Style:
    """The style of a style file, or the picture of another file, resized to `size` at once: many may be held."""
    return load_style(path) if is_style_file(path) else resize(load_image(path), size)


def _read_mask(name: str) -> Tensor:
    """The mask of a file. Raises AdainError, which names it, for one that is empty."""
    mask = load_mask(name)
    try:
        return check_mask(mask)
    except AdainError as error:
        raise AdainError(f"{name}: {error}") from None


def encode_source(source: Tensor | Style, encoder: Encoder, size: int) -> Style:
    """The style of a picture resized to `size`, or the style itself."""
    return source if isinstance(source, Style) else encode_style(encoder, source, size)
