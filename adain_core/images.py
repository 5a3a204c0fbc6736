"""Picture files in and out; sizes."""

from __future__ import annotations

import contextlib
import io
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from .color import luma
from .errors import AdainError
from .files import replacing

log = logging.getLogger(__name__)

SAVE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
LONGEST_SIDES = {"JPEG": 65500, "WEBP": 16383}  # pixels that Pillow can write
PROGRAMS = ("EPS", "WMF")  # formats that Pillow runs by another program or the system: not safe to open
IMAGE_EXTENSIONS = frozenset({*SAVE_FORMATS, ".bmp", ".gif", ".ppm", ".pgm"})


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
    """Open a picture file and read its header; read its pixels inside `damage_named`.

    Raises FileNotFoundError, TooManyPixels, or AdainError if it is not a picture.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    # given a name, Pillow maps uncompressed TIFFs into memory, and scrambles those that are stored rotated
    with open(path, "rb") as stream:
        with damage_named(path):
            file = Image.open(stream)
            if file.format in PROGRAMS:
                raise AdainError(f"{file.format} is not read")
        with file:
            yield file


@contextlib.contextmanager
def damage_named(path: str | Path) -> Iterator[None]:
    """Turn Pillow's errors for a damaged file into an AdainError of one sentence that names the file."""
    try:
        yield
    except Image.DecompressionBombError:
        raise too_many_pixels(f"{path} has") from None
    except Exception as error:  # for damaged files Pillow's decoders raise struct.error, RuntimeError and more
        raise AdainError(f"{path} is not a readable picture, or is damaged ({error or type(error).__name__}).") from None


def count_frames(path: str | Path) -> int:
    """The number of frames of an animation, or of pages of a TIFF; 1 for other files, unreadable ones too."""
    try:
        with opened(path) as file, damage_named(path):
            return getattr(file, "n_frames", 1) if file.format in ANIMATIONS else 1
    except (AdainError, OSError):  # reading it says what is wrong
        return 1


def load_image(path: str | Path) -> Tensor:
    """A picture file as float32 `(1, 3, H, W)`, or `(1, 4, H, W)` if it is not opaque, sRGB in [0, 1].

    Of an animation it is the first frame. EXIF orientation is applied; greyscale, palette, 16-bit, floating-point in [0, 1],
    CMYK and ICC-tagged files are converted. Raises FileNotFoundError, or AdainError if it is not a picture, damaged, or
    larger than `pixel_limit()`.
    """
    image = _read(path)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image, dtype=np.float32) / (1 if image.mode == "F" else 65535)
        if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
            raise AdainError(f"{path} holds values outside its format's usual range; save it with 8 or 16 bits.")
        return torch.from_numpy(grey).expand(1, 3, -1, -1).contiguous()
    return torch.from_numpy(np.array(_to_srgb(image))).permute(2, 0, 1)[None].contiguous().float().div_(255)


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
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


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


def list_images(folder: str | Path, others: frozenset[str] = frozenset()) -> list[Path]:
    """Picture files, and those with the extensions `others`, in `folder` and below, sorted; hidden ones are skipped.

    Raises FileNotFoundError if the folder does not exist, and AdainError if it holds no pictures.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; give an existing one.")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_EXTENSIONS | others
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise AdainError(f"the folder {folder} holds no pictures; give one with PNG, JPEG, WebP or TIFF files.")
    return files


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
    """Pictures `(B, C, H, W)` at the `size` (H, W) in float32, bicubic with antialiasing, clamped to [0, 1]."""
    return F.interpolate(images.float(), size=list(size), mode="bicubic", antialias=True).clamp_(0, 1)


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
    """`images`; raises AdainError unless they are finite floats `(B, 3 or 4, H, W)`. The error calls them `what` pictures."""
    if images.ndim != 4 or images.shape[1] not in (3, 4) or not images.is_floating_point() or 0 in images.shape:
        raise AdainError(
            f"{what} pictures must be floats of shape (B, 3 or 4, H, W), not {images.dtype} of {tuple(images.shape)}."
        )
    if not torch.isfinite(images).all():
        raise AdainError(f"the {what} picture holds NaN or infinite pixels; find the earlier step that makes them.")
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
    """A tensor `(3 or 4, H, W)` or `(1, 3 or 4, H, W)` in [0, 1], clamped, as an 8-bit picture.

    Raises AdainError for other shapes.
    """
    if image.ndim == 4 and len(image) == 1:
        image = image[0]
    if image.ndim != 3 or image.shape[0] not in (3, 4):
        raise AdainError(f"a picture to write must be of shape (3 or 4, H, W), not {tuple(image.shape)}.")
    return Image.fromarray(to_bytes(image))


def to_bytes(image: Tensor) -> np.ndarray:
    """The 8-bit pixels `(H, W, C)` of a picture `(C, H, W)`, clamped to [0, 1]."""
    pixels = (image.detach().float().clamp(0, 1) * 255 + 0.5).to(torch.uint8)
    return pixels.permute(1, 2, 0).cpu().numpy()


def _read(path: str | Path) -> Image.Image:
    """The picture of a file, with all pixels read, upright."""
    with opened(path) as file, damage_named(path):
        profile = file.info.get("icc_profile")
        image = ImageOps.exif_transpose(file)
        image.load()
    if profile:
        image.info["icc_profile"] = profile
    return image


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB, converted by the embedded ICC profile if it is usable; RGBA if the picture is not opaque."""
    # a profile describes neither alpha nor palettes: they are separated first
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = image
    if image.mode in ("1", "LA"):
        colours = image.convert("L")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        colours = image.convert("RGB")
    profile = image.info.get("icc_profile")
    if profile or colours.mode == "LAB":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
            colours = ImageCms.profileToProfile(
                colours, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
        except (ImageCms.PyCMSError, OSError) as error:
            log.warning("a colour profile is ignored, since it does not fit its picture (%s)", error)
    colours = colours.convert("RGB")  # pyright: ignore[reportOptionalMemberAccess]  # None only with `inPlace`
    if alpha is not None and alpha.getextrema() != (255, 255):
        colours.putalpha(alpha)
    return colours
