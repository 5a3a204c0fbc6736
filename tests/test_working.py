"""Pictures worked on at a smaller size: docs/design.md, section 1."""

from __future__ import annotations

import pytest
import torch
from root import ROOT

from adain_core import color, encode_style, load_decoder, load_encoder, stylize
from adain_core.images import load_image, resize, resize_to
from adain_core.working import add_detail


@pytest.fixture(scope="module")
def lite():
    return load_encoder(dtype="float32"), load_decoder(dtype="float32")


@pytest.fixture(scope="module")
def photo():
    """Eight photographs beside each other: one with twice the detail that it is worked at."""
    pictures = [load_image(path) for path in sorted((ROOT / "workflows" / "pictures" / "contents").glob("*.jpg"))]
    return torch.cat([torch.cat(pictures[:4], 3), torch.cat(pictures[4:], 3)], 2)


@pytest.fixture(scope="module")
def painting():
    return load_image(ROOT / "workflows" / "pictures" / "styles" / "strokes.jpg")


def psnr(a, b):
    return -10 * (a - b).square().mean().log10().item()


def sharpness(picture):
    return picture.diff(dim=-1).abs().mean().item()


def test_the_strokes_are_those_of_the_working_size_and_the_detail_is_the_photos(lite, photo, painting):
    style = encode_style(lite[0], painting)
    small = resize(photo, 192)
    result = stylize(*lite, photo, style, working_size=192)
    at_size, full = stylize(*lite, small, style), stylize(*lite, photo, style)
    assert result.shape == photo.shape
    assert psnr(resize_to(result, small.shape[2:]), at_size) > 26 > psnr(resize_to(full, small.shape[2:]), at_size)
    enlargement = resize_to(at_size, photo.shape[2:])
    assert sharpness(result) > 1.1 * sharpness(enlargement)
    torch.testing.assert_close(stylize(*lite, photo, style, working_size=192, detail=0.0), enlargement)


def test_the_detail_is_of_brightness_by_the_formula(small):
    content, style = torch.rand(2, 3, 50, 70), encode_style(small[0], torch.rand(1, 3, 20, 20) * 0.5)
    reduced = resize(content, 32)
    y = stylize(*small, reduced, style, content_statistics="batch")
    result = stylize(*small, content, style, content_statistics="batch", working_size=32, detail=0.5)
    up, beyond = resize_to(y, (50, 70)), content - resize_to(reduced, (50, 70))
    torch.testing.assert_close(result, (up + 0.5 * color.luma(beyond)).clamp(0, 1))


def test_pictures_that_are_no_larger_are_worked_on_as_they_are(small):
    content, style = torch.rand(1, 3, 50, 70), encode_style(small[0], torch.rand(1, 3, 20, 20))
    for size in (0, 50, 1024):
        assert stylize(*small, content, style, working_size=size).equal(stylize(*small, content, style))


def test_the_content_is_kept_where_nothing_is_stylised(small):
    content, mask = torch.rand(2, 4, 60, 80).clamp(min=0.1), torch.zeros(2, 1, 60, 80)
    mask[0, ..., 40:] = mask[1, :, :30] = 1
    style = encode_style(small[0], torch.rand(1, 3, 20, 20) * 0.3)
    result = stylize(*small, content, style.masked(mask), working_size=32)
    outside = mask.expand_as(content) == 0
    assert result[outside].equal(content[outside]) and result[:, 3:].equal(content[:, 3:])
    assert not torch.allclose(result[0, :3, :, 40:], content[0, :3, :, 40:], atol=0.1)
    assert stylize(*small, content, style, alpha=0.0, working_size=32).equal(content)


def test_in_between_the_detail_returns_with_the_content():
    content, blurred, picture = torch.rand(3, 1, 3, 9, 9).split(1)
    content, blurred, picture = content[0] / 4 + 0.3, blurred[0] / 4 + 0.3, picture[0] / 4 + 0.3
    beyond = content - blurred
    expected = picture + 0.25 * 0.5 * color.luma(beyond) + 0.75 * beyond
    found = add_detail(picture.clone(), content, blurred.clone(), torch.full((1, 1, 1, 1), 0.25), 0.5)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options, reason", [({"working_size": -1}, "size is -1"), ({"detail": 1.5}, "detail is 1.5")])
def test_settings_out_of_range_are_refused(small, options, reason):
    style = encode_style(small[0], torch.rand(1, 3, 20, 20))
    with pytest.raises(ValueError, match=reason):
        stylize(*small, torch.rand(1, 3, 50, 70), style, **options)
