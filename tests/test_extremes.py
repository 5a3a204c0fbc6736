"""Numbers beyond float16 make no NaN."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from adain_core import adain, channel_statistics, encode_style, load_decoder, load_encoder, load_style, stylize
from adain_core.statistics import ChannelStatistics


@pytest.fixture(params=["float16", "float32"])
def lite(device, request):
    return load_encoder("lite", device, request.param), load_decoder("lite", device, request.param)


@pytest.fixture
def content():
    return torch.nn.functional.interpolate(torch.rand(1, 3, 4, 6), (16, 24), mode="bicubic").clamp(0, 1)


def with_statistics(style, mean: float, std: float):
    """The style with these statistics in every channel."""

    def change(level: ChannelStatistics) -> ChannelStatistics:
        signs = torch.where(torch.arange(level.mean.shape[1]) % 2 == 0, 1.0, -1.0)
        return ChannelStatistics(level.count, mean * signs.expand_as(level.mean), level.count * std**2 + 0 * level.m2)

    parts = [dataclasses.replace(part, levels=tuple(map(change, part.levels))) for part in style.to("cpu").components]
    return dataclasses.replace(style, components=tuple(parts))


@pytest.mark.parametrize(("mean", "std"), [(1e5, 1.0), (1.0, 1e5), (9e5, 9e5)])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_statistics_of_a_style_file_beyond_float16(lite, content, device, tmp_path, mean, std, alpha):
    extreme = with_statistics(encode_style(lite[0], content.to(device)), mean, std)
    extreme.save(tmp_path / "extreme.safetensors")
    extreme = load_style(tmp_path / "extreme.safetensors")
    result = stylize(*lite, content.to(device), extreme, alpha)
    assert torch.isfinite(result).all() and result.shape == content.shape
    exact = stylize(
        load_encoder("lite", device, "float32"), load_decoder("lite", device, "float32"), content.to(device), extreme, alpha
    )
    assert (result - exact).abs().mean() < 0.02


@pytest.mark.parametrize("alpha", [1.0, 0.3])
@pytest.mark.parametrize("size", [1e3, 1e6])
def test_contents_and_styles_far_outside_of_pictures(lite, content, device, size, alpha):
    style = encode_style(lite[0], content.flip(3).to(device))
    for pictures, styles in ((content * size, style), (content, encode_style(lite[0], content.to(device) * size))):
        result = stylize(*lite, pictures.to(device), styles, alpha)
        assert torch.isfinite(result).all() and 0 <= result.min() and result.max() <= 1
    flat = torch.full((1, 3, 16, 16), size)
    assert torch.isfinite(stylize(*lite, flat.to(device), style, alpha)).all()


def test_usual_pictures_are_computed_in_float16(content, monkeypatch):
    encoder, used = load_encoder("lite", "cpu", "float16"), []
    activations = encoder.activations
    monkeypatch.setattr(encoder, "activations", lambda x, *rest: used.append(x.dtype) or activations(x, *rest))
    encoder.encode(content)
    assert used == [torch.float32, torch.float16]  # the mean colour, and the difference from it


def test_pixels_that_overflow_even_float32_are_refused(lite, content, device):
    style = encode_style(lite[0], content.to(device))
    for value in (1e7, -1e30):
        spoilt = content.clone()
        spoilt[0, 0, 0, 0] = value
        with pytest.raises(ValueError, match="the content picture holds pixels from .*; they are to be from 0 to 1"):
            stylize(*lite, spoilt.to(device), style)
        with pytest.raises(ValueError, match="the style picture holds pixels from"):
            encode_style(lite[0], spoilt.to(device))


def test_features_in_float16_stay_within_its_range(device):
    x = torch.randn(1, 4, 8, 8, device=device, dtype=torch.float16)
    statistics = channel_statistics(torch.randn(1, 4, 8, 8, device=device) * 1e5 + 1e5)
    result = adain(x, statistics)
    assert result.dtype == torch.float16 and torch.isfinite(result).all() and result.max() == 65504
