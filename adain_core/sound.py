"""The sound of a video, copied or encoded anew into the file of another."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Union, cast

from torch import Tensor

from .media import MediaFile, pyav, shift

if TYPE_CHECKING:
    import av
    import av.container

log = logging.getLogger(__name__)

RATE = 48000  # samples a second of what is encoded anew; each of the encoders takes it
ENCODERS = {"webm": "libopus"}  # by the muxer
USUAL_ENCODER = "aac"
_Track = Union["_Copy", "_Encoding"]
LAYOUTS = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}  # that encoders take, and their numbers of channels
NAMES = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}  # FFmpeg's usual ones
BLOCK = 1 << 16  # samples that are made a frame
TRIED = 8  # packets or frames that a trial writes
COPIED = ""  # in the place of a layout


class Sound:
    """The tracks of sound in `file`, None for none, for the muxer "mp4", "mov", "ipod", "matroska" or "webm".

    Each is copied if the muxer takes it, else encoded anew, in other channels if the encoder lacks its own. That is tried
    here, with the first packets of each track. Tracks that cannot be read or written are left out, with a warning.
    """

    def __init__(self, file: MediaFile | None, muxer: str):
        self.file, self.muxer, self.encoder = file, muxer, ENCODERS.get(muxer, USUAL_ENCODER)
        self.layouts = {}
        if file is None:
            return
        with file.open() as container:
            count = len(container.streams.audio)
        for number in range(count):
            layout = self._layout(file, number)
            if layout is not None:
                self.layouts[number] = layout

    def packets(self, output: av.container.OutputContainer) -> Iterator[av.Packet]:
        """Add the tracks to `output`, and yield their packets."""
        if self.file is None:
            return iter(())
        original = self.file.open()
        streams = original.streams.audio
        tracks = {streams[number]: self._track(output, streams[number], layout) for number, layout in self.layouts.items()}
        return self._packets(self.file, original, tracks)

    @staticmethod
    def _packets(file: MediaFile, original: av.container.InputContainer, tracks: dict) -> Iterator[av.Packet]:
        with original:
            last = {}
            for packet in file.packets(original, *tracks) if tracks else ():
                for written in tracks[packet.stream].packets(packet, file):
                    if written.stream not in last or written.dts > last[written.stream]:  # muxers refuse others
                        last[written.stream] = written.dts
                        yield written

    def _track(self, output: av.container.OutputContainer, stream: av.AudioStream, layout: str) -> _Track:
        return _Copy(output, stream) if layout == COPIED else _Encoding(output, self.encoder, layout)

    def _layout(self, file: MediaFile, number: int) -> str | None:
        """The channels that a track is encoded in, COPIED, or None if it is left out."""
        with file.open() as container:
            stream = container.streams.audio[number]
            if stream.codec_context is None:
                return _left_out(file, number, "this PyAV has no decoder for it")
            packets, frames, kinds = [], [], set()
            for packet in file.packets(container, stream):
                if len(packets) < TRIED:
                    packets.append(packet)
                try:
                    found = packet.decode()
                except pyav().FFmpegError:  # what is damaged is warned of when it is written
                    continue
                frames += found[: TRIED - len(frames)]
                kinds.update((frame.sample_rate, frame.layout.name) for frame in found)
            if not frames:
                return _left_out(file, number, "it holds no sound that can be decoded")
            # a copied track has one description for all of its packets
            if len(kinds) == 1 and self._writes(stream, COPIED, packets):
                return COPIED
            count = frames[0].layout.nb_channels
            larger = [layout for layout, channels in LAYOUTS.items() if channels >= count]
            for layout in dict.fromkeys([_name(frames[0].layout), *larger, "5.1", "stereo"]):
                if self._writes(stream, layout, frames):
                    return layout
        return _left_out(file, number, f"{self.encoder} cannot encode it")

    def _writes(self, stream: av.AudioStream, layout: str, first: Sequence[Any]) -> bool:
        """Whether the first packets or frames can be written so. FFmpeg's lists of codecs promise more than is true."""
        try:
            with pyav().open(io.BytesIO(), "w", format=self.muxer) as trial:
                track = self._track(trial, stream, layout)
                for item in first:
                    trial.mux(track.written(item))
                trial.mux(track.written(None))
        except (ValueError, pyav().FFmpegError):
            return False
        return True


