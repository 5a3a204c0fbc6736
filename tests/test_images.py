import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms

from adain_core.cli import main
from adain_core.files import replacing
from adain_core.images import (
    camera_move,
    image_extensions,
    limit_pixels,
    list_images,
    load_image,
    load_mask,
    on_white,
    opened,
    pixel_limit,
    resize,
    save_image,
    thumbnail_jpeg,
)


def pixels(path) -> list:
    return [round(v * 255) for v in load_image(path)[0, :, 0, 0].tolist()]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    # what a camera stores so that the orientation's turn brings it upright
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
        6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    assert (load_image(tmp_path / "turned.png")[0, 0] * 255).round().tolist() == upright.tolist()


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA", "CMYK"])
def test_uncompressed_tiffs_on_their_side(tmp_path, mode):
    values = np.arange(6).reshape(2, 3) * 40
    if mode == "I;16":
        image = Image.fromarray((values * 257).astype(np.uint16))
    else:
        grey = Image.fromarray(values.astype(np.uint8))
        image = Image.merge(mode, [grey] * len(Image.new(mode, (1, 1)).getbands())) if mode != "P" else grey.convert("P")
    image.save(tmp_path / "upright.tif")
    image.save(tmp_path / "turned.tif", tiffinfo={0x0112: 6})
    upright = load_image(tmp_path / "upright.tif")
    assert torch.equal(load_image(tmp_path / "turned.tif"), upright.rot90(-1, (2, 3)))


def test_grey_palette_and_one_bit(tmp_path):
    Image.new("L", (2, 2), 80).save(tmp_path / "grey.png")
    assert pixels(tmp_path / "grey.png") == [80, 80, 80]
    Image.new("1", (2, 2), 1).save(tmp_path / "bit.png")
    assert pixels(tmp_path / "bit.png") == [255, 255, 255]
    Image.new("RGB", (2, 2), (10, 200, 30)).quantize(4).save(tmp_path / "palette.png")
    assert pixels(tmp_path / "palette.png") == [10, 200, 30]


def test_sixteen_bits_and_floats_are_not_clipped(tmp_path):
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "deep.tiff")
    Image.fromarray(np.full((2, 2), 0.25, np.float32)).save(tmp_path / "float.tiff")
    for name, value in (("deep.png", 40000 / 65535), ("deep.tiff", 40000 / 65535), ("float.tiff", 0.25)):
        assert load_image(tmp_path / name).shape == (1, 3, 2, 2)
        assert load_image(tmp_path / name).flatten().tolist() == pytest.approx([value] * 12)
    Image.fromarray(np.full((2, 2), 7.0, np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(ValueError, match="outside"):
        load_image(tmp_path / "float.tiff")


def test_sixteen_bit_colour(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    row = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">HHH", 65535, 40000, 1000)))
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + row + chunk(b"IEND", b""))
    expected = [1, 40000 / 65535, 1000 / 65535]
    assert load_image(tmp_path / "deep.png").flatten().tolist() == pytest.approx(expected, abs=1 / 255)


@pytest.mark.parametrize("name", ["ink.jpg", "ink.tiff"])
def test_cmyk(tmp_path, name):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / name)
    red, green, blue = pixels(tmp_path / name)
    assert red > 225 and green < 45 and blue < 45


