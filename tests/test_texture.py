"""The texture that a decoder paints flat areas with: docs/design.md, section 1."""

from __future__ import annotations

import pytest
import torch

from adain_core import encode_style, stylize
from adain_core.evaluation.plain import relative_error
from adain_core.networks import texture
from adain_core.networks.student import StudentDecoder, StudentEncoder
from adain_core.networks.texture import Texture


@pytest.fixture
def student(device):
    channels = [8, 12, 16]
    networks = (
        StudentEncoder({"channels": channels, "blocks": [0, 1, 2]}),
        StudentDecoder({"channels": channels, "blocks": [1, 2, 2]}),
    )
    for seed, network in enumerate(networks):
        network.initialize(seed)
        network.eval().requires_grad_(False).to(device)
    return networks


def test_numbers_have_mean_0_and_deviation_1_and_do_not_repeat(device):
    numbers = Texture(seed=3).at(2, 8, torch.empty(1, 5, 256, 256, device=device))[0].cpu()
    assert numbers.mean().abs() < 0.01 and (numbers.std() - 1).abs() < 0.01
    assert torch.corrcoef(numbers.flatten(1)).fill_diagonal_(0).abs().max() < 0.02
    power = torch.fft.fft2(numbers).abs().square() / 256**2
    assert power.max() < 20  # of white noise half a million values are all below


def test_a_number_depends_on_its_place_alone(device):
    whole = Texture(seed=7).at(4, 3, torch.empty(2, 1, 40, 50, device=device))
    part = Texture(seed=7, top=4 * 11, left=4 * 23).at(4, 3, torch.empty(1, 1, 6, 9, device=device))
    assert part.equal(whole[:, :, 11:17, 23:32])
    assert torch.equal(Texture(seed=7).at(4, 2, whole), whole[:, :2])
    assert not torch.equal(Texture(seed=8).at(4, 3, whole), whole)


def test_seeds_have_nothing_in_common(device):
    like = torch.empty(1, 1, 64, 64, device=device)
    first, second = (Texture(seed=seed).at(2, 8, like)[0].flatten(1) for seed in (0, 1))
    together = torch.corrcoef(torch.cat([first, second]))[:8, 8:]
    assert together.abs().max() < 0.1  # of 4096 numbers that are independent, six deviations


def test_large_textures_are_not_kept(device):
    before = texture._kept_numbers.cache_info()
    Texture().at(2, 8, torch.empty(1, 1, 520, 520, device=device))
    assert texture._kept_numbers.cache_info() == before


def test_a_texture_is_the_same_in_tiles_and_in_other_number_types(student):
    content = torch.rand(1, 3, 131, 203)
    style = encode_style(student[0], torch.rand(1, 3, 48, 56), size=0)
    whole, tiled = (stylize(*student, content, style, tile=tile, seed=5) for tile in (0, 64))
    assert relative_error(tiled, whole) < 1e-4
    half = [network.copy_for(next(network.parameters()).device, torch.bfloat16, plain=False) for network in student]
    assert relative_error(stylize(*half, content, style, seed=5), whole) < 0.03


def test_seeds_differ_and_a_strength_of_0_is_the_plain_picture(student):
    encoder, decoder = student
    content, style = torch.rand(1, 3, 40, 56), encode_style(encoder, torch.rand(1, 3, 48, 56), size=0)
    first, second = (stylize(encoder, decoder, content, style, seed=seed) for seed in (0, 1))
    without = [stylize(encoder, decoder, content, style, texture=0.0, seed=seed) for seed in (0, 1)]
    assert without[0].equal(without[1]) and not first.equal(second)
    for mix in decoder.mix:
        mix.weight.zero_()
    torch.testing.assert_close(stylize(encoder, decoder, content, style), without[0])
    with pytest.raises(ValueError, match="texture is 1.5"):
        stylize(encoder, decoder, content, style, texture=1.5)
