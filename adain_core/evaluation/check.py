"""Checks of a device: what it computes, against the CPU in float32, in a way that needs neither tests nor downloads."""

from __future__ import annotations

import math
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..clip import ClipStylizer, PictureSequence
from ..devices import exact_float32, fast_dtype, free_memory, resolve_device
from ..errors import AdainError
from ..images import load_image, save_image
from ..networks import Decoder, Encoder
from ..networks.texture import Texture
from ..networks.vgg import VGGDecoder, VGGEncoder
from ..progress import Counter
from ..style import Style, encode_style, mix_styles
from ..stylize import stylize
from ..training.config import TrainingConfig
from ..training.trainer import train
from ..weights import load_decoder, load_encoder
from .bench import AGREEMENT
from .plain import relative_error

SIZE = (139, 107)  # of odd sides, and several tiles of 64 pixels
STEPS, FRAMES = 3, 10  # of a training, more than are worked on at once
SHADES = 2 / 255  # by which the mean pixel of a written frame may differ: it is rounded to 8 bits
LOSSES = 0.05  # relative error of a training's losses after `STEPS`
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """What was checked, the `error` found and the largest allowed one; a `fault` is the traceback of a check that broke."""

    name: str
    limit: float
    error: float = math.nan
    fault: str = ""

    @property
    def passed(self) -> bool:
        return not self.fault and self.error <= self.limit


def check_device(name: str) -> list[Check]:
    """Compare what the device of this name computes with the CPU. Reports how many checks are done, and of how many.

    A check that breaks, by whatever error, stops none of the others. Raises AdainError for a device that is not here.
    """
    device = resolve_device(name)
    planned = list(_checks(device))
    counter, found = Counter(len(planned)), []
    for title, limit, measure in planned:
        with counter.part():
            try:
                found.append(Check(title, limit, measure()))
            except Exception:  # of a driver, it may be any
                found.append(Check(title, limit, fault=traceback.format_exc()))
    return found


def _checks(device: torch.device) -> Iterator[tuple[str, float, Callable[[], float]]]:
    """The name, the limit and the measurement of each check."""
    yield "memory is counted", 0.0, lambda: 0.0 if free_memory(device) > 0 else 1.0
    yield "texture", 0.0, partial(_texture, device)
    fast, exact = fast_dtype(device), AGREEMENT["float32"]
    for kind in ("lite", "vgg19"):
        for dtype in dict.fromkeys((torch.float32, fast)):
            limit = AGREEMENT[str(dtype).removeprefix("torch.")]
            yield f"{kind}: picture in {dtype}", limit, partial(_picture, kind, device, dtype)
            if dtype != torch.float32:
                yield f"{kind}: features of a nearly flat picture in {dtype}", limit, partial(_flat, kind, device, dtype)
        yield f"{kind}: tiles", exact, partial(_picture, kind, device, torch.float32, tile=64)
    lite = partial(_picture, "lite", device, torch.float32)
    yield "lite: masks", exact, partial(lite, masked=True, content_statistics="region")
    yield "lite: masks in tiles", exact, partial(lite, masked=True, alpha=0.7, tile=64)
    yield "lite: a batch", exact, partial(lite, count=3, content_statistics="running")
    yield "a clip", SHADES, partial(_clip, device)
    yield "a training", LOSSES, partial(_training, device)


def networks(kind: str, device: torch.device, dtype: torch.dtype) -> tuple[Encoder, Decoder]:
    """The bundled networks, or a VGG-19 of random weights and its mirror."""
    if kind == "lite":
        return load_encoder("lite", device, dtype), load_decoder("lite", device, dtype)
    encoder, decoder = VGGEncoder({}), VGGDecoder({})
    for seed, network in enumerate((encoder, decoder)):
        network.initialize(seed)
    return encoder.copy_for(device, dtype, plain=False), decoder.copy_for(device, dtype, plain=False)


