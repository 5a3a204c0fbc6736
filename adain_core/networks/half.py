"""16 bits around the mean colour: what sets a picture apart from one of a single colour is computed, the rest is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Arithmetic, Convolve


class FlatColor(Arithmetic):
    """What a network makes of a picture of one colour: a `constant` `(C,)` for each convolution, before what follows it.

    It is computed in float32 on a picture of one pixel; what follows a convolution goes on from the constant rounded to
    `dtype`, as it does in `AroundColor`.
    """

    def __init__(self, convolve: Convolve, dtype: torch.dtype):
        super().__init__(convolve)
        self.dtype = dtype
        self.constants: dict[nn.Conv2d, Tensor] = {}

    def relu(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        return self.linear(convolution, x).to(self.dtype).float().relu()

    def linear(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        x = super().linear(convolution, x)
        self.constants[convolution] = x[0, :, 0, 0]
        return x


class AroundColor(Arithmetic):
    """Convolutions in 16 bits on what sets a picture apart from a flat one; what they make of that are `constants`.

    Where a picture is flat the rest is small, and so is what rounding it loses, which AdaIN enlarges as it does the rest.
    Exact up to that rounding. Sums, pooling and cropping of the rests give the rest of the whole's.
    """

    def __init__(self, convolve: Convolve, constants: dict[nn.Conv2d, Tensor]):
        super().__init__(convolve)
        self.constants = constants

    def relu(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        constant = self.constants[convolution]
        rounded = constant.to(x.dtype)
        x = self.convolve(convolution, x, constant - rounded)
        rounded = rounded[:, None, None]
        return torch.maximum(x, -rounded).add_(rounded.clamp(max=0))

    def linear(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        return self.convolve(convolution, x, torch.zeros_like(convolution.bias))

    def whole(self, convolution: nn.Conv2d, x: Tensor) -> Tensor:
        return self.linear(convolution, x).float() + self.constants[convolution][:, None, None]
