"""The normalization layers by which the paper explains AdaIN, side by side (its equations 1 to 8).

All compute `gamma * (x - mu) / sigma + beta`; they differ in where the statistics and the affine pair come from:

- `BatchNorm2d`: mu and sigma over the batch in training, population estimates at test time; learned gamma, beta.
- `InstanceNorm2d`: mu and sigma of each sample, in training and at test time.
- `ConditionalInstanceNorm2d`: the same, with one learned pair of gamma and beta for each of a fixed set of styles.
- `AdaptiveInstanceNorm2d`: the same; gamma and beta are the standard deviation and mean of another input, nothing is learned.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import BatchNorm2d, InstanceNorm2d

from .statistics import EPS, adain, channel_statistics

__all__ = ["AdaptiveInstanceNorm2d", "BatchNorm2d", "ConditionalInstanceNorm2d", "InstanceNorm2d"]


class ConditionalInstanceNorm2d(nn.Module):
    """Instance normalization with one affine pair per style. Source: Dumoulin, Shlens and Kudlur 2017."""

    def __init__(self, num_features: int, num_styles: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_styles, num_features))
        self.bias = nn.Parameter(torch.zeros(num_styles, num_features))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """`x` is `(B, C, H, W)`, `style` `(B,)` indices below `num_styles`."""
        normalized = nn.functional.instance_norm(x, eps=EPS)
        return normalized * self.weight[style][:, :, None, None] + self.bias[style][:, :, None, None]


class AdaptiveInstanceNorm2d(nn.Module):
    """Instance normalization whose affine pair is the standard deviation and mean of a second input."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """`x` is `(B, C, H, W)`, `y` `(B or 1, C, any H, any W)`."""
        return adain(x, channel_statistics(y))