def _left_out(file: MediaFile, number: int, reason: str) -> None:
    log.warning("track %d of the sound of %s is left out: %s", number + 1, file.name, reason)


def wave_file(samples: Tensor, rate: int) -> io.BytesIO:
    """A WAV file of samples `(channels, N)` in [-1, 1], `rate` a second. Channels beyond the eighth are left out."""
    samples = samples[:8].detach().cpu().float()
    layout, buffer = NAMES[len(samples)], io.BytesIO()
    with pyav().open(buffer, "w", format="wav", options={"rf64": "auto"}) as container:
        stream = container.add_stream("pcm_f32le", rate=rate, layout=layout)
        for first in range(0, samples.shape[1], BLOCK):
            block = samples[:, first : first + BLOCK].T.reshape(1, -1).numpy()
            frame = pyav().AudioFrame.from_ndarray(block, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer


class _Copy:
    """A track whose packets are kept."""

    def __init__(self, output: av.container.OutputContainer, stream: av.AudioStream):
        self.target = output.add_stream_from_template(stream, opaque=True, layout=_name(stream.layout))

    def packets(self, packet: av.Packet, file: MediaFile) -> list[av.Packet]:
        if not file.within(packet.pts, packet.time_base) or (packet.pts or 0) + (packet.duration or 0) < 0:
            return []  # before 0 lies what was cut away; the packet that ends there, a decoder needs
        shift(packet, -file.offset)
        return self.written(packet)

    def written(self, packet: av.Packet | None) -> list[av.Packet]:
        if packet is None or packet.dts is None:  # an empty one
            return []
        packet.stream = self.target
        return [packet]


class _Encoding:
    """A track that is encoded anew."""

    def __init__(self, output: av.container.OutputContainer, encoder: str, layout: str):
        self.target = cast("av.AudioStream", output.add_stream(encoder, rate=RATE, layout=layout))
        self.resampler, self.kind, self.end = None, (), 0  # the last in samples

    def packets(self, packet: av.Packet, file: MediaFile) -> list[av.Packet]:
        packets = []
        for frame in file.decoded(packet, packet.stream.codec_context):
            if file.within(frame.pts, frame.time_base):
                if frame.pts is not None:
                    frame.pts -= round(file.offset / frame.time_base)
                packets += self.written(frame)
        if packet.dts is None and packet.size == 0:  # the last one
            packets += self.written(None)
        return packets

    def written(self, frame: av.AudioFrame | None) -> list[av.Packet]:
        """The packets that a frame, or the end, makes ready."""
        kind = () if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
        frames = []
        if self.resampler is not None and kind != self.kind:
            frames += self.resampler.resample(None)
            self.resampler = None
        if frame is not None:
            if self.resampler is None:
                self.resampler = pyav().AudioResampler(self.target.format.name, self.target.layout.name, RATE)
                self.kind = kind
            frames += self.resampler.resample(frame)
        packets = []
        for resampled in frames:
            if resampled.pts is None:  # not every file states a time for each frame
                resampled.pts, resampled.time_base = self.end, Fraction(1, RATE)
            self.end = resampled.pts + resampled.samples
            packets += self.target.encode(resampled)
        return packets if frame is not None else packets + self.target.encode(None)


def _name(layout: av.AudioLayout) -> str:
    """A name that encoders and muxers know; AVI and WMV state only a number of channels."""
    count = layout.nb_channels
    if layout.name != f"{count} channels":
        return layout.name
    return NAMES.get(count, f"{count}c")
