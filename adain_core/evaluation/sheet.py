"""Models and folders of finished pictures side by side, with the same numbers for all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..errors import AdainError
from ..images import list_images, to_pil
from ..progress import Counter
from .losses import Losses, mean_losses
from .measurement import Judge, Measurement, MeasurementConfig, Table, load_models
from .report import load_square

GAP, LINE = 6, 16  # pixels between pictures, and the height of a line of text


@dataclass(frozen=True)
class SheetConfig(MeasurementConfig):
    """`models` are names of an encoder and a decoder, or of both; `results` folders of finished pictures.

    A finished picture's name begins with its content's and ends with its style's, without their extensions.
    """

    FULL: ClassVar[dict] = {"size": 512}
    MATPLOTLIB: ClassVar[bool] = False

    size: int = 256
    models: tuple[tuple[str, ...], ...] = (("lite",),)
    results: tuple[str, ...] = ()
    content_count: int = 3
    style_count: int = 2


def compare_pictures(config: SheetConfig) -> Measurement:
    """The mean losses of each model and folder on all pairs of the drawn pictures, and a sheet of them.

    Raises FileNotFoundError and AdainError for unusable folders and networks, and if a folder lacks the picture of a pair.
    """
    judge = Judge(config, config.content_count, config.style_count)
    finished = {folder: {pair: _finished(folder, *pair) for pair in judge.pairs} for folder in config.results}
    models = load_models(config.models, config.device)
    counter = Counter(len(judge.pairs))
    losses_of: dict[str, list[Losses]] = {}
    cells, captions = [], []
    for content, style in judge.pairs:
        with counter.part():
            pictures = judge.contents[content], judge.styles[style]
            results = {model.name: model(*pictures) for model in models}
            results |= {name: load_square(files[content, style], config.size) for name, files in finished.items()}
            losses = {name: judge.losses(result, content, style) for name, result in results.items()}
            for name, each in ({"the untouched content": judge.losses(pictures[0], content, style)} | losses).items():
                losses_of.setdefault(name, []).append(each)
            cells.append([*pictures, *results.values()])
            texts = [f"{Path(name).name}\ncontent {each.content:.2f}\nstyle {each.style:.2f}" for name, each in losses.items()]
            captions.append([f"content\n{content}", f"style\n{style}", *texts])
    means = {name: mean_losses(losses) for name, losses in losses_of.items()}
    title = f"{len(judge.contents)} contents x {len(judge.styles)} styles, {config.size}x{config.size}"
    table = Table(title, ("content loss", "style loss"), {name: (mean.content, mean.style) for name, mean in means.items()})
    return Measurement(config, judge.named(models), (table,), lambda: draw_sheet(cells, captions))


def draw_sheet(rows: Sequence[Sequence[Tensor | Image.Image | None]], captions: Sequence[Sequence[str]]) -> Image.Image:
    """Pictures `(1, 3, H, W)` in rows, pixel by pixel, each under its caption of one or more lines; None leaves a gap."""
    pictures = [[to_pil(cell) if isinstance(cell, Tensor) else cell for cell in row] for row in rows]
    sizes = [cell.size for row in pictures for cell in row if cell]
    width, height = (max(sides) for sides in zip(*sizes, strict=True))
    font = ImageFont.load_default(LINE * 3 // 4)
    heads = [LINE * max(caption.count("\n") + 1 if caption else 0 for caption in row) for row in captions]
    page_size = GAP + max(map(len, rows)) * (width + GAP), GAP + sum(head + height + GAP for head in heads)
    page, top = Image.new("RGB", page_size, "white"), GAP
    draw = ImageDraw.Draw(page)
    for row, texts, head in zip(pictures, captions, heads, strict=True):
        for column, (cell, text) in enumerate(zip(row, texts, strict=True)):
            left = GAP + column * (width + GAP)
            for line, words in enumerate(text.split("\n")):
                draw.text((left, top + line * LINE), _shortened(words, font, width), "black", font)
            if cell:
                page.paste(cell, (left, top + head))
        top += head + height + GAP
    return page


def draw_contact_sheet(pictures: Sequence[Image.Image | None], captions: Sequence[str]) -> Image.Image:
    """Pictures row by row, about as many in a row as there are rows, each under its caption; None leaves a gap."""
    columns = math.ceil(len(pictures) ** 0.5)
    starts = range(0, len(pictures), columns)
    return draw_sheet([pictures[i : i + columns] for i in starts], [captions[i : i + columns] for i in starts])


def _finished(folder: str, content: str, style: str) -> Path:
    """The picture in `folder`, or below, whose name is made of the content's and the style's; at best of their paths."""
    files, end = list_images(folder), PurePosixPath(style).stem
    place, alone = PurePosixPath(content).with_suffix("").as_posix(), PurePosixPath(content).stem
    paths = [(path, path.relative_to(folder).with_suffix("").as_posix()) for path in files]
    for begin, names in ((place, paths), (alone, [(path, path.stem) for path in files])):
        length = len(begin) + len(end)
        named = [(p, name) for p, name in names if name.startswith(begin) and name.endswith(end) and len(name) > length]
        if named:  # longer names belong to contents or styles whose names contain these
            shortest = min(len(name) for _, name in named)
            first, *others = [path for path, name in named if len(name) == shortest]
            if others:
                raise AdainError(f"{first} and {others[0]} could both be {content} in {style}; leave the wrong one out.")
            return first
    raise AdainError(f"{folder} holds no picture whose name begins with {alone} and ends with {end}; name its pictures so.")


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text; its end is cut off if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
