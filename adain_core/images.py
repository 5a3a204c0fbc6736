"""Picture files in and out; sizes."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from torch import Tensor

from .color import luma
from .devices import is_out_of_memory
from .errors import AdainError
from .files import TEMPORARY_PREFIX, check_is_file, printable, write_file
from .kinds import is_read, unread
from .metadata import Stripped, without_metadata
from .srgb import srgb

log = logging.getLogger(__name__)

SAVE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_SIDES = {"JPEG": 65500, "WEBP": 16383}  # pixels that Pillow can write
# What brings a picture upright that has this EXIF orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
PROGRAMS = ("EPS", "WMF")  # formats that Pillow runs by another program or the system: not safe to open
LARGEST_PIXEL = 1e6  # far outside of [0, 1], and far below where the sums of float32 overflow
LEAST_ALPHA = 1 / 255  # below it, colours divided by alpha would be of rounding errors
NAMED = 3  # of the files that a folder's list leaves out
ANIMATIONS = ("GIF", "WEBP", "PNG", "TIFF", "AVIF")  # not JPEG, whose further pictures are previews


class TooManyPixels(AdainError):
    """A picture larger than `pixel_limit()`."""


def too_many_pixels(what_has: str) -> TooManyPixels:
    """The error of a file, whose sentence begins with `what_has`, such as "a.png has"."""
    return TooManyPixels(
        f"{what_has} more than {pixel_limit():,.0f} pixels; if you trust it, raise the limit: --max-pixels,"
        " ADAIN_MAX_PIXELS for ComfyUI, or PIL.Image.MAX_IMAGE_PIXELS in Python."
    )


def pixel_limit() -> float:
    """The most pixels of a picture, or of a frame, in memory: Pillow's limit against decompression bombs."""
    return math.inf if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def limit_pixels(most: float) -> None:
    """Set `pixel_limit()` for the whole process."""
    Image.MAX_IMAGE_PIXELS = most / 2  # Pillow warns from half of its limit on


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture file and read its header; read its pixels inside `damage_named`, and turn them by `upright`.

    Its `info` has the EXIF "orientation" and the "icc_profile"; damage in other metadata is not noticed. Raises
    FileNotFoundError, IsADirectoryError, TooManyPixels, or AdainError if it is not a picture.
    """
    check_is_file(path)
    with open(path, "rb") as stream:
        with damage_named(path):
            stripped = without_metadata(stream)
            file = open_stripped(stripped, path)
        with file:
            yield file


def open_stripped(stripped: Stripped, path: str | Path) -> Image.Image:
    """Open a picture file without its metadata by Pillow. Raises Pillow's errors, or AdainError for kinds that are not read."""
    file = None
    if not stripped.tags or is_read(stripped.tags):
        with contextlib.suppress(UnidentifiedImageError):
            file = Image.open(stripped.stream)
    if file is None:
        raise unread(path, stripped.stream, stripped.tags)
    if file.format in PROGRAMS or issubclass(type(file), ImageFile.StubImageFile):
        raise AdainError(f"{path} is not opened, since {file.format} is not read; save it as a PNG, JPEG or TIFF.")
    if stripped.profile is not None:
        file.info["icc_profile"] = stripped.profile
    if isinstance(key := file.info.get("transparency"), tuple) and any(tile.args == "RGB;16B" for tile in file.tile):
        file.info["transparency"] = tuple(value >> 8 for value in key)  # of the transparent colour, too, Pillow keeps 8 bits
    file.info |= {"orientation": stripped.orientation or _orientation(file)}
    file.info |= {"black_white": stripped.black_white, "is_lab": stripped.is_lab}
    return file


