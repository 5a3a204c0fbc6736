"""The `adain` command; each subcommand is a module with `add_parser(subparsers)`."""

from __future__ import annotations

import argparse
import contextlib
import io
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import NoReturn

from PIL import Image

from ..devices import is_out_of_memory, keep_freed_memory
from ..errors import AdainError
from ..files import printable
from ..images import limit_pixels, pixel_limit
from . import average, bench, convert, dataset, evaluate, info, publish, pull, style, stylize, train
from .options import quietly


class _Ended(KeyboardInterrupt):
    """A signal, its argument, that asks the program to end."""


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP stop the work as Ctrl-C does, which removes temporary files and keeps what was learned.

    Signals that are ignored, as `nohup` has it, or that have handlers already, stay as they are.
    """

    def end(number: int, frame: object) -> NoReturn:
        raise _Ended(number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main_thread = threading.current_thread() is threading.main_thread()  # others cannot set handlers
    numbers = [number for number in numbers if main_thread and signal.getsignal(number) == signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns the exit status: 0, 1 if some of many pictures failed, 2 for an error (one line on stderr), 128 and the number of
    the signal that stopped it.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # escape letters of names that the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    parser = _Parser(prog="adain", description="Arbitrary style transfer by adaptive instance normalization.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (stylize, dataset, style, train, average, evaluate, bench, pull, convert, publish, info):
        command.add_parser(subparsers)
    arguments, strays = parser.parse_known_args(argv)
    if strays:
        grammar = "" if any(stray.startswith("-") for stray in strays) else getattr(arguments, "grammar", "")
        parser.error(f"{strays[0]} stands apart from the others; {grammar}" if grammar else f"unknown: {' '.join(strays)}")
    keep_freed_memory()
    limit, max_pixels = pixel_limit(), getattr(arguments, "max_pixels", None)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # Pillow warns of pictures below the limit too
    try:
        if max_pixels is not None and max_pixels < 0:
            raise AdainError(f"--max-pixels is {max_pixels}; give the most pixels that a picture may have.")
        limit_pixels(max_pixels or limit)
        with quietly(getattr(arguments, "quiet", False)), _ending_in_order():
            return arguments.run(arguments)
    except KeyboardInterrupt as stop:
        print("adain: stopped.", file=sys.stderr)
        return 128 + (stop.args[0] if isinstance(stop, _Ended) else signal.SIGINT)
    except Exception as error:
        if is_out_of_memory(error):
            print("adain: the memory is too small for this; give smaller pictures, or tiles with --tile.", file=sys.stderr)
            return 2
        if isinstance(error, (AdainError, OSError)):
            print(f"adain: {printable(str(error))}", file=sys.stderr)
            return 2
        text = "this is a fault of the program; please report it with the output of `adain info` and the lines below."
        print(f"adain: {text}", file=sys.stderr)
        raise
    finally:
        limit_pixels(limit)
