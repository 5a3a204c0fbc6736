"""Pictures from file to file, in parts."""

import sys

import pytest
import torch
from PIL import Image, ImageCms

from adain_core import encode_style, keep_colors, large, stylize
from adain_core.cli import main
from adain_core.images import load_image, save_image, without_hidden
from adain_core.stylize import DeferredFeatures, transfer_part

pyvips = pytest.importorskip("pyvips")


@pytest.fixture
def style(networks):
    return encode_style(networks[0], torch.rand(1, 3, 40, 50))


@pytest.fixture
def picture():
    """Something smooth, as photographs are."""
    return torch.nn.functional.interpolate(torch.rand(1, 4, 9, 13), (150, 209), mode="bicubic").clamp(0, 1)


@pytest.fixture
def everything_is_large(monkeypatch):
    monkeypatch.setattr(large, "free_memory", lambda device: 0)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("source, target", [("in.png", "out.tif"), ("in.tif", "out.png"), ("in.jpg", "out.TIFF")])
def test_a_file_in_parts_equals_the_picture_whole(networks, style, picture, tmp_path, channels, source, target):
    save_image(picture[:, :channels], tmp_path / source)
    large.stylize_file(*networks, tmp_path / source, tmp_path / target, style, 0.8, tile=64)
    expected = stylize(*networks, load_image(tmp_path / source), style, 0.8)
    found = load_image(tmp_path / target)
    assert found.shape == expected.shape and expected.std() > 0.02
    assert (found - expected).abs().max() < 1.1 / 255
    assert {path.name for path in tmp_path.iterdir()} == {source, target}


def test_hidden_colours_count_nowhere_in_parts_either(networks, style, picture, tmp_path):
    colors, visible = picture[:, :3], (picture[:, 3:] > 0.4).float()
    found = []
    for hidden in (0.0, 1.0):
        save_image(torch.cat([colors.lerp(torch.full_like(colors, hidden), 1 - visible), visible], 1), tmp_path / "in.png")
        large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, tile=64)
        found.append(load_image(tmp_path / "out.png"))
    assert found[0].equal(found[1])
    assert (found[0] - stylize(*networks, load_image(tmp_path / "in.png"), style)).abs().max() < 1.1 / 255


@pytest.mark.parametrize("channels, alpha", [(3, 1.0), (4, 0.7)])
def test_a_file_worked_at_a_smaller_size_equals_the_picture_in_memory(
    networks, style, picture, tmp_path, channels, alpha, monkeypatch
):
    monkeypatch.setattr(large, "BAND", 5000)  # of its 31350 pixels
    save_image(picture[:, :channels] * 0.8 + torch.rand_like(picture[:, :channels]) * 0.2, tmp_path / "in.png")
    size = {"working_size": 70, "detail": 0.9}
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, alpha, **size)
    found, content = load_image(tmp_path / "out.png"), load_image(tmp_path / "in.png")
    expected = stylize(*networks, content, style, alpha, **size)
    assert found.shape == expected.shape and (found - expected).abs().max() < 1.1 / 255
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, alpha, keep_content_colors=True, **size)
    assert (load_image(tmp_path / "out.png") - keep_colors(expected, content)).abs().max() < 1.1 / 255


def test_a_large_picture_is_read_and_enlarged_in_bands(networks, style, picture, tmp_path, monkeypatch):
    monkeypatch.setattr(large, "BAND", 5000)
    save_image(picture.clamp(min=0.1), tmp_path / "in.png")
    read, written = [], []
    get, put = large.RawPicture.__getitem__, large.RawPicture.__setitem__
    monkeypatch.setattr(large.RawPicture, "__getitem__", lambda self, index: read.append(get(self, index)) or read[-1])
    monkeypatch.setattr(large.RawPicture, "__setitem__", lambda *given: written.append(given[::2]) or put(*given))
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, working_size=32)
    assert max(part.shape[2] for _, part in written) <= 5000 // 209 + 1
    for name in ("stored", "result"):
        assert sum(part.shape[2] for picture, part in written if picture.path.name == name) == 150
    assert max(part.shape[2] for part in read) <= 60  # a band with what the filter sees


def test_no_style_at_all_is_the_picture_itself(networks, style, picture, tmp_path):
    save_image(picture.clamp(min=0.1), tmp_path / "in.png")
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, alpha=0.0, tile=64)
    assert load_image(tmp_path / "out.png").equal(load_image(tmp_path / "in.png"))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "I;16", "turned", "opaque", "profile", "wrong profile"])
def test_pictures_are_read_as_in_memory(networks, style, picture, tmp_path, mode):
    path, options = tmp_path / "in.tif", {}
    save_image(picture, path)
    image = Image.open(path)
    if mode == "I;16":
        image = Image.fromarray(257 * (picture[0, 0] * 255).round().numpy().astype("uint16"))  # 8 bits hold them
    elif mode == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    elif mode == "opaque":
        image.putalpha(255)
    elif mode == "profile":
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    elif mode == "wrong profile":  # it is not for RGB, and is ignored or replaced by sRGB
        image = image.convert("RGB")
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000)).tobytes()
    else:
        image = image.convert("RGB" if mode == "P" else mode).convert(mode)
    path = path.with_suffix(".png" if mode in ("P", "LA") else ".tif")
    image.save(path, **options)
    large.stylize_file(*networks, path, tmp_path / "out.png", style, tile=64)
    found, expected = load_image(tmp_path / "out.png"), stylize(*networks, load_image(path), style)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < (8 if "profile" in mode else 1.1) / 255


