"""The whole way from pictures to picture: encode, transfer, decode."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .decoder import Decoder
from .devices import exact_float32, free_memory
from .encoder import Encoder
from .images import resize_mask
from .statistics import ChannelStatistics, affine_pair, check_half_life
from .style import Component, Style, check_levels, check_pictures, check_same_encoder
from .tiling import Pictures, Plan, Window, encode_window, grid, measure, plan, report, run_in_memory

CONTENT_STATISTICS = ("image", "batch", "running", "region")


@dataclass(frozen=True)
class AffineMap:
    """AdaIN on one level: for each component of a style, `scale` and `shift` `(B, C)` and a `gain` at each position."""

    scales: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    gains: tuple[Tensor, ...]

    def __call__(self, x: Tensor, pictures: slice, window: Window, stride: int) -> Tensor:
        """Of the features `x` of some pictures of the batch in a window: `x + sum gain ((scale - 1) x + shift)`."""
        rows, columns = window.positions(stride)

        def part(tensor: Tensor) -> Tensor:
            tensor = tensor if len(tensor) == 1 else tensor[pictures]
            return (tensor if tensor.shape[2:] == (1, 1) else tensor[:, :, rows, columns]).to(x.device)

        scale, shift = 1.0, 0.0
        for component_scale, component_shift, gain in zip(self.scales, self.shifts, map(part, self.gains), strict=True):
            scale = scale + gain * (part(component_scale[:, :, None, None]) - 1)
            shift = shift + gain * part(component_shift[:, :, None, None])
        return torch.addcmul(shift, x.float(), scale).to(x.dtype)


@dataclass(frozen=True)
class Features:
    """Stylised features of `count` pictures on their way to a decoder.

    `levels`: one `(B, C, h, w)` per level, shallow first. Where they would not fit memory they are deferred: `levels` is
    empty, and they are computed from `content`, `encoder` and `maps` when they are decoded. `size`: the content's H and W.
    `alpha_channel`: the content's, `(B, 1, H, W)`, or None. `encoder_fingerprint` and `encoder_name` say which decoder can
    read them. `content_statistics`: for each level, what the content was normalised by where no region has its own.
    """

    levels: tuple[Tensor, ...]
    strides: tuple[int, ...]
    count: int
    size: tuple[int, int]
    alpha_channel: Tensor | None
    encoder_fingerprint: str
    encoder_name: str
    content_statistics: tuple[ChannelStatistics, ...]
    content: Pictures | None = None
    encoder: Encoder | None = None
    maps: tuple[AffineMap, ...] = ()

    def window(self, pictures: slice, window: Window) -> list[Tensor]:
        """The levels of some of the pictures in a window, on the encoder's device."""
        if self.levels:
            return [x[(pictures, slice(None), *window.positions(s))] for x, s in zip(self.levels, self.strides, strict=True)]
        part = slice(None) if len(self.content) == 1 else pictures
        levels = encode_window(self.encoder, self.content, part, window)
        return [m(x, pictures, window, s) for m, x, s in zip(self.maps, levels, self.strides, strict=True)]


