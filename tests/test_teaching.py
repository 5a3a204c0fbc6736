"""Teaching a small encoder to see as the loss network sees."""

import dataclasses
import shutil

import pytest
import torch

from adain_core import encode_style, load_decoder, load_encoder, stylize
from adain_core.images import save_image
from adain_core.networks.student import StudentEncoder
from adain_core.training import TrainingConfig, train
from adain_core.training.teaching import EncoderObjective
from adain_core.weights import read_network


@pytest.fixture
def config(vgg, tmp_path, device):
    for folder in ("contents", "styles"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            save_image(torch.rand(3, 40, 50), tmp_path / folder / f"{index}.png")
    return TrainingConfig(
        tmp_path / "contents", tmp_path / "styles", tmp_path / "out", str(vgg), "pupil", stage="encoder", channels=(4, 6, 8),
        blocks=(0, 1, 1), steps=8, batch_size=2, crop_size=32, resize_content=(32, 40), resize_style=(32, 40), ema=0.9,
        learning_rate=3e-3, workers=0, log_every=2, save_minutes=0, precision="float32", device=device,
    )  # fmt: skip


def test_an_encoder_learns_and_a_decoder_is_trained_for_it_in_the_same_folder(config):
    result = train(dataclasses.replace(config, steps=40, learning_rate=1e-2))
    assert result.decoder is None and set(result.losses) == {"relu2_1", "relu3_1", "relu4_1"}
    for shares in result.losses.values():
        assert sum(shares[-4:]) < sum(shares[:4])
    encoder = load_encoder(str(result.encoder))
    second = dataclasses.replace(
        config, stage="decoder", channels=(), blocks=(1, 1, 1), encoder=str(result.encoder), steps=2
    )
    decoder = load_decoder(str(train(second).decoder))
    picture = torch.rand(1, 3, 45, 37)
    assert stylize(encoder, decoder, picture, encode_style(encoder, torch.rand(1, 3, 40, 40), 0)).shape == picture.shape


@pytest.fixture
def taught(config, tmp_path):
    """An encoder that was taught and a decoder for it, as `start_from`, and a configuration that goes on with both."""
    encoder = train(dataclasses.replace(config, output=tmp_path / "taught")).encoder
    alone = dataclasses.replace(config, stage="decoder", channels=(), blocks=(1, 1, 1), encoder=str(encoder), steps=2)
    train(dataclasses.replace(alone, output=tmp_path / "pair"))
    shutil.copy(encoder, tmp_path / "pair")
    both = dataclasses.replace(config, stage="both", channels=(), blocks=(), start_from=str(tmp_path / "pair" / "pupil"))
    return dataclasses.replace(both, pairings=2)


def test_both_are_trained(taught):
    result = train(taught)
    encoder, decoder = load_encoder(str(result.encoder)), load_decoder(str(result.decoder))
    assert set(result.losses) == {"content", "map", "style"}
    assert decoder.encoder_fingerprint == encoder.fingerprint
    assert encoder.fingerprint != load_encoder(f"{taught.start_from}-encoder.safetensors").fingerprint


def test_a_flat_area_without_texture_has_no_checkerboard(taught):
    result = train(dataclasses.replace(taught, learning_rate=1e-2))
    encoder, decoder = load_encoder(str(result.encoder)), load_decoder(str(result.decoder))
    style = encode_style(encoder, torch.rand(1, 3, 40, 40), 0)
    picture = stylize(encoder, decoder, torch.full((1, 3, 40, 40), 0.6), style, texture=0)
    assert picture.std((2, 3)).max() < 1e-3  # the file is of float16


def test_the_map_keeps_an_encoder_seeing_as_the_loss_encoder_does(taught):
    alone = dataclasses.replace(taught, content_weight=0.0, style_weight=0.0, steps=40, learning_rate=1e-2)
    shares = train(alone).losses["map"]
    assert sum(shares[-4:]) < sum(shares[:4])


def test_both_go_on_from_a_checkpoint_to_the_same_losses(taught, tmp_path):
    whole = train(dataclasses.replace(taught, output=tmp_path / "whole"))
    train(dataclasses.replace(taught, steps=4))
    resumed = train(taught)
    for name, values in whole.losses.items():
        assert resumed.losses[name] == pytest.approx(values, rel=1e-4)


@pytest.mark.parametrize(("changes", "message"), [
    ({"start_from": ""}, "begin with some that were trained"),
    ({"channels": (4, 6, 8)}, "both networks are those of start_from"),
])  # fmt: skip
def test_both_without_networks_to_begin_with(taught, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(taught, **changes)


@pytest.mark.parametrize("pairings", [1, 2])
def test_a_stopped_teaching_goes_on_to_the_same_losses(config, tmp_path, pairings):
    config = dataclasses.replace(config, pairings=pairings)
    whole = train(config)
    broken_off = dataclasses.replace(config, output=tmp_path / "stopped")
    train(dataclasses.replace(broken_off, steps=4))
    resumed = train(broken_off)
    assert resumed.steps == whole.steps
    for name, shares in whole.losses.items():
        assert resumed.losses[name] == pytest.approx(shares, rel=1e-4)
    found, wanted = (read_network(result.encoder).state for result in (resumed, whole))
    torch.testing.assert_close(found, wanted)


def objective(vgg, channels, device) -> EncoderObjective:
    encoder = StudentEncoder({"channels": channels, "blocks": [0] * len(channels)})
    encoder.initialize(0)
    encoder.plain = True
    return EncoderObjective(load_encoder(str(vgg), device), encoder.to(device), torch.float32)


def test_each_layer_is_taught_by_the_one_of_its_stride(vgg, device):
    assert objective(vgg, [4, 6], device).maps.layers == ["relu2_1", "relu3_1"]
    with pytest.raises(ValueError, match="cannot teach stride16"):
        objective(vgg, [4, 4, 4, 4], device)


def test_a_step_that_is_not_finite_is_forgotten(vgg, device):
    taught = objective(vgg, [4, 6], device)
    content, style = torch.rand(2, 2, 3, 32, 32, device=device)
    taught(taught.prepare(content, style), 0)
    before = taught.maps.running
    assert not taught(taught.prepare(content * torch.inf, style), 1)[0].isfinite()
    torch.testing.assert_close(taught.maps.running, before, rtol=0, atol=0)
