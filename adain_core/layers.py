"""Convolutions as the encoders and decoders use them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def reflection_pad(x: Tensor, padding: int) -> Tensor:
    """Pad H and W by reflection; an axis too short to reflect is replicated instead."""
    if min(x.shape[2:]) > padding:
        return F.pad(x, (padding,) * 4, mode="reflect")
    for axis, size in (((padding, padding, 0, 0), x.shape[3]), ((0, 0, padding, padding), x.shape[2])):
        x = F.pad(x, axis, mode="reflect" if size > padding else "replicate")
    return x


class ReflectionConv2d(nn.Conv2d):
    """3x3 convolution under reflection padding; a stride of 2 gives `ceil(H / 2)` by `ceil(W / 2)`."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, 3, stride)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(reflection_pad(x, 1))


class UpsampleConv2d(ReflectionConv2d):
    """Nearest 2x upsampling, then a 3x3 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(x)))`, channels kept."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = ReflectionConv2d(channels, channels)
        self.conv2 = ReflectionConv2d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x), inplace=True))
