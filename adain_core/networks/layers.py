"""The layers of the networks in their plain form: convolutions under reflection padding, and a residual block.

Each works on features `(B, C, H, W)`, in their number type. `fast.py` computes the same faster, without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


class LayerList(nn.ModuleList, Generic[Layer]):
    """`nn.ModuleList` with the type of its modules, for type checkers."""

    if TYPE_CHECKING:

        def __getitem__(self, index: int) -> Layer: ...

        def __iter__(self) -> Iterator[Layer]: ...


def reflection_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad W and H by reflection; an axis too short to reflect is replicated instead."""
    if x.shape[3] > max(left, right) and x.shape[2] > max(top, bottom):
        return F.pad(x, (left, right, top, bottom), mode="reflect")
    for padding, size in (((left, right, 0, 0), x.shape[3]), ((0, 0, top, bottom), x.shape[2])):
        x = F.pad(x, padding, mode="reflect" if size > max(padding) else "replicate")
    return x


def replication_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad W and H by repeating the border."""
    return F.pad(x, (left, right, top, bottom), mode="replicate")


Pad = Callable[[Tensor, int, int, int, int], Tensor]


def reflection_conv2d(x: Tensor, kernel: Tensor, bias: Tensor, pad: Pad = reflection_pad) -> Tensor:
    """3x3 convolution under reflection padding, `(B, K, H, W)`; `kernel` is `(K, C, 3, 3)` in the number type of `x`."""
    return F.conv2d(pad(x, 1, 1, 1, 1), kernel, bias.to(x.dtype))


def pad_to_cells(x: Tensor, pad: Pad = reflection_pad) -> Tensor:
    """Pad for a 4x4 kernel on each cell of 2x2 pixels; an odd side gets one more reflected pixel to complete its cells."""
    return pad(x, 1, 1 + x.shape[3] % 2, 1, 1 + x.shape[2] % 2)


def downsample_conv2d(x: Tensor, kernel: Tensor, bias: Tensor, pad: Pad = reflection_pad) -> Tensor:
    """4x4 convolution of stride 2 under reflection padding, `(B, K, ceil(H / 2), ceil(W / 2))`."""
    return F.conv2d(pad_to_cells(x, pad), kernel, bias.to(x.dtype), stride=2)


def pixel_kernels(weight: Tensor) -> Tensor:
    """The kernels `(4 K, C, 2, 2)` that `upsample_conv2d` uses for a 3x3 kernel `(K, C, 3, 3)`, in its number type.

    There is one for each of the four pixels that a position becomes: upper left, upper right, lower left and lower right. For
    each pixel the three taps of a row or column fall on two positions, as 1 + 2 or as 2 + 1; they are summed in float32.
    """
    top, middle, bottom = weight.float().split(1, dim=2)
    kernels = []
    for rows in (torch.cat([top, middle + bottom], 2), torch.cat([top + middle, bottom], 2)):
        left, centre, right = rows.split(1, dim=3)
        kernels += [torch.cat([left, centre + right], 3), torch.cat([left + centre, right], 3)]
    return torch.cat(kernels).to(weight.dtype)


def upsample_conv2d(x: Tensor, kernels: Tensor, bias: Tensor, pad: Pad = replication_pad, channels_last: bool = True) -> Tensor:
    """Nearest 2x upsampling, then a 3x3 convolution under reflection padding, `(B, K, 2 H, 2 W)`.

    Computed as four 2x2 convolutions under replicate padding with the `pixel_kernels` of the weights, which is equal and takes
    2.25 times fewer multiplications. `channels_last`: the order of the result in memory.
    """
    height, width, channels = *x.shape[2:], len(kernels) // 4
    x = F.conv2d(pad(x, 1, 1, 1, 1), kernels, bias.to(x.dtype).repeat(4))
    if channels_last:
        result = x.new_empty(len(x), height, 2, width, 2, channels).permute(0, 5, 1, 2, 3, 4)
    else:
        result = x.new_empty(len(x), channels, height, 2, width, 2)
    for (row, column), pixel in zip(((0, 0), (0, 1), (1, 0), (1, 1)), x.chunk(4, 1), strict=True):
        # the first pixel of a position depends on it and the one before, the second pixel on it and the one after
        result[:, :, :, row, :, column] = pixel[:, :, row : row + height, column : column + width]
    if channels_last:  # a view of memory in this order has the usual strides, by which paddings know the order
        return result.permute(0, 2, 3, 4, 5, 1).view(len(x), 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
    return result.view(len(x), channels, 2 * height, 2 * width)


class Convolution(nn.Conv2d):
    """Base of the convolutions of networks; a `bias` given to the call replaces the layer's own."""

    bias: nn.Parameter

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        raise NotImplementedError


Convolve = Callable[[Convolution, Tensor, Tensor | None], Tensor]


class ReflectionConv2d(Convolution):
    """`reflection_conv2d` as a layer; a given `bias` replaces its own."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return reflection_conv2d(x, self.weight.to(x.dtype), self.bias if bias is None else bias)


class DownsampleConv2d(Convolution):
    """`downsample_conv2d` as a layer; a given `bias` replaces its own.

    Upsampling turns a position into 2x2 pixels. A 4x4 kernel is centred on these, a 3x3 kernel is not; and 4x4 is wide enough
    to learn a filter without aliasing.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 4, stride=2)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return downsample_conv2d(x, self.weight.to(x.dtype), self.bias if bias is None else bias)


class UpsampleConv2d(Convolution):
    """`upsample_conv2d` as a layer with weights `(K, C, 3, 3)`; a given `bias` replaces its own."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return upsample_conv2d(x, pixel_kernels(self.weight).to(x.dtype), self.bias if bias is None else bias)


class PointwiseConv2d(Convolution):
    """1x1 convolution; a given `bias` replaces its own."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), (self.bias if bias is None else bias).to(x.dtype))


class ResidualBlock(nn.Module):
    """`x + conv2(relu(conv1(x)))`, with the same number of channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ReflectionConv2d(channels, channels)
        self.conv2 = ReflectionConv2d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))


class Arithmetic:
    """Computes the convolutions of a network and the operations after them; this class does so as they are written.

    `convolve(convolution, x, bias)` is the network's; a bias other than None replaces the convolution's own.
    """

    def __init__(self, convolve: Convolve):
        self.convolve = convolve

    def relu(self, convolution: Convolution, x: Tensor) -> Tensor:
        """The convolution, rectified."""
        return F.relu(self.convolve(convolution, x, None), inplace=True)

    def linear(self, convolution: Convolution, x: Tensor) -> Tensor:
        """The convolution alone."""
        return self.convolve(convolution, x, None)

    def output(self, convolution: Convolution, x: Tensor) -> Tensor:
        """The last convolution of a decoder, which draws the picture."""
        return self.linear(convolution, x)

    def residual(self, block: ResidualBlock, x: Tensor) -> Tensor:
        """A residual block."""
        return x + self.linear(block.conv2, self.relu(block.conv1, x))

    def rectified(self, module: nn.Module, x: Tensor) -> Tensor:
        """The output `x` of `module`, which has several layers, rectified."""
        return F.relu(x)
