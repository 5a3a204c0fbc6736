"""The content and style losses of finished pictures, by the features of a fixed network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from ..devices import exact_float32
from ..errors import AdainError
from ..losses import content_loss, style_loss
from ..networks import Encoder
from ..statistics import ChannelStatistics, adain
from ..weights import load_encoder


@dataclass(frozen=True)
class Losses:
    """Content and style loss of a picture, or their means over several."""

    content: float
    style: float


def mean_losses(losses: Sequence[Losses]) -> Losses:
    """The mean content loss and the mean style loss."""
    return Losses(fmean(each.content for each in losses), fmean(each.style for each in losses))


def load_loss_network(name: str, device: torch.device) -> Encoder:
    """The VGG-19 for measuring losses, in float32. Raises AdainError for another architecture."""
    network = load_encoder(name, device, torch.float32)
    if not network.perceptual:
        raise AdainError(f"the loss network {name} is a {network.architecture}; give a VGG-19.")
    return network


def layer_features(network: Encoder, pictures: Tensor) -> list[Tensor]:
    """Features of pictures `(B, 3, H, W)` in [0, 1] at relu1_1 to relu4_1 of a VGG, on its device, without gradients."""
    with torch.no_grad(), exact_float32():
        return network.features(pictures.to(network.weights_device), network.loss_layers)


def pair_losses(
    result: Sequence[Tensor], content: Sequence[Tensor], style: Sequence[ChannelStatistics]
) -> Losses:
    """Losses of a result, given its `layer_features`, those of its content, and the `channel_statistics` of its style's.

    The content loss is the distance to the AdaIN target, `mse(f(result), adain(f(content), f(style)))` at the last layer;
    the style loss the sum over layers of `mse(mu, mu_s) + mse(sigma, sigma_s)`. All of batch 1. Source: Huang and Belongie
    2017, equations 12 and 13, squared as in their code.
    """
    target = adain(content[-1], style[-1])
    return Losses(content_loss(result[-1], target).item(), style_loss(result, style).item())
