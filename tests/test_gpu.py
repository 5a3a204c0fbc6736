"""What a GPU would do, by the one that stands in for it: kernels, crossings between host and device, and nothing read back."""

from __future__ import annotations

import dataclasses
import importlib
import math
from unittest.mock import MagicMock

import pytest
import torch
from stand_in_gpu import Count, StandIn, put_on_gpu, stand_in

from adain_core import crossing, decode, transfer
from adain_core.clip import CHUNK, ClipState, ClipStylizer
from adain_core.images import check_pictures
from adain_core.networks import Decoder, Encoder, Level, fast, texture
from adain_core.networks.student import StudentDecoder, StudentEncoder
from adain_core.networks.vgg import VGGDecoder, VGGEncoder
from adain_core.statistics import ChannelStatistics
from adain_core.style import Component, Style
from adain_core.training import TrainingConfig
from adain_core.training.data import stream
from adain_core.training.trainer import Trainer
from adain_core.video import Frame

FREE = 8 << 30  # bytes of the GPU


@pytest.fixture
def gpu(monkeypatch):
    for module in ("tiling", "stylize", "clip"):  # of the same name as a function
        monkeypatch.setattr(importlib.import_module(f"adain_core.{module}"), "free_memory", lambda device: FREE)
    kept = fast._places, texture._kept_numbers  # fake tensors are of no use outside
    for cache in kept:
        cache.cache_clear()
    with stand_in() as counted:
        yield counted
    for cache in kept:
        cache.cache_clear()


@pytest.fixture
def pinned(gpu, monkeypatch):
    """A GPU whose copies from and to pinned memory are not waited for."""
    monkeypatch.setattr(crossing, "_is_cuda", lambda device: device.type == "cuda")
    monkeypatch.setattr(crossing, "_pinned", lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype))
    monkeypatch.setattr(torch.cuda, "Event", MagicMock)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    return gpu


def networks(kind: str, dtype: torch.dtype) -> tuple[Encoder, Decoder]:
    """Both networks on the GPU."""
    if kind == "vgg19":
        pair = VGGEncoder({}), VGGDecoder({})
    else:
        config = {"channels": [8, 12, 16], "blocks": [0, 1, 1]}
        pair = StudentEncoder(config), StudentDecoder(config)
    for network in pair:
        network.dtype = dtype
        put_on_gpu(network)
    return pair


def style_for(encoder: Encoder, mask: torch.Tensor | None = None) -> Style:
    levels = tuple(
        ChannelStatistics(torch.full((1, 1), 64.0), torch.rand(1, level.channels), torch.rand(1, level.channels))
        for level in encoder.levels
    )
    return Style((Component(torch.ones(1), levels, mask),), encoder.fingerprint, encoder.name)


def counted(
    gpu: StandIn, encoder: Encoder, decoder: Decoder, content: torch.Tensor, style: Style, **options
) -> tuple[Count, Count]:
    """What `transfer` and what `decode` need, once the networks have their kernels prepared."""
    decode(decoder, transfer(encoder, content, style, **options), options.get("tile"))
    gpu.taken()
    features = transfer(encoder, content, style, **options)
    of_transfer = gpu.taken()
    decode(decoder, features, options.get("tile"))
    return of_transfer, gpu.taken()


def test_the_kernels_of_the_paper_s_network_in_16_bits(gpu):
    encoder, decoder = networks("vgg19", torch.float16)
    content, style = torch.rand(1, 3, 512, 512) / 2, style_for(encoder)
    of_transfer, of_decode = counted(gpu, encoder, decoder, content, style)
    assert len(of_transfer.kernels) <= 43
    assert len(of_decode.kernels) <= 70
    assert of_transfer.conversions == of_decode.conversions == []
    transfer(encoder, content + 0.5, style)  # a flat picture of another colour is computed, on the CPU
    of_another = gpu.taken()
    assert len(of_another.kernels) <= 44
    assert len(of_another.uploads) == len(of_transfer.uploads) + 1
    transfer(encoder, content, style)
    assert len(gpu.taken().kernels) <= 43


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("kind", ["vgg19", "student"])
def test_nothing_crosses_but_the_picture_and_the_style(gpu, kind, dtype):
    encoder, decoder = networks(kind, dtype)
    of_transfer, of_decode = counted(gpu, encoder, decoder, torch.rand(2, 4, 70, 90).clamp(min=0.1), style_for(encoder))
    statistics = [(2, 1, level.channels) for level in encoder.levels]  # the deviations and the means of the style
    assert (of_transfer.uploads, of_transfer.downloads) == ([(2, 3, 70, 90), *statistics], [])
    assert (of_decode.uploads, of_decode.downloads) == ([], [(2, 3, 70, 90)])
    assert of_transfer.conversions == of_decode.conversions == []


