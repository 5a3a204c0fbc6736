"""Clips: frames are stylised one after the other, in constant memory; an interrupted clip goes on where it stopped."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .affine import coverage
from .background import read_ahead, write_behind
from .color import keep_colors
from .errors import AdainError
from .files import make_folder, read_safetensors, remove_leftovers, replacing, version
from .images import check_size, load_image, opened, resize, save_image
from .networks import Decoder, Encoder
from .progress import part_of, tell
from .statistics import ChannelStatistics, level_tensors, levels_of
from .style import Style, mix_styles
from .stylize import check_decoder, check_options, check_texture, decode, kept_at_once, transfer_part
from .tiling import measure_in_memory
from .video import PART, Frame, Video, VideoWriter, join, save_format
from .working import check_detail, enlarged, reduced, reduced_size

CHUNK = 8  # frames at once on a GPU; on a CPU several at once are not faster
PART_FRAMES = 64  # in each part of a video; finished parts are kept when the rest is interrupted


class PictureSequence:
    """Picture files of one size as the frames of a clip, in the order given.

    Raises AdainError if sizes differ or a file is not a picture.
    """

    multiple = 1  # the sides of resized frames are multiples of this

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        first = _stored_size(paths[0])
        if different := next((path for path in paths if _stored_size(path) != first), None):
            raise AdainError(f"{different} and {paths[0]} differ in size; give frames of one size.")
        self.version = [(str(path), version(path)) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames after the first `skip`; their time is their number."""
        for number, path in enumerate(self.paths[skip:], skip):
            yield Frame(load_image(path), number)


class ClipState:
    """How far a clip is: the numbers of frames `measured` and `done`, the statistics so far (one per level), and the times
    at which its parts begin.

    It is kept in the file `path`. If that file is missing, damaged, or written under another `digest`, the clip starts anew.
    """

    def __init__(self, path: Path, digest: str):
        self.path, self.digest = path, digest
        self.measured, self.done = 0, 0
        self.parts: list[int] = []
        self.statistics: list[ChannelStatistics] = []
        try:
            tensors, metadata = read_safetensors(path)
            measured, done, parts = json.loads(metadata["place"])
            statistics = levels_of(tensors)
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # the file is missing or damaged
            return
        if metadata.get("digest") == digest:
            self.measured, self.done, self.parts, self.statistics = measured, done, parts, statistics

    def save(self) -> None:
        tensors = level_tensors([level.map(Tensor.contiguous) for level in self.statistics])
        place = json.dumps([self.measured, self.done, self.parts])
        with replacing(self.path) as temporary:
            temporary.write_bytes(save(tensors, {"digest": self.digest, "place": place}))