def swapped_profile() -> bytes:
    """sRGB with red and green exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    r, g = entries[b"rXYZ"] + 4, entries[b"gXYZ"] + 4
    profile[r : r + 8], profile[g : g + 8] = profile[g : g + 8], profile[r : r + 8]
    return bytes(profile)


def test_icc_profiles_are_converted_to_srgb(tmp_path):
    Image.new("RGB", (4, 4), (250, 20, 30)).save(tmp_path / "tagged.png", icc_profile=swapped_profile())
    assert pixels(tmp_path / "tagged.png") == pytest.approx([20, 250, 30], abs=3)
    image = Image.new("RGBA", (4, 4), (250, 20, 30, 128))
    image.save(tmp_path / "clear.png", icc_profile=swapped_profile())
    assert pixels(tmp_path / "clear.png") == pytest.approx([20, 250, 30, 128], abs=3)


def grey_profile() -> bytes:
    """Grey values proportional to light."""
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"g\0" + bytes(78),
        b"wtpt": b"XYZ " + struct.pack(">Iiii", 0, 63190, 65536, 54061),
        b"kTRC": b"curv" + struct.pack(">II", 0, 0),
    }
    table, content = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(content), len(data))
        content += data + bytes(-len(data) % 4)
    header = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()[:128])
    header[0:4] = struct.pack(">I", 128 + len(table + content))
    header[8:12], header[16:20] = b"\2\x40\0\0", b"GRAY"
    return bytes(header) + table + content


def test_grey_profiles(tmp_path):
    Image.new("L", (4, 4), 128).save(tmp_path / "grey.png", icc_profile=grey_profile())
    assert pixels(tmp_path / "grey.png") == [188] * 3  # 1.055 * (128 / 255) ** (1 / 2.4) - 0.055 = 0.737
    Image.new("LA", (4, 4), (128, 100)).save(tmp_path / "clear.png", icc_profile=grey_profile())
    assert pixels(tmp_path / "clear.png") == [188, 188, 188, 100]


def test_broken_profiles_are_ignored_aloud(tmp_path, caplog):
    Image.new("RGB", (4, 4), (250, 20, 30)).save(tmp_path / "tagged.png", icc_profile=b"nonsense")
    assert pixels(tmp_path / "tagged.png") == [250, 20, 30] and "profile" in caplog.text


def test_transparency(tmp_path):
    Image.new("RGBA", (2, 2), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    assert load_image(tmp_path / "opaque.png").shape[1] == 3
    Image.new("LA", (2, 2), (50, 100)).save(tmp_path / "la.png")
    assert pixels(tmp_path / "la.png") == [50, 50, 50, 100]
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 8, 7] * 256)
    palette.save(tmp_path / "p.png", transparency=0)
    assert pixels(tmp_path / "p.png") == [9, 8, 7, 0]


def test_masks_are_luminance_or_alpha(tmp_path):
    Image.new("RGB", (2, 3), (255, 0, 0)).save(tmp_path / "red.png")
    assert load_mask(tmp_path / "red.png").shape == (3, 2)
    assert load_mask(tmp_path / "red.png")[0, 0].item() == pytest.approx(0.299)
    Image.new("RGBA", (2, 3), (255, 255, 255, 51)).save(tmp_path / "alpha.png")
    assert load_mask(tmp_path / "alpha.png")[0, 0].item() == pytest.approx(0.2)


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="text.png"):
        load_image(tmp_path / "text.png")
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    (tmp_path / "short.png").write_bytes(buffer.getvalue()[:-1000])
    with pytest.raises(ValueError, match="short.png"):
        load_image(tmp_path / "short.png")
    with pytest.raises(FileNotFoundError, match="none.png"):
        load_image(tmp_path / "none.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("L", (64, 64)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="MAX_IMAGE_PIXELS"):
        load_image(tmp_path / "huge.png")


@pytest.fixture
def few_pixels(monkeypatch):
    """As if 60 000 pixels were the limit."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    limit_pixels(60_000)


def bombs() -> dict[str, bytes]:
    """Files of a few bytes that unpack to 90 000 pixels."""
    picture, found = Image.new("RGB", (300, 300), "red"), {}
    ways = {"PNG": {}, "WEBP": {"lossless": True}, "JPEG": {}, "GIF": {}, "TIFF": {"compression": "tiff_deflate"}, "BMP": {}}
    for kind, options in ways.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        found[kind] = buffer.getvalue()
    screen = bytearray(found["GIF"])
    screen[6:10] = struct.pack("<HH", 3, 3)  # the frame is larger than the screen
    found["a GIF's frame"] = bytes(screen)
    whole = found["PNG"]
    header = whole[12:16] + struct.pack(">II", 60_000, 60_000) + whole[24:29]
    found["a header"] = whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    return found


@pytest.mark.parametrize("kind", bombs())
@pytest.mark.filterwarnings("ignore")
def test_pictures_beyond_the_limit_are_refused_and_the_limit_can_be_raised(tmp_path, few_pixels, kind):
    (tmp_path / "bomb.png").write_bytes(bombs()[kind])
    with pytest.raises(ValueError, match="bomb.png has more than 60,000 pixels; if you trust it, raise .*: --max-pixels"):
        load_image(tmp_path / "bomb.png")
    if kind != "a header":
        limit_pixels(90_000)
        assert load_image(tmp_path / "bomb.png").shape == (1, 3, 300, 300)


def test_the_limit_is_stated(few_pixels):
    assert pixel_limit() == 60_000
    limit_pixels(7)
    assert pixel_limit() == 7


def test_a_picture_that_would_become_too_large_is_refused(few_pixels):
    with pytest.raises(ValueError, match="3000x1 pixels would have 24000x8 with its smallest side at 8, more than 60,000"):
        resize(torch.rand(1, 3, 1, 3000), 8)
    assert resize(torch.rand(1, 3, 1, 3000), 4).shape == (1, 3, 4, 12_000)


