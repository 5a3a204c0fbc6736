"""Pixels of every kind come out right, whether they are read whole or in parts; kinds that are not read are named."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from test_images import grey_profile, swapped_profile

from adain_core import large
from adain_core.images import load_image
from adain_core.training.data import decode

GREY = np.linspace(0, 1, 24).reshape(4, 6)
COLOURS = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], -1)


def tiff(
    values: np.ndarray, photometric: int, order: str = "<", bits: int = 0, extra: int | None = None, **tags: tuple
) -> bytes:
    """An uncompressed TIFF of `values` `(H, W)` or `(H, W, samples)`; rows of fewer than 8 bits are packed into bytes."""
    height, width, samples = (*values.shape, 1)[:3]
    bits = bits or values.dtype.itemsize * 8
    if bits in (1, 4, 12):
        digits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2)[..., -bits:]
        pixels = np.packbits(digits.reshape(height, -1), axis=1).tobytes()
    else:
        pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    entries = {
        256: (width,), 257: (height,), 258: (bits,) * samples, 259: (1,), 262: (photometric,), 273: (0,), 277: (samples,),
        278: (height,), 279: (len(pixels),), 339: (kind,) * samples,
    }  # fmt: skip
    entries |= {338: (extra,)} if extra is not None else {}
    entries |= {int(tag[1:]): value for tag, value in tags.items()}
    place = 8 + 2 + 12 * len(entries) + 4
    entries[273] = (
        place + 64 + sum(4 * len(v) for v in entries.values() if isinstance(v, tuple)) + len(tags.get("t34675", b"")),
    )
    rows, data = b"", b""
    for tag, value in sorted(entries.items()):
        content = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}H", *value)
        field = content.ljust(4, b"\0") if len(content) <= 4 else struct.pack(f"{order}I", place + len(data))
        data += b"" if len(content) <= 4 else content + bytes(len(content) % 2)
        rows += (
            struct.pack(
                f"{order}HHI", tag, 7 if isinstance(value, bytes) else 3, len(content) // (1 if isinstance(value, bytes) else 2)
            )
            + field
        )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries)) + rows + bytes(4) + data
    return head.ljust(entries[273][0], b"\0") + pixels


def png(values: np.ndarray, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of `values` `(H, W, samples)` of 8 or 16 bits, of the colour type `kind`."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(values.dtype.newbyteorder(">")).tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, values.dtype.itemsize * 8, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I4s", len(c), k) + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def cut(values: np.ndarray, bits: int) -> np.ndarray:
    """Values in [0, 1] as numbers of so many bits."""
    return (values * (2**bits - 1)).round().astype(np.uint8 if bits <= 8 else np.uint16)


def deep(values: np.ndarray, white: int = 65535) -> np.ndarray:
    return (values * white).round().astype(np.uint16)


def profiled(profile: bytes) -> tuple[bytes, bytes]:
    return b"iCCP", b"a\0\0" + zlib.compress(profile)


def bright(grey: np.ndarray) -> np.ndarray:
    """sRGB's values of greys that are proportional to light."""
    return np.where(grey <= 0.0031308, 12.92 * grey, 1.055 * grey ** (1 / 2.4) - 0.055)


def curved(kind: bytes, content: bytes, space: bytes = b"XYZ ") -> bytes:
    """A grey profile with this curve."""
    profile = bytearray(grey_profile())
    place = profile.index(b"curv")
    profile[place:] = kind + bytes(4) + content
    entry = profile.index(b"kTRC")
    profile[entry + 8 : entry + 12] = struct.pack(">I", 8 + len(content))
    profile[:4], profile[20:24] = struct.pack(">I", len(profile)), space
    return bytes(profile)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def curve(kind: bytes, content: bytes, space: bytes = b"XYZ ") -> bytes:
    """A PNG of greys of 16 bits with this curve in its profile."""
    return png(deep(GREY)[..., None], 0, profiled(curved(kind, content, space)))


