"""What a training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from ..errors import AdainError
from ..losses import consistency_loss, content_loss, gram_loss, gram_matrix, style_loss, total_variation
from ..networks import Decoder, Encoder
from ..networks.texture import NO_TEXTURE, Texture
from ..statistics import ChannelStatistics, adain, channel_statistics
from .config import TrainingConfig

MAX_SHIFT = 7  # pixels; the coarsest level has a stride of 8
MAX_ZOOM = 1.2
NOISE = 0.01
UNTEXTURED = 4  # every so many steps the decoder reads no texture


@dataclass(frozen=True)
class Batch:
    """Contents and styles `(B, 3, S, S)`, and what the losses compare results with: the contents' features at the loss
    network's last layer, and the styles' statistics, or Gram matrices, at each of its layers.
    """

    content: Tensor
    style: Tensor
    content_features: Tensor
    style_statistics: list[ChannelStatistics]
    style_grams: list[Tensor]

    def pairs(self) -> list[Batch]:
        """Each content with its style as a batch of 1; copies, so that keeping one does not keep the whole batch's memory."""
        return [
            Batch(
                self.content[[index]],
                self.style[[index]],
                self.content_features[[index]],
                [level[index] for level in self.style_statistics],
                [gram[[index]] for gram in self.style_grams],
            )
            for index in range(len(self.content))
        ]

    @staticmethod
    def combined(contents: Sequence[Batch], styles: Sequence[Batch]) -> Batch:
        """The contents of some batches with the styles of as many others."""
        statistics = zip(*(batch.style_statistics for batch in styles), strict=True)
        return Batch(
            torch.cat([batch.content for batch in contents]),
            torch.cat([batch.style for batch in styles]),
            torch.cat([batch.content_features for batch in contents]),
            [ChannelStatistics.concatenate(level) for level in statistics],
            [torch.cat(grams) for grams in zip(*(batch.style_grams for batch in styles), strict=True)],
        )


