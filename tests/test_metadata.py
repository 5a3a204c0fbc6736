"""Pictures whose metadata is damaged are read as those without any; only the orientation and the colour profile count."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from test_images import swapped_profile

from adain_core import large
from adain_core.images import load_image, upright_size
from adain_core.training.data import PictureFolder, decode

PICTURE = Image.fromarray((np.random.default_rng(0).random((3, 5, 3)) * 255).astype(np.uint8)).resize((40, 24))


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    PICTURE.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(*entries: tuple[int, int, int, int], order: str = "<", head: bytes = b"") -> bytes:
    """An EXIF block of entries of tag, type, count and value."""
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    rows = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return head + start + struct.pack(f"{order}H", len(entries)) + rows + bytes(4)


TURNED = (274, 3, 1, 6)
# tags of wrong types and counts, that point beyond the end or to themselves, before and behind the orientation
WRONG = [(256, 4, 1 << 30, 1 << 31), (258, 99, 7, 8), TURNED, (282, 9, 1, 0xFFFFFFFB), (34665, 4, 1, 0xFFFF), (34853, 4, 1, 8)]
ODD = {
    "wrong types": exif(*WRONG),
    "a long number": exif((274, 4, 1, 6)),
    "cut off behind it": exif(*WRONG)[:-30],
    "the other byte order": exif((274, 3, 1, 6 << 16), order=">"),
    "named twice": exif(TURNED, head=b"Exif\0\0"),
}
NONE = {
    "nothing": b"",
    "zeros": bytes(40),
    "noise": b"\xff\x17" * 40,
    "no such turn": exif((274, 3, 1, 9)),
    "no number": exif((274, 2, 1, 54)),
}


def png(*chunks: tuple[bytes, bytes], crc: int | None = None, behind: bool = False) -> bytes:
    """The picture with further chunks, with their own CRCs or this one, before or behind the pixels."""
    whole = saved("PNG")
    packed = b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) if crc is None else crc)
        for kind, content in chunks
    )
    place = whole.index(b"IEND") - 4 if behind else whole.index(b"IDAT") - 4
    return whole[:place] + packed + whole[place:]


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    whole = saved("JPEG", quality=95)
    packed = b"".join(struct.pack(">BBH", 255, marker, 2 + len(content)) + content for marker, content in segments)
    return whole[:2] + packed + whole[2:]


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    pixels = saved("WEBP", lossless=True)[12:]
    flags = sum({b"ICCP": 32, b"EXIF": 8, b"XMP ": 4}.get(kind, 0) for kind, _ in chunks)
    extended = (
        struct.pack("<4sII", b"VP8X", 10, flags)
        + struct.pack("<I", PICTURE.width - 1)[:3]
        + struct.pack("<I", PICTURE.height - 1)[:3]
    )
    packed = [struct.pack("<4sI", kind, len(content)) + content + bytes(len(content) % 2) for kind, content in chunks]
    before = [part for part in packed if part[:4] == b"ICCP"]
    content = b"".join([extended, *before, pixels, *(part for part in packed if part[:4] != b"ICCP")])
    return struct.pack("<4sI4s", b"RIFF", 4 + len(content), b"WEBP") + content


def tiff(*entries: tuple[int, int, int, int], order: str = "<", compression: str | None = None) -> bytes:
    """The picture as a TIFF with these entries more."""
    if order == ">":
        return exif(
            *sorted([(256, 4, 1, 40), (257, 4, 1, 24), (258, 3, 1, 8 << 16), (259, 3, 1, 1 << 16), (262, 3, 1, 1 << 16),
                     (273, 4, 1, 8192), (277, 3, 1, 1 << 16), (278, 4, 1, 24), (279, 4, 1, 960), *entries]), order=order,
        ).ljust(8192, b"\0") + PICTURE.convert("L").tobytes()  # fmt: skip
    whole = saved("TIFF", **({"compression": compression} if compression else {}))
    (place,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, place)
    rows = [whole[place + 2 + 12 * k : place + 14 + 12 * k] for k in range(count)]
    rows = sorted(rows + [struct.pack("<HHII", *entry) for entry in entries], key=lambda row: row[:2][::-1])
    whole += bytes(len(whole) % 2)
    return whole[:4] + struct.pack("<I", len(whole)) + whole[8:] + struct.pack("<H", len(rows)) + b"".join(rows) + bytes(4)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
HEXADECIMAL = b"\nexif\n 26\n" + exif(TURNED).hex().encode()
BROKEN_TAGS = [(270, 2, 1 << 30, 1 << 31), (282, 9, 1, 7), (283, 77, 3, 9), (306, 2, 20, 0xFFFFFFF0), (700, 1, 99, 1 << 30)]
UPRIGHT = {
    "a text of over 1 MiB": png((b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(3 << 20)))),
    "a compressed text that is none": png((b"zTXt", b"a\0\0nonsense")),
    "a text without a keyword": png((b"tEXt", b""), (b"iTXt", b"a")),
    "a text with a wrong CRC": png((b"tEXt", b"a\0b"), crc=7),
    "a text with a wrong CRC behind the pixels": png((b"tEXt", b"a\0b"), crc=7, behind=True),
    "a text that is cut off": png((b"tEXt", b"a\0" + b"b" * 99), behind=True)[:-40],
    "short chunks": png((b"pHYs", b"1"), (b"gAMA", b"1"), (b"sRGB", b""), (b"cHRM", b"1"), (b"tIME", b"1"), (b"acTL", b"1")),
    "a transparency that does not fit": png((b"tRNS", b"1")),
    **{f"EXIF of {what} in a PNG": png((b"eXIf", content)) for what, content in NONE.items()},
    **{f"EXIF of {what} in a JPEG": jpeg((0xE1, b"Exif\0\0" + content)) for what, content in NONE.items()},
    **{f"EXIF of {what} in a WebP": webp((b"EXIF", content)) for what, content in NONE.items()},
    "XMP of noise in a JPEG": jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"\xff" * 99)),
    "XMP of noise in a WebP": webp((b"XMP ", b"\xff" * 99)),
    "short segments": jpeg((0xE0, b"JFIF\0"), (0xEE, b"Adobe"), (0xE1, b""), (0xED, b"Photoshop 3.0\0"), (0xE2, b"MPF\0M")),
    "bytes between segments": saved("JPEG", quality=95)[:20] + b"nonsense" + saved("JPEG", quality=95)[20:],
    "tags of wrong types in a TIFF": tiff(*BROKEN_TAGS),
    "tags of wrong types in a compressed TIFF": tiff(*BROKEN_TAGS, compression="tiff_lzw"),
    "a comment of noise in a GIF": saved("GIF", comment=b"\xff" * 300),
}  # fmt: skip
SIDEWAYS = {
    **{f"EXIF with {what} in a PNG": png((b"eXIf", content)) for what, content in ODD.items()},
    **{f"EXIF with {what} in a JPEG": jpeg((0xE1, b"Exif\0\0" + content)) for what, content in ODD.items()},
    **{f"EXIF with {what} in a WebP": webp((b"EXIF", content)) for what, content in ODD.items()},
    "the orientation in a TIFF": tiff(*BROKEN_TAGS, TURNED),
    "a long orientation in a compressed TIFF": tiff(*BROKEN_TAGS, (274, 4, 1, 6), compression="tiff_deflate"),
    "the orientation in a TIFF of the other byte order": tiff(*BROKEN_TAGS, (274, 3, 1, 6 << 16), order=">"),
    "XMP in a JPEG": jpeg((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "XMP in a WebP": webp((b"XMP ", XMP)),
    "XMP in a PNG": png((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "the text that ImageMagick writes": png((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(HEXADECIMAL))),
    "EXIF behind XMP that says something else": jpeg(
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP.replace(b"6", b"3")), (0xE1, b"Exif\0\0" + exif(TURNED))
    ),
}  # fmt: skip


def expected(content: bytes) -> torch.Tensor:
    """The pixels of the undamaged file of the same format, not turned."""
    kind = {b"\x89P": "PNG", b"\xff\xd8": "JPEG", b"RI": "WEBP", b"II": "TIFF", b"MM": "grey", b"GI": "GIF"}[content[:2]]
    if kind == "grey":
        image = PICTURE.convert("L").convert("RGB")
    else:
        image = Image.open(
            io.BytesIO(saved(kind, **{"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})))
        ).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", [*UPRIGHT, *SIDEWAYS])
def test_damage_in_metadata_is_no_damage_in_pixels(tmp_path, what):
    path, content = tmp_path / "picture.png", (UPRIGHT | SIDEWAYS)[what]
    path.write_bytes(content)
    right = expected(content) if what in UPRIGHT else expected(content).rot90(-1, (2, 3))
    assert torch.equal(load_image(path), right)
    assert upright_size(path) == (right.shape[3], right.shape[2])
    assert torch.equal(torch.from_numpy(np.array(decode(path, 999))), (right * 255).byte()[0].permute(1, 2, 0))
    assert not PictureFolder(tmp_path, 8).broken


PROFILES = {"nonsense": b"nonsense", "zeros": bytes(500), "one cut off": PROFILE[:300]}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("what", PROFILES)
def test_damaged_profiles_are_ignored_aloud_and_once(tmp_path, caplog, kind, what):
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    (tmp_path / "picture.png").write_bytes(saved(kind, icc_profile=PROFILES[what], **options))
    assert torch.equal(load_image(tmp_path / "picture.png"), expected(saved(kind, **options)))
    assert caplog.text.count("the colour profile of") == 1 and "is ignored" in caplog.text


def test_chunks_and_segments_of_profiles_that_are_damaged(tmp_path, caplog):
    parts = [b"ICC_PROFILE\0" + bytes([number, 3]) + PROFILE[:99] for number in (1, 3)]
    for content in (png((b"iCCP", b"a\0\0nonsense")), png((b"iCCP", b"a")), jpeg(*((0xE2, part) for part in parts))):
        caplog.clear()
        (tmp_path / "picture.png").write_bytes(content)
        assert torch.equal(load_image(tmp_path / "picture.png"), expected(content))
        assert caplog.text.count("is ignored") == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_profiles_of_several_million_bytes_are_taken(tmp_path, kind):
    profile = bytearray(swapped_profile() + np.random.default_rng(0).bytes(3 << 20))  # behind what its table lists
    profile[:4] = struct.pack(">I", len(profile))
    image, options = Image.new("RGB", (8, 8), (250, 20, 30)), {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}}
    image.save(tmp_path / "picture", kind, icc_profile=bytes(profile), **options.get(kind, {}))
    assert (load_image(tmp_path / "picture")[0, :, 4, 4] * 255).tolist() == pytest.approx([20, 250, 30], abs=3)


def test_a_length_beyond_the_file_reserves_no_memory_for_it(tmp_path):
    whole = saved("PNG")
    place = whole.index(b"IDAT") - 4
    (tmp_path / "long.png").write_bytes(whole[:place] + struct.pack(">I", 0x7FFFFFFF) + whole[place + 4 :])
    assert torch.equal(load_image(tmp_path / "long.png"), expected(whole))


def test_pixels_that_are_damaged_are_an_error(tmp_path):
    for kind in ("PNG", "JPEG", "WEBP", "TIFF"):
        (tmp_path / "cut.png").write_bytes(saved(kind)[: 300 if kind != "TIFF" else 1500])
        with pytest.raises(ValueError, match="cut.png is not a readable picture, or is damaged"):
            load_image(tmp_path / "cut.png")


@pytest.mark.parametrize("what", [*UPRIGHT, *SIDEWAYS])
def test_pictures_that_are_read_in_parts_are_the_same(tmp_path, what):
    pytest.importorskip("pyvips")
    path = tmp_path / "picture.png"
    path.write_bytes((UPRIGHT | SIDEWAYS)[what])
    with large._opened(path) as picture:
        found = picture.unpack(tmp_path)
    whole = load_image(path)
    assert found.shape == whole.shape
    assert (found[:, :, :, :] - whole).abs().max() < 2.1 / 255  # of lossy formats, the decoders may differ
