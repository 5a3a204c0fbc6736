"""Nodes that make, mix, mask and keep styles."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core import Style, encode_style, load_style, match_colors, mix_styles
from ..adain_core.affine import interpolate_styles
from ..adain_core.files import read_safetensors, text_of, version
from ..adain_core.images import size_for, thumbnail_jpeg
from ..adain_core.style import encoders_of, jpeg_of
from . import host
from .inputs import names_input
from .networks import known_fingerprint, model_names
from .sockets import EncoderSocket, Node, StyleSocket, Written, repeat_last, schema, to_mask, to_pictures

STYLE_LIST = (
    "Bundled styles, files in models/adain_styles, and what Save Style wrote (output/adain_styles). Press R to refresh."
)
MIXED = 6  # inputs of StyleMix
_saved = Written()
CURVES = {"linear": lambda t: t, "smooth": lambda t: t * t * (3 - 2 * t)}


def style_names() -> list[str]:
    """Names of the style files there are."""
    ending = ".safetensors"
    return [file.removesuffix(ending) for file in host.list_files(host.STYLES) if file.endswith(ending)]


def find_style(name: str) -> Path | None:
    """The file of a listed style."""
    return host.find_file(host.STYLES, f"{name}.safetensors")


def style_version(name: str) -> str:
    """Differs when the file behind a name has changed."""
    path = find_style(name)
    return str(name) if path is None else f"{path} {version(path)}"


def read_style(name: str) -> Style:
    """A listed style. Raises FileNotFoundError for one that is not there."""
    path = find_style(name)
    if path is None:
        raise FileNotFoundError(f"there is no style {name!r}; choose another, or make one with Encode Style and Save Style.")
    return load_style(path)


def check_style(name: str, model: str) -> None:
    """Raise ValueError if a listed style is known not to be for this model, of which nothing is loaded or fetched yet."""
    encoders, fingerprint = read_style(name).encoders, known_fingerprint(model)
    if fingerprint and fingerprint not in encoders:
        made_by = " and ".join(map(repr, encoders.values()))
        raise ValueError(
            f"the style {name!r} is for {made_by}, not for the model {model!r}; choose another style or another model, or"
            " connect a style_image."
        )


def gallery() -> list[dict[str, Any]]:
    """For the front end, of each style there is: its name, its thumbnail and an example (JPEG in base64), its source, and the
    models that it is known not to be for. What a file lacks, or has too much of, is empty.
    """
    models = {model: fingerprint for model in model_names() if (fingerprint := known_fingerprint(model))}
    styles = []
    for name in style_names():
        metadata, not_for = {}, []
        if path := find_style(name):
            with contextlib.suppress(OSError, ValueError):  # a damaged file says what is wrong when it is loaded
                metadata = read_safetensors(path, [])[1]
                encoders = encoders_of(metadata)
                not_for = [model for model, fingerprint in models.items() if fingerprint not in encoders]
        pictures = {key: jpeg_of(metadata, key) for key in ("thumbnail", "example")}
        styles.append({"name": name, **pictures, "source": text_of(metadata, "source"), "not_for": not_for})
    return styles


def encode_pictures(
    patcher: ModelPatcher, pictures: Tensor, size: int = 512, combine: str = "pool", mask: Tensor | None = None
) -> Style:
    """adain_core's `encode_style` with a managed encoder."""
    shape = pictures.shape[2:]
    with host.working([patcher], size_for(shape, size) if size > 0 else shape):
        return encode_style(patcher.model, pictures, size, combine, mask)


def with_last_masks(style: Style, count: int) -> Style:
    """The style for `count` contents, of which those behind the last of its masks get this one."""
    if any(part.unmasked_batch > 1 for part in style.components):
        return style
    parts = (dataclasses.replace(p, mask=None if p.mask is None else repeat_last(p.mask, count)) for p in style.components)
    return dataclasses.replace(style, components=tuple(parts))


