"""The node that stylises a video."""

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..adain_core import Style
from ..adain_core.clip import ClipStylizer
from ..adain_core.working import reduced_size
from . import host
from .inputs import alpha_input, detail_input, half_life_input, texture_input, working_side, working_size_input
from .sockets import DecoderSocket, EncoderSocket, Node, StyleSocket, schema

STATISTICS = ["image", "batch", "running"]


class StylizeVideo(Node):
    """A video's frames, one after the other."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINStylizeVideo",
            display_name="Stylize Video (AdaIN)",
            category="AdaIN/video",
            description="Stylises a video of any length from file to file, without holding its frames in memory; frame rate"
            " and sound are kept. A cancelled run goes on where it stopped.",
            search_aliases=["video style transfer", "style transfer", "stylise movie"],
            inputs=[
                io.Video.Input("video", tooltip="From Load Video, or Create Video."),
                EncoderSocket.Input("encoder", tooltip="From Load Encoder; the one that the style was made with."),
                DecoderSocket.Input("decoder", tooltip="From Load Decoder; the one that belongs to the encoder."),
                StyleSocket.Input(
                    "style",
                    tooltip="From Encode Style, Load Style, Style Mix or Mask Style; or from Style Sweep, whose styles are"
                    " spread along the video, however many they are.",
                ),
                alpha_input(),
                io.Combo.Input(
                    "content_statistics",
                    options=STATISTICS,
                    default="running",
                    tooltip="What the frames are normalised by. image: each by itself, which may flicker. batch: the whole"
                    " video, which is then read twice. running: smoothed along it, for scenes that change.",
                ),
                half_life_input(),
                working_size_input(),
                detail_input(),
                texture_input(default=0.0),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="The stylised video, with the sound of the given one.")],
        )

    @classmethod
    def execute(
        cls,
        video: Any,
        encoder: ModelPatcher,
        decoder: ModelPatcher,
        style: Style,
        alpha: float = 1.0,
        content_statistics: str = "running",
        half_life: float = 8.0,
        working_size: int = -1,
        detail: float = 0.8,
        texture: float = 0.0,
    ) -> io.NodeOutput:
        if content_statistics not in STATISTICS:
            raise ValueError(f"content_statistics is {content_statistics!r}; choose one of {', '.join(STATISTICS)}.")
        side = working_side(working_size)
        stylizer = ClipStylizer(
            encoder.model, decoder.model, style, alpha, content_statistics, half_life, texture=texture, working_size=side,
            detail=detail,
        )  # fmt: skip
        clip = host.opened_video(video)
        with host.working([encoder, decoder], reduced_size(clip.size, side)):
            path = host.temp_folder() / f"adain-{stylizer.digest(clip)[:16]}.mp4"
            if not path.exists():  # it is the same video
                stylizer.video(clip, path)
        return io.NodeOutput(host.to_video(path))