@contextlib.contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Turn Pillow's errors for a damaged file into an AdainError of one sentence that names the file.

    Raises MemoryError if the memory ran out, which says nothing of the file, and OSError for a disk that cannot be read.
    """
    try:
        yield
    except AdainError:
        raise
    except Image.DecompressionBombError:
        raise too_many_pixels(f"{path} has") from None
    except Exception as error:  # for damaged files Pillow's decoders raise struct.error, RuntimeError and more
        if is_out_of_memory(error):
            raise MemoryError(f"the memory is too small for {path}.") from None
        if isinstance(error, OSError) and error.errno:  # of the disk, not of the file
            raise
        raise AdainError(f"{path} is not a readable picture, or is damaged ({error or type(error).__name__}).") from None


def count_frames(path: str | Path) -> int:
    """The number of frames of an animation, or of pages of a TIFF; 1 for other files, unreadable ones too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            with Image.open(path, formats=ANIMATIONS) as file:
                return getattr(file, "n_frames", 1)
    except Exception:  # reading it says what is wrong
        return 1


def upright(image: Image.Image) -> Image.Image:
    """An opened picture with its pixels read and turned upright."""
    image.load()
    turn = TURNS.get(image.info["orientation"])
    return image if turn is None else image.transpose(turn)


def upright_size(path: str | Path) -> tuple[int, int]:
    """The width and height of a picture file, upright, by its header. Raises the errors of `opened`."""
    with opened(path) as file:
        return (file.height, file.width) if file.info["orientation"] > 4 else file.size


def load_image(path: str | Path) -> Tensor:
    """A picture file as float32 `(1, 3, H, W)`, or `(1, 4, H, W)` if it is not opaque, sRGB in [0, 1].

    Of an animation it is the first frame. EXIF orientation is applied; greyscale, palette, 16-bit, floating-point in [0, 1],
    CMYK and ICC-tagged files are converted. Raises FileNotFoundError, or AdainError if it is not a picture, damaged, or
    larger than `pixel_limit()`.
    """
    return as_floats(load_pixels(path))


def load_pixels(path: str | Path) -> Tensor:
    """`load_image`, but pictures of 8 bits as uint8."""
    return srgb(_read(path), str(path))[None]


def load_mask(path: str | Path) -> Tensor:
    """A mask file as float32 `(H, W)` in [0, 1]: its alpha channel if it is not opaque, else its luminance."""
    image = load_image(path)
    return image[0, 3] if image.shape[1] == 4 else luma(image)[0, 0].clamp(0, 1)


def save_image(image: Tensor, path: str | Path, quality: int = 95) -> None:
    """Write a picture `(3 or 4, H, W)` or `(1, 3 or 4, H, W)` in [0, 1] as PNG, JPEG, WebP or TIFF by its extension.

    Values are clamped and rounded to 8 bits; JPEG has no alpha and is composited on white. A temporary file
    is written beside `path`, then renamed. Raises AdainError for another extension or a picture too long for it, and
    FileNotFoundError if the folder does not exist.
    """
    kind = save_format(path)
    check_sides(image, path)
    picture = to_pil(on_white(image) if kind == "JPEG" else image)
    options: dict[str, object] = {"quality": quality} if kind in ("JPEG", "WEBP") else {}
    if kind == "JPEG":
        options["subsampling"] = "4:4:4"
    write_picture(picture, path, kind, **options)


def write_picture(picture: Image.Image, path: str | Path, kind: str, **options: object) -> None:
    """Write a picture in Pillow's format `kind`: a temporary file beside `path`, then renamed."""
    buffer = io.BytesIO()  # on a full disk, Pillow would write half a JPEG file without an error
    picture.save(buffer, kind, **options)
    write_file(path, buffer.getbuffer())


def save_format(path: str | Path) -> str:
    """Pillow's name of the format of `path`, by its extension. Raises AdainError for a format that is not written."""
    suffix = Path(path).suffix.lower()
    if suffix not in SAVE_FORMATS:
        raise AdainError(f"pictures cannot be written as {path}; use one of the extensions {', '.join(SAVE_FORMATS)}.")
    return SAVE_FORMATS[suffix]


