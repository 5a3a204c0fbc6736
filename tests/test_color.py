import pytest
import torch

from adain_core import keep_colors, match_colors


def moments(x):
    pixels = x.flatten(2)[0]
    return pixels.mean(1), torch.cov(pixels, correction=0)


def test_mean_and_covariance_become_the_contents(device):
    mixing = torch.tensor([[0.10, 0.03, 0.0], [0.02, 0.08, 0.01], [0.0, 0.05, 0.12]])
    style = (0.5 + torch.einsum("ij,bjhw->bihw", mixing, torch.rand(1, 3, 40, 30) - 0.5)).to(device)
    content = (0.4 + 0.2 * torch.rand(1, 3, 20, 25)).to(device)
    for found, wanted in zip(moments(match_colors(style, content)), moments(content), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_matching_by_hand(device):
    # red of the style: 0.4, 0.6 (variance 0.01); of the content: 0.2, 0.6 (mean 0.4, variance 0.04): twice the contrast
    style = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2) * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    content = torch.tensor([0.2, 0.6]).view(1, 1, 1, 2) * torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    torch.testing.assert_close(match_colors(style.to(device), content.to(device)).cpu(), content)


def test_a_flat_picture_on_either_side_gives_no_wild_colours(device):
    flat, picture = torch.full((1, 3, 8, 8), 0.3, device=device), torch.rand(1, 3, 8, 8, device=device)
    torch.testing.assert_close(match_colors(flat, picture).mean((2, 3)), picture.mean((2, 3)))
    torch.testing.assert_close(match_colors(picture, flat), flat.expand_as(picture), rtol=0, atol=1e-5)


def test_grey_stays_grey_when_the_content_is_grey(device):
    grey = torch.rand(1, 1, 16, 16, device=device).expand(-1, 3, -1, -1)
    matched = match_colors(torch.rand(1, 3, 16, 16, device=device), grey)
    assert (matched.amax(1) - matched.amin(1)).max() < 1e-5


def test_luminance_of_one_and_colours_of_the_other(device):
    stylized = torch.full((1, 3, 1, 1), 0.5, device=device)
    content = torch.tensor([0.4, 0.2, 0.2], device=device).view(1, 3, 1, 1)  # luminance 0.2598
    assert keep_colors(stylized, content).flatten().tolist() == pytest.approx([0.6402, 0.4402, 0.4402], abs=1e-4)


def test_luminance_is_exact_out_of_gamut_too(device):
    stylized, content = torch.rand(2, 1, 3, 16, 16, device=device)
    content = content.round()
    weights = torch.tensor([0.299, 0.587, 0.114], device=device).view(1, 3, 1, 1)
    result = keep_colors(stylized, content)
    torch.testing.assert_close((result * weights).sum(1), (stylized * weights).sum(1))
    assert result.min() >= 0 and result.max() <= 1


def test_hidden_colours_do_not_count_where_colours_are_matched(device):
    style, content = torch.rand(1, 4, 8, 8, device=device), torch.rand(1, 4, 8, 8, device=device)
    style[:, 3, :, :4], content[:, 3, 5:] = 0, 0
    style[:, 3, :, 4:], content[:, 3, :5] = 1, 1
    other, others = style.clone(), content.clone()
    other[:, :3, :, :4], others[:, :3, 5:] = 0.9, 0.1
    found, expected = match_colors(other, others), match_colors(style, content)
    torch.testing.assert_close(found[..., 4:], expected[..., 4:])
    assert found[:, 3].equal(style[:, 3])


def test_transparency_of_the_result_is_kept_and_batches_broadcast():
    assert keep_colors(torch.rand(2, 4, 3, 3), torch.rand(1, 3, 3, 3)).shape == (2, 4, 3, 3)
    assert match_colors(torch.rand(1, 3, 3, 3), torch.rand(2, 3, 4, 4)).shape == (2, 3, 3, 3)
    with pytest.raises(ValueError, match="2 and 3 pictures"):
        match_colors(torch.rand(2, 3, 3, 3), torch.rand(3, 3, 4, 4))
    with pytest.raises(ValueError, match="same size"):
        keep_colors(torch.rand(1, 3, 3, 3), torch.rand(1, 3, 4, 4))
