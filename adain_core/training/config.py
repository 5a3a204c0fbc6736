"""The settings of a training, and presets of them."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from ..errors import AdainError
from ..files import is_safe_name
from ..networks import Decoder, Encoder
from ..networks.base import check_seed

REQUIRED = dataclasses.MISSING
INVERSE = "inverse"
CHOICES = {
    "stage": ("decoder", "encoder", "both"),
    "optimizer": ("adam", "muon"),
    "schedule": ("published", "cosine"),
    "content_target": ("adain", "content"),
    "style_loss": ("statistics", "gram"),
}

Config = TypeVar("Config", bound=type)


def setting(default: Any, help: str, recipe: bool = True) -> Any:
    """A dataclass field with its help text; `recipe`: whether a training must keep its value in order to go on."""
    return dataclasses.field(default=default, metadata={"help": help, "recipe": recipe})


def documented(config: Config) -> Config:
    """Add the list of its settings to a configuration's docstring; those outside of the recipe are marked with *."""
    lines = []
    for field in dataclasses.fields(config):
        default = "" if field.default is REQUIRED else f" = {field.default!r}"
        star = "" if field.metadata["recipe"] else "*"
        lines.append(f"    {field.name}{star} ({field.type}{default}): {field.metadata['help']}")
    config.__doc__ = "\n".join([(config.__doc__ or "").rstrip(), "", *lines])
    return config


