"""A further architecture is one file and one registration (docs/design.md, section 2): a toy one, which stylises, is tiled,
loaded and trained.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from adain_core import TrainingConfig, encode_style, load_decoder, load_encoder, stylize, train
from adain_core.errors import AdainError
from adain_core.evaluation import plain
from adain_core.images import save_image
from adain_core.networks import ARCHITECTURES, Architecture, Decoder, Encoder, Level
from adain_core.networks.layers import ReflectionConv2d, UpsampleConv2d
from adain_core.weights import NetworkFile, read_network, write_network


class ToyEncoder(Encoder):
    """A convolution, and the means of cells of 2x2 pixels."""

    architecture = "toy"
    levels = (Level("cells", 6, 2),)
    layers = ("cells",)
    halo = 2
    values_per_pixel = 6

    def __init__(self, config):
        super().__init__(config)
        self.conv = ReflectionConv2d(3, 6)

    def activations(self, x, names, arithmetic):
        return {"cells": F.avg_pool2d(arithmetic.relu(self.conv, x), 2, ceil_mode=True, count_include_pad=False)}


class ToyDecoder(Decoder):
    """A convolution of the enlarged cells."""

    architecture = "toy"
    channels = (6,)
    stride = 2
    halo = 2
    values_per_pixel = 3

    def __init__(self, config):
        super().__init__(config)
        self.up = UpsampleConv2d(6, 3)

    @classmethod
    def for_encoder(cls, encoder, blocks=None):
        return cls({})

    def draw(self, features, arithmetic, texture):
        return arithmetic.output(self.up, features[0])


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The file of an encoder of a newly registered architecture."""
    monkeypatch.setitem(ARCHITECTURES, "toy", Architecture(ToyEncoder, ToyDecoder))
    encoder = ToyEncoder({})
    encoder.initialize(0)
    path = tmp_path / "toy-encoder.safetensors"
    write_network(NetworkFile("encoder", "toy", {}, encoder.state_dict(), "toy"), path)
    return path


def test_a_new_architecture_trains_stylises_and_is_tiled(toy, tmp_path, device):
    for folder in ("contents", "styles"):
        (tmp_path / folder).mkdir()
        for index in range(3):
            save_image(torch.rand(3, 40, 50), tmp_path / folder / f"{index}.png")
    config = TrainingConfig(
        tmp_path / "contents", tmp_path / "styles", tmp_path / "out", str(toy), layer_weights=(1.0,), steps=30, batch_size=2,
        crop_size=32, resize_content=(40, 40), resize_style=(40, 40), learning_rate=0.01, workers=0, device=device, log_every=5,
    )  # fmt: skip
    result = train(config)
    first, last = (result.losses["content"][step] + 10 * result.losses["style"][step] for step in (0, -1))
    assert last < first
    longer = train(dataclasses.replace(config, steps=35))
    assert longer.steps[: len(result.steps)] == result.steps

    content = torch.rand(2, 3, 131, 75)
    full, half = (
        (load_encoder(str(toy), device, dtype), load_decoder(str(result.decoder), device, dtype))
        for dtype in ("float32", "bfloat16")
    )
    style = encode_style(full[0], torch.rand(1, 3, 40, 40) * 0.3, size=0)
    whole, tiled = (stylize(*full, content, style, tile=tile) for tile in (0, 64))
    assert whole.shape == content.shape and plain.relative_error(tiled.cpu(), whole.cpu()) < 1e-4
    assert plain.relative_error(stylize(*half, content, style).cpu(), whole.cpu()) < 0.02


def test_a_file_of_an_architecture_that_is_not_registered_is_refused(toy, monkeypatch):
    monkeypatch.delitem(ARCHITECTURES, "toy")
    with pytest.raises(ValueError, match="'toy' is unknown; update"):
        load_encoder(str(toy))


@pytest.mark.parametrize("role", ["encoder", "decoder"])
def test_a_file_of_the_small_networks_of_version_0_1_is_refused(tmp_path, role):
    path = tmp_path / "old.safetensors"
    write_network(NetworkFile(role, "pyramid", {"channels": [4, 6], "blocks": [1, 1]}, {}, "old"), path)
    with pytest.raises(AdainError, match="old.safetensors .* is of ComfyUI-AdaIN 0.1 alone; train the network again"):
        read_network(path)
