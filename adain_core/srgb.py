"""Decoded pictures of any kind to sRGB, in the same way whoever decoded them."""

from __future__ import annotations

import io
import logging
import struct

import numpy as np
import torch
from PIL import Image, ImageChops, ImageCms
from torch import Tensor

from .errors import AdainError

log = logging.getLogger(__name__)

DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's kinds of grey of more than 8 bits
CURVE_STEPS = 1 << 16  # in the table of a grey profile's curve


def srgb(image: Image.Image, path: str = "the picture", alpha: bool | None = None) -> Tensor:
    """A decoded picture `(3, H, W)`, or `(4, H, W)` if it is not opaque; `alpha` decides that beforehand.

    It is uint8, or of greys of more than 8 bits float32 in [0, 1]. Its `info` may have an "icc_profile", which is applied if it
    fits; for deep greys "black_white", the values of black and white (else 0, and 65535 or 1.0); and "is_lab", where what it
    calls RGB is CIE Lab as TIFF stores it. Errors and warnings call it `path`; raises AdainError for values beyond black and
    white.
    """
    if image.mode in DEEP:
        grey, opacity = _deep_grey(image, path)
        colours = grey[None].expand(3, -1, -1)
    else:
        pixels, mask = _colours(image, path), _alpha(image)
        colours = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
        opacity = None if mask is None else torch.from_numpy(np.array(mask))
    opaque = 1 if colours.is_floating_point() else 255
    if alpha is None:
        alpha = opacity is not None and bool((opacity < opaque).any())
    if not alpha:
        return colours.contiguous()
    return torch.cat([colours, (torch.full_like(colours[0], opaque) if opacity is None else opacity)[None]])


def _deep_grey(image: Image.Image, path: str) -> tuple[Tensor, Tensor | None]:
    """Grey `(H, W)` in [0, 1] and its opacity."""
    values = np.asarray(image, dtype=np.float32)
    black, white = image.info.get("black_white") or (0, 1 if image.mode == "F" else 65535)
    grey = (values - black) / (white - black)
    if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
        raise AdainError(f"{path} holds values outside its format's usual range; save it with 8 or 16 bits.")
    if (profile := image.info.get("icc_profile")) is not None:
        try:
            grey = np.interp(grey, np.linspace(0, 1, CURVE_STEPS), _grey_curve(profile)).astype(np.float32)
        except (ValueError, IndexError, struct.error) as error:
            _ignore_profile(image, path, error)
    transparent = image.info.get("transparency")
    opacity = torch.from_numpy(values != transparent).float() if isinstance(transparent, int) else None
    return torch.from_numpy(grey), opacity


def _alpha(image: Image.Image) -> Image.Image | None:
    if not image.has_transparency_data:
        return None
    return _straight(image).convert("RGBA").getchannel("A")


def _straight(image: Image.Image) -> Image.Image:
    """The picture with its colours not multiplied by its alpha."""
    return image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode]) if image.mode in ("La", "RGBa") else image


def _colours(image: Image.Image, path: str) -> Image.Image:
    """RGB in sRGB, converted by the profile if it is usable."""
    # a profile describes neither alpha nor palettes: they are separated first
    colours = _straight(image)
    profile = image.info.get("icc_profile")
    if image.info.get("is_lab"):
        colours = Image.frombytes("LAB", image.size, image.tobytes())
    elif profile and profile[16:20] == b"GRAY" and image.mode in ("RGB", "RGBA"):  # Pillow's 16-bit greys with alpha
        red, *others = image.split()[:3]
        colours = image if any(ImageChops.difference(red, other).getbbox() for other in others) else red
    elif image.mode in ("1", "LA", "La"):
        colours = colours.convert("L")
    if colours.mode not in ("L", "RGB", "CMYK", "LAB"):
        colours = colours.convert("RGB")
    if profile is not None or colours.mode == "LAB":
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile is not None else ImageCms.createProfile("LAB")
            colours = ImageCms.profileToProfile(
                colours, source, ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB", flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )  # fmt: skip
        except (ImageCms.PyCMSError, OSError) as error:
            _ignore_profile(image, path, error)
    return colours.convert("RGB")  # pyright: ignore[reportOptionalMemberAccess]  # None only with `inPlace`


def _ignore_profile(image: Image.Image, path: str, error: Exception) -> None:
    """Warn, and forget the profile: further parts of a picture share its `info`."""
    del image.info["icc_profile"]
    log.warning("the colour profile of %s is ignored, since it is damaged or does not fit the picture (%s)", path, error)


def _grey_curve(profile: bytes) -> np.ndarray:
    """sRGB's grey, in [0, 1], at `CURVE_STEPS` greys of a profile, evenly from black to white.

    Pillow gives its colour management greys of 8 bits only. Raises ValueError, IndexError or struct.error for other profiles.
    """
    if profile[16:20] != b"GRAY" or profile[20:24] not in (b"XYZ ", b"Lab "):
        raise ValueError("it is not for greys")
    (count,) = struct.unpack_from(">I", profile, 128)
    tags = {profile[132 + 12 * k : 136 + 12 * k]: 136 + 12 * k for k in range(min(count, 1000))}
    if b"kTRC" not in tags:
        raise ValueError("it has no curve")
    place, size = struct.unpack_from(">II", profile, tags[b"kTRC"])
    light = _curve(profile[place : place + size], np.linspace(0, 1, CURVE_STEPS)).clip(0, 1)
    if profile[20:24] == b"Lab ":  # the curve gives lightness
        light = np.where(light > 0.08, ((light + 0.16) / 1.16) ** 3, light / 9.033)
    light = (light - light[0]) / (1 - light[0]) if light[0] < 1 else light  # black stays black, as for colours
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)


def _curve(tag: bytes, x: np.ndarray) -> np.ndarray:
    """The curve of an ICC profile's tag at `x` in [0, 1]."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        points = struct.unpack_from(f">{count}H", tag, 12) if count <= CURVE_STEPS else ()
        if not points:
            return x
        return x ** (points[0] / 256) if count == 1 else np.interp(x, np.linspace(0, 1, count), np.array(points) / 65535)
    if tag[:4] != b"para":
        raise ValueError("its curve is of an unknown kind")
    (kind,) = struct.unpack_from(">H", tag, 8)
    values = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    # (a x + b)^g + e from d on, c x + f below
    g, a, b, c, d, e, f = {0: [*values, 1, 0, 0, 0, 0, 0], 3: [*values, 0, 0], 4: values}.get(kind) or [
        *values[:3], 0, -values[2] / (values[1] or 1), *values[3:] * 2, *([0, 0] if kind == 1 else []),
    ]  # fmt: skip
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f)
