"""The losses of docs/design.md, section 1, on numbers worked out by hand."""

import pytest
import torch

from adain_core.losses import consistency_loss, content_loss, gram_loss, gram_matrix, grid_loss, style_loss, total_variation
from adain_core.statistics import ChannelStatistics, channel_statistics


def features(*channels):
    """One sample of channels of 1x2 positions."""
    return torch.tensor(channels).view(1, len(channels), 1, 2)


def known_statistics(mean, std):
    mean, std = torch.tensor([mean]), torch.tensor([std])
    return ChannelStatistics(torch.tensor([[2.0]]), mean, 2 * (std**2 - 1e-5))


def test_content_loss_is_the_mean_of_squares():
    assert content_loss(features((1.0, 2.0), (3.0, 4.0)), features((1.0, 0.0), (3.0, 1.0))).item() == (4 + 9) / 4


def test_style_loss_adds_means_and_standard_deviations_of_all_layers():
    x = features((1.0, 3.0), (0.0, 8.0))  # mu 2 and 4, sigma 1 and 4
    first = known_statistics([0.0, 3.0], [2.0, 4.0])  # (4 + 1) / 2 + (1 + 0) / 2
    second = known_statistics([2.0, 4.0], [1.0, 7.0])  # 0 + (0 + 9) / 2
    assert style_loss([x], [first]).item() == pytest.approx(3.0, rel=1e-4)
    assert style_loss([x, x], [first, second]).item() == pytest.approx(7.5, rel=1e-4)
    assert style_loss([x, x], [first, second], weights=[1, 2]).item() == pytest.approx(12.0, rel=1e-4)


def test_style_loss_refuses_another_number_of_layers():
    x = features((1.0, 3.0))
    with pytest.raises(ValueError):
        style_loss([x, x], [channel_statistics(x)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_style_loss_is_exact_and_trainable_for_16_bit_features(dtype):
    x = features((1.0, 3.0)).to(dtype).requires_grad_()
    loss = style_loss([x], [known_statistics([0.0], [1.0])])  # d/dx mu^2 = 2 mu / n = 2 at each position
    loss.backward()
    assert loss.item() == pytest.approx(4.0, rel=1e-4)
    torch.testing.assert_close(x.grad.float().flatten(), torch.tensor([2.0, 2.0]), atol=0.02, rtol=0)


def test_style_loss_of_flat_features_has_a_finite_gradient():
    x = torch.ones(1, 2, 3, 3, requires_grad=True)
    style_loss([x], [known_statistics([0.0, 0.0], [1.0, 1.0])]).backward()
    assert x.grad.isfinite().all()


def test_gram_loss():
    x = features((1.0, 2.0), (3.0, 0.0))
    torch.testing.assert_close(gram_matrix(x)[0], torch.tensor([[2.5, 1.5], [1.5, 4.5]]))
    wanted = torch.tensor([[[0.5, 1.5], [1.5, 0.5]]])
    assert gram_loss([x], [wanted]).item() == pytest.approx((4 + 16) / 4)
    assert gram_loss([x, x], [wanted, gram_matrix(x)], weights=[0.5, 3]).item() == pytest.approx(2.5)


def test_gram_matrix_does_not_depend_on_the_size():
    x = torch.rand(1, 3, 4, 5)
    torch.testing.assert_close(gram_matrix(x.repeat(1, 1, 2, 3)), gram_matrix(x))


def test_total_variation():
    image = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).view(1, 1, 2, 2)  # vertical 0.5 and 0.5, horizontal 1 and 0
    assert total_variation(image).item() == 1.0


def test_grid_loss_is_of_what_repeats_and_fine():
    mesh = torch.zeros(1, 1, 32, 32)
    mesh[:, :, ::2, ::2] = 0.4
    assert grid_loss(mesh).item() == pytest.approx(0.16 * 3 / 16, rel=0.02)  # the variance of one pixel in four
    assert grid_loss(torch.rand(1, 1, 512, 512)).item() < 0.001
    assert grid_loss(torch.linspace(0, 1, 256).expand(1, 3, 256, 256)).item() < 1e-4


@pytest.mark.parametrize("offset", [(0, 0), (2, 3), (-1, 2), (0, -3)])
def test_consistency_loss_finds_the_overlap(offset):
    plane = torch.rand(2, 3, 20, 20)
    top, left = 5 + offset[0], 5 + offset[1]
    images, shifted = plane[:, :, 5:15, 5:15], plane[:, :, top : top + 8, left : left + 9]
    assert consistency_loss(images, shifted, offset).item() == 0
    assert consistency_loss(images, shifted + 0.5, offset).item() == pytest.approx(0.25)


def test_consistency_loss_refuses_pictures_that_do_not_meet():
    with pytest.raises(ValueError, match="overlap"):
        consistency_loss(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), (4, 0))
