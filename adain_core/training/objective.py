"""What a training minimises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from ..crossing import to_device
from ..errors import AdainError
from ..losses import consistency_loss, content_loss, gram_loss, gram_matrix, grid_loss, style_loss, total_variation
from ..networks import Decoder, Encoder
from ..networks.texture import NO_TEXTURE, Texture
from ..statistics import ChannelStatistics, adain, channel_statistics
from ..stylize import check_decoder
from .config import TrainingConfig
from .teaching import FeatureMaps

MAX_SHIFT = 7  # pixels; the coarsest level has a stride of 8
MAX_ZOOM = 1.2
NOISE = 0.01
UNTEXTURED = 4  # every so many steps the decoder reads no texture
TAUGHT_LAYERS = 2  # of the loss network's finest, in which results are compared with the teacher's; they cost little


@dataclass(frozen=True)
class Batch:
    """Contents and styles `(B, 3, S, S)`, and what the losses compare results with: the contents' features at the loss
    network's last layer, and the styles' statistics, or Gram matrices, at each of its layers. With a weight on coarse
    style, `coarse_statistics` are those of the halved styles. Where the encoder is trained too, `content_maps` and `style_maps`
    are the loss network's features that it is to see, of each layer.
    """

    content: Tensor
    style: Tensor
    content_features: Tensor
    style_statistics: list[ChannelStatistics]
    coarse_statistics: list[ChannelStatistics]
    style_grams: list[Tensor]
    content_maps: list[Tensor]
    style_maps: list[Tensor]

    def pairs(self) -> list[Batch]:
        """Each content with its style as a batch of 1; copies, so that keeping one does not keep the whole batch's memory."""

        def alone(x: Tensor, index: int) -> Tensor:
            return x[index : index + 1].clone()  # a list of indices would be sent to a GPU, which would be waited for

        return [
            Batch(
                alone(self.content, index),
                alone(self.style, index),
                alone(self.content_features, index),
                [level[index] for level in self.style_statistics],
                [level[index] for level in self.coarse_statistics],
                *([alone(x, index) for x in each] for each in (self.style_grams, self.content_maps, self.style_maps)),
            )
            for index in range(len(self.content))
        ]

    @staticmethod
    def combined(contents: Sequence[Batch], styles: Sequence[Batch]) -> Batch:
        """The contents of some batches with the styles of as many others."""

        def levels(batches: Sequence[list[ChannelStatistics]]) -> list[ChannelStatistics]:
            return [ChannelStatistics.concatenate(level) for level in zip(*batches, strict=True)]

        def joined(batches: Sequence[list[Tensor]]) -> list[Tensor]:
            return [torch.cat(layer) for layer in zip(*batches, strict=True)]

        return Batch(
            torch.cat([batch.content for batch in contents]),
            torch.cat([batch.style for batch in styles]),
            torch.cat([batch.content_features for batch in contents]),
            levels([batch.style_statistics for batch in styles]),
            levels([batch.coarse_statistics for batch in styles]),
            joined([batch.style_grams for batch in styles]),
            joined([batch.content_maps for batch in contents]),
            joined([batch.style_maps for batch in styles]),
        )


