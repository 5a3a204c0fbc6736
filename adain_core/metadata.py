"""Picture files without what surrounds their pixels.

Texts, times, thumbnails and EXIF are often damaged in files whose pixels are whole, and Pillow and libvips judge each of them
in their own way. `without_metadata` takes the orientation and the colour profile out of a PNG, JPEG, WebP or TIFF file, and
leaves only what its pixels need for the decoder.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

LARGEST = 64 << 20  # bytes of a profile or EXIF block that is unpacked; printers' profiles have a few million
# TIFF's and EXIF's tags
BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, EXTRA, SAMPLE_FORMAT, PROFILE = 258, 259, 262, 274, 277, 338, 339, 34675
# The tags of a TIFF file that its pixels depend on: layout, number types, compression, palette, YCbCr
PIXEL_TAGS = frozenset(
    {256, 257, BITS, COMPRESSION, PHOTOMETRIC, 266, 273, *range(SAMPLES, 280), 284, 292, 293, 317, 320, *range(322, 326)}
    | {332, 334, 336, EXTRA, SAMPLE_FORMAT, 340, 341, 347, *range(512, 522), *range(529, 533), 50674}
)
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q"}  # struct's letters of TIFF's types
SIZES = {**{kind: struct.calcsize(letter) for kind, letter in INTEGERS.items()}, 2: 1, 7: 1}


@dataclass(frozen=True)
class Stripped:
    """A picture file for a decoder, `stream`; the EXIF `orientation`, 1 to 8, and the ICC `profile` that it had.

    `orientation` is 0, and `profile` None, where the decoder itself has to find them. An empty profile is one that was damaged.
    `tags` are the numbers of a TIFF file's tags that say what its pixels are, by tag; `black_white` are the values of black and
    white in one with greys of more than 8 bits, and in one that `is_lab` what decoders take for RGB is Lab.
    """

    stream: BinaryIO
    orientation: int = 0
    profile: bytes | None = None
    tags: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    black_white: tuple[float, float] | None = None
    is_lab: bool = False


def without_metadata(stream: BinaryIO) -> Stripped:
    """The picture file without its metadata; a file that is of another format, or not as its format says, stays as it is."""
    start = stream.read(12)
    strip = None
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        strip = _png
    elif start.startswith(b"\xff\xd8\xff"):
        strip = _jpeg
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        strip = _webp
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        strip = _tiff
    with contextlib.suppress(ValueError, IndexError, struct.error):
        if strip:
            stream.seek(0)
            return strip(stream)
    whole = _Pieces(stream)
    whole.add((0, stream.seek(0, io.SEEK_END)))
    return Stripped(whole.buffered())


class _Pieces(io.RawIOBase):
    """Parts of a file, and bytes, one behind the other as a file of its own."""

    def __init__(self, stream: BinaryIO):
        super().__init__()
        self.stream, self.starts, self.pieces = stream, [0], []
        self.place = 0

    def add(self, piece: bytes | tuple[int, int]) -> None:
        """Append bytes, or the part of the file at an offset with a length."""
        length = len(piece) if isinstance(piece, bytes) else piece[1]
        if length > 0:
            self.pieces.append(piece)
            self.starts.append(self.starts[-1] + length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.starts[-1]}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        index = bisect.bisect_right(self.starts, self.place) - 1
        if not 0 <= index < len(self.pieces):
            return 0
        piece, skip = self.pieces[index], self.place - self.starts[index]
        length = min(len(buffer), self.starts[index + 1] - self.place)
        if isinstance(piece, bytes):
            part = piece[skip : skip + length]
        else:
            self.stream.seek(piece[0] + skip)
            part = self.stream.read(length)
        buffer[: len(part)] = part
        self.place += len(part)
        return len(part)

    def buffered(self) -> BinaryIO:
        return _Reader(self, 1 << 16)


class _Reader(io.BufferedReader):
    """Reads `_Pieces`; reserves no more memory than there is left to read, whatever a damaged length asks for."""

    raw: _Pieces

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self.raw.starts[-1] - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _png(stream: BinaryIO) -> Stripped:
    pieces, orientation, profile, palette = _Pieces(stream), 0, None, 0
    pieces.add(stream.read(8))
    place, end, colours = 8, stream.seek(0, io.SEEK_END), -1
    while place + 8 <= end:
        stream.seek(place)
        length, kind = struct.unpack(">I4s", stream.read(8))
        whole = place + 12 + length <= end
        if kind == b"IHDR":
            colours = stream.read(10)[-1]
        if kind == b"PLTE":
            palette = length // 3
        if kind == b"IEND":
            break
        if kind in (b"IHDR", b"PLTE", b"IDAT") or (kind == b"tRNS" and _fits(length, colours, palette)):
            left = min(length, end - place - 8)  # of a file that is cut off
            pieces.add(struct.pack(">I4s", left, kind))
            pieces.add((place + 8, min(left + 4, end - place - 8)))
            pieces.add(bytes(0 if whole else 4))
        elif kind == b"iCCP" and whole and profile is None:
            _, _, packed = stream.read(length).partition(b"\0")
            profile = _unpacked(packed[1:]) if packed[:1] == b"\0" else b""
        elif kind in (b"eXIf", b"tEXt", b"zTXt", b"iTXt") and whole and length <= LARGEST and not orientation:
            orientation = _of_chunk(kind, stream.read(length))
        place += 12 + length
    pieces.add(struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND")))
    return Stripped(pieces.buffered(), orientation or 1, profile)


def _fits(length: int, colours: int, palette: int) -> bool:
    """Whether a transparency of this length belongs to pixels of the colour type; PNG's library ignores others."""
    return {0: length == 2, 2: length == 6, 3: 0 < length <= palette}.get(colours, False)


