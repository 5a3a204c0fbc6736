"""Texture: fixed pseudo-random numbers for a decoder to paint flat areas with."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Whole = TypeVar("Whole", int, Tensor)

BITS = 0xFFFFFFFF
MULTIPLIER = 0x45D9F3B  # of an integer hash of 32 bits with little bias (Mueller 2012); products stay below 2^63
LEVELS = 1 << 16  # number of different values
KEPT = 1 << 21  # numbers in the largest texture that is cached


@dataclass(frozen=True)
class Texture:
    """The texture that a decoder reads: pseudo-random numbers of mean 0 and deviation 1, times `strength` in [0, 1].

    Each number depends only on the `seed` and on its channel, row and column at its stride, so that tiles, devices and number
    types agree. `top` and `left`: where the decoded window begins in the picture, in pixels; multiples of the strides.
    """

    strength: float = 1.0
    seed: int = 0
    top: int = 0
    left: int = 0

    def at(self, stride: int, channels: int, like: Tensor) -> Tensor:
        """The numbers `(1, channels, h, w)` for features `like` `(B, C, h, w)` of that stride, on their device, in their type.

        With a strength of 0 they are zeros `(1, channels, 1, 1)`.
        """
        if self.strength == 0:
            return like.new_zeros(1, channels, 1, 1)
        height, width = like.shape[2:]
        numbers = _kept_numbers if channels * height * width <= KEPT else _numbers
        place = self.top // stride, self.left // stride, height, width
        return numbers(self.seed, channels, *place, like.device, like.dtype) * self.strength


NO_TEXTURE = Texture(strength=0.0)


def _numbers(
    seed: int, channels: int, top: int, left: int, height: int, width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The numbers `(1, channels, height, width)` of a strength of 1; the place is in positions."""
    rows = torch.arange(top, top + height, device=device)[:, None]
    columns = torch.arange(left, left + width, device=device)
    pairs = torch.arange((channels + 1) // 2, device=device)[:, None, None]  # a hash gives the numbers of two channels
    # hashed first, a seed has no channels in common with the next one
    hashed = _hash(_hash(_hash(pairs + _hash(seed)) + rows) + columns)
    halves = torch.stack([hashed & (LEVELS - 1), hashed >> 16], 1).flatten(0, 1)[:channels]
    # evenly spread: their deviation is 1 / sqrt(12) of their range
    return ((halves.float() - (LEVELS - 1) / 2) * (12**0.5 / LEVELS))[None].to(dtype, memory_format=torch.channels_last)


_kept_numbers = functools.lru_cache(maxsize=8)(_numbers)  # for the frames of a clip, and further pictures of one size


def _hash(x: Whole) -> Whole:
    """A hash of whole numbers, of 32 bits; computed in 64-bit arithmetic, so that all devices agree."""
    x = x & BITS
    for _ in range(2):
        x = ((x >> 16) ^ x) * MULTIPLIER & BITS
    return (x >> 16) ^ x