BYTES = (GREY * 255).round().astype(np.uint8)
RGB = (COLOURS * 255).round().astype(np.uint8)
ALPHA = np.concatenate([RGB, np.full((4, 6, 1), 128, np.uint8)], -1)
PREMULTIPLIED = np.concatenate([(RGB * (128 / 255)).round().astype(np.uint8), ALPHA[..., 3:]], -1)
INK = np.concatenate([1 - COLOURS, COLOURS[..., :1] * 0], -1)
INDEX = np.arange(24, dtype=np.uint8).reshape(4, 6, 1)
TIFF_PALETTE = tuple(int(v) * 257 for channel in range(3) for v in [*RGB[..., channel].flatten(), *[0] * 232])
SRGB = [round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)]
RED_INK, RED = Image.new("CMYK", (16, 16), (0, 255, 255, 0)), np.tile([1.0, 0, 0], (16, 16, 1))
# a file, and the pixels (H, W) or (H, W, C) it holds
RIGHT = {
    **{
        f"{bits} bits, {'black' if black else 'white'} is 0, {order}": (
            tiff(cut(GREY, bits) if black else 2**bits - 1 - cut(GREY, bits), black, order, bits),
            cut(GREY, bits) / (2**bits - 1),
        )
        for bits in (1, 4, 8, 16) for order in "<>" for black in (0, 1)
    },
    "12 bits": (tiff(cut(GREY, 12), 1, bits=12), GREY),
    "32 bits of which 16 are used": (tiff(deep(GREY).astype(np.uint32), 1), GREY),
    "signed 32 bits of which 16 are used": (tiff(deep(GREY).astype(np.int32), 1), GREY),
    "signed 16 bits": (tiff(deep(GREY / 2.1).astype(np.int16), 1), GREY / 2.1),
    "floats": (tiff(GREY.astype(np.float32), 1), GREY),
    "floats of the other byte order": (tiff(GREY.astype(np.float32), 1, ">"), GREY),
    "floats, white is 0": (tiff((1 - GREY).astype(np.float32), 0), GREY),
    "16 bits with a profile in a TIFF": (tiff(deep(GREY), 1, t34675=grey_profile()), bright(GREY)),
    "16 bits, white is 0, with a profile": (tiff(deep(1 - GREY), 0, t34675=grey_profile()), bright(GREY)),
    "floats with a profile": (tiff(GREY.astype(np.float32), 1, t34675=grey_profile()), bright(GREY)),
    "16 bits in a PNG": (png(deep(GREY)[..., None], 0), GREY),
    "16 bits with a profile in a PNG": (png(deep(GREY)[..., None], 0, profiled(grey_profile())), bright(GREY)),
    "dark 16 bits with a profile in a PNG": (png(deep(GREY / 64)[..., None], 0, profiled(grey_profile())), bright(GREY / 64)),
    "16 bits and alpha with a profile in a PNG": (
        png(deep(np.stack([GREY, GREY * 0 + 0.5], -1)), 4, profiled(grey_profile())),
        np.stack([bright(GREY)] * 3 + [GREY * 0 + 128 / 255], -1)),
    "16 bits and a transparent grey in a PNG": (
        png(deep(GREY)[..., None], 0, (b"tRNS", struct.pack(">H", 0))), np.stack([GREY] * 3 + [(GREY > 0) * 1.0], -1)),
    "16 bits with a profile for colours": (png(deep(GREY)[..., None], 0, profiled(swapped_profile())), GREY),
    "a gamma curve": (curve(b"curv", struct.pack(">IH", 1, 0x240)), bright(GREY ** 2.25)),
    "a table": (curve(b"curv", struct.pack(">I3H", 3, 0, 16384, 65535)),
                bright(np.interp(GREY, [0, 0.5, 1], [0, 16384 / 65535, 1]))),
    "a parametric curve": (curve(b"para", struct.pack(">HH5i", 3, 0, *SRGB)), GREY),
    "a lightness curve": (curve(b"curv", struct.pack(">I", 0), b"Lab "),
                          bright(np.where(GREY > 0.08, ((GREY + 0.16) / 1.16) ** 3, GREY / 9.033))),
    "RGB": (tiff(RGB, 2), RGB / 255),
    "RGB with 16 bits": (tiff(deep(COLOURS), 2), COLOURS),
    "RGB with 16 bits of the other byte order": (tiff(deep(COLOURS), 2, ">"), COLOURS),
    "RGB with 16 bits and a profile": (png(deep(COLOURS), 2, profiled(swapped_profile())), COLOURS[..., [1, 0, 2]]),
    "RGB with 16 bits and a transparent colour": (
        png(deep(COLOURS), 2, (b"tRNS", deep(COLOURS)[0, 0].astype(">u2").tobytes())),
        np.concatenate([COLOURS, (COLOURS != COLOURS[0, 0]).any(-1, keepdims=True) * 1.0], -1)),
    "YCbCr": (tiff(np.array(Image.fromarray(RGB).convert("YCbCr")), 6, t530=(1, 1)), RGB / 255),
    "RGB and alpha": (tiff(ALPHA, 2, extra=2), ALPHA / 255),
    "RGB and something else": (tiff(ALPHA, 2, extra=0), RGB / 255),
    "RGB multiplied by alpha": (tiff(PREMULTIPLIED, 2, extra=1), ALPHA / 255),
    "grey multiplied by alpha": (tiff(PREMULTIPLIED[..., [0, 3]], 1, extra=1), ALPHA[..., [0, 0, 0, 3]] / 255),
    "grey and something else": (tiff(ALPHA[..., [0, 3]], 1, extra=0), BYTES / 255),
    "a palette in a TIFF": (tiff(INDEX[..., 0], 3, t320=TIFF_PALETTE), RGB / 255),
    "a palette in a PNG": (png(INDEX, 3, (b"PLTE", RGB.tobytes())), RGB / 255),
    "a palette and a profile": (
        png(INDEX, 3, profiled(swapped_profile()), (b"PLTE", RGB.tobytes())), COLOURS[..., [1, 0, 2]]),
    "CMYK": (tiff(cut(INK, 8), 5), RGB / 255),
    "CMYK with 16 bits": (tiff(deep(INK), 5), COLOURS),
    "CMYK in a JPEG": (saved(RED_INK, "JPEG", quality=100), RED),
    "CMYK with a profile that does not fit": (tiff(cut(INK, 8), 5, t34675=swapped_profile()), RGB / 255),
    "Lab": (tiff(np.array([[[255, 0, 0], [138, 81, 70]]], np.uint8), 8), np.array([[[1, 1, 1], [1.0, 0, 0]]])),
}  # fmt: skip