class Objective(nn.Module):
    """The paper's loss `content_weight * Lc + style_weight * Ls` of pictures, in the features of the loss network.

    The content target is AdaIN of the loss network's own last layer, whichever encoder is trained. On some steps the
    consistency loss is added; with a `teacher`, a decoder for the loss network, what differs from its pictures; and where
    the encoder is trained too, the share of the loss network's features that it does not explain. `dtype` is the type of the
    trained networks' activations. Raises AdainError for a number of `layer_weights` that is not the number of the loss
    network's layers, and for a teacher that reads other features than the last of them.
    """

    def __init__(
        self,
        config: TrainingConfig,
        loss_network: Encoder,
        encoder: Encoder,
        decoder: Decoder,
        dtype: torch.dtype,
        teacher: Decoder | None = None,
    ):
        super().__init__()
        self.layers, given = loss_network.loss_layers, len(config.layer_weights)
        if given != len(self.layers):
            raise AdainError(f"there are {given} layer_weights; give one for each of {', '.join(self.layers)}.")
        if config.stage == "decoder" and not (config.content_weight or config.style_weight or teacher):
            raise AdainError("content_weight and style_weight are both 0, so that nothing would be learned; give one of them.")
        if teacher:
            check_decoder(teacher, loss_network.fingerprint, loss_network.name)
            if len(loss_network.levels) > 1:
                raise AdainError(f"{teacher.name!r} reads several levels; a teacher reads one, as those for VGG-19 do.")
        self.config, self.loss_network, self.encoder, self.decoder, self.dtype = config, loss_network, encoder, decoder, dtype
        self.teacher = teacher
        self.maps = FeatureMaps(loss_network, encoder) if config.stage == "both" else None

    @torch.no_grad()
    def prepare(self, content: Tensor, style: Tensor) -> Batch:
        """Contents and styles `(B, 3, S, S)` as a batch to train on."""
        features = self.loss_network.features(_channels_last(torch.cat([content, style])), self.layers)
        contents, styles = [x[: len(content)] for x in features], [x[len(content) :] for x in features]
        grams = [gram_matrix(x) for x in styles] if self.config.style_loss == "gram" else []
        mapped = [index for index, name in enumerate(self.layers) if self.maps and name in self.maps.layers]
        maps = ([each[index] for index in mapped] for each in (contents, styles))
        statistics = [channel_statistics(x) for x in styles]
        coarse = [channel_statistics(x) for x in self._halved_features(style)] if self.config.coarse_style_weight else []
        return Batch(content, style, contents[-1], statistics, coarse, grams, *maps)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and the losses it is the weighted sum of, by name."""
        config = self.config
        # some steps have no texture, as the frames of clips; it would stay behind when a content moves
        texture = Texture(seed=step) if step % UNTEXTURED else NO_TEXTURE
        consistent = bool(config.consistency_weight) and step % (UNTEXTURED * config.consistency_every) == 0
        losses = {}
        with self._autocast():
            if self.maps:
                levels, styles, losses["map"] = self._seen(batch, self.maps)
            else:
                levels, styles = self._already_encoded(batch) or self._encode(batch.content, batch.style)
            contents = [channel_statistics(x) for x in levels]
            result = self._clamped(self._decode(self._fuse(levels, contents, styles), batch.content.shape[2:], texture))
        found = self.loss_network.features(_channels_last(result), self.layers)
        target = batch.content_features
        if config.content_target == "adain":
            target = adain(target, batch.style_statistics[-1])
        losses["content"] = content_loss(found[-1], target)
        if config.style_loss == "gram":
            losses["style"] = gram_loss(found, batch.style_grams, config.layer_weights)
        else:
            losses["style"] = style_loss(found, batch.style_statistics, config.layer_weights)
        if config.coarse_style_weight:
            losses["coarse_style"] = style_loss(self._halved_features(result), batch.coarse_statistics, config.layer_weights)
        if config.variation_weight:
            losses["variation"] = total_variation(result)
        if config.grid_weight:
            losses["grid"] = grid_loss(result)
        if self.teacher:
            losses["teacher"] = self._difference(self.teacher, batch, result, found)
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

    def _seen(self, batch: Batch, maps: FeatureMaps) -> tuple[list[Tensor], list[ChannelStatistics], Tensor]:
        """The contents' levels, the styles' statistics at each, and the sum of the shares that the encoder does not explain."""
        features = self.encoder.features(_channels_last(torch.cat([batch.content, batch.style])), self.encoder.layers)
        wanted = [torch.cat(pair) for pair in zip(batch.content_maps, batch.style_maps, strict=True)]
        with torch.autocast(batch.content.device.type, enabled=False):
            shares = maps.unexplained(features, wanted)
        names = [level.name for level in self.encoder.levels]
        levels = [x for name, x in zip(self.encoder.layers, features, strict=True) if name in names]
        count = len(batch.content)
        statistics = [channel_statistics(x[count:]) for x in levels]
        return [x[:count] for x in levels], statistics, reduce(torch.add, shares.values())

    def _halved_features(self, images: Tensor) -> list[Tensor]:
        """The loss network's features of pictures at half their size, where its layers see structures of twice the size."""
        halved = F.interpolate(images.float(), [side // 2 for side in images.shape[2:]], mode="bicubic", antialias=True)
        return self.loss_network.features(_channels_last(halved), self.layers)

    def _difference(self, teacher: Decoder, batch: Batch, result: Tensor, found: list[Tensor]) -> Tensor:
        """The mean squared differences of a `result`, whose features are `found`, from the teacher's picture: of the pixels,
        and of the loss network's first layers.
        """
        with torch.no_grad(), self._autocast():
            wanted = teacher([adain(batch.content_features, batch.style_statistics[-1])])
            wanted = wanted[:, :, : result.shape[2], : result.shape[3]].clamp(0, 1)
            features = self.loss_network.features(_channels_last(wanted), self.layers[:TAUGHT_LAYERS])
        pairs = zip([result, *found[:TAUGHT_LAYERS]], [wanted, *features], strict=True)
        return reduce(torch.add, (F.mse_loss(a.float(), b.float()) for a, b in pairs))

    def _consistency(
        self, content: Tensor, result: Tensor, contents: list[ChannelStatistics], styles: list[ChannelStatistics], step: int
    ) -> Tensor:
        """The consistency loss of `content`, noised and then shifted or zoomed, against its `result` shifted or zoomed."""
        # drawn once for a batch, so that neither its parts nor its processes change the draw
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) % 2**64)
        noised = content + NOISE * to_device(torch.randn(content[:1].shape, generator=generator), content.device)
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
        if self.encoder.fingerprint != self.loss_network.fingerprint or len(self.encoder.levels) > 1:
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
        device = self.loss_network.weights_device.type
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
