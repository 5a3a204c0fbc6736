"""The whole way from pictures to picture: encode, transfer, decode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .decoder import Decoder
from .devices import exact_float32
from .encoder import Encoder
from .statistics import ChannelStatistics, affine_pair, channel_statistics
from .style import Component, Style, check_pictures, check_same_encoder, resize_mask

CONTENT_STATISTICS = ("image", "batch", "running", "region")


@dataclass(frozen=True)
class Features:
    """Stylised features on their way to a decoder.

    `levels`: one `(B, C, h, w)` per level, shallow first. `size`: the content's H and W. `alpha_channel`: the content's,
    `(B, 1, H, W)`, or None. `encoder_fingerprint` and `encoder_name` say which decoder can read them.
    """

    levels: tuple[Tensor, ...]
    size: tuple[int, int]
    alpha_channel: Tensor | None
    encoder_fingerprint: str
    encoder_name: str


def transfer(
    encoder: Encoder,
    content: Tensor,
    style: Style,
    alpha: float = 1.0,
    content_statistics: str = "image",
    half_life: float = 8.0,
) -> Features:
    """AdaIN of the features of `content` `(N, 3, H, W)`, or `(N, 4, H, W)` with alpha, in [0, 1], with a style of N or 1.

    `alpha` in [0, 1] is the strength of the style. `content_statistics`: "image" per picture, "batch" pooled over the
    batch, "running" smoothed along it so that a picture's weight halves every `half_life` pictures, "region" inside the
    mask of each style. Raises ValueError for anything else, for pixels that are not finite and for another encoder's style.

    With masks, at each position: `t = (1 - c) x + c sum_k a_k adain_k`, `a_k = w_k m_k / sum_j w_j m_j`,
    `c = min(1, sum_j m_j)`, where a style without a mask has m = 1.
    """
    check_same_encoder(style, encoder.fingerprint, encoder.name, "the content's encoder")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be from 0 (the content) to 1 (the full style).")
    if content_statistics not in CONTENT_STATISTICS:
        raise ValueError(f"content_statistics is {content_statistics!r}; choose one of {', '.join(CONTENT_STATISTICS)}.")
    if content_statistics == "region" and all(component.mask is None for component in style.components):
        raise ValueError('content_statistics "region" needs a style with a mask; mask the style or choose "image".')
    content = check_pictures(content, "content")
    if 1 not in (len(content), style.batch) and len(content) != style.batch:
        raise ValueError(f"{style.batch} styles do not fit {len(content)} contents; give one style, or one for each content.")
    device = next(encoder.parameters()).device
    style = style.to(device)
    with torch.no_grad(), exact_float32():
        levels = encoder(content[:, :3].to(device))
        stylized = tuple(
            _transfer_level(x, index, style.components, alpha, content_statistics, half_life)
            for index, x in enumerate(levels)
        )
    alpha_channel = content[:, 3:].expand(len(stylized[0]), -1, -1, -1) if content.shape[1] == 4 else None
    return Features(stylized, tuple(content.shape[2:]), alpha_channel, encoder.fingerprint, encoder.name)


def decode(decoder: Decoder, features: Features) -> Tensor:
    """The picture of `features`, `(B, 3, H, W)` in [0, 1], or `(B, 4, H, W)` if the content had alpha; float32.

    H and W are exactly the content's. Raises ValueError if the decoder belongs to another encoder.
    """
    if decoder.encoder_fingerprint != features.encoder_fingerprint:
        raise ValueError(
            f"the decoder {decoder.name!r} reads the encoder {decoder.encoder_name!r}, the features are of"
            f" {features.encoder_name!r}; load the decoder that belongs to {features.encoder_name!r}."
        )
    parameter = next(decoder.parameters())
    with torch.no_grad(), exact_float32():
        images = decoder([level.to(parameter) for level in features.levels])
    images = images[:, :, : features.size[0], : features.size[1]].float().clamp(0, 1)
    if features.alpha_channel is None:
        return images
    return torch.cat([images, features.alpha_channel.to(images)], dim=1)


def stylize(
    encoder: Encoder,
    decoder: Decoder,
    content: Tensor,
    style: Style,
    alpha: float = 1.0,
    content_statistics: str = "image",
    half_life: float = 8.0,
) -> Tensor:
    """`decode(decoder, transfer(encoder, ...))`: pictures `(N, 3, H, W)` in the style, in [0, 1], of the content's size."""
    return decode(decoder, transfer(encoder, content, style, alpha, content_statistics, half_life))


def _transfer_level(
    x: Tensor, level: int, components: tuple[Component, ...], alpha: float, mode: str, half_life: float
) -> Tensor:
    """AdaIN on one level: every component is an affine map of `x` with a gain at each position."""
    gains = _gains(components, x.shape[2:])
    whole = channel_statistics(x)
    if mode == "batch":
        whole = whole.pool()
    elif mode == "running":
        whole = whole.running(half_life)
    scale, shift = 1.0, 0.0
    for component, gain in zip(components, gains, strict=True):
        content = whole
        if mode == "region" and component.mask is not None:
            content = _inside(x, resize_mask(component.mask, x.shape[2:]), whole)
        component_scale, component_shift = affine_pair(content, component.levels[level])
        scale = scale + alpha * gain * (component_scale - 1)[:, :, None, None]
        shift = shift + alpha * gain * component_shift[:, :, None, None]
    return torch.addcmul(shift, x.float(), scale).to(x.dtype)


def _gains(components: tuple[Component, ...], size: tuple[int, int]) -> list[Tensor]:
    """`c * a_k` of each component, `(B, 1, h, w)`, or `(B, 1, 1, 1)` where no component has a mask."""
    weights = [component.weight[:, None, None, None] for component in components]
    masks = [
        torch.ones_like(weight) if component.mask is None else resize_mask(component.mask, size)
        for component, weight in zip(components, weights, strict=True)
    ]
    parts = [weight * mask for weight, mask in zip(weights, masks, strict=True)]
    # A style of weight 0 (the end of a sweep) covers nothing.
    coverage = sum(mask * (weight > 0) for weight, mask in zip(weights, masks, strict=True)).clamp(max=1)
    total = sum(parts)
    return [coverage * part / total.where(total > 0, torch.ones_like(total)) for part in parts]


def _inside(x: Tensor, mask: Tensor, whole: ChannelStatistics) -> ChannelStatistics:
    """Statistics of `x` inside the mask; a region smaller than one position has none, and takes the picture's."""
    inside = channel_statistics(x, mask)
    known = inside.count >= 1
    return ChannelStatistics(
        *(torch.where(known, getattr(inside, name), getattr(whole, name)) for name in ("count", "mean", "m2"))
    )
