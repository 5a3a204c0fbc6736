"""The paper's runtime controls as pictures: strength, interpolation, colour and place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from ..color import keep_colors, luma, match_colors
from ..errors import AdainError
from ..evaluation.losses import layer_features
from ..evaluation.measurement import Judge, Measurement, MeasurementConfig, Model, Table, load_models
from ..evaluation.sheet import draw_sheet
from ..losses import content_loss
from ..progress import Counter, part_of
from ..style import Style, mix_styles
from . import figures

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STEPS = 5  # pictures a side in the sheet of interpolations, whose corners are the styles


@dataclass(frozen=True)
class ControlsConfig(MeasurementConfig):
    """`model`, the names of an encoder and a decoder or of both, on one content and four styles."""

    FULL: ClassVar[dict] = {"size": 512}
    MATPLOTLIB: ClassVar[bool] = False

    model: tuple[str, ...] = ("lite",)


def show_controls(config: ControlsConfig) -> Measurement:
    """One content under each control, and the effect of the control on its losses.

    Raises FileNotFoundError and AdainError for unusable folders, pictures and networks, and for fewer than four styles.
    """
    (model,) = load_models([config.model], config.device)
    judge = Judge(config, 1, 4)
    if len(judge.styles) < 4:
        raise AdainError(f"there are {len(judge.styles)} styles in {config.styles}; interpolation needs 4.")
    kinds = [_Controls.strength, _Controls.interpolation, _Controls.colour, _Controls.place]
    counter, tables, pages = Counter(len(kinds)), [], []
    with part_of(0, counter.total):
        controls = _Controls(judge, model)
    for kind in kinds:
        with counter.part():
            table, page = kind(controls)
        tables.append(table)
        pages.append(page)
    return Measurement(config, judge.named([model]), tuple(tables), lambda: figures.stack(pages))


class _Controls:
    """The controls; each method makes the table and the sheet of one."""

    def __init__(self, judge: Judge, model: Model):
        self.judge, self.model = judge, model
        ((self.content_name, self.content),) = judge.contents.items()
        self.names, self.pictures = list(judge.styles), list(judge.styles.values())
        self.styles = [model.encode_style(picture) for picture in self.pictures]

    def strength(self) -> tuple[Table, Image.Image]:
        """Alpha from 0 (the content) to 1 (the full style)."""
        results = {f"alpha {alpha:g}": self._stylise(self.styles[0], alpha) for alpha in ALPHAS}
        rows = {name: self._measure(result) for name, result in results.items()}
        table = Table("content-style trade-off", ("distance to the content", "style loss"), rows)
        return table, self._sheet(results, {"style": self.pictures[0]})

    def interpolation(self) -> tuple[Table, Image.Image]:
        """Bilinear weights of four styles, which are shown beside the corners."""
        results, rows = [], {}
        for down in torch.linspace(0, 1, STEPS).tolist():
            row = []
            for right in torch.linspace(0, 1, STEPS).tolist():
                weights = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
                row.append(self._stylise(mix_styles(self.styles, weights)))
                if down == right and right in (0, 0.5, 1):
                    losses = [self.judge.losses(row[-1], self.content_name, name).style for name in self.names]
                    rows["weights " + " ".join(f"{weight:g}" for weight in weights)] = tuple(losses)
            results.append(row)
        beside = {0: (0, 1), STEPS - 1: (2, 3)}
        cells, captions = [], []
        for index, row in enumerate(results):
            ends = [self.pictures[k] for k in beside.get(index, ())] or [None, None]
            cells.append([ends[0], *row, ends[1]])
            texts = [f"style {k + 1}" for k in beside.get(index, ())] or ["", ""]
            captions.append([texts[0], *[""] * STEPS, texts[1]])
        table = Table("interpolation", tuple(f"loss to style {k}" for k in range(1, 5)), rows)
        return table, draw_sheet(cells, captions)

    def colour(self) -> tuple[Table, Image.Image]:
        """The content's colours, given to the style beforehand or kept afterwards."""
        plain = self._stylise(self.styles[0])
        matched_style = match_colors(self.pictures[0], self.content)
        results = {
            "style's colours": plain,
            "style matched": self._stylise(self.model.encode_style(matched_style)),
            "colours kept": keep_colors(plain, self.content),
        }
        rows = {
            name: (*self._measure(result), (chrominance(result) - chrominance(self.content)).abs().mean().item())
            for name, result in results.items()
        }
        table = Table("colour control", ("distance to the content", "style loss", "colour difference"), rows)
        return table, self._sheet(results, {"style": self.pictures[0], "matched style": matched_style})

    def place(self) -> tuple[Table, Image.Image]:
        """One style on the left, another on the right."""
        mask = torch.zeros(self.content.shape[2:])
        mask[:, : mask.shape[1] // 2] = 1
        sides = self.styles[0].masked(mask), self.styles[1].masked(1 - mask)
        results = {
            "style 1": self._stylise(self.styles[0]),
            "style 2": self._stylise(self.styles[1]),
            "left 1, right 2": self._stylise(mix_styles(sides)),
        }
        *alone, both = results.values()
        middle = mask.shape[1] // 2
        rows = {}
        for name, columns in (("left half", slice(None, middle)), ("right half", slice(middle, None))):
            rows[name] = tuple((both - each)[..., columns].abs().mean().item() for each in alone)
        columns = ("difference to style 1 alone", "difference to style 2 alone")
        styles = {"style 1": self.pictures[0], "style 2": self.pictures[1]}
        return Table("spatial control", columns, rows), self._sheet(results, styles)

    def _stylise(self, style: Style, alpha: float = 1.0) -> Tensor:
        return self.model.stylize(self.content, style, alpha)

    def _measure(self, result: Tensor) -> tuple[float, float]:
        """The distance of a result to the content's features at relu4_1, and its loss to the first style."""
        deepest = layer_features(self.judge.network, result)[-1]
        distance = content_loss(deepest, self.judge.features[self.content_name][0]).item()
        return distance, self.judge.losses(result, self.content_name, self.names[0]).style

    def _sheet(self, results: dict[str, Tensor], styles: dict[str, Tensor]) -> Image.Image:
        return draw_sheet([[self.content, *styles.values(), *results.values()]], [["content", *styles, *results]])


def chrominance(pictures: Tensor) -> Tensor:
    """The difference of pictures `(B, 3, H, W)` from their luminance."""
    return pictures - luma(pictures)
