"""A small encoder that is trained to imitate VGG-19, and a decoder that paints flat areas with a texture."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import AdainError
from .base import MOST_BLOCKS, MOST_CHANNELS, Architecture, Decoder, Encoder, Level, whole_numbers
from .layers import Arithmetic, DownsampleConv2d, LayerList, PointwiseConv2d, ReflectionConv2d, ResidualBlock, UpsampleConv2d
from .texture import Texture

FINEST = 2  # the stride of the first features
SKIPPED = 1  # number of fine strides without AdaIN; their features are left out, or they would carry the content past AdaIN
TEXTURE_CHANNELS = 8


class StudentEncoder(Encoder):
    """`channels` features at strides 2, 4, 8, ..., with `blocks` residual blocks at each; AdaIN acts on all but the finest.

    A level is `blocks(relu(down(x)))`, rectified; with 0 blocks a convolution replaces them.
    """

    architecture = "student"

    def __init__(self, config: dict):
        super().__init__(config)
        widths, depths = _sizes(config)
        self.down: LayerList[DownsampleConv2d] = LayerList(map(DownsampleConv2d, [3, *widths[:-1]], widths))
        self.conv: LayerList[LayerList[ResidualBlock | ReflectionConv2d]] = LayerList(
            LayerList([ResidualBlock(width) for _ in range(depth)] or [ReflectionConv2d(width, width)])
            for width, depth in zip(widths, depths, strict=True)
        )
        strides = [FINEST * 2**i for i in range(len(widths))]
        self.layers = tuple(f"stride{stride}" for stride in strides)
        self.levels = tuple(map(Level, self.layers, widths, strides))[SKIPPED:]
        # downsampling depends on one position more of its input, each convolution after it on one more of its own stride
        counts = [2 * depth or 1 for depth in depths]
        self.halo = sum(stride // 2 + count * stride for stride, count in zip(strides, counts, strict=True))
        self.values_per_pixel = max(3.0, widths[0] / FINEST**2)

    def activations(self, x: Tensor, names: Collection[str], arithmetic: Arithmetic) -> dict[str, Tensor]:
        features = {}
        for name, down, layers in zip(self.layers, self.down, self.conv, strict=True):
            x = arithmetic.relu(down, x)
            for layer in layers:
                x = arithmetic.residual(layer, x) if isinstance(layer, ResidualBlock) else arithmetic.linear(layer, x)
            x = features[name] = arithmetic.rectified(layers, x)
        return features


class StudentDecoder(Decoder):
    """The mirror of `StudentEncoder`: `blocks` residual blocks at each stride; each level is added on the way up.

    At each stride it reads a texture of `TEXTURE_CHANNELS` channels. The last convolution draws the 2x2 pixels of each
    position as channels (Shi et al. 2016, sub-pixel convolution).
    """

    architecture = "student"
    textured = True

    def __init__(self, config: dict):
        super().__init__(config)
        widths, depths = _sizes(config)
        self.blocks: LayerList[LayerList[ResidualBlock]] = LayerList(
            LayerList(ResidualBlock(width) for _ in range(depth)) for width, depth in zip(widths, depths, strict=True)
        )
        self.mix: LayerList[PointwiseConv2d] = LayerList(PointwiseConv2d(TEXTURE_CHANNELS, width) for width in widths)
        self.up: LayerList[UpsampleConv2d] = LayerList(map(UpsampleConv2d, widths[1:], widths))
        self.out = ReflectionConv2d(widths[0], 3 * 4)
        self.channels, self.stride = tuple(widths[SKIPPED:]), FINEST * 2 ** (len(widths) - 1)
        # each convolution depends on one position more: two in a block, one after each upsampling, and the last one
        strides = [FINEST * 2**i for i in range(len(widths))]
        blocks = sum(2 * count * stride for count, stride in zip(depths, strides, strict=True))
        self.halo = blocks + sum(strides[:-1]) + strides[0]
        self.values_per_pixel = max(3.0, widths[0] / FINEST**2)

    @classmethod
    def for_encoder(cls, encoder: Encoder, blocks: Sequence[int] | None = None) -> StudentDecoder:
        channels = encoder.config["channels"]
        if blocks and len(blocks) != len(channels):
            raise AdainError(f"the encoder {encoder.name!r} has {len(channels)} strides; give a number of blocks for each.")
        return cls({"channels": channels, "blocks": list(blocks or [1] + [2] * (len(channels) - 1))})

    def initialize(self, seed: int) -> None:
        super().initialize(seed)
        with torch.no_grad():  # the pixels of a position begin equal, to avoid a checkerboard (Aitken et al. 2017)
            self.out.weight.copy_(self.out.weight[::4].repeat_interleave(4, 0))

    @torch.no_grad()
    def constrain(self) -> None:
        """Give the four pixels of a position kernels of the same sum, and the same bias: a flat area gets no checkerboard."""
        kernels, biases = self.out.weight.unflatten(0, (3, 4)), self.out.bias.unflatten(0, (3, 4))
        sums = kernels.sum((3, 4), keepdim=True)
        kernels += (sums.mean(1, keepdim=True) - sums) / kernels[0, 0, 0].numel()
        biases.copy_(biases.mean(1, keepdim=True).expand_as(biases))

    def draw(self, features: Sequence[Tensor], arithmetic: Arithmetic, texture: Texture) -> Tensor:
        levels = [*[None] * SKIPPED, *features]
        x = self._painted(-1, features[-1], arithmetic, texture)
        for index in reversed(range(len(self.up))):
            x, below = arithmetic.linear(self.up[index], x), levels[index]
            if below is not None:  # odd sizes were rounded up on the way down
                x = x[:, :, : below.shape[2], : below.shape[3]] + below
            x = self._painted(index, x, arithmetic, texture)
        return F.pixel_shuffle(arithmetic.output(self.out, x), 2)

    def _painted(self, index: int, x: Tensor, arithmetic: Arithmetic, texture: Texture) -> Tensor:
        """The features of a stride, with the texture added, after the residual blocks."""
        index %= len(self.blocks)
        x = x + arithmetic.linear(self.mix[index], texture.at(FINEST * 2**index, TEXTURE_CHANNELS, x))
        for block in self.blocks[index]:
            x = arithmetic.residual(block, x)
        return x


def _sizes(config: dict) -> tuple[list[int], list[int]]:
    """The channels and the number of residual blocks at each stride."""
    widths, depths = whole_numbers(config, "channels", 1, MOST_CHANNELS), whole_numbers(config, "blocks", 0, MOST_BLOCKS)
    if len(widths) != len(depths) or len(widths) <= SKIPPED:
        raise AdainError(f"it has {len(widths)} strides, but blocks for {len(depths)}; give blocks for each of at least 2.")
    return widths, depths


ARCHITECTURE = Architecture(StudentEncoder, StudentDecoder)