@documented
@dataclass(frozen=True)
class TrainingConfig:
    """The settings of a training; the defaults are the paper's recipe.

    Contents and styles are folders, or tensors `(N, 3 or 4, H, W)` in [0, 1]. Networks are names, files, or networks, which
    are copied. The stage "decoder" trains a decoder for the fixed `encoder`; its `blocks` are by default those of `start_from`,
    else one at the finest stride and two at each other one. Without `start_from`, weights are drawn from the seed.

    Sizes are in pixels. If the two sizes of a `resize` differ, one between them is drawn for each crop. With several
    `pairings` the loss network sees a picture once, not at every step it serves. The optimizer "muon" (Jordan et al. 2024)
    learns more from a step. The schedule "published" is `lr / (1 + 5e-5 step)`; "cosine" rises over `warmup` steps and falls
    along a cosine over the last third. Without `clamp`, as in the paper, a decoder may lower the losses by values beyond
    black and white, which no picture can hold. The precision "float16" scales the gradients.

    The stage "both" goes on with an encoder that was taught and its decoder, those of `start_from`: the losses' gradients reach
    the encoder too, and the loss "map" keeps it seeing as the loss encoder does.

    A training goes on from its checkpoint only with the same pictures and networks, wherever they lie, and with the same
    values of all settings below but those marked with *. Raises AdainError for settings out of range.
    """

    # Pictures, results, and the network that measures
    contents: Path | Tensor = setting(REQUIRED, "folder of content pictures, with its sub-folders", recipe=False)
    styles: Path | Tensor = setting(REQUIRED, "folder of style pictures, with its sub-folders", recipe=False)
    output: Path = setting(
        REQUIRED, "folder for networks, checkpoint, sample sheet and loss curve; a training found there goes on", recipe=False
    )
    loss_encoder: str | Encoder = setting(
        REQUIRED, "the encoder, best a VGG-19, whose features the losses compare: a name or a file", recipe=False
    )
    name: str = setting("trained", "what the networks and their files are called", recipe=False)

    # Networks
    encoder: str | Encoder = setting("", "the fixed encoder to train a decoder for (default: the loss encoder)", recipe=False)
    channels: tuple[int, ...] = setting((), "channels at strides 2, 4, 8, ... of an encoder that is taught")
    blocks: tuple[int, ...] = setting((), "residual blocks at each stride, of a decoder, or of an encoder that is taught")
    start_from: str | Decoder = setting(
        "", "networks to begin with: a bundled name, or DIR/NAME of their files; or inverse, a VGG-19's in closed form"
    )

    # Steps and batches
    steps: int = setting(160_000, "of the whole training; where it has done fewer, it goes on", recipe=False)
    batch_size: int = setting(8, "pictures a step, of all processes together")
    accumulate: int = setting(1, "parts in which a batch is worked through, for less memory", recipe=False)
    pairings: int = setting(1, "steps that a picture serves, each with another partner")

    # Crops
    crop_size: int = setting(256, "side of the crops in pixels")
    resize_content: tuple[int, int] = setting((512, 512), "smallest side contents are resized to, or from what to what")
    resize_style: tuple[int, int] = setting((512, 512), "the same for styles, which sets the scale of the strokes")
    augment: bool = setting(False, "train on monochrome, inked, flat, patterned and other variations of the styles too")

    # Optimizer
    optimizer: str = setting("adam", "adam (the paper's) or muon")
    learning_rate: float = setting(1e-4, "the highest of the schedule")
    schedule: str = setting("published", "published (the paper's) or cosine, of the learning rate")
    warmup: int = setting(0, "steps over which the cosine schedule rises")
    clip_norm: float = setting(0.0, "largest norm of a step's gradient; 0 clips none")
    ema: float = setting(0.0, "decay of the mean of the weights, which is what is written; 0 writes the last weights")

    # Losses
    content_weight: float = setting(1.0, "of the content loss")
    content_target: str = setting("adain", "adain (the paper's) or content (the content's own features)")
    style_weight: float = setting(10.0, "of the style loss")
    style_loss: str = setting("statistics", "statistics (the paper's) or gram")
    layer_weights: tuple[float, ...] = setting(
        (1.0, 1.0, 1.0, 1.0), "weights of the style loss at relu1_1 to relu4_1, or at the loss encoder's levels"
    )
    coarse_style_weight: float = setting(0.0, "of the style loss, in statistics, at half the size: of larger strokes")
    variation_weight: float = setting(0.0, "of the results' total variation")
    grid_weight: float = setting(0.0, "of what repeats every 8 pixels in the results, a mesh")
    clamp: bool = setting(False, "take the losses of the pictures as they are shown, clamped to [0, 1]")
    consistency_weight: float = setting(0.0, "of what differs in the result of a crop that is noised, and shifted or zoomed")
    consistency_every: int = setting(
        0, "steps from one that measures this to the next, of those without a texture; 0 never does"
    )
    map_weight: float = setting(
        3.0, "of the share of the loss encoder's features that the encoder does not explain, where both are trained"
    )
    teacher: str | Decoder = setting("", "a decoder for the loss encoder, whose pictures are targets too")
    teacher_weight: float = setting(1.0, "of what differs from them, in pixels and in the loss encoder's finer layers")

    # How it is computed and shown
    precision: str = setting(
        "auto", "auto, float32, bfloat16 or float16; auto takes bfloat16 where the device multiplies it fast"
    )
    seed: int = setting(0, "under which crops and weights are drawn")
    licence: str = setting("", "the weights' licence, kept in their files", recipe=False)
    workers: int = setting(1, "processes that read pictures; 0 reads them between the steps", recipe=False)
    device: str = setting("auto", "cpu, cuda, cuda:1, mps, xpu; auto takes the fastest found", recipe=False)
    log_every: int = setting(100, "steps of which the losses' mean is a point of the loss curve", recipe=False)
    save_minutes: float = setting(5.0, "from one checkpoint to the next", recipe=False)
    results_minutes: float = setting(5.0, "after which networks, sample sheet and loss curve are renewed", recipe=False)

    # What is trained
    stage: str = setting(
        "decoder", "decoder; encoder: teach a small encoder to see as the loss encoder does; or both: go on with both"
    )

    def __post_init__(self) -> None:
        names = [field.name for field in dataclasses.fields(self)]
        if min(self.steps, self.batch_size, self.accumulate, self.pairings, self.crop_size, self.log_every) < 1:
            raise AdainError("steps, batch_size, accumulate, pairings, crop_size and log_every must be at least 1.")
        if min(self.warmup, self.consistency_every, self.seed, self.workers) < 0:
            raise AdainError("warmup, consistency_every, seed and workers must be at least 0.")
        weights = [name for name in names if name.endswith("_weight")]
        if negative := next((name for name in ("clip_norm", *weights) if getattr(self, name) < 0), ""):
            raise AdainError(f"{negative} is {getattr(self, negative)}; give at least 0, which leaves it out.")
        if min(self.layer_weights, default=0) < 0:
            raise AdainError("the layer_weights must be at least 0.")
        if self.crop_size < 8 and (self.grid_weight or self.coarse_style_weight):
            raise AdainError("grid_weight and coarse_style_weight need crops of at least 8 pixels; give a larger crop_size.")
        if self.consistency_weight and not self.consistency_every:
            raise AdainError("the consistency has a weight, but no step measures it; give consistency_every, for example 1.")
        if self.stage == "encoder" and (len(self.channels) != len(self.blocks) or not self.channels):
            raise AdainError("to teach an encoder, give channels and blocks, a number of each for every stride.")
        if self.stage == "encoder" and (self.encoder or isinstance(self.start_from, Decoder)):
            raise AdainError("an encoder is taught from drawn weights, or from one that start_from names; give no other.")
        if self.stage == "decoder" and self.channels:
            raise AdainError(
                "channels are for the stage encoder; teach an encoder by it first, then train a decoder with encoder naming its"
                " file."
            )
        check_seed(self.seed)
        if not len(self.resize_content) == len(self.resize_style) == 2:
            raise AdainError("resize_content and resize_style each take two sizes, from what to what, which may be the same.")
        if not is_safe_name(self.name):
            raise AdainError(f"{self.name!r} is no name for networks; use letters and digits, for example waves.")
        if self.stage == "both" and (self.channels or self.blocks or self.encoder or not isinstance(self.start_from, str)):
            raise AdainError("both networks are those of start_from; give it a name, and no encoder, channels and blocks.")
        if self.stage == "both" and self.start_from in ("", INVERSE):
            raise AdainError("to train both networks, begin with some that were trained one after the other; give start_from.")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise AdainError(f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}.")
        if not 0 < self.learning_rate < 1 or not 0 <= self.ema < 1:
            raise AdainError("the learning rate must be above 0 and below 1, ema at least 0 and below 1.")
        for name in names:
            if isinstance(value := getattr(self, name), float) and not math.isfinite(value):
                raise AdainError(f"{name} is {value}; give a finite number.")

    @property
    def trained_roles(self) -> tuple[str, ...]:
        """Which of the networks are trained: "encoder", "decoder"."""
        return ("encoder", "decoder") if self.stage == "both" else (self.stage,)

    def recipe(self) -> dict:
        """The settings that must stay the same for a training to go on, in types that JSON has."""
        names = [field.name for field in dataclasses.fields(self) if field.metadata["recipe"]]
        recipe = {name: getattr(self, name) for name in names}
        start = self.start_from.name if isinstance(self.start_from, Decoder) else self.start_from
        recipe["start_from"] = Path(start).name  # it is published, and folders are private
        recipe["teacher"] = Path(self.teacher.name if isinstance(self.teacher, Decoder) else self.teacher).name
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
    "lite-encoder": {
        "name": "lite",
        "stage": "encoder",
        "channels": (32, 64, 192),
        "blocks": (0, 1, 2),
        "crop_size": 128,
        "resize_content": (160, 512),
        "resize_style": (160, 512),
        "optimizer": "muon",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup": 50,
        "ema": 0.99,
    },
    "lite": {
        "name": "lite",
        "encoder": "lite",
        "blocks": (1, 2, 2),
        "batch_size": 8,
        "pairings": 4,
        "crop_size": 128,
        "resize_content": (144, 512),
        "resize_style": (144, 512),
        "clamp": True,
        "optimizer": "muon",
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "warmup": 50,
        "clip_norm": 10.0,
        "ema": 0.998,
        "style_weight": 2.0,
    },
}
PRESETS["lite-both"] = {name: value for name, value in PRESETS["lite"].items() if name not in ("encoder", "blocks")} | {
    "stage": "both",
    "start_from": "lite",
    "batch_size": 4,
    "crop_size": 192,
    "resize_content": (256, 512),
    "resize_style": (256, 512),
    "learning_rate": 3e-4,
    "style_weight": 1.0,
    "coarse_style_weight": 0.3,
    "map_weight": 1.0,
    "grid_weight": 300.0,
    "consistency_weight": 300.0,
    "consistency_every": 1,
}
