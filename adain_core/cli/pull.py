"""`adain pull`: networks from the Hugging Face Hub."""

from __future__ import annotations

import argparse

from ..catalog import Entry, catalog, hub_entry
from ..errors import AdainError
from ..weights import pull, read_network
from . import options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("pull", help="download networks from the Hugging Face Hub and check them")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a name of the catalog (see adain info) or hf:owner/repo/file")
    parser.add_argument("--again", action="store_true", help="download them again, for files that have changed")
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    found = {name: _entries(name) for name in arguments.names}
    for name, entries in found.items():
        for entry in entries:
            if entry.mirrors:
                with options.pull_bar(name):
                    pull(entry, arguments.again)
            network = read_network(entry.path)
            if not arguments.quiet:
                print(f"{name}: {network.role}, fingerprint {network.encoder_fingerprint[:12]}, {entry.path}")
    return 0


def _entries(name: str) -> list[Entry]:
    available = [entry for entry in catalog() if entry.available]
    entries = [hub_entry(name)] if name.startswith("hf:") else [entry for entry in available if entry.name == name]
    if not entries:
        names = ", ".join(dict.fromkeys(entry.name for entry in available))
        raise AdainError(f"{name!r} is not in the catalog; choose from {names}, or give hf:owner/repo/file.")
    return entries
