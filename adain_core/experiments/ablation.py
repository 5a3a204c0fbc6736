"""The paper's ablation: AdaIN against concatenation, and decoders with normalization layers against one without."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ..devices import exact_float32, resolve_device
from ..errors import DivergedError
from ..evaluation.losses import Losses, load_loss_network, mean_losses
from ..evaluation.measurement import Measurement, MeasurementConfig, Table, named
from ..networks import Decoder
from ..networks.layers import LayerList, PointwiseConv2d
from ..networks.texture import NO_TEXTURE, Texture
from ..progress import Counter
from ..training import TrainingConfig, TrainingResult
from ..training.objective import Batch, Objective
from ..training.trainer import Trainer
from . import figures
from .baselines import NORMALIZATIONS, add_normalization

PLAIN, CONCAT, BATCH, INSTANCE = "Enc-AdaIN-Dec", "Enc-Concat-Dec", "Enc-AdaIN-BNDec", "Enc-AdaIN-INDec"


@dataclass(frozen=True)
class AblationConfig(MeasurementConfig):
    """Decoders for `encoder` (empty: the loss encoder), each trained on the same crops of `size` pixels for `steps` steps.

    The rest of the recipe is the paper's. Networks, checkpoints and samples are kept in `folder`, and a stopped training goes
    on from there; if it is empty, nothing is kept.
    """

    FULL: ClassVar[dict] = {"size": 256, "encoder": "", "steps": 20_000, "batch_size": 8}

    size: int = 64
    encoder: str = "lite"
    steps: int = 100
    batch_size: int = 4
    learning_rate: float = 1e-4
    folder: str = ""


class ConcatDecoder(Decoder):
    """A decoder that reads the content's and the style's features side by side: twice the channels of each level."""

    architecture = "concat"

    def __init__(self, inner: Decoder):
        super().__init__(inner.config)
        self.inner, self.stride, self.halo, self.values_per_pixel = inner, inner.stride, inner.halo, inner.values_per_pixel
        inner.plain = self.plain = True
        self.channels = tuple(2 * width for width in inner.channels)
        self.fusion: LayerList[PointwiseConv2d] = LayerList(PointwiseConv2d(2 * width, width) for width in inner.channels)
        generator = torch.Generator().manual_seed(0)
        for convolution in self.fusion:
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear", generator=generator)
            nn.init.zeros_(convolution.bias)

    def forward(self, features: Sequence[Tensor], texture: Texture = NO_TEXTURE) -> Tensor:
        return self.inner([convolution(x) for convolution, x in zip(self.fusion, features, strict=True)], texture)


class ConcatObjective(Objective):
    """The paper's loss for a decoder that reads the unchanged features of both pictures."""

    def _already_encoded(self, batch: Batch) -> None:
        return None

    def _encode(self, content: Tensor, style: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.encoder.encode(content), self.encoder.encode(style)

    def _fuse(self, levels: list[Tensor], contents: object, styles: list[Tensor]) -> list[Tensor]:
        return [torch.cat(pair, 1) for pair in zip(levels, styles, strict=True)]


def normalized(decoder: Decoder, layer: Callable[[int], nn.Module], architecture: str) -> Decoder:
    """The decoder with `layer(channels)` after each of its convolutions but the last; its `plain` is set."""
    decoder.plain = True
    decoder.architecture = f"{decoder.architecture} with {architecture}"
    return add_normalization(decoder, layer)


def ablate(config: AblationConfig) -> Measurement:
    """Train the paper's four variants, and compare the order of their losses with the paper's.

    Steps without a finite gradient are skipped and counted; an IN decoder has some, at least on flat crops. Reports how many
    training steps are done, and of how many. Raises the errors of `train`.
    """
    network = load_loss_network(config.loss_encoder, resolve_device(config.device))
    counter, curves, skipped = Counter(len(VARIANTS) * config.steps), {}, {}
    with tempfile.TemporaryDirectory() as temporary, torch.enable_grad(), exact_float32():
        for name, (vary, objective) in VARIANTS.items():
            recipe = TrainingConfig(
                config.contents, config.styles, Path(config.folder or temporary) / name, network, name,
                encoder=config.encoder, steps=config.steps, batch_size=config.batch_size, crop_size=config.size,
                resize_content=(2 * config.size, 2 * config.size), resize_style=(2 * config.size, 2 * config.size),
                learning_rate=config.learning_rate, seed=config.seed, device=config.device, log_every=1,
            )  # fmt: skip
            with counter.part(config.steps):
                trainer = Trainer(recipe, resolve_device(config.device), vary, objective)
                with trainer.exclusive():
                    trainer.run()
            curves[name], skipped[name] = _curve(trainer.result(), config.steps), trainer.skipped
    last = max(1, config.steps // 10)
    means = {name: mean_losses(losses[-last:]) for name, losses in curves.items()}
    table = Table(
        f"mean of the last {last} of {config.steps} steps", ("content loss", "style loss", "skipped steps"),
        {name: (mean.content, mean.style, skipped[name]) for name, mean in means.items()},
    )  # fmt: skip
    networks = named({"loss network": network, "encoder": trainer.encoder})
    return Measurement(config, networks, (table,), lambda: _figure(curves, last), curves, tuple(verdict(means)))


def verdict(means: dict[str, Losses]) -> list[str]:
    """The paper's claims about the four variants, each with yes or no by these losses."""
    plain, concat, batch, instance = (means[name] for name in (PLAIN, CONCAT, BATCH, INSTANCE))
    claims = {
        "the BN decoder is above the plain one in content loss": batch.content > plain.content,
        "the BN decoder is above the plain one in style loss": batch.style > plain.style,
        "the IN decoder is above the plain one in content loss": instance.content > plain.content,
        "the IN decoder is above the plain one in style loss": instance.style > plain.style,
        "the IN decoder is above the BN decoder in content loss": instance.content > batch.content,
        "the IN decoder is above the BN decoder in style loss": instance.style > batch.style,
        "concatenation has the highest content loss": concat.content == max(each.content for each in means.values()),
    }
    order = "the paper's order came out" if all(claims.values()) else "the paper's order did not come out"
    return [*(f"{'yes' if holds else 'no'}: {claim}" for claim, holds in claims.items()), order]


def _curve(result: TrainingResult, steps: int) -> list[Losses]:
    """The losses of each step; a skipped step has those of the step before, or of the next one at the beginning."""
    if not result.steps:
        raise DivergedError(f"no step of {steps} had finite losses; take more steps, or a lower learning rate.")
    logged = zip(result.steps, result.losses["content"], result.losses["style"], strict=True)
    losses_at = {step: Losses(content, style) for step, content, style in logged if content is not None and style is not None}
    curve = [losses_at[result.steps[0]]]
    for step in range(1, steps + 1):
        curve.append(losses_at.get(step, curve[-1]))
    return curve[1:]


VARIANTS: dict[str, tuple[Callable[[Decoder], Decoder], type[Objective]]] = {
    PLAIN: (lambda decoder: decoder, Objective),
    CONCAT: (ConcatDecoder, ConcatObjective),
    BATCH: (lambda decoder: normalized(decoder, NORMALIZATIONS["batch"], "batch normalization"), Objective),
    INSTANCE: (lambda decoder: normalized(decoder, NORMALIZATIONS["instance"], "instance normalization"), Objective),
}


def _figure(curves: dict[str, list[Losses]], smooth: int) -> Image.Image:
    figure, (row,) = figures.axes(1, 2)
    for axis, part in zip(row, ("content", "style"), strict=True):
        figures.plot_losses(axis, part, curves, smooth)
        axis.set_xlabel(f"steps (mean of {smooth})")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figures.picture_of(figure)
