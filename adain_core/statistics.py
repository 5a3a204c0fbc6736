"""Channel statistics and adaptive instance normalization, the paper's equation 8."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .crossing import to_device
from .errors import AdainError

EPS = 1e-5  # added to the variance under the root, as in the paper's code
FLOAT16_MAX = 65504.0
PARTS = ("count", "mean", "m2")  # the fields of `ChannelStatistics`


@dataclass(frozen=True)
class ChannelStatistics:
    """Count, mean and sum of squared deviations (M2) of each sample's channels, in float32 or better.

    `count` is `(B, 1)`, `mean` and `m2` are `(B, C)`. Kept in this form, the statistics of parts merge exactly
    (Chan, Golub and LeVeque 1979).
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @property
    def batch(self) -> int:
        return self.mean.shape[0]

    @property
    def std(self) -> Tensor:
        """`sqrt(M2 / count + EPS)`, biased, `(B, C)`."""
        return (self.m2 / self.count.clamp_min(EPS) + EPS).sqrt()

    def merge(self, other: ChannelStatistics) -> ChannelStatistics:
        """Statistics of both parts together. Batches must be equal, or one of them 1."""
        count = self.count + other.count
        share = other.count / count.clamp_min(EPS)  # two empty parts stay empty
        delta = other.mean - self.mean
        return ChannelStatistics(count, self.mean + delta * share, self.m2 + other.m2 + delta**2 * self.count * share)

    def pool(self) -> ChannelStatistics:
        """Statistics of all samples together, batch 1."""
        count = self.count.sum(0, keepdim=True)
        mean = (self.mean * self.count).sum(0, keepdim=True) / count.clamp_min(EPS)
        m2 = (self.m2 + self.count * (self.mean - mean) ** 2).sum(0, keepdim=True)
        return ChannelStatistics(count, mean, m2)

    def running(self, half_life: float, past: ChannelStatistics | None = None) -> ChannelStatistics:
        """Statistics smoothed along the batch: a sample's weight halves every `half_life` samples after it.

        `past`, of batch 1, is the last result for the samples before these. Raises AdainError for a half-life that is not
        above 0.
        """
        check_half_life(half_life)
        decay = 0.5 ** (1.0 / half_life)
        smoothed = []
        for index in range(self.batch):
            here = self[index]
            past = here if past is None else ChannelStatistics(past.count * decay, past.mean, past.m2 * decay).merge(here)
            smoothed.append(past)
        return ChannelStatistics.concatenate(smoothed)

    def map(self, function: Callable[..., Tensor], *others: ChannelStatistics) -> ChannelStatistics:
        """The statistics with `function` applied to each field: `function(self.count, *(other.count for others))`, ..."""
        return ChannelStatistics(*(function(*(getattr(each, part) for each in (self, *others))) for part in PARTS))

    def __getitem__(self, index: int) -> ChannelStatistics:
        """The statistics of one sample, batch 1."""
        return self.map(lambda part: part[index][None])  # a list of indices would be sent to a GPU

    @staticmethod
    def concatenate(parts: Sequence[ChannelStatistics]) -> ChannelStatistics:
        """The statistics of all parts, one after the other along the batch."""
        return parts[0] if len(parts) == 1 else parts[0].map(lambda *tensors: torch.cat(tensors), *parts[1:])


def channel_statistics(x: Tensor, weights: Tensor | None = None) -> ChannelStatistics:
    """Statistics of features `x` `(B, C, H, W)` over H and W, per sample and channel.

    `weights` `(B or 1, 1, H, W)`, at least 0, weigh the positions. 16-bit features are summed in float32.
    """
    x = _at_least_float32(x)
    if weights is None:
        count = x.new_full((x.shape[0], 1), x.shape[2] * x.shape[3])
        if x.device.type != "cpu":  # there torch.var_mean is several times slower; on a GPU it is one kernel instead of four
            variance, mean = torch.var_mean(x, (2, 3), correction=0)
            return ChannelStatistics(count, mean, variance * count)
        mean = x.mean((2, 3), keepdim=True)
        return ChannelStatistics(count, mean[:, :, 0, 0], ((x - mean) ** 2).sum((2, 3)))
    weights = to_device(weights, x.device).to(x.dtype).expand(x.shape[0], -1, -1, -1)
    count = weights.sum((2, 3))
    mean = (x * weights).sum((2, 3)) / count.clamp_min(EPS)
    m2 = ((x - mean[:, :, None, None]) ** 2 * weights).sum((2, 3))
    return ChannelStatistics(count, mean, m2)


def level_tensors(levels: Sequence[ChannelStatistics], prefix: str = "") -> dict[str, Tensor]:
    """The statistics of levels as tensors for a file: `level.{i}.count`, `.mean` and `.m2`, after the prefix."""
    return {f"{prefix}level.{i}.{name}": getattr(level, name) for i, level in enumerate(levels) for name in PARTS}


def levels_of(tensors: Mapping[str, Tensor], prefix: str = "") -> list[ChannelStatistics]:
    """The statistics that `level_tensors` stored in `tensors`. Raises KeyError if a field of one is missing."""
    levels = []
    while (level := f"{prefix}level.{len(levels)}") + ".mean" in tensors:
        levels.append(ChannelStatistics(*(tensors[f"{level}.{name}"] for name in PARTS)))
    return levels


def affine_pair(content: ChannelStatistics, style: ChannelStatistics) -> tuple[Tensor, Tensor]:
    """Scale and shift `(B, C)` of AdaIN as an affine map: `adain(x) = scale * x + shift`; they are on the content's device."""
    # together, since each copy to a GPU takes time
    std, mean = to_device(torch.stack([style.std, style.mean]), content.mean.device)
    scale = std / content.std
    return scale, torch.addcmul(mean, scale, content.mean, value=-1)


def adain(x: Tensor, statistics: ChannelStatistics, alpha: float = 1.0, content: ChannelStatistics | None = None) -> Tensor:
    """Adaptive instance normalization: `alpha * (sigma(y) (x - mu(x)) / sigma(x) + mu(y)) + (1 - alpha) * x`.

    `x` is `(B, C, H, W)`, `statistics` are the style's, of batch B or 1; `content` replaces the statistics of `x` itself.
    Computed in float32 or better, returned in the type of `x`, in float16 within its range. Source: Huang and Belongie 2017,
    equations 8 and 14.
    """
    scale, shift = affine_pair(channel_statistics(x) if content is None else content, statistics)
    scale, shift = 1 + alpha * (scale - 1), alpha * shift
    result = torch.addcmul(shift[:, :, None, None], _at_least_float32(x), scale[:, :, None, None])
    if x.dtype == torch.float16:  # infinities would become NaN in what comes next
        result = result.clamp(-FLOAT16_MAX, FLOAT16_MAX)
    return result.to(x.dtype)


def check_alpha(alpha: float) -> None:
    """Raise AdainError for a strength that is not in [0, 1]."""
    if not 0 <= alpha <= 1:
        raise AdainError(f"alpha is {alpha}; it must be from 0 (the content) to 1 (the full style).")


def check_half_life(half_life: float) -> None:
    """Raise AdainError for a number of frames that is not above 0."""
    if not half_life > 0:
        raise AdainError(f"half_life is {half_life}; it is a number of frames and must be above 0.")


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
