"""The nodes for ComfyUI: sockets, tooltips and calls into adain_core."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..adain_core.devices import keep_freed_memory
from . import host
from .latent import LatentAdaIN, ModelAdaIN
from .networks import LoadDecoder, LoadEncoder
from .pictures import ExamplePicture
from .refine import Refine
from .styles import EncodeStyle, LoadStyle, MaskStyle, SaveStyle, StyleMix, StyleSweep, gallery
from .stylize import AdaIN, Decode, StyleTransfer
from .training import LearnStyle, TrainDecoder
from .video import StylizeVideo

NODES: list[type[io.ComfyNode]] = [
    StyleTransfer,
    LoadEncoder,
    LoadDecoder,
    EncodeStyle,
    StyleMix,
    MaskStyle,
    StyleSweep,
    SaveStyle,
    LoadStyle,
    AdaIN,
    Decode,
    StylizeVideo,
    Refine,
    ExamplePicture,
    LatentAdaIN,
    ModelAdaIN,
    TrainDecoder,
    LearnStyle,
]


class AdaINExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> AdaINExtension:
    keep_freed_memory()
    host.share_memory_count()
    host.register_folders()
    host.raise_pixel_limit()
    host.serve("/adain/styles", gallery)
    return AdaINExtension()
