"""The names of kinds of picture files that are not read."""

from __future__ import annotations

from typing import BinaryIO

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
    """Whether the numbers of a TIFF file with these tags have a meaning as pixels: 1 to 16 bits, or floating-point grey."""
    numbers, bits = tags[SAMPLE_FORMAT] or (1,), tags[BITS] or (1,)
    grey = tags[PHOTOMETRIC] in ((0,), (1,)) and bits == (32,)
    return (set(numbers) <= {1, 4} and max(bits) <= 16) or (numbers == (3,) and grey)


def unread_kind(stream: BinaryIO, tags: dict[int, tuple[int, ...]]) -> str:
    """What a file is, as "a HEIC file", if it is of a known kind that is not read; else nothing. `tags` are a TIFF file's."""
    if tags:
        bits, numbers = (tags[BITS] or (1,))[0], NUMBERS.get((tags[SAMPLE_FORMAT] or (1,))[0], "unknown numbers")
        colours = COLOURS.get((tags[PHOTOMETRIC] or (-1,))[0], "unknown")
        return f"a TIFF file of {colours} pixels as {numbers} of {bits} bits"
    stream.seek(0)
    start = stream.read(32)
    if start[4:8] == b"ftyp":
        return f"{BRANDS[start[8:12]]} file" if start[8:12] in BRANDS else "a video"
    return next((name for beginning, name in BEGINNINGS.items() if start.lstrip().startswith(beginning)), "")
