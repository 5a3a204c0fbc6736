"""Figures of the experiments: sheets of pictures, and curves."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import AdainError
from ..images import to_pil
from .losses import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GAP, LINE = 6, 16  # pixels between pictures, and of a line of text


def sheet(rows: Sequence[Sequence[Tensor | Image.Image | None]], captions: Sequence[Sequence[str]]) -> Image.Image:
    """Pictures `(1, 3, S, S)` in rows, pixel by pixel, each under its caption of one or more lines; None is an empty place."""
    pictures = [[to_pil(cell) if isinstance(cell, Tensor) else cell for cell in row] for row in rows]
    side = max(max(cell.size) for row in pictures for cell in row if cell)
    font = ImageFont.load_default(LINE * 3 // 4)
    heads = [LINE * max(caption.count("\n") + 1 if caption else 0 for caption in row) for row in captions]
    width, height = GAP + max(map(len, rows)) * (side + GAP), GAP + sum(head + side + GAP for head in heads)
    page, top = Image.new("RGB", (width, height), "white"), GAP
    draw = ImageDraw.Draw(page)
    for row, texts, head in zip(pictures, captions, heads, strict=True):
        for column, (cell, text) in enumerate(zip(row, texts, strict=True)):
            left = GAP + column * (side + GAP)
            for line, words in enumerate(text.split("\n")):
                draw.text((left, top + line * LINE), _shortened(words, font, side), "black", font)
            if cell:
                page.paste(cell, (left, top + head))
        top += head + side + GAP
    return page


def stack(pages: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other."""
    page = Image.new("RGB", (max(each.width for each in pages), sum(each.height for each in pages)), "white")
    top = 0
    for each in pages:
        page.paste(each, (0, top))
        top += each.height
    return page


def check_matplotlib() -> None:
    """Raise AdainError where curves cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise AdainError("the figure needs matplotlib; pip install '.[evaluate]', or leave out the output.")


def axes(rows: int, columns: int, **options: object) -> tuple[Figure, list[list[Axes]]]:
    """A figure of so many axes, which `picture_of` draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 4 * rows), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options).tolist()


def plot_losses(axis: Axes, part: str, curves: dict[str, Sequence[Losses]], smooth: int = 1) -> None:
    """The "content" or "style" losses of each curve on a logarithmic axis, as the mean of `smooth` steps."""
    for name, losses in curves.items():
        values = [getattr(each, part) for each in losses]
        means = [sum(window) / len(window) for k in range(len(values)) if (window := values[max(0, k - smooth + 1) : k + 1])]
        axis.plot(means, label=name, linewidth=1.5)
    axis.set(yscale="log", ylabel=f"{part} loss")
    axis.grid(True, which="both", alpha=0.3)


def picture_of(figure: Figure) -> Image.Image:
    """The drawn figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, without its end where it is too long."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
