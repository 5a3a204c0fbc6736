import pytest
import torch

from adain_core.cli import main
from adain_core.evaluation.sheet import _finished, draw_sheet
from adain_core.images import load_image, save_image


def test_finished_pictures_are_judged_as_the_models_own(measure, picture_folders, small_files, tmp_path):
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1])]
    contents, styles = tmp_path / "squares" / "contents", tmp_path / "squares" / "styles"
    for kind, folder in (("contents", contents), ("styles", styles)):
        folder.mkdir(parents=True)
        for path in (picture_folders / kind).iterdir():
            save_image(load_image(path)[..., 4:44], folder / path.name)
    finished = tmp_path / "other program"
    command = ["stylize", str(contents), "--styles", str(styles), "--per-picture", "5", "--style-size", "0", *networks]
    assert main([*command, "--device", "cpu", "-o", str(finished)]) == 0
    pictures = ["--contents", contents, "--styles", styles, "--size", 40, "--results", finished]
    status, found, figure = measure("sheet", *pictures)
    assert status == 0 and figure.size[0] >= 4 * 40 and figure.size[1] >= 6 * 40
    (table,) = found["tables"].values()
    assert table[str(finished)] == pytest.approx(table["small"], rel=0.02)
    assert table["the untouched content"]["style loss"] != pytest.approx(table["small"]["style loss"], rel=0.02)


def test_a_folder_without_a_pair_is_named(measure, picture_folders, capsys):
    assert measure("sheet", "--results", picture_folders / "styles")[0] == 2
    err = capsys.readouterr().err
    assert "no picture whose name begins with" in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["{content}-stylized-{style}", "{content}/{style}"])
def test_finished_pictures_are_found_by_their_folders(tmp_path, name):
    for content in ("x/a", "y/a", "y/ab"):
        path = tmp_path / f"{name.format(content=content, style='s')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 8, 8), path)
    assert _finished(str(tmp_path), "y/a.png", "s.png") == tmp_path / f"{name.format(content='y/a', style='s')}.png"
    if "stylized" in name:
        with pytest.raises(ValueError, match="could both be a.png in s.png"):
            _finished(str(tmp_path), "a.png", "s.png")


def test_a_sheet_shows_the_pixels():
    pictures = torch.rand(2, 3, 20, 20)
    captions = [["a", ""], ["b\nlonger than there is room", "c"]]
    page = draw_sheet([[pictures[:1], None], [pictures[1:], pictures[:1]]], captions)
    box = (6, 6 + 16, 26, 6 + 16 + 20)
    torch.testing.assert_close(load_pixels(page.crop(box)), pictures[0], rtol=0, atol=0.003)


def load_pixels(picture):
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(20, 20, 3).permute(2, 0, 1) / 255


def test_numbers_are_not_written_over_a_picture(measure, capsys):
    assert measure("sheet", "-o", "sheet.png")[0] == 2
    assert "is a picture" in (err := capsys.readouterr().err) and err.count("\n") == 1