def transfer(
    encoder: Encoder,
    content: Pictures,
    style: Style,
    alpha: float = 1.0,
    content_statistics: str = "image",
    half_life: float = 8.0,
    tile: int | None = None,
    known: Sequence[ChannelStatistics] = (),
) -> Features:
    """AdaIN of the features of `content` `(N, 3, H, W)`, or `(N, 4, H, W)` with alpha, in [0, 1], with a style of N or 1.

    `alpha` in [0, 1] is the strength of the style. `content_statistics`: "image" per picture, "batch" pooled over the
    batch, "running" smoothed along it so that a picture's weight halves every `half_life` pictures, "region" inside the
    mask of each style. `tile`: the side in pixels of the tiles that are worked on one after the other, which changes the
    memory it takes but not the result; None chooses by the free memory, 0 never tiles. `known` makes the content a part of
    a clip, and holds for each level statistics of batch 1: for "batch" the whole clip's, for "running" the last of the
    `content_statistics` of the part before. Raises ValueError for anything else, for pixels that are not finite and for
    another encoder's style.

    With masks, at each position: `t = (1 - c) x + c sum_k a_k adain_k`, `a_k = w_k m_k / sum_j w_j m_j`,
    `c = min(1, sum_j m_j)`, where a style without a mask has m = 1.
    """
    check_options(encoder, style, alpha, content_statistics, half_life)
    if isinstance(content, Tensor):  # what is read in parts is of bytes, and has no alpha
        content = check_pictures(content, "content")
    if 1 not in (len(content), style.batch) and len(content) != style.batch:
        raise ValueError(f"{style.batch} styles do not fit {len(content)} contents; give one style, or one for each content.")
    sample = next(encoder.parameters())
    style = style.to("cpu")  # with its masks, which may be a clip's; parts of them go to the device when they are due
    size, count = tuple(content.shape[2:]), max(len(content), style.batch)
    rgb, alpha_channel = content, None
    if content.shape[1] == 4:
        rgb, alpha_channel = content[:, :3], content[:, 3:].expand(count, -1, -1, -1)
    regional = content_statistics == "region"
    regions = [component.mask for component in style.components if regional and component.mask is not None]
    if regional:
        rgb = rgb.expand(count, -1, -1, -1)  # one content has statistics of its own inside each of many masks
    strides = tuple(level.stride for level in encoder.levels)

    def work(attempt: Plan) -> Features:
        windows = attempt.windows(size, strides[-1])
        whole = len(windows) == 1 and _fits(encoder, count, size)
        pooled = known if content_statistics == "batch" else ()
        if whole or not pooled:
            found, levels = measure(encoder, rgb, regions, attempt, keep=whole)
        if pooled:
            found = [[statistics] for statistics in pooled]
        for parts, past in itertools.zip_longest(found, known):
            if content_statistics == "batch":
                parts[0] = parts[0].pool()
            elif content_statistics == "running":
                parts[0] = parts[0].running(half_life, past)
        maps = tuple(
            _affine_map(style.components, level, parts, grid(size, stride), alpha, regional)
            for level, (parts, stride) in enumerate(zip(found, strides, strict=True))
        )
        statistics = tuple(parts[0] for parts in found)
        marks = (strides, count, size, alpha_channel, encoder.fingerprint, encoder.name, statistics)
        if not whole:
            return Features((), *marks, rgb, encoder, maps)
        everything = slice(0, count)
        # each level is let go as soon as it is mapped
        mapped = (m(levels.pop(0), everything, windows[0], stride) for m, stride in zip(maps, strides, strict=True))
        return Features(tuple(mapped), *marks)

    with torch.no_grad(), exact_float32():
        return run_in_memory(work, plan(tile, len(rgb), size, encoder.halo, encoder.values_per_pixel, sample))


