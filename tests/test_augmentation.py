import numpy as np
import pytest
import torch

from adain_core.training import augmentation
from adain_core.training.augmentation import TRANSFORMS, augment_style

NAMES = [transform.__name__ for _, transform in TRANSFORMS]


def seeded(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def one_thread():
    """As in the workers; on pictures this small more threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def picture():
    """Smooth colours with some detail."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 56), indexing="ij")
    detail = 0.1 * torch.rand(3, 40, 56, generator=torch.Generator().manual_seed(0))
    return (0.9 * torch.stack([x, y, 1 - x * y]) + detail).clamp(0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_transforms_are_functions_of_picture_and_generator(picture, name):
    transform, before = getattr(augmentation, name), picture.clone()
    for seed in range(8):
        result = transform(picture, seeded(seed))
        assert result.shape == picture.shape and result.dtype == torch.float32 and result.isfinite().all()
        assert torch.equal(transform(picture, seeded(seed)), result)
    assert torch.equal(picture, before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 17, 64)])
def test_transforms_take_flat_and_small_pictures(name, shape):
    for seed in range(8):
        result = getattr(augmentation, name)(torch.full(shape, 0.3), seeded(seed))
        assert result.shape == shape and result.isfinite().all()


def test_styles_stay_pictures_and_half_of_them_as_they_are(picture):
    results = [augment_style(picture, seeded(seed)) for seed in range(200)]
    assert all(result.shape == picture.shape and result.min() >= 0 and result.max() <= 1 for result in results)
    assert 70 <= sum(torch.equal(result, picture) for result in results) <= 120
    torch.set_num_threads(4)
    assert all(torch.equal(augment_style(picture, seeded(seed)), results[seed]) for seed in range(0, 200, 20))


def test_colours_by_hand():
    orange = torch.tensor([1, 0.5, 0]).view(3, 1, 1).expand(3, 8, 8)
    assert augmentation.greyscale(orange, seeded())[:, 0, 0].tolist() == pytest.approx([0.5925] * 3)  # 0.299 + 0.587 / 2
    assert augmentation.invert(orange, seeded())[:, 0, 0].tolist() == [0, 0.5, 1]
    assert sorted(augmentation.permute_channels(orange, seeded(1))[:, 0, 0].tolist()) == [0, 0.5, 1]
    for seed in range(5):
        turned = augmentation.rotate_hue(orange, seeded(seed))[:, 0, 0]
        assert turned.sum().item() == pytest.approx(1.5, abs=1e-5)  # a rotation about the grey axis
        assert turned.square().sum().item() == pytest.approx(1.25, abs=1e-5)
        assert (turned - orange[:, 0, 0]).abs().max() > 0.1
        vivid = augmentation.saturate(orange, seeded(seed))
        assert vivid[0, 0, 0] > 1 and augmentation.greyscale(vivid, seeded())[0, 0, 0].item() == pytest.approx(0.5925, abs=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_contrast_rises_and_falls(picture, seed):
    assert augmentation.contrast(picture, seeded(seed)).std() > 2 * picture.std()
    assert augmentation.wash_out(picture, seeded(seed)).std(dim=(1, 2)).max() < 0.5 * picture.std(dim=(1, 2)).max() + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_posterizing_leaves_two_to_six_levels(picture, seed):
    levels = augmentation.posterize(picture, seeded(seed)).unique()
    steps = len(levels) - 1
    assert 1 <= steps <= 5
    assert levels.tolist() == pytest.approx([k / steps for k in range(steps + 1)])


@pytest.mark.parametrize("seed", range(8))
def test_gradient_maps_keep_to_a_few_directions_of_colour(seed):
    grey = torch.linspace(0, 1, 64).expand(3, 8, 64)
    mapped = augmentation.gradient_map(grey, seeded(seed))[:, 0]
    bends = mapped.diff(n=2, dim=1).abs().amax(0) > 1e-3
    assert bends[4:-4].sum() <= 2  # one bend, over two pixels, where there are three colours
    assert mapped.diff(dim=1).abs().sum() > 0


@pytest.mark.parametrize("name", ["cut_out", "pattern"])
def test_flat_styles_are_flat(name):
    """All but the edges is in at most six colours."""
    ramp = torch.linspace(0, 1, 256).expand(3, 256, 256)
    for seed in range(6):
        result = getattr(augmentation, name)(ramp, seeded(seed)).flatten(1)
        _, counts = (result * 255).round().unique(dim=1, return_counts=True)
        assert counts.sort(descending=True).values[:6].sum() > 0.5 * counts.sum()


@pytest.mark.parametrize("name", ["ink", "hatch", "stipple"])
def test_there_is_more_ink_in_the_dark(name):
    ramp = torch.linspace(0, 1, 128).expand(3, 96, 128)
    two_tones = [getattr(augmentation, name)(ramp, seeded(seed)) for seed in range(60)]
    black_on_white = [result for result in two_tones if result[0].equal(result[1]) and result[:, :, -1].mean() > 0.8]
    assert len(black_on_white) > 10
    assert all(result[:, :, :32].mean() < result[:, :, 96:].mean() - 0.2 for result in black_on_white)


def test_line_art_draws_the_edges():
    square = torch.full((3, 64, 64), 0.8)
    square[:, 16:48, 16:48] = 0.2
    results = [augmentation.line_art(square, seeded(seed)) for seed in range(40)]
    lines = [result for result in results if result[:, 2:8].min() == 1]
    assert len(lines) > 5 and all(result[:, 17:19, 30].mean() < 0.5 for result in lines)


def test_tiles_have_the_mean_colour_of_what_they_cover():
    cells = torch.tensor([[0, 0, 2], [0, 2, 2]])
    image = torch.tensor([[0.1, 0.2, 1.0], [0.3, 0.5, 0.6]]).expand(3, 2, 3)
    expected = torch.tensor([[0.2, 0.2, 0.7], [0.2, 0.7, 0.7]]).expand(3, 2, 3)
    assert torch.allclose(augmentation._cell_means(image, cells), expected)


def test_cells_without_jitter_are_squares():
    v, u = torch.meshgrid(torch.arange(24) / 8 + 1 / 16, torch.arange(32) / 8 + 1 / 16, indexing="ij")
    cells, gap = augmentation._cells(u, v, 0, seeded())
    centres = u.floor() + 10 * v.floor()
    assert all(len(centres[cells == number].unique()) == 1 for number in cells.unique())
    assert len(cells.unique()) == 12
    # at (1/16, 8/16 + 1/16) the own centre is at a distance of (7, 1) sixteenths, the second of (9, 1)
    assert gap[4, 8].item() == pytest.approx((82**0.5 - 50**0.5) / 16, abs=1e-5)
