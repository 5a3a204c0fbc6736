"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor
from tqdm import tqdm

from ..catalog import ROLES
from ..devices import DTYPES, resolve_device
from ..errors import AdainError
from ..files import check_not_sources, check_writable, printable
from ..images import check_size, list_images, pixel_limit
from ..networks import Decoder, Encoder
from ..progress import showing
from ..statistics import check_alpha
from ..style import Style
from ..stylize import check_texture
from ..tiling import check_tile
from ..weights import load_decoder, load_encoder, network_files, network_path
from ..working import AUTOMATIC, check_detail
from .fitting import check_fit, check_textured, missing_network, other_name
from .gallery import is_style_file

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = TypeVar("Options", bound="DataclassInstance")

DEFAULT_MODEL = "lite"

_NAME, _FOLDER = {"metavar": "NAME"}, {"type": Path, "metavar": "DIR"}
_WHOLE, _REAL = {"type": int, "metavar": "N"}, {"type": float, "metavar": "X"}
_MANY = {"nargs": "+"}
# The arguments of `add_argument` for a field of a configuration, by its annotation.
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

REFRESH = 0.5  # seconds after which a bar shows the time that passed, also where nothing has been reported meanwhile
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)


@contextlib.contextmanager
def quietly(quiet: bool) -> Iterator[None]:
    """Show no bars inside, and say nothing but errors, if `quiet` is True."""
    token = _quiet.set(quiet)
    try:
        yield
    finally:
        _quiet.reset(token)


def print_failures(head: str, sentences: Iterable[str]) -> None:
    """Print a line on stderr, and below it what failed, one each."""
    print(f"adain: {head}:", *map(printable, sentences), sep="\n  ", file=sys.stderr)


def say(sentence: str) -> None:
    """Print a line on stderr, unless --quiet was given."""
    if not _quiet.get():
        print(f"adain: {sentence}", file=sys.stderr)


@contextlib.contextmanager
def progress_bar(
    unit: str, description: str | None = None, scale: bool | int = False, delay: float = 0, shown: bool = True
) -> Iterator[None]:
    """Show the progress of the work inside by a bar, if stderr is a terminal, `shown` is True and --quiet was not given.

    With a `delay`, in seconds, the bar appears only after it, and disappears at the end. `scale` is the number of units in a
    step; True stands for one unit, with thousands written as k.
    """
    disable = None if shown and not _quiet.get() else True
    with tqdm(desc=description, unit=unit, unit_scale=scale, delay=delay, leave=not delay, disable=disable) as bar:
        ended = threading.Event()

        def tick() -> None:
            wait = max(delay, REFRESH)
            while not ended.wait(wait):
                bar.refresh()
                wait = REFRESH

        def show(done: int, total: int, pictures: Tensor | None) -> None:
            if (done, total) == (bar.n, bar.total):
                return
            if bar.total is None:
                bar.initial = bar.n = done  # work done in an earlier run does not count for the speed
            bar.total = total
            bar.update(done - bar.n)

        clock = threading.Thread(target=tick, daemon=True)
        if not bar.disable:
            clock.start()
        try:
            with showing(show):
                yield
        finally:
            ended.set()
            if not bar.disable:
                clock.join()


def pull_bar(name: str) -> AbstractContextManager[None]:
    """The progress bar of a pull; it does not appear if nothing is pulled."""
    return progress_bar("B", name, scale=True, delay=0.2)


def network(name: str, role: str) -> str:
    """The file of a network; it is pulled first, with a progress bar, if necessary."""
    with pull_bar(name):
        return str(network_path(name, role))


def files_of(*names: str | None) -> list[Path]:
    """The files that these names of networks may stand for; None, "" and names on the Hub are left out."""
    local = [name for name in names if name and not name.startswith("hf:")]
    return [file for name in local for role in ROLES for file in network_files(name, role)]


def check_output(arguments: argparse.Namespace, *targets: Path) -> None:
    """Raise AdainError or OSError if one of `targets` cannot be written, or is a file or picture that is read."""
    sources = [value for name, value in vars(arguments).items() if name != "output"]
    check_not_sources(targets, _files(sources))
    for target in targets:
        check_writable(target)


