"""Tiled equals untiled: docs/design.md, section 6."""

from types import SimpleNamespace

import pytest
import torch

from adain_core import decode, encode_style, mix_styles, stylize, tiling, transfer
from adain_core.evaluation import plain
from adain_core.networks.student import StudentDecoder, StudentEncoder
from adain_core.networks.vgg import VGGDecoder, VGGEncoder
from adain_core.progress import showing
from adain_core.stylize import DeferredFeatures
from adain_core.tiling import Plan, Window, plan


def random_networks(kind, device):
    """An encoder and a decoder with random weights."""
    if kind == "vgg19":
        pair = VGGEncoder({}), VGGDecoder({})
    else:
        pair = (
            StudentEncoder({"channels": [8, 12, 16], "blocks": [0, 1, 2]}),
            StudentDecoder({"channels": [8, 12, 16], "blocks": [1, 2, 1]}),
        )
    for seed, network in enumerate(pair):
        network.initialize(seed)
        network.eval().requires_grad_(False).to(device)
    return pair


def masked_mix(encoder):
    """Two styles in two regions that fade into each other, and none in a corner."""
    ramp = torch.linspace(0, 1, 50).expand(40, 50)
    styles = [encode_style(encoder, torch.rand(1, 3, 48, 56) * scale, size=0) for scale in (1.0, 0.4)]
    corner = ramp.clone()
    corner[:20, :10] = 0
    return mix_styles([styles[0].masked(corner), styles[1].masked((1 - ramp).clamp(max=0.7))], [0.3, 0.7])


@pytest.mark.parametrize("mode", ["image", "region"])
@pytest.mark.parametrize("kind, tile, size", [
    ("vgg19", 64, (97, 131)), ("student", 64, (131, 203)), ("student", 100, (75, 310)), ("student", 128, (257, 129)),
])  # fmt: skip
def test_tiled_equals_untiled(kind, tile, size, mode, device):
    encoder, decoder = random_networks(kind, device)
    content, style = torch.rand(1, 3, *size), masked_mix(encoder)
    whole, tiled = (stylize(encoder, decoder, content, style, 0.9, mode, tile=t) for t in (0, tile))
    assert isinstance(transfer(encoder, content, style, tile=tile), DeferredFeatures)
    assert tiled.shape == content.shape
    assert whole.std() > 0.01
    assert plain.relative_error(tiled.cpu(), whole.cpu()) < 1e-4


@pytest.mark.parametrize("mode", ["image", "batch", "running"])
def test_a_clip_in_tiles_equals_the_clip_whole(mode, device):
    encoder, decoder = random_networks("student", device)
    content = torch.rand(3, 4, 70, 90) * torch.linspace(0.3, 1, 3)[:, None, None, None]
    style = masked_mix(encoder)
    whole, tiled = (stylize(encoder, decoder, content, style, content_statistics=mode, half_life=2, tile=t) for t in (0, 64))
    assert plain.relative_error(tiled.cpu(), whole.cpu()) < 1e-4
    # features at hand are decoded in tiles as well as those that are deferred
    features = transfer(encoder, content, style, content_statistics=mode, half_life=2, tile=0)
    assert plain.relative_error(decode(decoder, features, tile=64).cpu(), whole.cpu()) < 1e-4


def test_one_content_in_many_styles_can_be_tiled(device):
    encoder, decoder = random_networks("student", device)
    content = torch.rand(1, 3, 70, 90)
    styles = encode_style(encoder, torch.rand(3, 3, 40, 40) * torch.linspace(0.2, 1, 3)[:, None, None, None], 0, "each")
    whole, tiled = (stylize(encoder, decoder, content, styles, tile=t) for t in (0, 64))
    assert whole.shape == (3, 3, 70, 90)
    assert plain.relative_error(tiled.cpu(), whole.cpu()) < 1e-4


