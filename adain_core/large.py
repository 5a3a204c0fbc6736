"""Pictures too large for memory, stylised from file to file; libvips (pyvips) reads and writes them in parts."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .affine import coverage
from .color import keep_colors
from .devices import free_memory
from .errors import AdainError
from .files import FULL, not_written, remove_leftovers, replacing, working_folder
from .images import TooManyPixels, check_size, opened, save_format, to_bytes
from .networks import Decoder, Encoder
from .progress import tell
from .style import Style
from .stylize import decode_into, stylize, transfer
from .tiling import Pictures
from .working import add_detail, check_detail, reduced_size

if TYPE_CHECKING:
    import pyvips

log = logging.getLogger(__name__)

TILE = 1024
BAND = 1 << 21  # pixels of a band of rows, when a picture is reduced or enlarged
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
        self.shape = torch.Size((1, 3, height, width))
        with path.open("ab") as file:
            try:  # reserve the space: a full disk would kill a process that writes to a mapped file
                os.posix_fallocate(file.fileno(), 0, height * width * channels)
            except (AttributeError, OSError) as error:  # not every system and disk can reserve space
                if getattr(error, "errno", None) in FULL:
                    raise
                file.truncate(height * width * channels)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: tuple[slice, slice, slice, slice]) -> Tensor:
        _, _, rows, columns = index
        part = np.array(np.memmap(self.path, np.uint8, "r", shape=self.pixels)[rows, columns, :3])
        return torch.from_numpy(part).permute(2, 0, 1)[None].float().div_(255)

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

    Colours, depths, orientation and alpha are as in `load_image`, except that CMYK without a profile is read with libvips'
    own CMYK profile. Meanwhile the picture and the result lie uncompressed beside `target`, and libvips maps the result
    to write it. A picture that is worked on at a smaller `working_size` is reduced and enlarged in bands of rows, which
    takes little longer than reading and writing it. `tile`: the side of the tiles in pixels; None or 0 means 1024. Raises
    AdainError, before any work, if pyvips is missing, for more than `max_pixels` pixels, too small a disk, a masked style or
    another format than PNG and TIFF; OSError if the picture cannot be read.
    """
    target = Path(target)
    check_size(working_size)
    check_detail(detail)
    picture = check_large(source, target, [style], max_pixels)
    vips, height, width, channels = _vips(), picture.height, picture.width, picture.bands
    remove_leftovers(target)
    try:
        with working_folder(target) as folder:
            picture.rawsave(str(folder / "content"))
            content = RawPicture(folder / "content", height, width, channels)
            result = RawPicture(folder / "result", height, width, 3, content if keep_content_colors else None)
            tile = tile or TILE
            size = reduced_size((height, width), working_size)
            if tuple(size) != (height, width):
                small = torch.cat([resized_rows(content, size, rows) for rows in bands(size[0], height * width)], dim=2)
                stylized = stylize(encoder, decoder, small, style, alpha, tile=tile, texture=texture)
                _enlarge_into(result, stylized, content, small, alpha * coverage(style.components, (1, 1)), detail)
            else:
                decode_into(result, decoder, transfer(encoder, content, style, alpha, tile=tile), tile, texture)
            _write(vips, result, content, target)
    except vips.Error as error:
        if full := next((number for number in FULL if os.strerror(number) in str(error)), 0):
            raise not_written(target, OSError(full, "")) from None
        raise OSError(f"{source} could not be read, or {target} not be written ({' '.join(str(error).split())}).") from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise not_written(target, error) from None


def check_large(
    source: str | Path, target: str | Path, styles: Sequence[Style] = (), max_pixels: int = MAX_PIXELS
) -> pyvips.Image:
    """Open the picture `source` by its header only. Raises the errors of `stylize_file`."""
    vips, target = _vips(), Path(target)
    if save_format(target) not in ("PNG", "TIFF"):
        raise AdainError(f"{source} is too large for the format of {target}; write a PNG or a TIFF.")
    if any(component.mask is not None for style in styles for component in style.components):
        raise AdainError(f"{source} is too large for styles with masks; give styles without masks, or make it smaller.")
    try:
        picture = _srgb(vips, Path(source))
    except vips.Error as error:
        raise OSError(f"{source} could not be read ({' '.join(str(error).split())}).") from None
    _check_room(source, target, picture.height * picture.width, picture.bands, max_pixels)
    return picture