def decode(decoder: Decoder, features: Features, tile: int | None = None, out: Pictures | None = None) -> Pictures:
    """The picture of `features`, `(B, 3, H, W)` in [0, 1], or `(B, 4, H, W)` if the content had alpha; float32.

    H and W are exactly the content's. `tile` is as in `transfer`. With `out`, whatever takes the tiles `(B, 3, H, W)` one
    by one, that is given back. Raises ValueError if the decoder belongs to another encoder.
    """
    check_decoder(decoder, features.encoder_fingerprint, features.encoder_name)
    sample, size = next(decoder.parameters()), features.size

    def work(attempt: Plan) -> Pictures:
        windows, images = attempt.windows(size, decoder.stride), out
        if images is None:
            whole = len(windows) == 1 and attempt.pictures >= features.count
            device = sample.device if whole else "cpu"  # where the networks work there may be no room for the result
            images = torch.empty((features.count, 3, *size), device=device, memory_format=torch.channels_last)
        steps = list(itertools.product(attempt.parts(features.count), windows))
        report(0, len(steps))
        for step, (pictures, window) in enumerate(steps, 1):
            outer = window.grow(decoder.halo, decoder.stride, size)
            part = decoder([level.to(sample.device) for level in features.window(pictures, outer)])
            part = part[(..., *window.inside(outer, 1))].float().clamp(0, 1)
            images[(pictures, slice(None), *window.positions(1))] = part
            report(step, len(steps), part)
        return images

    halo, values = decoder.halo, decoder.values_per_pixel
    if features.encoder is not None:
        halo, values = halo + features.encoder.halo, max(values, features.encoder.values_per_pixel)
    with torch.no_grad(), exact_float32():
        images = run_in_memory(work, plan(tile, features.count, size, halo, values, sample))
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
    tile: int | None = None,
) -> Tensor:
    """`decode(decoder, transfer(encoder, ...))`, whose arguments and errors it has: the content's pictures in the style.

    They are float32 `(N, 3, H, W)` in [0, 1], `(N, 4, H, W)` if the content has alpha, of exactly its H and W.
    """
    return decode(decoder, transfer(encoder, content, style, alpha, content_statistics, half_life, tile), tile)


def check_options(encoder: Encoder, style: Style, alpha: float, content_statistics: str, half_life: float) -> None:
    """Raise ValueError where `transfer` could not do this with any content."""
    check_same_encoder(style, encoder.fingerprint, encoder.name, "the content's encoder")
    check_levels(style, encoder)
    check_alpha(alpha)
    check_half_life(half_life)
    if content_statistics not in CONTENT_STATISTICS:
        raise ValueError(f"content_statistics is {content_statistics!r}; choose one of {', '.join(CONTENT_STATISTICS)}.")
    if content_statistics == "region" and all(component.mask is None for component in style.components):
        raise ValueError('content_statistics "region" needs a style with a mask; mask the style or choose "image".')


def check_alpha(alpha: float) -> None:
    """Raise ValueError for a strength that is not in [0, 1]."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; it must be from 0 (the content) to 1 (the full style).")


def check_decoder(decoder: Decoder, fingerprint: str, name: str) -> None:
    """Raise ValueError unless `decoder` reads the features of the encoder of that fingerprint and name."""
    if decoder.encoder_fingerprint != fingerprint:
        raise ValueError(
            f"the decoder {decoder.name!r} reads the encoder {decoder.encoder_name!r}, the features are of"
            f" {name!r}; load the decoder that belongs to {name!r}."
        )


def _affine_map(
    components: Sequence[Component],
    level: int,
    statistics: Sequence[ChannelStatistics],
    positions: Sequence[int],
    alpha: float,
    regional: bool,
) -> AffineMap:
    """AdaIN on a level of so many `positions` (h, w), given its statistics there: the whole's, then those of regions."""
    whole, *regions = statistics
    inside = iter(regions)
    pairs = []
    for component in components:
        measured = _known(next(inside), whole) if regional and component.mask is not None else whole
        pairs.append(affine_pair(measured, component.levels[level]))
    scales, shifts = zip(*pairs, strict=True)
    return AffineMap(scales, shifts, tuple(alpha * gain for gain in _gains(components, positions)))


def _gains(components: Sequence[Component], size: Sequence[int]) -> list[Tensor]:
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


def _known(inside: ChannelStatistics, whole: ChannelStatistics) -> ChannelStatistics:
    """A region's statistics; one that is smaller than one position has none, and takes the picture's."""
    return inside.map(partial(torch.where, inside.count >= 1), whole)


def _fits(encoder: Encoder, count: int, size: tuple[int, int]) -> bool:
    """Whether the features of `count` pictures take little of the free memory; while they are made it is three times that."""
    sample = next(encoder.parameters())
    values = sum(level.channels / level.stride**2 for level in encoder.levels)
    return count * size[0] * size[1] * values * sample.element_size() < free_memory(sample.device) / 16
