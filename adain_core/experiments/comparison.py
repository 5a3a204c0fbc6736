"""The paper's quantitative comparison: losses of models, of other methods, and of optimisation step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from ..devices import exact_float32
from ..evaluation.losses import Losses, mean_losses
from ..evaluation.measurement import Judge, Measurement, Table, load_models
from ..progress import Counter, part_of
from . import baselines, figures
from .baselines import NORMALIZATIONS, STYLE_WEIGHT, StyleNetwork, StyleNetworkConfig

ONE_STYLE = {f"one style, {name} normalization": NORMALIZATIONS[name] for name in ("instance", "batch")}


@dataclass(frozen=True)
class ComparisonConfig(StyleNetworkConfig):
    """`models` are names of an encoder and a decoder, or of both, each on every pair of the drawn pictures.

    Optimisation and Style-Swap take `iterations`.
    """

    FULL: ClassVar[dict] = StyleNetworkConfig.FULL | {"iterations": 500}

    models: tuple[tuple[str, ...], ...] = (("lite",),)
    iterations: int = 100


@exact_float32()
def compare(config: ComparisonConfig) -> Measurement:
    """Mean content and style losses of all methods, and the iteration after which optimisation is as good as each.

    Reports how many steps of optimisation and of training are done, and of how many. Raises FileNotFoundError and AdainError
    for unusable folders, pictures and networks.
    """
    models = load_models(config.models, config.device)
    judge = Judge(config, config.content_count, config.style_count)
    trained = len(ONE_STYLE) * len(judge.styles) * config.training_steps
    counter = Counter(len(judge.pairs) * 2 * config.iterations + trained)
    networks: dict[str, dict[str, StyleNetwork]] = {name: {} for name in ONE_STYLE}
    for (name, layer), style in itertools.product(ONE_STYLE.items(), judge.styles):
        with counter.part(config.training_steps):
            networks[name][style], _ = config.train(layer, judge, [style])
    losses_of: dict[str, list[Losses]] = {}
    optimised = []
    for names in judge.pairs:
        content, style = judge.contents[names[0]].to(judge.device), judge.styles[names[1]].to(judge.device)
        with part_of(counter.done, counter.total):
            results = {"the untouched content": content} | {model.name: model(content, style) for model in models}
        with counter.part(config.iterations):
            swapped = baselines.style_swap(judge.network, content, style, config.iterations)
        results |= {"Style-Swap": swapped} | {name: networks[name][names[1]](content) for name in ONE_STYLE}
        for name, result in results.items():
            losses_of.setdefault(name, []).append(judge.losses(result, *names))
        with counter.part(config.iterations):
            optimised.append(baselines.gatys(judge.network, content, style, config.iterations)[1])
    curve = [mean_losses(losses) for losses in zip(*optimised, strict=True)]
    means = {name: mean_losses(losses) for name, losses in losses_of.items()}
    optimum = {f"optimisation, {config.iterations} iterations": curve[-1]}
    rows = {
        name: (mean.content, mean.style, total(mean), reached(curve, lambda each, mean=mean: each.style <= mean.style),
               reached(curve, lambda each, mean=mean: total(each) <= total(mean)))
        for name, mean in (means | optimum).items()
    }  # fmt: skip
    title = f"{len(judge.contents)} contents x {len(judge.styles)} styles, {config.size}x{config.size}"
    columns = ("content loss", "style loss", f"content + {STYLE_WEIGHT:.0f} style", "as iteration, style", "as iteration, sum")
    table = Table(title, columns, rows)
    return Measurement(config, judge.named(models), (table,), lambda: _figure(curve, means), {"optimisation": curve})


def total(losses: Losses) -> float:
    """The sum that training and optimisation minimise."""
    return losses.content + STYLE_WEIGHT * losses.style


def reached(curve: Sequence[Losses], is_as_good: Callable[[Losses], bool]) -> int | None:
    """The first iteration whose losses are as good, or None."""
    return next((iteration for iteration, losses in enumerate(curve) if is_as_good(losses)), None)


def _figure(curve: Sequence[Losses], means: dict[str, Losses]) -> Image.Image:
    """Both losses of optimisation over its iterations, with those of the other methods as levels."""
    figure, (row,) = figures.axes(1, 2)
    for axis, part in zip(row, ("content", "style"), strict=True):
        figures.plot_losses(axis, part, {"optimisation": curve})
        for index, (name, losses) in enumerate(means.items(), 1):
            axis.axhline(getattr(losses, part), color=f"C{index}", linestyle="--", linewidth=1.2, label=name)
        axis.set_xlabel("iterations")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figures.picture_of(figure)
