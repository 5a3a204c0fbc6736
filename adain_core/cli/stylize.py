"""`adain stylize`: pictures in the style of others."""

from __future__ import annotations

import argparse
import contextlib
import functools
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..background import read_ahead, write_behind
from ..clip import ClipStylizer, PictureSequence
from ..color import keep_colors, match_colors
from ..devices import rank_and_size, resolve_device
from ..errors import AdainError
from ..files import check_folder, check_writable, make_folder, remove_leftovers
from ..images import SAVE_FORMATS, check_sides, list_images, load_image, load_mask, resize, save_format, save_image
from ..large import MAX_PIXELS, check_large, needs_streaming, stylize_file
from ..networks import Decoder, Encoder
from ..style import Style, encode_style, load_style, mix_styles
from ..stylize import CONTENT_STATISTICS, stylize
from ..tiling import reporting
from ..video import SAVE_FORMATS as VIDEO_FORMATS
from ..video import VIDEO_EXTENSIONS, Video
from ..video import save_format as video_format
from ..weights import load_decoder, load_encoder
from . import options

CLIP_STATISTICS = ("batch", "running")  # which make a folder of pictures a clip


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("stylize", help="stylise a picture, a folder of pictures or a video")
    parser.add_argument("content", type=Path, metavar="CONTENT", help="a picture, a folder of pictures, or a video")
    styles = parser.add_argument(
        "styles", type=Path, nargs="+", default=[], metavar="STYLE", help="pictures or style files; several are mixed"
    )
    styles.required = False  # not with --styles; "*" would find none that stand behind an option
    parser.add_argument(
        "--styles", type=Path, metavar="DIR", dest="style_folder",
        help="give each picture of a folder styles drawn at random from the pictures in DIR; started again, it goes on",
    )  # fmt: skip
    parser.add_argument("--per-picture", type=int, default=1, metavar="N", help="styles drawn for each picture (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="under which styles are drawn (default: 0)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a picture, a folder for a folder, or a video for a video",
    )
    options.add_network(parser, "encoder")
    options.add_network(parser, "decoder")
    parser.add_argument("--alpha", type=float, default=1.0, help="strength of the style, from 0 to 1 (default: 1)")
    options.add_weights(parser)
    parser.add_argument(
        "--mask", nargs="+", metavar="FILE", help="where each style applies (white), one for each STYLE; - for everywhere"
    )
    parser.add_argument(
        "--size", type=int, default=0, metavar="PIXELS", help="smallest side the content is resized to; 0 keeps (default: 0)"
    )
    options.add_style_size(parser, "--style-size")
    parser.add_argument("--match-colors", action="store_true", help="give style pictures the content's colours first")
    parser.add_argument("--keep-colors", action="store_true", help="give the result the content's colours")
    parser.add_argument(
        "--content-statistics", choices=CONTENT_STATISTICS,
        help="normalise the content by each picture's own statistics (image: the default), by those inside each style's mask"
        " (region), or as a clip, which a folder then is too: by the whole clip's (batch), or smoothed along it (running: the"
        " default for a video)",
    )  # fmt: skip
    options.add_half_life(parser)
    parser.add_argument(
        "--style-to",
        type=Path,
        metavar="STYLE",
        help="go from the style to this one along a clip, from its first frame to its last",
    )
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS",
        help="side of the tiles that large pictures are worked on in; 0 never tiles (default: what fits the free memory)",
    )  # fmt: skip
    options.add_max_pixels(parser, f", or {MAX_PIXELS:,} of a content that is read in parts")
    options.add_device(parser)
    options.add_dtype(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if bool(arguments.styles) == bool(arguments.style_folder):
        raise AdainError("give either one or more STYLE, or a folder of styles to draw from with --styles.")
    if arguments.style_folder:
        return _run_data_set(arguments)
    if arguments.content.suffix.lower() in VIDEO_EXTENSIONS or arguments.content_statistics in CLIP_STATISTICS:
        return _run_clip(arguments)
    if arguments.style_to:
        raise AdainError("--style-to needs a clip: a video, or a folder with --content-statistics batch or running.")
    pairs = _pairs(arguments.content, arguments.output)
    if arguments.match_colors and any(map(_is_style_file, arguments.styles)):
        raise AdainError("--match-colors needs style pictures: a style file has no pixels; use --keep-colors instead.")
    masks, sources = _masks(arguments), _style_sources(arguments.styles)
    if not arguments.content.is_dir() and needs_streaming(arguments.content):
        _check_large(arguments, *pairs[0], [style for style in sources.values() if isinstance(style, Style)])
    encoder, decoder = _networks(arguments)
    style_of = _style_maker(arguments, encoder, sources, masks)

    failures = []
    loaded = _loaded([source for source, _ in pairs], arguments.size)
    bar = tqdm(pairs, unit="picture", disable=True if len(pairs) == 1 else None)
    with write_behind() as later:
        for (source, target), content in zip(bar, loaded, strict=True):
            try:
                if content is None:
                    _run_large(arguments, encoder, decoder, style_of, source, target)
                    continue
                if isinstance(content, Exception):
                    raise content
                check_sides(content, target)
            except (ValueError, OSError) as error:
                if not arguments.content.is_dir():
                    raise
                failures.append(str(error))
                continue
            with _tile_bar():
                result = stylize(
                    encoder, decoder, content, style_of(content), arguments.alpha, arguments.content_statistics or "image",
                    tile=arguments.tile,
                )  # fmt: skip
            make_folder(target.parent)
            later(save_image, keep_colors(result, content) if arguments.keep_colors else result, target)
    return _report(failures, len(pairs))


def _loaded(paths: Sequence[Path], size: int) -> Iterator[Tensor | Exception | None]:
    """The pictures, read ahead; None for one that is too large for that, and the error for one that cannot be read."""

    def load(path: Path) -> Tensor | Exception | None:
        try:
            return None if needs_streaming(path) else resize(load_image(path), size)
        except (ValueError, OSError) as error:
            return error

    return read_ahead(map(load, paths))


def _run_clip(arguments: argparse.Namespace) -> int:
    """A video, or a folder of frames in the order of their names."""
    if arguments.match_colors:
        raise AdainError("--match-colors does not go with a clip, whose frames have one style; use --keep-colors instead.")
    content, output = arguments.content, arguments.output
    if content.is_dir():
        sources, targets = zip(*_pairs(content, output), strict=True)
        clip = PictureSequence(sources)
    elif content.suffix.lower() in VIDEO_EXTENSIONS:
        target = output / content.with_suffix(content.suffix if content.suffix.lower() in VIDEO_FORMATS else ".mp4").name
        target = target if output.is_dir() else output
        clip = Video(content)
        video_format(target)
        _check_target(content, target)
    else:
        raise AdainError(f"{content} is one picture; --content-statistics batch and running are for a folder or a video.")
    masks = _masks(arguments)
    sources = _style_sources([*arguments.styles, *([arguments.style_to] if arguments.style_to else [])])
    encoder, decoder = _networks(arguments)
    style = _style_maker(arguments, encoder, sources, masks)(None)
    if arguments.style_to:
        ends = [style, _encoded(sources[arguments.style_to], encoder, arguments.style_size)]
        style = mix_styles(ends, [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
    stylizer = ClipStylizer(
        encoder, decoder, style, arguments.alpha, arguments.content_statistics or "running", arguments.half_life,
        arguments.tile, arguments.keep_colors, arguments.size,
    )  # fmt: skip
    with tqdm(unit="frame", disable=None) as bar, reporting(options.follow(bar)):
        if content.is_dir():
            make_folder(output)
            stylizer.pictures(clip, targets, output / ".clip.safetensors")
        else:
            stylizer.video(clip, target)
    return 0


def _run_large(
    arguments: argparse.Namespace,
    encoder: Encoder,
    decoder: Decoder,
    style_of: Callable[[Tensor | None], Style],
    source: Path,
    target: Path,
) -> None:
    make_folder(target.parent)
    _check_large(arguments, source, target)
    with _tile_bar():
        stylize_file(
            encoder, decoder, source, target, style_of(None), arguments.alpha, arguments.tile, arguments.keep_colors,
            arguments.max_pixels or MAX_PIXELS,
        )  # fmt: skip


def _check_large(arguments: argparse.Namespace, source: Path, target: Path, styles: Sequence[Style] = ()) -> None:
    """Raise where a picture that is read in parts cannot be stylised so, by its header."""
    if arguments.mask or arguments.size or arguments.match_colors:
        raise AdainError(f"{source} is too large for --mask, --size and --match-colors; leave them out, or make it smaller.")
    check_large(source, target, styles, arguments.max_pixels or MAX_PIXELS)


def _networks(arguments: argparse.Namespace) -> tuple[Encoder, Decoder]:
    device = resolve_device(arguments.device)
    encoder = load_encoder(options.network(arguments.encoder, "encoder"), device, arguments.dtype)
    return encoder, load_decoder(options.network(arguments.decoder, "decoder"), device, arguments.dtype)


def _run_data_set(arguments: argparse.Namespace) -> int:
    """Each picture in styles of its own. What a picture gets depends on its name and the seed, not on what was done before."""
    if arguments.mask or arguments.weights or arguments.match_colors or arguments.style_to:
        raise AdainError("--mask, --weights, --match-colors and --style-to do not go with --styles.")
    if arguments.content_statistics not in (None, "image"):
        raise AdainError("--content-statistics does not go with --styles, where each picture is by itself.")
    if not arguments.content.is_dir():
        raise AdainError(f"{arguments.content} is no folder; --styles draws styles for the pictures of a folder.")
    names = style_names(list_images(arguments.style_folder), arguments.style_folder)
    if not 1 <= arguments.per_picture <= len(names):
        raise AdainError(f"--per-picture is {arguments.per_picture}; there are {len(names)} styles to draw from.")
    rank, processes = rank_and_size()
    pairs = _pairs(arguments.content, arguments.output)[rank::processes]
    encoder, decoder = _networks(arguments)

    @functools.lru_cache(maxsize=1024)
    def style_of(path: Path) -> Style | str:
        """Or why it cannot be read."""
        try:
            picture = load_image(path)
        except (ValueError, OSError) as error:
            return str(error)
        return encode_style(encoder, picture, arguments.style_size)

    failures = []
    for source, place in tqdm(pairs, unit="picture", disable=None if rank == 0 else True):
        name = source.relative_to(arguments.content).as_posix()
        drawn = random.Random(f"{arguments.seed} {name}").sample(list(names), arguments.per_picture)
        targets = {path: place.with_name(f"{place.stem}-stylized-{names[path]}{place.suffix}") for path in drawn}
        missing = {path: target for path, target in targets.items() if not target.exists()}
        if not missing:
            continue
        try:
            content = resize(load_image(source), arguments.size)
            check_sides(content, place)
        except (ValueError, OSError) as error:
            failures.append(str(error))
            continue
        for path, target in missing.items():
            style = style_of(path)
            if isinstance(style, str):
                failures.append(style)
                continue
            result = stylize(encoder, decoder, content, style, arguments.alpha, tile=arguments.tile)
            make_folder(target.parent)
            remove_leftovers(target)
            save_image(keep_colors(result, content) if arguments.keep_colors else result, target)
    return _report(failures, len(pairs))


def style_names(styles: Sequence[Path], folder: Path) -> dict[Path, str]:
    """For each style picture in `folder` a name to use in those of results: its path without the ending, if that is unique.

    Raises AdainError where the path, with _ between its folders, is not unique.
    """
    paths = [path.relative_to(folder).as_posix().replace("/", "_") for path in styles]
    stems = [path.rpartition(".")[0] for path in paths]
    names = stems if len(set(stems)) == len(stems) else paths
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise AdainError(f"two styles in {folder} would both be called {twice[0]}; rename one of them.")
    return dict(zip(styles, names, strict=True))


def _report(failures: Sequence[str], total: int) -> int:
    failures = list(dict.fromkeys(failures))  # a style that cannot be read fails with each of its contents
    if failures:
        print(f"adain: {len(failures)} of {total} pictures could not be stylised:", *failures, sep="\n  ", file=sys.stderr)
    return 1 if failures else 0


@contextlib.contextmanager
def _tile_bar() -> Iterator[None]:
    """A progress bar where one picture is worked on in tiles."""
    with tqdm(unit="tile", disable=None, delay=1, leave=False) as bar, reporting(options.follow(bar)):
        yield


def _pairs(content: Path, output: Path) -> list[tuple[Path, Path]]:
    """Each content with the file it is written to. Raises before any work where that cannot be."""
    if content.is_dir():
        if (output.exists() and not output.is_dir()) or output.resolve().is_relative_to(content.resolve()):
            raise AdainError(f"{output} cannot take the results of a folder; name another folder, outside of {content}.")
        pairs = [(source, output / _writable(source.relative_to(content))) for source in list_images(content)]
        if twice := [target for target, count in Counter(target for _, target in pairs).items() if count > 1]:
            raise AdainError(f"two pictures in {content} would both be written to {twice[0]}; rename one of them.")
        check_folder(output)
        return pairs
    if not content.is_file():
        raise FileNotFoundError(f"there is no picture or folder {content}.")
    target = output / _writable(Path(content.name)) if output.is_dir() else output
    save_format(target)
    _check_target(content, target)
    return [(content, target)]


def _check_target(content: Path, target: Path) -> None:
    """Raise where the result of the file `content` cannot be written to `target`."""
    check_writable(target)
    remove_leftovers(target)
    if target.exists() and target.samefile(content):
        raise AdainError(f"{target} is the content itself; name another file for the result.")


def _writable(path: Path) -> Path:
    """`path`, or where its format is only read, with `.png` behind it."""
    return path if path.suffix.lower() in SAVE_FORMATS else path.with_name(path.name + ".png")


def _is_style_file(path: Path) -> bool:
    return path.suffix.lower() == ".safetensors"


def _masks(arguments: argparse.Namespace) -> list[Tensor | None]:
    names = arguments.mask or ["-"] * len(arguments.styles)
    if len(names) != len(arguments.styles):
        raise AdainError(f"{len(names)} masks do not fit {len(arguments.styles)} styles; give one for each, - for everywhere.")
    return [None if name == "-" else load_mask(name) for name in names]


def _style_sources(paths: Sequence[Path]) -> dict[Path, Tensor | Style]:
    """The pictures and styles of files, read before anything else is done."""
    return {path: load_style(path) if _is_style_file(path) else load_image(path) for path in paths}


def _encoded(source: Tensor | Style, encoder: Encoder, size: int, content: Tensor | None = None) -> Style:
    """The style of a picture, with the colours of `content` if that is given, or the style itself."""
    if isinstance(source, Style):
        return source
    return encode_style(encoder, source if content is None else match_colors(source, content), size)


def _style_maker(
    arguments: argparse.Namespace, encoder: Encoder, sources: dict[Path, Tensor | Style], masks: list[Tensor | None]
) -> Callable[[Tensor], Style]:
    """The style for a content: encoded once, unless its colours follow the content's."""

    def make(content: Tensor | None) -> Style:
        styles = []
        for path, mask in zip(arguments.styles, masks, strict=True):
            style = _encoded(sources[path], encoder, arguments.style_size, content)
            styles.append(style if mask is None else style.masked(mask))
        return mix_styles(styles, arguments.weights)

    if arguments.match_colors:
        return make
    style = make(None)
    return lambda content: style
