"""The common parts of measurements on drawn pictures: the pictures, the network that measures, and the results."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from PIL import Image
from torch import Tensor

from ..devices import resolve_device
from ..errors import AdainError
from ..files import write_json
from ..images import list_images, write_picture
from ..networks import Decoder, Encoder
from ..networks.base import check_seed
from ..statistics import channel_statistics
from ..style import Style, encode_style
from ..stylize import check_decoder, stylize
from ..weights import load_decoder, load_encoder
from .losses import Losses, layer_features, load_loss_network, pair_losses
from .report import load_square

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class MeasurementConfig:
    """Pictures drawn under `seed` from the folders `contents` and `styles`, cut to squares of `size` pixels.

    `loss_encoder` is the VGG-19 (a name or a file) that measures. The defaults are small; `FULL` holds the paper's sizes.
    Raises AdainError for numbers out of range.
    """

    FULL: ClassVar[dict] = {}
    MATPLOTLIB: ClassVar[bool] = True  # whether the figure has axes

    contents: Path
    styles: Path
    loss_encoder: str
    size: int = 128
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), {"size": 16, "crop_size": 16, "seed": 0}.get(field.name, 1)
            if field.type == "int" and value < least:
                raise AdainError(f"{field.name} is {value}; give at least {least}.")
        check_seed(self.seed)


@dataclass(frozen=True)
class Table:
    """Rows of numbers or short words, by their names, under `columns`; None is an empty cell."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float | str | None, ...]]


@dataclass(frozen=True)
class Measurement:
    """The results of a measurement with `config`, and the `networks` by their roles.

    `curves` are losses step by step, by name; `findings` are sentences derived from the numbers; `draw` makes the figure.
    """

    config: DataclassInstance
    networks: dict[str, str]
    tables: tuple[Table, ...]
    draw: Callable[[], Image.Image]
    curves: dict[str, list[Losses]] = dataclasses.field(default_factory=dict)
    findings: tuple[str, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write the numbers as JSON, and the figure as PNG beside it; each as a temporary file first, then renamed."""
        tables = {
            table.title: {name: dict(zip(table.columns, row, strict=True)) for name, row in table.rows.items()}
            for table in self.tables
        }
        curves = {
            name: {part: [getattr(each, part) for each in losses] for part in ("content", "style")}
            for name, losses in self.curves.items()
        }
        numbers = {"config": dataclasses.asdict(self.config), "networks": self.networks, "tables": tables, "curves": curves}
        write_json(path, numbers | {"findings": self.findings})
        write_picture(self.draw(), Path(path).with_suffix(".png"), "PNG")


@dataclass(frozen=True)
class Model:
    """An encoder and a decoder that belong together."""

    name: str
    encoder: Encoder
    decoder: Decoder

    def __call__(self, content: Tensor, style: Tensor) -> Tensor:
        """The content `(1, 3, H, W)` in the style of a picture `(1, 3, H, W)`, on the CPU."""
        return self.stylize(content, self.encode_style(style))

    def encode_style(self, picture: Tensor) -> Style:
        """The style of a picture `(1, 3, H, W)` at its own size."""
        return encode_style(self.encoder, picture, size=0)

    def stylize(self, content: Tensor, style: Style, alpha: float = 1.0) -> Tensor:
        """The content `(1, 3, H, W)` in a style, on the CPU; as in the paper, it is not kept where it is not stylised."""
        return stylize(self.encoder, self.decoder, content, style, alpha, residual=False).cpu()


def load_models(names: Sequence[Sequence[str]], device: str) -> list[Model]:
    """The models for names or files of an encoder and a decoder; a single name stands for both.

    Raises AdainError if a decoder belongs to another encoder.
    """
    models: dict[str, Model] = {}
    for encoder_name, *rest in names:
        if len(rest) > 1:
            raise AdainError(f"a model is a name, or an encoder and a decoder, not {' '.join([encoder_name, *rest])}.")
        encoder = load_encoder(encoder_name, resolve_device(device))
        decoder = load_decoder(rest[0] if rest else encoder_name, resolve_device(device))
        check_decoder(decoder, encoder.fingerprint, encoder.name)
        name = encoder.name if encoder.name == decoder.name else f"{encoder.name} + {decoder.name}"
        name = name if name not in models else f"{name} ({len(models) + 1})"
        models[name] = Model(name, encoder, decoder)
    return list(models.values())


class Judge:
    """The drawn pictures, by their paths in their folders, and the network that measures."""

    def __init__(self, config: MeasurementConfig, contents: int, styles: int):
        """Draw so many contents and styles. Raises AdainError for an unreadable picture."""
        self.device = resolve_device(config.device)
        self.contents = _draw(config.contents, contents, config)
        self.styles = _draw(config.styles, styles, config)
        self.network = load_loss_network(config.loss_encoder, self.device)
        self.network.plain = True  # pictures are optimised through it
        # only the deepest features of a content are compared; all layers take 125 MB at 512 pixels
        self.features = {name: layer_features(self.network, picture)[-1:] for name, picture in self.contents.items()}
        self.statistics = {
            name: [channel_statistics(x) for x in layer_features(self.network, picture)]
            for name, picture in self.styles.items()
        }

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """All pairs of a content and a style, by their names."""
        return list(itertools.product(self.contents, self.styles))

    def losses(self, result: Tensor, content: str, style: str) -> Losses:
        """The `pair_losses` of a picture `(1, 3, size, size)`, which is clamped to [0, 1]."""
        features = layer_features(self.network, result.clamp(0, 1))
        return pair_losses(features, self.features[content], self.statistics[style])

    def named(self, models: Sequence[Model] = ()) -> dict[str, str]:
        """The names and fingerprints of the loss network and of the models' encoders, by their roles."""
        return named({"loss network": self.network} | {f"encoder of {model.name}": model.encoder for model in models})


def named(networks: dict[str, Encoder]) -> dict[str, str]:
    """The name and the fingerprint of each network, by its role."""
    return {role: f"{network.name} ({network.fingerprint[:12]})" for role, network in networks.items()}


def _draw(folder: Path, count: int, config: MeasurementConfig) -> dict[str, Tensor]:
    files = list_images(folder)
    drawn = sorted(random.Random(config.seed).sample(files, min(count, len(files))))
    return {path.relative_to(folder).as_posix(): load_square(path, config.size) for path in drawn}