def _of_chunk(kind: bytes, content: bytes) -> int:
    """The orientation in a PNG's EXIF chunk, or in one of the texts that programs write in its place; 0 for none."""
    if kind == b"eXIf":
        return orientation_of(content)
    keyword, _, text = content.partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp"):
        return 0
    packed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if kind == b"zTXt":
        text = text[1:]
    elif kind == b"iTXt":
        text = text[2:].split(b"\0", 2)[-1]
    text = _unpacked(text) if packed else text
    if keyword == b"XML:com.adobe.xmp":
        return _of_xmp(text)
    lines = text.split(b"\n", 3)  # an empty line, the word exif, the length, and the content in hexadecimal digits
    try:
        return orientation_of(bytes.fromhex(lines[-1].decode("ascii")))
    except ValueError:
        return 0


def _jpeg(stream: BinaryIO) -> Stripped:
    pieces, orientations, parts, total = _Pieces(stream), {"exif": 0, "xmp": 0}, {}, 0
    pieces.add(stream.read(2))
    for marker, place, length in _segments(stream):
        if marker == 0xDA:  # the pixels, up to the end of the file
            pieces.add((place, stream.seek(0, io.SEEK_END) - place))
            break
        start = stream.read(min(length - 2, 35))
        # Adobe's and JFIF's segments say how the colours are stored; those shorter than the standards', which libjpeg ignores,
        # are an error to Pillow
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE) or (
            length >= 14 and (marker, start[:5]) in ((0xEE, b"Adobe"), (0xE0, b"JFIF\0"))
        ):
            pieces.add((place, 2 + length))
            continue
        stream.seek(place + 4)
        if marker == 0xE1 and start[:5] == b"Exif\0":
            orientations["exif"] = orientations["exif"] or orientation_of(stream.read(length - 2))
        elif marker == 0xE1 and start[:29] == b"http://ns.adobe.com/xap/1.0/\0":
            orientations["xmp"] = orientations["xmp"] or _of_xmp(stream.read(length - 2))
        elif marker == 0xE2 and start[:12] == b"ICC_PROFILE\0" and len(start) >= 14:
            total = start[13]
            parts[start[12]] = stream.read(length - 2)[14:]
    else:
        raise ValueError("it has no pixels")
    profile = None
    if parts:  # numbered from 1 on
        profile = b"".join(parts[k] for k in sorted(parts)) if sorted(parts) == list(range(1, total + 1)) else b""
    return Stripped(pieces.buffered(), orientations["exif"] or orientations["xmp"] or 1, profile)