def check_sides(image: Tensor, path: str | Path) -> None:
    """Raise AdainError if the picture `image` `(..., H, W)` has too long a side for the format of `path`."""
    kind = save_format(path)
    if (side := max(image.shape[-2:])) > (most := LONGEST_SIDES.get(kind, math.inf)):
        raise AdainError(f"{path} would have a side of {side} pixels, {kind} allows at most {most}; write a PNG or a TIFF.")


def image_extensions() -> frozenset[str]:
    """The endings of the picture files that Pillow reads here, such as ".jpg"."""
    readers = {kind: entry[0] for kind, entry in Image.OPEN.items()} if Image.registered_extensions() else {}
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        # Pillow's reader of JPEG reads MPO; of MPEG, which are videos, only the size is read
        if kind == "MPO" or (kind in readers and kind not in (*PROGRAMS, "MPEG") and not _is_stub(readers[kind]))
    )


def list_images(folder: str | Path, others: frozenset[str] = frozenset()) -> list[Path]:
    """Picture files, and those with the extensions `others`, in `folder` and below, sorted; hidden ones are skipped.

    Links to folders are entered, each folder once. A warning counts the files that are left out. Raises FileNotFoundError if
    the folder does not exist, and AdainError if it holds no pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give an existing one.")
    extensions, found, left_out = image_extensions() | others, [], []
    for path in _files_below(folder, left_out):
        is_taken = path.suffix.lower() in extensions
        if path.name.startswith("."):
            if is_taken and TEMPORARY_PREFIX not in path.name:
                left_out.append(path)
        elif is_taken and path.is_file():
            found.append(path)
        else:
            left_out.append(path)
    if not found:
        raise AdainError(f"the folder {folder} holds no pictures; give one with PNG, JPEG, WebP or TIFF files.")
    if left_out:
        names = ", ".join(str(path.relative_to(folder)) for path in sorted(left_out)[:NAMED])
        _warn_once(
            f"left out of the folder {folder}: {len(left_out)} that do not end as pictures do, are hidden or cannot be entered"
            f" ({names}{', ...' if len(left_out) > NAMED else ''})"
        )
    return sorted(found)


@functools.lru_cache
def _warn_once(message: str) -> None:
    log.warning("%s", printable(message))


def _is_stub(reader: object) -> bool:
    """Whether a reader of Pillow's only recognises files, and needs another program's reader for their pixels."""
    return isinstance(reader, type) and issubclass(reader, ImageFile.StubImageFile)


def _files_below(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    """All files below a folder, but for those in hidden folders; folders that cannot be entered are added to `left_out`.

    Links to folders come after all other folders, so that what is inside of `folder` keeps its own place, and loops end.
    """
    entered: set[str] = set()
    links = [folder]
    while links:
        start = links.pop(0)
        for place, folders, files in os.walk(start, onerror=lambda error: left_out.append(Path(error.filename))):
            real = os.path.realpath(place)
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links += [Path(place, name) for name in folders if os.path.islink(os.path.join(place, name))]
            yield from (Path(place, name) for name in files)


def resize(images: Tensor, smallest_side: int, multiple: int = 1) -> Tensor:
    """Resize pictures `(B, C, H, W)` so that the smallest side is `smallest_side` pixels, aspect kept; 0 keeps the size.

    Bicubic with antialiasing, clamped to [0, 1]; new sides are rounded to a multiple of `multiple`. Raises AdainError for a
    negative size, and if the result would have more pixels than `pixel_limit()`.
    """
    check_size(smallest_side)
    size = size_for(images.shape[2:], smallest_side, multiple)
    if smallest_side == 0 or tuple(size) == images.shape[2:]:
        return images
    if size[0] * size[1] > pixel_limit():
        before, after = (f"{width}x{height}" for height, width in (images.shape[2:], size))
        raise AdainError(
            f"a picture of {before} pixels would have {after} with its smallest side at {smallest_side}, more than"
            f" {pixel_limit():,.0f}; give a smaller size, or 0 to keep it."
        )
    return resize_to(images, size)


def size_for(size: Sequence[int], smallest_side: int, multiple: int = 1) -> list[int]:
    """The `size` (H, W) scaled to this smallest side, rounded to a multiple of `multiple`."""
    return [multiple * max(1, round(side * smallest_side / min(size) / multiple)) for side in size]


def resize_to(images: Tensor, size: Sequence[int]) -> Tensor:
    """Pictures `(B, C, H, W)` at the `size` (H, W) in float32, bicubic with antialiasing, clamped to [0, 1].

    Of four channels the last is alpha, as in `resized_by_alpha`.
    """
    return resized_by_alpha(
        images.float(), lambda x: F.interpolate(x, size=list(size), mode="bicubic", antialias=True)
    ).clamp_(0, 1)


def resized_by_alpha(images: Tensor, resized: Callable[[Tensor], Tensor]) -> Tensor:
    """`resized(images)`, where the last of four channels, alpha, weighs the others.

    Colours of transparent pixels, which are hidden, do not reach into visible ones then.
    """
    result = resized(images)
    if images.shape[1] == 4:
        weighted, alpha = resized(images[:, :3] * images[:, 3:]), result[:, 3:]
        result[:, :3] = torch.where(alpha > LEAST_ALPHA, weighted / alpha.clamp(min=LEAST_ALPHA), result[:, :3])
    return result


def visible_pixels(images: Tensor) -> Tensor | None:
    """Which pixels of pictures `(B, 3 or 4, H, W)` alpha does not hide, `(B, 1, H, W)`; None where it is known to hide none.

    Of a picture that is hidden everywhere, all count.
    """
    if images.shape[1] == 3:
        return None
    hidden = images[:, 3:] < LEAST_ALPHA
    if hidden.device.type == "cpu" and not hidden.any():  # a GPU would have to be waited for
        return None
    return ~hidden | hidden.flatten(1).all(1)[:, None, None, None]


def without_hidden(images: Tensor) -> Tensor:
    """Pictures `(B, 3 or 4, H, W)` with the mean of the visible colours where alpha hides them.

    The program that saved a picture may have left anything there.
    """
    visible = visible_pixels(images)
    if visible is None:
        return images
    colors, weights = images[:, :3], visible.float()
    mean = (colors * weights).sum((2, 3), keepdim=True) / weights.sum((2, 3), keepdim=True)
    return torch.cat([torch.where(visible, colors, mean.to(colors)), images[:, 3:]], dim=1)


def camera_move(image: Tensor, frames: int) -> Tensor:
    """A clip `(frames, C, H, W)` of a picture `(1, C, H, W)` in [0, 1], in which the camera evenly moves closer.

    The first frame is the picture, the last shows 0.8 of either side. Values between pixels are bicubic, so that a slow move is
    as smooth as a fast one.
    """
    aim = 0.2  # the camera moves to what lies so far left of and above the middle, of half a side: where subjects are
    clip = image.repeat(frames, 1, 1, 1)
    for index in range(1, frames):
        scale = 0.8 ** (index / (frames - 1))
        shift = -aim * (1 - scale)
        view = image.new_tensor([[[scale, 0, shift], [0, scale, shift]]])
        grid = F.affine_grid(view, [1, *image.shape[1:]], align_corners=False)
        clip[index] = F.grid_sample(image, grid, "bicubic", "border", align_corners=False)[0].clamp(0, 1)
    return clip


def check_size(smallest_side: int) -> None:
    """Raise AdainError for a negative size in pixels; 0 keeps a picture's own size."""
    if smallest_side < 0:
        raise AdainError(f"the size is {smallest_side}; give the smallest side in pixels, or 0 to keep the size.")


