"""Encoder, decoder and the whole way, against the plain implementation: docs/design.md, section 1, and of 16 bits section 7."""

import weakref

import pytest
import torch
from safetensors.torch import load_file

from adain_core import decode, encode_style, load_decoder, load_encoder, mix_styles, stylize, transfer
from adain_core.evaluation import plain
from adain_core.networks import base, fast


@pytest.fixture(scope="module", params=["random", "reference"])
def states(request):
    if request.param == "reference":
        folder = request.getfixturevalue("reference")
        return [
            {name: tensor.float() for name, tensor in load_file(folder / f"{role}.safetensors").items()}
            for role in ("vgg_normalised", "decoder")
        ]
    torch.manual_seed(3)
    networks = plain.encoder(), plain.decoder()
    for network in networks:
        for module in network:
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    return [network.state_dict() for network in networks]


@pytest.fixture(scope="module")
def plain_networks(states):
    networks = plain.encoder(), plain.decoder()
    for network, state in zip(networks, states, strict=True):
        network.load_state_dict(state)
    return networks


@pytest.fixture(scope="module")
def files(states, tmp_path_factory):
    paths = [tmp_path_factory.mktemp("public") / name for name in ("vgg.pth", "decoder.pth")]
    for path, state in zip(paths, states, strict=True):
        torch.save(state, path)
    return [str(path) for path in paths]


@pytest.fixture
def networks(files, states, device):
    encoder, decoder = load_encoder(files[0], device, "float32"), load_decoder(files[1], device, "float32")
    decoder.encoder_fingerprint = encoder.fingerprint  # random weights are not the paper's
    return encoder, decoder


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(4)
    low = torch.nn.functional.interpolate(torch.rand(3, 3, 24, 30), (256, 320), mode="bicubic")
    return (low + 0.1 * torch.randn_like(low)).clamp(0, 1)


def test_features_equal_the_plain_ones(networks, plain_networks, pictures):
    found = networks[0].features(pictures[:1].to(networks[0].conv1_1.weight), networks[0].loss_layers)
    x, wanted = pictures[:1], {}
    for index, module in enumerate(plain_networks[0]):
        x = module(x)
        wanted[index] = x
    for features, index in zip(found, (3, 10, 17, 30), strict=True):
        assert plain.relative_error(features.cpu(), wanted[index]) < 2e-5


def test_stylising_alpha_and_mix_equal_the_plain_ones(networks, plain_networks, pictures):
    encoder, decoder = networks
    content, first, second = pictures.split(1)
    f, g = plain_networks
    fc, f1, f2 = f(content), f(first), f(second)
    t1, t2 = plain.adain(fc, f1), plain.adain(fc, f2)
    styles = [encode_style(encoder, picture, size=0) for picture in (first, second)]
    mix = mix_styles(styles, [0.3, 0.7])
    for style, alpha, target in ((styles[0], 1.0, t1), (styles[0], 0.5, 0.5 * t1 + 0.5 * fc), (mix, 1.0, 0.3 * t1 + 0.7 * t2)):
        features = transfer(encoder, content, style, alpha)
        assert plain.relative_error(features.levels[0].cpu(), target) < 2e-5
        assert plain.relative_error(decode(decoder, features, residual=False).cpu(), g(target).clamp(0, 1)) < 2e-5


@pytest.mark.parametrize("size", [(130, 33), (97, 40)])
def test_bands_of_rows_change_nothing(networks, size, monkeypatch):
    picture = torch.rand(2, 3, *size)
    with torch.no_grad():
        features = networks[0].encode(picture.to(networks[0].conv1_1.weight))
        pictures = networks[1](features)
        monkeypatch.setattr(fast, "BAND", 1)
        monkeypatch.setattr(fast, "BAND_ROWS", 16)
        assert plain.relative_error(networks[0].encode(picture.to(features[0]))[0], features[0]) < 1e-5
        assert plain.relative_error(networks[1](features), pictures) < 1e-5


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (16, 500), (33, 8)])
def test_any_size_comes_back(networks, pictures, size):
    style = encode_style(networks[0], pictures[:1], size=64)
    result = stylize(*networks, torch.rand(1, 3, *size), style)
    assert result.shape == (1, 3, *size) and result.isfinite().all()
    assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (37, 50)])
def test_any_size_comes_back_from_a_small_network(small, size):
    style = encode_style(small[0], torch.rand(1, 3, 40, 30), size=0)
    result = stylize(*small, torch.rand(2, 3, *size), style)
    assert result.shape == (2, 3, *size) and result.isfinite().all()


