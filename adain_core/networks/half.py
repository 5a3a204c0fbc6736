"""16 bits around the mean colour: what sets a picture apart from one of a single colour is computed, the rest is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Arithmetic, Convolution, Convolve


class FlatColor(Arithmetic):
    """What a network makes of a picture of one colour: a `constant` `(C,)` for each convolution, before what follows it.

    It is computed in float32 on a picture of one pixel; what follows a convolution goes on from the constant rounded to
    `dtype`, as it does in `AroundColor`.
    """

    def __init__(self, convolve: Convolve, dtype: torch.dtype):
        super().__init__(convolve)
        self.dtype = dtype
        self.constants: dict[nn.Module, Tensor] = {}

    def relu(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.linear(convolution, x).to(self.dtype).float().relu()

    def linear(self, convolution: Convolution, x: Tensor) -> Tensor:
        x = super().linear(convolution, x)
        self.constants[convolution] = x[0, :, 0, 0]
        return x

    def rectified(self, module: nn.Module, x: Tensor) -> Tensor:
        self.constants[module] = x[0, :, 0, 0]
        return x.to(self.dtype).float().relu()


class AroundColor(Arithmetic):
    """Convolutions in 16 bits on what sets a picture apart from a flat one; what they make of that are `constants`.

    Where a picture is flat the rest is small, and so is what rounding it loses, which AdaIN enlarges as it does the rest.
    Exact up to that rounding. Sums, pooling and cropping of the rests give the rest of the whole's.
    """

    def __init__(self, convolve: Convolve, constants: dict[nn.Module, Tensor]):
        super().__init__(convolve)
        self.constants = constants

    def relu(self, convolution: Convolution, x: Tensor) -> Tensor:
        constant = self.constants[convolution]
        rounded = constant.to(x.dtype)
        return self._rectify(self.convolve(convolution, x, constant - rounded), rounded)

    def linear(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.convolve(convolution, x, torch.zeros_like(convolution.bias))

    def rectified(self, module: nn.Module, x: Tensor) -> Tensor:
        constant = self.constants[module]
        rounded = constant.to(x.dtype)
        return self._rectify(x + (constant - rounded).to(x.dtype)[:, None, None], rounded)

    @staticmethod
    def _rectify(x: Tensor, constant: Tensor) -> Tensor:
        """`relu(constant + x) - relu(constant)`."""
        constant = constant[:, None, None]
        return torch.maximum(x, -constant).add_(constant.clamp(max=0))

    def whole(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.linear(convolution, x).float() + self.constants[convolution][:, None, None]