def pixels(right: np.ndarray) -> torch.Tensor:
    right = np.stack([right] * 3, -1) if right.ndim == 2 else right
    return torch.from_numpy(np.ascontiguousarray(right)).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize("what", RIGHT)
def test_pixels_are_right(tmp_path, what):
    content, right = RIGHT[what]
    (tmp_path / "picture").write_bytes(content)
    found, right = load_image(tmp_path / "picture"), pixels(right)
    assert found.shape == right.shape
    inexact = {"JPEG": 3.1, "profile": 3.1, "multiplied": 3.1, "Lab": 5.1, "YCbCr": 3.1}  # for rounded numbers and lossy codes
    assert (found - right).abs().max() < max((v for word, v in inexact.items() if word in what), default=1.1) / 255
    shown = right[:, :3] if right.shape[1] == 3 else 1 - right[:, 3:] + right[:, :3] * right[:, 3:]
    assert np.abs(np.array(decode(tmp_path / "picture", 99)) / 255 - shown[0].permute(1, 2, 0).numpy()).max() < 5.1 / 255


@pytest.mark.parametrize("what", [what for what in RIGHT if what != "12 bits"])  # which libvips does not know
def test_pixels_are_the_same_when_read_in_parts(tmp_path, what):
    pytest.importorskip("pyvips")
    (tmp_path / "picture").write_bytes(RIGHT[what][0])
    whole = load_image(tmp_path / "picture")
    with large._opened(tmp_path / "picture") as picture:
        found = picture.unpack(tmp_path)
    stored = torch.from_numpy(np.fromfile(found.path, np.uint8).reshape(found.pixels)).permute(2, 0, 1)[None] / 255
    assert stored.shape == whole.shape
    assert (stored - whole).abs().max() < 1.1 / 255