class EncodeStyle(Node):
    """Makes a style from pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINEncodeStyle",
            display_name="Encode Style (AdaIN)",
            category="AdaIN/style",
            description="Makes a style from a picture: its brush strokes, textures and colours, as statistics of its features.",
            search_aliases=["style picture", "style image", "adain style"],
            inputs=[
                EncoderSocket.Input("encoder", tooltip="From Load Encoder; the same one as for the content."),
                io.Image.Input("image", tooltip="The style picture, such as a painting. Several make one style, or one each."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=4096,
                    step=64,
                    tooltip="The picture's smaller side is resized to this many pixels first. Larger: a weaker style, with"
                    " strokes that are hardly broader. 0 keeps the picture's own size.",
                ),
                io.Combo.Input(
                    "combine",
                    options=["pool", "each"],
                    default="pool",
                    tooltip="For several pictures. pool: one style from all of them. each: one style per picture, the first"
                    " for the first content and so on.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Which part of the style picture counts (white); all of it when not connected.",
                ),
                io.Image.Input(
                    "match_colors_of",
                    optional=True,
                    tooltip="Gives the style picture the colours of this one first (usually the content), so that only its"
                    " strokes are taken over.",
                ),
            ],
            outputs=[StyleSocket.Output(display_name="style", tooltip="For Apply Style, Style Mix, Mask Style or Save Style.")],
        )

    @classmethod
    def execute(
        cls,
        encoder: ModelPatcher,
        image: Tensor,
        size: int = 512,
        combine: str = "pool",
        mask: Tensor | None = None,
        match_colors_of: Tensor | None = None,
    ) -> io.NodeOutput:
        pictures = to_pictures(image, "style")
        part = None if mask is None else repeat_last(to_mask(mask), len(pictures))
        if match_colors_of is not None:
            colors = repeat_last(to_pictures(match_colors_of, "match_colors_of"), len(pictures))
            pictures = match_colors(pictures, colors, part)
        return io.NodeOutput(encode_pictures(encoder, pictures, size, combine, part))


class StyleMix(Node):
    """Mixes styles by weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs = []
        for index in range(1, MIXED + 1):
            optional = index > 2
            inputs += [
                StyleSocket.Input(
                    f"style_{index}", optional=optional, tooltip=f"Style {index}{', if wanted' if optional else ''}."
                ),
                io.Float.Input(
                    f"weight_{index}",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    optional=optional,
                    tooltip=f"Share of style {index}. Only the proportions count: 1 and 1 is the same as 2 and 2."
                    " 0 leaves it out.",
                ),
            ]
        return schema(
            node_id="AdaINStyleMix",
            display_name="Style Mix (AdaIN)",
            category="AdaIN/style",
            description="Mixes two to six styles into one, by weight. Masked styles keep their regions.",
            search_aliases=["blend styles", "interpolate styles", "combine styles"],
            inputs=inputs,
            outputs=[StyleSocket.Output(display_name="style", tooltip="The mix, a style like any other.")],
        )

    @classmethod
    def execute(cls, **inputs: Any) -> io.NodeOutput:
        used = [index for index in range(1, MIXED + 1) if inputs.get(f"style_{index}") is not None]
        styles, weights = [inputs[f"style_{index}"] for index in used], [inputs.get(f"weight_{index}", 1.0) for index in used]
        most = max((style.batch for style in styles), default=1)
        return io.NodeOutput(mix_styles([with_last_masks(style, most) for style in styles], weights))