def test_commands_have_the_limit_as_an_option(tmp_path, monkeypatch, capsys, small_files):
    monkeypatch.chdir(tmp_path)
    for name in ("small.png", "large.png"):
        save_image(torch.rand(3, 20, 20 if name == "small.png" else 30), name)
    before = pixel_limit()
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--device", "cpu"]
    stylize = ["stylize", "small.png", "large.png", "--style-size", "0", *networks]
    make = ["style", "make", "large.png", "--size", "0", *networks[:2]]
    for command, result in ((stylize, "out.png"), (make, "out.safetensors")):
        assert main([*command, "-o", result, "--max-pixels", "599"]) == 2
        err = capsys.readouterr().err
        assert "large.png has more than 599 pixels" in err and err.count("\n") == 1 and not (tmp_path / result).exists()
        assert main([*command, "-o", result, "--max-pixels", "600", "--quiet"]) == 0
        assert pixel_limit() == before


def test_files_that_would_run_a_program_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **options: pytest.fail("Ghostscript was run"))
    (tmp_path / "program.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match="program.png .*EPS is not read"):
        load_image(tmp_path / "program.png")


def test_a_header_alone_says_what_a_picture_is(tmp_path):
    save_image(torch.rand(3, 20, 30), tmp_path / "a.png")
    with opened(tmp_path / "a.png") as picture:
        assert picture.size == (30, 20)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif", "a.tiff", "a.JPG", "a.jpeg"])
def test_pictures_come_back(tmp_path, name):
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    save_image(ramp, tmp_path / name)
    assert (load_image(tmp_path / name) - ramp).abs().max() < (0.5001 / 255 if name.endswith(("png", "f")) else 0.03)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_halves_are_rounded_up(tmp_path):
    save_image(torch.full((3, 1, 1), 2.5 / 255), tmp_path / "a.png")
    assert pixels(tmp_path / "a.png") == [3, 3, 3]


def test_transparency_out(tmp_path):
    clear = torch.zeros(4, 8, 8)
    for name in ("a.png", "a.webp", "a.tiff"):
        save_image(clear, tmp_path / name)
        assert load_image(tmp_path / name).shape == (1, 4, 8, 8)
    save_image(clear, tmp_path / "a.jpg")
    assert pixels(tmp_path / "a.jpg") == [255, 255, 255]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=".png, .jpg"):
        save_image(torch.rand(3, 4, 4), tmp_path / "a.gif")
    with pytest.raises(FileNotFoundError, match="create it first"):
        save_image(torch.rand(3, 4, 4), tmp_path / "none" / "a.png")
    with pytest.raises(ValueError, match="shape"):
        save_image(torch.rand(2, 3, 4, 4), tmp_path / "a.png")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_colours_of_transparent_pixels_do_not_reach_into_visible_ones():
    picture = torch.zeros(1, 4, 40, 40)  # black, where it cannot be seen
    picture[:, :, 10:30, 10:30] = 1
    small = resize(picture, 13)
    assert on_white(small).min() > 0.99 and small[:, 3].max() > 0.99 and small[:, 3].min() == 0


def test_resize_keeps_the_aspect():
    assert resize(torch.rand(2, 3, 30, 45), 10).shape == (2, 3, 10, 15)
    assert resize(torch.rand(1, 3, 30, 45), 60).shape == (1, 3, 60, 90)
    assert resize(torch.rand(1, 3, 1, 500), 0).shape == (1, 3, 1, 500)
    checker = (torch.arange(64)[:, None] + torch.arange(64)).remainder(2).float().expand(1, 3, 64, 64)
    assert (resize(checker, 16)[:, :, 2:-2, 2:-2] - 0.5).abs().max() < 0.02  # no aliasing
    with pytest.raises(ValueError, match="size"):
        resize(checker, -1)


def test_listing(tmp_path):
    for name in ("b.PNG", "a.jpg", "sub/c.webp", ".hidden/d.png", "notes.txt", ".e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.webp"]
    with pytest.raises(FileNotFoundError, match="folder"):
        list_images(tmp_path / "none")


