"""`adain average`: the mean of the weights of several trainings."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from ..catalog import ROLES, find_entry, network_file
from ..errors import AdainError
from ..files import check_folder, check_not_sources, make_folder, remove_leftovers
from ..weights import average_networks, read_network, write_network
from . import options
from .results import print_written


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("average", help="the mean of the weights of trainings that began from the same networks")
    parser.add_argument("models", nargs="+", metavar="MODEL", help="DIR/NAME of a training's files, or a bundled name")
    parser.add_argument("-o", "--output", required=True, metavar="DIR/NAME", help="the folder and the name of the mean")
    options.add_weights(parser, "share of each model in the mean")
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    files = [_files(model) for model in arguments.models]
    if not Path(arguments.output).name or arguments.output.endswith(("/", os.sep)):
        raise AdainError(f"{arguments.output} does not end in a name for the networks; give DIR/NAME.")
    roles = [role for role in ROLES if all(role in each for each in files)]
    targets = {role: Path(network_file(arguments.output, role)) for role in roles}
    check_not_sources(targets.values(), [file for each in files for file in each.values()])
    folder = Path(arguments.output).parent
    check_folder(folder)
    models = [{role: read_network(path, role) for role, path in each.items()} for each in files]
    means = average_networks(models, arguments.weights, Path(arguments.output).name)
    make_folder(folder)
    for role, network in means.items():
        remove_leftovers(targets[role])
        write_network(network, targets[role], "float16")
    print_written(" and ".join(map(str, targets.values())), start)
    return 0


def _files(model: str) -> dict[str, Path]:
    """The files of a model's networks, by their role. Raises FileNotFoundError if there is none."""
    entries = {role: find_entry(model, role) for role in ROLES}
    paths = {role: entry.path if entry else Path(network_file(model, role)) for role, entry in entries.items()}
    found = {role: path for role, path in paths.items() if path.is_file()}
    if not found:
        raise FileNotFoundError(f"there is no network {model!r}; give DIR/NAME of the files NAME-decoder.safetensors in DIR.")
    return found
