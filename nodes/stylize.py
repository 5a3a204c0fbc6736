"""Nodes from a content picture to a stylised one."""

from __future__ import annotations

import dataclasses

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core import Style, decode, stylize, transfer
from ..adain_core import keep_colors as keep_content_colors
from ..adain_core.color import check_keepable
from ..adain_core.progress import Counter, Progress
from ..adain_core.stylize import ComputedFeatures, DeferredFeatures
from ..adain_core.working import reduced, reduced_size
from . import host
from .inputs import (
    alpha_input,
    content_statistics_input,
    detail_input,
    half_life_input,
    names_input,
    texture_input,
    texture_seed_input,
    tile_input,
    working_side,
    working_size_input,
)
from .networks import WHERE, load_network, model_names, network_version
from .sockets import (
    DecoderSocket,
    EncoderSocket,
    FeaturesSocket,
    ManagedFeatures,
    Node,
    StyleSocket,
    repeat_last,
    schema,
    to_image,
    to_mask,
    to_pictures,
)
from .styles import (
    STYLE_LIST,
    check_style,
    encode_pictures,
    read_style,
    style_names,
    style_version,
    with_last_masks,
)


class AdaIN(Node):
    """Adaptive instance normalization of a content picture's features."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINTransfer",
            display_name="Apply Style (AdaIN)",
            category="AdaIN/style",
            description="The heart of the method: gives the content's features the statistics of the style. Decode turns the"
            " result into a picture.",
            search_aliases=["style transfer", "adaptive instance normalization", "neural style"],
            inputs=[
                EncoderSocket.Input("encoder", tooltip="From Load Encoder; the one that the style was made with."),
                io.Image.Input("content", tooltip="The picture, or the frames, to stylise."),
                StyleSocket.Input("style", tooltip="From Encode Style, Load Style, Style Mix, Mask Style or Style Sweep."),
                alpha_input(),
                content_statistics_input(),
                half_life_input(),
                tile_input(),
            ],
            outputs=[FeaturesSocket.Output(display_name="features", tooltip="For Decode.")],
        )

    @classmethod
    def execute(
        cls,
        encoder: ModelPatcher,
        content: Tensor,
        style: Style,
        alpha: float = 1.0,
        content_statistics: str = "image",
        half_life: float = 8.0,
        tile: int = -1,
    ) -> io.NodeOutput:
        pictures = to_pictures(content, "content")
        style = with_last_masks(style, len(pictures))
        with host.working([encoder], pictures.shape[2:], _side(tile)):
            features = transfer(encoder.model, pictures, style, alpha, content_statistics, half_life, _side(tile))
        if isinstance(features, ComputedFeatures):
            kept = [level.to(host.intermediate_device()) for level in (*features.levels, *features.content_levels)]
            count = len(features.levels)
            features = dataclasses.replace(features, levels=tuple(kept[:count]), content_levels=tuple(kept[count:]))
        return io.NodeOutput(ManagedFeatures(features, encoder))


class Decode(Node):
    """Features to pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINDecode",
            display_name="Decode (AdaIN)",
            category="AdaIN/networks",
            description="Turns stylised features into a picture of exactly the content's size.",
            search_aliases=["adain decode", "features to image"],
            inputs=[
                DecoderSocket.Input("decoder", tooltip="From Load Decoder; the one that belongs to the encoder."),
                FeaturesSocket.Input("features", tooltip="From Apply Style."),
                tile_input(),
                io.Image.Input(
                    "keep_colors_of",
                    optional=True,
                    tooltip="Takes the colours from this picture (usually the content) and only the brightness from the style.",
                ),
                texture_input(),
                texture_seed_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The stylised picture or frames.")],
        )

    @classmethod
    def execute(
        cls,
        decoder: ModelPatcher,
        features: ManagedFeatures,
        tile: int = -1,
        keep_colors_of: Tensor | None = None,
        texture: float = 1.0,
        seed: int = 0,
    ) -> io.NodeOutput:
        deferred, encoder = features.features, features.encoder
        colors = None if keep_colors_of is None else to_pictures(keep_colors_of, "keep_colors_of")
        show = None
        if colors is not None:
            colors = repeat_last(colors, deferred.count)
            check_keepable(deferred.count, deferred.size, colors)
            show = _in_colors(host.progress(), colors)
        used = [encoder, decoder] if isinstance(deferred, DeferredFeatures) else [decoder]
        with host.working(used, deferred.size, _side(tile), show):
            pictures = decode(decoder.model, deferred, _side(tile), texture, seed)
            if colors is not None:
                _color(pictures, colors)
        return io.NodeOutput(to_image(pictures))


