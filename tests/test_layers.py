"""Layers, padding and what computes them faster: equal, by docs/design.md, section 7."""

import pytest
import torch

from adain_core.evaluation.plain import relative_error
from adain_core.networks import fast
from adain_core.networks.layers import DownsampleConv2d, ReflectionConv2d, UpsampleConv2d, reflection_pad, replication_pad


def test_reflection_where_there_is_room_and_replication_where_not(device):
    row = torch.tensor([1.0, 2.0, 3.0], device=device)
    assert reflection_pad(row.expand(1, 1, 3, 3), 1, 2, 0, 0)[0, 0, 0].tolist() == [2, 1, 2, 3, 2, 1]
    assert reflection_pad(row.expand(1, 1, 1, 3), 1, 1, 1, 1)[0, 0].tolist() == [[2, 1, 2, 3, 2]] * 3
    assert reflection_pad(torch.full((1, 1, 1, 1), 7.0, device=device), 1, 1, 1, 1).flatten().tolist() == [7.0] * 9


@pytest.mark.parametrize("channels, dtype", [(8, torch.float16), (3, torch.float16), (2, torch.float32), (5, torch.float32)])
@pytest.mark.parametrize("size", [(5, 7), (1, 2), (2, 1)])
@pytest.mark.parametrize("plain", [reflection_pad, replication_pad])
def test_padding_by_gathering_is_the_plain_one_and_channels_last(plain, size, channels, dtype):
    x = torch.randn(2, channels, *size).to(dtype)
    for layout in (x, x.contiguous(memory_format=torch.channels_last)):
        padded = fast.gathered_pad(plain, layout, 1, 2, 2, 1)
        assert torch.equal(padded, plain(x, 1, 2, 2, 1))
        assert padded.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [ReflectionConv2d, DownsampleConv2d, UpsampleConv2d])
def test_layers_keep_the_order_in_memory_that_is_faster(kind, monkeypatch):
    layer, x = kind(6, 5), torch.randn(2, 6, 9, 8)
    with torch.no_grad():
        for order, last in ((torch.channels_last, True), (torch.contiguous_format, False)):
            monkeypatch.setattr(fast, "channels_last", lambda x, last=last: last)
            found = fast.convolve(layer, x.contiguous(memory_format=order), fast.Kernels())
            assert found.is_contiguous(memory_format=order)
            torch.testing.assert_close(found, layer(x))


def weights_that_change(layer):
    """Each way in which a layer's weights may be changed between two calls."""
    yield "as they are"
    layer.weight.mul_(2)
    yield "in place"
    for _ in range(3):  # the memory of one before may be taken again
        layer.weight.data = torch.randn_like(layer.weight)
        yield "by other data"
    layer.weight = torch.nn.Parameter(torch.randn_like(layer.weight))
    yield "by another parameter"


@pytest.mark.parametrize("channels", [(128, 130), (10, 3)], ids=["many channels", "few channels"])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (38, 19), (1, 2)])
@pytest.mark.parametrize("few", [0, fast.FEW_POSITIONS])
def test_a_convolution_is_the_plain_one(size, channels, device, monkeypatch, few):
    monkeypatch.setattr(fast, "WINOGRAD_BAND", 1)  # a row of tiles at a time
    monkeypatch.setattr(fast, "FEW_POSITIONS", few)
    layer, x = ReflectionConv2d(*channels).to(device), torch.randn(2, channels[0], *size, device=device)
    kernels = fast.Kernels()
    with torch.no_grad():
        for _ in weights_that_change(layer):
            wanted = torch.nn.functional.conv2d(reflection_pad(x, 1, 1, 1, 1).double(), layer.weight.double())
            wanted += layer.bias.double()[:, None, None]
            for found in (layer(x), fast.convolve(layer, x, kernels)):
                assert found.shape == wanted.shape and relative_error(found, wanted) < 2e-6
            assert relative_error(fast.convolve(layer, x.bfloat16(), kernels), wanted) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 8)])
def test_strides_round_up_and_upsampling_doubles(size, device):
    x = torch.rand(1, 3, *size, device=device)
    assert ReflectionConv2d(3, 4).to(device)(x).shape[2:] == size
    assert DownsampleConv2d(3, 4).to(device)(x).shape[2:] == tuple(-(-side // 2) for side in size)
    assert UpsampleConv2d(3, 4).to(device)(x).shape[2:] == tuple(2 * side for side in size)


def test_upsampling_equals_the_plain_way(device):
    layer, x = UpsampleConv2d(3, 5).to(device), torch.randn(2, 3, 5, 4, device=device)
    repeated = reflection_pad(torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest"), 1, 1, 1, 1)
    kernels = fast.Kernels()
    with torch.no_grad():
        for _ in weights_that_change(layer):
            wanted = torch.nn.functional.conv2d(repeated, layer.weight, layer.bias)
            torch.testing.assert_close(layer(x), wanted)
            torch.testing.assert_close(fast.convolve(layer, x, kernels), wanted)
            assert relative_error(fast.convolve(layer, x.bfloat16(), kernels), wanted) < 0.01


def test_upsampling_repeats_pixels_before_the_convolution(device):
    layer = UpsampleConv2d(1, 1).to(device)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(0.5)
    # upsampled: 1 1 2 2 in both rows; reflected: 1 1 1 2 2 2 in four rows
    assert layer(torch.tensor([[[[1.0, 2.0]]]], device=device))[0, 0].tolist() == [[9.5, 12.5, 15.5, 18.5]] * 2


def test_downsampling_is_centred_on_cells_of_two_by_two_pixels(device):
    layer = DownsampleConv2d(1, 1).to(device)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[0, 0, 1:3, 1:3] = 0.25  # the mean of the cell
        layer.bias.zero_()
    x = torch.arange(20.0, device=device).reshape(1, 1, 4, 5)
    # the fifth column is odd: its cell ends in the reflected fourth one
    assert layer(x)[0, 0].tolist() == [[3, 5, 6], [13, 15, 16]]
