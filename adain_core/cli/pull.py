"""`adain pull`: networks from the Hugging Face Hub."""

from __future__ import annotations

import argparse

from ..catalog import catalog, find_entry
from ..weights import network_path, pull, read_network
from . import options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("pull", help="fetch networks from the Hugging Face Hub, once, checked")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a name of the catalog (see adain info) or hf:owner/repo/file")
    parser.add_argument("--again", action="store_true", help="fetch them though they are here, for files that have changed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    for name in arguments.names:
        entries = [find_entry(name, "")] if name.startswith("hf:") else [e for e in catalog() if e.name == name and e.available]
        if not entries:
            network_path(name, "encoder")
        for entry in entries:
            if entry.mirrors:
                with options.bytes_bar(name) as progress:
                    pull(entry, progress, arguments.again)
            network = read_network(entry.path)
            print(f"{name}: {network.role}, fingerprint {network.encoder_fingerprint[:12]}, {entry.path}")
    return 0
