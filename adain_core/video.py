"""Reading and writing video files with PyAV, an optional dependency that is imported when it is first needed."""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import io
import itertools
import logging
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import AdainError
from .files import replacing, version
from .images import to_pil

if TYPE_CHECKING:
    import av
    import av.container
    import av.stream

log = logging.getLogger(__name__)

# For each container: the encoder and its options. bf=0: frames that refer to later ones would make the decoding times of a
# clip's parts overlap. force-cfr: the file states the average frame rate, not the time base.
H264 = ("libx264", {"crf": "17", "preset": "fast", "bf": "0", "x264-params": "force-cfr=1"})
VP9 = ("libvpx-vp9", {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"})
SAVE_FORMATS = {".mp4": H264, ".m4v": H264, ".mov": H264, ".mkv": H264, ".webm": VP9}
VIDEO_EXTENSIONS = frozenset({*SAVE_FORMATS, ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv"})
PART = ".mp4"  # the format of the parts that are joined at the end: it can hold each of these codecs, and exact times
BT709 = 1  # FFmpeg has the same number for its colour space, primaries and transfer
LIMITED_RANGE = 1  # 8-bit luma from 16 to 235
RESTART = 1  # seconds: where the times of packets go back by more, as in files put one behind the other, they count on


@dataclass(frozen=True)
class Frame:
    """A picture `(1, 3 or 4, H, W)` in [0, 1] of a clip, and the time at which it is shown, in units of the `time_base`."""

    picture: Tensor
    time: int


class Video:
    """A video file, by its path or as bytes in memory, whose frames are read one after the other.

    `start` and `duration` in seconds select a part; a duration of 0 goes to the end. `size` is the upright frames' H and W,
    `aspect` their pixels' width to height, `rate` their average number per second, `time_base` the unit of their times in
    seconds, `step` the usual time between two frames in that unit, `len` their number as the file states it. Raises
    FileNotFoundError, or AdainError if the file is not a video or PyAV is not installed.
    """

    multiple = 2  # resized frames have even sides: some players cannot show colours in full resolution

    def __init__(self, source: str | Path | io.BytesIO, start: float = 0.0, duration: float = 0.0):
        self.source, self.name = source, "the video" if isinstance(source, io.BytesIO) else str(source)
        self.start, self.duration = Fraction(start), Fraction(duration)
        with self._open() as container:
            stream = container.streams.best("video")  # not a cover picture
            self.rate, self.time_base = stream.average_rate or stream.guessed_rate or Fraction(25), stream.time_base
            self.step = max(1, round(1 / self.rate / self.time_base))
            # a file may start later than at 0, and its sound too
            self.offset = self.start or Fraction(container.start_time or 0, _av().time_base)
            self.count = stream.frames
            if not self.count or start or duration:
                self.count = sum(p.size > 0 and self._within(p.pts, p.time_base) for p in self._demux(container, stream))
            aspect = stream.sample_aspect_ratio or Fraction(1)
        with contextlib.closing(self._decoded()) as decoded:
            first, _ = next(decoded, (None, 0))
        if first is None:
            raise AdainError(f"{self.name} holds no frames; give another video, or another part of this one.")
        self.size = tuple(_picture(first).shape[2:])
        self.aspect = 1 / aspect if _orientation(first)[0] else aspect

    @property
    def version(self) -> tuple:
        """Identifies this part of this video; differs after a change of the file."""
        if isinstance(self.source, io.BytesIO):
            return hashlib.sha256(self.source.getbuffer()).hexdigest(), self.start, self.duration
        return version(self.source), self.start, self.duration

    def __len__(self) -> int:
        return self.count

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames after the first `skip`, upright, float32 sRGB `(1, 3, H, W)`; times start at 0 and always increase.

        All have the first frame's size: where the size changes within the file, later frames are scaled, with a warning.
        """
        warned = False
        for frame, time in itertools.islice(self._decoded(), skip, None):
            picture = _picture(frame)
            if tuple(picture.shape[2:]) != self.size:
                if not warned:
                    height, width = self.size
                    log.warning("%s changes its size; later frames are scaled to %dx%d pixels", self.name, width, height)
                    warned = True
                picture = F.interpolate(picture, self.size, mode="bilinear", antialias=True)
            yield Frame(picture, time)

    def _decoded(self) -> Generator[tuple[av.VideoFrame, int], None, None]:
        """The frames as they are stored, and their times."""
        with self._open() as container:
            stream = container.streams.best("video")  # not a cover picture
            stream.thread_type = "AUTO"
            if self.start:
                container.seek(int(self.start / self.time_base), stream=stream)
            last = -self.step
            decoded = (frame for packet in self._demux(container, stream) for frame in self._decode(packet))
            for frame in decoded:
                if frame.pts is not None and not self._within(frame.pts, self.time_base):
                    continue
                time = last + self.step if frame.pts is None else frame.pts - round(self.offset / self.time_base)
                last = max(0, time, last + 1)
                yield frame, last

    def sound(self, output: av.container.OutputContainer) -> Iterator[av.Packet]:
        """Add the sound to `output`, and yield its packets: copied if the file format allows it, else encoded anew."""
        original = self._open()
        streams = {}
        for stream in original.streams.audio:
            count, layout = stream.layout.nb_channels, stream.layout.name
            if layout == f"{count} channels":  # AVI and WMV do not name it; encoders and MP4 need a name
                layout = f"{count}c"
            if _takes(output, stream):
                streams[stream] = output.add_stream_from_template(stream, opaque=True, layout=layout), False
            else:
                streams[stream] = output.add_stream(output.default_audio_codec, rate=48000, layout=layout), True
        return self._packets(original, streams)

    def _packets(self, original: av.container.InputContainer, streams: dict) -> Iterator[av.Packet]:
        with original:
            if streams and self.start:
                original.seek(int(self.start * _av().time_base))
            for packet in self._demux(original, *streams) if streams else ():
                target, encode = streams[packet.stream]
                if encode:
                    frames = [frame for frame in self._decode(packet) if self._within(frame.pts, frame.time_base)]
                    for frame in frames:
                        if frame.pts is not None:
                            frame.pts -= round(self.offset / frame.time_base)
                    # the last packet of a stream is empty: None then ends the encoding
                    end = [] if packet.size or packet.dts is not None else [None]
                    try:
                        packets = [p for frame in [*frames, *end] for p in target.encode(frame)]
                    except _av().FFmpegError as error:
                        raise AdainError(
                            f"the sound of {self.name} cannot be encoded by {target.codec_context.name} ({error.strerror});"
                            " write another format, or remove the sound."
                        ) from None
                elif packet.dts is not None and self._within(packet.pts, packet.time_base):
                    _shift(packet, -self.offset)
                    packet.stream = target
                    packets = [packet]
                else:
                    packets = []
                yield from packets

    def _within(self, time: int | None, time_base: Fraction) -> bool:
        """Whether a packet or frame of this time belongs to the selected part."""
        if time is None:
            return not self.start
        seconds = time * time_base - self.start
        return not (self.start and seconds < 0) and not (self.duration and seconds >= self.duration)

    def _demux(self, container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
        # by stream: what is added to times, the time of the last packet, and from there to the next one
        shifts, steps, last = dict.fromkeys(streams, 0), dict.fromkeys(streams, 0), {}
        try:
            for packet in container.demux(*streams):
                if packet.dts is not None:
                    stream, dts = packet.stream, packet.dts + shifts[packet.stream]
                    if stream in last and dts < last[stream] - RESTART / packet.time_base:
                        shifts[stream] += last[stream] + steps[stream] - dts
                    packet.dts += shifts[stream]
                    if packet.pts is not None:
                        packet.pts += shifts[stream]
                    steps[stream] = packet.duration or packet.dts - last.get(stream, packet.dts)
                    last[stream] = packet.dts
                yield packet
        except _av().FFmpegError as error:
            raise AdainError(f"{self.name} is damaged and cannot be read to its end ({error}); repair or replace it.") from None

    def _decode(self, packet: av.Packet) -> Iterable[Any]:  # frames of pictures or of sound
        try:
            return packet.decode()
        except _av().FFmpegError as error:
            log.warning("%s is damaged at time %s; the damaged packet is left out (%s)", self.name, packet.pts, error)
            return ()

    def _open(self) -> av.container.InputContainer:
        if isinstance(self.source, io.BytesIO):
            self.source.seek(0)
        elif not Path(self.source).is_file():
            raise FileNotFoundError(f"there is no file {self.source}; give an existing one.")
        try:
            # titles may be in any encoding
            source = self.source if isinstance(self.source, io.BytesIO) else str(self.source)
            container = _av().open(source, metadata_errors="replace")
        except _av().FFmpegError as error:
            raise AdainError(f"{self.name} is not a readable video ({error}); give another file.") from None
        if not container.streams.video:
            container.close()
            raise AdainError(f"{self.name} holds no video; give a file with pictures.")
        return container


class VideoWriter:
    """Writes frames to `path` with the time base and rate of `video`, without its sound; use it in a `with` statement.

    `size` is their H and W; if one is odd, colours have the full resolution (4:4:4), since it cannot be halved. `ending`, such
    as ".mp4", selects the encoder. Raises AdainError for another ending, if PyAV lacks the encoder, and at the first frame for
    a size that the encoder refuses.
    """

    def __init__(self, path: Path, size: Sequence[int], video: Video, ending: str):
        codec, options = save_format(f"video{ending}")
        self.container = _av().open(str(path), "w")
        self.stream = self.container.add_stream(codec, rate=video.rate, options=options)
        context = self.stream.codec_context
        context.height, context.width = size
        context.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        context.time_base = video.time_base
        self.step = video.step
        context.sample_aspect_ratio = video.aspect
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED_RANGE

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *error: object) -> None:
        with self.container:
            if error[0] is None:
                self._encode(None)

    def write(self, frame: Frame) -> None:
        picture = _av().VideoFrame.from_image(to_pil(frame.picture[:, :3]))
        picture = picture.reformat(format=self.stream.codec_context.pix_fmt, dst_colorspace="ITU709")
        picture.pts, picture.time_base = frame.time, self.stream.codec_context.time_base
        self._encode(picture)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            packets = self.stream.encode(picture)
        except _av().FFmpegError as error:
            context = self.stream.codec_context
            raise AdainError(
                f"frames of {context.width}x{context.height} pixels cannot be encoded by {context.name} ({error.strerror});"
                " make them smaller, or write another format."
            ) from None
        for packet in packets:
            packet.duration = self.step  # counts for the last frame only; others last until the next frame
            self.container.mux(packet)


def join(parts: Sequence[tuple[Path, Fraction]], video: Video, path: Path) -> None:
    """Join `parts`, each a file and its beginning in seconds, with the sound of `video` to a video file; replaces `path`."""
    with replacing(path) as temporary, _av().open(str(temporary), "w") as output:
        with _av().open(str(parts[0][0])) as first:
            stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
        # packets in the order of their times: otherwise the sound would have to wait in memory for all pictures
        packets = heapq.merge(_joined(parts, stream), video.sound(output), key=_decoded_at)
        for packet in packets:
            output.mux(packet)


def _joined(parts: Sequence[tuple[Path, Fraction]], target: av.VideoStream) -> Iterator[av.Packet]:
    for part, begin in parts:
        with _av().open(str(part)) as container:
            for packet in container.demux(video=0):
                if packet.dts is not None:
                    _shift(packet, begin)
                    packet.stream = target
                    yield packet


def _picture(frame: av.VideoFrame) -> Tensor:
    """The picture of a decoded frame, upright, float32 sRGB `(1, 3, H, W)`."""
    # older PyAV uses the frame's colour space only if a target is given; RGB is the same for every target
    pixels = frame.reformat(format="rgb24", dst_colorspace="ITU601").to_ndarray()
    transposed, across, down = _orientation(frame)
    pixels = (pixels.swapaxes(0, 1) if transposed else pixels)[::down, ::across]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div_(255)


def _orientation(frame: av.VideoFrame) -> tuple[bool, int, int]:
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


def _takes(output: av.container.OutputContainer, stream: av.AudioStream) -> bool:
    """Whether the format of `output` takes the sound unchanged; FFmpeg's lists of codecs promise more than is true."""
    try:
        with _av().open(io.BytesIO(), "w", format=output.format.name) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (ValueError, _av().FFmpegError):
        return False
    return True


def _decoded_at(packet: av.Packet) -> Fraction:
    """The time of decoding in seconds. Each packet has one: those without are not copied, and encoders set it."""
    return (packet.dts or 0) * packet.time_base


def _shift(packet: av.Packet, seconds: Fraction) -> None:
    ticks = round(seconds / packet.time_base)
    if packet.dts is not None:
        packet.dts += ticks
    if packet.pts is not None:
        packet.pts += ticks


def save_format(path: str | Path) -> tuple[str, dict[str, str]]:
    """Encoder and its options for the video file `path`, by its extension.

    Raises AdainError for a format that is not written, and if PyAV is not installed or lacks the encoder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SAVE_FORMATS:
        raise AdainError(f"videos cannot be written as {path}; use one of the extensions {', '.join(SAVE_FORMATS)}.")
    codec, options = SAVE_FORMATS[suffix]
    if codec not in _av().codecs_available:
        raise AdainError(f"this PyAV cannot encode {suffix} ({codec} is missing); use another build or format.")
    return codec, options


def _av() -> ModuleType:
    try:
        import av
    except ImportError:
        raise AdainError("videos need PyAV, which is not installed; run `pip install av`.") from None
    return av
