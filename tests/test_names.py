"""Names of any bytes and lengths; many items of which one fails; frames in their order."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from adain_core import load_style
from adain_core.cli import main
from adain_core.clip import PictureSequence
from adain_core.files import natural_order, remove_leftovers, replacing, working_folder
from adain_core.images import load_image, save_image

ODD = os.fsdecode(b"\xfc b\xff")
LONG = "n" * 236


@pytest.fixture
def adain(tmp_path, monkeypatch, small_files):
    """Runs a command on the small networks in a folder with a picture; its status."""
    monkeypatch.chdir(tmp_path)
    save_image(torch.rand(3, 20, 24), "style.png")

    def run(*arguments: object) -> int:
        networks = ["--encoder", small_files[0], "--decoder", small_files[1]]
        if not str(arguments[2]).endswith(".safetensors"):
            networks += ["--style-size", "0"]
        return main(
            [*map(str, arguments), *(map(str, networks) if arguments[0] in ("stylize", "dataset") else ()), *device(arguments)]
        )

    def device(arguments: tuple) -> list[str]:
        return [] if arguments[0] in ("convert", "average") or arguments[1] in ("mix", "show") else ["--device", "cpu"]

    return run


def pictures(folder: str, *names: str) -> Path:
    for name in names:
        (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 20, 24), Path(folder) / name)
    return Path(folder)


def names(folder: str | Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_every_command_takes_names_of_any_bytes(adain, small_files, vgg, capsys):
    folder = pictures(ODD, f"{ODD}.png", "b.png")
    for network, name in zip((*small_files, vgg), ("encoder", "decoder", "judge"), strict=True):
        (Path(ODD) / f"{name}.safetensors").write_bytes(network.read_bytes())
    picture, style, encoder, judge = (
        f"{ODD}/{ODD}.png",
        f"{ODD}.safetensors",
        f"{ODD}/encoder.safetensors",
        f"{ODD}/judge.safetensors",
    )
    networks = ("--encoder", encoder, "--decoder", f"{ODD}/decoder.safetensors")
    train = ("--encoder", judge, "--loss-encoder", judge, "--steps", 1, "--batch-size", 1, "--crop-size", 32, "--workers", 0)
    for command in (
        ("style", "make", picture, "-o", style, *networks[:2]),
        ("style", "mix", style, style, "-o", f"{ODD}mix.safetensors"),
        ("style", "show", style),
        ("style", "learn", picture, "--contents", folder, "-o", f"{ODD}learned.safetensors", "--steps", 1, *networks),
        ("stylize", picture, style, "-o", f"{ODD}.png", "--mask", picture),
        ("stylize", folder, picture, "-o", f"{ODD}out"),
        ("stylize", folder, "--styles", folder, "-o", f"{ODD}set"),
        ("stylize", folder, picture, "-o", f"{ODD}clip", "--content-statistics", "running"),
        ("dataset", folder, folder, "-o", f"{ODD}data"),
        ("train", "--contents", folder, "--styles", folder, "--output", f"{ODD}trained", *train),
        ("train", "--contents", folder, "--styles", folder, "--output", f"{ODD}again", *train,
         "--start-from", f"{ODD}trained/trained-decoder.safetensors"),
        ("average", f"{ODD}trained/trained", f"{ODD}again/trained", "-o", f"{ODD}mean"),
        ("evaluate", "--contents", folder, "--styles", folder, "--loss-encoder", judge, "--size", 16, "--boil", 0, "--flat", 0,
         "-o", f"{ODD}.json", *networks),
        ("convert", judge, "-o", f"{ODD}converted.safetensors", "--normalise", folder),
    ):  # fmt: skip
        assert adain(*command) == 0, capsys.readouterr().err
    assert names(f"{ODD}out") == {f"{ODD}.png", "b.png"} and load_style(style).name.endswith("b?")
    capsys.readouterr()
    assert adain("stylize", picture, f"{ODD}none.png", "-o", "o.png") == 2
    assert "\\udcfc b\\udcffnone.png" in (err := capsys.readouterr().err) and err.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="paths are shorter there")
def test_names_that_are_nearly_as_long_as_a_system_allows(adain, small_files):
    folder = pictures("in", f"{LONG}.png", f"{LONG}{'m' * 15}.png", f"sub/{'神' * 82}.png", "a.png")
    style = f"{LONG}.safetensors"
    assert adain("stylize", folder, "style.png", "-o", "out") == 0
    assert names("out") == names("in")
    assert adain("stylize", folder, "style.png", "-o", "clip", "--content-statistics", "running") == 0
    assert names("clip") == names("in")
    assert adain("style", "make", folder / f"{LONG}.png", "-o", style, "--encoder", small_files[0]) == 0
    assert adain("stylize", folder / "a.png", style, "-o", f"{LONG}.png") == 0


def test_a_temporary_file_of_a_long_name_is_found_again(tmp_path):
    path = tmp_path / f"{LONG}{'m' * 14}.png"
    with replacing(path) as temporary:
        assert temporary.suffix == ".png" and temporary.name.startswith(".")
        remove_leftovers(tmp_path / f"{LONG}{'x' * 14}.png")
        assert temporary.exists()
        remove_leftovers(path)
        assert not temporary.exists()
        temporary.touch()
    with working_folder(path) as folder:
        assert folder.is_dir()


def test_one_item_that_fails_ends_no_run(adain, capsys, monkeypatch):
    folder = pictures("in", "a.png", "b.png", "c.png", "sub/d.png", "e.png")
    (folder / "b.png").write_bytes(b"no picture")
    Path("out").mkdir()
    Path("out/sub").touch()  # in the way of a folder
    Path("out/c.png").mkdir()  # and of a file
    assert adain("stylize", folder, "style.png", "-o", "out") == 1
    assert {"a.png", "e.png"} <= names("out")
    err = capsys.readouterr().err
    assert "3 of 5 pictures could not be stylised" in err and all(name in err for name in ("b.png", "c.png", "sub"))

    def stylize(encoder, decoder, content, *rest, **more):
        if content.shape[3] == 25:
            raise MemoryError
        return content

    save_image(torch.rand(3, 20, 25), folder / "a.png")
    for module in ("pictures", "dataset"):
        monkeypatch.setattr(f"adain_core.cli.{module}.stylize", stylize)
    assert adain("stylize", folder, "style.png", "-o", "other") == 1
    assert names("other") == {"c.png", "sub/d.png", "e.png"}
    assert "a.png: the memory is too small for it" in capsys.readouterr().err
    assert adain("dataset", folder, pictures("styles", "s.png"), "-o", "set") == 1
    assert names("set") == {"c-stylized-s.png", "sub/d-stylized-s.png", "e-stylized-s.png"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other limits")
def test_results_whose_names_would_be_too_long_leave_the_others(adain, capsys):
    folder, styles = pictures("in", f"{LONG}.png", "a.png"), pictures("styles", "a_style_with_a_name.png")
    assert adain("dataset", folder, styles, "-o", "out") == 1
    assert names("out") == {"a-stylized-a_style_with_a_name.png"}
    assert "1 of 2 pictures" in (err := capsys.readouterr().err) and "its name is too long" in err


def test_a_full_disk_ends_the_run(adain, monkeypatch, capsys):
    folder = pictures("in", "a.png", "b.png", "c.png")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("adain_core.cli.pictures.save_image", full)
    assert adain("stylize", folder, "style.png", "-o", "out") == 2


def test_frames_are_in_the_order_of_their_numbers(adain, monkeypatch):
    order = ["a1.png", "a2.png", "a10.png", "a10b.png", "b01.png", "b1.png", "b2.png", "sub2/x.png", "sub10/x.png"]
    assert sorted(map(Path, sorted(order)), key=natural_order) == [Path(name) for name in order]
    folder, seen = pictures("in", "1.png", "10.png", "2.png"), []
    monkeypatch.setattr(PictureSequence, "__init__", lambda self, paths: seen.extend(path.name for path in paths) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adain("stylize", folder, "style.png", "-o", "out", "--content-statistics", "running")
    assert seen == ["1.png", "2.png", "10.png"]


def test_frames_stored_on_their_side_fit_the_others(adain, capsys):
    folder = pictures("in", "1.png", "2.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.open(folder / "2.png").transpose(Image.Transpose.ROTATE_90).save(folder / "2.png", exif=exif)
    assert adain("stylize", folder, "style.png", "-o", "out", "--content-statistics", "batch") == 0
    assert load_image("out/2.png").shape == load_image("out/1.png").shape == (1, 3, 20, 24)


@pytest.mark.parametrize("broken", [["1.png"], ["2.png"], ["3.png", "2.png"], ["4.png"]])
@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_a_damaged_frame_leaves_the_others_and_its_place(adain, capsys, broken, statistics):
    folder = pictures("in", "1.png", "2.png", "3.png", "4.png")
    for name in broken:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2] if name != "2.png" else b"no picture")
    assert adain("stylize", folder, "style.png", "-o", "out", "--content-statistics", statistics) == 1
    assert names("out") == names("in")
    err = capsys.readouterr().err
    assert f"{len(broken)} of 4 pictures could not be stylised" in err and all(f"in/{name}" in err for name in broken)
    stand_in = {"1.png": "2.png", "2.png": "1.png", "4.png": "3.png"}
    for name in set(broken) - {"3.png"}:
        near = load_image(f"out/{name}") - load_image(f"out/{stand_in[name]}")
        assert near.abs().mean() < 0.05
