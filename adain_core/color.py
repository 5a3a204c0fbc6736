"""Colour control: the style without its colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import AdainError

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
MINIMUM_VARIANCE = 2.5e-4  # of colour, (4 / 255)^2; a direction with less holds rounding errors and blocks of JPEG


def match_colors(style_images: Tensor, content: Tensor, mask: Tensor | None = None) -> Tensor:
    """Style pictures with the content's colours: mean and covariance of their RGB pixels become the content's.

    Both are `(B, 3 or 4, H, W)` in [0, 1], of any sizes; batches must be equal, or one of them 1. Transparent pixels do not
    count, and the style's alpha channel is kept. `mask`, `(B or 1, 1, h, w)` in [0, 1]: the part of the style pictures whose
    colours count. The map is `A (x - mu_s) + mu_c`, `A = S_c^(1/2) S_s^(-1/2)` with symmetric
    roots; the result is clamped. Source: Gatys et al. 2016 (arXiv 1606.05897), image analogies colour matching. Raises
    AdainError if the batches do not fit.
    """
    _check_batches(len(style_images), len(content))
    # 3x3 roots: the CPU has float64 and eigh everywhere
    style_mean, style_covariance = _moments(style_images, mask)
    content_mean, content_covariance = _moments(content)
    # a floor for the inverse root only: with a floor for the other root, flat contents would keep a trace of the style
    matrix = _symmetric_power(content_covariance, 0.5, 0) @ _symmetric_power(style_covariance, -0.5, MINIMUM_VARIANCE)
    shift = content_mean - torch.einsum("bij,bj->bi", matrix, style_mean)
    rgb = style_images[:, :3]
    columns = matrix.to(rgb)[..., None, None].unbind(2)
    # channel by channel, since a matrix product may run in TF32
    matched = sum(column * rgb[:, channel, None] for channel, column in enumerate(columns))
    colored = (matched + shift.to(rgb)[:, :, None, None]).clamp(0, 1)
    return torch.cat([colored, style_images[:, 3:].expand(len(colored), -1, -1, -1)], dim=1)


def keep_colors(stylized: Tensor, content: Tensor) -> Tensor:
    """The luminance of `stylized` with the colours of `content`, both `(B, 3, H, W)` in [0, 1] of one size.

    The content's difference from its own grey (chrominance, BT.601 luminance) is added to the stylised grey, and scaled
    down where it would leave [0, 1], so that luminance is exact. An alpha channel of `stylized` is kept. Source: Gatys et
    al. 2016, luminance-only transfer. Raises AdainError if sizes or batches do not fit.
    """
    check_keepable(len(stylized), stylized.shape[2:], content)
    content = content[:, :3].to(stylized)
    luminance = luma(stylized)
    chrominance = content - luma(content)
    room = torch.where(chrominance > 0, 1 - luminance, luminance) / chrominance.abs().clamp_min(1e-6)
    colored = (luminance + chrominance * room.amin(1, keepdim=True).clamp(0, 1)).clamp(0, 1)
    return torch.cat([colored, stylized[:, 3:].expand(len(colored), -1, -1, -1)], dim=1)


def check_keepable(count: int, size: Sequence[int], content: Tensor) -> None:
    """Raise AdainError unless `count` pictures of `size` (H, W) can take the colours of `content` `(B, C, H, W)`."""
    if tuple(size) != tuple(content.shape[2:]):
        raise AdainError(
            f"colours can only be kept from a picture of the same size, {tuple(size)} (H, W), not {tuple(content.shape[2:])}."
        )
    _check_batches(count, len(content))


def luma(images: Tensor) -> Tensor:
    """Luminance `(B, 1, H, W)` of pictures `(B, 3 or 4, H, W)`, with the weights `LUMINANCE`."""
    red, green, blue = (weight * images[:, channel : channel + 1] for channel, weight in enumerate(LUMINANCE))
    return red.add_(green).add_(blue)


def _check_batches(a: int, b: int) -> None:
    """Raise AdainError unless the numbers of pictures are equal or one of them is 1."""
    if a != b and 1 not in (a, b):
        raise AdainError(f"{a} and {b} pictures cannot be paired; give equal numbers, or a single picture.")


def _moments(images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean colour `(B, 3)` and the covariance `(B, 3, 3)` of pixels, each weighted by its alpha and its mask."""
    pixels = images.flatten(2).cpu().double()
    weights = pixels[:, 3:] if pixels.shape[1] > 3 else torch.ones_like(pixels[:, :1])
    if mask is not None:
        height, width = images.shape[2:]
        weights = weights * F.adaptive_avg_pool2d(mask.cpu().double(), (height, width)).flatten(2)
    weights = torch.where(weights.any(2, keepdim=True), weights, 1)  # where all is transparent, all counts
    weights, pixels = weights / weights.sum(2, keepdim=True), pixels[:, :3]
    mean = (weights * pixels).sum(2)
    centred = pixels - mean[:, :, None]
    return mean, (weights * centred) @ centred.mT


def _symmetric_power(covariance: Tensor, power: float, floor: float) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(floor)[:, None] ** power) @ vectors.mT
