"""The node that refines stylised pictures."""

from __future__ import annotations

import logging

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core import refine
from ..adain_core.images import save_image
from ..adain_core.progress import showing
from . import host
from .inputs import alpha_input
from .sockets import EncoderSocket, Node, repeat_last, schema, to_image, to_pictures

log = logging.getLogger(__name__)


class Refine(Node):
    """Gradient steps on stylised pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINRefine",
            display_name="Refine (AdaIN)",
            category="AdaIN/style",
            description="Improves a stylised picture by gradient steps on its pixels: closer to style and content than any"
            " decoder's, and much slower. Cancel saves the best picture so far in the output folder.",
            search_aliases=["neural style transfer", "optimize picture", "gatys", "better quality"],
            inputs=[
                io.Image.Input("image", tooltip="The stylised picture to begin with, from Decode or Style Transfer."),
                io.Image.Input("content", tooltip="The content that it was made from, of the same size; one, or one for each."),
                io.Image.Input("style_image", tooltip="The style picture; several are pooled into one style."),
                EncoderSocket.Input(
                    "encoder",
                    tooltip="Whose features are compared, in 32 bits. vgg19 gives the best strokes, also to pictures by lite.",
                ),
                io.Int.Input(
                    "steps", default=30, min=1, max=1000, tooltip="The first bring the most; time grows with their number."
                ),
                alpha_input(tooltip="Strength of the style to aim at; use the one that the picture was made with."),
                io.Float.Input(
                    "content_weight", default=1.0, min=0.0, max=1000.0, step=0.1, tooltip="Higher: more of the content."
                ),
                io.Float.Input(
                    "style_weight", default=10.0, min=0.0, max=1000.0, step=0.1, tooltip="Higher: more of the style."
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The best picture that was found, of the same size.")],
        )

    @classmethod
    def execute(
        cls,
        image: Tensor,
        content: Tensor,
        style_image: Tensor,
        encoder: ModelPatcher,
        steps: int = 30,
        alpha: float = 1.0,
        content_weight: float = 1.0,
        style_weight: float = 10.0,
    ) -> io.NodeOutput:
        pictures = to_pictures(image, "image"), to_pictures(content, "content"), to_pictures(style_image, "style_image")
        pictures = pictures[0], repeat_last(pictures[1], len(pictures[0])), pictures[2]
        show, best = host.progress(), {}

        def progress(done: int, total: int, picture: Tensor | None) -> None:
            if picture is not None:
                best[(done - 1) // steps] = picture
            show(done, total, picture)

        pixels = min(pictures[0].shape[2] * pictures[0].shape[3], host.ENOUGH**2)  # a larger picture is refined in tiles
        try:
            with host.training([encoder], pixels), showing(progress):
                result = refine(encoder.model, *pictures, steps, alpha, content_weight, style_weight)
        except host.Interrupted:
            paths = host.new_image_paths("adain_refined", len(best))
            for path, picture in zip(paths, best.values(), strict=True):
                save_image(picture, path)
            if paths:
                text = f"stopped; the best picture so far is {paths[-1]}"
                host.say(text)
                log.info(text)
            raise
        return io.NodeOutput(to_image(result))