def bands(rows: int, pixels: int) -> Iterator[slice]:
    """Bands of about `BAND` pixels, of a picture of so many `rows` and `pixels`."""
    step = max(1, rows * BAND // pixels)
    return (slice(top, min(top + step, rows)) for top in range(0, rows, step))


def resized_rows(picture: Pictures, size: Sequence[int], rows: slice) -> Tensor:
    """Some `rows` of a picture `(1, 3, H, W)` at another `size`, `(1, 3, n, w)`; as by `resize_to`, but only a part is read."""
    height, width = picture.shape[2:]
    scale = height / size[0]
    top, bottom, reach = rows.start * scale, rows.stop * scale, 2 * max(1, scale) + 1  # of a bicubic filter
    first, last = max(0, int(top - reach)), min(height, int(bottom + reach) + 1)
    part = picture[:, :, first:last, :][0].numpy()
    box = (0, top - first, width, min(bottom, last) - first)
    wanted = size[1], rows.stop - rows.start
    channels = [Image.fromarray(channel).resize(wanted, Image.Resampling.BICUBIC, box) for channel in part]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))[None].clamp_(0, 1)


def _enlarge_into(
    result: RawPicture, stylized: Tensor, content: RawPicture, small: Tensor, coverage: Tensor, detail: float
) -> None:
    """`enlarged`, from file to file."""
    size = content.shape[2:]
    steps = list(bands(size[0], size[0] * size[1]))
    tell(0, len(steps))
    for step, rows in enumerate(steps, 1):
        band = (slice(None), slice(None), rows, slice(None))
        picture, blurred = (resized_rows(part, size, rows) for part in (stylized, small))
        result[band] = add_detail(picture, content[band], blurred, coverage, detail)
        tell(step, len(steps))


def _vips() -> ModuleType:
    try:
        import pyvips
    except (ImportError, OSError):  # OSError if libvips itself is missing
        raise AdainError("a picture of this size needs pyvips; pip install 'adain[large]', or make it smaller.") from None
    pyvips.cache_set_max(0)  # the cache would keep files open, and Windows could not remove them
    return pyvips


def _srgb(vips: ModuleType, path: Path) -> pyvips.Image:
    """The upright picture in 8-bit sRGB with three or four channels, not computed yet."""
    picture = vips.Image.new_from_file(str(path), access="sequential", fail_on="error")
    if picture.format not in ("uchar", "ushort"):
        raise AdainError(f"{path} has pixels of the type {picture.format}; save it with 8 or 16 bits.")
    if picture.get_typeof("orientation") and picture.get("orientation") != 1:
        # a rotation needs rows in any order: libvips unpacks the picture into its own temporary file
        picture = vips.Image.new_from_file(str(path), fail_on="error").autorot()
    if picture.get_typeof("icc-profile-data"):
        try:
            picture = picture.icc_transform("srgb", embedded=True, intent="relative", black_point_compensation=True)
        except vips.Error as error:
            log.warning("a colour profile is ignored, since it does not fit its picture (%s)", error)
    picture = picture.colourspace("srgb")
    return picture[: 4 if picture.hasalpha() else 3].cast("uchar")


def _write(vips: ModuleType, result: RawPicture, content: RawPicture, target: Path) -> None:
    """Write the picture `result` with the transparency of `content`; libvips unmaps both at the end."""
    height, width, channels = content.pixels
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


def _check_room(source: str | Path, target: Path, pixels: int, channels: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise AdainError(
            f"{source} has {pixels:,} pixels, more than {max_pixels:,}; if you trust it, raise max_pixels (--max-pixels)."
        )
    need, free = pixels * (2 * channels + 3), shutil.disk_usage(target.parent).free
    if need > free:
        raise AdainError(
            f"{source} needs {need / 1e9:.1f} GB of disk in {target.parent.resolve()} for temporary files, and only"
            f" {free / 1e9:.1f} are free; free some space, or write to another disk."
        )
