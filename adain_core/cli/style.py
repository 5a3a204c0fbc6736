"""`adain style`: make, mix and show style files."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from ..devices import resolve_device
from ..images import load_image, load_mask
from ..style import encode_style, load_style, mix_styles, pool_styles
from ..weights import load_encoder
from . import options


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    commands = subparsers.add_parser("style", help="make, mix and show style files").add_subparsers(
        metavar="make|mix|show", required=True
    )
    make = commands.add_parser("make", help="a style file from one or more pictures of one style")
    make.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    _add_output(make)
    options.add_network(make, "encoder")
    options.add_style_size(make, "--size")
    make.add_argument("--mask", type=Path, metavar="FILE", help="which part of a single picture counts (white)")
    make.add_argument("--source", default="", help="where the picture is from, kept in the file")
    make.add_argument("--licence", default="", help="the picture's licence, kept in the file")
    options.add_device(make)
    make.set_defaults(run=run_make)

    mix = commands.add_parser("mix", help="a style file from others")
    mix.add_argument("styles", type=Path, nargs="+", metavar="STYLE")
    _add_output(mix)
    options.add_weights(mix)
    mix.set_defaults(run=run_mix)

    show = commands.add_parser("show", help="what style files hold")
    show.add_argument("styles", type=Path, nargs="+", metavar="STYLE")
    show.set_defaults(run=run_show)


def run_make(arguments: argparse.Namespace) -> int:
    if arguments.mask and len(arguments.pictures) > 1:
        raise ValueError("--mask belongs to one picture; make one style file a picture and mix them.")
    _check_output(arguments.output)
    mask = load_mask(arguments.mask) if arguments.mask else None
    pictures = [load_image(path) for path in arguments.pictures]
    device = resolve_device(arguments.device)
    encoder = load_encoder(options.network(arguments.encoder, "encoder"), device, arguments.dtype)
    styles = [encode_style(encoder, picture, arguments.style_size, mask=mask) for picture in pictures]
    texts = {"name": arguments.name, "source": arguments.source, "licence": arguments.licence}
    dataclasses.replace(pool_styles(styles), **texts).save(arguments.output)
    return 0


def run_mix(arguments: argparse.Namespace) -> int:
    _check_output(arguments.output)
    style = mix_styles([load_style(path) for path in arguments.styles], arguments.weights)
    dataclasses.replace(style, name=arguments.name or style.name).save(arguments.output)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    for path in arguments.styles:
        style = load_style(path)
        print(f"{path}: {style.name}")
        print(f"  encoder  {style.encoder_name} ({style.encoder_fingerprint[:12]})")
        for component in style.components:
            weight = ", ".join(f"{w:.3g}" for w in component.weight.tolist())
            channels = " + ".join(str(level.mean.shape[1]) for level in component.levels)
            mask = "" if component.mask is None else f", mask {component.mask.shape[3]}x{component.mask.shape[2]}"
            print(f"  weight   {weight}: {channels} channels{mask}")
        for key in ("source", "licence"):
            if getattr(style, key):
                print(f"  {key:8} {getattr(style, key)}")
    return 0


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the style file (.safetensors)")
    parser.add_argument("--name", default="", help="the style's name, kept in the file (default: the file's)")


def _check_output(path: Path) -> None:
    if path.suffix.lower() != ".safetensors":
        raise ValueError(f"{path} does not end in .safetensors; style files do.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; create it first.")
