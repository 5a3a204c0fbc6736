"""What a training minimises."""

from __future__ import annotations

import torch
from torch import Tensor

from ..decoder import Decoder
from ..encoder import Encoder, VGGEncoder
from ..losses import LAYERS, consistency_loss, content_loss, style_loss
from ..statistics import ChannelStatistics, adain, channel_statistics
from .config import TrainingConfig

MAX_SHIFT = 7  # pixels; the coarsest level has a stride of 8
NOISE = 0.01


class Objective:
    """The paper's loss `content_weight * Lc + style_weight * Ls` of pictures, in the features of the loss network.

    The content target is AdaIN of the loss network's own relu4_1, whichever encoder is trained. On some steps the
    consistency loss is added. `dtype` is the type of the trained networks' activations.
    """

    def __init__(
        self, config: TrainingConfig, loss_network: VGGEncoder, encoder: Encoder, decoder: Decoder, dtype: torch.dtype
    ):
        self.config, self.loss_network, self.encoder, self.decoder, self.dtype = config, loss_network, encoder, decoder, dtype

    def __call__(self, content: Tensor, style: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and its parts before they are weighted, of contents and styles `(B, 3, S, S)`."""
        with torch.no_grad():
            features = self.loss_network(_fast(torch.cat([content, style])), LAYERS)
            wanted = [channel_statistics(x[len(content) :]) for x in features]
            target = adain(features[-1][: len(content)], wanted[-1])
        with self._autocast():
            shared = self.encoder is self.loss_network
            levels, styles = ([features[-1][: len(content)]], wanted[-1:]) if shared else self._encode(content, style)
            own = [channel_statistics(x) for x in levels]
            result = self._decode(levels, styles, own)
        found = self.loss_network(_fast(result), LAYERS)
        losses = {"content": content_loss(found[-1], target), "style": style_loss(found, wanted)}
        total = self.config.content_weight * losses["content"] + self.config.style_weight * losses["style"]
        if self.config.consistency_every and step % self.config.consistency_every == 0:
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            down, right = torch.randint(0, MAX_SHIFT + 1, (2,), generator=generator).tolist()
            noise = torch.randn(content.shape, generator=generator).to(content) * NOISE
            moved = _fast((content + noise)[:, :, down:, right:])
            with self._autocast():
                # By the whole crop's statistics: what the shift alone changes is to vanish.
                shifted = self._decode(self.encoder(moved), styles, own)
            losses["consistency"] = consistency_loss(result, shifted, (down, right))
            total = total + self.config.consistency_weight * losses["consistency"]
        return total, losses

    def stylize(self, content: Tensor, style: Tensor) -> Tensor:
        """The networks' pictures, as they are in training."""
        with self._autocast():
            levels, styles = self._encode(content, style)
            return self._decode(levels, styles, [channel_statistics(x) for x in levels])

    def _encode(self, content: Tensor, style: Tensor) -> tuple[list[Tensor], list[ChannelStatistics]]:
        """Features of the contents, statistics of the styles."""
        pairs = self.encoder(_fast(torch.cat([content, style])))
        return [x[: len(content)] for x in pairs], [channel_statistics(x[len(content) :]) for x in pairs]

    def _decode(self, levels: list[Tensor], styles: list[ChannelStatistics], own: list[ChannelStatistics]) -> Tensor:
        return self.decoder([adain(x, style, content=mine) for x, style, mine in zip(levels, styles, own, strict=True)])

    def _autocast(self) -> torch.autocast:
        device = next(self.loss_network.parameters()).device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)


def _fast(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
