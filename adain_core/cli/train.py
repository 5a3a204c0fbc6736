"""`adain train`: train a decoder, or a small encoder and decoder."""

from __future__ import annotations

import argparse
import dataclasses
import logging

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..devices import keep_freed_memory, rank_and_size
from ..training import PRESETS, TrainingConfig, train
from . import options

SETTINGS = {field.name: field for field in dataclasses.fields(TrainingConfig)}
HELP = {
    "contents": "folder of content pictures, with its sub-folders",
    "styles": "folder of style pictures, with its sub-folders",
    "output": "folder for networks, checkpoint, sample sheet and loss curve; a training found there goes on",
    "loss_encoder": "the encoder, best a VGG-19, whose features the losses compare: a name or a file",
    "name": "what the networks and their files are called",
    "encoder": "the fixed encoder to train a decoder for (default: the loss encoder)",
    "channels": "channels of a pyramid at strides 2, 4, 8, ...; trains its encoder too",
    "blocks": "residual blocks of a pyramid's decoder at each stride",
    "start_from": "networks to begin with: a bundled name, or DIR/NAME of their files; or inverse, a VGG-19's in closed form",
    "steps": "of the whole training; where it has done fewer, it goes on",
    "batch_size": "pictures a step, of all processes together",
    "accumulate": "parts in which a batch is worked through, for less memory",
    "pairings": "steps that a picture serves, each with another partner",
    "crop_size": "side of the crops in pixels",
    "resize_content": "smallest side contents are resized to, or from what to what",
    "resize_style": "the same for styles, which sets the scale of the strokes",
    "augment": "train on monochrome, inked, flat, patterned and other variations of the styles too",
    "optimizer": "adam (the paper's) or muon",
    "learning_rate": "the highest of the schedule",
    "schedule": "published (the paper's) or cosine, of the learning rate",
    "warmup": "steps over which the cosine schedule rises",
    "clip_norm": "largest norm of a step's gradient; 0 clips none",
    "ema": "decay of the mean of the weights, which is what is written; 0 writes the last weights",
    "content_weight": "of the content loss",
    "content_target": "adain (the paper's) or content (the content's own features)",
    "style_weight": "of the style loss",
    "style_loss": "statistics (the paper's) or gram",
    "layer_weights": "weights of the style loss at relu1_1 to relu4_1, or at the loss encoder's levels",
    "variation_weight": "of the results' total variation",
    "clamp": "take the losses of the pictures as they are shown, clamped to [0, 1]",
    "consistency_weight": "of what differs in the result of a crop that is noised, and shifted or zoomed",
    "consistency_every": "steps from one that measures this to the next; 0 never does",
    "precision": "auto, float32, bfloat16 or float16; auto takes bfloat16 where the device multiplies it fast",
    "seed": "under which crops and weights are drawn",
    "licence": "the weights' licence, kept in their files",
    "workers": "processes that read pictures; 0 reads them between the steps",
    "device": "cpu, cuda, cuda:1, mps, xpu; auto takes the fastest found",
    "log_every": "steps of which the losses' mean is a point of the loss curve",
    "save_minutes": "from one checkpoint to the next",
    "report_minutes": "after which networks, sample sheet and loss curve are renewed",
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train a decoder, or a small encoder and decoder")
    parser.add_argument("--preset", choices=list(PRESETS), default="paper", help="where the other defaults come from")
    for name, field in SETTINGS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), required=field.default is dataclasses.MISSING, default=argparse.SUPPRESS,
            help=HELP[name], **options.KINDS[field.type],
        )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(arguments).items() if key in SETTINGS}
    for key, value in given.items():
        if isinstance(value, list):
            given[key] = tuple(value * 2 if key.startswith("resize_") and len(value) == 1 else value)
    config = TrainingConfig(**PRESETS[arguments.preset] | given)
    keep_freed_memory(all_of_it=True)
    first = rank_and_size()[0] == 0  # of the launched processes; it alone reports
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(asctime)s %(message)s")
    pictures = config.steps * config.batch_size
    with logging_redirect_tqdm(), tqdm(total=pictures, unit="picture", disable=None if first else True) as bar:

        def progress(step: int, losses: dict[str, float]) -> None:
            pictures = step * config.batch_size
            if not bar.n:
                bar.initial = bar.n = pictures - config.batch_size  # a training that goes on is not faster for it
            bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
            bar.update(pictures - bar.n)

        result = train(config, progress)
    if first:
        print(f"{result.decoder}: {config.steps} steps, {result.skipped_steps} skipped, {result.broken_files} files unreadable")
    return 0
