"""The templates' thumbnails: their results, and for templates that cannot run in a test, what comes nearest."""

from __future__ import annotations

import math

import torch
from root import ROOT

from adain_core import adain, channel_statistics, load_decoder, load_encoder, load_style, stylize
from adain_core.catalog import BUNDLED
from adain_core.images import load_image, resize, save_image

SIDE = 512


def photo(name: str) -> torch.Tensor:
    """An example picture, `(1, 3, H, W)`."""
    return load_image(ROOT / "workflows" / "pictures" / "photos" / f"{name}.jpg")


def square(pictures: torch.Tensor) -> torch.Tensor:
    """The middle squares of pictures."""
    side = min(pictures.shape[2:])
    top, left = ((length - side) // 2 for length in pictures.shape[2:])
    return pictures[..., top : top + side, left : left + side]


def strips(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures `(N, 3, H, W)` of one view as N vertical strips of it, `(3, H, W)`."""
    edges = [round(pictures.shape[3] * i / len(pictures)) for i in range(len(pictures) + 1)]
    return torch.cat([one[..., left:right] for one, left, right in zip(pictures, edges, edges[1:], strict=False)], dim=-1)


def write(name: str, pictures: torch.Tensor) -> None:
    """Save pictures `(N, 3, H, W)` as a template's thumbnail: nine as a grid, others as vertical strips of one view."""
    pictures = square(pictures)
    if len(pictures) == 9:
        small = resize(pictures, math.ceil(SIDE / 3))
        joined = torch.cat([torch.cat(list(row), dim=-1) for row in small.split(3)], dim=-2)
    else:
        joined = strips(pictures)
    save_image(resize(joined[None], SIDE), ROOT / "workflows" / f"{name}.jpg", quality=85)


def stylized(picture: str, style: str) -> torch.Tensor:
    """A photograph beside itself in a style."""
    before, file = photo(picture), BUNDLED / "styles" / f"{style}.safetensors"
    return torch.cat([before, stylize(load_encoder(), load_decoder(), before, load_style(file))])


def recolored(picture: str, reference: str) -> torch.Tensor:
    """A photograph beside itself in the colours of another, by AdaIN on its pixels, as the nodes do it on latents."""
    before = photo(picture)
    return torch.cat([before, adain(before, channel_statistics(photo(reference))).clamp(0, 1)])


# A camera and the photograph that stands for its picture; the first stage of a diffusion template; AdaIN without the diffusion.
STAND_INS = {
    "12 The camera": lambda: stylized("portrait", "cafe-terrace"),
    "15 Stylise, then generate": lambda: stylized("portrait", "cafe-terrace"),
    "16 AdaIN on latents": lambda: recolored("lake", "spices"),
    "17 AdaIN on sampling": lambda: recolored("osprey", "city"),
}
