"""Pictures too large for memory, stylised from file to file; libvips (pyvips) reads and writes them in parts."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .affine import coverage
from .color import keep_colors
from .devices import free_memory, is_out_of_memory
from .errors import AdainError
from .files import FULL, check_is_file, check_not_sources, not_written, remove_leftovers, replacing, working_folder
from .images import LEAST_ALPHA, TooManyPixels, as_floats, check_size, opened, resized_by_alpha, save_format, to_bytes
from .kinds import is_read, unread
from .metadata import COMPRESSION, EXTRA, PHOTOMETRIC, without_metadata
from .networks import Decoder, Encoder
from .progress import tell
from .srgb import srgb
from .style import Style
from .stylize import check_options, decode_into, stylize, transfer_part
from .tiling import Pictures
from .working import add_detail, check_detail, reduced_size

if TYPE_CHECKING:
    import pyvips

TILE = 1024
BAND = 1 << 21  # pixels of a band of rows, when a picture is brought to sRGB, reduced or enlarged
# By libvips's names
TYPES = {
    "uchar": np.uint8, "ushort": np.uint16, "short": np.int16, "uint": np.uint32, "int": np.int32, "float": np.float32,
}  # fmt: skip
WITH_ALPHA = {"RGB": "RGBA", "L": "LA", "I;16": "LA"}  # Pillow's modes
# Pillow's modes for libvips's kinds of pixels, without alpha
MODES = {
    ("b-w", "uchar"): "L", ("grey16", "ushort"): "I;16", ("b-w", "float"): "F", ("grey16", "short"): "I",
    ("b-w", "uint"): "I", ("b-w", "int"): "I", ("srgb", "uchar"): "RGB",
    ("rgb16", "ushort"): "RGB", ("cmyk", "uchar"): "CMYK", ("cmyk", "ushort"): "CMYK",
}  # fmt: skip
JPEG = ((6,), (7,))  # compressions of TIFF, out of which libvips brings RGB
MAX_PIXELS = 1_000_000_000
# In memory: the content and its result as float32, and the result once more while it is finished and rounded.
BYTES_PER_PIXEL = 48


class RawPicture:
    """8-bit pixels `(height, width, channels)` in a file, read and written in parts like a tensor `(1, 3, H, W)` in [0, 1].

    Each access maps the file anew, so that only one part of it counts as this process's memory. If `colors_of` is given,
    written parts take its colours, as by `keep_colors`.
    """

    def __init__(self, path: Path, height: int, width: int, channels: int = 3, colors_of: RawPicture | None = None):
        self.path, self.pixels, self.colors_of = path, (height, width, channels), colors_of
        self.shape, self.read = torch.Size((1, 3, height, width)), slice(3)
        with path.open("ab") as file:
            try:  # reserve the space: a full disk would kill a process that writes to a mapped file
                os.posix_fallocate(file.fileno(), 0, height * width * channels)
            except (AttributeError, OSError) as error:  # not every system and disk can reserve space
                if getattr(error, "errno", None) in FULL:
                    raise
                file.truncate(height * width * channels)

    def of_channels(self, first: int, last: int) -> RawPicture:
        """The same file, of which the channels from `first` up to `last` are read."""
        part = copy.copy(self)
        part.read = slice(first, last)
        return part

    def fill_hidden(self) -> RawPicture | None:
        """`without_hidden`, in the file; returns the alpha channel, or None if it hides nothing or all."""
        whole, alpha = self.of_channels(0, 4), self.of_channels(3, 4)
        (height, width), total, count = self.shape[2:], torch.zeros(3, dtype=torch.float64), 0
        for rows in bands(height, height * width):
            band = whole[:, :, rows, :]
            visible = band[:, 3:] >= LEAST_ALPHA
            total += (band[:, :3] * visible).sum((0, 2, 3), dtype=torch.float64)
            count += int(visible.sum())
        if count in (0, height * width):
            return None
        mean = (total / count).float()[:, None, None]
        for rows in bands(height, height * width):
            band = whole[:, :, rows, :]
            band[:, :3] = torch.where(band[:, 3:] >= LEAST_ALPHA, band[:, :3], mean)
            whole[:, :, rows, :] = band
        return alpha

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: tuple[slice, slice, slice, slice]) -> Tensor:
        _, _, rows, columns = index
        part = np.array(np.memmap(self.path, np.uint8, "r", shape=self.pixels)[rows, columns, self.read])
        return as_floats(torch.from_numpy(part).permute(2, 0, 1)[None])

    def __setitem__(self, index: tuple[slice, slice, slice, slice], part: Tensor) -> None:
        _, _, rows, columns = index
        if self.colors_of:
            part = keep_colors(part.cpu(), self.colors_of[index])
        np.memmap(self.path, np.uint8, "r+", shape=self.pixels)[rows, columns] = to_bytes(part[0])


def needs_streaming(path: str | Path) -> bool:
    """Whether a picture file, by its header, is too large for Pillow or for half of the free memory."""
    try:
        with opened(path) as file:
            return file.width * file.height * BYTES_PER_PIXEL > free_memory(torch.device("cpu")) / 2
    except TooManyPixels:
        return True
    except (AdainError, OSError):  # a damaged file raises its error later, when it is read
        return False


def stylize_file(
    encoder: Encoder,
    decoder: Decoder,
    source: str | Path,
    target: str | Path,
    style: Style,
    alpha: float = 1.0,
    tile: int | None = None,
    keep_content_colors: bool = False,
    max_pixels: int = MAX_PIXELS,
    texture: float = 1.0,
    working_size: int = 0,
    detail: float = 0.8,
) -> None:
    """`stylize` from a picture file to a PNG or TIFF file; the memory it needs depends on the tile and the width only.

    Colours, depths, orientation and alpha are as in `load_image`. Meanwhile the picture and the result lie uncompressed beside
    `target`, and libvips maps the result to write it. A picture that is worked on at a smaller `working_size` is reduced and
    enlarged in bands of rows. `tile`: the side of the tiles in pixels; None or 0 means 1024. Raises AdainError, before any
    work, if pyvips is missing, for more than `max_pixels` pixels, too small a disk, a masked style or another format than PNG
    and TIFF; OSError if the picture cannot be read.
    """
    target = Path(target)
    check_size(working_size)
    check_detail(detail)
    check_options(encoder, style, alpha, "image", 8.0)
    check_large(source, target, [style], max_pixels)
    remove_leftovers(target)
    try:
        with working_folder(target) as folder:
            with _opened(source) as picture:
                content = picture.unpack(folder)
            visible = content.fill_hidden() if content.pixels[2] == 4 else None
            result = RawPicture(folder / "result", *content.pixels[:2], 3, content if keep_content_colors else None)
            tile = tile or TILE
            height, width = content.shape[2:]
            size = reduced_size((height, width), working_size)
            if tuple(size) != (height, width):
                whole, steps = content.of_channels(0, content.pixels[2]), bands(size[0], height * width)
                small = torch.cat([resized_rows(whole, size, rows) for rows in steps], dim=2)
                stylized = stylize(encoder, decoder, small, style, alpha, tile=tile, texture=texture)
                _enlarge_into(result, stylized, content, small, alpha * coverage(style.components, (1, 1)), detail)
            else:
                features = transfer_part(encoder, content, style, alpha, "image", 8.0, tile, visible=visible)
                decode_into(result, decoder, features, tile, texture)
            _write(result, content, target)
    except _vips().Error as error:
        if is_out_of_memory(error):
            raise MemoryError(f"the memory is too small for {source}.") from None
        if full := next((number for number in FULL if os.strerror(number) in str(error)), 0):
            raise not_written(target, OSError(full, "")) from None
        raise OSError(f"{source} could not be read, or {target} not be written ({' '.join(str(error).split())}).") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise not_written(target, error) from None


def check_large(source: str | Path, target: str | Path, styles: Sequence[Style] = (), max_pixels: int = MAX_PIXELS) -> None:
    """Open the picture `source` by its header only. Raises the errors of `stylize_file`."""
    target = Path(target)
    if save_format(target) not in ("PNG", "TIFF"):
        raise AdainError(f"{source} is too large for the format of {target}; write a PNG or a TIFF.")
    if any(component.mask is not None for style in styles for component in style.components):
        raise AdainError(f"{source} is too large for styles with masks; give styles without masks, or make it smaller.")
    check_not_sources([target], [source])
    with _opened(source) as picture:
        _check_room(source, target, picture, max_pixels)


def bands(rows: int, pixels: int) -> Iterator[slice]:
    """Bands of about `BAND` pixels, of a picture of so many `rows` and `pixels`."""
    step = max(1, rows * BAND // pixels)
    return (slice(top, min(top + step, rows)) for top in range(0, rows, step))


def resized_rows(picture: Pictures, size: Sequence[int], rows: slice) -> Tensor:
    """Some `rows` of a picture `(1, C, H, W)` at another `size`, `(1, C, n, w)`; as by `resize_to`, but only a part is read."""
    height, width = picture.shape[2:]
    scale = height / size[0]
    top, bottom, reach = rows.start * scale, rows.stop * scale, 2 * max(1, scale) + 1  # of a bicubic filter
    first, last = max(0, int(top - reach)), min(height, int(bottom + reach) + 1)
    box = (0, top - first, last - first, min(bottom, last) - first)
    identity = Image.fromarray(np.eye(last - first, dtype=np.float32))
    weights = np.asarray(identity.resize((last - first, rows.stop - rows.start), Image.Resampling.BICUBIC, box=box))

    def across(lines: np.ndarray) -> np.ndarray:
        channels = [Image.fromarray(channel) for channel in np.ascontiguousarray(lines.transpose(2, 0, 1))]
        shape = size[1], len(lines)
        return np.stack([np.asarray(channel.resize(shape, Image.Resampling.BICUBIC)) for channel in channels], axis=-1)

    def down(lines: np.ndarray) -> np.ndarray:
        return (weights @ lines.reshape(len(lines), -1)).reshape(len(weights), *lines.shape[1:])

    def resized(part: Tensor) -> Tensor:
        lines = part[0].permute(1, 2, 0).numpy()
        # in the order that leaves fewer rows to be resized across, which takes longer
        lines = down(across(lines)) if scale < 1 else across(down(lines))
        return torch.from_numpy(lines).permute(2, 0, 1)[None]

    return resized_by_alpha(picture[:, :, first:last, :], resized).clamp_(0, 1)


def _enlarge_into(
    result: RawPicture, stylized: Tensor, content: RawPicture, small: Tensor, coverage: Tensor, detail: float
) -> None:
    """`enlarged`, from file to file."""
    size = content.shape[2:]
    steps = list(bands(size[0], size[0] * size[1]))
    tell(0, len(steps))
    for step, rows in enumerate(steps, 1):
        band = (slice(None), slice(None), rows, slice(None))
        picture, blurred = (resized_rows(part[:, :3], size, rows) for part in (stylized, small))
        result[band] = add_detail(picture, content[band], blurred, coverage, detail)
        tell(step, len(steps))


def _vips() -> ModuleType:
    try:
        import pyvips
    except (ImportError, OSError):  # OSError if libvips itself is missing
        raise AdainError("a picture of this size needs pyvips; pip install 'adain[large]', or make it smaller.") from None
    pyvips.cache_set_max(0)  # the cache would keep files open, and Windows could not remove them
    return pyvips


@dataclass(frozen=True)
class _Picture:
    """A picture file opened by libvips: its pixels as they are stored, Pillow's `mode` for these, and what `srgb` uses."""

    path: Path
    stored: pyvips.Image
    orientation: int
    mode: str
    info: dict[str | tuple[int, int], Any]

    @property
    def channels(self) -> int:
        return 4 if self.mode in ("LA", "RGBA") else 3

    def unpack(self, folder: Path) -> RawPicture:
        """Write the upright picture in 8-bit sRGB to a file in the folder, in parts."""
        vips, width, height = _vips(), self.stored.width, self.stored.height
        unpacked = RawPicture(folder / "stored", height, width, self.channels)
        region = vips.Region.new(self.stored)
        for rows in bands(height, height * width):
            count = rows.stop - rows.start
            values = np.frombuffer(region.fetch(0, rows.start, width, count), TYPES[str(self.stored.format)])
            picture = self._pillow(values.reshape(count, width, self.stored.bands))
            part = srgb(picture, str(self.path), alpha=self.channels == 4)
            unpacked[:, :, rows, :] = part[None]
        if self.orientation == 1:
            return unpacked
        turned = vips.Image.rawload(str(unpacked.path), width, height, self.channels).copy()
        turned.set_type(vips.GValue.gint_type, "orientation", self.orientation)
        turned = turned.autorot()
        turned.rawsave(str(folder / "content"))
        return RawPicture(folder / "content", turned.height, turned.width, self.channels)

    def _pillow(self, values: np.ndarray) -> Image.Image:
        """Rows `(H, W, bands)` as Pillow decodes them: all but greys without alpha with 8 bits."""
        if values.dtype == np.uint16 and self.mode != "I;16":
            values = (values >> 8).astype(np.uint8)
        elif self.mode == "I":
            values = values.astype(np.int32)
        height, width, _ = values.shape
        pixels = np.ascontiguousarray(values[..., : len(Image.new(self.mode, (1, 1)).getbands())])
        image = Image.frombytes(self.mode, (width, height), pixels.tobytes())
        image.info = self.info
        return image


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[_Picture]:
    """Open a picture file by its header. Raises OSError, or AdainError for kinds that are not read in parts."""
    vips = _vips()
    check_is_file(path)
    with open(path, "rb") as stream:
        stripped = without_metadata(stream)
        if stripped.tags and not is_read(stripped.tags):
            raise unread(path, stream, stripped.tags)
        source = vips.SourceCustom()
        source.on_read(stripped.stream.read)
        source.on_seek(stripped.stream.seek)
        try:
            stored = vips.Image.new_from_source(source, "", access="sequential", fail_on="error")
        except vips.Error as error:
            if "known format" in str(error):
                advice = "save it as a PNG, JPEG or TIFF"
                raise AdainError(
                    f"{path} is too large to be read whole, and its format is not read in parts; {advice}."
                ) from None
            raise OSError(f"{path} could not be read in parts ({' '.join(str(error).split())}).") from None
        mode = MODES.get((stored.interpretation, stored.format), "")
        if stripped.tags.get(PHOTOMETRIC) == (6,) and stripped.tags[COMPRESSION] not in JPEG:
            mode = "YCbCr"  # which libvips calls RGB
        if mode in WITH_ALPHA and stored.bands > len(Image.new(mode, (1, 1)).getbands()):
            mode = (
                mode if stripped.tags.get(EXTRA, ())[:1] == (0,) else WITH_ALPHA[mode]
            )  # a TIFF's further values may be anything
        if not mode:
            kind = f"{stored.interpretation} pixels of the type {stored.format}"
            raise AdainError(f"{path} holds {kind}, which are not read; save it with 8 or 16 bits as a PNG or TIFF.")
        profile = stripped.profile
        if profile is None and stored.get_typeof("icc-profile-data"):
            profile = stored.get("icc-profile-data")
        orientation = stripped.orientation
        if not orientation and stored.get_typeof("orientation"):
            orientation = stored.get("orientation")
        info: dict[str | tuple[int, int], Any] = {
            "icc_profile": profile,
            "black_white": stripped.black_white,
            "is_lab": stripped.is_lab,
        }
        yield _Picture(Path(path), stored, orientation or 1, mode, info)


