"""Pictures of a training: the loss curve and the sample sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

WIDTH, HEIGHT = 900, 500  # pixels of the loss curve
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")


def sample_sheet(contents: Tensor, styles: Tensor, results: Tensor) -> Tensor:
    """Contents above styles above results, one column a pair, all `(N, 3, S, S)`, as one picture `(3, H, W)`."""
    framed = [F.pad(row, (2, 2, 2, 2), value=1.0) for row in (contents, styles, results.clamp(0, 1))]
    return torch.cat([torch.cat(list(row), dim=2) for row in framed], dim=1)


def loss_curve(steps: Sequence[int], losses: Mapping[str, Sequence[float | None]]) -> Image.Image:
    """Losses over steps as lines on a logarithmic axis, their names above it; values that are None or 0 are left out."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    values = [value for series in losses.values() for value in series if value]
    if not values:
        return picture
    low, high = math.floor(math.log10(min(values)) * 5) / 5, math.ceil(math.log10(max(values)) * 5 + 0.01) / 5
    left, top, right, bottom = 60, 30, WIDTH - 10, HEIGHT - 30

    def place(step: float, value: float) -> tuple[float, float]:
        height = (math.log10(value) - low) / (high - low)
        return left + (right - left) * step / max(steps[-1], 1), bottom - (bottom - top) * height

    for line in range(round(low * 5), round(high * 5) + 1):
        value = 10 ** (line / 5)
        y = place(0, value)[1]
        draw.line([(left, y), (right, y)], fill="#dddddd")
        draw.text((8, y - 6), f"{value:.3g}", fill="black")
    draw.text((left, bottom + 8), "0", fill="black")
    draw.text((right - 60, bottom + 8), f"{steps[-1]} steps", fill="black")
    named = left
    for index, (name, series) in enumerate(losses.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = [place(step, value) for step, value in zip(steps, series, strict=True) if value]
        draw.line(points, fill=colour, width=2)
        if len(points) == 1:
            draw.circle(points[0], 3, fill=colour)
        draw.text((named, 8), name, fill=colour)
        named += draw.textlength(name) + 20
    return picture
