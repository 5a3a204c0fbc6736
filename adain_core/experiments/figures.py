"""Figures of the experiments: curves, and sheets one below the other."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from PIL import Image

from ..evaluation.losses import Losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def stack(pages: Sequence[Image.Image]) -> Image.Image:
    """Sheets one below the other."""
    page = Image.new("RGB", (max(each.width for each in pages), sum(each.height for each in pages)), "white")
    top = 0
    for each in pages:
        page.paste(each, (0, top))
        top += each.height
    return page


def axes(rows: int, columns: int, sharey: Literal["none", "row"] = "none") -> tuple[Figure, list[list[Axes]]]:
    """A figure with `rows` x `columns` axes, which `picture_of` draws; with `sharey="row"` the axes of a row share a scale."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5 * columns, 4 * rows), dpi=110, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey).tolist()


def plot_losses(axis: Axes, part: str, curves: Mapping[str, Sequence[Losses]], smooth: int = 1) -> None:
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