@dataclass(frozen=True)
class ClipStylizer:
    """Stylises clips of any length; memory depends on the frames' size alone.

    `content_statistics` is as in `transfer`; "batch" reads the clip twice, first to measure it. The styles of a `style` with
    a batch are spread evenly along the clip; a frame between two of them gets their mix. `size` is the smallest side in
    pixels that frames are resized to; 0 keeps the size. With `keep_colors` each frame has its content's colours. `texture`
    is as in `decode`; `working_size` and `detail` are as in `stylize`. Raises the errors of `transfer` and
    `decode` before any work.
    """

    encoder: Encoder
    decoder: Decoder
    style: Style
    alpha: float = 1.0
    content_statistics: str = "running"
    half_life: float = 8.0
    tile: int | None = None
    keep_colors: bool = False
    size: int = 0
    texture: float = 0.0
    working_size: int = 0
    detail: float = 0.8

    def __post_init__(self) -> None:
        check_texture(self.texture)
        check_size(self.working_size)
        check_detail(self.detail)
        check_options(self.encoder, self.style, self.alpha, self.content_statistics, self.half_life)
        check_decoder(self.decoder, self.encoder.fingerprint, self.encoder.name)

    def video(self, video: Video, path: str | Path) -> None:
        """Write the stylised video to `path`, with the frame times and the sound of `video`.

        Finished parts are kept in a folder beside it until the video is complete. A new run with the same settings goes on
        after them. Raises AdainError for the ending of a format that is not written.
        """
        save_format(path)
        path = Path(path)
        folder = path.with_name(f"{path.name}.parts")
        state = ClipState(folder / "state.safetensors", self.digest(video))
        if not (state.measured or state.done):
            shutil.rmtree(folder, ignore_errors=True)  # parts made with other settings
            make_folder(folder)

        def part(index: int) -> Path:
            return folder / f"{index:06d}{PART}"

        chunks = self._stylized(video, state)
        for first in chunks:
            begin, size = first[0].time, first[0].picture.shape[2:]
            with (
                replacing(part(len(state.parts))) as temporary,
                VideoWriter(temporary, size, video, path.suffix) as writer,
                write_behind(max(2, self._at_once())) as later,
            ):
                for chunk in itertools.chain([first], chunks):
                    for frame in chunk:
                        later(writer.write, dataclasses.replace(frame, time=frame.time - begin))
                    if state.done % PART_FRAMES == 0:
                        break
            state.parts.append(begin)
            state.save()
        remove_leftovers(path)
        join([(part(index), begin * video.time_base) for index, begin in enumerate(state.parts)], video, path)
        shutil.rmtree(folder)

    def pictures(self, clip: PictureSequence, targets: Sequence[Path], state_path: Path) -> None:
        """Write each stylised frame to its target. The file `state_path` says where to go on, until all are written."""
        state = ClipState(state_path, self.digest(clip))
        remove_leftovers(state_path)

        def write(chunk: Sequence[Frame], state: ClipState) -> None:
            for frame in chunk:
                target = targets[frame.time]
                make_folder(target.parent)
                remove_leftovers(target)
                save_image(frame.picture, target)
            state.save()

        with write_behind() as later:
            for chunk in self._stylized(clip, state):
                later(write, chunk, copy.copy(state))
        state_path.unlink(missing_ok=True)

    def digest(self, clip: Video | PictureSequence) -> str:
        """A hash of everything that the result depends on."""
        settings = (
            clip.version, str(self.encoder.dtype), str(self.decoder.dtype), self.alpha, self.content_statistics, self.half_life,
            self.keep_colors, self.size, self.texture, self.working_size, self.detail,
        )  # fmt: skip
        digest = hashlib.sha256(repr(settings).encode())
        for tensors in (self.encoder.state_dict(), self.decoder.state_dict(), self.style.tensors()):
            for name, tensor in tensors.items():
                digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _stylized(self, clip: Video | PictureSequence, state: ClipState) -> Iterator[list[Frame]]:
        """The frames that are not done yet, in chunks; `state` describes the clip after the last chunk that was yielded."""
        statistics = state.statistics
        if self.content_statistics == "batch":
            if not state.done:
                self._measure(clip, state)
            statistics = [level.map(Tensor.float) for level in state.statistics]
        for chunk in self._chunks(clip, state.done):
            pictures = torch.cat([frame.picture for frame in chunk])
            small = reduced(pictures, self.working_size)
            style = self._styles(state.done, len(chunk), len(clip))
            with part_of(state.done, len(clip)):
                features = transfer_part(
                    self.encoder, small, style, self.alpha, self.content_statistics, self.half_life, self.tile, statistics
                )  # fmt: skip
                result = decode(self.decoder, features, self.tile, self.texture)
            if small is not pictures:
                covered = self.alpha * coverage(style.components, pictures.shape[2:])
                result = enlarged(result[:, :3], pictures, small, covered, self.detail)
            if self.keep_colors:
                result = keep_colors(result, pictures)
            if self.content_statistics == "running":
                statistics = state.statistics = [level[-1] for level in features.content_statistics]
            state.done += len(chunk)
            tell(state.done, len(clip), result)
            yield [dataclasses.replace(frame, picture=picture[None]) for frame, picture in zip(chunk, result, strict=True)]

    def _measure(self, clip: Video | PictureSequence, state: ClipState) -> None:
        """The first pass: pool the statistics of all frames, in double precision since there may be many."""
        for chunk in self._chunks(clip, state.measured):
            with part_of(state.measured, len(clip)):
                pictures = reduced(torch.cat([frame.picture[:, :3] for frame in chunk]), self.working_size)
                measured = measure_in_memory(self.encoder, pictures, tile=self.tile)
            pooled = [level[0].map(Tensor.double).pool() for level in measured]
            before = state.statistics
            state.statistics = [a.merge(b) for a, b in zip(before, pooled, strict=True)] if before else pooled
            state.measured += len(chunk)
            tell(state.measured, len(clip))
            if state.measured % PART_FRAMES == 0:
                state.save()
        state.save()

    def _chunks(self, clip: Video | PictureSequence, skip: int) -> Iterator[list[Frame]]:
        count = self._at_once()
        frames = (dataclasses.replace(f, picture=resize(f.picture, self.size, clip.multiple)) for f in clip.frames(skip))
        # pictures with and without transparency do not fit into one tensor
        for shape, alike in itertools.groupby(read_ahead(frames, max(2, count)), lambda frame: frame.picture.shape):
            kept = kept_at_once(self.encoder, reduced_size(shape[2:], self.working_size))
            while chunk := list(itertools.islice(alike, max(1, min(count, kept)))):
                yield chunk

    def _at_once(self) -> int:
        """How many frames the networks work on together; as many are read ahead and written behind meanwhile."""
        return 1 if next(self.encoder.parameters()).device.type == "cpu" else CHUNK

    def _styles(self, first: int, count: int, total: int) -> Style:
        """The styles of `count` frames from number `first` on, of `total`."""
        last = self.style.batch - 1
        if last == 0:
            return self.style
        places = torch.arange(first, first + count, dtype=torch.float64) * last / max(1, total - 1)
        lower = places.long().clamp(max=last)
        upper, share = (lower + 1).clamp(max=last), places - lower
        if not share.any():
            return self.style.select(lower)
        return mix_styles([self.style.select(lower), self.style.select(upper)], [1 - share, share])


def _stored_size(path: Path) -> tuple[int, int]:
    with opened(path) as picture:
        return picture.size