def test_deep_greys_with_a_profile_keep_their_depth(tmp_path):
    (tmp_path / "picture.png").write_bytes(RIGHT["dark 16 bits with a profile in a PNG"][0])
    assert (load_image(tmp_path / "picture.png")[0, 0].numpy() - bright(GREY / 64)).max() < 0.1 / 255


BEYOND = {
    "negative": np.full((4, 6), -1, np.int16),
    "of more than 16 bits": np.full((4, 6), 1 << 20, np.uint32),
    "of 32 bits": np.full((4, 6), (1 << 32) - 1, np.uint32),
    "above 1": np.full((4, 6), 7, np.float32),
    "not finite": np.full((4, 6), np.nan, np.float32),
}


@pytest.mark.parametrize("what", BEYOND)
def test_deep_greys_beyond_black_and_white_are_refused(tmp_path, what):
    (tmp_path / "picture.tif").write_bytes(tiff(BEYOND[what], 1))
    with pytest.raises(ValueError, match="picture.tif holds values outside its format's usual range; save it with 8 or 16"):
        load_image(tmp_path / "picture.tif")
    pytest.importorskip("pyvips")
    with pytest.raises(ValueError, match="outside"), large._opened(tmp_path / "picture.tif") as picture:
        picture.unpack(tmp_path)


UNREAD = {
    "a TIFF file of RGB pixels as floating-point numbers of 32 bits": tiff(COLOURS.astype(np.float32), 2),
    "a TIFF file of RGB pixels as floating-point numbers of 16 bits": tiff(COLOURS.astype(np.float16), 2, ">"),
    "a TIFF file of grey pixels as floating-point numbers of 64 bits": tiff(GREY, 1),
    "a TIFF file of grey pixels as signed whole numbers of 8 bits": tiff((GREY * 127).astype(np.int8), 1),
    "a TIFF file of RGB pixels as whole numbers of 32 bits": tiff((COLOURS * 65535).astype(np.uint32), 2),
    "a TIFF file of Lab pixels as whole numbers of 16 bits": tiff(deep(COLOURS), 8),
    "a TIFF file of raw pixels as whole numbers of 16 bits": tiff(deep(GREY), 32803),
    "a HEIC file": b"\0\0\0\x18ftypheic" + bytes(50),
    "a JPEG XL file": b"\xff\x0a" + bytes(50),
    "an OpenEXR file": b"v/1\1" + bytes(50),
    "a vector drawing": b"<svg xmlns='http://www.w3.org/2000/svg'/>" + bytes(50),
    "a PDF document": b"%PDF-1.7" + bytes(50),
    "a video": b"\0\0\0\x18ftypisom" + bytes(50),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_kinds_that_are_not_read_are_named_in_one_sentence(tmp_path, kind):
    (tmp_path / "picture.png").write_bytes(UNREAD[kind])
    with pytest.raises(ValueError) as caught:
        load_image(tmp_path / "picture.png")
    assert f"picture.png is {kind}, which is not read; save it" in str(caught.value)
    assert "\n" not in str(caught.value) and "<" not in str(caught.value)
    if kind.startswith("a TIFF") and pytest.importorskip("pyvips"):
        with pytest.raises(ValueError, match=f"picture.png is {kind}"), large._opened(tmp_path / "picture.png"):
            pass
