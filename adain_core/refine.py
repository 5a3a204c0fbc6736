"""Refining stylised pictures by gradient steps on their pixels."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import cast

import torch
from torch import Tensor

from .affine import affine_map, gains
from .devices import exact_float32
from .errors import AdainError
from .images import check_pictures, resize_mask, without_hidden
from .losses import statistics_loss
from .networks import Encoder
from .progress import part_of, tell
from .statistics import EPS, ChannelStatistics, check_alpha
from .style import Component, Style, encode_style
from .tiling import KEPT, Plan, Window, encode_window, grid, measure, plan, run_in_memory

HISTORY = 10  # steps that L-BFGS remembers
FIRST_STEP = 0.01  # root mean square of the first step, which L-BFGS has no measure for
PICTURE = slice(0, 1)  # pictures are refined one by one


def refine(
    encoder: Encoder,
    image: Tensor,
    content: Tensor,
    style_images: Tensor | Style,
    steps: int = 30,
    alpha: float = 1.0,
    content_weight: float = 1.0,
    style_weight: float = 10.0,
    tile: int | None = None,
) -> Tensor:
    """Stylised pictures `image` `(N, 3, H, W)`, or `(N, 4, H, W)` with alpha, after gradient steps on their pixels.

    `content` is `(N or 1, 3 or 4, H, W)`, in [0, 1]. `style_images` `(B, 3 or 4, any, any)` are pictures of one style, which
    are resized to a smallest side of 512 pixels; for other sizes, mixes and masks it is a style made with
    `encoder.for_losses()`, of batch N or 1. Each picture is refined by itself: what is minimised is
    `content_weight * Lc + style_weight * Ls`, the losses of training in the features of `encoder`, in float32, both with the
    style at the strength `alpha` in [0, 1]. The best picture is returned, whose sum is never above the first one's. It is
    float32, in [0, 1]; pixels outside of all masks, and alpha, stay as they are.

    It tells how many steps are done, with the best picture so far. `tile` is as in `transfer`; beside a tile, about 45 times
    a picture's memory is needed. Raises AdainError for other numbers and shapes, for pixels that are not finite, for a style
    of another encoder and for one without the statistics of the layers that the losses compare.
    """
    image, content = check_pictures(image, "stylised"), check_pictures(content, "content")
    check_refinement(steps, alpha, content_weight, style_weight)
    if image.shape[2:] != content.shape[2:]:
        of_image, of_content = (f"{x.shape[3]}x{x.shape[2]}" for x in (image, content))
        raise AdainError(f"the picture to refine is {of_image}, its content {of_content}; give both in one size.")
    if len(content) not in (1, len(image)):
        raise AdainError(f"{len(content)} contents do not fit {len(image)} pictures; give one content, or one for each.")
    total, device = len(image) * steps, encoder.weights_device
    # a host may call in inference mode, which has no gradients
    with torch.inference_mode(False), torch.no_grad(), exact_float32():
        networks = encoder.for_losses(), encoder.for_losses(plain=True)
        with part_of(0, total):
            style = style_images if isinstance(style_images, Style) else encode_style(networks[0], style_images)
        check_refinable(style, encoder)
        if style.batch not in (1, len(image)):
            raise AdainError(f"{style.batch} styles do not fit {len(image)} pictures; give one style, or one for each.")
        style, refined = style.for_encoder(encoder).to("cpu"), image.float().clone()
        size, values = image.shape[2:], KEPT * encoder.values_per_pixel
        attempt = plan(tile, 1, size, encoder.halo, values, next(networks[0].parameters()))
        for index in range(len(image)):
            start, own_content = (without_hidden(x[[index % len(x)]].to(device).float())[:, :3] for x in (image, content))
            components = style.select(torch.tensor([index])).components
            losses = partial(_Losses, networks, own_content, components, alpha, content_weight, style_weight)
            work = partial(_descend, start.clamp(0, 1), losses, steps, index * steps, total)
            refined[index, :3] = run_in_memory(work, attempt)[0]
        return refined


def check_refinement(steps: int, alpha: float, content_weight: float = 1.0, style_weight: float = 10.0) -> None:
    """Raise AdainError for numbers that `refine` does not take."""
    check_alpha(alpha)
    if steps < 1:
        raise AdainError(f"steps is {steps}; give at least 1 step to refine by.")
    weights = content_weight, style_weight
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise AdainError(f"the weights are {content_weight} and {style_weight}; give numbers from 0 on, not both 0.")


def check_refinable(style: Style, encoder: Encoder) -> None:
    """Raise AdainError unless `style` is of `encoder` and has the statistics of all layers that the losses compare."""
    style = style.for_encoder(encoder, "the losses are measured")
    channels = [level.channels for level in encoder.loss_levels]
    if any([level.mean.shape[1] for level in component.levels] != channels for component in style.components):
        raise AdainError(
            f"the style has no statistics of {', '.join(encoder.loss_layers)}, which refining compares; give its picture"
            f" (style files of {encoder.name!r} have none), or in Python a style made with encoder.for_losses()."
        )


class _Losses:
    """The losses, and their gradient, of pictures `(1, 3, H, W)` for one content and one style, in the windows of a plan.

    First the statistics of all windows are merged, then each window is encoded again for its part of the gradient, so that
    the memory depends on the window. A single window is encoded once. A masked style has a place for each component: where
    it applies, and how much. The style loss is the sum over the places, each times its share of the picture.
    """

    def __init__(
        self,
        networks: tuple[Encoder, Encoder],
        content: Tensor,
        components: Sequence[Component],
        alpha: float,
        content_weight: float,
        style_weight: float,
        attempt: Plan,
    ):
        self.fast, self.plain = networks
        self.content_weight, self.style_weight, self.attempt = content_weight, style_weight, attempt
        size, last = content.shape[2:], self.fast.levels[-1]
        self.windows = attempt.windows(size, last.stride)
        self.alone = len(self.windows) == 1

        parts, masked = gains(components, size), any(component.mask is not None for component in components)
        covered = reduce(torch.add, parts)
        places = parts if masked else [torch.ones_like(covered)]
        self.shares = [place.mean().item() for place in places]
        self.masks, self.free = (places, (covered > 0).to(content)) if masked else ([], None)
        grids = [grid(size, level.stride) for level in self.fast.levels]
        self.gains = [[resize_mask(mask, cells).to(content) for mask in self.masks] or [None] for cells in grids]

        measured, kept = measure(self.fast, content, self.masks, attempt, self.alone)
        mixes = [
            [(place * part / covered.clamp_min(EPS)).sum() / place.sum().clamp_min(EPS) for part in parts] for place in places
        ]
        self.targets = []  # for each level and place, the content's statistics blended with those of the styles there
        for index, level in enumerate(measured):
            styles = [component.levels[index].map(lambda tensor: tensor.to(content.device)) for component in components]
            self.targets.append(
                [
                    _convex_sum([own, *styles], [1 - alpha, *(alpha * share for share in mix)])
                    for own, mix in zip(_of_places(level), mixes, strict=True)
                ]
            )
        of_masks = zip(measured[-1][1:], components if masked else (), strict=True)
        regions = [own for own, component in of_masks if component.mask is not None]
        transfer = affine_map(components, -1, [measured[-1][0], *regions], grids[-1], alpha, regional=True)
        self.features = []  # AdaIN of the content in each window
        for window in self.windows:
            levels = kept if self.alone else encode_window(self.fast, content, PICTURE, window)
            self.features.append(transfer(levels[-1], PICTURE, window, last.stride))
        self.count = sum(x.numel() for x in self.features)

    def __call__(self, picture: Tensor) -> tuple[float, Tensor]:
        """The weighted sum of the losses of `picture`, and its gradient `(1, 3, H, W)`, which is 0 outside of all masks."""
        picture = picture.clone().requires_grad_()
        with torch.set_grad_enabled(self.alone):
            measured, levels = measure(
                self.plain if self.alone else self.fast, picture, self.masks, self.attempt, keep=self.alone
            )
        statistics = [[own.map(lambda tensor: tensor.requires_grad_()) for own in _of_places(level)] for level in measured]
        with torch.enable_grad():
            style = self.style_weight * self._style_loss(statistics)
            style.backward()
            loss = style.item()
            for step, (window, target) in enumerate(zip(self.windows, self.features, strict=True)):
                tell(step, len(self.windows))
                if not self.alone:
                    levels = encode_window(self.plain, picture, PICTURE, window)
                content = self.content_weight * (levels[-1] - target).square().sum() / self.count
                (content + self._through_statistics(levels, window, statistics)).backward()
                loss += content.item()
        gradient = cast(Tensor, picture.grad)
        return loss, gradient if self.free is None else gradient * self.free

    def _style_loss(self, statistics: Sequence[Sequence[ChannelStatistics]]) -> Tensor:
        """The style loss of statistics for each level and place."""
        return torch.stack(
            [
                share * statistics_loss(own, target)
                for places, targets in zip(statistics, self.targets, strict=True)
                for share, own, target in zip(self.shares, places, targets, strict=True)
            ]
        ).sum()

    def _through_statistics(
        self, levels: Sequence[Tensor], window: Window, statistics: Sequence[Sequence[ChannelStatistics]]
    ) -> Tensor:
        """A number whose gradient, for the `levels` of a window, is that which the whole picture's `statistics` hand on."""
        parts = []
        for x, level, weights, places in zip(levels, self.fast.levels, self.gains, statistics, strict=True):
            rows, columns = window.positions(level.stride)
            for gain, own in zip(weights, places, strict=True):
                of_own = own.count.clamp_min(EPS), own.mean.detach(), own.mean.grad, own.m2.grad
                count, mean, of_mean, of_m2 = (cast(Tensor, part).to(x.device) for part in of_own)
                deviation = x - mean[:, :, None, None]
                weighted = deviation if gain is None else deviation * gain[:, :, rows, columns]
                parts.append((weighted.sum((2, 3)) * of_mean / count).sum())
                parts.append(((weighted * deviation).sum((2, 3)) * of_m2).sum())
        return torch.stack(parts).sum()