class StyleTransfer(Node):
    """The whole way in one node."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINStyleTransfer",
            display_name="Style Transfer",
            category="AdaIN",
            description="Stylises a picture in one step: connect a picture, choose a style, press Run.",
            search_aliases=["neural style", "artistic style", "painting", "stylize", "stylise"],
            inputs=[
                io.Image.Input("content", tooltip="The picture, or the frames, to stylise."),
                names_input("model", model_names(), f"Which pair of networks to use. {WHERE}", default="lite"),
                names_input(
                    "style", style_names(), f"Which style to give. Not used when style_image is connected. {STYLE_LIST}"
                ),
                alpha_input(),
                io.Boolean.Input(
                    "keep_colors",
                    default=False,
                    tooltip="Keeps the content's colours; only light and dark come from the style.",
                ),
                io.Image.Input(
                    "style_image", optional=True, tooltip="A style picture of your own, for example a painting; replaces style."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White: the style applies here; black: the picture stays as it is. Stretched to the content's"
                    " size.",
                ),
                working_size_input(),
                detail_input(),
                io.Int.Input(
                    "style_size",
                    default=512,
                    min=0,
                    max=4096,
                    step=64,
                    optional=True,
                    tooltip="For style_image, whose smaller side is resized to this many pixels first. Larger: a weaker style,"
                    " with strokes that are hardly broader. 0 keeps its own size.",
                ),
                content_statistics_input(optional=True),
                texture_input(),
                texture_seed_input(),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The stylised picture or frames.")],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, style: str, **inputs: object) -> str:
        return f"{network_version('encoder', model)} {network_version('decoder', model)} {style_version(style)}"

    @classmethod
    def execute(
        cls,
        content: Tensor,
        model: str,
        style: str,
        alpha: float = 1.0,
        keep_colors: bool = False,
        style_image: Tensor | None = None,
        mask: Tensor | None = None,
        working_size: int = -1,
        detail: float = 0.8,
        style_size: int = 512,
        content_statistics: str = "image",
        texture: float = 1.0,
        seed: int = 0,
    ) -> io.NodeOutput:
        pictures, side = to_pictures(content, "content"), working_side(working_size)
        if style_image is None:
            check_style(style, model)
        encoder, decoder = load_network("encoder", model), load_network("decoder", model)
        if style_image is None:
            chosen = read_style(style)
        else:
            chosen = encode_pictures(encoder, to_pictures(style_image, "style"), style_size)
        if mask is not None:
            chosen = chosen.masked(repeat_last(to_mask(mask), len(pictures)))
        show = _in_colors(host.progress(), reduced(pictures, side)) if keep_colors else None
        with host.working([encoder, decoder], reduced_size(pictures.shape[2:], side), show=show):
            result = stylize(
                encoder.model, decoder.model, pictures, chosen, alpha, content_statistics, working_size=side, detail=detail,
                texture=texture, seed=seed,
            )  # fmt: skip
            if keep_colors:
                _color(result, pictures)
        return io.NodeOutput(to_image(result))


def _color(pictures: Tensor, colors: Tensor) -> None:
    """`keep_colors` in place, of `pictures` `(N, C, H, W)` and `colors` of N or 1, one by one: to be shown, and save memory."""
    counter = Counter(len(pictures))
    for index, picture in enumerate(pictures.split(1)):
        with counter.part():
            picture.copy_(keep_content_colors(picture, colors[[min(index, len(colors) - 1)]]))


def _in_colors(show: Progress, colors: Tensor) -> Progress:
    """Shows finished pictures in the colours of `colors` `(N or 1, C, H, W)`; tiles, whose place is not told, are left out."""
    finished = 0

    def progress(done: int, total: int, pictures: Tensor | None) -> None:
        nonlocal finished
        finished = finished if done else 0  # it begins anew where memory ran out
        if pictures is not None:
            finished += len(pictures)
            whole = pictures.shape[2:] == colors.shape[2:]
            pictures = keep_content_colors(pictures[-1:], colors[[min(finished, len(colors)) - 1]]) if whole else None
        show(done, total, pictures)

    return progress


def _side(tile: int) -> int | None:
    return None if tile < 0 else tile
