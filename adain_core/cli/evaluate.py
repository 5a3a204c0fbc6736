"""`adain evaluate`: how good a model is; `measurements` adds further subcommands."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from ..errors import AdainError
from ..evaluation import EvaluationConfig, Report, evaluate
from ..evaluation.boil import SIZE
from ..evaluation.report import MODES
from . import measurements, options
from .fitting import check_fit


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "evaluate", help="measure a model's losses and boil on folders of pictures",
        usage="%(prog)s --contents DIR --styles DIR --loss-encoder NAME [options]\n       %(prog)s MEASUREMENT --help",
    )  # fmt: skip
    required = parser.add_argument_group("required, unless a further measurement is named")
    required.add_argument("--contents", type=Path, metavar="DIR", help="folder of content pictures (required)")
    required.add_argument("--styles", type=Path, metavar="DIR", help="folder of style pictures (required)")
    required.add_argument(
        "--loss-encoder", metavar="NAME", help="the VGG-19 whose features the losses compare: a name or a file (required)"
    )
    options.add_networks(parser)
    parser.add_argument(
        "--size", type=int, default=512, metavar="PIXELS", help="side of the squares that pictures are cut to (default: 512)"
    )
    parser.add_argument("--pairs", type=int, default=0, metavar="N", help="draw N pairs; 0 takes all (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed for drawing the pairs (default: 0)")
    parser.add_argument(
        "--boil", type=int, default=4, metavar="N", dest="boil_pairs",
        help="measure the boil of a moving view of a still on N of the pairs; 0 leaves it out (default: 4)",
    )  # fmt: skip
    parser.add_argument(
        "--flat", type=int, default=4, metavar="N", dest="flat_pairs",
        help="measure how flat areas are painted, on contents of N pairs blurred to slopes; 0 leaves it out (default: 4)",
    )  # fmt: skip
    options.add_half_life(parser)
    options.add_json_output(parser, "the means and every pair")
    options.add_device(parser)
    options.add_dtype(parser, default="float32")
    options.add_quiet(parser)
    parser.set_defaults(run=run)
    measurements.add_parsers(parser)


def run(arguments: argparse.Namespace) -> int:
    for option in ("contents", "styles", "loss_encoder"):  # not required by the parser: the further measurements have their own
        if getattr(arguments, option) is None:
            raise AdainError(f"--{option.replace('_', '-')} is missing; see adain evaluate --help.")
    if arguments.output:
        options.check_output(arguments, arguments.output)
    names = options.given(options.NetworkOptions, arguments).names
    settings = [field.name for field in dataclasses.fields(EvaluationConfig)]
    values: dict[str, Any] = {name: getattr(arguments, name) for name in settings}
    values.update(names)
    config = EvaluationConfig(**values)
    check_fit(names)
    with options.progress_bar("pair"):
        report = evaluate(config)
    print(_table(report))
    if arguments.output:  # last: if the writing fails, the numbers have been printed
        report.save(arguments.output)
    if report.skipped:
        options.print_failures(f"{len(report.skipped)} pictures could not be read", report.skipped)
    return 1 if report.skipped else 0


def _table(report: Report) -> str:
    lines = [
        f"encoder       {report.encoder} ({report.encoder_fingerprint[:12]})",
        f"decoder       {report.decoder}",
        f"loss network  {report.loss_encoder} ({report.loss_encoder_fingerprint[:12]})",
        "",
        f"{f'{len(report.pairs)} pairs, {report.config.size}x{report.config.size}':26}{'content loss':>14}{'style loss':>14}",
    ]
    for name, losses in (("the model", report.model), ("the untouched content", report.untouched)):
        lines.append(f"  {name:24}{losses.content:14.4g}{losses.style:14.4g}")
    if report.boils:
        title = f"boil of {len(report.boils)} pairs, {SIZE}x{SIZE}"
        lines += ["", f"{title:26}" + "".join(f"{mode:>14}" for mode in MODES)]
        for motion, values in report.boil.items():
            lines.append(f"  {motion:24}" + "".join(f"{values[mode]:14.4g}" for mode in MODES))
    if report.flat:
        lines += ["", f"{f'flat areas of {len(report.flats)} pairs':26}{'texture':>14}{'grid':>14}"]
        lines.append(f"  {'the model':24}{report.flat.texture:14.4g}{report.flat.grid:14.4g}")
    return "\n".join(lines)
