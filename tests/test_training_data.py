import itertools
import logging
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from adain_core.errors import AdainError
from adain_core.images import load_image
from adain_core.training.data import PictureBatch, PictureFolder, decode, random_crop, stream


def noise(path, width=60, height=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def pictures(tmp_path):
    for k in range(5):
        noise(tmp_path / "pictures" / f"{k}.png", seed=k)
    return tmp_path / "pictures"


@pytest.fixture
def broken(pictures):
    """A folder of five pictures and three files that are none: text, cut off in the middle, and empty."""
    (pictures / "1-text.png").write_text("not a picture")
    (pictures / "2-short.png").write_bytes((pictures / "2.png").read_bytes()[:3000])
    (pictures / "3-empty.jpg").touch()
    return pictures


def darken(crop, rng):
    return crop * float(rng.random())


def batches(folder, count, **options):
    return [batch[0] for batch in itertools.islice(stream([folder], **options), count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_stream_does_not_depend_on_the_workers(broken, workers):
    alone, helped = (PictureFolder(broken, 16, (20, 50), darken, seed=3) for _ in range(2))
    expected, found = batches(alone, 6, batch_size=3, workers=0), batches(helped, 6, batch_size=3, workers=workers)
    assert torch.equal(torch.stack(found), torch.stack(expected))
    assert helped.broken == alone.broken and len(alone.broken) == 3


def test_the_stream_can_be_entered_anywhere(pictures):
    whole = batches(PictureFolder(pictures, 16, (20, 50), darken), 6, batch_size=2, workers=0)
    resumed = batches(PictureFolder(pictures, 16, (20, 50), darken), 3, batch_size=2, position=6, workers=0)
    assert torch.equal(torch.stack(resumed), torch.stack(whole[3:]))


def test_a_tensor_of_pictures_gives_the_crops_of_their_files(pictures):
    files = torch.cat([load_image(path) for path in sorted(pictures.iterdir())])
    found, expected = (
        kind(source, 16, (20, 50), darken, seed=2) for kind, source in ((PictureBatch, files), (PictureFolder, pictures))
    )
    assert torch.equal(batches(found, 1, batch_size=9, workers=0)[0], batches(expected, 1, batch_size=9, workers=0)[0])
    assert found.digest() == PictureBatch(files, 16).digest() != PictureBatch(files[1:], 16).digest()


def test_seeds_differ(pictures):
    first, second = (batches(PictureFolder(pictures, 16, 20, seed=seed), 1, batch_size=5, workers=0)[0] for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_no_generator_takes_is_refused(pictures, seed):
    with pytest.raises(AdainError, match=f"the seed is {seed}; give a whole number from 0"):
        PictureFolder(pictures, 16, seed=seed)


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_may_be_any_bytes(pictures):
    before = PictureFolder(pictures, 16).digest()
    path = next(pictures.iterdir())
    path.rename(path.with_name("\udce9t\udce9.png"))
    assert PictureFolder(pictures, 16).digest() != before


def test_the_global_generator_is_left_alone(pictures):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    batches(PictureFolder(pictures, 16, 20), 2, batch_size=2, workers=0)
    assert torch.equal(torch.rand(3), expected)


def test_ranks_share_the_batches_of_one_process(pictures):
    folder = PictureFolder(pictures, 16, (20, 50))
    whole = batches(folder, 4, batch_size=6, position=6, workers=0)
    ranks = [batches(folder, 4, batch_size=2, position=6, rank=rank, world_size=3, workers=0) for rank in range(3)]
    for step, batch in enumerate(whole):
        for rank in range(3):
            assert torch.equal(batch[rank::3], ranks[rank][step])


def test_an_epoch_shows_every_picture_once(tmp_path):
    for k in range(6):
        Image.new("RGB", (9, 9), (k, 0, 0)).save(tmp_path / f"{k}.png")
    folder = PictureFolder(tmp_path, 8, 8)
    epochs = [[folder[6 * epoch + k][0, 0, 0].item() for k in range(6)] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(6))] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_several_folders_come_together(pictures, tmp_path):
    noise(tmp_path / "more" / "deep.png", seed=9)
    contents, styles = PictureFolder(pictures, 16, 20), PictureFolder(tmp_path / "more", 12, 20)
    left, right = next(stream([contents, styles], 2, workers=0))
    assert left.shape == (2, 3, 16, 16) and right.shape == (2, 3, 12, 12) and left.dtype == torch.uint8
    assert torch.equal(left[1], contents[1]) and torch.equal(right[1], styles[1])


def test_folders_travel_to_spawned_workers(pictures):
    folder = PictureFolder(pictures, 16, 20, darken)
    assert torch.equal(pickle.loads(pickle.dumps(folder))[4], folder[4])


def test_the_cache_changes_nothing(pictures):
    kept, read = PictureFolder(pictures, 16, (20, 50)), PictureFolder(pictures, 16, (20, 50), cache_bytes=0)
    expected = [read[k] for k in range(15)]
    for path in pictures.iterdir():
        if path.name != "0.png":
            kept[[kept._index_of(k) for k in range(5)].index(kept.files.index(path))]
    for path in pictures.iterdir():
        path.unlink()
    assert all(torch.equal(kept[k], expected[k]) for k in range(15))
    with pytest.raises(ValueError, match="none of the 5"):
        read[0]


def test_broken_files_are_counted_while_a_worker_finds_more(broken):
    folder, ended = PictureFolder(broken, 16), threading.Event()

    def find():
        while not ended.is_set():
            folder._broken[3] = ~folder._broken[3]

    worker = threading.Thread(target=find)
    worker.start()
    try:
        assert {len(folder.broken) for _ in range(100_000)} <= {0, 1}
    finally:
        ended.set()
        worker.join()


def test_broken_files_are_replaced_by_the_next_and_counted(broken, caplog):
    folder = PictureFolder(broken, 16, 40, flip=False)
    with caplog.at_level(logging.WARNING):
        batches(folder, 2, batch_size=8, workers=1)
    assert [path.name for path in folder.broken] == ["1-text.png", "2-short.png", "3-empty.jpg"]
    assert "of 8 pictures" in caplog.text and ".png" in caplog.text
    sample = [folder.files[folder._index_of(k)].name for k in range(8)].index("2-short.png")
    Image.open(broken / "2.png").save(broken / "2-short.png")
    assert torch.equal(PictureFolder(broken, 16, 40, flip=False)[sample], folder[sample])


def test_folders_without_a_picture_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder"):
        PictureFolder(tmp_path / "none", 16)
    with pytest.raises(ValueError, match="no picture"):
        PictureFolder(tmp_path, 16)
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match="none of the 1"):
        PictureFolder(tmp_path, 16)
    noise(tmp_path / "a.png")
    assert len(PictureFolder(tmp_path, 16).broken) == 0
    with pytest.raises(ValueError, match="crop"):
        PictureFolder(tmp_path, 16, (50, 20))


@pytest.mark.parametrize("size", [(7, 5), (3, 400), (400, 3), (1, 1), (900, 700)])
def test_any_picture_fills_the_crop(tmp_path, size):
    noise(tmp_path / "pictures" / "a.png", *size)
    assert PictureFolder(tmp_path / "pictures", 24, (8, 16))[0].shape == (3, 24, 24)


def test_the_aspect_is_kept():
    """A circle stays a circle: the crop is a part of the picture resized, whatever was resampled to get it."""
    y, x = np.mgrid[:90, :150]
    picture = Image.fromarray(np.stack([x, y, x + y], 2).astype(np.uint8))
    crop = np.asarray(random_crop(picture, 45, 30, np.random.default_rng(0)))[3:-3, 3:-3].astype(float)
    assert np.diff(crop[..., 0], axis=1).mean() == pytest.approx(2, abs=0.05)
    assert np.diff(crop[..., 1], axis=0).mean() == pytest.approx(2, abs=0.05)


def test_a_crop_equals_the_crop_of_the_resized_picture():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    resized = np.asarray(picture.resize((40, 30), Image.Resampling.BICUBIC)).astype(int)
    rng = np.random.default_rng(4)
    left, top = int(rng.integers(40 - 20 + 1)), int(rng.integers(30 - 20 + 1))
    crop = np.asarray(random_crop(picture, 30, 20, np.random.default_rng(4))).astype(int)
    assert abs(crop - resized[top : top + 20, left : left + 20]).max() <= 1


def test_half_of_the_crops_are_flipped(tmp_path):
    ramp = np.zeros((8, 8, 3), np.uint8)
    ramp[:, 4:] = 255
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    left = [PictureFolder(tmp_path, 8, 8, flip=flip)[k][0, 0, 0].item() for flip in (True, False) for k in range(40)]
    assert set(left[:40]) == {0, 255} and set(left[40:]) == {0}


def test_transparency_is_composited_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (255, 0, 0, 51)).save(tmp_path / "clear.png")
    assert PictureFolder(tmp_path, 4, 8)[0][:, 0, 0].tolist() == [255, 204, 204]


def test_large_photos_are_reduced_and_turned_upright(tmp_path):
    ramp = np.zeros((600, 900, 3), np.uint8)
    ramp[:, 450:] = 255
    photo = Image.fromarray(ramp)
    exif = photo.getexif()
    exif[0x0112] = 6
    photo.save(tmp_path / "photo.jpg", exif=exif)
    picture = decode(tmp_path / "photo.jpg", 60)
    assert picture.size == (60, 90)
    assert picture.getpixel((30, 5))[0] < 5 and picture.getpixel((30, 85))[0] > 250
