"""The `adain` command; each subcommand is a module with `add_parser(subparsers)`."""

from __future__ import annotations

import argparse
import io
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from PIL import Image

from ..devices import is_out_of_memory, keep_freed_memory
from ..errors import AdainError
from ..images import limit_pixels, pixel_limit
from . import bench, convert, dataset, evaluate, info, publish, pull, style, stylize, train


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status: 0, 1 if some of many pictures failed, 2 for an error (one line on stderr)."""
    parser = _Parser(prog="adain", description="Arbitrary style transfer by adaptive instance normalization.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (stylize, dataset, style, train, evaluate, bench, pull, convert, publish, info):
        command.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape letters of names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    limit, max_pixels = pixel_limit(), getattr(arguments, "max_pixels", None)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow warns of pictures below the limit too
    try:
        if max_pixels is not None and max_pixels < 0:
            raise AdainError(f"--max-pixels is {max_pixels}; give the most pixels that a picture may have.")
        limit_pixels(max_pixels or limit)
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("adain: stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if is_out_of_memory(error):
            print("adain: the memory is too small for this; give smaller pictures, or tiles with --tile.", file=sys.stderr)
            return 2
        if isinstance(error, (AdainError, OSError)):
            print(f"adain: {error}", file=sys.stderr)
            return 2
        text = "this is a fault of the program; please report it with the output of `adain info` and the lines below."
        print(f"adain: {text}", file=sys.stderr)
        raise
    finally:
        limit_pixels(limit)
