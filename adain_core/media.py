"""Media files as PyAV reads them: packets in the order of the file, and frames. PyAV is optional, and imported when needed."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import AdainError
from .files import version
from .images import pixel_limit, too_many_pixels

if TYPE_CHECKING:
    import av
    import av.container
    import av.stream

log = logging.getLogger(__name__)

MARGIN = 100_000  # pixels
RESTART = 1  # seconds: where the times of packets go back by more, as in files put one behind the other, they count on


class MediaFile:
    """A part of a file with pictures or sound, by its path or as bytes in memory, which can be read several times.

    `start` and `duration` in seconds select the part; a duration of 0 goes to the end. `offset` is the time in seconds, in
    the file, at which the part begins. Raises FileNotFoundError, or AdainError if the file cannot be read or PyAV is not
    installed.
    """

    def __init__(self, source: str | Path | io.BytesIO, start: float = 0.0, duration: float = 0.0):
        self.source, self.name = source, "the video" if isinstance(source, io.BytesIO) else str(source)
        self.start, self.duration = Fraction(start), Fraction(duration)
        with self.open() as container:
            # a file may start later than at 0, and its sound too
            self.offset = self.start or Fraction(container.start_time or 0, pyav().time_base)

    @property
    def version(self) -> tuple:
        """Identifies this part of this file; differs after a change of the file."""
        if isinstance(self.source, io.BytesIO):
            return hashlib.sha256(self.source.getbuffer()).hexdigest(), self.start, self.duration
        return version(self.source), self.start, self.duration

    def open(self) -> av.container.InputContainer:
        if isinstance(self.source, io.BytesIO):
            self.source.seek(0)
        elif not Path(self.source).is_file():
            raise FileNotFoundError(f"there is no file {self.source}; give an existing one.")
        try:
            # titles may be in any encoding
            source = self.source if isinstance(self.source, io.BytesIO) else url(self.source)
            return pyav().open(source, metadata_errors="replace", options=decoder_limits())
        except pyav().FFmpegError as error:
            raise AdainError(f"{self.name} is not a readable video ({error}); give another file.") from None

    def packets(self, container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[av.Packet]:
        """The packets of these streams from the one that decoding has to begin with; an empty one ends each stream.

        Times count on where they begin anew.
        """
        if self.start:
            container.seek(int(self.start * pyav().time_base))
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
        except pyav().FFmpegError as error:
            raise AdainError(f"{self.name} is damaged and cannot be read to its end ({error}); repair or replace it.") from None

    def decoded(self, packet: av.Packet, decoder: Any) -> Iterable[Any]:  # frames of pictures or of sound
        """The frames of a packet, which may be none; a damaged packet has none, and is warned of.

        Raises TooManyPixels for frames larger than `pixel_limit()`.
        """
        try:
            return decoder.decode(packet)
        except pyav().FFmpegError as error:
            # a decoder that refuses a size is left with it, or without one
            width, height = getattr(decoder, "width", 1), getattr(decoder, "height", 1)
            if width * height > pixel_limit() or (width == 0 and error.errno == errno.EINVAL):
                raise too_many_pixels(f"{self.name} has frames of") from None
            log.warning("%s is damaged at time %s; the damaged packet is left out (%s)", self.name, packet.pts, error)
            return ()

    def within(self, time: int | None, time_base: Fraction) -> bool:
        """Whether a packet or frame of this time belongs to the selected part."""
        if time is None:
            return not self.start
        seconds = time * time_base - self.start
        return not (self.start and seconds < 0) and not (self.duration and seconds >= self.duration)


def url(path: str | Path) -> str:
    """A path as FFmpeg takes it: what stands before a colon in it would be a protocol."""
    return f"file:{path}"


def decoder_limits() -> dict[str, str]:
    """Options that keep decoders from making frames much larger than `pixel_limit()`."""
    limit = pixel_limit()  # decoders add margins to what is shown
    return {} if limit == math.inf else {"max_pixels": str(int(limit * 1.1) + MARGIN)}


def shift(packet: av.Packet, seconds: Fraction) -> None:
    """Move the times of a packet."""
    ticks = round(seconds / packet.time_base)
    if packet.dts is not None:
        packet.dts += ticks
    if packet.pts is not None:
        packet.pts += ticks


def pyav() -> ModuleType:
    """PyAV. Raises AdainError if it is not installed."""
    try:
        import av
    except ImportError:
        raise AdainError("videos need PyAV, which is not installed; run `pip install av`.") from None
    return av
