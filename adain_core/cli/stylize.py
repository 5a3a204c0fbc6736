"""`adain stylize`: pictures, clips and data sets in the style of pictures."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..errors import AdainError
from ..large import MAX_PIXELS
from ..refine import check_refinement
from ..stylize import CONTENT_STATISTICS
from ..video import VIDEO_EXTENSIONS
from . import dataset, options
from .clips import has_running_statistics, is_clip, stylize_clip
from .gallery import style_files
from .pictures import stylize_pictures

GRAMMAR = "give CONTENT STYLE ..., or for several contents CONTENT ... --style STYLE ..., each kind in one row"
NOTICED = ("style_size", "half_life", "per_picture", "seed", "detail")  # options that are refused where they do nothing


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    text = "stylise a picture, a folder of pictures, several pictures or a video"
    parser = subparsers.add_parser(
        "stylize", help=text, description=f"{text}.",
        usage="%(prog)s CONTENT STYLE ... -o OUT [options]\n       %(prog)s CONTENT ... --style STYLE ... -o OUT [options]",
    )  # fmt: skip
    parser.add_argument("content", type=Path, metavar="CONTENT", help="a picture, a folder of pictures, or a video")
    styles = parser.add_argument(
        "styles", type=Path, nargs="+", default=[], metavar="STYLE",
        help="pictures, style files, names of styles (adain style list) or folders of these; several are mixed",
    )  # fmt: skip
    styles.required = False  # not with --style(s); with nargs="*" argparse would miss styles that come after an option
    parser.add_argument(
        "--style", type=Path, nargs="+", action="extend", default=[], metavar="STYLE", dest="behind",
        help="the styles, where there are several contents: all pictures before are contents then",
    )  # fmt: skip
    parser.add_argument(
        "--each", action="store_true",
        help="a result in each of the styles, named by it, and a contact sheet, in place of one in their mix; OUT is a folder",
    )  # fmt: skip
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
        help="a picture, a folder for a folder or several pictures, or a video for a video or an animated GIF or PNG",
    )
    options.add_networks(parser)
    options.add_alpha(parser)
    options.add_weights(parser)
    parser.add_argument(
        "--mask",
        nargs="+",
        metavar="FILE",
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
    options.add_refine(parser)
    options.add_tile(parser)
    options.add_max_pixels(parser, f", or {MAX_PIXELS:,} for a content that is read in parts")
    options.add_device(parser)
    options.add_dtype(parser)
    options.add_quiet(parser)
    # defaults are filled in after it is known whether the option was given
    defaults = {name: parser.get_default(name) for name in NOTICED}
    parser.set_defaults(run=run, grammar=GRAMMAR, defaults=defaults, **dict.fromkeys(NOTICED))


def run(arguments: argparse.Namespace) -> int:
    given = {name for name in NOTICED if getattr(arguments, name) is not None}
    for name in set(NOTICED) - given:
        setattr(arguments, name, arguments.defaults[name])
    if arguments.style_folder:
        return _run_dataset(arguments, given)
    arguments.contents = (arguments.content,)
    if arguments.behind:
        arguments.contents, arguments.styles = (arguments.content, *arguments.styles), arguments.behind
    if not arguments.styles:
        raise AdainError(f"there is no style: {GRAMMAR}; or a folder of styles to draw from, with --styles.")
    arguments.styles = [path for name in arguments.styles for path in style_files(name)]
    if arguments.style_to:
        first, *rest = style_files(arguments.style_to)
        if rest:
            raise AdainError(f"{arguments.style_to} holds {len(rest) + 1} styles; give one by --style-to.")
        arguments.style_to = first
    stylize_options = options.given(options.StylizeOptions, arguments)
    _check_use(stylize_options, given)
    if stylize_options.refine:
        check_refinement(stylize_options.refine, stylize_options.alpha)
    if is_clip(stylize_options):
        if stylize_options.refine:
            raise AdainError("--refine works on pictures by themselves, in which a clip would flicker; leave it out.")
        return stylize_clip(stylize_options)
    if stylize_options.style_to:
        raise AdainError("--style-to needs a clip: a video, or a folder with --content-statistics batch or running.")
    return stylize_pictures(stylize_options)


def _check_use(options: options.StylizeOptions, given: set[str]) -> None:
    """Raise AdainError if one of the options does nothing for these contents and styles."""
    if len(options.contents) > 1:
        if video := next((path for path in options.contents if path.suffix.lower() in VIDEO_EXTENSIONS), None):
            raise AdainError(f"{video} is a video; several contents must be pictures: give a video alone.")
        if is_clip(options):
            raise AdainError("--content-statistics batch and running are for a folder or a video; put the frames in a folder.")
    if "style_size" in given and not options.style_pictures:
        raise AdainError("--style-size does nothing for style files, whose scale is fixed; leave it out, or give pictures.")
    if "half_life" in given and not has_running_statistics(options):
        raise AdainError("--half-life does nothing without running statistics, which are of clips; leave it out.")
    if "detail" in given and options.working_size == 0:
        raise AdainError("--detail does nothing at the full size of --working-size 0; leave one of them out.")
    if given & {"per_picture", "seed"}:
        raise AdainError("--per-picture and --seed are for styles drawn from a folder, with --styles; leave them out.")
    if options.content_statistics == "region" and not options.mask and len(options.style_pictures) == len(options.styles):
        raise AdainError("--content-statistics region is for styles with a mask; give --mask, or leave it out.")
    if options.each and options.weights:
        raise AdainError("--weights are for a mix of styles, and --each mixes none; leave one of them out.")
    if len(options.styles) == 1 and len(options.weights or ()) == 1 and 0 < sum(options.weights or ()) < math.inf:
        raise AdainError("--weights does nothing for one style; leave it out, or give further styles.")


def _run_dataset(arguments: argparse.Namespace, given: set[str]) -> int:
    """`adain dataset` in its first form, `adain stylize --styles`."""
    if arguments.styles or arguments.behind:
        raise AdainError("give either one or more STYLE, or a folder of styles to draw from with --styles.")
    if arguments.mask or arguments.weights or arguments.match_colors or arguments.style_to or arguments.each:
        raise AdainError("--mask, --weights, --match-colors, --style-to and --each do not work with --styles; leave them out.")
    if arguments.refine:
        raise AdainError("--refine does not work with --styles; leave it out.")
    if arguments.content_statistics not in (None, "image"):
        raise AdainError("--content-statistics can only be image with --styles; leave it out.")
    if "half_life" in given:
        raise AdainError("--half-life does nothing with --styles; leave it out.")
    folders = {"contents": arguments.content, "styles": arguments.style_folder}
    return dataset.run(argparse.Namespace(**vars(arguments) | folders))
