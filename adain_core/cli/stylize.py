"""`adain stylize`: pictures, clips and data sets in the style of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import AdainError
from ..large import MAX_PIXELS
from ..stylize import CONTENT_STATISTICS
from . import dataset, options
from .clips import is_clip, stylize_clip
from .pictures import stylize_pictures


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("stylize", help="stylise a picture, a folder of pictures or a video")
    parser.add_argument("content", type=Path, metavar="CONTENT", help="a picture, a folder of pictures, or a video")
    styles = parser.add_argument(
        "styles", type=Path, nargs="+", default=[], metavar="STYLE", help="pictures or style files; several are mixed"
    )
    styles.required = False  # not with --styles; with nargs="*" argparse would miss styles that come after an option
    parser.add_argument(
        "--styles", type=Path, metavar="DIR", dest="style_folder",
        help="stylise each picture of a folder in styles drawn at random from the pictures in DIR; a second run goes on",
    )  # fmt: skip
    options.add_draw(parser)
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
    options.add_alpha(parser)
    options.add_weights(parser)
    parser.add_argument(
        "--mask", nargs="+", metavar="FILE",
        help="one picture for each STYLE, white in the area where the style applies; - for everywhere",
    )
    options.add_size(parser)
    options.add_working_size(parser)
    options.add_style_size(parser, "--style-size")
    parser.add_argument("--match-colors", action="store_true", help="give the style pictures the content's colours before")
    options.add_keep_colors(parser)
    parser.add_argument(
        "--content-statistics", choices=CONTENT_STATISTICS,
        help="normalise the content by the statistics of each picture (image: the default), of each style's mask (region), of"
        " the whole clip (batch), or smoothed along the clip (running: the default for a video); with batch and running a"
        " folder is a clip",
    )  # fmt: skip
    options.add_half_life(parser)
    parser.add_argument(
        "--style-to",
        type=Path,
        metavar="STYLE",
        help="change from the style to this one along a clip, from its first frame to its last",
    )
    options.add_texture(parser, "1; 0 for clips, where it would stay in its place while the picture moves")
    options.add_tile(parser)
    options.add_max_pixels(parser, f", or {MAX_PIXELS:,} for a content that is read in parts")
    options.add_device(parser)
    options.add_dtype(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if bool(arguments.styles) == bool(arguments.style_folder):
        raise AdainError("give either one or more STYLE, or a folder of styles to draw from with --styles.")
    if arguments.style_folder:
        return _run_dataset(arguments)
    given = options.given(options.StylizeOptions, arguments)
    if is_clip(given):
        return stylize_clip(given)
    if given.style_to:
        raise AdainError("--style-to needs a clip: a video, or a folder with --content-statistics batch or running.")
    return stylize_pictures(given)


def _run_dataset(arguments: argparse.Namespace) -> int:
    """`adain dataset` in its first form, `adain stylize --styles`."""
    if arguments.mask or arguments.weights or arguments.match_colors or arguments.style_to:
        raise AdainError("--mask, --weights, --match-colors and --style-to do not work with --styles; leave them out.")
    if arguments.content_statistics not in (None, "image"):
        raise AdainError("--content-statistics can only be image with --styles; leave it out.")
    folders = {"contents": arguments.content, "styles": arguments.style_folder}
    return dataset.run(argparse.Namespace(**vars(arguments) | folders))