def check_pictures(images: Tensor, what: str) -> Tensor:
    """`images`, floats `(B, 3 or 4, H, W)`; the errors call them `what` pictures.

    Raises AdainError for another type or shape, and for pixels that are not finite or beyond `LARGEST_PIXEL`.
    """
    if images.ndim != 4 or images.shape[1] not in (3, 4) or not images.is_floating_point() or 0 in images.shape:
        raise AdainError(
            f"{what} pictures must be floats of shape (B, 3 or 4, H, W), not {images.dtype} of {tuple(images.shape)}."
        )
    least, most = torch.stack(torch.aminmax(images)).cpu().tolist()  # together: a GPU has to be waited for each time
    if not (math.isfinite(least) and math.isfinite(most)):
        raise AdainError(f"the {what} picture holds NaN or infinite pixels; find the earlier step that makes them.")
    if max(-least, most) > LARGEST_PIXEL:
        raise AdainError(f"the {what} picture holds pixels from {least:.3g} to {most:.3g}; they are to be from 0 to 1.")
    return images


def check_mask(mask: Tensor) -> Tensor:
    """A mask as float32 `(B, 1, H, W)`. Raises AdainError unless it is `(H, W)` or `(B, 1, H, W)`, in [0, 1], and not all 0."""
    mask = mask[None, None] if mask.ndim == 2 else mask
    if mask.ndim != 4 or mask.shape[1] != 1 or 0 in mask.shape:
        raise AdainError(f"a mask must be of shape (H, W) or (B, 1, H, W), not {tuple(mask.shape)}.")
    mask = mask.float()
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise AdainError("a mask must hold values from 0 to 1.")
    if not mask.any():
        raise AdainError("the mask is empty (0 everywhere); paint a part of it white.")
    return mask


