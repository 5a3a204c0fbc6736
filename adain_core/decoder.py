"""Decoders: features back to a picture; mirrors of the encoders, without normalization."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import MOST_CHANNELS, State, load_checked, whole_numbers
from .layers import Layer, ReflectionConv2d, ReluAround, ResidualBlock, UpsampleConv2d, in_bands, relu_layer

MOST_BLOCKS = 64  # at a stride; a description that says more is damaged


class Decoder(nn.Module):
    """Base of the decoders. `encoder_fingerprint` and `encoder_name` say whose features it reads.

    `dtype`, `halo` and `values_per_pixel` are as of `Encoder`; `stride` is that of the coarsest level in pixels.
    """

    architecture: str
    stride: int
    halo: int
    values_per_pixel: float

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.name = self.architecture
        self.dtype = torch.float32
        self.encoder_fingerprint = ""
        self.encoder_name = ""

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Pictures `(B, 3, H, W)`, not clamped, from one tensor of features per level, shallow first.

        H and W are the features' size times their stride, which may be a little more than the content's.
        """
        raise NotImplementedError

    def load_network(self, state: State) -> None:
        """Take the weights of a network file. Raises ValueError where they do not fit."""
        load_checked(self, state)


class VGGDecoder(Decoder):
    """The mirror of VGG-19 from relu4_1, as in the paper."""

    architecture = "vgg19"
    layers = (
        ("conv4_1", 512, 256),
        ("conv3_4", 256, 256),
        ("conv3_3", 256, 256),
        ("conv3_2", 256, 256),
        ("conv3_1", 256, 128),
        ("conv2_2", 128, 128),
        ("conv2_1", 128, 64),
        ("conv1_2", 64, 64),
        ("conv1_1", 64, 3),
    )
    # all but the first begin with upsampling
    blocks = (("conv4_1",), ("conv3_4", "conv3_3", "conv3_2", "conv3_1"), ("conv2_2", "conv2_1"), ("conv1_2", "conv1_1"))
    upsampled = tuple(names[0] for names in blocks[1:])
    stride = 2 ** len(upsampled)
    values_per_pixel = layers[-1][1]

    def __init__(self, config: dict):
        super().__init__(config)
        for name, before, after in self.layers:
            setattr(self, name, (UpsampleConv2d if name in self.upsampled else ReflectionConv2d)(before, after))
        stride, self.halo = self.stride, 0
        for name, _, _ in self.layers:
            stride //= 2 if name in self.upsampled else 1
            self.halo += stride  # a 3x3 convolution sees one position beyond its own

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x, layer, last = features[0].to(self.dtype), relu_layer, nn.Conv2d.__call__
        if self.dtype.itemsize == 2:
            layer, x = ReluAround.begin([getattr(self, name) for name, _, _ in self.layers], features[0], self.dtype)
            last = layer.without_relu
        for names in self.blocks:
            scale = 2 if names[0] in self.upsampled else 1
            values_per_row = getattr(self, names[0]).out_channels * scale**2 * x.shape[3]
            # upsampling sees one position beyond its own, two convolutions behind it one more
            part = partial(self._block, layer=layer, last=last, names=names)
            x = in_bands(part, x, len(names) // 2 + 1, scale, values_per_row)
        return x

    def _block(self, x: Tensor, layer: Layer, last: Layer, names: Sequence[str]) -> Tensor:
        for name in names:
            x = (last if name == self.layers[-1][0] else layer)(getattr(self, name), x)
        return x


class PyramidDecoder(Decoder):
    """The mirror of `PyramidEncoder`: `blocks` residual blocks at each stride; each level is added on the way up.

    The last convolution draws the 2x2 pixels of each position as channels (Shi et al. 2016, sub-pixel convolution).
    """

    architecture = "pyramid"

    def __init__(self, config: dict):
        super().__init__(config)
        widths, depths = whole_numbers(config, "channels", 1, MOST_CHANNELS), whole_numbers(config, "blocks", 0, MOST_BLOCKS)
        if len(widths) != len(depths):
            raise ValueError(f"it has {len(widths)} levels and blocks for {len(depths)}.")
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count))) for width, count in zip(widths, depths, strict=True)
        )
        self.up = nn.ModuleList(map(UpsampleConv2d, widths[1:], widths))
        self.out = ReflectionConv2d(widths[0], 3 * 4)
        self.stride = 2 ** len(widths)
        # each convolution sees one position beyond its own: two in a block, one after each upsampling, the last one
        strides = [2**i for i in range(1, len(widths) + 1)]
        blocks = sum(2 * count * stride for count, stride in zip(depths, strides, strict=True))
        self.halo = blocks + sum(strides[:-1]) + strides[0]
        self.values_per_pixel = max(3.0, widths[0] / 4)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        features = [level.to(self.dtype) for level in features]
        x = self.blocks[-1](features[-1])
        for index in reversed(range(len(self.up))):
            x, below = self.up[index](x), features[index]
            # Odd sizes were rounded up on the way down.
            x = self.blocks[index](x[:, :, : below.shape[2], : below.shape[3]] + below)
        return F.pixel_shuffle(self.out(x), 2)


DECODERS: dict[str, type[Decoder]] = {cls.architecture: cls for cls in (VGGDecoder, PyramidDecoder)}