def _files(values: Iterable[object]) -> Iterator[str | Path]:
    """The names among the values of options, and the pictures in the folders among them."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _files(value)
        elif isinstance(value, (str, Path)) and os.path.isdir(value):
            with contextlib.suppress(AdainError):  # no pictures
                yield from list_images(value)
        elif isinstance(value, (str, Path)):
            yield value


def words(value: object) -> str:
    """A value as it is written on the command line."""
    return " ".join(map(words, value)) if isinstance(value, tuple) else str(value)


def with_default(text: str, field: dataclasses.Field) -> str:
    """The help `text` of the option for a dataclass field, with the default, if it has one that says something."""
    return text if field.default in (dataclasses.MISSING, "", (), None) else f"{text} (default: {words(field.default)})"


def given(kind: type[Options], arguments: argparse.Namespace) -> Options:
    """A dataclass `kind` of options from the arguments with its fields' names; lists become tuples."""
    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


@dataclass(frozen=True)
class NetworkOptions:
    """The names of a model, an encoder and a decoder, None if not given, and the device and the number type of both networks.

    Raises AdainError for a model beside an encoder or a decoder.
    """

    model: str | None
    encoder: str | None
    decoder: str | None
    device: str
    dtype: str

    def __post_init__(self) -> None:
        if self.model and (self.encoder or self.decoder):
            raise AdainError("--model stands for both networks; leave out --encoder and --decoder, or give these two alone.")

    @property
    def names(self) -> dict[str, str]:
        """The name of the network of each role; where one is not given, that which goes with the other one."""
        both = self.model or self.encoder or self.decoder or DEFAULT_MODEL
        given = {"encoder": self.encoder, "decoder": self.decoder}
        return {role: name or other_name(both, role) for role, name in given.items()}

    def load_networks(self, styles: Sequence[Style] = ()) -> tuple[Encoder, Decoder]:
        """The networks; they are pulled first if necessary. Raises AdainError or OSError if they cannot be used.

        Nothing is pulled if what is known before shows that the networks, or the `styles`, do not fit each other.
        """
        device, names = resolve_device(self.device), self.names
        self._check_networks(styles)
        while role := missing_network(names):
            network(names[role], role)
            self._check_networks(styles)
        encoder = load_encoder(network(names["encoder"], "encoder"), device, self.dtype)
        return encoder, load_decoder(network(names["decoder"], "decoder"), device, self.dtype)

    def _check_networks(self, styles: Sequence[Style]) -> None:
        """Raise AdainError or OSError if what is known of the networks shows that they cannot be used."""
        check_fit(self.names, styles)


@dataclass(frozen=True)
class ResultOptions(NetworkOptions):
    """The options that pictures, clips and data sets share. Raises AdainError for numbers out of range.

    `size` and `style_size` are smallest sides in pixels, 0 for the pictures' own; `tile` is as in `transfer`,
    `working_size` and `detail` are as in `stylize`, `texture` is as in `decode`, None for what suits the content.
    """

    output: Path
    alpha: float
    size: int
    style_size: int
    keep_colors: bool
    tile: int | None
    working_size: int
    detail: float
    texture: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha)
        if self.texture is not None:
            check_texture(self.texture)
        check_size(self.size)
        check_size(self.style_size)
        check_size(self.working_size)
        check_detail(self.detail)
        check_tile(self.tile)

    def _check_networks(self, styles: Sequence[Style]) -> None:
        super()._check_networks(styles)
        if self.texture is not None:
            check_textured(self.names["decoder"])

    def texture_or(self, usual: float) -> float:
        """The texture that was asked for, or the `usual` one."""
        return usual if self.texture is None else self.texture


@dataclass(frozen=True)
class StylizeOptions(ResultOptions):
    """The options of `adain stylize`: `contents`, a picture, a folder, a video or several pictures, and `styles`, pictures and
    style files to mix, or with `each` to take one after the other.

    `weights` and `mask` hold one for each style, or are None; a mask is the name of a file, or "-". With None as
    `content_statistics` they depend on the content. `half_life` and `style_to` are for clips, `max_pixels` for pictures that
    are read in parts. `refine`: by how many steps results are refined.
    """

    contents: tuple[Path, ...]
    styles: tuple[Path, ...]
    each: bool
    weights: tuple[float, ...] | None
    mask: tuple[str, ...] | None
    match_colors: bool
    content_statistics: str | None
    half_life: float
    style_to: Path | None
    max_pixels: int | None
    refine: int

    @property
    def content(self) -> Path:
        """The content where there is only one."""
        return self.contents[0]

    @property
    def style_pictures(self) -> list[Path]:
        """The styles that are pictures, not style files."""
        styles = [*self.styles, *([self.style_to] if self.style_to else [])]
        return [path for path in styles if not is_style_file(path)]

    @property
    def sources(self) -> list[str | Path]:
        """What is read beside the content; some of it may be names instead of files."""
        networks = files_of(self.model, self.encoder, self.decoder)
        return [*self.styles, *(self.mask or ()), *([self.style_to] if self.style_to else []), *networks]