@pytest.mark.parametrize("statistics", ["image", "batch", "running", "region"])
def test_masks_and_tiles_read_nothing_back(gpu, statistics):
    mask = torch.zeros(1, 1, 70, 130)
    mask[..., :40] = torch.rand(40)
    (encoder, decoder), content = networks("student", torch.float16), torch.rand(2, 3, 70, 130)
    _, of_decode = counted(gpu, encoder, decoder, content, style_for(encoder, mask), content_statistics=statistics, tile=64)
    assert of_decode.downloads == [(2, 3, 64, 64), (2, 3, 6, 64)]  # two of the six tiles are stylised


def test_a_picture_on_the_gpu_is_looked_at_once_for_what_float16_cannot_hold(gpu):
    (encoder, decoder), content = networks("student", torch.float16), torch.rand(2, 3, 70, 130)
    features = transfer(encoder, content, style_for(encoder))
    gpu.taken()
    decode(decoder, dataclasses.replace(features, device=torch.device("cuda:0")), tile=64)
    assert gpu.taken().downloads == [()]


@pytest.mark.parametrize("options", [{}, {"working_size": 40, "size": 64, "keep_colors": True}])
def test_frames_cross_as_bytes_and_come_back_as_bytes(gpu, tmp_path, options):
    clip = MagicMock(multiple=2)
    clip.__len__.return_value = 2 * CHUNK
    clip.frames.return_value = (Frame(torch.full((1, 3, 80, 96), k, dtype=torch.uint8), k) for k in range(2 * CHUNK))
    encoder, decoder = networks("student", torch.float16)
    stylizer = ClipStylizer(encoder, decoder, style_for(encoder), **options)
    chunks = stylizer._stylized(clip, ClipState(tmp_path / "state", ""))
    next(chunks)
    gpu.taken()
    second, count = next(chunks), gpu.taken()
    assert [frame.time for frame in second] == list(range(CHUNK, 2 * CHUNK))
    size = (64, 76) if options else (80, 96)
    assert {(*frame.pixels.shape, frame.pixels.dtype) for frame in second} == {(1, 3, *size, torch.uint8)}
    of_style = [(2, 1, level.channels) for level in encoder.levels]
    assert count.uploads == [(CHUNK, 3, 80, 96), *of_style]
    assert count.sent == CHUNK * 3 * 80 * 96 + sum(4 * 2 * level.channels for level in encoder.levels)
    # whether all numbers are finite, and the pictures
    assert count.downloads == [(), (CHUNK, 3, *size)]
    assert count.received == 1 + CHUNK * 3 * size[0] * size[1]