def _write(result: RawPicture, content: RawPicture, target: Path) -> None:
    """Write the picture `result` with the transparency of `content`; libvips unmaps both at the end."""
    vips, (height, width, channels) = _vips(), content.pixels
    finished = vips.Image.rawload(str(result.path), width, height, 3)
    if channels == 4:
        transparency = vips.Image.rawload(str(content.path), width, height, 4)[3]
        finished = finished.bandjoin(transparency) if transparency.min() < 255 else finished
    finished = finished.copy(interpretation="srgb")
    with replacing(target) as temporary:
        if save_format(target) == "PNG":
            finished.pngsave(str(temporary))
        else:
            large = height * width * channels > 2**31  # well below the 4 GiB of plain TIFF
            finished.tiffsave(str(temporary), compression="deflate", predictor="horizontal", tile=True, bigtiff=large)


def _check_room(source: str | Path, target: Path, picture: _Picture, max_pixels: int) -> None:
    pixels = picture.stored.width * picture.stored.height
    if pixels > max_pixels:
        raise AdainError(
            f"{source} has {pixels:,} pixels, more than {max_pixels:,}; if you trust it, raise max_pixels (--max-pixels)."
        )
    folder = next(folder for folder in target.resolve().parents if folder.is_dir())  # its own may still have to be made
    need, free = pixels * (2 * picture.channels + 3), shutil.disk_usage(folder).free
    if need > free:
        raise AdainError(
            f"{source} needs {need / 1e9:.1f} GB of disk in {folder} for temporary files, and only"
            f" {free / 1e9:.1f} are free; free some space, or write to another disk."
        )
