"""Muon (Jordan et al. 2024) for convolutions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from ..devices import has_fast_bfloat16

MOMENTUM = 0.95
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # of Adam
ITERATION = (3.4445, -4.7750, 2.0315)  # the authors' coefficients: singular values come near 1 in five turns


class Muon(torch.optim.Optimizer):
    """Steps kernels `(O, I, h, w)`, as matrices `(O, Ihw)`, by their orthogonalised momentum, and biases by Adam.

    A kernel's step is scaled so that its root mean square is that of a usual step of Adam (Liu et al. 2025): one learning
    rate serves both. PyTorch's own Muon takes matrices only.
    """

    def __init__(self, parameters: Iterable[Tensor], lr: float):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                update = self._kernel if parameter.dim() == 4 else self._bias
                update(parameter, parameter.grad, self.state[parameter], group["lr"])

    def _kernel(self, kernel: Tensor, gradient: Tensor, state: dict, rate: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(kernel)
        momentum = state["momentum"].mul_(MOMENTUM).add_(gradient)
        direction = gradient.add(momentum, alpha=MOMENTUM).flatten(1)  # Nesterov's
        scale = 0.2 * max(direction.shape) ** 0.5
        kernel.add_(orthogonalized(direction).view(kernel.shape), alpha=-rate * scale)

    def _bias(self, bias: Tensor, gradient: Tensor, state: dict, rate: float) -> None:
        if not state:
            state.update(step=0, mean=torch.zeros_like(bias), square=torch.zeros_like(bias))
        state["step"] += 1
        mean, square = state["mean"].lerp_(gradient, 1 - BETA1), state["square"].lerp_(gradient**2, 1 - BETA2)
        mean, square = mean / (1 - BETA1 ** state["step"]), square / (1 - BETA2 ** state["step"])
        bias.addcdiv_(mean, square.sqrt() + EPSILON, value=-rate)


def orthogonalized(matrix: Tensor) -> Tensor:
    """About `U Vᵀ` of the matrix's singular value decomposition `U S Vᵀ`, by Newton and Schulz's iteration."""
    a, b, c = ITERATION
    # rounding does no harm here, but emulated bfloat16 takes a third of a training's time on a CPU without it
    x = matrix.bfloat16() if has_fast_bfloat16(matrix.device) else matrix
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(matrix.dtype)
