"""`adain train`: train a decoder, or a small encoder and decoder."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import textwrap

from tqdm.contrib.logging import logging_redirect_tqdm

from ..devices import keep_freed_memory, rank_and_size
from ..training import PRESETS, TrainingConfig, train
from . import options

SETTINGS = {field.name: field for field in dataclasses.fields(TrainingConfig)}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    presets = "\n".join(
        textwrap.fill(f"{name}: {_flags(preset)}", 80, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
        for name, preset in PRESETS.items() if preset
    )  # fmt: skip
    parser = subparsers.add_parser(
        "train", help="train a decoder, or a small encoder and decoder", formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"What the presets set; paper is the defaults above:\n{presets}",
    )  # fmt: skip
    parser.add_argument("--preset", choices=list(PRESETS), default="paper", help="the set of defaults for the other options")
    for name, field in SETTINGS.items():
        parser.add_argument(
            "--" + name.replace("_", "-"), required=field.default is dataclasses.MISSING, default=argparse.SUPPRESS,
            help=options.with_default(field.metadata["help"], field), **options.KINDS[str(field.type)],
        )  # fmt: skip
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def _flags(preset: dict) -> str:
    """The options that a preset stands for."""
    texts = {key.replace("_", "-"): value for key, value in preset.items()}
    return " ".join(f"--{key}" if value is True else f"--{key} {options.words(value)}" for key, value in texts.items())


def run(arguments: argparse.Namespace) -> int:
    given = {key: value for key, value in vars(arguments).items() if key in SETTINGS}
    for key, value in given.items():
        if isinstance(value, list):
            given[key] = tuple(value * 2 if key.startswith("resize_") and len(value) == 1 else value)
    config = TrainingConfig(**PRESETS[arguments.preset] | given)
    keep_freed_memory(all_of_it=True)
    first = rank_and_size()[0] == 0  # the first of the launched processes; only this one shows the progress
    level = logging.ERROR if not first else logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(message)s")
    with logging_redirect_tqdm(), options.progress_bar("picture", scale=config.batch_size, shown=first):
        result = train(config)
    if first and not arguments.quiet:
        file = result.decoder or result.encoder
        print(f"{file}: {result.step} steps, {result.skipped_steps} skipped, {result.broken_files} files unreadable")
    return 0