def test_an_unknown_layer_is_named(networks):
    """Before any work: pictures of a shape that no layer takes are not looked at."""
    with pytest.raises(ValueError, match="relu5_1"):
        networks[0].features(torch.rand(7), ["relu1_1", "relu5_1"])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_stay_near_float32(files, states, dtype, device, pictures):
    full, half = (load_encoder(files[0], device, d) for d in ("float32", dtype))
    picture = pictures[:1, :, :64, :64].to(device)
    assert half.dtype == getattr(torch, dtype) and half.fingerprint == full.fingerprint
    assert plain.relative_error(half.encode(picture)[0], full.encode(picture)[0]) < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bits_keep_the_picture_of_fog(reference, pictures, dtype, device):
    """A twentieth of the contrast, which AdaIN enlarges with all that rounding has done to it."""
    files = str(reference / "vgg_normalised.safetensors"), str(reference / "decoder.safetensors")
    (full, decoder), (half, half_decoder) = (
        (load_encoder(files[0], device, d), load_decoder(files[1], device, d)) for d in ("float32", dtype)
    )
    style = encode_style(full, pictures[1:2], size=0)
    content = pictures[:1, :, :64, :64] / 20 + 0.6
    wanted, found = stylize(full, decoder, content, style), stylize(half, half_decoder, content, style)
    assert -10 * (found - wanted).square().mean().log10() > 42


def test_a_flat_picture_is_computed_once_for_each_colour_and_anew_for_other_weights(small, monkeypatch):
    full = small[0].copy_for(torch.device("cpu"), plain=False)
    half, computed = small[0].copy_for(torch.device("cpu"), torch.bfloat16, plain=False), []
    activations = half.activations
    monkeypatch.setattr(half, "activations", lambda x, *rest: computed.append(x.shape[2:]) or activations(x, *rest))
    dark, light = 0.01 * torch.rand(2, 1, 3, 32, 48) + torch.tensor([0.2, 0.8])[:, None, None, None, None]
    one, whole = (1, 1), (32, 48)
    with torch.no_grad():
        for picture, expected in ((dark, [one, whole]), (light, [one, whole]), (dark.flip(2), [whole]), (light, [whole])):
            computed.clear()
            assert plain.relative_error(half.encode(picture)[-1], full.encode(picture)[-1]) < 0.01
            assert computed == expected
        for network in (half, full):
            for parameter in network.parameters():
                parameter.mul_(0.9)
        computed.clear()
        assert plain.relative_error(half.encode(dark)[-1], full.encode(dark)[-1]) < 0.01
        assert computed == [one, whole]
        monkeypatch.setattr(base, "KEPT_COLORS", 2)
        for grey in (0.1, 0.5, 0.9, 0.1):
            computed.clear()
            half.encode(torch.full((1, 3, 32, 48), grey))
        assert computed == [one, whole]  # those kept before had to go
    freed = full.copy_for(torch.device("cpu"), torch.bfloat16, plain=False)
    freed.encode(dark)
    reference = weakref.ref(freed)
    del freed
    assert reference() is None  # at once, and its memory with it


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "for use"])
def test_autocast_changes_nothing_in_sixteen_bits(small, plain, device):
    encoder, decoder = (network.copy_for(torch.device(device), torch.bfloat16, plain) for network in small)
    fog = (0.4 + 0.01 * torch.rand(1, 3, 32, 48)).to(device)
    with torch.no_grad():
        levels = encoder.encode(fog)
        picture = decoder(levels)
        with torch.autocast(device, torch.bfloat16):
            assert all(map(torch.equal, encoder.encode(fog), levels))
            assert decoder(levels).equal(picture)


def test_a_copy_of_a_network_in_sixteen_bits_is_exact(small, small_files):
    half = load_encoder(str(small_files[0]), small[0].conv[0][0].weight.device, "bfloat16")
    copied, picture = half.copy_for(half.conv[0][0].weight.device), torch.rand(1, 3, 16, 16).to(half.conv[0][0].weight)
    assert copied.dtype == torch.float32 and copied.encode(picture)[0].equal(small[0].encode(picture)[0])


def test_tf32_is_as_before_after_a_call(small, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []
    small[0].plain = True
    small[0].conv[0][0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    encode_style(small[0], torch.rand(1, 3, 8, 8))
    assert seen == [False] and torch.backends.cudnn.allow_tf32


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this PyTorch has the older flag only")
@pytest.mark.parametrize("precision", ["tf32", "ieee"])
def test_a_host_may_have_set_the_newer_flag_of_tf32(small, precision):
    flags, seen = torch.backends.cudnn.conv, []
    before, flags.fp32_precision = flags.fp32_precision, precision
    try:
        small[0].plain = True
        small[0].conv[0][0].register_forward_hook(lambda *_: seen.append(flags.fp32_precision))
        encode_style(small[0], torch.rand(1, 3, 8, 8))
        assert seen == ["ieee"] and flags.fp32_precision == precision
    finally:
        flags.fp32_precision = before
