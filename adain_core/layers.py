"""Convolutions as the encoders and decoders use them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import winograd

# The C library takes blocks from the system anew, page by page, which takes up to as long as the convolution that fills them,
# unless they are no larger than the largest it has freed so far, of up to 32 MB. So one of these is freed now.
torch.empty((1 << 25) - (1 << 14), dtype=torch.uint8)
# Values of a layer's results that stay well below that. Of fewer than 32 rows too many would be computed twice.
BAND, BAND_ROWS = 1 << 21, 32

Layer = Callable[[nn.Conv2d, Tensor], Tensor]  # applies a convolution, with what follows it

# Fewest channels, and rows and columns, with which Winograd's convolution is faster.
WINOGRAD_CHANNELS, WINOGRAD_SIDE = 128, 16
# Most channels of a result that is computed in cells of 2x2 pixels: a picture's would leave most of a vector empty.
CELL_CHANNELS = 3


def in_bands(layers: Callable[[Tensor], Tensor], x: Tensor, halo: int, scale: float, values_per_row: int) -> Tensor:
    """`layers(x)`; on a CPU, where no gradient is wanted, in bands: of as many rows as have `BAND` values, or of `BAND_ROWS`.

    `scale` is that of the rows: 1/2, 1 or 2. A row depends on `halo` rows of `x` beyond its own, an even number where
    `scale` is 1/2. `values_per_row` are the most activations there are for a row of one picture of `x`.
    """
    rows = max(BAND // (values_per_row * len(x)) // 2 * 2, round(BAND_ROWS / max(scale, 1)))
    if x.device.type != "cpu" or torch.is_grad_enabled() or rows >= x.shape[2]:
        return layers(x)
    result = None
    for top in range(0, x.shape[2], rows):
        first, bottom = max(0, top - halo), min(x.shape[2], top + rows)
        start, count, done = round((top - first) * scale), math.ceil((bottom - top) * scale), round(top * scale)
        band = layers(x[:, :, first : bottom + halo])
        if result is None:  # the bands go into one tensor as they come, since beside it they would take as much again
            shape = (*band.shape[:2], math.ceil(x.shape[2] * scale), band.shape[3])
            result = torch.empty(shape, dtype=band.dtype, memory_format=torch.channels_last)
        result[:, :, done : done + count] = band[:, :, start : start + count]
    return result


def reflection_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad W and H by reflection; an axis too short to reflect is replicated instead."""
    if x.shape[3] > max(left, right) and x.shape[2] > max(top, bottom):
        return F.pad(x, (left, right, top, bottom), mode="reflect")
    for padding, size in (((left, right, 0, 0), x.shape[3]), ((0, 0, top, bottom), x.shape[2])):
        x = F.pad(x, padding, mode="reflect" if size > max(padding) else "replicate")
    return x


def _pad_to_cells(x: Tensor) -> Tensor:
    """For a 4x4 kernel on each cell of 2x2 pixels, those of odd sides ending in a reflected one."""
    return reflection_pad(x, 1, 1 + x.shape[3] % 2, 1, 1 + x.shape[2] % 2)


def _convolve(convolution: nn.Conv2d, x: Tensor, bias: Tensor) -> Tensor:
    """In the number type of `x`; `bias` stands in for the convolution's own."""
    return F.conv2d(x, convolution.weight.to(x.dtype), bias.to(x.dtype), convolution.stride)