def _pictures(count: int, size: tuple[int, int] = SIZE, seed: int = 0) -> Tensor:
    """Smooth pictures `(count, 3, H, W)`, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    smooth = F.interpolate(torch.rand(count, 3, 7, 5, generator=generator), size, mode="bilinear")
    return (smooth + 0.1 * torch.rand(count, 3, *size, generator=generator)).clamp(0, 1)


def _style(encoder: Encoder, masked: bool = False) -> Style:
    style = encode_style(encoder, _pictures(1, seed=1), size=0)
    if not masked:
        return style
    ramp = torch.linspace(0, 1, 60).expand(40, 60)
    other = encode_style(encoder, _pictures(1, seed=2) ** 2, size=0)
    return mix_styles([style.masked((2 * ramp - 1).clamp(min=0)), other.masked((0.8 - ramp).clamp(min=0))])


def _picture(
    kind: str, device: torch.device, dtype: torch.dtype, tile: int = 0, masked: bool = False, count: int = 1, **options
) -> float:
    """The relative error of a picture to that of the CPU in float32, whole."""
    encoder, decoder = networks(kind, CPU, torch.float32)
    content, style = _pictures(count), _style(encoder, masked)
    wanted = stylize(encoder, decoder, content, style, tile=0, **options)
    encoder, decoder = networks(kind, device, dtype)
    return relative_error(stylize(encoder, decoder, content, _style(encoder, masked), tile=tile, **options), wanted)


def _flat(kind: str, device: torch.device, dtype: torch.dtype) -> float:
    """The error of the deepest features of a nearly flat picture, relative to how much they differ from their means."""
    content = 0.6 + 0.02 * _pictures(1)
    with torch.no_grad(), exact_float32():
        wanted = networks(kind, CPU, torch.float32)[0].encode(content)[-1]
        found = networks(kind, device, dtype)[0].encode(content.to(device))[-1].cpu()
    return ((found - wanted).norm() / (wanted - wanted.mean((2, 3), keepdim=True)).norm()).item()


def _texture(device: torch.device) -> float:
    """The largest difference of the texture's numbers, which every device agrees on."""
    here, there = (Texture(seed=3).at(2, 5, torch.zeros(1, 1, 40, 50, device=place)).cpu() for place in (CPU, device))
    return (here - there).abs().max().item()


def _clip(device: torch.device) -> float:
    """The mean difference of the frames of a clip, in fast numbers, from those of the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / f"{index}.png" for index in range(FRAMES)]
        for picture, path in zip(_pictures(FRAMES), sources, strict=True):
            save_image(picture, path)
        results = []
        for place in (CPU, device):
            encoder, decoder = networks("lite", place, torch.float32 if place == CPU else fast_dtype(place))
            targets = [Path(folder) / place.type / "of" / path.name for path in sources]
            stylizer = ClipStylizer(encoder, decoder, _style(encoder))
            stylizer.pictures(PictureSequence(sources), targets, Path(folder) / "state.safetensors")
            results.append(torch.cat([load_image(path) for path in targets]))
        return (results[0] - results[1]).abs().mean().item()


def _training(device: torch.device) -> float:
    """The relative error of the losses of a short training."""
    found = []
    for place in (CPU, device):
        with tempfile.TemporaryDirectory() as folder:
            judge = networks("vgg19", CPU, torch.float32)[0]
            config = TrainingConfig(
                _pictures(4, (96, 96)), _pictures(4, (96, 96), seed=1), Path(folder) / "out", judge, stage="both",
                start_from="lite", steps=STEPS, batch_size=2, crop_size=64, resize_content=(64, 64), resize_style=(64, 64),
                precision="float32", workers=0, device=str(place), log_every=STEPS,
            )  # fmt: skip
            found.append([losses[-1] for losses in train(config).losses.values()])
    if any(loss is None for losses in found for loss in losses):
        raise AdainError("the losses of the training were not finite.")
    return max(abs(a / b - 1) for b, a in zip(*found, strict=True))
