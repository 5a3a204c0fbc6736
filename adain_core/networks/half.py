"""16 bits around the mean colour: only a picture's difference from a flat picture of that colour is computed in 16 bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Arithmetic, Convolution, Convolve


class FlatColor(Arithmetic):
    """Computes a flat picture, of one colour; `constants` holds the result `(C,)` of each convolution.

    It is computed in float32 on a picture of one pixel. The next operation reads the constant rounded to `dtype`, as in
    `AroundColor`.
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
    """Computes a picture's difference from a flat picture in 16 bits; `constants` are the results of `FlatColor` for that.

    In flat areas the difference is small, and so is its rounding error, which AdaIN enlarges together with it. The result is
    exact up to that rounding. Sums, pooling and cropping of differences give the differences of the results.
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

    def output(self, convolution: Convolution, x: Tensor) -> Tensor:
        return self.linear(convolution, x).float() + self.constants[convolution][:, None, None]
