"""Styles by their names."""

import pytest
from PIL import Image
from safetensors.torch import save

from adain_core import catalog, load_style
from adain_core.cli import main


def test_a_bundled_style_is_a_name(adain, folder):
    assert adain("stylize", "photo.png", "great-wave", "-o", "named.png", "--device", "cpu")[0] == 0
    file = catalog.BUNDLED / "styles" / "great-wave.safetensors"
    assert adain("stylize", "photo.png", str(file), "-o", "file.png", "--device", "cpu")[0] == 0
    assert (folder / "named.png").read_bytes() == (folder / "file.png").read_bytes()


def test_a_saved_style_is_a_name_here_and_in_the_folders_of_saved_styles(stylize, folder, monkeypatch):
    assert stylize("photo.png", "sunset", "-o", "here.png")[0] == 0
    (folder / "saved").mkdir()
    (folder / "sunset.safetensors").rename(folder / "saved" / "sunset.safetensors")
    assert "there is no picture, folder or style 'sunset'" in stylize("photo.png", "sunset", "-o", "o.png")[1]
    assert stylize("photo.png", "saved/sunset", "-o", "below.png")[0] == 0
    monkeypatch.setenv("ADAIN_STYLES", str(folder / "saved"))
    assert stylize("photo.png", "sunset", "-o", "there.png")[0] == 0
    (folder / "saved" / "sea").mkdir()
    (folder / "saved" / "sunset.safetensors").rename(folder / "saved" / "sea" / "sunset.safetensors")
    assert "did you mean sea/sunset?" in stylize("photo.png", "sunset", "-o", "o.png")[1]
    assert stylize("photo.png", "sea/sunset", "-o", "deep.png")[0] == 0
    assert (folder / "here.png").read_bytes() == (folder / "deep.png").read_bytes()
    assert (folder / "here.png").read_bytes() == (folder / "below.png").read_bytes() == (folder / "there.png").read_bytes()


def test_a_misspelt_name_is_answered_with_a_likely_one(stylize):
    status, err = stylize("photo.png", "grate-wave", "-o", "o.png")
    assert status == 2 and "did you mean great-wave?" in err and err.count("\n") == 1
    assert "adain style list" in stylize("photo.png", "qqqq", "-o", "o.png")[1]


def test_styles_are_listed_counted_and_shown_on_a_sheet(folder, capsys):
    assert main(["style", "list", "-o", "sheet.png"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 33 and any("Hokusai, The Great Wave" in line for line in listed)
    assert any(line.startswith("sunset ") for line in listed)
    assert not any("small" in line.split()[0] for line in listed)  # networks are no styles
    sheet = Image.open("sheet.png")
    assert sheet.width > 4 * 160 and sheet.height > 4 * 160
    assert main(["info"]) == 0
    assert "32 bundled, 1 saved" in capsys.readouterr().out


def test_a_damaged_style_is_named_and_the_others_are_listed(folder, capsys):
    (folder / "damaged.safetensors").write_bytes(save({}, {"format": "adain-style-1"}))
    assert main(["style", "list"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 33 and "styles that could not be read" in err and "damaged.safetensors" in err


def test_a_sheet_is_a_picture(adain):
    status, err = adain("style", "list", "-o", "sheet.gif")
    assert status == 2 and "use one of the extensions" in err


@pytest.mark.parametrize("arguments", [["show", "red.png"], ["mix", "sunset", "red.png", "-o", "mix.safetensors"]])
def test_a_picture_where_style_files_are_taken_is_answered_with_the_way_to_one(adain, arguments):
    status, err = adain("style", *arguments)
    assert status == 2 and "red.png is a picture; make a style of it with `adain style make`." in err


def test_show_and_mix_take_names(adain, folder, capsys):
    assert adain("style", "mix", "great-wave", "spring", "-o", "both.safetensors")[0] == 0
    assert len(load_style("both.safetensors").components) == 2
    assert main(["style", "show", "great-wave"]) == 0
    assert "great-wave" in capsys.readouterr().out
