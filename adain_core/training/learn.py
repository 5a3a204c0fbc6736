"""Learning one style: its statistics refined by gradient, the networks fixed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from ..devices import exact_float32
from ..errors import AdainError
from ..images import check_pictures, resize, resize_mask, without_hidden
from ..losses import content_loss, style_loss
from ..networks import Decoder, Encoder
from ..networks.base import check_seed
from ..progress import part_of, tell
from ..statistics import ChannelStatistics, adain, channel_statistics
from ..style import Component, Style, encode_style
from ..stylize import check_decoder
from .networks import training_dtype

log = logging.getLogger(__name__)

CONTENT_SIDE, STYLE_SIDE = 256, 512  # smallest sides in pixels
CONTENTS = 16  # at most so many are learned from
SPEED = 5  # deviations for 1: at the usual learning rate of 0.02, a step moves statistics by about a tenth of one
CONTENT_WEIGHT = 0.1  # beside the style loss: the proportion of the paper's training
CHECK_EVERY, PATIENCE = 10, 3  # steps between checks on all contents; checks without a gain after which it ends
GAIN = 0.998  # a loss is a gain if it is below this part of the best


def learn_style(
    encoder: Encoder,
    decoder: Decoder,
    style_picture: Tensor,
    contents: Tensor,
    steps: int = 100,
    learning_rate: float = 0.02,
    seed: int = 0,
    loss_encoder: Encoder | None = None,
) -> Style:
    """The style of `style_picture` `(1, 3 or 4, H, W)`, with statistics that give results closer to it than the encoded ones.

    They start as those of `encode_style` and are refined by gradient on `contents` `(N, 3, H, W)`, both in [0, 1], with
    fixed networks: the affine pair of conditional instance normalization (Dumoulin et al. 2017), of one style. The loss is
    that of training, of the results clamped to [0, 1], in the features of `loss_encoder` (default: `encoder`). At most 16
    contents, evenly spaced, are learned from, at 256 pixels; on these the style loss is never above that of the start.
    Learning ends early after 30 steps without a gain.

    It tells how many steps are done, with a stylised content at some of them. Raises AdainError for numbers out of range,
    tensors that are not pictures and a decoder of another encoder.
    """
    check_decoder(decoder, encoder.fingerprint, encoder.name)
    if steps < 1 or not 0 < learning_rate <= 1:
        raise AdainError("steps must be at least 1, and the learning rate above 0 and at most 1.")
    check_seed(seed)
    style_picture, contents = check_pictures(style_picture, "style")[:1], check_pictures(contents, "content")
    places = torch.linspace(0, len(contents) - 1, min(CONTENTS, len(contents))).round().long()
    device = encoder.weights_device
    # a host may call in inference mode, which has no gradients
    with torch.inference_mode(False), torch.enable_grad(), exact_float32():
        with part_of(0, steps):
            start = encode_style(encoder, style_picture, STYLE_SIDE)
        contents = without_hidden(contents[places])[:, :3]
        pictures = (resize(x.clone(), side) for x, side in ((contents, CONTENT_SIDE), (style_picture, STYLE_SIDE)))
        learner = _StyleLearner(encoder, decoder, loss_encoder or encoder, *(picture.to(device) for picture in pictures))
        levels = learner.learn(start.to(device).components[0].levels, steps, learning_rate, seed)
    component = Component(start.components[0].weight, tuple(level.map(lambda tensor: tensor.cpu()) for level in levels))
    return dataclasses.replace(start, components=(component,))


class _StyleLearner:
    """Frozen copies of the networks, the contents' features, and the statistics and features that the losses compare with."""

    @torch.no_grad()
    def __init__(self, encoder: Encoder, decoder: Decoder, loss_encoder: Encoder, contents: Tensor, style: Tensor):
        device = contents.device
        encoder, self.decoder = encoder.copy_for(device), decoder.copy_for(device)
        self.loss_encoder = loss_encoder.copy_for(device, training_dtype("auto", device))
        self.layers, self.size = loss_encoder.loss_layers, contents.shape[2:]
        seen = self.loss_encoder.features(without_hidden(style)[:, :3], self.layers)
        alphas = [resize_mask(style[:, 3:], x.shape[2:]) if style.shape[1] == 4 else None for x in seen]
        self.style = [channel_statistics(x, alpha) for x, alpha in zip(seen, alphas, strict=True)]
        pictures = [picture[None] for picture in contents]
        self.contents = [encoder.encode(picture) for picture in pictures]
        self.targets = [adain(self.loss_encoder.features(picture, self.layers[-1:])[0], self.style[-1]) for picture in pictures]

    def learn(
        self, start: Sequence[ChannelStatistics], steps: int, learning_rate: float, seed: int
    ) -> Sequence[ChannelStatistics]:
        """The best statistics that gradient descent finds from `start` on."""
        offsets = [torch.zeros(2, *level.mean.shape, device=level.mean.device, requires_grad=True) for level in start]
        optimizer = torch.optim.Adam(offsets, learning_rate)
        generator = torch.Generator().manual_seed(seed)
        best = first = self.check(start)[0]
        found, stale = start, 0
        for step in range(1, steps + 1):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - (step - 1) / steps)
            optimizer.zero_grad()
            index = int(torch.randint(len(self.contents), (), generator=generator))
            style, content, _ = self.losses(index, _moved(start, offsets))
            (style + CONTENT_WEIGHT * content).backward()
            optimizer.step()
            picture = None
            if step % CHECK_EVERY == 0 or step == steps:
                levels = [level.map(Tensor.detach) for level in _moved(start, offsets)]
                loss, picture = self.check(levels)
                stale = 0 if loss < GAIN * best else stale + 1
                if loss < best:
                    best, found = loss, levels
            tell(steps if stale == PATIENCE else step, steps, picture)
            if stale == PATIENCE:
                break
        log.info("the style loss fell from %.3f to %.3f in %d steps, by %s", first, best, step, self.loss_encoder.name)
        return found

    @torch.no_grad()
    def check(self, levels: Sequence[ChannelStatistics]) -> tuple[float, Tensor]:
        """The mean style loss over all contents, and the first content's picture."""
        losses = [self.losses(index, levels) for index in range(len(self.contents))]
        return fmean(style.item() for style, _, _ in losses), losses[0][2]

    def losses(self, index: int, levels: Sequence[ChannelStatistics]) -> tuple[Tensor, Tensor, Tensor]:
        """Style and content loss of content `index` in the style of these statistics, and its picture."""
        result = self.decoder([adain(x, level) for x, level in zip(self.contents[index], levels, strict=True)])
        # clamped, as it is shown: values beyond black and white could lower the losses and break the picture
        result = result[:, :, : self.size[0], : self.size[1]].clamp(0, 1)
        features = self.loss_encoder.features(result, self.layers)
        return style_loss(features, self.style), content_loss(features[-1], self.targets[index]), result


def _moved(levels: Sequence[ChannelStatistics], offsets: Sequence[Tensor]) -> list[ChannelStatistics]:
    """Means moved by, and deviations scaled by e to, `SPEED` times `offsets` `(2, B, C)` of each level."""
    return [
        ChannelStatistics(level.count, level.mean + shift * level.std, level.m2 * (2 * scale).exp())
        for level, (shift, scale) in zip(levels, (SPEED * offset for offset in offsets), strict=True)
    ]
