"""The evaluation of a model on folders of pictures."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from torch import Tensor

from ..devices import resolve_device
from ..errors import AdainError
from ..files import write_json
from ..images import list_images, load_image, on_white, resize
from ..losses import GRID_PERIOD
from ..networks.base import check_seed
from ..progress import Counter
from ..statistics import ChannelStatistics, channel_statistics, check_half_life
from ..style import Style, encode_style
from ..stylize import stylize
from ..weights import load_decoder, load_encoder
from .boil import MOTIONS, boil
from .flat import FlatArea, flat_area, slope_of
from .losses import Losses, layer_features, load_loss_network, mean_losses, pair_losses

MODES = ("image", "batch", "running")  # content statistics that a clip can be stylised with
Boil = dict[str, dict[str, float]]  # by motion, then by mode


@dataclass(frozen=True)
class EvaluationConfig:
    """Pictures in the folders `contents` and `styles` and below, and the model of `encoder` and `decoder` (names or files).

    `loss_encoder` is the VGG-19 (a name or a file) that measures. Pictures are squares of `size` pixels. `pairs`: the number
    of pairs drawn under `seed`; 0 takes all. `boil_pairs` and `flat_pairs`: the numbers of these on which the boil and flat
    areas are measured; 0 leaves them out. `half_life`: frames, for running statistics. Raises AdainError for settings out of
    range.
    """

    contents: Path
    styles: Path
    loss_encoder: str
    encoder: str = "lite"
    decoder: str = "lite"
    size: int = 512
    pairs: int = 0
    seed: int = 0
    boil_pairs: int = 4
    half_life: float = 8.0
    device: str = "auto"
    dtype: str = "float32"
    flat_pairs: int = 4

    def __post_init__(self) -> None:
        if self.size < 1:
            raise AdainError(f"the size is {self.size}; give the side of the squares in pixels.")
        if min(self.pairs, self.boil_pairs, self.flat_pairs) < 0:
            raise AdainError("numbers of pairs must be at least 0: 0 takes all pairs, and measures no boil or flat areas.")
        if self.flat_pairs and self.size < GRID_PERIOD:
            raise AdainError(
                f"flat areas are measured at {GRID_PERIOD} pixels a side or more; give a larger size, or 0 flat pairs."
            )
        check_half_life(self.half_life)
        check_seed(self.seed)


@dataclass(frozen=True)
class PairLosses:
    """Losses of one content in one style: of the model's result, and for comparison of the untouched content."""

    content: str
    style: str
    model: Losses
    untouched: Losses


@dataclass(frozen=True)
class PairBoil:
    """The boil of one content in one style, by motion and by the mode of the content statistics."""

    content: str
    style: str
    boil: Boil


@dataclass(frozen=True)
class PairFlat:
    """How one style is painted where a content, blurred to a slope, is flat."""

    content: str
    style: str
    flat: FlatArea


@dataclass(frozen=True)
class Report:
    """The result of `evaluate` with `config`. Fingerprints identify the networks; `skipped` names unreadable files and why."""

    config: EvaluationConfig
    encoder: str
    encoder_fingerprint: str
    decoder: str
    loss_encoder: str
    loss_encoder_fingerprint: str
    pairs: tuple[PairLosses, ...]
    boils: tuple[PairBoil, ...]
    flats: tuple[PairFlat, ...]
    skipped: tuple[str, ...]

    @property
    def model(self) -> Losses:
        """The model's mean losses."""
        return mean_losses([pair.model for pair in self.pairs])

    @property
    def untouched(self) -> Losses:
        """The mean losses of the untouched contents."""
        return mean_losses([pair.untouched for pair in self.pairs])

    @property
    def boil(self) -> Boil:
        """The mean boil; empty if it was left out."""
        motions = map(str, MOTIONS if self.boils else ())
        return {motion: {mode: fmean(pair.boil[motion][mode] for pair in self.boils) for mode in MODES} for motion in motions}

    @property
    def flat(self) -> FlatArea | None:
        """The mean texture and grid of flat areas; None where they were left out."""
        if not self.flats:
            return None
        return FlatArea(fmean(pair.flat.texture for pair in self.flats), fmean(pair.flat.grid for pair in self.flats))

    def save(self, path: str | Path) -> None:
        """Write the means and every pair as JSON: a temporary file beside `path`, then renamed."""
        means = {"model": vars(self.model), "untouched": vars(self.untouched), "boil": self.boil}
        means["flat"] = vars(self.flat) if self.flat else {}
        write_json(path, {"means": means} | dataclasses.asdict(self))


def evaluate(config: EvaluationConfig) -> Report:
    """Mean losses, boil and flat areas of a model by `config`. Reports how many measurements are done, and of how many.

    Pictures are composited on white, resized to a smallest side of `size` and cropped to their centres; the model runs at
    alpha 1, in the boil without a texture, the loss network in float32. Unreadable pictures are skipped with their pairs.
    Raises FileNotFoundError if a folder does not exist, and AdainError if it holds no pictures or if losses are not finite.
    """
    pairs = draw_pairs(list_images(config.contents), list_images(config.styles), config.pairs, config.seed)
    evaluation = _Evaluation(config)
    counter = Counter(len(pairs) + min(config.boil_pairs, len(pairs)) + min(config.flat_pairs, len(pairs)))
    losses: dict[tuple[Path, Path], PairLosses] = {}
    for pair in pairs:
        with counter.part():
            if pair_result := evaluation.losses(*pair):
                losses[pair] = pair_result
    boils = []
    for pair in random.Random(config.seed).sample(list(losses), min(config.boil_pairs, len(losses))):
        with counter.part():
            boils.append(evaluation.boil(*pair))
    flats = []
    for pair in random.Random(config.seed).sample(list(losses), min(config.flat_pairs, len(losses))):
        with counter.part():
            flats.append(evaluation.flat(*pair))
    return evaluation.report(list(losses.values()), boils, flats)


