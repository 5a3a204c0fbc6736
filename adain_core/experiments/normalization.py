"""The paper's argument for AdaIN: batch, instance, conditional and adaptive instance normalization on one task."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..color import luma
from ..devices import exact_float32
from ..errors import AdainError
from ..evaluation.losses import Losses, mean_losses
from ..evaluation.measurement import Judge, Measurement, Table, load_models
from ..images import to_pil
from ..progress import Counter, part_of
from . import figures
from .baselines import NORMALIZATIONS, ChosenNorm2d, StyleNetwork, StyleNetworkConfig

KINDS = ("original contents", "contrast normalised", "style normalised")


@dataclass(frozen=True)
class NormalizationConfig(StyleNetworkConfig):
    """`model`, the names of an encoder and a decoder or of both, beside networks of one style and of `style_count` styles."""

    model: tuple[str, ...] = ("lite",)
    content_count: int = 4


@exact_float32()
def compare_normalizations(config: NormalizationConfig) -> Measurement:
    """Train and apply the four layers, and measure their differences.

    Networks of one style learn the first style drawn, from original contents, from contents with normalised contrast (the
    histogram of their luminance equalised), and from contents with normalised style (all in the style drawn last, by `model`).
    The network with conditional layers learns all styles but the last, which no network learns. Reports how many training
    steps are done, and of how many. Raises FileNotFoundError and AdainError for unusable folders, pictures and networks, and
    for fewer than 2 styles.
    """
    (model,) = load_models([config.model], config.device)
    judge = Judge(config, config.content_count, config.style_count + 1)
    if len(judge.styles) < 2:
        raise AdainError(f"there is 1 style in {config.styles}; give 2 or more, since no network is trained on the last.")
    *learned, unseen = judge.styles
    counter = Counter(config.training_steps * (len(NORMALIZATIONS) * len(KINDS) + 1))
    with part_of(0, counter.total):
        common = model.encode_style(judge.styles[unseen])
    changes = None, lambda crop, _: equalized(crop), lambda crop, _: model.stylize(crop[None], common)[0]
    kinds = dict(zip(KINDS, changes, strict=True))
    trained = {}
    for (kind, augment), (name, layer) in itertools.product(kinds.items(), NORMALIZATIONS.items()):
        with counter.part(config.training_steps):
            trained[name, kind] = config.train(layer, judge, learned[:1], augment)
    with counter.part(config.training_steps):
        conditional, _ = config.train(lambda channels: ChosenNorm2d(channels, len(learned)), judge, learned)
    curves = {f"{name}, {kind}": losses for (name, kind), (_, losses) in trained.items()}
    last = max(1, config.training_steps // 10)
    ends = {kind: [mean_losses(trained[name, kind][1][-last:]) for name in NORMALIZATIONS] for kind in KINDS}
    convergence = Table(
        f"training, mean of the last {last} of {config.training_steps} steps",
        tuple(f"{part} loss, {name}" for part in ("content", "style") for name in NORMALIZATIONS),
        {kind: (*(end.content for end in pair), *(end.style for end in pair)) for kind, pair in ends.items()},
    )
    rows = {}
    for name in NORMALIZATIONS:
        network = trained[name, KINDS[0]][0]
        rows[name] = _row(judge, {learned[0]: network}, "1", _affine_parameters(network))
    networks = {style: lambda content, k=k: conditional(content, k) for k, style in enumerate(learned)}
    rows["conditional instance"] = _row(judge, networks, f"{len(learned)}", _affine_parameters(conditional) // len(learned))
    networks = {style: lambda content, style=style: model(content, judge.styles[style]) for style in judge.styles}
    with part_of(counter.total, counter.total):
        rows[f"adaptive instance ({model.name})"] = _row(judge, networks, "any", 0, unseen)
    abilities = Table(
        f"{len(judge.contents)} contents, {config.size}x{config.size}",
        ("styles", "learned for each", "content loss", "style loss", "style loss, unseen style", "change at half contrast"),
        rows,
    )
    return Measurement(config, judge.named([model]), (convergence, abilities), lambda: _figure(trained, last), curves)


def equalized(picture: Tensor) -> Tensor:
    """A picture `(3, H, W)` in [0, 1] with the histogram of its luminance equalised."""
    grey = ImageOps.equalize(to_pil(picture).convert("L"))
    luminance = torch.from_numpy(np.array(grey)).float() / 255
    return (picture + luminance - luma(picture[None])[0]).clamp(0, 1)


def _row(
    judge: Judge, networks: dict[str, Callable[[Tensor], Tensor]], styles: str, parameters: int, unseen: str = ""
) -> tuple[float | str | None, ...]:
    """A row of the table: means over all contents and the styles of `networks`; the style loss of `unseen` is separate."""
    losses, changes, others = [], [], []
    for content, picture in judge.contents.items():
        picture = picture.to(judge.device)
        for style, network in networks.items():
            result = network(picture).clamp(0, 1)
            if style == unseen:
                others.append(judge.losses(result, content, style))
                continue
            losses.append(judge.losses(result, content, style))
            changes.append((network(0.25 + picture / 2).clamp(0, 1) - result).abs().mean().item())
    mean, other = mean_losses(losses), mean_losses(others).style if others else None
    return styles, f"{parameters} numbers", mean.content, mean.style, other, sum(changes) / len(changes)


def _affine_parameters(network: StyleNetwork) -> int:
    """The number of parameters in a network's normalization layers."""
    layers = (module.get_submodule("normalization") for module in network.modules() if hasattr(module, "normalization"))
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def _figure(trained: dict[tuple[str, str], tuple[StyleNetwork, list[Losses]]], smooth: int) -> Image.Image:
    """Training losses of batch and instance normalization, for each kind of contents."""
    figure, rows = figures.axes(2, len(KINDS), sharey="row")
    for row, part in zip(rows, ("content", "style"), strict=True):
        for axis, kind in zip(row, KINDS, strict=True):
            figures.plot_losses(axis, part, {name: trained[name, kind][1] for name in NORMALIZATIONS}, smooth)
            axis.set(xlabel=f"steps (mean of {smooth})", title=kind)
    rows[0][0].legend()
    return figures.picture_of(figure)
