"""Several contents and several styles."""

import pytest
import torch
from PIL import Image

from adain_core import encode_style, load_decoder, load_encoder, mix_styles
from adain_core import stylize as stylize_picture
from adain_core.images import load_image, save_image


@pytest.fixture
def styles(folder):
    """A folder of two style pictures and a style file."""
    (folder / "styles" / "sea").mkdir(parents=True)
    (folder / "red.png").rename("styles/red.png")
    (folder / "blue.png").rename("styles/sea/blue.png")
    (folder / "sunset.safetensors").rename("styles/sunset.safetensors")
    return folder / "styles"


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def same(path, picture) -> bool:
    return (load_image(path) - picture).abs().max().item() < 0.55 / 255


def test_a_folder_of_styles_is_all_of_them_mixed(stylize, styles):
    status, err = stylize("photo.png", "styles", "-o", "o.png")
    assert status == 0 and "in a mix of 3 styles" in err
    encoder, decoder = load_encoder("small"), load_decoder("small")
    parts = [encode_style(encoder, load_image(styles / name)) for name in ("red.png", "sea/blue.png", "red.png")]
    assert same("o.png", stylize_picture(encoder, decoder, load_image("photo.png"), mix_styles(parts)))


def test_each_style_gives_a_result_named_by_it_and_a_sheet_with_the_content_first(stylize, styles, folder):
    status, err = stylize("photo.png", "styles", "--each", "-o", "out")
    assert status == 0 and "wrote 3 pictures and contact-sheet.png to out" in err
    assert names(folder / "out") == ["blue.png", "contact-sheet.png", "red.png", "sunset.png"]
    for style in ("red", "sunset"):  # of the same picture
        assert stylize("photo.png", f"styles/{style}{'.png' if style == 'red' else '.safetensors'}", "-o", "alone.png")[0] == 0
        assert (folder / "alone.png").read_bytes() == (folder / "out" / f"{style}.png").read_bytes()
    sheet, content = Image.open("out/contact-sheet.png"), Image.open("photo.png").convert("RGB")
    boxes = [sheet.crop((left, 22, left + 30, 22 + 24)) for left in (6, 42)]
    assert boxes[0].tobytes() == content.tobytes() != boxes[1].tobytes()


def test_pictures_too_large_for_memory_have_no_sheet(stylize, folder, monkeypatch):
    monkeypatch.setattr("adain_core.large.free_memory", lambda device: 0)
    status, err = stylize("photo.png", "sunset", "--each", "-o", "new/out")
    assert status == 0 and "wrote 1 picture to new/out in" in err and names(folder / "new") == ["out/sunset.png"]


def test_each_of_several_contents_has_a_folder(stylize, styles, folder):
    assert stylize("photo.png", "lake.png", "--style", "styles", "--each", "-o", "out")[0] == 0
    results = ["blue.png", "contact-sheet.png", "red.png", "sunset.png"]
    assert names(folder / "out") == [f"{content}/{name}" for content in ("lake", "photo") for name in results]


@pytest.mark.parametrize("output", ["out.png", "out.mp4"])
def test_a_folder_of_contents_is_not_written_to_what_is_named_like_a_file(stylize, styles, folder, output):
    (folder / "contents").mkdir()
    (folder / "photo.png").rename("contents/photo.png")
    status, err = stylize("contents", "styles/red.png", "-o", output)
    assert status == 2 and "not a folder for the results" in err and not (folder / output).exists()


def test_styles_of_one_name_are_told_apart(stylize, styles, folder):
    save_image(torch.rand(3, 20, 20), styles / "sea" / "red.png")
    save_image(torch.rand(3, 20, 20), styles / "sea" / "red.jpg")
    assert stylize("photo.png", "styles", "--each", "-o", "out")[0] == 0
    assert [name for name in names(folder / "out") if "_red_" in name] == [
        "sea_red_jpg.png",
        "sea_red_png.png",
        "styles_red_png.png",
    ]