def draw_pairs(contents: Sequence[Path], styles: Sequence[Path], number: int = 0, seed: int = 0) -> list[tuple[Path, Path]]:
    """All pairs of a content and a style, or `number` of these drawn under the seed; 0, or a larger number, takes all."""
    indices = range(len(contents) * len(styles))
    if 0 < number < len(indices):
        indices = sorted(random.Random(seed).sample(indices, number))  # a content's pairs stay together: it is encoded once
    return [(contents[index // len(styles)], styles[index % len(styles)]) for index in indices]


def square(picture: Tensor, size: int) -> Tensor:
    """The centre `(1, 3, size, size)` of a picture `(1, 3, H, W)` resized to a smallest side of `size`."""
    picture = resize(picture, size)
    top, left = ((side - size) // 2 for side in picture.shape[2:])
    return picture[:, :, top : top + size, left : left + size]


def load_square(path: Path, size: int) -> Tensor:
    """The `square` of a picture file, composited on white."""
    return square(_load(path), size)


class _Evaluation:
    """The networks, with the encoded styles and the features of the last content."""

    def __init__(self, config: EvaluationConfig):
        self.config = config
        device = resolve_device(config.device)
        self.loss_network = load_loss_network(config.loss_encoder, device)
        self.encoder = load_encoder(config.encoder, device, config.dtype)
        self.decoder = load_decoder(config.decoder, device, config.dtype)
        self.styles: dict[Path, tuple[Style, list[ChannelStatistics]]] = {}
        self.contents: dict[Path, tuple[Tensor, list[Tensor]]] = {}
        self.unreadable: dict[Path, str] = {}

    def losses(self, content: Path, style: Path) -> PairLosses | None:
        """The losses of a pair, or None if a picture cannot be read."""
        if not (self._encode_content(content) and self._encode_style(style)):
            return None
        picture, features = self.contents[content]
        model_style, style_statistics = self.styles[style]
        result = layer_features(self.loss_network, self._stylise(picture, model_style))
        model, untouched = (pair_losses(x, features, style_statistics) for x in (result, features))
        if not math.isfinite(model.content + model.style):
            raise AdainError(
                f"the losses of {content} in the style of {style} are not finite; the model's weights are broken, or its"
                " number type is too small."
            )
        return PairLosses(*self._names(content, style), model, untouched)

    def boil(self, content: Path, style: Path) -> PairBoil:
        """The boil of a readable pair."""
        model_style, _ = self.styles[style]
        still = _load(content)
        boils = {
            str(motion): {
                mode: boil(lambda clip, mode=mode: self._stylise(clip, model_style, mode, 0.0), still, motion) for mode in MODES
            }
            for motion in MOTIONS
        }
        return PairBoil(*self._names(content, style), boils)

    def flat(self, content: Path, style: Path) -> PairFlat:
        """The flat areas of a pair that can be read."""
        result = self._stylise(slope_of(load_square(content, self.config.size)), self.styles[style][0])
        return PairFlat(*self._names(content, style), flat_area(result))

    def report(self, pairs: Sequence[PairLosses], boils: Sequence[PairBoil], flats: Sequence[PairFlat]) -> Report:
        if not pairs:
            raise AdainError(f"no pair of pictures can be read: {next(iter(self.unreadable.values()))}")
        return Report(
            self.config, self.encoder.name, self.encoder.fingerprint, self.decoder.name,
            self.loss_network.name, self.loss_network.fingerprint,
            tuple(pairs), tuple(boils), tuple(flats), tuple(self.unreadable.values()),
        )  # fmt: skip

    def _stylise(self, pictures: Tensor, style: Style, content_statistics: str = "image", texture: float = 1.0) -> Tensor:
        half_life = self.config.half_life
        return stylize(self.encoder, self.decoder, pictures, style, 1.0, content_statistics, half_life, texture=texture)

    def _encode_content(self, path: Path) -> bool:
        if path not in self.contents and (picture := self._square(path)) is not None:
            # only the last one is kept: its features take 125 MB at 512 pixels
            self.contents = {path: (picture, layer_features(self.loss_network, picture))}
        return path in self.contents

    def _encode_style(self, path: Path) -> bool:
        if path not in self.styles and (picture := self._square(path)) is not None:
            statistics = [channel_statistics(x) for x in layer_features(self.loss_network, picture)]
            self.styles[path] = encode_style(self.encoder, picture, size=0), statistics
        return path in self.styles

    def _square(self, path: Path) -> Tensor | None:
        if path in self.unreadable:
            return None
        try:
            return load_square(path, self.config.size)
        except (AdainError, OSError) as error:
            self.unreadable[path] = str(error)
            return None

    def _names(self, content: Path, style: Path) -> tuple[str, str]:
        return content.relative_to(self.config.contents).as_posix(), style.relative_to(self.config.styles).as_posix()


def _load(path: Path) -> Tensor:
    """A picture `(1, 3, H, W)`, composited on white."""
    return on_white(load_image(path))
