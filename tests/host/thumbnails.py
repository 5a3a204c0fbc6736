"""The templates' thumbnails: their results, and for templates that cannot run in a test, what comes nearest."""

from __future__ import annotations

import math

import torch
from root import ROOT

from adain_core import adain, channel_statistics, load_decoder, load_encoder, load_style, stylize
from adain_core.catalog import BUNDLED
from adain_core.images import load_image, resize, save_image

SIDE = 512
LINE = 4  # pixels, between pictures and around the style picture
MARGIN = 16
STRIPS = 4  # of a clip


def photo(name: str) -> torch.Tensor:
    """An example picture, `(1, 3, H, W)`."""
    return load_image(ROOT / "workflows" / "pictures" / "photos" / f"{name}.jpg")


def square(pictures: torch.Tensor) -> torch.Tensor:
    """The middle squares of pictures."""
    side = min(pictures.shape[2:])
    top, left = ((length - side) // 2 for length in pictures.shape[2:])
    return pictures[..., top : top + side, left : left + side]


def joined(pictures: torch.Tensor, dim: int) -> torch.Tensor:
    """Pictures `(N, 3, H, W)` side by side (`dim` -1) or one above the other (-2), with white lines between: `(3, H, W)`."""
    first, *others = pictures
    line = torch.ones_like(first.narrow(dim, 0, LINE))
    return torch.cat([first, *(part for picture in others for part in (line, picture))], dim)


def strips(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures `(N, 3, H, W)` of one view as N vertical strips of it, with white lines between: `(3, H, W)`."""
    width = pictures.shape[3] // len(pictures)
    return joined(torch.stack([view[..., k * width : (k + 1) * width] for k, view in enumerate(pictures)]), -1)


def write(name: str, pictures: torch.Tensor, style: str = "") -> None:
    """Save pictures `(N, 3, H, W)` as a template's thumbnail: nine as a grid, others as vertical strips of one view, of clips
    a few. The example picture that gave the `style` is put into the corner.
    """
    if len(pictures) == 9:
        small = resize(square(pictures), math.ceil(SIDE / 3))
        picture = joined(torch.stack([joined(row, -1) for row in small.split(3)]), -2)[None]
    else:
        if len(pictures) > STRIPS:
            pictures = pictures[torch.linspace(0, len(pictures) - 1, STRIPS).round().long()]
        picture = strips(resize(square(pictures), SIDE))[None]
    picture = resize(square(picture), SIDE)
    if style:
        inset = torch.nn.functional.pad(resize(square(photo(style)), SIDE // 4), [LINE] * 4, value=1)
        side = inset.shape[-1]
        picture[..., -side - MARGIN : -MARGIN, -side - MARGIN : -MARGIN] = inset
    save_image(picture, ROOT / "workflows" / f"{name}.jpg", quality=85)


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
    "12 The camera": lambda: stylized("portrait", "acanthus"),
    "15 Stylise, then generate": lambda: stylized("portrait", "blue-horses"),
    "16 AdaIN on latents": lambda: recolored("lake", "spices"),
    "17 AdaIN on sampling": lambda: recolored("osprey", "city"),
}