class Objective(nn.Module):
    """The paper's loss `content_weight * Lc + style_weight * Ls` of pictures, in the features of the loss network.

    The content target is AdaIN of the loss network's own last layer, whichever encoder is trained. On some steps the
    consistency loss is added. `dtype` is the type of the trained networks' activations. Raises AdainError for a number of
    `layer_weights` that is not the number of the loss network's layers.
    """

    def __init__(self, config: TrainingConfig, loss_network: Encoder, encoder: Encoder, decoder: Decoder, dtype: torch.dtype):
        super().__init__()
        self.layers, given = loss_network.loss_layers, len(config.layer_weights)
        if given != len(self.layers):
            raise AdainError(f"there are {given} layer_weights; give one for each of {', '.join(self.layers)}.")
        self.config, self.loss_network, self.encoder, self.decoder, self.dtype = config, loss_network, encoder, decoder, dtype
        self.running: list = []  # nothing is kept from step to step

    @torch.no_grad()
    def prepare(self, content: Tensor, style: Tensor) -> Batch:
        """Contents and styles `(B, 3, S, S)` as a batch to train on."""
        features = self.loss_network.features(_channels_last(torch.cat([content, style])), self.layers)
        styles = [x[len(content) :] for x in features]
        grams = [gram_matrix(x) for x in styles] if self.config.style_loss == "gram" else []
        return Batch(content, style, features[-1][: len(content)], [channel_statistics(x) for x in styles], grams)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and the losses it is the weighted sum of, by name."""
        config = self.config
        consistent = bool(config.consistency_every) and step % config.consistency_every == 0
        with self._autocast():
            levels, styles = self._already_encoded(batch) or self._encode(batch.content, batch.style)
            contents = [channel_statistics(x) for x in levels]
            # some steps have no texture, as the frames of clips; it would stay behind when a content moves
            texture = NO_TEXTURE if consistent or step % UNTEXTURED == 0 else Texture(seed=step)
            result = self._clamped(self._decode(self._fuse(levels, contents, styles), batch.content.shape[2:], texture))
        found = self.loss_network.features(_channels_last(result), self.layers)
        target = batch.content_features
        if config.content_target == "adain":
            target = adain(target, batch.style_statistics[-1])
        losses = {"content": content_loss(found[-1], target)}
        if config.style_loss == "gram":
            losses["style"] = gram_loss(found, batch.style_grams, config.layer_weights)
        else:
            losses["style"] = style_loss(found, batch.style_statistics, config.layer_weights)
        if config.variation_weight:
            losses["variation"] = total_variation(result)
        if consistent:
            losses["consistency"] = self._consistency(batch.content, result, contents, styles, step)
        # the weight of a loss is the setting of its name
        weighted = (getattr(config, f"{name}_weight") * loss for name, loss in losses.items())
        return reduce(torch.add, weighted), losses

    def stylize(self, content: Tensor, style: Tensor) -> Tensor:
        """The networks' pictures, as they are in training, not clamped."""
        with self._autocast():
            levels, styles = self._encode(content, style)
            contents = [channel_statistics(x) for x in levels]
            return self._decode(self._fuse(levels, contents, styles), content.shape[2:], Texture())

    def _consistency(
        self, content: Tensor, result: Tensor, contents: list[ChannelStatistics], styles: list[ChannelStatistics], step: int
    ) -> Tensor:
        """The consistency loss of `content`, noised and then shifted or zoomed, against its `result` shifted or zoomed."""
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
            # with the statistics of the whole crop, so that the loss is of the motion and not of other statistics
            features = self._fuse(self.encoder.encode(_channels_last(moved)), contents, styles)
            again = self._clamped(self._decode(features, moved.shape[2:], NO_TEXTURE))
            return consistency_loss(self._clamped(result), again, offset)  # the zoom overshoots

    def _already_encoded(self, batch: Batch) -> tuple[list[Tensor], list[ChannelStatistics]] | None:
        """The result of `_encode`, if the loss network is the encoder and has computed it for the batch."""
        trained = "encoder" in self.config.trained_roles
        if trained or self.encoder.fingerprint != self.loss_network.fingerprint or len(self.encoder.levels) > 1:
            return None
        return [batch.content_features], batch.style_statistics[-1:]

    def _encode(self, content: Tensor, style: Tensor) -> tuple[list[Tensor], list[ChannelStatistics]]:
        """The contents' levels and the styles' statistics at each."""
        levels = self.encoder.encode(_channels_last(torch.cat([content, style])))
        return [x[: len(content)] for x in levels], [channel_statistics(x[len(content) :]) for x in levels]

    def _fuse(self, levels: list[Tensor], contents: list[ChannelStatistics], styles: list[ChannelStatistics]) -> list[Tensor]:
        """The decoder's input: AdaIN of each level, from the contents' statistics to the styles'."""
        return [adain(x, style, content=content) for x, content, style in zip(levels, contents, styles, strict=True)]

    def _decode(self, features: list[Tensor], size: Sequence[int], texture: Texture) -> Tensor:
        """The pictures, of `size` (height, width)."""
        return self.decoder(features, texture)[:, :, : size[0], : size[1]]

    def _clamped(self, images: Tensor) -> Tensor:
        """The pictures clamped to [0, 1], if the setting `clamp` is on."""
        return _Clamp.apply(images) if self.config.clamp else images

    def _autocast(self) -> torch.autocast:
        device = next(self.loss_network.parameters()).device.type
        return torch.autocast(device, self.dtype, enabled=self.dtype != torch.float32)


class _Clamp(torch.autograd.Function):
    """Clamps pictures to [0, 1]; at values outside, only gradients pass whose step leads back."""

    @staticmethod
    def forward(context: FunctionCtx, images: Tensor) -> Tensor:
        context.save_for_backward(images)
        return images.clamp(0, 1)

    @staticmethod
    def backward(context: BackwardCFunction, gradient: Tensor) -> Tensor:
        (images,) = context.saved_tensors
        outwards = (images < 0) & (gradient > 0) | (images > 1) & (gradient < 0)  # a step goes against the gradient
        return gradient.masked_fill(outwards, 0)


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)