def add_networks(parser: argparse.ArgumentParser) -> None:
    text = f"an encoder and its decoder: a name of the catalog, or DIR/NAME of their files (default: {DEFAULT_MODEL})"
    parser.add_argument("--model", metavar="NAME", help=text)
    for role, other in (("encoder", "decoder"), ("decoder", "encoder")):
        text = f"a name of the catalog, a file or hf:owner/repo/file (default: that of the {other}'s name)"
        parser.add_argument(f"--{role}", metavar="NAME", help=text)


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps or xpu; auto takes the fastest available")


def add_dtype(parser: argparse.ArgumentParser, default: str = "auto") -> None:
    text = "number type of the networks; auto takes 16 bits if the device multiplies them fast (default: %(default)s)"
    parser.add_argument("--dtype", default=default, choices=["auto", *DTYPES], help=text)


def add_json_output(parser: argparse.ArgumentParser, content: str) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=f"write {content} as JSON")


def add_max_pixels(parser: argparse.ArgumentParser, more: str = "") -> None:
    parser.add_argument(
        "--max-pixels", type=int, metavar="N",
        help=f"the most pixels of a picture, against files that claim to be huge (default: {pixel_limit():,.0f}{more})",
    )  # fmt: skip


def add_quiet(parser: argparse.ArgumentParser) -> None:
    text = "no progress bar, and no line at the end; only errors and warnings are printed"
    parser.add_argument("--quiet", action="store_true", help=text)


def add_style_size(parser: argparse.ArgumentParser, name: str) -> None:
    parser.add_argument(
        name, type=int, default=512, metavar="PIXELS", dest="style_size",
        help="smallest side that style pictures are resized to: larger makes the style weaker, and its strokes hardly broader;"
        " 0 keeps their size (default: 512)",
    )  # fmt: skip


def add_alpha(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--alpha", type=float, default=1.0, help="strength of the style, from 0 to 1 (default: 1)")


def add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size", type=int, default=0, metavar="PIXELS", help="smallest side to resize the content to; 0 keeps it (default: 0)"
    )


def add_working_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--working-size", type=int, default=AUTOMATIC, metavar="PIXELS",
        help="smallest side at which larger contents are stylised, before they are enlarged to their own size: the smaller, the"
        " broader the strokes; 0 works at full size (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--detail", type=float, default=0.8, metavar="X",
        help="share of the content's detail that is added as it is enlarged, from 0 to 1 (default: 0.8)",
    )  # fmt: skip


def add_keep_colors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep-colors", action="store_true", help="give the result the content's colours")


def add_texture(parser: argparse.ArgumentParser, default: str = "1") -> None:
    parser.add_argument(
        "--texture", type=float, metavar="X",
        help=f"how much texture flat areas get from a decoder that paints one, as lite does; from 0 to 1 (default: {default})",
    )  # fmt: skip


def add_tile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS",
        help="side of the tiles that large pictures are computed in; 0 never tiles (default: what fits the free memory)",
    )  # fmt: skip


def add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--per-picture", type=int, default=1, metavar="N", help="styles drawn for each picture (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed for drawing the styles (default: 0)")


def add_weights(parser: argparse.ArgumentParser, what: str = "share of each style in the mix") -> None:
    parser.add_argument("--weights", type=float, nargs="+", metavar="W", help=f"{what} (default: equal)")


def add_refine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--refine", type=int, default=0, metavar="STEPS",
        help="gradient steps on the result, which bring it closer to content and style in the eyes of the encoder, best vgg19;"
        " 30 are usual, and much slower than the result itself (default: 0)",
    )  # fmt: skip


def add_half_life(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--half-life", type=float, default=8.0, metavar="FRAMES",
        help="with running statistics: the weight of a frame halves after so many frames (default: 8)",
    )  # fmt: skip