def test_several_contents_stand_before_their_styles(stylize, folder):
    status, err = stylize("photo.png", "lake.png", "--style", "red.png", "sunset", "-o", "out")
    assert status == 0 and "wrote 2 pictures in a mix of 2 styles to out" in err
    assert names(folder / "out") == ["lake.png", "photo.png"]
    assert stylize("photo.png", "red.png", "sunset", "-o", "alone.png")[0] == 0
    assert (folder / "alone.png").read_bytes() == (folder / "out" / "photo.png").read_bytes()


def test_options_may_stand_before_and_between(stylize, folder):
    assert stylize("-o", "out", "photo.png", "lake.png", "--alpha", "0.5", "--style", "red.png", "--style", "blue.png")[0] == 0
    assert names(folder / "out") == ["lake.png", "photo.png"]


def test_several_contents_go_on_past_a_broken_one(stylize, folder):
    (folder / "broken.png").write_text("no picture")
    status, err = stylize("photo.png", "broken.png", "lake.png", "--style", "red.png", "-o", "out")
    assert status == 1 and "1 of 3" in err and "wrote 2 pictures to out" in err


@pytest.mark.parametrize("arguments, sentence", [
    (["photo.png", "-o", "o.png"], "there is no style: give CONTENT STYLE ..., or for several contents CONTENT ... --style"),
    (["photo.png", "red.png", "-o", "o.png", "blue.png"], "blue.png stands apart from the others; give CONTENT STYLE ..."),
    (["photo.png", "lake.png", "--style", "red.png", "-o", "o.png"], "o.png is not a folder"),
    (["photo.png", ".", "--style", "red.png", "-o", "out"], "several contents must be pictures"),
    (["photo.png", "film.mp4", "--style", "red.png", "-o", "out"], "film.mp4 is a video; several contents must be pictures"),
    (["photo.png", "none.png", "--style", "red.png", "-o", "out"], "there is no picture none.png"),
    (["photo.png", "photo.png", "--style", "red.png", "-o", "out"], "would both be written to out/photo.png"),
    (["photo.png", "lake.png", "--style", "red.png", "-o", "."], "photo.png is the content itself"),
    (["photo.png", "lake.png", "--style", "red.png", "--styles", ".", "-o", "out"], "either one or more STYLE, or a folder"),
    (["photo.png", "red.png", "--each", "-o", "o.png"], "o.png is not a folder"),
    (["photo.png", "red.png", "--each", "-o", "."], "red.png is one of the files that are read"),
    (["photo.png", "red.png", "-o", "red.png"], "red.png is one of the files that are read"),
    (["photo.png", "red.png", "blue.png", "--each", "--weights", "1", "2", "-o", "out"], "--each mixes none"),
    (["photo.png", "red.png", "red.png", "--each", "-o", "out"], "two styles would both be called"),
    (["photo.png", "empty", "-o", "o.png"], "the folder empty holds no pictures"),
    (["film.mp4", "red.png", "--each", "-o", "out"], "--each is for pictures"),
])  # fmt: skip
def test_the_rest_is_refused_in_one_sentence(stylize, folder, arguments, sentence):
    (folder / "empty").mkdir()
    (folder / "film.mp4").write_text("no video")
    before = names(folder)
    status, err = stylize(*arguments)
    assert status == 2 and sentence in err and err.count("\n") == 1 and names(folder) == before


@pytest.mark.parametrize("arguments, option", [
    (["sunset", "--style-size", "64"], "--style-size"),
    (["sunset", "--style-size", "512"], "--style-size"),
    (["red.png", "--half-life", "8"], "--half-life"),
    (["red.png", "--seed", "0"], "--seed"),
    (["red.png", "--per-picture", "1"], "--per-picture"),
    (["red.png", "--weights", "2"], "--weights"),
])  # fmt: skip
def test_an_option_that_does_nothing_here_is_refused(stylize, arguments, option):
    status, err = stylize("photo.png", *arguments, "-o", "o.png")
    assert status == 2 and option in err and "leave" in err and err.count("\n") == 1


def test_a_style_size_is_for_the_pictures_among_the_styles(stylize):
    assert stylize("photo.png", "sunset", "blue.png", "--style-size", "12", "-o", "o.png")[0] == 0