def test_16_bit_colours_with_alpha_are_read_as_in_memory(networks, style, picture, tmp_path):
    deep = (picture[0].permute(1, 2, 0) * 65535).numpy().astype("uint16")
    pyvips.Image.new_from_array(deep, interpretation="rgb16").pngsave(str(tmp_path / "in.png"))
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.tif", style, tile=64)
    found, expected = load_image(tmp_path / "out.tif"), stylize(*networks, load_image(tmp_path / "in.png"), style)
    assert found.shape[1] == 4 and (found - expected).abs().max() < 1.1 / 255


def test_no_more_than_a_tile_is_in_memory(networks, style, picture, tmp_path, monkeypatch):
    save_image(picture[:, :3], tmp_path / "in.png")
    read = []
    monkeypatch.setattr(large, "decode_into", lambda images, decoder, features, *_: read.append(features))
    get = large.RawPicture.__getitem__
    monkeypatch.setattr(large.RawPicture, "__getitem__", lambda self, index: read.append(get(self, index)) or read[-1])
    large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style, tile=64)
    *parts, features = read
    assert len(parts) == 3 * 4 and isinstance(features, DeferredFeatures)
    assert max(max(part.shape[2:]) for part in parts) <= 64 + 2 * (networks[0].halo + networks[0].levels[-1].stride)


def test_the_command_takes_this_way_for_large_pictures(networks, style, picture, tmp_path, small_files, everything_is_large):
    save_image(picture, tmp_path / "in.png")
    style.save(tmp_path / "style.safetensors")
    arguments = ["stylize", str(tmp_path / "in.png"), str(tmp_path / "style.safetensors"), "--keep-colors", "--tile", "64"]
    arguments += ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--device", "cpu"]
    arguments += ["--dtype", "float32"]
    content = without_hidden(load_image(tmp_path / "in.png"))
    for size in ({}, {"working_size": 70, "detail": 0.5}):
        more = [f"--{name.replace('_', '-')}={value}" for name, value in size.items()]
        assert main([*arguments, *more, "-o", str(tmp_path / "out.png")]) == 0
        expected = keep_colors(stylize(*networks, content, style, **size), content)
        assert (load_image(tmp_path / "out.png") - expected).abs().max() < 1.1 / 255


def test_pictures_beyond_pillows_limit_are_large(picture, tmp_path, monkeypatch):
    save_image(picture, tmp_path / "in.png")
    assert not large.needs_streaming(tmp_path / "in.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    assert large.needs_streaming(tmp_path / "in.png")


@pytest.mark.parametrize("change, reason", [
    ({"--size": "50"}, "too large for --mask, --size"),
    ({"--max-pixels": "31349"}, "has 31,350 pixels, more than 31,349"),
    ({"-o": "out.webp"}, "write a PNG or a TIFF"),
    ({"masked": True}, "too large for styles with masks"),
    ({"missing": True}, "pip install 'adain[large]'"),
    ({"disk": 1}, "free some space, or write to another disk"),
    ({"broken": True}, "could not be read"),
])  # fmt: skip
def test_what_cannot_be_is_told_in_one_line_before_the_work(
    networks, style, picture, tmp_path, small_files, everything_is_large, change, reason, capsys, monkeypatch
):
    monkeypatch.setattr(large, "transfer_part", lambda *rest, **options: pytest.fail("the work began"))
    monkeypatch.chdir(tmp_path)
    save_image(picture, "in.png")
    if "broken" not in change:  # what is wrong behind the header shows when it is read
        monkeypatch.setattr("adain_core.cli.options.load_encoder", lambda *rest: pytest.fail("the networks were loaded"))
    if change.pop("broken", False):
        (tmp_path / "in.png").write_bytes((tmp_path / "in.png").read_bytes()[:20_000])
    if change.pop("missing", False):
        monkeypatch.setitem(sys.modules, "pyvips", None)
    if change.pop("disk", False):
        monkeypatch.setattr(large.shutil, "disk_usage", lambda folder: large.shutil._ntuple_diskusage(10**9, 10**9, 10**5))
    style = style.masked(torch.ones(4, 4)) if change.pop("masked", False) else style
    style.save("style.safetensors")
    options = {"-o": "out.png", "--encoder": small_files[0], "--decoder": small_files[1], "--device": "cpu"} | change
    arguments = [str(text) for option in options.items() for text in option]
    before = set(tmp_path.iterdir())
    assert main(["stylize", "in.png", "style.safetensors", *arguments]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_an_error_leaves_nothing_behind(networks, style, picture, tmp_path, monkeypatch):
    def full(*rest, **options):
        transfer_part(*rest, **options)
        raise OSError("no space left")

    save_image(picture, tmp_path / "in.png")
    monkeypatch.setattr(large, "transfer_part", full)
    with pytest.raises(OSError, match="no space"):
        large.stylize_file(*networks, tmp_path / "in.png", tmp_path / "out.png", style)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
