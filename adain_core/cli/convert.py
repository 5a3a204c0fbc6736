"""`adain convert`: public weight files to this project's safetensors."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..devices import DTYPES
from ..weights import read_network, write_network


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("convert", help="convert a public encoder or decoder to safetensors with metadata")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .pth or .safetensors file in a public layout")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--name", default="", help="the network's name, kept in the file (default: the file's)")
    parser.add_argument("--licence", default="", help="the weights' licence, kept in the file")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES), help="type of the kernels (default: float32)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.output.suffix.lower() != ".safetensors":
        raise ValueError(f"{arguments.output} does not end in .safetensors; converted weights do.")
    network = read_network(arguments.file)
    licence = arguments.licence or network.licence
    network = dataclasses.replace(network, name=arguments.name or arguments.output.stem, licence=licence)
    write_network(network, arguments.output, arguments.dtype)
    print(f"{arguments.output}: {network.role} {network.architecture}, fingerprint {network.encoder_fingerprint[:12]}")
    return 0