def _of_places(level: Sequence[ChannelStatistics]) -> Sequence[ChannelStatistics]:
    """Of what `measure` found, the statistics under the masks, or the picture's where there are none."""
    return level[1:] or level


def _convex_sum(statistics: Sequence[ChannelStatistics], shares: Sequence[float | Tensor]) -> ChannelStatistics:
    """The convex sum of means and of deviations, of batch 1."""
    pairs = list(zip(shares, statistics, strict=True))
    mean = reduce(torch.add, (share * each.mean for share, each in pairs))
    std = reduce(torch.add, (share * each.std for share, each in pairs))
    return ChannelStatistics(torch.ones_like(mean[:, :1]), mean, std**2 - EPS)


def _descend(start: Tensor, make_losses: Callable[[Plan], _Losses], steps: int, done: int, total: int, attempt: Plan) -> Tensor:
    """The best picture of `steps` by L-BFGS (Nocedal 1980) from `start` on, each clamped to [0, 1].

    Clamping after a step, and not before the losses, leaves a gradient to pixels at black and white. Reports the steps after
    `done` ones, of `total`.
    """
    with part_of(done, total):
        losses = make_losses(attempt)
    picture = best = start
    least, history = math.inf, deque(maxlen=HISTORY)
    before: tuple[Tensor, Tensor] | None = None
    for step in range(steps + 1):
        with part_of(done + max(step - 1, 0), total):
            loss, gradient = losses(picture)
        if loss < least:
            best, least = picture, loss
        tell(done + step, total, best if step else None)
        if before is not None:
            change, bend = picture - before[0], gradient - before[1]
            if (change * bend).sum() > 0:
                history.append((change, bend))
        before = picture, gradient
        picture = (picture + _step(gradient, history)).clamp(0, 1)
    return best


def _step(gradient: Tensor, history: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The step of L-BFGS, given the changes of the picture and of the gradient in the last steps."""
    if not history:
        return -FIRST_STEP * gradient / gradient.square().mean().sqrt().clamp_min(torch.finfo(gradient.dtype).tiny)
    step, shares = -gradient, []
    for change, bend in reversed(history):
        shares.append((change * step).sum() / (change * bend).sum())
        step = step - shares[-1] * bend
    change, bend = history[-1]
    step = step * ((change * bend).sum() / bend.square().sum())
    for (change, bend), share in zip(history, reversed(shares), strict=True):
        step = step + change * (share - (bend * step).sum() / (change * bend).sum())
    return step
