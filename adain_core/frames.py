"""Decoded frames of a video as pictures: upright, and in sRGB."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .images import as_floats, on_white
from .media import pyav
from .video_color import BT2020, HLG, PQ, needs_conversion, to_srgb

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

# code points of ITU-T H.273, which FFmpeg has too; of the matrices of YUV here
BT709, BT601, BT2020_MATRIX = 1, 5, 9
UNSPECIFIED = 2
FULL_RANGE = 2  # FFmpeg's
SD_HEIGHT, HD_WIDTH = 576, 1280  # pixels


class FrameReader:
    """Makes pictures of the frames of a stream, sRGB `(1, 3, H, W)`, upright: uint8, or float32 in [0, 1].

    High dynamic range and wide gamuts are converted. Where a stream does not state its colours, they are taken for those of
    BT.709 from HD on, else of BT.601, as players do. What is transparent is put on white, with a warning.
    """

    def __init__(self, stream: av.VideoStream, name: str):
        context, self.to_white = stream.codec_context, OnWhite(name)
        self.transfer, self.primaries = context.color_trc, context.color_primaries
        self.reformatter = pyav().video.reformatter.VideoReformatter()

    def pixels(self, frame: av.VideoFrame) -> Tensor:
        # older PyAV has these in the stream only
        transfer = getattr(frame, "color_trc", self.transfer)
        primaries = getattr(frame, "color_primaries", self.primaries)
        converted, alpha = needs_conversion(transfer, primaries), _has_alpha(frame)
        kind = ("rgba64le" if alpha else "rgb48le") if converted else ("rgba" if alpha else "rgb24")
        pixels = self._converted(frame, kind, _matrix(frame, transfer, primaries))
        transposed, across, down = orientation(frame)
        pixels = (pixels.swapaxes(0, 1) if transposed else pixels)[::down, ::across].copy()
        if converted:
            picture = to_srgb(pixels[..., :3], transfer, primaries)
        else:
            picture = torch.from_numpy(pixels[None, ..., :3]).permute(0, 3, 1, 2)
        if alpha:
            opacity = torch.from_numpy(pixels[..., 3].astype(np.float32) / np.iinfo(pixels.dtype).max)
            picture = self.to_white(torch.cat([as_floats(picture), opacity[None, None]], dim=1))
        return picture

    def _converted(self, frame: av.VideoFrame, kind: str, matrix: int) -> np.ndarray:
        # RGB is the same for each target; older PyAV ignores matrix and range where source and target have the same
        target = BT709 if matrix == BT601 else BT601
        return self.reformatter.reformat(
            frame, format=kind, src_colorspace=matrix, dst_colorspace=target,
            src_color_range=frame.color_range, dst_color_range=FULL_RANGE,
        ).to_ndarray()  # fmt: skip


class OnWhite:
    """Puts pictures `(1, 3 or 4, H, W)` on white, as `(1, 3, H, W)`, with a warning for the first that is not opaque."""

    def __init__(self, name: str):
        self.name, self.warned = name, False

    def __call__(self, picture: Tensor) -> Tensor:
        if picture.shape[1] == 4 and not self.warned and picture[:, 3].min() < 1:
            log.warning("%s is transparent in places; it is put on white", self.name)
            self.warned = True
        return on_white(picture)


class SameSize:
    """Scales pictures `(1, C, H, W)`, uint8 or in [0, 1], to `size`, their H and W, with a warning for the first that has
    another.
    """

    def __init__(self, name: str, size: Sequence[int]):
        self.name, self.size, self.warned = name, tuple(size), False

    def __call__(self, picture: Tensor) -> Tensor:
        if tuple(picture.shape[2:]) == self.size:
            return picture
        if not self.warned:
            log.warning("%s changes its size; later frames are scaled to %dx%d pixels", self.name, *self.size[::-1])
            self.warned = True
        return F.interpolate(as_floats(picture), self.size, mode="bilinear", antialias=True)


def orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """How the stored frame is shown: whether it is transposed, and then the steps across and down, -1 where it is mirrored.

    Of the 8 orientations that keep the pixel grid it is the nearest to the frame's display matrix.
    """
    # a point (p, q) is shown at (a p + c q, b p + d q)
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
        a, b, _, c, d = (1, 0, 0, 0, 1) if matrix is None else np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    except ValueError:  # the frame has data of a type that this PyAV does not know, and so none of its data is listed
        angle = math.radians(frame.rotation)
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    transposed = abs(b) + abs(c) > abs(a) + abs(d)
    across, down = (c, b) if transposed else (a, d)
    return transposed, -1 if across < 0 else 1, -1 if down < 0 else 1


def _has_alpha(frame: av.VideoFrame) -> bool:
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def _matrix(frame: av.VideoFrame, transfer: int, primaries: int) -> int:
    """The matrix between RGB and the frame's YUV."""
    if frame.colorspace != UNSPECIFIED or frame.format.is_rgb:
        return frame.colorspace
    if transfer in (PQ, HLG) or primaries == BT2020:
        return BT2020_MATRIX
    return BT709 if frame.width >= HD_WIDTH or frame.height > SD_HEIGHT else BT601
