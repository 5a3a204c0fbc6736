"""Decoders: features back to a picture; mirrors of the encoders, without normalization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .encoder import State, load_checked
from .layers import ReflectionConv2d, ResidualBlock, UpsampleConv2d


class Decoder(nn.Module):
    """Base of the decoders. `encoder_fingerprint` and `encoder_name` say whose features it reads."""

    architecture: str

    def __init__(self, config: dict):
        super().__init__()
        self.config = config
        self.name = self.architecture
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

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype


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
    upsampled = ("conv3_4", "conv2_2", "conv1_2")

    def __init__(self, config: dict):
        super().__init__(config)
        for name, before, after in self.layers:
            setattr(self, name, (UpsampleConv2d if name in self.upsampled else ReflectionConv2d)(before, after))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        (x,) = features
        for name, _, _ in self.layers[:-1]:
            x = F.relu(getattr(self, name)(x), inplace=True)
        return self.conv1_1(x)


class PyramidDecoder(Decoder):
    """The mirror of `PyramidEncoder`: `blocks` residual blocks at each stride; each level is added on the way up.

    The last convolution draws the 2x2 pixels of each position as channels (Shi et al. 2016, sub-pixel convolution).
    """

    architecture = "pyramid"

    def __init__(self, config: dict):
        super().__init__(config)
        widths = config["channels"]
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
            for width, count in zip(widths, config["blocks"], strict=True)
        )
        self.up = nn.ModuleList(map(UpsampleConv2d, widths[1:], widths))
        self.out = ReflectionConv2d(widths[0], 3 * 4)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = self.blocks[-1](features[-1])
        for index in reversed(range(len(self.up))):
            x, below = F.relu(self.up[index](x), inplace=True), features[index]
            # Odd sizes were rounded up on the way down.
            x = self.blocks[index](x[:, :, : below.shape[2], : below.shape[3]] + below)
        return F.pixel_shuffle(self.out(x), 2)


DECODERS: dict[str, type[Decoder]] = {cls.architecture: cls for cls in (VGGDecoder, PyramidDecoder)}
