"""What a training is: its pictures, its networks, its recipe."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..errors import AdainError
from ..files import is_safe_name
from ..networks import Decoder, Encoder
from ..networks.base import check_seed

# Where pictures and results lie, and how the work is done, are no part of the recipe; nor is where it ends.
NOT_RECIPE = (
    "contents", "styles", "output", "name", "licence", "loss_encoder", "encoder", "steps", "accumulate", "workers",
    "device", "log_every", "save_minutes", "report_minutes",
)  # fmt: skip

CHOICES = {
    "optimizer": ("adam", "muon"),
    "schedule": ("published", "cosine"),
    "content_target": ("adain", "content"),
    "style_loss": ("statistics", "gram"),
}
INVERSE = "inverse"


@dataclass(frozen=True)
class TrainingConfig:
    """Pictures of `contents` and `styles`, results in the folder `output` under `name`; the defaults are the paper's recipe.

    Contents and styles are folders, or tensors `(N, 3 or 4, H, W)` in [0, 1]; networks are names, files, or networks, which
    are copied. `loss_encoder` is the encoder whose features the losses compare: of a VGG-19 at relu1_1 to relu4_1, of
    another at its levels. With `channels` empty a decoder for the fixed `encoder` (default: the loss encoder) is trained;
    else a pyramid encoder and decoder with these channels at strides 2, 4, 8, ..., jointly. A pyramid decoder has `blocks`
    of residual blocks at each stride (default: those of `start_from`, else one, and four at the coarsest). `start_from` is
    the decoder, or names the networks (bundled, or the `DIR/NAME` of their files), whose weights a training begins with;
    "inverse" fits a VGG-19's decoder to the pictures in closed form; without, weights are drawn from the seed.

    Sizes are in pixels; a `resize` of (from, to) draws the smallest side anew for each crop. `augment` varies styles by
    `augment_style`. `batch_size` is that of all processes together, `accumulate` in how many parts each takes its share, for
    less memory. A picture serves some `pairings` steps, each with another partner: what the loss network sees of it is
    computed once, and kept while it is among the pictures that batches are drawn from. `optimizer`: "adam", the paper's, or
    "muon" (Jordan et al. 2024), which learns more from a step. `schedule`: "published" is `lr / (1 + 5e-5 step)`; "cosine"
    rises over `warmup` steps, and falls along a cosine over the last third. `clip_norm` is the largest norm of a gradient,
    0 for any. `ema` is the decay of the mean of the weights, which is what is written; 0 writes the last ones.

    `content_target`: "adain", the paper's, or "content", the content's own features. `style_loss`: "statistics", the
    paper's, or "gram"; `layer_weights` are of the loss encoder's layers. `variation_weight` is of the total variation. With
    `clamp` the losses are of the pictures as they are shown, clamped to [0, 1]; else, as in the paper, a decoder may lower
    them by values beyond black and white, which no picture keeps. Every `consistency_every`-th step (0: none) a noised and
    shifted or zoomed crop must give the shifted or zoomed result.
    `precision` "auto" is bfloat16 where the device multiplies it fast, else float32; "float16" scales the gradients.
    The losses' means over `log_every` steps are kept; every `save_minutes` a checkpoint is written, every `report_minutes`
    the networks and pictures. Raises AdainError for what cannot be.
    """

    contents: Path | Tensor
    styles: Path | Tensor
    output: Path
    loss_encoder: str | Encoder
    name: str = "decoder"
    encoder: str | Encoder = ""
    channels: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    start_from: str | Decoder = ""
    steps: int = 160_000
    batch_size: int = 8
    accumulate: int = 1
    pairings: int = 1
    crop_size: int = 256
    resize_content: tuple[int, int] = (512, 512)
    resize_style: tuple[int, int] = (512, 512)
    augment: bool = False
    optimizer: str = "adam"
    learning_rate: float = 1e-4
    schedule: str = "published"
    warmup: int = 0
    clip_norm: float = 0.0
    ema: float = 0.0
    content_weight: float = 1.0
    content_target: str = "adain"
    style_weight: float = 10.0
    style_loss: str = "statistics"
    layer_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    variation_weight: float = 0.0
    clamp: bool = False
    consistency_weight: float = 0.0
    consistency_every: int = 0
    precision: str = "auto"
    seed: int = 0
    licence: str = ""
    workers: int = 1
    device: str = "auto"
    log_every: int = 100
    save_minutes: float = 5.0
    report_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.channels and self.encoder:
            raise AdainError("channels are of an encoder that is trained, encoder names a fixed one; give one of them.")
        if min(self.steps, self.batch_size, self.accumulate, self.pairings, self.crop_size, self.log_every) < 1:
            raise AdainError("steps, batch_size, accumulate, pairings, crop_size and log_every must be at least 1.")
        if min(self.warmup, self.consistency_every, self.seed, self.workers) < 0:
            raise AdainError("warmup, consistency_every, seed and workers must be at least 0.")
        check_seed(self.seed)
        if not len(self.resize_content) == len(self.resize_style) == 2:
            raise AdainError("resize_content and resize_style each take two sizes, from what to what, which may be the same.")
        if not is_safe_name(self.name):
            raise AdainError(f"{self.name!r} is no name for networks; use letters and digits, for example waves.")
        if self.channels and isinstance(self.start_from, Decoder):
            raise AdainError("start_from is a decoder alone; with channels, name networks to begin with.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise AdainError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}.")
        if not 0 < self.learning_rate < 1 or not 0 <= self.ema < 1:
            raise AdainError("the learning rate must be above 0 and below 1, ema at least 0 and below 1.")
        for field in dataclasses.fields(self):
            if isinstance(value := getattr(self, field.name), float) and not math.isfinite(value):
                raise AdainError(f"{field.name} is {value}; give a finite number.")

    def recipe(self) -> dict:
        """What must agree for a training to go on, as JSON has it."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in NOT_RECIPE]
        recipe = {name: getattr(self, name) for name in names}
        start = self.start_from.name if isinstance(self.start_from, Decoder) else self.start_from
        recipe["start_from"] = Path(start).name  # it is published, and folders are private
        return {key: list(value) if isinstance(value, tuple) else value for key, value in recipe.items()}

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        if self.schedule == "published":
            return self.learning_rate / (1 + 5e-5 * step)
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        fall = max(0.0, 1 - (self.steps - step) / (self.steps / 3))
        return self.learning_rate * rise * (0.51 + 0.49 * math.cos(math.pi * fall))


PRESETS: dict[str, dict] = {
    "paper": {},
    "lite": {
        "name": "lite",
        "channels": (32, 64, 128),
        "blocks": (1, 1, 4),
        "batch_size": 4,
        "pairings": 4,
        "crop_size": 128,
        "resize_content": (160, 512),
        "resize_style": (160, 512),
        "augment": True,
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "warmup": 500,
        "clip_norm": 10.0,
        "ema": 0.999,
        "style_weight": 8.0,
        "consistency_weight": 1500.0,
        "consistency_every": 2,
    },
}
