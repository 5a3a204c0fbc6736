"""`adain style`: make, learn, mix, show and list style files."""

from __future__ import annotations

import argparse
import dataclasses
import io
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageOps

from ..devices import resolve_device
from ..errors import AdainError
from ..evaluation.sheet import draw_contact_sheet
from ..files import check_not_sources, check_writable, printable, remove_leftovers
from ..images import list_images, load_image, load_mask, resize, save_format, write_picture
from ..style import Style, encode_style, join_encoders, load_style, mix_styles, pool_styles
from ..training.data import PictureFolder
from ..training.learn import CONTENT_SIDE, CONTENTS, learn_style
from ..weights import load_encoder
from . import options
from .gallery import is_style_file, named_styles, read_style, style_files
from .results import print_animations, print_written

STYLES = "style files, names of styles or folders of style files"
THUMBNAIL_SIDE = 160  # pixels of the longest side of a thumbnail on the contact sheet


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    commands = subparsers.add_parser("style", help="make, learn, mix, show and list style files").add_subparsers(
        metavar="make|learn|mix|show|list", required=True
    )
    make = commands.add_parser("make", help="a style file from one or more pictures of one style")
    make.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="pictures, or folders of pictures")
    _add_output(make)
    make.add_argument(
        "--encoder", "--model", action="append", dest="encoders", metavar="NAME",
        help="a name of the catalog, a file or hf:owner/repo/file; given several times, as --encoder lite --encoder vgg19, the"
        f" file is for each of them (default: {options.DEFAULT_MODEL})",
    )  # fmt: skip
    options.add_style_size(make, "--size")
    options.add_max_pixels(make)
    make.add_argument("--mask", type=Path, metavar="FILE", help="the part of a single picture that counts (white)")
    _add_origin(make)
    options.add_device(make)
    options.add_dtype(make)
    options.add_quiet(make)
    make.set_defaults(run=run_make)

    learn = commands.add_parser("learn", help="a style file from one picture, refined until results come closer to it")
    learn.add_argument("picture", type=Path, metavar="PICTURE")
    learn.add_argument(
        "--contents",
        type=Path,
        required=True,
        metavar="DIR",
        help=f"folder of pictures similar to those to stylise; {CONTENTS} are used",
    )
    _add_output(learn)
    options.add_networks(learn)
    learn.add_argument(
        "--loss-encoder",
        default="",
        metavar="NAME",
        help="encoder whose features the loss compares, best a VGG-19 (default: the encoder)",
    )
    learn.add_argument("--steps", type=int, default=100, metavar="N", help="most steps; fewer if the loss stops falling")
    learn.add_argument("--learning-rate", type=float, default=0.02, metavar="RATE")
    learn.add_argument("--seed", type=int, default=0, metavar="N")
    options.add_max_pixels(learn)
    _add_origin(learn)
    options.add_device(learn)
    options.add_dtype(learn)
    options.add_quiet(learn)
    learn.set_defaults(run=run_learn)

    mix = commands.add_parser("mix", help="a style file from others")
    mix.add_argument("styles", type=Path, nargs="+", metavar="STYLE", help=STYLES)
    _add_output(mix)
    options.add_weights(mix)
    options.add_quiet(mix)
    mix.set_defaults(run=run_mix)

    show = commands.add_parser("show", help="what style files hold")
    show.add_argument("styles", type=Path, nargs="+", metavar="STYLE", help=STYLES)
    show.set_defaults(run=run_show)

    listed = commands.add_parser("list", help="the bundled styles, and those saved in this folder and in ADAIN_STYLES")
    listed.add_argument("-o", "--output", type=Path, metavar="FILE", help="write a contact sheet of them, best a PNG")
    options.add_quiet(listed)
    listed.set_defaults(run=run_list)


