"""Harder styles for training: monochrome, inked, flat, patterned and high-contrast variations of a picture.

Every transform takes a picture `(3, H, W)` in [0, 1] and a generator, and is a pure function of both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..color import LUMINANCE, luma

Random = np.random.Generator
Transform = Callable[[Tensor, Random], Tensor]


def augment_style(image: Tensor, rng: Random) -> Tensor:
    """Vary a style picture `(3, H, W)` in [0, 1]: about half stay as they are, the others get one or two of `TRANSFORMS`."""
    if rng.random() < UNCHANGED:
        return image
    image = _draw(rng)(image, rng)
    if rng.random() < TWICE:
        image = _draw(rng)(image, rng)
    return image.clamp(0, 1)


# Colours


def greyscale(image: Tensor, rng: Random) -> Tensor:
    return _grey(image).expand_as(image)


def invert(image: Tensor, rng: Random) -> Tensor:
    return 1 - image


def permute_channels(image: Tensor, rng: Random) -> Tensor:
    return image[torch.from_numpy(rng.permutation(3))]


def rotate_hue(image: Tensor, rng: Random) -> Tensor:
    """A rotation of colour space about its grey axis."""
    angle = rng.uniform(0.15, 0.85) * math.tau
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, c = (1 + 2 * cos) / 3, (1 - cos) / 3 - sin / 3**0.5, (1 - cos) / 3 + sin / 3**0.5
    return torch.einsum("dc,chw->dhw", torch.tensor([[a, b, c], [c, a, b], [b, c, a]]), image)


def saturate(image: Tensor, rng: Random) -> Tensor:
    grey = _grey(image)
    return grey + (image - grey) * rng.uniform(1.8, 4)


def wash_out(image: Tensor, rng: Random) -> Tensor:
    """Low contrast around a random colour."""
    colour = torch.from_numpy(rng.uniform(0.1, 0.9, 3).astype(np.float32)).view(3, 1, 1)
    return colour + (image - colour) * rng.uniform(0.15, 0.5)


def contrast(image: Tensor, rng: Random) -> Tensor:
    middle = _quantile(image, rng.uniform(0.3, 0.7))
    return (image - middle) * rng.uniform(2.5, 8) + 0.5


def gradient_map(image: Tensor, rng: Random) -> Tensor:
    """Duotones and tritones: the tones of the picture as a gradient of two or three colours."""
    colours = _palette(int(rng.integers(2, 4)), rng)
    tone = _tone(image) * (len(colours) - 1)
    weights = (1 - (tone - torch.arange(len(colours)).view(-1, 1, 1)).abs()).clamp(min=0)
    return torch.einsum("khw,kc->chw", weights, colours)


def posterize(image: Tensor, rng: Random) -> Tensor:
    """Two to six levels a channel, of the picture or of a smoothed one."""
    steps = int(rng.integers(2, 7)) - 1
    return (_blur(image, rng.uniform(0.3, 3)).clamp(0, 1) * steps).round() / steps


# Ink on paper


def ink(image: Tensor, rng: Random) -> Tensor:
    """Two tones, cut at a random threshold."""
    tone = _blur(_tone(image), rng.uniform(0.5, 3))
    return _print((_quantile(tone, rng.uniform(0.2, 0.8)) - tone) * 20 + 0.5, image, rng)


def line_art(image: Tensor, rng: Random) -> Tensor:
    """Contours by a difference of Gaussians (Winnemoeller et al. 2012, XDoG), up to black masses as of a woodcut."""
    tone, sigma = _tone(image), rng.uniform(0.6, 2.5)
    fine = _blur(tone, sigma)
    edges = fine - _blur(tone, 1.6 * sigma)
    strength = 0.4 / _quantile(edges.abs(), 0.95).clamp(min=0.01)
    mass = rng.uniform(0, 1) * (0.5 - fine)
    return _print((mass - strength * edges) * rng.uniform(2, 6) - 0.3, image, rng)


def hatch(image: Tensor, rng: Random) -> Tensor:
    """One to three directions of lines that swell in the dark and may bend with the tones, as engraved."""
    tone, layers = _blur(_tone(image), 1.5), int(rng.integers(1, 4))
    period, bend, darkness = _log_uniform(rng, 3, 14), rng.choice([0, 0, 1.5]), rng.uniform(0.8, 1.2) * (1 - tone) * layers
    wobble = rng.uniform(0, 0.4) * _noise(tone, 24, rng)
    coverage = torch.zeros_like(tone)
    for layer in range(layers):
        u, _ = _coordinates(tone, rng)
        wave = _triangle(u / period + bend * tone + wobble)
        coverage = coverage.maximum(((darkness - layer).clamp(0, 0.95) - wave) * period / 2 + 0.5)
    return _print(coverage, image, rng)


def halftone(image: Tensor, rng: Random) -> Tensor:
    """Dots that swell in the dark: one screen of ink, or one for each of cyan, magenta and yellow."""
    period = _log_uniform(rng, 3, 12)
    coloured = rng.random() < 0.5
    darkness = 1 - (image if coloured else _tone(image))
    screens = []
    for channel in darkness:
        u, v = _coordinates(image, rng)
        dots = 0.5 - (torch.cos(u * math.tau / period) + torch.cos(v * math.tau / period)) / 4
        screens.append((channel - dots) * period + 0.5)
    coverage = torch.stack(screens) if coloured else screens[0][None]
    return 1 - coverage.clamp(0, 1) if coloured else _print(coverage, image, rng)


def stipple(image: Tensor, rng: Random) -> Tensor:
    """Grains that crowd in the dark."""
    grains = _noise(image, rng.uniform(1, 3), rng)
    return _print((1.1 * (1 - _tone(image)) - grains) * 5 + 0.5, image, rng)


# Flat shapes


def cut_out(image: Tensor, rng: Random) -> Tensor:
    """Smoothed tones, quantised to two to six colours of paper."""
    return _flat(_blur(_tone(image), rng.uniform(1, 5)), rng)


def outline(image: Tensor, rng: Random) -> Tensor:
    """Flat colours within dark contours, as of comics and stained glass."""
    colours = posterize(image, rng) if rng.random() < 0.5 else cut_out(image, rng)
    down, right = torch.gradient(_blur(_tone(image), rng.uniform(0.8, 2)), dim=(1, 2))
    slope = (down**2 + right**2).sqrt()
    return colours * (2.5 - 2 * slope / _quantile(slope, rng.uniform(0.75, 0.92)).clamp(min=0.02)).clamp(0, 1)


def mosaic(image: Tensor, rng: Random) -> Tensor:
    """Tiles, square or irregular, with or without joints between them."""
    size = _log_uniform(rng, 5, 20)
    u, v = _coordinates(image, rng)
    cells, gap = _cells(u / size, v / size, rng.choice([0, 0.4, 1]), rng)
    tiles = _cell_means(image, cells) + rng.uniform(0, 0.15) * _cell_shades(cells, rng)
    width = rng.choice([0, 0.1, 0.25])
    return torch.where(gap < width, _palette(1, rng).view(3, 1, 1), tiles)


def strokes(image: Tensor, rng: Random) -> Tensor:
    """Long cells of one colour each, like the strokes of a brush, on a grained ground."""
    size, stretch = _log_uniform(rng, 3, 8), rng.uniform(3, 6)
    u, v = _coordinates(image, rng)
    bend = _noise(image, 40, rng)[0] * rng.uniform(0, 6)
    cells, _ = _cells(u / (size * stretch), v / size + bend, 1, rng)
    grain = rng.uniform(0, 0.15) * (_noise(image, 1, rng) - 0.5)
    return _cell_means(image, cells) + rng.uniform(0, 0.15) * _cell_shades(cells, rng) + grain


# Patterns and mixes


def pattern(image: Tensor, rng: Random) -> Tensor:
    """A printed pattern in place of the picture."""
    return _flat(_field(image, rng), rng)


def overprint(image: Tensor, rng: Random) -> Tensor:
    """A pattern over the picture: one of its two tones lets the picture through, or its inverse through the other."""
    mask = ((_field(image, rng) - rng.uniform(0.3, 0.7)) * 20 + 0.5).clamp(0, 1)
    other = 1 - image if rng.random() < 0.5 else _palette(1, rng).view(3, 1, 1)
    return image + mask * (other - image)


def collage(image: Tensor, rng: Random) -> Tensor:
    """Two transforms on either side of a random border."""
    border = ((_noise(image, 60, rng) - 0.5) * 40 + 0.5).clamp(0, 1)
    left, right = (_draw(rng)(image, rng).clamp(0, 1) for _ in range(2))
    return left + border * (right - left)


UNCHANGED = 0.45
TWICE = 0.25
# relative frequencies
TRANSFORMS: tuple[tuple[float, Transform], ...] = (
    (2, greyscale),
    (1, invert),
    (1, permute_channels),
    (1.5, rotate_hue),
    (1, saturate),
    (1, wash_out),
    (2, contrast),
    (2.5, gradient_map),
    (2, posterize),
    (3, ink),
    (4, line_art),
    (3.5, hatch),
    (2, halftone),
    (1, stipple),
    (4, cut_out),
    (3, outline),
    (2.5, mosaic),
    (2, strokes),
    (2.5, pattern),
    (2, overprint),
    (1.5, collage),
)


# Parts


def _draw(rng: Random) -> Transform:
    weights, transforms = zip(*TRANSFORMS, strict=True)
    return transforms[rng.choice(len(weights), p=np.array(weights) / sum(weights))]


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _grey(image: Tensor) -> Tensor:
    return luma(image[None])[0]


def _quantile(values: Tensor, q: float) -> Tensor:
    """Of every fourth row and column, which is enough here."""
    return values[:, ::4, ::4].flatten().quantile(q)


def _tone(image: Tensor) -> Tensor:
    """Luminance `(1, H, W)`, stretched to [0, 1]."""
    grey = _grey(image)
    low, high = _quantile(grey, 0.02), _quantile(grey, 0.98)
    return ((grey - low) / (high - low).clamp(min=0.05)).clamp(0, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = min(math.ceil(2.5 * sigma), min(image.shape[1:]) - 1)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    for _ in range(2):
        image = F.conv2d(F.pad(image[:, None], (radius, radius, 0, 0), "reflect"), kernel)[:, 0].transpose(1, 2)
    return image


def _coordinates(image: Tensor, rng: Random) -> tuple[Tensor, Tensor]:
    """Pixel coordinates `(H, W)` in a random rotation about a random point."""
    height, width = image.shape[1:]
    angle = rng.uniform(0, math.tau)
    y = (torch.arange(height) - rng.uniform(0, height))[:, None]
    x = (torch.arange(width) - rng.uniform(0, width))[None]
    return x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)


def _triangle(x: Tensor) -> Tensor:
    """A triangle wave of period 1 between 0, at whole numbers, and 1."""
    return (2 * (x - x.round())).abs()


def _noise(image: Tensor, scale: float, rng: Random) -> Tensor:
    """Value noise `(1, H, W)` in [0, 1] with features of `scale` pixels."""
    height, width = (max(2, math.ceil(side / scale)) for side in image.shape[1:])
    values = torch.from_numpy(rng.random((1, 1, height, width), dtype=np.float32))
    return F.interpolate(values, image.shape[1:], mode="bicubic", align_corners=True)[0].clamp(0, 1)


def _field(image: Tensor, rng: Random) -> Tensor:
    """A pattern `(1, H, W)` in [0, 1]: stripes, checks, rings, dots, clouds, marble or cells."""
    kind, period = int(rng.integers(7)), _log_uniform(rng, 6, 40)
    u, v = (coordinate[None] / period for coordinate in _coordinates(image, rng))
    wobble = rng.choice([0, 0.5, 2]) * _noise(image, 40, rng)
    clouds = (_noise(image, 4 * period, rng) + 0.5 * _noise(image, 2 * period, rng) + 0.25 * _noise(image, period, rng)) / 1.75
    if kind == 0:
        return _triangle(u + wobble)
    if kind == 1:
        return (_triangle(u + wobble) - 0.5) * (_triangle(v + wobble) - 0.5) * 2 + 0.5
    if kind == 2:
        return _triangle((u**2 + v**2).sqrt() + wobble)
    if kind == 3:
        return (_triangle(u + wobble) + _triangle(v)) / 2
    if kind == 4:
        return clouds
    if kind == 5:
        return _triangle(6 * clouds)
    cells, gap = _cells(u[0], v[0], 1, rng)
    return torch.where(gap < 0.15, 0, 0.5 + 0.25 * _cell_shades(cells, rng)).clamp(0, 1)[None]


def _cells(u: Tensor, v: Tensor, jitter: float, rng: Random) -> tuple[Tensor, Tensor]:
    """The Voronoi cells of a jittered grid of pitch 1: their numbers `(H, W)`, how much further the second centre is."""
    u, v = u - u.min().floor() + 1, v - v.min().floor() + 1
    rows, columns = int(v.max()) + 2, int(u.max()) + 2
    centres = torch.from_numpy((0.5 + jitter * rng.uniform(-0.5, 0.5, (2, rows * columns))).astype(np.float32))
    first, second, cells = torch.full_like(u, 9), torch.full_like(u, 9), torch.zeros(u.shape, dtype=torch.long)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            column, row = u.floor() + right, v.floor() + down
            number = (row * columns + column).long()
            distance = ((column + centres[0][number] - u) ** 2 + (row + centres[1][number] - v) ** 2).sqrt()
            second = torch.minimum(second, torch.maximum(first, distance))
            cells = torch.where(distance < first, number, cells)
            first = torch.minimum(first, distance)
    return cells, second - first


def _cell_means(image: Tensor, cells: Tensor) -> Tensor:
    flat = cells.flatten().numpy()
    counts = np.bincount(flat).clip(1)
    means = np.stack([np.bincount(flat, channel.flatten().numpy()) / counts for channel in image])
    return torch.from_numpy(means.astype(np.float32))[:, cells]


def _cell_shades(cells: Tensor, rng: Random) -> Tensor:
    """A normal random number for each cell."""
    return torch.from_numpy(rng.standard_normal(int(cells.max()) + 1, dtype=np.float32))[cells]


def _palette(count: int, rng: Random) -> Tensor:
    """Random colours `(count, 3)` from dark to light, or in any order."""
    values = rng.random((count, 3)) ** rng.choice([0.5, 1, 2], (count, 1))
    if count > 1:
        values = values[np.argsort(values @ LUMINANCE)]
        values[0] *= rng.uniform(0, 0.8)
        values[-1] = 1 - rng.uniform(0, 0.8) * (1 - values[-1])
    if rng.random() < 0.3:
        rng.shuffle(values)
    return torch.from_numpy(values.astype(np.float32))


def _flat(tone: Tensor, rng: Random) -> Tensor:
    """Two to six flat colours for as many ranges of `tone`, the edges between them antialiased."""
    colours = _palette(int(rng.integers(2, 7)), rng)
    flat = colours[0].view(3, 1, 1).expand(3, *tone.shape[1:])
    for k, colour in enumerate(colours[1:], 1):
        above = ((tone - _quantile(tone, k / len(colours))) * 25 + 0.5).clamp(0, 1)
        flat = flat + above * (colour.view(3, 1, 1) - flat)
    return flat


def _print(coverage: Tensor, image: Tensor, rng: Random) -> Tensor:
    """Ink where `coverage` `(1, H, W)` is 1: black on white, two colours, white on black, or black over the flat picture."""
    coverage, kind = coverage.clamp(0, 1), rng.random()
    if kind < 0.45:
        return (1 - coverage).expand_as(image)
    if kind < 0.75:
        dark, light = _palette(2, rng).view(2, 3, 1, 1)
        return light + coverage * (dark - light)
    if kind < 0.85:
        return coverage.expand_as(image)
    return posterize(image, rng) * (1 - coverage)