def resize_mask(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Area-resize a mask `(B, 1, H, W)` to `size`; enlarging repeats pixels."""
    height, width = size
    return F.adaptive_avg_pool2d(mask, (height, width))


def resize_smoothly(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a mask `(B, 1, H, W)` to `size`, bilinear with antialiasing: enlarging shows no steps."""
    return F.interpolate(mask, size=list(size), mode="bilinear", antialias=True)


def thumbnail_jpeg(image: Tensor, side: int = 96) -> bytes:
    """A small JPEG of a picture `(1, 3 or 4, H, W)` in [0, 1], its longest side `side` pixels, on white."""
    picture = to_pil(on_white(image))
    size = [max(1, round(length * side / max(picture.size))) for length in picture.size]
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def on_white(images: Tensor) -> Tensor:
    """Pictures `(..., 3 or 4, H, W)` in [0, 1] composited on white, `(..., 3, H, W)`."""
    if images.shape[-3] != 4:
        return images
    colours, alpha = images.split([3, 1], dim=-3)
    return torch.lerp(torch.ones_like(colours), colours, alpha)


def to_pil(image: Tensor) -> Image.Image:
    """A tensor `(3 or 4, H, W)` or `(1, 3 or 4, H, W)`, uint8 or in [0, 1], clamped, as an 8-bit picture.

    Raises AdainError for other shapes.
    """
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (3, 4):
        raise AdainError(f"a picture to write must be of shape (3 or 4, H, W), not {tuple(image.shape)}.")
    return Image.fromarray(to_bytes(image))


def to_bytes(image: Tensor) -> np.ndarray:
    """The 8-bit pixels `(H, W, C)` of a picture `(C, H, W)`, uint8 or clamped to [0, 1]."""
    return rounded(image).permute(1, 2, 0).cpu().numpy()


def rounded(images: Tensor) -> Tensor:
    """Pictures in [0, 1], clamped, as uint8; these are kept."""
    return images if images.dtype == torch.uint8 else (images.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def as_floats(images: Tensor) -> Tensor:
    """Pictures of uint8 as float32 in [0, 1]; floats are kept."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _read(path: str | Path) -> Image.Image:
    """The picture of a file, with all pixels read, upright."""
    with opened(path) as file, damage_named(path):
        return upright(file)


def _orientation(file: Image.Image) -> int:
    """The EXIF orientation of a picture of a format whose metadata stays in the file; 1 if it cannot be read."""
    try:
        return int(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises almost anything for damaged EXIF
        return 1