def run_make(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    if arguments.mask and (len(arguments.pictures) > 1 or arguments.pictures[0].is_dir()):
        raise AdainError("--mask works for one picture only; make a style file of each picture and mix them.")
    masks = [arguments.mask] if arguments.mask else []
    _check_output(arguments, *arguments.pictures, *masks, *options.files_of(*(arguments.encoders or [])))
    mask = load_mask(arguments.mask) if arguments.mask else None
    files = [file for path in arguments.pictures for file in (list_images(path) if path.is_dir() else [path])]
    pictures = [resize(load_image(path), arguments.style_size) for path in files]  # many may be held
    print_animations(files)
    device = resolve_device(arguments.device)
    names = [options.network(name, "encoder") for name in arguments.encoders or [options.DEFAULT_MODEL]]
    made = []
    for name in names:
        encoder = load_encoder(name, device, arguments.dtype)
        made.append(pool_styles([encode_style(encoder, picture, arguments.style_size, mask=mask) for picture in pictures]))
    dataclasses.replace(join_encoders(made), **_origin(arguments)).save(arguments.output)
    print_written(str(arguments.output), start)
    return 0


def run_learn(arguments: argparse.Namespace) -> int:
    start = time.monotonic()
    networks = arguments.model, arguments.encoder, arguments.decoder, arguments.loss_encoder
    _check_output(arguments, arguments.picture, *options.files_of(*networks))
    picture = load_image(arguments.picture)
    crops = PictureFolder(arguments.contents, CONTENT_SIDE, CONTENT_SIDE, flip=False, seed=arguments.seed)
    contents = torch.stack([crops[index] for index in range(min(CONTENTS, crops.count))]).float() / 255
    encoder, decoder = options.given(options.NetworkOptions, arguments).load_networks()
    loss_encoder = None
    if arguments.loss_encoder:
        loss_encoder = load_encoder(options.network(arguments.loss_encoder, "encoder"), resolve_device(arguments.device))
    with options.progress_bar("step"):
        style = learn_style(
            encoder, decoder, picture, contents, arguments.steps, arguments.learning_rate, arguments.seed, loss_encoder
        )
    dataclasses.replace(style, **_origin(arguments)).save(arguments.output)
    print_written(str(arguments.output), start)
    return 0


def run_mix(arguments: argparse.Namespace) -> int:
    files = _style_files(arguments.styles)
    _check_output(arguments, *files)
    start = time.monotonic()
    style = mix_styles([read_style(path) for path in files], arguments.weights)
    dataclasses.replace(style, name=arguments.name or style.name).save(arguments.output)
    print_written(str(arguments.output), start)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    for path in (path for name in arguments.styles for path in _style_files([name])):
        style = read_style(path)
        print(f"{printable(str(path))}: {style.name}")
        measured = {style.encoder_fingerprint: style.components[0].levels}
        measured |= {variant.encoder_fingerprint: variant.levels[0] for variant in style.variants}
        for fingerprint, name in style.encoders.items():
            channels = " + ".join(str(level.mean.shape[1]) for level in measured[fingerprint])
            print(f"  encoder  {name} ({fingerprint[:12]}): {channels} channels")
        for component in style.components:
            weight = ", ".join(f"{w:.3g}" for w in component.weight.tolist())
            mask = "" if component.mask is None else f", mask {component.mask.shape[3]}x{component.mask.shape[2]}"
            print(f"  weight   {weight}{mask}")
        for key in ("source", "licence", "note"):
            if getattr(style, key):
                print(f"  {key:8} {getattr(style, key)}")
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    if arguments.output:
        save_format(arguments.output)
        check_writable(arguments.output)
    start = time.monotonic()
    styles, failures = [], []
    for name, path in named_styles().items():
        try:
            styles.append((name, load_style(path)))
        except (AdainError, OSError) as error:
            failures.append(str(error))
    width = max((len(name) for name, _ in styles), default=0)
    for name, style in styles:
        about = "; ".join(filter(None, (style.source, style.licence)))
        print(f"{name:{width}}  {', '.join(style.encoders.values()):11}  {about}".rstrip())
    if failures:
        options.print_failures("styles that could not be read", failures)
    if arguments.output and styles:
        pictures = [_thumbnail(style) for _, style in styles]
        sheet = draw_contact_sheet(pictures, [name for name, _ in styles])
        write_picture(sheet, arguments.output, save_format(arguments.output))
        print_written(f"a sheet of {len(styles)} styles to {arguments.output}", start)
    return 1 if failures else 0


def _style_files(names: Sequence[Path]) -> list[Path]:
    """The files of the styles with these names, of folders their style files. Raises AdainError for a folder without any."""
    found = []
    for name in names:
        files = [path for path in style_files(name) if is_style_file(path) or not name.is_dir()]
        if not files:
            raise AdainError(f"the folder {name} holds no style files, only pictures; make some with `adain style make`.")
        found += files
    return found


def _thumbnail(style: Style) -> Image.Image:
    """The style's thumbnail, or the example of it; a grey picture if it has neither."""
    try:
        picture = Image.open(io.BytesIO(style.thumbnail or style.example)).convert("RGB")
    except OSError:
        return Image.new("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE), "grey")
    return ImageOps.contain(picture, (THUMBNAIL_SIDE, THUMBNAIL_SIDE))


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the style file (.safetensors)")
    parser.add_argument("--name", default="", help="the style's name, kept in the file (default: the file's)")


def _add_origin(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", default="", help="where the picture is from, kept in the file")
    parser.add_argument("--licence", default="", help="the picture's licence, kept in the file")


def _origin(arguments: argparse.Namespace) -> dict[str, str]:
    return {"name": arguments.name, "source": arguments.source, "licence": arguments.licence}


def _check_output(arguments: argparse.Namespace, *sources: str | Path) -> None:
    path = arguments.output
    if path.suffix.lower() != ".safetensors":
        raise AdainError(f"{path} does not end in .safetensors; give such a name for a style file.")
    check_not_sources([path], sources)
    check_writable(path)
    remove_leftovers(path)