@pytest.mark.parametrize("options", [
    {}, {"alpha": 0.7}, {"masked": True, "tile": 64}, {"masked": True, "content_statistics": "region"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_host_waits_for_no_copy(pinned, dtype, options):
    (encoder, decoder), options = networks("student", dtype), dict(options)
    mask = torch.linspace(0, 1, 70).expand(1, 1, 70, 70) if options.pop("masked", False) else None
    of_transfer, of_decode = counted(pinned, encoder, decoder, torch.rand(2, 3, 70, 70), style_for(encoder, mask), **options)
    assert of_transfer.uploads and of_decode.downloads
    assert of_transfer.waits == of_decode.waits == []


@pytest.mark.parametrize("options", [{}, {"alpha": 0.7, "working_size": 40, "keep_colors": True}])
def test_the_statistics_of_a_whole_clip_go_to_the_gpu_once(pinned, tmp_path, options):
    frames = [Frame(torch.full((1, 3, 80, 96), k, dtype=torch.uint8), k) for k in range(3 * CHUNK)]
    clip = MagicMock(multiple=2, frames=lambda skip: iter(frames[skip:]))
    clip.__len__.return_value = len(frames)
    encoder, decoder = networks("student", torch.float32)
    stylizer = ClipStylizer(encoder, decoder, style_for(encoder), content_statistics="batch", **options)
    chunks = stylizer._stylized(clip, ClipState(tmp_path / "state", ""))
    next(chunks), next(chunks)
    pinned.taken()
    next(chunks)
    count = pinned.taken()
    sent = [shape for shape in count.uploads if math.prod(shape) > 1]  # but for the strength
    assert sent == [(CHUNK, 3, 80, 96), *((2, 1, level.channels) for level in encoder.levels)]
    assert count.waits == []


def test_a_picture_on_the_gpu_is_checked_by_one_look(gpu):
    check_pictures(torch.rand(1, 3, 8, 8).to("cuda"), "content")
    assert gpu.taken().downloads == [(2,)]


def test_a_value_that_is_read_back_is_noticed(gpu):
    x = torch.rand(3).to("cuda")
    with pytest.raises(RuntimeError, match="local_scalar_dense"):
        x.sum().item()
    with pytest.raises(AssertionError, match="float64"):
        x.double()
    with pytest.raises(AssertionError, match="errors are looked for"):
        torch.linalg.solve(x * x[:, None], x)
    assert torch.rand(3).sum().item() > 0  # on the CPU there are values
    gpu.taken()
    (x + 1).cpu()
    count = gpu.taken()
    assert (count.kernels, count.uploads, count.downloads, count.waits) == (["add"], [], [(3,)], [(3,)])
    x[[0, 2]]  # a list of indices is sent to the GPU
    count = gpu.taken()
    assert count.uploads == count.waits == [(2,)]


class SmallEncoder(VGGEncoder):
    blocks = ((4, 4), (4, 4), (4, 4, 4, 4), (4,))
    levels = (Level("relu4_1", 4, 8),)


class SmallDecoder(VGGDecoder):
    layers = tuple((name, 4, 3 if after == 3 else 4) for name, _, after in VGGDecoder.layers)


def test_the_inverse_that_a_training_begins_with_is_solved_on_the_cpu(gpu):
    encoder, decoder = SmallEncoder({}), SmallDecoder({})
    for network in (encoder, decoder):
        network.plain = True
        put_on_gpu(network)
    decoder.fit_inverse(encoder, torch.rand(2, 3, 32, 32).to("cuda"))
    assert (37, 37) in gpu.taken().downloads  # the moments of 3x3 positions of 4 channels, and the bias


@pytest.fixture
def trainer(pinned, monkeypatch, tmp_path):
    """Makes a trainer whose pictures lie in pinned memory, and whose gradients are 0: PyTorch computes none on fake tensors."""
    judge, eye = SmallEncoder({}), StudentEncoder({"channels": [8, 12], "blocks": [0, 1]})
    eye.fingerprint = "eye"

    def make(**options) -> Trainer:
        config = TrainingConfig(
            torch.rand(4, 3, 40, 40), torch.rand(4, 3, 40, 40), tmp_path / "out", judge, steps=100, batch_size=2, crop_size=32,
            resize_content=(32, 40), resize_style=(32, 40), layer_weights=(1.0,) * len(judge.loss_layers), clip_norm=10.0,
            ema=0.9, workers=0, precision="float32", **{"encoder": eye, "blocks": (1, 1)} | options,
        )  # fmt: skip
        made = Trainer(config, torch.device("cuda:0"))

        def backward(loss: torch.Tensor) -> None:
            for parameter in made.parameters:
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        return made

    # without a GPU there is no memory to pin
    monkeypatch.setattr("adain_core.training.trainer.stream", lambda *arguments: stream(*arguments[:-1], pin_memory=False))
    monkeypatch.setattr("adain_core.training.trainer.POOL", 2)
    return make


@pytest.mark.parametrize("options", [
    {"pairings": 2}, {"consistency_weight": 1.0, "consistency_every": 1},
    {"stage": "encoder", "pairings": 2, "channels": (4, 6), "blocks": (0, 1), "encoder": ""},
], ids=["pairings", "consistency", "teaching"])  # fmt: skip
def test_a_training_waits_for_the_gpu_once_a_step(pinned, trainer, options):
    training = trainer(**options)
    batches = training._batches()
    for step in range(5):
        pinned.taken()
        training.train_step(next(batches))
        count = pinned.taken()
        if step:  # in the first one, a teaching looks whether it can begin
            assert len(count.waits) == len(count.downloads) == 1
        assert "convolution" not in count.conversions  # of float32
    assert training.step == 5 and training.skipped == 0
