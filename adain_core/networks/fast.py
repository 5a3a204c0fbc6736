"""Faster computation of the layers with equal results, without gradients: prepared kernels, Winograd's convolution, cells of
pixels, and bands of rows.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import (
    Convolution,
    DownsampleConv2d,
    Pad,
    ReflectionConv2d,
    UpsampleConv2d,
    downsample_conv2d,
    pad_to_cells,
    pixel_kernels,
    reflection_conv2d,
    reflection_pad,
    replication_pad,
    upsample_conv2d,
)

# The number of values of a band's largest result: small enough that the C library keeps its memory for the next one (see
# `devices.keep_freed_memory`). In bands of fewer than 32 rows, too many rows would be computed twice.
BAND, BAND_ROWS = 1 << 21, 32

# The fewest channels, and the fewest rows and columns, for which Winograd's convolution is faster.
WINOGRAD_CHANNELS, WINOGRAD_SIDE = 128, 16
# Results with at most so many channels, such as pictures, are computed in cells of 2x2 pixels: few channels alone would leave
# most of a vector register empty.
CELL_CHANNELS = 3

WORD = torch.int64  # what is copied at once where it holds whole channels

TILE, TAPS = 6, 3  # rows of the result that Winograd's convolution computes at once, and rows of the kernel
SIDE = TILE + TAPS - 1
# The points of evaluation, beside infinity; of small numbers these lose the fewest digits (Barabasz et al. 2020).
POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)
AT_ONE = POINTS.index(1.0)  # a constant added at this point is added unchanged to each row of the result
# A convolution of at most so many positions takes long to reorder its kernel, and products of matrices are faster.
FEW_POSITIONS = 1 << 9
WINOGRAD_BAND = 1 << 22  # values at all points together; smaller bands make oneDNN reorder the kernels more often


class Kernels:
    """Kernels prepared from layers' weights, kept as long as the weights do not change."""

    def __init__(self) -> None:
        self._prepared: dict[Convolution, tuple[Tensor, int, dict[Hashable, Any]]] = {}

    def of(self, layer: Convolution, kind: Hashable, make: Callable[[Tensor], Any]) -> Any:
        """`make(weight)` for the layer's weight, computed once for each `kind`."""
        weight = layer.weight.detach()  # keeping a reference to it ensures that no other weight gets its address
        version = 0 if weight.is_inference() else weight._version
        old_weight, old_version, kernels = self._prepared.get(layer, (None, None, {}))
        if old_weight is None or old_version != version or _address(old_weight) != _address(weight):
            kernels = {}
            self._prepared[layer] = weight, version, kernels
        if kind not in kernels:
            kernels[kind] = make(weight)
        return kernels[kind]

    def clear(self) -> None:
        self._prepared.clear()

    def __deepcopy__(self, memo: dict) -> Kernels:
        return Kernels()


def convolve(layer: Convolution, x: Tensor, kernels: Kernels, bias: Tensor | None = None) -> Tensor:
    """`layer(x, bias)` without gradients, faster for the layers of `layers.py`."""
    bias = layer.bias if bias is None else bias

    def prepared(weight: Tensor) -> Tensor:
        return weight.to(x.dtype, memory_format=torch.channels_last if last else torch.contiguous_format)

    last = channels_last(x)
    if isinstance(layer, UpsampleConv2d):
        kernel = kernels.of(layer, x.dtype, lambda weight: prepared(pixel_kernels(weight)))
        return upsample_conv2d(x, kernel, bias, _faster(replication_pad, x), last)
    if isinstance(layer, DownsampleConv2d):
        return downsample_conv2d(x, kernels.of(layer, x.dtype, prepared), bias, _faster(reflection_pad, x))
    if not isinstance(layer, ReflectionConv2d):
        return layer(x, bias)
    if _winograd_pays(layer, x):
        height = x.shape[2]
        padded = reflection_pad(x, 1, 1, 1, 1 + -height % TILE)
        return winograd_conv2d(padded, kernels.of(layer, "winograd", winograd_kernels), bias)[:, :, :height]
    if layer.out_channels <= CELL_CHANNELS and x.device.type == "cpu":
        kernel = kernels.of(layer, ("cells", x.dtype), lambda weight: prepared(_cell_kernels(weight)))
        cells = F.conv2d(pad_to_cells(x), kernel, bias.to(x.dtype).repeat_interleave(4), stride=2)
        return F.pixel_shuffle(cells, 2)[:, :, : x.shape[2], : x.shape[3]]
    return reflection_conv2d(x, kernels.of(layer, x.dtype, prepared), bias, _faster(reflection_pad, x))


