"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ..devices import DTYPES
from ..hub import Progress
from ..images import pixel_limit
from ..weights import network_path

_NAME, _FOLDER = {"metavar": "NAME"}, {"type": Path, "metavar": "DIR"}
_WHOLE, _REAL = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}
_MANY = {"nargs": "+"}
# How a field of a configuration is given, by its annotation.
KINDS: dict[str, dict] = {
    "bool": {"action": argparse.BooleanOptionalAction},
    "int": _WHOLE,
    "float": _REAL,
    **dict.fromkeys(("str", "str | Encoder", "str | Decoder"), _NAME),
    **dict.fromkeys(("Path", "Path | None", "Path | Tensor"), _FOLDER),
    **dict.fromkeys(("tuple[int, ...]", "tuple[int, int]"), _WHOLE | _MANY),
    "tuple[float, ...]": _REAL | _MANY,
    "tuple[str, ...]": _NAME | _MANY,
    "tuple[tuple[str, ...], ...]": _NAME | _MANY | {"action": "append"},
}


def follow(bar: tqdm) -> Callable[..., None]:
    """What sets a bar to `(done, total)`; it may be called with more."""

    def show(done: int, total: int, *rest: object) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show


@contextlib.contextmanager
def bytes_bar(name: str) -> Iterator[Progress]:
    """A progress bar for a pull, which does not show where there is nothing to pull."""
    with tqdm(desc=name, unit="B", unit_scale=True, leave=False, delay=0.2, disable=None) as bar:
        yield follow(bar)


def network(name: str, role: str) -> str:
    """The file of a network, pulled first under a progress bar where that is needed."""
    with bytes_bar(name) as progress:
        return str(network_path(name, role, progress))


def add_network(parser: argparse.ArgumentParser, role: str) -> None:
    text = "a name of the catalog, a file or hf:owner/repo/file (default: %(default)s)"
    parser.add_argument(f"--{role}", default="lite", metavar="NAME", help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, xpu; auto takes the fastest found")


def add_dtype(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    text = "number type of the networks; auto takes 16 bits where the device is fast at it (default: %(default)s)"
    parser.add_argument("--dtype", default=default, choices=["auto", *DTYPES], help=text)


def add_json_output(parser: argparse.ArgumentParser, content: str) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"write {content} as JSON")


def add_max_pixels(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--max-pixels", type=int, metavar="N",
        help=f"the most pixels of a picture, against files that claim to be huge (default: {pixel_limit():,.0f}{more})",
    )  # fmt: skip


def add_style_size(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        name, type=int, default=512, metavar="PIXELS", dest="style_size",
        help="smallest side style pictures are resized to, which sets the scale of the strokes; 0 keeps (default: 512)",
    )  # fmt: skip


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help="share of each style in the mix (default: equal)")


def add_half_life(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--half-life", type=float, default=8.0, metavar="FRAMES",
        help="with running statistics: after these an old frame counts half (default: 8)",
    )  # fmt: skip