def _segments(stream: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Each segment of a JPEG file up to its pixels: the marker, its place, and the length that follows.

    `stream` is then at the segment's content. Bytes between segments are passed over, as JPEG's library does.
    """
    place, end = 2, stream.seek(0, io.SEEK_END)
    while place + 4 <= end:
        stream.seek(place)
        start, marker, length = struct.unpack(">BBH", stream.read(4))
        if start != 0xFF or not (marker == 1 or 0xC0 <= marker <= 0xFE):
            place += 1
        elif marker == 1 or 0xD0 <= marker <= 0xD9:  # these have no length
            place += 2
        elif length < 2 or place + 2 + length > end:
            place += 2
        else:
            yield marker, place, length
            place += 2 + length


def _webp(stream: BinaryIO) -> Stripped:
    chunks, orientation, profile = [], 0, None
    place, end = 12, stream.seek(0, io.SEEK_END)
    while place + 8 <= end:
        stream.seek(place)
        kind, length = struct.unpack("<4sI", stream.read(8))
        if kind == b"VP8X" and length >= 10:
            flags = stream.read(10)
            chunks.append(
                struct.pack("<4sI", kind, 10) + bytes([flags[0] & 0b010010]) + flags[1:]
            )  # alpha and animation are left
        elif kind in (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"):
            chunks.append((place, min(8 + length + length % 2, end - place)))
        elif kind == b"ICCP" and length <= LARGEST:
            profile = stream.read(length)
        elif kind in (b"EXIF", b"XMP ") and length <= LARGEST:
            content = stream.read(length)
            found = orientation_of(content) if kind == b"EXIF" else _of_xmp(content)
            orientation = found if found and (kind == b"EXIF" or not orientation) else orientation
        place += 8 + length + length % 2
    size = 4 + sum(len(chunk) if isinstance(chunk, bytes) else chunk[1] for chunk in chunks)
    pieces = _Pieces(stream)
    for piece in (struct.pack("<4sI4s", b"RIFF", size, b"WEBP"), *chunks):
        pieces.add(piece)
    return Stripped(pieces.buffered(), orientation or 1, profile)


def _tiff(stream: BinaryIO) -> Stripped:
    end = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    directory = _Directory(stream, end)
    profile = directory.content(PROFILE, LARGEST)
    # the directory is written anew behind the file, so that all that it points to stays where it is
    pieces = _Pieces(stream)
    header = directory.header(end + end % 2)
    pieces.add(header)
    pieces.add((len(header), end - len(header)))
    tags = {tag: directory.numbers(tag) for tag in (BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, EXTRA, SAMPLE_FORMAT)}
    black_white, bits = None, (tags[BITS] or (1,))[0]
    if bits > 8 and tags[PHOTOMETRIC] in ((0,), (1,)):
        white = 1.0 if tags[SAMPLE_FORMAT] == (3,) else 2.0 ** min(bits, 16) - 1
        black_white = (0.0, white) if tags[PHOTOMETRIC] == (1,) else (white, 0.0)
        directory.set(PHOTOMETRIC, 1)  # decoders leave the values as they are
    if is_lab := tags[PHOTOMETRIC] == (8,) and tags[BITS] == (8, 8, 8):
        directory.set(PHOTOMETRIC, 2)  # libvips 8.18 takes it for another kind of Lab
    pieces.add(bytes(end % 2) + directory.packed(PIXEL_TAGS))
    return Stripped(pieces.buffered(), _valid(directory.numbers(ORIENTATION)) or 1, profile, tags, black_white, is_lab)


class _Directory:
    """The first directory of a TIFF or BigTIFF file, which begins at the place of `stream` and has `size` bytes.

    Raises ValueError or struct.error if it is damaged; entries behind the damage are missing.
    """

    def __init__(self, stream: BinaryIO, size: int):
        self.stream, self.size, self.start = stream, size, stream.tell()
        head = stream.read(4)
        self.order = {b"II": "<", b"MM": ">"}[head[:2]] if head[:2] in (b"II", b"MM") else ""
        if not self.order or head[2:] not in (b"*\0", b"\0*", b"+\0", b"\0+"):
            raise ValueError("not a TIFF header")
        self.head, self.big = head, b"+" in head
        self.offset, self.counter, self.entry = ("Q", "Q", "HHQ8s") if self.big else ("I", "H", "HHI4s")
        if self.big:
            self.head += stream.read(4)
        (place,) = self._unpack(self.offset, stream.read(struct.calcsize(self.offset)))
        (count,) = self._unpack(self.counter, self._read(place, struct.calcsize(self.counter)))
        self.entries: dict[int, tuple[int, int, bytes]] = {}
        length = struct.calcsize(f"<{self.entry}")
        content = self.stream.read(min(count, 1 << 16) * length)
        for begin in range(0, len(content) - length + 1, length):
            tag, kind, number, value = self._unpack(self.entry, content[begin : begin + length])
            self.entries.setdefault(tag, (kind, number, value))

    def header(self, place: int) -> bytes:
        """The header of a file whose directory is at `place`."""
        return self.head + struct.pack(f"{self.order}{self.offset}", place)

    def set(self, tag: int, number: int) -> None:
        """Change a tag of one number of 16 bits."""
        self.entries[tag] = 3, 1, struct.pack(f"{self.order}H", number).ljust(struct.calcsize(self.offset), b"\0")

    def packed(self, tags: frozenset[int]) -> bytes:
        """The directory with these tags alone."""
        kept = sorted(tags & self.entries.keys())
        entries = b"".join(struct.pack(f"{self.order}{self.entry}", tag, *self.entries[tag]) for tag in kept)
        return struct.pack(f"{self.order}{self.counter}", len(kept)) + entries + bytes(struct.calcsize(self.offset))

    def content(self, tag: int, most: int) -> bytes | None:
        """The bytes of a tag, up to `most`; None if it is absent, nothing if it is damaged."""
        if tag not in self.entries:
            return None
        kind, count, value = self.entries[tag]
        length = SIZES.get(kind, 0) * count
        if length <= len(value):
            return value[:length]
        (place,) = self._unpack(self.offset, value)
        return self._read(place, length) if place + length <= self.size and length <= most else b""

    def numbers(self, tag: int) -> tuple[int, ...]:
        """The whole numbers of a tag, of any size; none if it is absent, damaged or of another kind."""
        content, kind = self.content(tag, 1 << 16) or b"", self.entries.get(tag, (0, 0, b""))[0]
        if kind not in INTEGERS or not content:
            return ()
        return self._unpack(f"{len(content) // SIZES[kind]}{INTEGERS[kind]}", content)

    def _read(self, place: int, length: int) -> bytes:
        if place > self.size:
            raise ValueError("beyond the end")
        self.stream.seek(self.start + place)
        return self.stream.read(length)

    def _unpack(self, letters: str, content: bytes) -> tuple:
        return struct.unpack(f"{self.order}{letters}", content)


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in an EXIF block; 0 if it has none. Nothing else of the block is looked at."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    try:
        return _valid(_Directory(io.BytesIO(exif), len(exif)).numbers(ORIENTATION))
    except (ValueError, struct.error):
        return 0


def _valid(values: tuple[int, ...]) -> int:
    return values[0] if values and 1 <= values[0] <= 8 else 0


def _of_xmp(text: bytes) -> int:
    """The orientation, 1 to 8, in an XMP text; 0 if it has none."""
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)([1-8])", text)
    return int(found[1]) if found else 0


def _unpacked(content: bytes) -> bytes:
    """A deflated block; nothing if it is damaged or larger than `LARGEST`."""
    stream = zlib.decompressobj()
    try:
        unpacked = stream.decompress(content, LARGEST)
    except zlib.error:
        return b""
    return unpacked if stream.eof else b""