def named(folder) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_folders_take_every_ending_that_can_be_read(tmp_path):
    Image.init()
    picture, endings = Image.new("RGB", (16, 16), (200, 30, 40)), Image.registered_extensions()
    for ending in ".jfif .jpe .apng .avif .jp2 .tga .bmp .dib .pcx .ico .JPG .mpo .qoi .sgi".split():
        if endings.get(ending.lower()) in Image.SAVE:
            picture.save(tmp_path / f"photo{ending}", endings[ending.lower()])
    found = list_images(tmp_path)
    assert len(found) == len(list(tmp_path.iterdir())) >= 10
    for path in found:
        assert (load_image(path)[0, :, 8, 8] * 255 - torch.tensor([200.0, 30, 40])).abs().max() < 9
    # what Pillow only recognises, runs a program for, or writes
    assert not image_extensions() & {".eps", ".wmf", ".mpg", ".h5", ".grib", ".pdf", ".palm", ".txt", ".safetensors", ".mp4"}


def test_what_a_folders_list_leaves_out_is_counted_and_said(tmp_path, caplog):
    for name in ("a.png", "b.heic", "c.txt", ".d.png", ".notes", "sub/e.mp4", "sub/f.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert named(tmp_path) == ["a.png", "sub/f.jpg"]
    assert ": 4 that do not end" in caplog.text and "(.d.png, b.heic, c.txt, ...)" in caplog.text
    caplog.clear()
    assert named(tmp_path / "sub") == ["f.jpg"] and "(e.mp4)" in caplog.text
    (tmp_path / "sub" / "e.mp4").unlink()
    caplog.clear()
    assert named(tmp_path / "sub") == ["f.jpg"] and not caplog.text


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_to_folders_are_entered_once_and_loops_end(tmp_path, caplog):
    folder, other = tmp_path / "folder", tmp_path / "other"
    for path in (folder / "a.png", folder / "sub" / "b.png", other / "c.png", other / "deep" / "d.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "link").symlink_to(other)
    (folder / "again").symlink_to(folder / "sub")  # its pictures are there by their own name
    (folder / "sub" / "loop").symlink_to(folder)
    (other / "back").symlink_to(folder)
    (other / "self").symlink_to(other)
    (folder / "file.png").symlink_to(other / "c.png")
    (folder / "lost.png").symlink_to(other / "nothing.png")
    assert named(folder) == ["a.png", "file.png", "link/c.png", "link/deep/d.png", "sub/b.png"]
    assert ": 1 that do not end" in caplog.text and "lost.png" in caplog.text
    (tmp_path / "linked").symlink_to(folder)
    assert named(tmp_path / "linked") == named(folder)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not hinder root")
def test_folders_that_cannot_be_entered_are_said(tmp_path, caplog):
    (tmp_path / "a.png").touch()
    (tmp_path / "locked").mkdir(mode=0)
    assert named(tmp_path) == ["a.png"] and "locked" in caplog.text


def test_thumbnails_fit():
    for height, width, size in ((50, 200, (96, 24)), (20, 40, (96, 48)), (2, 4000, (96, 1))):
        assert Image.open(io.BytesIO(thumbnail_jpeg(torch.rand(1, 3, height, width)))).size == size


def test_thumbnails_are_on_white():
    assert Image.open(io.BytesIO(thumbnail_jpeg(torch.zeros(1, 4, 200, 200)))).getpixel((9, 9)) == (255, 255, 255)


def waves(height: int, width: int) -> torch.Tensor:
    """A smooth picture `(1, 3, H, W)` in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 11, indexing="ij")
    return 0.5 + 0.4 * torch.stack([x.sin() * y.cos(), y.sin(), (x + y).cos()])[None]


def test_a_camera_move_begins_with_the_picture_and_ends_with_its_part_upper_left_of_the_middle():
    picture = waves(100, 150)
    clip = camera_move(picture, 5)
    assert clip.shape == (5, 3, 100, 150) and torch.equal(clip[:1], picture)
    part = picture[:, :, 8:88, 12:132]  # 0.8 of either side; what is cut off is halved, less 0.2 of it
    whole = F.interpolate(part, size=(100, 150), mode="bicubic", align_corners=False)
    torch.testing.assert_close(clip[-1:, :, 4:-4, 4:-4], whole[:, :, 4:-4, 4:-4], atol=1e-3, rtol=0)


def test_a_slow_camera_move_is_even_and_jumps_from_no_pixel_to_the_next():
    clip = camera_move(waves(100, 150), 61)
    steps = (clip[1:] - clip[:-1]).abs().mean(dim=(1, 2, 3))
    assert steps.max() < 2 * steps.min()  # moved by whole pixels, most steps would be 0


def test_a_camera_move_of_one_frame_is_the_picture_with_its_alpha():
    picture = torch.rand(1, 4, 20, 30)
    assert torch.equal(camera_move(picture, 1), picture)
