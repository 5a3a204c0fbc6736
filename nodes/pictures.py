"""The node that gives a bundled photograph, and where bundled pictures are."""

from __future__ import annotations

from pathlib import Path

from comfy_api.latest import io

from ..adain_core.images import camera_move, load_image
from . import host
from .sockets import Node, schema, to_image

PICTURES = Path(__file__).resolve().parents[1] / "workflows" / "pictures"
PHOTOS = {path.stem: path for path in sorted((PICTURES / "photos").glob("*.jpg"))}
MOST_FRAMES = 256  # they are in memory, 9 MB each


class ExamplePicture(Node):
    """A bundled photograph, or a clip made of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINExamplePicture",
            display_name="Example Picture (AdaIN)",
            category="AdaIN",
            description="Gives a photograph that comes with the nodes, to try them with. For a picture of your own, put Load"
            " Image in its place.",
            search_aliases=["sample image", "test image", "demo photo"],
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=list(PHOTOS),
                    default="lake",
                    tooltip="Which photograph. All are in the public domain or under CC0.",
                ),
                io.Int.Input(
                    "frames",
                    default=1,
                    min=1,
                    max=MOST_FRAMES,
                    tooltip="1 gives the photograph. More give a clip of so many frames, in which the camera slowly moves"
                    " closer.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The photograph, or the frames of the clip.")],
        )

    @classmethod
    def execute(cls, picture: str, frames: int = 1) -> io.NodeOutput:
        if picture not in list(PHOTOS):
            raise ValueError(f"picture is {picture!r}; choose one of {', '.join(PHOTOS)}.")
        image = to_image(camera_move(load_image(PHOTOS[picture]), frames))
        return io.NodeOutput(image, ui=host.final_preview(image[:1], cls))
