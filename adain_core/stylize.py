"""From content and style to the stylised picture: encode, transfer, decode."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .affine import AffineMap, affine_map, coverage, shown, window_of
from .crossing import Arrival, bring, one_behind, to_device
from .devices import exact_float32, free_memory
from .errors import AdainError
from .images import check_pictures, check_size, visible_pixels, without_hidden
from .networks import Decoder, Encoder
from .networks.base import check_seed
from .networks.texture import Texture
from .progress import tell
from .statistics import ChannelStatistics, check_alpha, check_half_life
from .style import Style, check_levels
from .tiling import Pictures, Plan, Window, encode_window, grid, measure, plan, run_in_memory
from .working import check_detail, enlarged, shrunk

CONTENT_STATISTICS = ("image", "batch", "running", "region")


@dataclass(frozen=True)
class Features:
    """Stylised features of `count` pictures for a decoder, made by `transfer`.

    `strides`: the strides of the encoder's levels, shallow first. `size`: the content's H and W. `alpha_channel`: the
    content's, `(B, 1, H, W)`, or None. `device`: the content's and the result's. `encoder_fingerprint` and `encoder_name`: the
    decoder must belong to this encoder. `content_statistics`: for each level, the statistics that the content was normalised
    by; regions with their own statistics are left out. `content`: the content's RGB pictures, B or 1 of them. `coverage`:
    `alpha c` at each pixel, `(B or 1, 1, H, W)`, or `(B or 1, 1, 1, 1)` without masks, on the CPU. `in_float32` computes
    features in float16, of which some may be beyond its range, again; None for other number types.
    """

    strides: tuple[int, ...]
    count: int
    size: tuple[int, int]
    alpha_channel: Tensor | None
    device: torch.device
    encoder_fingerprint: str
    encoder_name: str
    content_statistics: tuple[ChannelStatistics, ...]
    content: Pictures
    coverage: Tensor
    in_float32: Callable[[], Features] | None

    def window(self, pictures: slice, window: Window) -> tuple[list[Tensor], list[Tensor]]:
        """The levels, shallow first, of the `pictures` of the batch inside a window, and those of the content.

        The latter are of one picture if there is one content, and may be left out if the style covers all pictures.
        """
        raise NotImplementedError

    def content_part(self, pictures: slice) -> slice:
        """The contents of these `pictures` of the batch."""
        return slice(None) if len(self.content) == 1 else pictures


@dataclass(frozen=True)
class ComputedFeatures(Features):
    """Features in memory: `levels`, a tensor `(B, C, h, w)` each, shallow first, and `content_levels`, of the content.

    There are no `content_levels` if the style covers all pictures.
    """

    levels: tuple[Tensor, ...]
    content_levels: tuple[Tensor, ...] = ()

    def window(self, pictures: slice, window: Window) -> tuple[list[Tensor], list[Tensor]]:
        def part(levels: Sequence[Tensor]) -> list[Tensor]:
            strides = self.strides[: len(levels)]
            return [window_of(x, pictures, window, stride) for x, stride in zip(levels, strides, strict=True)]

        return part(self.levels), part(self.content_levels)


@dataclass(frozen=True)
class DeferredFeatures(Features):
    """Features too large for the memory: they are computed from the content part by part while they are decoded."""

    encoder: Encoder
    maps: tuple[AffineMap, ...]

    def window(self, pictures: slice, window: Window) -> tuple[list[Tensor], list[Tensor]]:
        levels = encode_window(self.encoder, self.content, self.content_part(pictures), window)
        mapped = [m(x, pictures, window, s) for m, x, s in zip(self.maps, levels, self.strides, strict=True)]
        return mapped, levels


def transfer(
    encoder: Encoder,
    content: Pictures,
    style: Style,
    alpha: float = 1.0,
    content_statistics: str = "image",
    half_life: float = 8.0,
    tile: int | None = None,
) -> Features:
    """AdaIN of the features of `content` `(N, 3, H, W)`, or `(N, 4, H, W)` with alpha, in [0, 1], with a style of N or 1.

    `alpha` in [0, 1] is the strength of the style. `content_statistics`: "image" per picture, "batch" pooled over the
    batch, "running" smoothed along it so that a picture's weight halves every `half_life` pictures, "region" inside the
    mask of each style. `tile`: the side in pixels of the tiles that are computed one after the other; it changes the
    memory needed, not the result; None chooses by the free memory, 0 never tiles. Raises AdainError for other values, for
    pixels that are not finite and for a style of another encoder.

    With masks, at each position: `t = (1 - c) x + c sum_k a_k adain_k`, `a_k = w_k m_k / sum_j w_j m_j`,
    `c = min(1, sum_j m_j)`; m = 1 for a style without a mask.
    """
    check_options(encoder, style, alpha, content_statistics, half_life)
    if isinstance(content, Tensor):
        check_pictures(content, "content")
    return transfer_part(encoder, content, style, alpha, content_statistics, half_life, tile)


def transfer_part(
    encoder: Encoder,
    content: Pictures,
    style: Style,
    alpha: float,
    content_statistics: str,
    half_life: float,
    tile: int | None,
    clip_statistics: Sequence[ChannelStatistics] = (),
    visible: Pictures | None = None,
) -> Features:
    """`transfer`, without its checks, of a part of a clip, given the `clip_statistics`, of batch 1 for each level.

    For "batch" they are those of the whole clip, for "running" the last of the `content_statistics` of the part before.
    `content` may also be pictures that are read in parts; then `visible` is as in `measure`.
    """
    if 1 not in (len(content), style.batch) and len(content) != style.batch:
        what = "mask" if all(part.unmasked_batch == 1 for part in style.components) else "style"
        raise AdainError(f"{style.batch} {what}s do not fit {len(content)} contents; give one {what}, or one for each content.")
    style = style.for_encoder(encoder)
    style = style.to("cpu")  # its masks may be as large as a clip; parts of them go to the device when they are needed
    (height, width), count = content.shape[2:], max(len(content), style.batch)
    size = height, width
    rgb, alpha_channel, device = content, None, torch.device("cpu")
    regional = content_statistics == "region"
    regions = [component.mask for component in style.components if regional and component.mask is not None]
    if isinstance(content, Tensor):  # pictures that are read in parts are on the CPU, finite and without alpha
        rgb, visible, device = without_hidden(content)[:, :3], visible_pixels(content), content.device
        if content.shape[1] == 4:
            alpha_channel = content[:, 3:].expand(count, -1, -1, -1)
        if regional:  # one content has different statistics inside each mask
            rgb = rgb.expand(count, -1, -1, -1)
            visible = None if visible is None else visible.expand(count, -1, -1, -1)
    strides = tuple(level.stride for level in encoder.levels)
    covered = alpha * coverage(style.components, size)
    again = encoder.in_float32(), content, style, alpha, content_statistics, half_life, tile, clip_statistics, visible
    in_float32 = partial(transfer_part, *again) if encoder.dtype == torch.float16 else None
    sample = encoder.sample()
    given = [statistics.map(lambda part: part.to(sample.device)) for statistics in clip_statistics]

    def work(attempt: Plan) -> Features:
        windows = attempt.windows(size, strides[-1])
        keep = len(windows) == 1 and count <= kept_at_once(encoder, size)
        pooled = given if content_statistics == "batch" else ()
        if keep or not pooled:
            measured, levels = measure(encoder, rgb, regions, attempt, keep, visible)
        if pooled:
            measured = [[statistics] for statistics in pooled]
        for parts, past in itertools.zip_longest(measured, given):
            if content_statistics == "batch":
                parts[0] = parts[0].pool()
            elif content_statistics == "running":
                parts[0] = parts[0].running(half_life, past)
        maps = tuple(
            affine_map(style.components, level, parts, grid(size, stride), alpha, regional)
            for level, (parts, stride) in enumerate(zip(measured, strides, strict=True))
        )
        statistics = tuple(parts[0] for parts in measured)
        common = (
            strides, count, size, alpha_channel, device, encoder.fingerprint, encoder.name, statistics, rgb, covered,
            in_float32,
        )  # fmt: skip
        if not keep:
            return DeferredFeatures(*common, encoder, maps)
        everything = slice(0, count)
        content_levels = () if (covered == 1).all() else tuple(levels)
        # each level is freed as soon as it is mapped, unless it is kept
        mapped = (m(levels.pop(0), everything, windows[0], stride) for m, stride in zip(maps, strides, strict=True))
        return ComputedFeatures(*common, tuple(mapped), content_levels)

    with torch.no_grad(), exact_float32():
        return run_in_memory(work, plan(tile, len(rgb), size, encoder.halo, encoder.values_per_pixel, sample))


def decode(
    decoder: Decoder,
    features: Features,
    tile: int | None = None,
    texture: float = 1.0,
    seed: int = 0,
    residual: bool = True,
) -> Tensor:
    """The picture of `features`, `(B, 3, H, W)` in [0, 1], or `(B, 4, H, W)` if the content had alpha; float32.

    H and W are exactly the content's, and it lies on the content's device. `tile` is as in `transfer`. `texture` in [0, 1]
    is the strength of the texture, drawn under `seed`, that a decoder paints flat areas with. Use 0 for clips: the texture
    does not move with the picture. Raises AdainError if the decoder belongs to another encoder, and for a texture or a seed
    out of range.

    With `residual` the content is kept where it is not stylised: the picture is
    `g(t) + (1 - alpha c) (content - g(f(content)))`, and the content itself where `alpha c = 0`, to which it goes over where a
    mask leaves less than 1/16. Without, it is the paper's `g(t)` everywhere.
    """
    return decode_part(decoder, features, tile, texture, seed, residual)[0]


def decode_part(
    decoder: Decoder,
    features: Features,
    tile: int | None,
    texture: float,
    seed: int = 0,
    residual: bool = True,
) -> tuple[Tensor, Features]:
    """`decode`, and the features that it drew, which are not the given ones where float16 overflowed."""
    shape = (features.count, 3, *features.size)
    images = torch.empty(shape, dtype=torch.float32, device=features.device, memory_format=torch.channels_last)
    features = decode_into(images, decoder, features, tile, texture, seed, residual)
    if features.alpha_channel is None:
        return images, features
    return torch.cat([images, features.alpha_channel.to(images)], dim=1), features


def decode_into(
    images: Pictures,
    decoder: Decoder,
    features: Features,
    tile: int | None,
    texture: float = 1.0,
    seed: int = 0,
    residual: bool = True,
) -> Features:
    """`decode`, without alpha, into `images` `(B, 3, H, W)`, tile by tile. Raises the errors of `decode`.

    Where float16 overflowed, for pixels far outside of [0, 1] or statistics of a style file as far outside of usual ones, all
    is computed again in float32. Returns the features that were drawn.
    """
    check_decoder(decoder, features.encoder_fingerprint, features.encoder_name)
    check_texture(texture)
    check_seed(seed)
    sample, size = decoder.sample(), features.size
    may_overflow = decoder.dtype == torch.float16 or features.in_float32 is not None

    def work(attempt: Plan) -> bool:
        """Whether all numbers were finite."""
        steps = list(itertools.product(attempt.parts(features.count), attempt.windows(size, decoder.stride)))
        tell(0, len(steps))
        parts, sums = one_behind((brought(*step) for step in steps), sample.device), []
        for step, (index, part) in enumerate(parts, 1):
            images[index] = finished = part.wait()
            if may_overflow:
                sums.append(finished.sum())
            tell(step, len(steps), finished)
        return not sums or bool(torch.stack(sums).isfinite().all().cpu())  # looked at once: a GPU is waited for

    def brought(pictures: slice, window: Window) -> tuple[tuple[slice, slice, slice, slice], Arrival]:
        """Where a part of the pictures belongs, and the part, on its way there."""
        part = picture(pictures, window)
        if may_overflow:
            part = part.nan_to_num(*[math.nan] * 3)  # clamped, infinite numbers would look as usual ones do
        rows, columns = window.positions(1)
        return (pictures, slice(None), rows, columns), bring(part.clamp(0, 1), features.device)

    def picture(pictures: slice, window: Window) -> Tensor:
        outer = window.grow(decoder.halo, decoder.stride, size)

        def draw(levels: Sequence[Tensor]) -> Tensor:
            drawn = decoder(
                [to_device(level, sample.device) for level in levels], Texture(texture, seed, outer.top, outer.left)
            )
            return drawn[(..., *window.inside(outer, 1))].float()

        covered = window_of(features.coverage, pictures, window, 1)
        if not residual or (covered == 1).all():
            return draw(features.window(pictures, outer)[0])
        content = features.content[(features.content_part(pictures), slice(None), *window.positions(1))]
        if not covered.any():  # asked on the CPU: a GPU would have to be waited for
            return content.float()
        content, covered = to_device(content, sample.device).float(), to_device(covered, sample.device)
        stylized, own = map(draw, features.window(pictures, outer))
        return shown(content, stylized + (1 - covered) * (content - own), covered)

    halo, values = decoder.halo, decoder.values_per_pixel
    if isinstance(features, DeferredFeatures):
        halo, values = halo + features.encoder.halo, max(values, features.encoder.values_per_pixel)
        sample = max(sample, features.encoder.sample(), key=Tensor.element_size)
    with torch.no_grad(), exact_float32():
        if run_in_memory(work, plan(tile, features.count, size, halo, values, sample)):
            return features
    exact = features.in_float32() if features.in_float32 else features
    return decode_into(images, decoder.in_float32(), exact, tile, texture, seed, residual)


def stylize(
    encoder: Encoder,
    decoder: Decoder,
    content: Tensor,
    style: Style,
    alpha: float = 1.0,
    content_statistics: str = "image",
    half_life: float = 8.0,
    tile: int | None = None,
    working_size: int = 0,
    detail: float = 0.8,
    texture: float = 1.0,
    seed: int = 0,
    residual: bool = True,
) -> Tensor:
    """The content's pictures in the style: `decode(decoder, transfer(encoder, ...))`, with their arguments and errors.

    The result is float32 `(N, 3, H, W)` in [0, 1], `(N, 4, H, W)` if the content has alpha, of exactly its H and W.

    `working_size`: the networks see larger contents `x` reduced to this smallest side in pixels, so that strokes keep their
    width relative to the picture; 0 is full size. Their result `y` is enlarged, and gets the share `detail`, in [0, 1], of what
    the content's brightness has beyond that size: `up(y) + detail (x - up(down(x)))`.
    """
    check_detail(detail)
    check_size(working_size)
    content = without_hidden(check_pictures(content, "content"))
    small = shrunk(content, working_size)
    features = transfer(encoder, small, style, alpha, content_statistics, half_life, tile)
    result = decode(decoder, features, tile, texture, seed, residual)
    return enlarged(result, content, small, style, alpha, detail, residual)


def check_options(encoder: Encoder, style: Style, alpha: float, content_statistics: str, half_life: float) -> None:
    """Raise the errors of `transfer` that do not depend on the content."""
    check_levels(style.for_encoder(encoder), encoder)
    check_alpha(alpha)
    check_half_life(half_life)
    if content_statistics not in CONTENT_STATISTICS:
        raise AdainError(f"content_statistics is {content_statistics!r}; choose one of {', '.join(CONTENT_STATISTICS)}.")
    if content_statistics == "region" and all(component.mask is None for component in style.components):
        raise AdainError('content_statistics "region" needs a style with a mask; mask the style or choose "image".')


def check_texture(texture: float) -> None:
    """Raise AdainError for a strength that is not in [0, 1]."""
    if not 0 <= texture <= 1:
        raise AdainError(f"texture is {texture}; it must be from 0 (none) to 1 (as the decoder was trained).")


def check_decoder(decoder: Decoder, fingerprint: str, name: str) -> None:
    """Raise AdainError unless `decoder` reads the features of the encoder with this fingerprint and name."""
    if decoder.encoder_fingerprint != fingerprint:
        raise AdainError(
            f"the decoder {decoder.name!r} reads the encoder {decoder.encoder_name!r}, the features are of"
            f" {name!r}; load the decoder that belongs to {name!r}."
        )


def kept_at_once(encoder: Encoder, size: Sequence[int]) -> int:
    """Of how many pictures of `size` the features fit the free memory easily; computing them takes three times their size.

    The features of more are deferred, and so computed twice.
    """
    values = size[0] * size[1] * sum(level.channels / level.stride**2 for level in encoder.levels)
    sample = next(encoder.parameters())
    return int(free_memory(sample.device) / 16 / (values * sample.element_size()))
