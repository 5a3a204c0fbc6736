"""Batches of any length through networks that hold a few pictures at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..adain_core.style import Component, Style
from ..adain_core.stylize import Features, decode, stylize, transfer
from . import host
from .sockets import to_image


class ChunkedEncoder:
    """Stands for an encoder in adain_core's functions: pictures go through in chunks, features gather between nodes' device."""

    def __init__(self, patcher: ModelPatcher, progress: host.Progress):
        self.patcher, self.progress = patcher, progress
        self.name, self.fingerprint = patcher.model.name, patcher.model.fingerprint

    def parameters(self) -> Iterator[Tensor]:
        """One, on the device where the features are wanted."""
        yield torch.empty(0, device=host.intermediate_device())

    def __call__(self, images: Tensor) -> list[Tensor]:
        def encode(part: slice) -> list[Tensor]:
            levels = self.patcher.model(images[part].to(self.patcher.load_device))
            return [level.to(host.intermediate_device()) for level in levels]

        pixels = images.shape[2] * images.shape[3]
        parts = host.in_chunks([self.patcher], len(images), pixels, encode, lambda count, _: self.progress.advance(count))
        return [torch.cat(level) for level in zip(*parts, strict=True)]


def transfer_batch(
    patcher: ModelPatcher,
    content: Tensor,
    style: Style,
    alpha: float,
    content_statistics: str,
    half_life: float,
) -> Features:
    """adain_core's `transfer` with a managed encoder; the features lie on the device between nodes."""
    progress = host.Progress(len(content))
    if content_statistics in ("batch", "running") or style.batch not in (1, len(content)):
        # statistics over the batch need all features; one content in many styles is encoded once
        encoder = ChunkedEncoder(patcher, progress)
        return _to_intermediate(transfer(encoder, content, style, alpha, content_statistics, half_life))

    def run(part: slice) -> Features:
        features = transfer(patcher.model, content[part], _style_part(style, part), alpha, content_statistics)
        return _to_intermediate(features)

    pixels = content.shape[2] * content.shape[3]
    parts = host.in_chunks([patcher], len(content), pixels, run, lambda count, _: progress.advance(count))
    alpha_channel = None if parts[0].alpha_channel is None else torch.cat([part.alpha_channel for part in parts])
    levels = tuple(torch.cat(level) for level in zip(*(part.levels for part in parts), strict=True))
    return dataclasses.replace(parts[0], levels=levels, alpha_channel=alpha_channel)


def decode_batch(patcher: ModelPatcher, features: Features, finish: Callable[[Tensor, slice], Tensor]) -> Tensor:
    """adain_core's `decode` with a managed decoder, as IMAGE. `finish(pictures, part)` is applied to each chunk."""

    def run(part: slice) -> Tensor:
        levels = tuple(level[part] for level in features.levels)
        alpha_channel = None if features.alpha_channel is None else features.alpha_channel[part]
        chunk = dataclasses.replace(features, levels=levels, alpha_channel=alpha_channel)
        return to_image(finish(decode(patcher.model, chunk), part))

    return _shown([patcher], len(features.levels[0]), features.size, run)


def stylize_batch(
    encoder: ModelPatcher,
    decoder: ModelPatcher,
    content: Tensor,
    style: Style,
    alpha: float,
    finish: Callable[[Tensor, slice], Tensor],
) -> Tensor:
    """adain_core's `stylize` with managed networks, as IMAGE. `finish(pictures, part)` is applied to each chunk.

    Each chunk goes the whole way before the next: the features of a long batch together would take several times the
    memory of its pictures.
    """
    if style.batch not in (1, len(content)):  # one content in many styles is encoded once
        return decode_batch(decoder, transfer_batch(encoder, content, style, alpha, "image", 1.0), finish)

    def run(part: slice) -> Tensor:
        pictures = stylize(encoder.model, decoder.model, content[part], _style_part(style, part), alpha)
        return to_image(finish(pictures, part))

    return _shown([encoder, decoder], len(content), content.shape[2:], run)


def _shown(patchers: list[ModelPatcher], count: int, size: Sequence[int], run: Callable[[slice], Tensor]) -> Tensor:
    """IMAGE of `count` pictures of `size` (H, W), in chunks, each of which is shown on the node."""
    progress = host.Progress(count)
    parts = host.in_chunks(patchers, count, size[0] * size[1], run, lambda n, image: progress.advance(n, image[-1]))
    return torch.cat(parts)


def _style_part(style: Style, part: slice) -> Style:
    """The styles that meet a part of the contents."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor if len(tensor) == 1 else tensor[part]

    def cut_component(component: Component) -> Component:
        levels = tuple(level.map(cut) for level in component.levels)
        return Component(cut(component.weight), levels, None if component.mask is None else cut(component.mask))

    return dataclasses.replace(style, components=tuple(map(cut_component, style.components)))


def _to_intermediate(features: Features) -> Features:
    device = host.intermediate_device()
    alpha_channel = None if features.alpha_channel is None else features.alpha_channel.to(device)
    return dataclasses.replace(
        features, levels=tuple(level.to(device) for level in features.levels), alpha_channel=alpha_channel
    )