def relu_layer(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution with ReLU."""
    return F.relu(convolution(x), inplace=True)


class ReluAround:
    """Convolutions with ReLU, in 16 bits, on what sets a picture apart from one of the single `color` `(C,)`.

    What they make of that is a constant for each channel, known in float32; `x` is the rest. Where a picture is flat the
    rest is small, and so is what rounding it loses, which AdaIN enlarges as it does the rest. Exact up to that rounding.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d], color: Tensor, dtype: torch.dtype):
        self.before: dict[nn.Conv2d, Tensor] = {}  # the constants before ReLU, and after it
        self.after: dict[nn.Conv2d, Tensor] = {}
        for convolution in convolutions:
            # no matrix product, which autocast would round
            self.before[convolution] = (convolution.weight.sum((2, 3)) * color).sum(1) + convolution.bias
            color = self.after[convolution] = self.before[convolution].to(dtype).float().relu()

    @classmethod
    def begin(cls, convolutions: Sequence[nn.Conv2d], x: Tensor, dtype: torch.dtype) -> tuple[ReluAround, Tensor]:
        """For a network of the `convolutions` in their order; and what goes into it of `x` `(B, C, H, W)`."""
        color = x.float().mean((0, 2, 3))
        return cls(convolutions, color, dtype), (x.float() - color[:, None, None]).to(dtype)

    def __call__(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        before = self.before[convolution]
        rounded = before.to(x.dtype)
        x = convolution(x, before - rounded)
        rounded = rounded[:, None, None]
        return torch.maximum(x, -rounded).add_(rounded.clamp(max=0))

    def without_relu(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        """What a last convolution, without ReLU, makes of the whole, in float32."""
        return convolution(x, torch.zeros_like(convolution.bias)).float() + self.before[convolution][:, None, None]

    def whole(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        """The features after a convolution, in float32."""
        return x.float() + self.after[convolution][:, None, None]


class PreparedConv2d(nn.Conv2d):
    """3x3 convolution that is computed by kernels made of its own."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3)
        self._made: tuple[object, Any] | None = None

    def _once(self, kind: object, make: Callable[[], Any]) -> Any:
        """What `make` gives; where nothing is trained, made once for weights that stay as they are."""
        if torch.is_grad_enabled():
            return make()
        key = kind, 0 if self.weight.is_inference() else self.weight._version
        if self._made is None or self._made[0] != key:
            self._made = key, make()
        return self._made[1]

    def _apply(self, *args: object, **kwargs: object) -> nn.Module:
        self._made = None  # weights move, or change their type
        return super()._apply(*args, **kwargs)


class ReflectionConv2d(PreparedConv2d):
    """3x3 convolution under reflection padding."""

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        bias, (height, width) = self.bias if bias is None else bias, x.shape[2:]
        if self._winograd_pays(x):
            kernels = self._once("winograd", lambda: winograd.transform_kernels(self.weight))
            return winograd.conv2d(reflection_pad(x, 1, 1, 1, 1 + -height % winograd.TILE), kernels, bias)[:, :, :height]
        if self.out_channels > CELL_CHANNELS or x.device.type != "cpu" or torch.is_grad_enabled():
            return _convolve(self, reflection_pad(x, 1, 1, 1, 1), bias)
        kernel = self._once(x.dtype, lambda: self._cells().to(x.dtype, memory_format=torch.channels_last))
        cells = F.conv2d(_pad_to_cells(x), kernel, bias.to(x.dtype).repeat_interleave(4), stride=2)
        return F.pixel_shuffle(cells, 2)[:, :, :height, :width]

    def _cells(self) -> Tensor:
        """The kernels `(4 K, C, 4, 4)` of the four pixels of a cell, for each channel of the result."""
        pixels = [F.pad(self.weight, (column, 1 - column, row, 1 - row)) for row in (0, 1) for column in (0, 1)]
        return torch.stack(pixels, 1).flatten(0, 1)

    def _winograd_pays(self, x: Tensor) -> bool:
        """In float32 on a CPU, where nothing is trained."""
        return (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and min(self.in_channels, self.out_channels) >= WINOGRAD_CHANNELS
            and min(x.shape[2:]) >= WINOGRAD_SIDE
        )


class DownsampleConv2d(nn.Conv2d):
    """4x4 convolution of stride 2 under reflection padding, to `ceil(H / 2)` by `ceil(W / 2)`.

    A 3x3 kernel would be off the centres of the 2x2 pixels that upsampling puts in a position's place; 4x4 lies on them,
    and is wide enough to learn not to alias.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 4, stride=2)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _convolve(self, _pad_to_cells(x), self.bias if bias is None else bias)


class UpsampleConv2d(PreparedConv2d):
    """Nearest 2x upsampling, then a 3x3 convolution under reflection padding.

    Computed as what it equals: four 2x2 convolutions under replicate padding, one for each of the pixels in a position's
    place, with 2.25 times fewer multiplications.
    """

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        height, width = x.shape[2:]
        kernel = self._once(x.dtype, lambda: self._pixels().to(x.dtype, memory_format=torch.channels_last))
        bias = (self.bias if bias is None else bias).to(x.dtype).repeat(4)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, bias)
        result = x.new_empty(len(x), height, 2, width, 2, self.out_channels)
        for (row, column), pixel in zip(((0, 0), (0, 1), (1, 0), (1, 1)), x.chunk(4, 1), strict=True):
            # a first pixel sees a position and the one before it, a second one sees it and the one behind it
            result[:, :, row, :, column] = pixel[:, :, row : row + height, column : column + width].permute(0, 2, 3, 1)
        return result.view(len(x), 2 * height, 2 * width, -1).permute(0, 3, 1, 2)

    def _pixels(self) -> Tensor:
        """The four kernels `(4 K, C, 2, 2)`: of the pixels upper left, upper right, lower left and lower right."""
        # the first and the second pixel see the 3 taps fall on 2 positions as 1 + 2 and as 2 + 1; summed in float32
        top, middle, bottom = self.weight.float().split(1, dim=2)
        kernels = []
        for rows in (torch.cat([top, middle + bottom], 2), torch.cat([top + middle, bottom], 2)):
            left, centre, right = rows.split(1, dim=3)
            kernels += [torch.cat([left, centre + right], 3), torch.cat([left + centre, right], 3)]
        return torch.cat(kernels)


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(x)))`, channels kept."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ReflectionConv2d(channels, channels)
        self.conv2 = ReflectionConv2d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))
