"""Small video files, made with PyAV itself and not with the code under test."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICKS = 1200  # a second, of the times of frames
SOUND_RATE = 44100


def noise(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Frames `(N, H, W, 3)` of blocks, which move, grow darker, and survive compression."""
    blocks = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    still = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.stack([(np.roll(still, 2 * k, axis=1) / (1 + k / 8)).astype(np.uint8) for k in range(count)])


def write_clip(
    path: Path, frames: np.ndarray, times: Sequence[int] | None = None, sound: str | None = "aac", rotation: int = 0,
    lossless: bool = False, layout: str = "mono", sound_rate: int = SOUND_RATE, seconds: float | None = None, tracks: int = 1,
    encoder: str = "libx264",
) -> Path:  # fmt: skip
    """Frames `(N, H, W, 3)`, at `times` in ticks or 10 a second, with a tone as long as they are, or as `seconds`, by the codec
    `sound`, in channels of that layout, in so many tracks.

    Odd sides are 4:4:4.
    """
    times = range(0, len(frames) * 120, 120) if times is None else times
    with av.open(str(path), "w") as container:
        options = {"qp": "0"} if lossless else {"crf": "10"}
        stream = container.add_stream(encoder, rate=10, options=options if encoder == "libx264" else {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p" if lossless or frames.shape[1] % 2 or frames.shape[2] % 2 else "yuv420p"
        if encoder == "mjpeg":
            stream.pix_fmt = "yuvj420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = [container.add_stream(sound, rate=sound_rate, layout=layout) for _ in range(tracks if sound else 0)]
        for track in audio:
            track.bit_rate = 64000
        for pixels, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        seconds = (times[-1] + 120) / TICKS if seconds is None else seconds
        for track in audio:
            if seconds:
                tone = np.sin(np.arange(int(sound_rate * seconds)) * 0.06, dtype=np.float32)
                tone = tone.repeat(av.AudioLayout(layout).nb_channels)[None]
                frame = av.AudioFrame.from_ndarray(tone, format="flt", layout=layout)
                frame.sample_rate, frame.pts = sound_rate, 0
                container.mux(track.encode(frame))
                container.mux(track.encode(None))
    return path


def cut_losslessly(path: Path, target: Path, seconds: float) -> Path:
    """The clip from `seconds` on, of copied packets: those before are in the file still, and an edit list leaves them out."""
    with (
        av.open(str(path)) as original,
        av.open(str(target), "w", options={"use_editlist": "1", "avoid_negative_ts": "disabled"}) as container,
    ):
        streams = {stream: container.add_stream_from_template(stream) for stream in original.streams}
        for packet in original.demux():
            if packet.dts is not None:
                ticks = round(seconds / packet.time_base)
                packet.stream, packet.pts, packet.dts = streams[packet.stream], packet.pts - ticks, packet.dts - ticks
                container.mux(packet)
    return target


def write_transparent(path: Path, encoder: str, pix_fmt: str, rgba: np.ndarray) -> Path:
    """Three frames of RGBA `(H, W, 4)`, of 8 bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=10, options={"auto-alt-ref": "0"} if "vpx" in encoder else {})
        stream.height, stream.width, stream.pix_fmt = *rgba.shape[:2], pix_fmt
        stream.bit_rate = 10**6
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_colours(
    path: Path, rgb: np.ndarray, pix_fmt: str = "yuv444p10le", matrix: int = 2, transfer: int = 2, primaries: int = 2,
    color_range: int = 0,
) -> Path:  # fmt: skip
    """One frame of RGB `(H, W, 3)` in [0, 1], lossless, with these tags (by ITU-T H.273 and FFmpeg; 2 and 0 state nothing)."""
    weights = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    return write_yuv(path, *yuv(rgb, *weights), pix_fmt, matrix, transfer, primaries, color_range)


def yuv(rgb: np.ndarray, red: float, blue: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Y in [0, 1], Cb and Cr in [-0.5, 0.5], by the weights of red and blue in Y."""
    r, g, b = np.moveaxis(rgb, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    return y, (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)


def write_yuv(path, y, cb, cr, pix_fmt, matrix, transfer, primaries, color_range) -> Path:
    depth = 10 if "10" in pix_fmt else 8
    scale, (black, luma, chroma) = 2 ** (depth - 8), (0, 255, 255) if color_range == 2 else (16, 219, 224)
    planes = [(y * luma + black) * scale, (cb * chroma + 128) * scale, (cr * chroma + 128) * scale]
    frame = av.VideoFrame(y.shape[1], y.shape[0], pix_fmt)
    for plane, values in zip(frame.planes, planes, strict=True):
        size = np.uint16 if depth > 8 else np.uint8
        rows = np.zeros((plane.height, plane.line_size // size().itemsize), size)
        rows[:, : plane.width] = np.clip(np.round(values), 0, 2**depth - 1)
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width, stream.pix_fmt = *y.shape, pix_fmt
        context = stream.codec_context
        for place in (context, frame):
            place.colorspace, place.color_range = matrix, color_range
            if hasattr(place, "color_trc"):
                place.color_trc, place.color_primaries = transfer, primaries
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_matrix(path: Path, matrix: tuple[float, float, float, float], target: Path, aspect: Fraction | None = None) -> Path:
    """The video of an MP4 again, with a, b, c, d of a display matrix: a point (p, q) is shown at (a p + c q, b p + d q)."""
    with av.open(str(path)) as source, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0], opaque=True)
        if aspect:
            stream.sample_aspect_ratio = aspect
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    content = bytearray(target.read_bytes())
    a, b, c, d = (round(value * 65536) for value in matrix)
    place = content.index(b"tkhd") + 44  # in version 0, which short clips have
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target


def concatenated(path: Path, *parts: Path) -> Path:
    """MPEG-TS files put one behind the other, as recorders and `cat` do: times begin anew in each."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time in seconds and content of each packet of the first stream of a kind ("audio" or "video"), in the order of time."""
    with av.open(str(path)) as container:
        found = [p for p in container.demux(next(s for s in container.streams if s.type == kind)) if p.size]
        return sorted((p.pts * p.time_base, bytes(p)) for p in found)


def times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    return [time for time, _ in packets(path, "video")]


def duration(path: Path) -> float:
    """Seconds that the pictures last."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return float(stream.duration * stream.time_base)


def pixels(path: Path) -> np.ndarray:
    """The decoded frames `(N, H, W, 3)`."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return np.stack([frame.reformat(format="rgb24", dst_colorspace="ITU601").to_ndarray() for frame in frames])
