"""The measurements of `adain evaluate` on drawn pictures: the sheet, and the paper's experiments if they are installed."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import AdainError
from ..evaluation.measurement import Measurement, Table
from ..evaluation.sheet import SheetConfig, compare_pictures
from . import options

SHEET = (SheetConfig, compare_pictures, "models and folders of finished pictures side by side, with their losses")
HELP = {
    "contents": "folder of content pictures, with its sub-folders",
    "styles": "folder of style pictures, with its sub-folders",
    "loss_encoder": "the VGG-19 whose features the losses compare: a name or a file",
    "encoder": "a name or a file; an empty name stands for the loss encoder, in speed for a VGG-19 with random weights",
    "decoder": "a VGG-19's mirror, a name or a file (default: random weights)",
    "learning_rate": "learning rate of the variants' training",
    "batch_size": "number of crops in a training step",
    "crop_size": "side of these crops",
    "models": "an encoder and a decoder, or a name for both; give it again for further models",
    "model": "an encoder and a decoder, or a name for both",
    "results": "folders of finished pictures, named CONTENT...STYLE, or CONTENT/STYLE, as adain names them",
    "size": "side of the squares that pictures are cut to, or of crops in training",
    "sizes": "sides of the pictures",
    "runs": "number of measurements, of which the median is taken",
    "content_count": "number of contents to draw",
    "style_count": "number of styles to draw",
    "iterations": "iterations of optimisation, and of inverting swapped features",
    "training_contents": "folder of contents to train the other networks on (default: the contents)",
    "training_steps": "training steps of the other networks",
    "steps": "training steps of each variant",
    "folder": "folder for networks and checkpoints, so that a stopped ablation goes on (default: they are not kept)",
    "seed": "seed for drawing pictures and initial weights",
    "device": "cpu, cuda, cuda:1, mps or xpu; auto takes the fastest available",
}


def add_parsers(parser: argparse.ArgumentParser) -> None:
    subparsers = parser.add_subparsers(title="further measurements", metavar="MEASUREMENT", prog=parser.prog)
    for name, (config, measure, text) in (_experiments() | {"sheet": SHEET}).items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        for field in dataclasses.fields(config):
            required = field.default is dataclasses.MISSING
            flag = "--" + field.name.replace("_", "-").replace("models", "model")
            # no default in the parser: None marks options that were not given
            kind = {"dest": field.name, "required": required, "default": None} | options.KINDS[str(field.type)]
            subparser.add_argument(flag, help=options.with_default(HELP[field.name], field), **kind)
        sizes = ", ".join(f"--{key.replace('_', '-')} {options.words(value) or repr('')}" for key, value in config.FULL.items())
        subparser.add_argument("--full", action="store_true", help=f"full size: {sizes}")
        subparser.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="write the numbers as JSON, and the figure beside it as PNG"
        )
        subparser.set_defaults(run=partial(run, config, measure))


def run(kind: type, measure: Callable[..., Measurement], arguments: argparse.Namespace) -> int:
    if arguments.output:
        if arguments.output.suffix.lower() == ".png":
            raise AdainError(f"{arguments.output} is a picture; name a .json file, beside which the figure is written.")
        options.check_output(arguments, arguments.output, arguments.output.with_suffix(".png"))
        if kind.MATPLOTLIB and importlib.util.find_spec("matplotlib") is None:
            raise AdainError("the figure needs matplotlib; pip install '.[evaluate]', or leave out the output.")
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}
    given = {name: _tuples(value) for name, value in given.items() if value is not None}
    config = kind(**(kind.FULL if arguments.full else {}) | given)
    with options.progress_bar("step"):
        result = measure(config)
    networks = "\n".join(f"{role}  {network}" for role, network in result.networks.items())
    parts = [networks, *map(_table, result.tables), "\n".join(result.findings)]
    print("\n\n".join(filter(None, parts)))
    if arguments.output:  # last: if the writing fails, the numbers have been printed
        result.save(arguments.output)
    return 0


def _experiments() -> dict[str, tuple[type, Callable[..., Measurement], str]]:
    """The paper's experiments; empty in the version from ComfyUI's registry, which lacks their folder."""
    try:
        from ..experiments import EXPERIMENTS
    except ModuleNotFoundError as error:
        if not str(error.name).endswith("adain_core.experiments"):
            raise
        return {}
    return EXPERIMENTS


def _table(table: Table) -> str:
    first = max(map(len, [table.title, *table.rows])) + 2
    lines = [table.title.ljust(first) + "".join(f"  {column:>12}" for column in table.columns)]
    for name, values in table.rows.items():
        cells = (f"  {_cell(value):>{max(12, len(column))}}" for value, column in zip(values, table.columns, strict=True))
        lines.append(f"  {name}".ljust(first) + "".join(cells))
    return "\n".join(lines)


def _cell(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"


def _tuples(value: object) -> object:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
