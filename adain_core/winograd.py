"""3x3 convolution by Winograd's minimal filtering down the columns: 8 multiplications instead of 18 for 6 rows.

A tile of 8 rows of the input and the 3 of the kernel are evaluated, as polynomials, at eight points; there each row of values
is convolved across with the kernel's, and the way back gives 6 rows of the result (Lavin and Gray 2016, in one dimension).
In both dimensions it takes fewer multiplications still, but as matrix products, which lose more than that on processors
where they are slower than convolutions. In float32 its error is some one and a half times that of summing directly, 1e-6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TILE, TAPS = 6, 3
SIDE = TILE + TAPS - 1
# and infinity; of small numbers these lose the fewest digits (Barabasz et al. 2020)
POINTS = (0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0)
AT_ONE = POINTS.index(1.0)  # from where a constant goes to each row of the result as it is
BAND = 1 << 22  # values at all points together; with fewer, oneDNN lays out the kernels more often


def _powers(count: int) -> Tensor:
    """A polynomial of `count` coefficients to its values at the points; at infinity to its highest coefficient."""
    rows = [[point**power for power in range(count)] for point in POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


KERNEL, OUTPUT, INPUT = _powers(TAPS), _powers(TILE).T.float(), _powers(SIDE).inverse().T.float()


def transform_kernels(weight: Tensor) -> list[Tensor]:
    """Kernels `(K, C, 3, 3)` as `conv2d` takes them, computed in double precision: `(K, C, 1, 3)` for each point."""
    values = torch.einsum("pa,kcab->pkcb", KERNEL, weight.double()).unsqueeze(3)
    return [kernel.to(weight.dtype, memory_format=torch.channels_last) for kernel in values]


def conv2d(x: Tensor, kernels: list[Tensor], bias: Tensor) -> Tensor:
    """The convolution of padded `x` `(B, C, H + 2, W + 2)` with transformed kernels: `(B, K, H, W)`, channels last.

    H is a multiple of `TILE`.
    """
    channels, down, across = x.shape[1], x.shape[2] // TILE, x.shape[3]
    x = x.permute(0, 2, 3, 1).contiguous()
    result = x.new_empty(len(x), down, TILE, (across - TAPS + 1) * len(bias))
    band = max(1, BAND // (SIDE * across * max(channels, len(bias))))
    for picture, rows in zip(x, result, strict=True):
        tiles = picture.flatten(1).unfold(0, SIDE, TILE).transpose(1, 2)
        for part, found in zip(tiles.split(band), rows.split(band), strict=True):
            values = x.new_empty(SIDE, len(found), across * channels)
            for index, tile in enumerate(part):  # one by one they need not be copied together first
                torch.mm(INPUT, tile, out=values[:, index])
            values = values.view(SIDE, 1, -1, across, channels).permute(0, 1, 4, 2, 3)
            sums = x.new_empty(SIDE, len(found), across - TAPS + 1, len(bias))
            for point, (value, kernel) in enumerate(zip(values, kernels, strict=True)):
                sums[point] = F.conv2d(value, kernel, bias if point == AT_ONE else None)[0].permute(1, 2, 0)
            torch.bmm(OUTPUT.expand(len(found), -1, -1), sums.flatten(2).transpose(0, 1), out=found)
    return result.view(len(x), TILE * down, -1, len(bias)).permute(0, 3, 1, 2)
