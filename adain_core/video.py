"""Reading and writing the pictures of video files."""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .crossing import Wait, nothing
from .errors import AdainError
from .files import replacing
from .frames import BT709, FrameReader, SameSize, orientation
from .images import as_floats, pixel_limit, to_pil, too_many_pixels
from .media import MediaFile, decoder_limits, pyav, shift, url
from .sound import Sound

if TYPE_CHECKING:
    import av
    import av.container
    import av.stream

    from .picture_video import PictureVideo

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoFormat:
    """FFmpeg's names of the muxer of a format and of the encoder of its pictures, with that encoder's options."""

    muxer: str
    encoder: str
    options: dict[str, str]


# bf=0: frames that refer to later ones would make the decoding times of a clip's parts overlap. force-cfr: the file states the
# average frame rate, not the time base.
H264 = "libx264", {"crf": "17", "preset": "fast", "bf": "0", "x264-params": "force-cfr=1"}
VP9 = "libvpx-vp9", {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
SAVE_FORMATS = {
    ".mp4": VideoFormat("mp4", *H264),
    ".m4v": VideoFormat("ipod", *H264),
    ".mov": VideoFormat("mov", *H264),
    ".mkv": VideoFormat("matroska", *H264),
    ".webm": VideoFormat("webm", *VP9),
}
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
VIDEO_EXTENSIONS = frozenset({*SAVE_FORMATS, ".avi", ".flv", ".m2ts", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".wmv"})
PART = ".mp4"  # the format of the parts that are joined at the end: it can hold each of these codecs, and exact times
LIMITED_RANGE = 1  # FFmpeg's: 8-bit luma from 16 to 235


@dataclass(frozen=True)
class Frame:
    """A picture of a clip, and the time at which and for which it is shown, in units of the `time_base`.

    The `pixels` `(1, 3 or 4, H, W)` are uint8, or floats in [0, 1]. They are there once `ready` has returned. A `duration` of
    0 is not known.
    """

    pixels: Tensor
    time: int
    ready: Wait = nothing
    duration: int = 0

    @property
    def picture(self) -> Tensor:
        """The pixels as floats in [0, 1]."""
        self.ready()
        return as_floats(self.pixels)


class Video:
    """A video file, by its path or as bytes in memory, whose frames are read one after the other.

    `start` and `duration` in seconds select a part; a duration of 0 goes to the end. `size` is the upright frames' H and W,
    `aspect` their pixels' width to height, `rate` their average number per second, `time_base` the unit of their times in
    seconds, `step` the usual time between two frames in that unit, `len` their number by the file's packets. Raises
    FileNotFoundError, TooManyPixels for frames larger than `pixel_limit()`, or AdainError if the file is not a video or PyAV is
    not installed.
    """

    multiple = 2  # resized frames have even sides: some players cannot show colours in full resolution

    def __init__(self, source: str | Path | io.BytesIO, start: float = 0.0, duration: float = 0.0):
        self.file = MediaFile(source, start, duration)
        self.name = self.file.name
        with self.file.open() as container:
            stream = self._stream(container)
            if stream.width * stream.height > pixel_limit():
                raise too_many_pixels(f"{self.name} has frames of")
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.time_base = stream.time_base or Fraction(1, 1000)
            self.step = max(1, round(1 / self.rate / self.time_base))
            # what the file states counts frames that were cut away, and may leave out others
            shown = (p for p in self.file.packets(container, stream) if p.size and not p.is_discard)
            self.count = sum(self.file.within(packet.pts, packet.time_base) for packet in shown)
            aspect = stream.sample_aspect_ratio or Fraction(1)
            self.reader = FrameReader(stream, self.name)
        with contextlib.closing(self._decoded()) as decoded:
            first, _ = next(decoded, (None, 0))
        if first is None:
            raise AdainError(f"{self.name} holds no frames; give another video, or another part of this one.")
        self.size = tuple(self.reader.pixels(first).shape[2:])
        self.aspect = 1 / aspect if orientation(first)[0] else aspect

    @property
    def version(self) -> tuple:
        """Identifies this part of this video; differs after a change of the file."""
        return self.file.version

    def __len__(self) -> int:
        return self.count

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames after the first `skip`, upright, sRGB `(1, 3, H, W)`; times start at 0 and always increase.

        All have the first frame's size: where the size changes within the file, later frames are scaled, with a warning.
        """
        to_size = SameSize(self.name, self.size)
        for frame, time in itertools.islice(self._decoded(), skip, None):
            yield Frame(to_size(self.reader.pixels(frame)), time, duration=frame.duration or 0)

    def sound(self, path: str | Path) -> Sound:
        """The sound, to be written into a video file `path`."""
        return Sound(self.file, save_format(path).muxer)

    def _decoded(self) -> Generator[tuple[av.VideoFrame, int], None, None]:
        """The frames as they are stored, and their times."""
        with self.file.open() as container:
            stream = self._stream(container)
            decoder = _decoder(stream)
            decoder.thread_type, decoder.options = "AUTO", decoder_limits()
            last, packets = -self.step, self.file.packets(container, stream)
            for frame in (frame for packet in packets for frame in self.file.decoded(packet, decoder)):
                if frame.width * frame.height > pixel_limit():
                    raise too_many_pixels(f"{self.name} has frames of")
                if frame.pts is not None and not self.file.within(frame.pts, self.time_base):
                    continue
                time = last + self.step if frame.pts is None else frame.pts - round(self.file.offset / self.time_base)
                last = max(0, time, last + 1)
                yield frame, last

    def _stream(self, container: av.container.InputContainer) -> av.VideoStream:
        """The stream of the pictures."""
        streams = container.streams
        if not streams.video:
            raise AdainError(f"{self.name} holds no video; give a file with pictures.")
        best = streams.best("video")  # not a cover picture
        for stream in sorted(streams.video, key=lambda stream: stream != best):
            if stream.codec_context is not None:
                return stream
        raise AdainError(f"{self.name} holds pictures that this PyAV cannot decode; convert it to MP4.")


class VideoWriter:
    """Writes frames to `path` with the time base and rate of `video`, without its sound; use it in a `with` statement.

    `size` is their H and W; if one is odd, colours have the full resolution (4:4:4), since it cannot be halved. `ending`, such
    as ".mp4", selects the encoder. Raises AdainError for another ending, if PyAV lacks the encoder, and at the first frame for
    a size that the encoder refuses.
    """

    def __init__(self, path: Path, size: Sequence[int], video: Video | PictureVideo, ending: str):
        kind = save_format(f"video{ending}")
        self.container = pyav().open(url(path), "w")
        self.stream = self.container.add_stream(kind.encoder, rate=video.rate, options=dict(kind.options))
        context = self.stream.codec_context
        context.height, context.width = size
        context.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        context.time_base = video.time_base
        self.step = self.last = video.step
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
        frame.ready()
        picture = pyav().VideoFrame.from_image(to_pil(frame.pixels[:, :3]))
        picture = picture.reformat(format=self.stream.codec_context.pix_fmt, dst_colorspace="ITU709")
        picture.pts, picture.time_base = frame.time, self.stream.codec_context.time_base
        self.last = frame.duration or self.step
        self._encode(picture)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            packets = self.stream.encode(picture)
        except pyav().FFmpegError as error:
            context = self.stream.codec_context
            raise AdainError(
                f"frames of {context.width}x{context.height} pixels cannot be encoded by {context.name} ({error.strerror});"
                " make them smaller, or write another format."
            ) from None
        for packet in packets:
            packet.duration = self.last  # counts for the last frame only; others last until the next frame
            self.container.mux(packet)


def join(parts: Sequence[tuple[Path, Fraction]], sound: Sound, path: Path) -> None:
    """Join `parts`, each a file and its beginning in seconds, with `sound` to a video file; replaces `path`."""
    with replacing(path) as temporary, pyav().open(url(temporary), "w", format=sound.muxer) as output:
        with pyav().open(url(parts[0][0])) as first:
            stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
        # packets in the order of their times: otherwise the sound would have to wait in memory for all pictures
        packets = heapq.merge(_joined(parts, stream), sound.packets(output), key=_decoded_at)
        for packet in packets:
            output.mux(packet)


def _joined(parts: Sequence[tuple[Path, Fraction]], target: av.VideoStream) -> Iterator[av.Packet]:
    for part, begin in parts:
        with pyav().open(url(part)) as container:
            for packet in container.demux(video=0):
                if packet.dts is not None:
                    shift(packet, begin)
                    packet.stream = target
                    yield packet


def _decoder(stream: av.VideoStream) -> Any:
    """What decodes the stream: of VP8 and VP9, FFmpeg's own decoders leave out what says where they are transparent."""
    context = stream.codec_context
    if context.name in ALPHA_DECODERS and stream.metadata.get("alpha_mode") == "1":
        try:
            return pyav().CodecContext.create(ALPHA_DECODERS[context.name], "r")
        except ValueError:
            log.warning("this PyAV cannot read what is transparent in %s; it is shown as it is stored", context.name)
    return context


def _decoded_at(packet: av.Packet) -> Fraction:
    """The time of decoding in seconds. Each packet has one: those without are not copied, and encoders set it."""
    return (packet.dts or 0) * packet.time_base


def save_format(path: str | Path) -> VideoFormat:
    """The format of the video file `path`, by its extension.

    Raises AdainError for a format that is not written, and if PyAV is not installed or lacks the encoder.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SAVE_FORMATS:
        raise AdainError(f"videos cannot be written as {path}; use one of the extensions {', '.join(SAVE_FORMATS)}.")
    kind = SAVE_FORMATS[suffix]
    if kind.encoder not in pyav().codecs_available:
        raise AdainError(f"this PyAV cannot encode {suffix} ({kind.encoder} is missing); use another build or format.")
    return kind