def fast_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """The order in memory in which convolutions are fastest: with the channels last, but not in float32 on CUDA.

    There only the units for 16 bits (and TF32, which is off) read features in this order; for others cuDNN's are slower, in one
    measurement 1.6 times on a V100 (PyTorch's issue 44943). On a CPU the order with the channels last is at least as fast.
    """
    return torch.contiguous_format if device.type == "cuda" and dtype.itemsize > 2 else torch.channels_last


def channels_last(x: Tensor) -> bool:
    """Whether the channels of `x` are last in `fast_format`."""
    return fast_format(x.device, x.dtype) == torch.channels_last


def gathered_pad(plain: Pad, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """`plain(x, left, right, top, bottom)`, channels last, by reading each position of the result from its place in `x`.

    The paddings of CUDA read and write features with the channels first, so that they would be brought into that order before
    and back into this one after each.
    """
    rows = _places(plain, x.shape[2], top, bottom, x.device)[:, None]
    columns = _places(plain, x.shape[3], left, right, x.device)
    x = x.permute(0, 2, 3, 1)
    if x.shape[3] * x.element_size() % WORD.itemsize or x.stride(3) != 1:
        return x[:, rows, columns].permute(0, 3, 1, 2)
    return x.view(WORD)[:, rows, columns].view(x.dtype).permute(0, 3, 1, 2)  # several channels at once


@functools.lru_cache(maxsize=256)
def _places(plain: Pad, size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Which of `size` positions of an axis each position of the padded axis repeats."""
    axis = torch.arange(size, dtype=torch.float32)[None, None, None]
    return plain(axis, before, after, 0, 0)[0, 0, 0].long().to(device)


def _faster(plain: Pad, x: Tensor) -> Pad:
    return functools.partial(gathered_pad, plain) if x.device.type == "cuda" and channels_last(x) else plain


def in_bands(layers: Callable[[Tensor], Tensor], x: Tensor, halo: int, scale: float, values_per_row: int) -> Tensor:
    """`layers(x)`, computed in bands of rows: as many rows as have `BAND` values, but at least `BAND_ROWS`.

    `scale` is the height of the result relative to that of `x`: 1/2, 1 or 2. A row of the result depends on `halo` rows of `x`
    on each side of its own; with a scale of 1/2 this number is even. `values_per_row`: the number of activations, for a row
    of one picture of `x`, in the largest layer.
    """
    rows = max(BAND // (values_per_row * len(x)) // 2 * 2, round(BAND_ROWS / max(scale, 1)))
    if rows >= x.shape[2]:
        return layers(x)
    result = torch.empty(0)
    for top in range(0, x.shape[2], rows):
        first, bottom = max(0, top - halo), min(x.shape[2], top + rows)
        start, count, done = round((top - first) * scale), math.ceil((bottom - top) * scale), round(top * scale)
        band = layers(x[:, :, first : bottom + halo])
        if top == 0:  # each band is copied into one tensor at once: a list of bands would need twice the memory
            shape = (*band.shape[:2], math.ceil(x.shape[2] * scale), band.shape[3])
            result = torch.empty(shape, dtype=band.dtype, device=band.device, memory_format=torch.channels_last)
        result[:, :, done : done + count] = band[:, :, start : start + count]
    return result


def _address(tensor: Tensor) -> tuple[int, int]:
    """Identifies the memory of a tensor, even on the meta device."""
    return tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _cell_kernels(weight: Tensor) -> Tensor:
    """The kernels `(4 K, C, 4, 4)` of the four pixels of a cell, for each channel of the result."""
    pixels = [F.pad(weight, (column, 1 - column, row, 1 - row)) for row in (0, 1) for column in (0, 1)]
    return torch.stack(pixels, 1).flatten(0, 1)


def _winograd_pays(layer: ReflectionConv2d, x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and min(layer.in_channels, layer.out_channels) >= WINOGRAD_CHANNELS
        and min(x.shape[2:]) >= WINOGRAD_SIDE
    )


def _powers(count: int) -> Tensor:
    """The matrix from a polynomial's `count` coefficients to its values at the points; at infinity, the last coefficient."""
    rows = [[point**power for power in range(count)] for point in POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


KERNEL, OUTPUT, INPUT = _powers(TAPS), _powers(TILE).T.float(), _powers(SIDE).inverse().T.float()


def winograd_kernels(weight: Tensor) -> list[Tensor]:
    """Kernels `(K, C, 3, 3)` transformed for `winograd_conv2d`, in double precision: `(K, C, 1, 3)` for each point."""
    values = torch.einsum("pa,kcab->pkcb", KERNEL, weight.double()).unsqueeze(3)
    return [kernel.to(weight.dtype, memory_format=torch.channels_last) for kernel in values]


def winograd_conv2d(x: Tensor, kernels: list[Tensor], bias: Tensor) -> Tensor:
    """The convolution of padded `x` `(B, C, H + 2, W + 2)` with transformed kernels: `(B, K, H, W)`, channels last.

    By Winograd's minimal filtering along the columns: 8 multiplications instead of 18 for 6 rows. A tile of 8 rows of the
    input and the 3 rows of the kernel are evaluated, as polynomials, at eight points. At each point the row of the input is
    convolved with the row of the kernel. The inverse transform gives 6 rows of the result (Lavin and Gray 2016, in one
    dimension). Two dimensions would need still fewer multiplications, but as matrix products, which are slower than
    convolutions on some processors and lose more there than is gained. In float32 the error is about 1e-6, one and a half
    times that of a direct sum. H is a multiple of `TILE`.
    """
    channels, down, across = x.shape[1], x.shape[2] // TILE, x.shape[3]
    x = x.permute(0, 2, 3, 1).contiguous()
    result = x.new_empty(len(x), down, TILE, (across - TAPS + 1) * len(bias))
    band = max(1, WINOGRAD_BAND // (SIDE * across * max(channels, len(bias))))
    for picture, rows in zip(x, result, strict=True):
        tiles = picture.flatten(1).unfold(0, SIDE, TILE).transpose(1, 2)
        for part, output in zip(tiles.split(band), rows.split(band), strict=True):
            values = x.new_empty(SIDE, len(output), across * channels)
            for index, tile in enumerate(part):  # one by one, to avoid a copy of all tiles
                torch.mm(INPUT, tile, out=values[:, index])
            values = values.view(SIDE, -1, across, channels)
            sums = x.new_empty(SIDE, len(output), across - TAPS + 1, len(bias))
            for point, (value, kernel) in enumerate(zip(values, kernels, strict=True)):
                sums[point] = _along_rows(value, kernel, bias if point == AT_ONE else None)
            torch.bmm(OUTPUT.expand(len(output), -1, -1), sums.flatten(2).transpose(0, 1), out=output)
    return result.view(len(x), TILE * down, -1, len(bias)).permute(0, 3, 1, 2)


def _along_rows(rows: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of `rows` `(N, W + 2, C)` with a kernel `(K, C, 1, 3)`: `(N, W, K)`."""
    count, across, _ = rows.shape
    if count * across > FEW_POSITIONS:
        return F.conv2d(rows.permute(2, 0, 1)[None], kernel, bias)[0].permute(1, 2, 0)
    # all rows as one: the sums over the end of one and the beginning of the next are left out afterwards
    result, row = rows.new_empty(count, across, len(kernel)), rows.flatten(0, 1)
    sums = result.flatten(0, 1)[: 1 - TAPS]
    for tap, matrix in enumerate(kernel[:, :, 0].unbind(2)):
        part = row[tap : tap + len(sums)]
        if tap:
            sums.addmm_(part, matrix.T)
        elif bias is None:
            torch.mm(part, matrix.T, out=sums)
        else:
            torch.addmm(bias, part, matrix.T, out=sums)
    return result[:, : 1 - TAPS]
