"""Clips: frames are stylised one after the other, in constant memory; an interrupted clip goes on where it stopped."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .affine import interpolate_styles
from .background import read_ahead, write_behind
from .color import keep_colors
from .crossing import bring, to_device
from .devices import free_memory
from .errors import AdainError
from .files import (
    check_not_sources,
    fingerprint,
    make_folder,
    read_safetensors,
    remove_leftovers,
    replacing,
    version,
    write_file,
    writing,
    writing_folder,
)
from .images import (
    as_floats,
    check_size,
    load_pixels,
    resize,
    rounded,
    save_image,
    size_for,
    upright_size,
    visible_pixels,
    without_hidden,
)
from .networks import Decoder, Encoder
from .picture_video import PictureVideo
from .progress import part_of, tell
from .statistics import ChannelStatistics, level_tensors, levels_of
from .style import Style
from .stylize import check_decoder, check_options, check_texture, decode_part, kept_at_once, transfer_part
from .tiling import measure_in_memory
from .video import PART, Frame, Video, VideoWriter, join
from .working import check_detail, enlarged, reduced_size, shrunk

log = logging.getLogger(__name__)

CPU = torch.device("cpu")
CHUNK = 8  # frames at once on a GPU; on a CPU several at once are not faster
# Of a GPU's free memory for each pixel of the frames that are worked on together: contents, results and what is computed on
# the way take a quarter of it, 4 times 3 numbers.
FRAME_BYTES = 4 * 4 * 3 * torch.float32.itemsize
PART_FRAMES = 64  # in each part of a video, or a few more; finished parts are kept when the rest is interrupted


class PictureSequence:
    """Picture files of one size as the frames of a clip, in the order given.

    In the place of a frame that cannot be read comes the one before it, and `failures` gets its path and error. Raises
    AdainError if sizes differ or none of the files is a picture.
    """

    multiple = 1  # the sides of resized frames are multiples of this

    def __init__(self, paths: Sequence[Path]):
        self.paths, self.failures = paths, dict[Path, Exception]()
        sizes: dict[Path, tuple[int, int]] = {}
        for path in paths:
            try:
                sizes[path] = upright_size(path)
            except (AdainError, OSError) as error:
                self.failures[path] = error
        if not sizes:
            raise next(iter(self.failures.values()))
        first = next(iter(sizes))
        if different := next((path for path, size in sizes.items() if size != sizes[first]), None):
            raise AdainError(f"{different} and {first} differ in size; give frames of one size.")
        self.version = [(path.name, version(path) if path.exists() else None) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self, skip: int = 0) -> Iterator[Frame]:
        """The frames after the first `skip`; their time is their number."""
        picture = None
        for number, path in enumerate(self.paths[skip:], skip):
            try:
                picture = load_pixels(path)
            except (AdainError, OSError) as error:
                self.failures[path] = error
                picture = self._other(number) if picture is None else picture
            yield Frame(picture, number)

    def _other(self, number: int) -> Tensor:
        """The last readable frame before this one, or else the first after it."""
        for path in (*reversed(self.paths[:number]), *self.paths[number + 1 :]):
            with contextlib.suppress(AdainError, OSError):
                return load_pixels(path)
        raise self.failures[self.paths[number]]


Clip = Video | PictureVideo | PictureSequence


class ClipState:
    """How far a clip is: the numbers of frames `measured` and `done`, the statistics so far (one per level), the times
    at which its parts begin, and of the pictures that could not be read the errors, by their numbers as texts.

    It is kept in the file `path`. If that file is missing, damaged, or written under another `digest`, which makes `others`
    True, the clip starts anew.
    """

    def __init__(self, path: Path, digest: str):
        self.path, self.digest = path, digest
        self.measured, self.done, self.others = 0, 0, False
        self.parts: list[int] = []
        self.statistics: list[ChannelStatistics] = []
        self.failed: dict[str, str] = {}
        try:
            tensors, metadata = read_safetensors(path)
            measured, done, parts = json.loads(metadata["place"])
            statistics = levels_of(tensors)
            failed = {str(int(number)): str(error) for number, error in json.loads(metadata.get("failed", "{}")).items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):  # the file is missing or damaged
            return
        self.others = metadata.get("digest") != digest
        if not self.others:
            self.measured, self.done, self.parts, self.statistics, self.failed = measured, done, parts, statistics, failed

    def save(self) -> None:
        tensors = level_tensors([level.map(Tensor.contiguous) for level in self.statistics])
        place = json.dumps([self.measured, self.done, self.parts])
        write_file(self.path, save(tensors, {"digest": self.digest, "place": place, "failed": json.dumps(self.failed)}))


class Parts:
    """The finished parts of the video file `path`, and the `state` of the clip.

    They lie in a folder below PATH.parts, each recipe's in its own. Nothing else in these folders is touched.
    """

    def __init__(self, path: Path, digest: str):
        above = path.with_name(f"{path.name}.parts")
        self.folder = above / digest[:16]
        self.given = above.is_dir() and not any(above.iterdir())  # an empty folder of somebody else's
        self.state = ClipState(self.folder / "state.safetensors", digest)
        if not all(self.file(number).is_file() for number in range(len(self.state.parts))):
            self.state.path.unlink()
            self.state = ClipState(self.state.path, digest)
        if not (self.state.measured or self.state.done):
            if next(above.glob("*/state.safetensors"), None):
                log.warning("%s keeps the parts of runs with other settings, which go on with them", above)
            make_folder(self.folder)

    def file(self, number: int) -> Path:
        return self.folder / f"{number:06d}{PART}"

    def remove(self) -> None:
        """Remove the parts, the state first: without all of its parts it would be wrong."""
        self.state.path.unlink(missing_ok=True)
        for file in (self.state.path, *map(self.file, range(len(self.state.parts)))):
            file.unlink(missing_ok=True)
            remove_leftovers(file)

    def remove_folder(self) -> None:
        """Remove the folder of the parts, and the one above it, if nothing is left in them."""
        with contextlib.suppress(OSError):  # they hold something else
            self.folder.rmdir()
            if not self.given:
                self.folder.parent.rmdir()


@dataclass(frozen=True)
class ClipStylizer:
    """Stylises clips of any length; memory depends on the frames' size alone.

    `content_statistics` is as in `transfer`; "batch" reads the clip twice, first to measure it. The styles of a `style` with
    a batch are spread evenly along the clip; a frame between two of them gets what is between them. The masks of one style are
    of one frame each, the last one of those that follow too. `size` is the smallest side in
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

    def video(self, video: Video | PictureVideo, path: str | Path) -> None:
        """Write the stylised video to `path`, with the frame times and the sound of `video`.

        Finished parts are kept in a folder beside it until the video is complete. A new run with the same settings goes on
        after them; those of other settings are kept apart. Sound that cannot be read or written is left out, with a warning
        before the first frame. Raises BlockingIOError if another process writes `path`, and AdainError for the ending of a
        format that is not written.
        """
        self._check_masks(video)
        path, sound = Path(path), video.sound(path)
        if isinstance(video, Video) and not isinstance(video.file.source, io.BytesIO):
            check_not_sources([path], [video.file.source])
        digest = self.digest(video)
        with writing(path):
            remove_leftovers(path)
            parts = Parts(path, digest)
            try:
                self._write_parts(video, path.suffix, parts)
                join([(parts.file(n), begin * video.time_base) for n, begin in enumerate(parts.state.parts)], sound, path)
                parts.remove()
            finally:
                parts.remove_folder()

    def _write_parts(self, video: Video | PictureVideo, ending: str, parts: Parts) -> None:
        """Write the parts that are missing."""
        state, chunks = parts.state, self._stylized(video, parts.state)
        for first in chunks:
            begin, size, before = first[0].time, first[0].pixels.shape[2:], state.done - len(first)
            with (
                replacing(parts.file(len(state.parts))) as temporary,
                VideoWriter(temporary, size, video, ending) as writer,
                write_behind(2 * self._at_once()) as later,
            ):
                for chunk in itertools.chain([first], chunks):
                    for frame in chunk:
                        later(writer.write, dataclasses.replace(frame, time=frame.time - begin))
                    if state.done - before >= PART_FRAMES:
                        break
            state.parts.append(begin)
            state.save()

    def pictures(self, clip: PictureSequence, targets: Sequence[Path], state_path: Path) -> None:
        """Write each stylised frame to its target. The file `state_path` says where to go on, until all are written.

        Raises AdainError if that file belongs to a clip of other frames or settings, whose targets would be replaced.
        """
        check_not_sources(targets, clip.paths)
        self._check_masks(clip)
        with writing_folder(state_path.parent):
            state = ClipState(state_path, self.digest(clip))
            if state.others:
                raise AdainError(
                    f"{state_path} belongs to an unfinished clip of other frames or settings; give the same ones to go on,"
                    " name another folder, or remove that file to begin anew."
                )
            remove_leftovers(state_path)
            for number, error in state.failed.items():  # of frames that are not read again
                clip.failures.setdefault(clip.paths[int(number)], AdainError(error))
            self._write_pictures(clip, targets, state)
            state_path.unlink(missing_ok=True)

    def _write_pictures(self, clip: PictureSequence, targets: Sequence[Path], state: ClipState) -> None:
        def write(chunk: Sequence[Frame], state: ClipState) -> None:
            if not state.path.parent.is_dir():
                raise FileNotFoundError(f"the folder {state.path.parent} is gone; create it and start again.")
            for frame in chunk:
                target = targets[frame.time]
                make_folder(target.parent)
                remove_leftovers(target)
                save_image(frame.picture, target)
            state.failed = {str(n): str(clip.failures[path]) for n, path in enumerate(clip.paths) if path in clip.failures}
            state.save()

        with write_behind() as later:
            for chunk in self._stylized(clip, state):
                later(write, chunk, copy.copy(state))

    def digest(self, clip: Clip) -> str:
        """A hash of everything that the result depends on."""
        settings = (
            clip.version, str(self.encoder.dtype), str(self.decoder.dtype), self.alpha, self.content_statistics, self.half_life,
            self.keep_colors, self.size, self.texture, self.working_size, self.detail,
        )  # fmt: skip
        return fingerprint(settings, self.encoder.state_dict(), self.decoder.state_dict(), self.style.tensors())

    def _stylized(self, clip: Clip, state: ClipState) -> Iterator[list[Frame]]:
        """The frames that are not done yet, in chunks; `state` describes the clip after the last chunk that was yielded."""
        statistics = state.statistics
        if self.content_statistics == "batch":
            if not state.done:
                self._measure(clip, state)
            device = self.encoder.weights_device
            statistics = [level.map(lambda part: part.float().to(device)) for level in state.statistics]
        for chunk in self._chunks(clip, state.done):
            pictures = self._pictures(chunk, clip)
            small = shrunk(pictures, self.working_size)
            style = self._styles(state.done, len(chunk), len(clip))
            with part_of(state.done, len(clip)):
                features = transfer_part(
                    self.encoder, small, style, self.alpha, self.content_statistics, self.half_life, self.tile, statistics
                )  # fmt: skip
                result, features = decode_part(self.decoder, features, self.tile, self.texture)
                result = enlarged(result, pictures, small, style, self.alpha, self.detail)
            if self.keep_colors:
                result = keep_colors(result, pictures)
            if self.content_statistics == "running":
                statistics = state.statistics = [level[-1] for level in features.content_statistics]
            state.done += len(chunk)
            tell(state.done, len(clip), result)
            arrival = bring(result if result.device.type == "cpu" else rounded(result), CPU)
            pictures = zip(chunk, arrival.tensor, strict=True)
            yield [dataclasses.replace(frame, pixels=picture[None], ready=arrival.arrived) for frame, picture in pictures]

    def _measure(self, clip: Clip, state: ClipState) -> None:
        """The first pass: pool the statistics of all frames, in double precision since there may be many."""
        saved = state.measured
        for chunk in self._chunks(clip, saved):
            with part_of(state.measured, len(clip)):
                pictures = shrunk(self._pictures(chunk, clip), self.working_size)
                measured = measure_in_memory(
                    self.encoder, without_hidden(pictures)[:, :3], tile=self.tile, visible=visible_pixels(pictures)
                )
            pooled = [level.map(Tensor.double).pool() for level in measured]
            before = state.statistics
            state.statistics = [a.merge(b) for a, b in zip(before, pooled, strict=True)] if before else pooled
            state.measured += len(chunk)
            tell(state.measured, len(clip))
            if state.measured - saved >= PART_FRAMES:
                state.save()
                saved = state.measured
        state.save()

    def _chunks(self, clip: Clip, skip: int) -> Iterator[list[Frame]]:
        count, frames, here = self._at_once(), clip.frames(skip), _place(self.encoder)
        if here == CPU:  # by the thread that reads
            frames = (dataclasses.replace(frame, pixels=self._prepared(frame.pixels, clip)) for frame in frames)
        # pictures with and without transparency do not fit into one tensor
        alike = itertools.groupby(read_ahead(frames, 2 * count), lambda frame: (frame.pixels.shape, frame.pixels.dtype))
        for (shape, _), similar in alike:
            most, size = count, shape[2:]
            if here != CPU:
                most = min(most, free_memory(here) // (FRAME_BYTES * size[0] * size[1]))
                size = size_for(size, self.size, clip.multiple) if self.size else size
            most = min(most, kept_at_once(self.encoder, reduced_size(size, self.working_size)))
            while chunk := list(itertools.islice(similar, max(1, most))):
                yield chunk

    def _pictures(self, chunk: Sequence[Frame], clip: Clip) -> Tensor:
        """The pictures of a chunk in [0, 1], at the size that is asked for. 8-bit ones cross to CUDA as such."""
        pixels, here = torch.cat([frame.pixels for frame in chunk]), _place(self.encoder)
        return pixels if here == CPU else self._prepared(to_device(pixels, here), clip)

    def _prepared(self, pixels: Tensor, clip: Clip) -> Tensor:
        return without_hidden(resize(as_floats(pixels), self.size, clip.multiple))

    def _at_once(self) -> int:
        """How many frames the networks work on together; twice as many are read ahead and written behind meanwhile."""
        return 1 if self.encoder.weights_device.type == "cpu" else CHUNK

    def _styles(self, first: int, count: int, total: int) -> Style:
        """The styles of `count` frames from number `first` on, of `total`."""
        last = self.style.batch - 1
        if last == 0:
            return self.style
        if self._has_masks_alone():
            return self.style.select(torch.arange(first, first + count).clamp(max=last))
        # clamped: a damaged video may hold more frames than it says
        places = (torch.arange(first, first + count, dtype=torch.float64) * last / max(1, total - 1)).clamp(max=last)
        lower = places.long().clamp(max=last)
        upper, share = (lower + 1).clamp(max=last), places - lower
        if not share.any():
            return self.style.select(lower)
        return interpolate_styles(self.style.select(lower), self.style.select(upper), share)

    def _has_masks_alone(self) -> bool:
        """Whether nothing but the masks of the style has a batch; they are of frames then, and not spread along the clip."""
        return all(component.unmasked_batch == 1 for component in self.style.components)

    def _check_masks(self, clip: Clip) -> None:
        """Raise AdainError if there are more masks than frames."""
        if self.style.batch > 1 and self._has_masks_alone() and self.style.batch > len(clip):
            raise AdainError(f"{self.style.batch} masks do not fit {len(clip)} frames; give one mask, or one for each frame.")


def _place(encoder: Encoder) -> torch.device:
    """Where frames are prepared and finished: beside the networks on CUDA, else on the CPU."""
    device = encoder.weights_device
    return device if device.type == "cuda" else CPU
