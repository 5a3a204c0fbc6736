"""The names of kinds of picture files that are not read."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from .errors import AdainError
from .metadata import BITS, PHOTOMETRIC, SAMPLE_FORMAT

BEGINNINGS = {
    b"%PDF": "a PDF document", b"%!PS": "a PostScript file", b"<svg": "a vector drawing", b"<?xml": "a vector drawing",
    b"\xff\x0a": "a JPEG XL file", b"\0\0\0\x0cJXL ": "a JPEG XL file", b"v/1\1": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance file", b"FUJIFILM": "a camera's raw file", b"gimp xcf": "a GIMP file", b"PK\3\4": "an archive",
    b"AT&TFORM": "a DjVu file", b"\x1aE\xdf\xa3": "a video", b"8BPS": "a Photoshop file of a rare kind or damaged",
    b"\xff\xd8\xff": "a JPEG file of a rare kind or damaged",
}  # fmt: skip
BRANDS = {b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIC", b"msf1": "a HEIC", b"avif": "an AVIF", b"avis": "an AVIF"}
COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "Lab", 9: "Lab", 32803: "raw"}
NUMBERS = {1: "whole numbers", 2: "signed whole numbers", 3: "floating-point numbers", 5: "complex numbers"}


def is_read(tags: dict[int, tuple[int, ...]]) -> bool:
    """Whether the numbers of a TIFF file with these tags are read: 1 to 16 bits, Lab of 8 bits, and floating-point grey.

    Greys of 32 bits, and signed ones, are read too, if they stay within 16 bits, as `srgb` sees.
    """
    numbers, bits, colours = tags[SAMPLE_FORMAT] or (1,), max(tags[BITS] or (1,)), (tags[PHOTOMETRIC] or (1,))[0]
    if len(numbers) == 1 and colours in (0, 1) and bits in (16, 32) and (bits, numbers) != (16, (3,)):
        return True
    return set(numbers) <= {1, 4} and bits <= (8 if colours == 8 else 16) and colours in (0, 1, 2, 3, 5, 6, 8)


def unread(path: str | Path, stream: BinaryIO, tags: dict[int, tuple[int, ...]]) -> AdainError:
    """The error of a picture file that is not read, which names its kind if it is known; `tags` are a TIFF file's."""
    if tags:
        bits, numbers = (tags[BITS] or (1,))[0], NUMBERS.get((tags[SAMPLE_FORMAT] or (1,))[0], "unknown numbers")
        colours = COLOURS.get((tags[PHOTOMETRIC] or (-1,))[0], "unknown")
        kind = f"a TIFF file of {colours} pixels as {numbers} of {bits} bits"
    else:
        stream.seek(0)
        start = stream.read(32).lstrip()
        kind = next((name for beginning, name in BEGINNINGS.items() if start.startswith(beginning)), "")
        if start[4:8] == b"ftyp":
            kind = f"{BRANDS[start[8:12]]} file" if start[8:12] in BRANDS else "a video"
    if not kind:
        return AdainError(f"{path} is not a readable picture, or is damaged.")
    return AdainError(f"{path} is {kind}, which is not read; save it with 8 or 16 bits as a PNG, JPEG or TIFF.")
