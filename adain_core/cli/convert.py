"""`adain convert`: public weight files to this project's safetensors."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from ..devices import DTYPES
from ..errors import AdainError
from ..files import check_not_sources, check_writable, remove_leftovers
from ..filters import normalise
from ..images import list_images, load_image, on_white, resize
from ..progress import tell
from ..weights import read_network, write_network
from . import options

NORMALISE_SIZE = 256  # smallest side of the pictures to normalise over


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("convert", help="convert a public encoder or decoder to safetensors with metadata")
    parser.add_argument("file", metavar="FILE", help="a public .pth or .safetensors file, or the name of an encoder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--name", default="", help="the network's name, kept in the file (default: the file's)")
    parser.add_argument("--licence", default="", help="the weights' licence, kept in the file")
    parser.add_argument("--dtype", choices=list(DTYPES), help="number type of the kernels (default: the file's)")
    parser.add_argument(
        "--normalise", type=Path, metavar="DIR",
        help="scale an encoder's filters to mean activation 1 over the pictures of a folder; the scales are kept in the file",
    )  # fmt: skip
    options.add_quiet(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.output.suffix.lower() != ".safetensors":
        raise AdainError(f"{arguments.output} does not end in .safetensors; give such a name for the converted weights.")
    check_not_sources([arguments.output], options.files_of(arguments.file))
    check_writable(arguments.output)
    remove_leftovers(arguments.output)
    pictures = list_images(arguments.normalise) if arguments.normalise else []
    network = read_network(options.network(arguments.file, "encoder"))
    broken: list[str] = []
    if pictures:
        with options.progress_bar("picture"):
            network = normalise(network, _load(pictures, broken))
    licence = arguments.licence or network.licence
    network = dataclasses.replace(network, name=arguments.name or arguments.output.stem, licence=licence)
    write_network(network, arguments.output, arguments.dtype)
    over = f", normalised over {len(pictures) - len(broken)} pictures, {len(broken)} files unreadable" if pictures else ""
    known = f"{network.role} {network.architecture}, fingerprint {network.encoder_fingerprint[:12]}"
    if not arguments.quiet:
        print(f"{arguments.output}: {known}{over}")
    if broken:
        options.print_failures("not read, and left out", broken)
    return 0


def _load(paths: Sequence[Path], broken: list[str]) -> Iterator[Tensor]:
    """The pictures one by one; reports how many have been used. The errors of unreadable ones are added to `broken`."""
    for done, path in enumerate(paths):
        tell(done, len(paths))
        try:
            picture = load_image(path)
        except (AdainError, OSError) as error:
            broken.append(str(error))
            continue
        yield resize(on_white(picture), NORMALISE_SIZE)
    tell(len(paths), len(paths))