@pytest.mark.parametrize("kind", ["vgg19", "student"])
def test_halos_are_as_large_as_they_must_be_and_no_larger(kind):
    encoder, decoder = random_networks(kind, "cpu")
    side, stride = (128 if kind == "vgg19" else 256), decoder.stride
    middle = side // 2
    for network in (encoder, decoder):
        network.plain = True
        if network is encoder:
            x = torch.rand(1, 3, side, side).requires_grad_()
            output = encoder.encode(x)[-1][0, :, middle // stride, middle // stride].square().sum()
        else:
            levels = [torch.rand(1, level.channels, *[side // level.stride] * 2) for level in encoder.levels]
            x = levels[-1].requires_grad_()
            output = decoder(levels)[0, :, middle : middle + stride, middle : middle + stride].square().sum()
        (gradient,) = torch.autograd.grad(output, x)
        seen = gradient[0].abs().sum((0, 1)).nonzero().flatten()
        scale = 1 if network is encoder else stride
        reach = max(middle // scale - seen.min().item(), seen.max().item() + 1 - middle // scale - stride // scale) * scale
        assert network.halo - stride < reach <= -(-network.halo // stride) * stride


def test_the_plan_follows_the_free_memory(monkeypatch):
    sample = torch.empty(0)
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 40)
    assert plan(None, 1, (4000, 3000), 32, 64, sample) == Plan(1, 4000)
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 30)
    automatic = plan(None, 1, (4000, 3000), 32, 64, sample)
    assert 64 <= automatic.side < 1024
    assert (automatic.side + 2 * 32) ** 2 * 64 * 4 * 4 <= 1 << 29
    assert plan(0, 1, (4000, 3000), 32, 64, sample).side == 4000
    assert plan(300, 1, (4000, 3000), 32, 64, sample).side == 300
    with pytest.raises(ValueError, match="tile is 3"):
        plan(3, 1, (4000, 3000), 32, 64, sample)


@pytest.mark.parametrize("kind, most", [("cuda", 1 << 31), ("mps", 1 << 30)], ids=["cuda", "mps"])
def test_a_gpu_with_much_memory_gets_no_tensor_that_is_too_large_for_it(monkeypatch, kind, most):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 40)
    sample = SimpleNamespace(device=torch.device(kind), element_size=lambda: 4)
    whole = plan(None, 1, (20_000, 20_000), 32, 64, sample)
    assert 4096 / 2 < whole.side and (whole.side + 2 * 32 + 2) ** 2 * 64 < most
    many = plan(None, 100, (1024, 1024), 32, 64, sample)
    assert many.side == 1024 and 1 < many.pictures and many.pictures * 1026**2 * 64 < most


def test_16_bits_need_half_the_memory(monkeypatch, networks):
    monkeypatch.setattr(tiling, "free_memory", lambda device: 1 << 30)
    encoder = networks[0]
    sides = []
    for encoder.dtype in (torch.float32, torch.bfloat16):
        sides.append(plan(None, 1, (9000, 9000), encoder.halo, encoder.values_per_pixel, encoder.sample()).side)
    assert sides[1] > 1.3 * sides[0]


def test_windows_cover_a_picture_once():
    seen = torch.zeros(37, 50)
    for window in Plan(1, 16).windows((37, 50), 8):
        assert window.top % 8 == window.left % 8 == 0
        seen[window.positions(1)] += 1
    assert seen.eq(1).all()
    assert Window(16, 32, 0, 16).grow(5, 8, (37, 50)) == Window(8, 37, 0, 24)


def test_memory_that_runs_out_is_tried_with_less():
    tried = []

    def work(attempt):
        tried.append(attempt)
        if len(tried) < 4:
            raise RuntimeError("CUDA out of memory.")
        return "done"

    assert tiling.run_in_memory(work, Plan(2, 512)) == "done"
    assert tried == [Plan(2, 512), Plan(1, 512), Plan(1, 256), Plan(1, 128)]
    with pytest.raises(RuntimeError, match="out of memory"):
        tiling.run_in_memory(lambda attempt: (_ for _ in ()).throw(RuntimeError("out of memory")), Plan(1, 64))
    with pytest.raises(RuntimeError, match="another reason"):
        tiling.run_in_memory(lambda attempt: (_ for _ in ()).throw(RuntimeError("another reason")), Plan(2, 512))


def test_progress_is_told_between_tiles_and_can_end_the_work(device):
    encoder, decoder = random_networks("student", device)
    content, seen = torch.rand(1, 3, 70, 130), []
    style = encode_style(encoder, torch.rand(1, 3, 40, 40), size=0)

    def show(done, total, pictures):
        seen.append((done, total, None if pictures is None else tuple(pictures.shape)))
        if len(seen) == 12:
            raise InterruptedError

    with showing(show), pytest.raises(InterruptedError):
        stylize(encoder, decoder, content, style, tile=64)
    tiles = [(64, 64), (64, 64), (64, 2), (6, 64)]
    assert seen == [(k, 6, None) for k in range(7)] + [(0, 6, None)] + [(k, 6, (1, 3, *t)) for k, t in enumerate(tiles, 1)]
    assert stylize(encoder, decoder, content, style, tile=64).shape == content.shape and len(seen) == 12
