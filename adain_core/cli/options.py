"""Options that several subcommands share."""

from __future__ import annotations

import argparse

from ..devices import DTYPES


def add_encoder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", default="lite", metavar="NAME", help="a bundled name or a file (default: %(default)s)")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, xpu; auto takes the fastest found")
    parser.add_argument("--dtype", default="auto", choices=["auto", *DTYPES], help="number type of the networks")


def add_style_size(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        name, type=int, default=512, metavar="PIXELS", dest="style_size",
        help="smallest side style pictures are resized to, which sets the scale of the strokes; 0 keeps (default: 512)",
    )  # fmt: skip


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help="share of each style in the mix (default: equal)")
