"""What a training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from ..errors import AdainError
from ..losses import consistency_loss, content_loss, gram_loss, gram_matrix, style_loss, total_variation
from ..networks import Decoder, Encoder
from ..statistics import ChannelStatistics, adain, channel_statistics
from .config import TrainingConfig

MAX_SHIFT = 7  # pixels; the coarsest level has a stride of 8
MAX_ZOOM = 1.2
NOISE = 0.01


@dataclass(frozen=True)
class Seen:
    """Contents and styles `(B, 3, S, S)` and what the loss network sees of them: the contents' features at its last layer,
    and the styles' statistics, or Gram matrices, at each.
    """

    content: Tensor
    style: Tensor
    features: Tensor
    statistics: list[ChannelStatistics]
    grams: list[Tensor]

    def pairs(self) -> list[Seen]:
        """Each content with its style, batches of 1, copied: what else the loss network gave of the batch is not kept."""
        return [
            Seen(
                self.content[[index]],
                self.style[[index]],
                self.features[[index]],
                [level[index] for level in self.statistics],
                [gram[[index]] for gram in self.grams],
            )
            for index in range(len(self.content))
        ]

    @staticmethod
    def combined(contents: Sequence[Seen], styles: Sequence[Seen]) -> Seen:
        """The contents of some side by side, with the styles of as many others."""
        return Seen(
            torch.cat([each.content for each in contents]),
            torch.cat([each.style for each in styles]),
            torch.cat([each.features for each in contents]),
            [ChannelStatistics.concatenate(level) for level in zip(*(each.statistics for each in styles), strict=True)],
            [torch.cat(grams) for grams in zip(*(each.grams for each in styles), strict=True)],
        )


class Objective(nn.Module):
    """The paper's loss `content_weight * Lc + style_weight * Ls` of pictures, in the features of the loss network.

    The content target is AdaIN of the loss network's own last layer, whichever encoder is trained. On some steps the
    consistency loss is added. `dtype` is the type of the trained networks' activations. Raises AdainError where the
    configuration does not weight the loss network's layers.
    """

    def __init__(self, config: TrainingConfig, loss_network: Encoder, encoder: Encoder, decoder: Decoder, dtype: torch.dtype):
        super().__init__()
        self.layers, given = loss_network.loss_layers, len(config.layer_weights)
        if given != len(self.layers):
            raise AdainError(f"there are {given} layer_weights; give one for each of {', '.join(self.layers)}.")
        self.config, self.loss_network, self.encoder, self.decoder, self.dtype = config, loss_network, encoder, decoder, dtype

    @torch.no_grad()
    def look(self, content: Tensor, style: Tensor) -> Seen:
        """What the losses of contents and styles `(B, 3, S, S)` compare with."""
        features = self.loss_network.features(_fast(torch.cat([content, style])), self.layers)
        styles = [x[len(content) :] for x in features]
        grams = [gram_matrix(x) for x in styles] if self.config.style_loss == "gram" else []
        return Seen(content, style, features[-1][: len(content)], [channel_statistics(x) for x in styles], grams)

    def forward(self, seen: Seen, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and its parts before they are weighted."""
        config = self.config
        with self._autocast():
            levels, styles = self._known(seen) or self._encode(seen.content, seen.style)
            own = [channel_statistics(x) for x in levels]
            result = self._shown(self._decode(levels, styles, own, seen.content))
        found = self.loss_network.features(_fast(result), self.layers)
        target = seen.features if config.content_target == "content" else adain(seen.features, seen.statistics[-1])
        losses, weights = {"content": content_loss(found[-1], target)}, {"content": config.content_weight}
        if config.style_loss == "gram":
            losses["style"] = gram_loss(found, seen.grams, config.layer_weights)
        else:
            losses["style"] = style_loss(found, seen.statistics, config.layer_weights)
        weights["style"] = config.style_weight
        if config.variation_weight:
            losses["variation"], weights["variation"] = total_variation(result), config.variation_weight
        if config.consistency_every and step % config.consistency_every == 0:
            losses["consistency"] = self._consistency(seen.content, result, styles, own, step)
            weights["consistency"] = config.consistency_weight
        return sum(weights[name] * loss for name, loss in losses.items()), losses

    def stylize(self, content: Tensor, style: Tensor) -> Tensor:
        """The networks' pictures, as they are in training, not clamped."""
        with self._autocast():
            levels, styles = self._encode(content, style)
            return self._decode(levels, styles, [channel_statistics(x) for x in levels], content)

    def _consistency(
        self, content: Tensor, result: Tensor, styles: list[ChannelStatistics], own: list[ChannelStatistics], step: int
    ) -> Tensor:
        """How far the result of the contents, noised, and shifted or zoomed, is from the result shifted or zoomed."""
        # drawn once for a batch, so that neither its parts nor its processes change the draw
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) % 2**64)
        noised = content + NOISE * torch.randn(content[:1].shape, generator=generator).to(content)
        zooms, down, right = (int(torch.randint(0, top + 1, (), generator=generator)) for top in (1, MAX_SHIFT, MAX_SHIFT))
        if zooms:
            zoom = MAX_ZOOM ** (2 * torch.rand((), generator=generator).item() - 1)
            size = [round(side * zoom) for side in content.shape[2:]]
            moved, result = (F.interpolate(x.float(), size, mode="bicubic", antialias=True) for x in (noised, result))
            offset = (0, 0)
        else:
            moved, offset = noised[:, :, down:, right:], (down, right)
        with self._autocast():
            # By the whole crop's statistics: what the motion alone changes is to vanish.
            again = self._shown(self._decode(self.encoder.encode(_fast(moved)), styles, own, moved))
            return consistency_loss(self._shown(result), again, offset)  # the zoom overshoots

    def _known(self, seen: Seen) -> tuple[list[Tensor], list[ChannelStatistics]] | None:
        """What `_encode` would give, where the loss network, being the same, has computed it already."""
        same = not self.config.channels and self.encoder.fingerprint == self.loss_network.fingerprint
        if same and len(self.encoder.levels) == 1:
            return [seen.features], seen.statistics[-1:]
        return None

    def _encode(self, content: Tensor, style: Tensor) -> tuple[list[Tensor], list[ChannelStatistics]]:
        """Features of the contents, statistics of the styles."""
        pairs = self.encoder.encode(_fast(torch.cat([content, style])))
        return [x[: len(content)] for x in pairs], [channel_statistics(x[len(content) :]) for x in pairs]

    def _decode(
        self, levels: list[Tensor], styles: list[ChannelStatistics], own: list[ChannelStatistics], content: Tensor
    ) -> Tensor:
        """The pictures, of the contents' size."""
        result = self.decoder([adain(x, style, content=mine) for x, style, mine in zip(levels, styles, own, strict=True)])
        return result[:, :, : content.shape[2], : content.shape[3]]

    def _shown(self, images: Tensor) -> Tensor:
        return _Clamp.apply(images) if self.config.clamp else images

    def _autocast(self) -> torch.autocast:
        device = next(self.loss_network.parameters()).device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)


class _Clamp(torch.autograd.Function):
    """Pictures clamped to [0, 1]. Of values out of it those gradients pass that would bring them back."""

    @staticmethod
    def forward(context: FunctionCtx, images: Tensor) -> Tensor:
        context.save_for_backward(images)
        return images.clamp(0, 1)

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> Tensor:
        (images,) = context.saved_tensors
        outwards = (images < 0) & (gradient > 0) | (images > 1) & (gradient < 0)  # a step goes against the gradient
        return gradient.masked_fill(outwards, 0)


def _fast(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