class MaskStyle(Node):
    """Confines a style to a region."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINMaskStyle",
            display_name="Mask Style (AdaIN)",
            category="AdaIN/style",
            description="Confines a style to a region of the content. Mix several masked styles with Style Mix; what no mask"
            " covers keeps the content's look.",
            search_aliases=["regional style", "style region"],
            inputs=[
                StyleSocket.Input("style", tooltip="The style to confine."),
                io.Mask.Input("mask", tooltip="White: the style applies here. Stretched to the content's size."),
            ],
            outputs=[StyleSocket.Output(display_name="style", tooltip="The style, in that region only.")],
        )

    @classmethod
    def execute(cls, style: Style, mask: Tensor) -> io.NodeOutput:
        mask = to_mask(mask).cpu()
        style = with_last_masks(style, len(mask))
        return io.NodeOutput(style.masked(repeat_last(mask, style.batch)))


class StyleSweep(Node):
    """From one style to another, one mix per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINStyleSweep",
            display_name="Style Sweep (AdaIN)",
            category="AdaIN/video",
            description="Goes from one style to another, one mix per frame: for a clip of as many pictures, or for one"
            " picture, which then becomes a clip.",
            search_aliases=["animate style", "style interpolation", "style transition"],
            inputs=[
                StyleSocket.Input("style_from", tooltip="The style of the first frame."),
                StyleSocket.Input("style_to", tooltip="The style of the last frame."),
                io.Int.Input(
                    "frames",
                    default=16,
                    min=2,
                    max=4096,
                    tooltip="How many; as many as the content has, if it has several. Along a video any number is spread.",
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default="linear",
                    tooltip="linear: at an even pace. smooth: slowly at both ends, faster between.",
                ),
            ],
            outputs=[StyleSocket.Output(display_name="style", tooltip="One style per frame, for Apply Style.")],
        )

    @classmethod
    def execute(cls, style_from: Style, style_to: Style, frames: int = 16, curve: str = "linear") -> io.NodeOutput:
        if curve not in list(CURVES):
            raise ValueError(f"curve is {curve!r}; choose one of {', '.join(CURVES)}.")
        share = CURVES[curve](torch.linspace(0, 1, frames, dtype=torch.float32))
        first, last = (with_last_masks(style, frames) for style in (style_from, style_to))
        return io.NodeOutput(interpolate_styles(first, last, share))


class SaveStyle(Node):
    """Writes a style file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINSaveStyle",
            display_name="Save Style (AdaIN)",
            category="AdaIN/style",
            description="Writes a style, a few kilobytes, to output/adain_styles, where Load Style and Style Transfer find it.",
            search_aliases=["export style", "style file"],
            is_output_node=True,
            inputs=[
                StyleSocket.Input("style", tooltip="The style to keep."),
                io.String.Input(
                    "name", default="my-style", tooltip="Its name. A style that was saved under this name before is replaced."
                ),
                io.Image.Input(
                    "thumbnail",
                    optional=True,
                    tooltip="A picture to show for it, made small; the style picture when not connected.",
                ),
            ],
            outputs=[StyleSocket.Output(display_name="style", tooltip="The same style, to go on with.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str = "", **inputs: object) -> int:
        return _saved.times_removed(str(name))

    @classmethod
    def execute(cls, style: Style, name: str, thumbnail: Tensor | None = None) -> io.NodeOutput:
        path = host.new_style_path(name)
        style = dataclasses.replace(style, name=path.stem)
        if thumbnail is not None:
            style = dataclasses.replace(style, thumbnail=thumbnail_jpeg(to_pictures(thumbnail, "thumbnail")[:1, :3]))
        style.save(path)
        _saved.note(name, path)
        return io.NodeOutput(style)


class LoadStyle(Node):
    """Reads a style file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINLoadStyle",
            display_name="Load Style (AdaIN)",
            category="AdaIN/style",
            description="Loads a style that is bundled or was saved; no style picture is needed.",
            search_aliases=["style file", "style gallery"],
            inputs=[names_input("name", style_names(), f"Which style to load. {STYLE_LIST}")],
            outputs=[StyleSocket.Output(display_name="style", tooltip="For Apply Style, Style Mix or Mask Style.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str) -> str:
        return style_version(name)

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        return io.NodeOutput(read_style(name))
