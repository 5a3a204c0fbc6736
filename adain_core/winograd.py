"""3x3 convolution by Winograd's minimal filtering: 36 multiplications instead of 144 for 4x4 positions.

A tile of 6x6 inputs and the kernel are evaluated, as polynomials, at six points along each axis; there a convolution is a
product, summed over the channels by one matrix product for each of the 36 pairs of points; the way back gives 4x4 outputs
(Lavin and Gray 2016). In float32 its error is some three times that of summing directly, 1e-6 of the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE, TAPS = 4, 3
SIDE = TILE + TAPS - 1
# and infinity; of small numbers these lose the fewest digits (Barabasz et al. 2020)
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
AT_ONE = SIDE + 1  # the pair of points (1, 1), from which a constant goes to each output as it is
BAND = 1 << 20  # values at all points together, which should stay in the processor's cache


def _powers(count: int) -> Tensor:
    """A polynomial of `count` coefficients to its values at the points; at infinity to its highest coefficient."""
    rows = [[point**power for power in range(count)] for point in POINTS]
    return torch.tensor([*rows, [0.0] * (count - 1) + [1.0]], dtype=torch.float64)


KERNEL, OUTPUT, INPUT = _powers(TAPS), _powers(TILE).T.float(), _powers(SIDE).inverse().T.float()


def transform_kernels(weight: Tensor) -> Tensor:
    """Kernels `(K, C, 3, 3)` as `conv2d` takes them: `(36, C, K)`, computed in double precision."""
    values = torch.einsum("ya,kcab,xb->xyck", KERNEL, weight.double(), KERNEL)
    return values.flatten(0, 1).to(weight.dtype).contiguous()


def conv2d(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """The convolution of padded `x` `(B, C, H + 2, W + 2)` with transformed kernels: `(B, K, H, W)`, channels last.

    H and W are multiples of `TILE`.
    """
    channels, down, across = x.shape[1], x.shape[2] // TILE, x.shape[3] // TILE
    x = x.permute(0, 2, 3, 1).contiguous()
    result = x.new_empty(len(x), TILE * down, TILE * across, len(bias))
    band = max(1, BAND // (len(kernels) * across * max(channels, len(bias))))
    for picture, pixels in zip(x, result, strict=True):
        for top in range(0, down, band):
            count = min(band, down - top)
            rows = picture[TILE * top :][: TILE * count + TAPS - 1].unfold(0, SIDE, TILE).movedim(-1, 1).flatten(2)
            rows = torch.bmm(INPUT.expand(count, -1, -1), rows).unflatten(2, (-1, channels))
            tiles = rows.unfold(2, SIDE, TILE).permute(4, 1, 0, 2, 3)
            values = INPUT @ tiles.reshape(SIDE, -1)
            products = torch.bmm(values.view(len(kernels), -1, channels), kernels)
            products[AT_ONE] += bias
            columns = OUTPUT @ products.view(SIDE, -1)
            found = torch.bmm(OUTPUT.expand(TILE, -1, -1), columns.view(TILE, SIDE, -1))
            part = pixels[TILE * top :][: TILE * count].view(count, TILE, across, TILE, -1)
            part.copy_(found.view(TILE, TILE, count, across, -1).permute(2, 1, 3, 0, 4))
    return result.permute(0, 3, 1, 2)
