"""The paper's table of speeds: seconds for a picture, with a style encoded before and with encoding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image

from ..evaluation import pipelines
from ..evaluation.bench import BenchConfig, bench
from ..evaluation.losses import layer_features
from ..evaluation.measurement import Measurement, Table
from ..evaluation.pipelines import Pipeline
from ..statistics import channel_statistics
from . import figures
from .baselines import AdaINLoss, StyleNetwork, optimise
from .comparison import ONE_STYLE

OPTIMISATION = "optimisation"
ITERATIONS = 500  # of optimisation; one is measured, and its time multiplied by this


@dataclass(frozen=True)
class SpeedConfig:
    """Sides `sizes` of square pictures in pixels; the median of `runs` is taken. The rest is as in `BenchConfig`."""

    FULL: ClassVar[dict] = {"runs": 15}
    MATPLOTLIB: ClassVar[bool] = True

    sizes: tuple[int, ...] = (256, 512)
    runs: int = 3
    encoder: str = ""
    decoder: str = ""
    device: str = "auto"


def measure_speed(config: SpeedConfig) -> Measurement:
    """`bench` with two further pipelines, a network of one style and optimisation. Raises the errors of `bench`."""
    network, _ = pipelines.vgg_networks(config.encoder, "")
    network.plain = True  # gradients pass through it

    def others(size: int, device: torch.device) -> list[Pipeline]:
        content, style = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(size)).to(device)
        judge = network.to(device)
        loss = AdaINLoss(judge, content, [channel_statistics(x) for x in layer_features(judge, style)])
        name, layer = next(iter(ONE_STYLE.items()))
        one_style = StyleNetwork(layer).to(device).eval()
        return [
            Pipeline(name, "float32", {"whole": lambda: one_style(content)}),
            Pipeline(OPTIMISATION, "float32", {"whole": lambda: optimise(content, lambda picture: loss(picture)[0], 1)}),
        ]

    bench_config = BenchConfig(config.sizes, (), config.runs, config.encoder, config.decoder, device=config.device)
    measured = bench(bench_config, others)
    seconds_of: dict[str, list[float | None]] = {}
    for row in measured.rows:
        seconds, encoding = row.seconds["whole"], row.seconds.get("style")
        name = f"{row.pipeline}, {row.dtype}"
        if row.pipeline == OPTIMISATION:
            name, seconds = f"{OPTIMISATION}, {ITERATIONS} iterations", seconds * ITERATIONS
        seconds_of.setdefault(name, []).extend([seconds, None if encoding is None else seconds + encoding])
    columns = tuple(f"{size}, style {state}" for size in config.sizes for state in ("known", "encoded"))
    table = Table("seconds a picture", columns, {name: tuple(values) for name, values in seconds_of.items()})
    return Measurement(config, {}, (table,), lambda: _figure(table), findings=(f"measured on {measured.machine}",))


def _figure(table: Table) -> Image.Image:
    """Bars of the seconds on a logarithmic axis."""
    figure, ((axis,),) = figures.axes(1, 1)
    thickness = 0.8 / len(table.columns)
    for index, column in enumerate(table.columns):
        places = [row + index * thickness for row in range(len(table.rows))]
        axis.barh(places, [values[index] or 0 for values in table.rows.values()], thickness, label=column)
    axis.set_yticks([row + 0.4 - thickness / 2 for row in range(len(table.rows))], list(table.rows))
    axis.set(xscale="log", xlabel=table.title)
    axis.invert_yaxis()
    axis.legend(fontsize=8)
    return figures.picture_of(figure)
