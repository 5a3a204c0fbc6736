"""`adain bench`: the speed of the networks compared with a plain implementation of them, and what a device computes."""

from __future__ import annotations

import argparse
import itertools

from ..devices import DTYPES
from ..evaluation.bench import BenchConfig, BenchResult, Row, bench
from ..evaluation.check import Check, check_device
from . import options
from .info import versions


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("bench", help="measure speed and memory against a plain implementation of the networks")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[256, 512], metavar="PIXELS", help="sides of the pictures (default: 256 512)"
    )
    parser.add_argument(
        "--dtypes", nargs="+", default=[], choices=DTYPES,
        help="number types (default: float32, and 16 bits if the device multiplies them fast)",
    )  # fmt: skip
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="measure N times and take the median (default: 5)")
    for role in ("encoder", "decoder"):
        parser.add_argument(
            f"--{role}", default="", metavar="NAME", help="weights of a VGG-19: a name or a file (default: random weights)"
        )
    parser.add_argument("--training", action="store_true", help="also measure a training step by the paper's recipe")
    parser.add_argument(
        "--check", default="", metavar="DEVICE",
        help="first compare what this device, such as cuda, computes with the CPU, and print a report for a bug report",
    )  # fmt: skip
    options.add_device(parser)
    options.add_json_output(parser, "all measurements")
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.output:
        options.check_output(arguments, arguments.output)
    if arguments.check:
        arguments.device = arguments.check
    config, passed = options.given(BenchConfig, arguments), True
    if arguments.check:
        with options.progress_bar("check"):
            checks = check_device(arguments.check)
        passed = all(check.passed for check in checks)
        print("\n".join([*versions(), "", *map(_checked, checks), *(f"\n{c.name}:\n{c.fault}" for c in checks if c.fault), ""]))
    with options.progress_bar("round"):
        result = bench(config)
    print(_table(result))
    if arguments.output:  # last: if the writing fails, the numbers have been printed
        result.save(arguments.output)
    return 0 if passed else 1


def _checked(check: Check) -> str:
    found = "broke" if check.fault else f"error {check.error:.1e}, at most {check.limit:.1e}"
    return f"{'ok' if check.passed else 'FAILED':8}{check.name:60}{found}"


def _table(result: BenchResult) -> str:
    machine = result.machine
    lines = [
        str(machine),
        f"a large float32 matrix product: {machine.multiply_adds:.3g} multiply-adds a second",
    ]
    for (size, parts), rows in itertools.groupby(result.rows, lambda row: (row.size, list(row.seconds))):
        title = f"{size}x{size}, seconds"
        columns = [*parts, "times faster", "added MB", "of product", "rel. error"]
        lines += ["", f"{title:24}" + "".join(f"{column:>13}" for column in columns)]
        lines += [_line(row, machine.multiply_adds) for row in rows]
    return "\n".join(lines)


def _line(row: Row, product: float) -> str:
    cells = [*(f"{seconds:.4g}" for seconds in row.seconds.values()), f"{row.speedup:.2f}", f"{row.memory / 1e6:.0f}"]
    cells.append("" if row.multiply_adds is None else f"{row.multiply_adds / product:.0%}")
    cells.append("" if row.error is None else f"{row.error:.1e}")
    return f"  {row.pipeline:12}{row.dtype:10}" + "".join(f"{cell:>13}" for cell in cells)
