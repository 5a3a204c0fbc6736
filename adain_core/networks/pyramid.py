"""A small encoder and decoder with AdaIN at each of their strides."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AdainError
from .base import MOST_BLOCKS, MOST_CHANNELS, Architecture, Decoder, Encoder, Level, whole_numbers
from .layers import Arithmetic, DownsampleConv2d, LayerList, ReflectionConv2d, ResidualBlock, UpsampleConv2d
from .texture import Texture

COARSE_BLOCKS = 4  # default number of residual blocks at the coarsest stride; the other strides have one


class PyramidEncoder(Encoder):
    """`channels` features at strides 2, 4, 8, ...; AdaIN acts on each."""

    architecture = "pyramid"

    def __init__(self, config: dict):
        super().__init__(config)
        widths = whole_numbers(config, "channels", 1, MOST_CHANNELS)
        self.down: LayerList[DownsampleConv2d] = LayerList(map(DownsampleConv2d, [3, *widths[:-1]], widths))
        self.conv: LayerList[ReflectionConv2d] = LayerList(ReflectionConv2d(width, width) for width in widths)
        self.levels = tuple(Level(f"stride{2**i}", width, 2**i) for i, width in enumerate(widths, 1))
        self.layers = tuple(level.name for level in self.levels)
        # downsampling depends on one position more of its input, the convolution after it on one more of its own stride
        self.halo = sum(level.stride // 2 + level.stride for level in self.levels)
        self.values_per_pixel = max(3.0, widths[0] / 4)

    def activations(self, x: Tensor, names: Collection[str], arithmetic: Arithmetic) -> dict[str, Tensor]:
        features = {}
        for name, down, conv in zip(self.layers, self.down, self.conv, strict=True):
            x = features[name] = arithmetic.relu(conv, arithmetic.relu(down, x))
        return features


class PyramidDecoder(Decoder):
    """The mirror of `PyramidEncoder`: `blocks` residual blocks at each stride; each level is added on the way up.

    The last convolution draws the 2x2 pixels of each position as channels (Shi et al. 2016, sub-pixel convolution).
    """

    architecture = "pyramid"

    def __init__(self, config: dict):
        super().__init__(config)
        widths, depths = whole_numbers(config, "channels", 1, MOST_CHANNELS), whole_numbers(config, "blocks", 0, MOST_BLOCKS)
        if len(widths) != len(depths):
            raise AdainError(f"it has {len(widths)} levels, but blocks for {len(depths)}; give blocks for each.")
        self.blocks: LayerList[LayerList[ResidualBlock]] = LayerList(
            LayerList(ResidualBlock(width) for _ in range(count)) for width, count in zip(widths, depths, strict=True)
        )
        self.up: LayerList[UpsampleConv2d] = LayerList(map(UpsampleConv2d, widths[1:], widths))
        self.out = ReflectionConv2d(widths[0], 3 * 4)
        self.channels, self.stride = tuple(widths), 2 ** len(widths)
        # each convolution depends on one position more: two in a block, one after each upsampling, and the last one
        strides = [2**i for i in range(1, len(widths) + 1)]
        blocks = sum(2 * count * stride for count, stride in zip(depths, strides, strict=True))
        self.halo = blocks + sum(strides[:-1]) + strides[0]
        self.values_per_pixel = max(3.0, widths[0] / 4)

    @classmethod
    def for_encoder(cls, encoder: Encoder, blocks: Sequence[int] | None = None) -> PyramidDecoder:
        channels = encoder.config["channels"]
        blocks = blocks or [1] * (len(channels) - 1) + [COARSE_BLOCKS]
        if len(blocks) != len(channels):
            raise AdainError(f"the encoder {encoder.name} has {len(channels)} levels; give a number of blocks for each.")
        return cls({"channels": channels, "blocks": list(blocks)})

    def initialize(self, seed: int) -> None:
        super().initialize(seed)
        with torch.no_grad():  # the pixels of a position begin equal, to avoid a checkerboard (Aitken et al. 2017)
            self.out.weight.copy_(self.out.weight[::4].repeat_interleave(4, 0))

    def draw(self, features: Sequence[Tensor], arithmetic: Arithmetic, texture: Texture) -> Tensor:
        x = self._residual(self.blocks[-1], features[-1], arithmetic)
        for index in reversed(range(len(self.up))):
            x, below = arithmetic.linear(self.up[index], x), features[index]
            # odd sizes were rounded up on the way down
            x = self._residual(self.blocks[index], x[:, :, : below.shape[2], : below.shape[3]] + below, arithmetic)
        return F.pixel_shuffle(arithmetic.output(self.out, x), 2)

    def _residual(self, blocks: LayerList[ResidualBlock], x: Tensor, arithmetic: Arithmetic) -> Tensor:
        for block in blocks:
            x = arithmetic.residual(block, x)
        return x


ARCHITECTURE = Architecture(PyramidEncoder, PyramidDecoder)
