"""Makes the pictures of README.md, docs/ and weights/README.md anew, and then their tables (see `tables.py`):

    python docs/figures.py --paintings FOLDER            # all in docs/pictures/
    python docs/figures.py clip mix                      # these

FOLDER is the one that `make_styles.py` needs. The encoder of `vgg19` and the published decoder are those of
`../shared/reference`; the picture of the graph needs COMFYUI_DIR, COMFYUI_PYTHON, playwright and Chromium. What cannot be made
stays as it was, and is named at the end, with exit status 1. `make_styles.py` makes styles.jpg.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import tables
import torch
from make_styles import PICTURES, REFERENCE, ROOT
from PIL import Image
from torch import Tensor

sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "host")]

from thumbnails import photo, strips  # noqa: E402

import adain_core  # noqa: E402
from adain_core import keep_colors, load_decoder, load_encoder, load_style, mix_styles, stylize  # noqa: E402
from adain_core.catalog import BUNDLED  # noqa: E402
from adain_core.cli import main as adain  # noqa: E402
from adain_core.evaluation.sheet import draw_sheet  # noqa: E402
from adain_core.images import camera_move, load_image, resize, to_pil  # noqa: E402

SIDE = 384  # pixels: the smallest side of photographs, 3:2, as they are stylised here
CELL = 178  # pixels: the height of pictures of which three stand beside each other, captions as large as the page's text
COMPARED = "pere-tanguy"  # the style that models are shown in
PUBLISHED = REFERENCE.with_name("decoder.safetensors")


class Missing(Exception):
    """What a picture cannot be made without."""


class Sources:
    """What pictures are made of. Raises Missing for what is not here."""

    def __init__(self, paintings: Path | None):
        self.paintings = paintings

    @cached_property
    def lite(self):
        return load_encoder("lite", dtype="float32"), load_decoder("lite", dtype="float32")

    @cached_property
    def vgg19(self):
        return load_encoder(self._file(REFERENCE), dtype="float32"), load_decoder("vgg19", dtype="float32")

    @cached_property
    def published(self):
        return self.vgg19[0], load_decoder(self._file(PUBLISHED), dtype="float32")

    @cached_property
    def refined(self) -> tuple[Tensor, Tensor]:
        """The city by `vgg19`, and refined, which takes a minute."""
        result = stylize(*self.vgg19, city(), style(COMPARED))
        return result, adain_core.refine(self.vgg19[0], result, city(), self.painting(COMPARED))

    def painting(self, name: str) -> Tensor:
        """A painting, `(1, 3, H, W)`."""
        if self.paintings is None:
            raise Missing("--paintings was not given")
        return load_image(self._file(self.paintings / f"{name}.jpg"))[:, :3]

    def _file(self, path: Path) -> str:
        if not path.is_file():
            raise Missing(f"there is no {path.name} in {path.parent}")
        return str(path)


def view(picture: Tensor, width: int = SIDE * 3 // 2, middle: float = 0.4) -> Tensor:
    """The part 3:2 of pictures `(B, 3, H, W)`, `width` wide; `middle` in [0, 1] says where in their longer side it lies."""
    height = width * 2 // 3
    picture = resize(picture, max(height, round(width * min(1, picture.shape[2] / picture.shape[3]) + 0.5)))
    top, left = (round((length - room) * middle) for length, room in zip(picture.shape[2:], (height, width), strict=True))
    return picture[:, :, top : top + height, left : left + width]


def city() -> Tensor:
    """What models are compared on, in the style COMPARED."""
    return view(photo("city"), 480, middle=0.6)


def style(name: str) -> adain_core.Style:
    return load_style(BUNDLED / "styles" / f"{name}.safetensors")


def small(picture: Tensor) -> Image.Image:
    """A picture of the table of six, and of models."""
    return to_pil(resize(picture[None] if picture.ndim == 3 else picture, 320))


def hero(sources: Sources) -> Image.Image:
    rows = []
    for name, painted, middle in (
        ("lake", "cafe-terrace", 0.6), ("city", "pere-tanguy", 0.2), ("osprey", "great-wave", 0.5),
    ):  # fmt: skip
        before = view(photo(name), middle=0.6)
        result = stylize(*sources.lite, before, style(painted))
        rows.append([resize(each, 267) for each in (before, view(sources.painting(painted), middle=middle), result)])
    return draw_sheet(rows, [[""] * 3] * 3)


def mix(sources: Sources) -> Image.Image:
    styles = style("great-wave"), style("cafe-terrace")
    mixed = [mix_styles(styles, [1 - share, share]) for share in (0, 0.5, 1)]
    return small(strips(torch.cat([stylize(*sources.lite, view(photo("lake"), middle=0.6), each) for each in mixed])))


def mask(sources: Sources) -> Image.Image:
    before = view(photo("portrait"), middle=0.1)
    return small(stylize(*sources.lite, before, style("cafe-terrace").masked(1 - face(before))))


def colors(sources: Sources) -> Image.Image:
    before = view(photo("spices"))
    result = stylize(*sources.lite, before, style("harvest"))
    return small(strips(torch.cat([before, result, keep_colors(result, before)])))


def large(sources: Sources) -> Image.Image:
    before = photo("lake")
    results = [stylize(*sources.lite, before, style("great-wave"), working_size=size) for size in (0, 256)]
    return small(strips(view(torch.cat(results), 480, middle=0.8)))


def clip(sources: Sources) -> list[Image.Image]:
    frames = camera_move(view(photo("lake"), 360, middle=0.6), 24)
    shares = torch.linspace(0, 1, len(frames))
    sweep = mix_styles([style("great-wave"), style("blue-horses")], [1 - shares, shares])
    results = stylize(*sources.lite, frames, sweep, content_statistics="batch", texture=0)
    return [to_pil(frame) for frame in (*results, *results.flip(0)[1:-1])]


def refine(sources: Sources) -> Image.Image:
    return small(strips(torch.cat(sources.refined)))


def model_lite(sources: Sources) -> Image.Image:
    return _model(sources.lite)


def model_vgg19(sources: Sources) -> Image.Image:
    return _model(sources.vgg19)


def model_published(sources: Sources) -> Image.Image:
    return _model(sources.published)


def model_refined(sources: Sources) -> Image.Image:
    return small(sources.refined[1])


def _model(networks) -> Image.Image:
    return small(stylize(*networks, city(), style(COMPARED)))


def first_steps(sources: Sources) -> Image.Image:
    """The template 01 in ComfyUI, after a run."""
    try:
        server, browser = importlib.import_module("comfyui_server"), importlib.import_module("browser")
        engine = importlib.import_module("playwright.sync_api")
    except ImportError as error:
        raise Missing(str(error)) from error
    if not (server.CHECKOUT and server.PYTHON and browser.CHROMIUM):
        raise Missing("COMFYUI_DIR, COMFYUI_PYTHON and Chromium are needed")
    with tempfile.TemporaryDirectory() as base, server.Server(Path(base)) as comfyui, engine.sync_playwright() as running:
        comfyui.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False})
        opened = running.chromium.launch(executable_path=browser.CHROMIUM, args=browser.ARGUMENTS)
        page = browser.loaded(opened.new_page(viewport={"width": 1400, "height": 820}), comfyui)
        page.evaluate("workflow => app.loadGraphData(workflow)", browser.template("01 First steps"))
        page.evaluate("app.queuePrompt(0)")
        comfyui.wait_for("Prompt executed in")
        page.wait_for_function("app.graph.nodes.every(node => node.type === 'MarkdownNote' || node.imgs?.length)")
        page.wait_for_timeout(6000)  # until the notices are gone, and the canvas is drawn
        picture = Path(base) / "page.png"
        page.screenshot(path=picture, clip={"x": 60, "y": 38, "width": 1340, "height": 700})
        opened.close()
        return Image.open(picture).convert("RGB")


def contact_sheet(sources: Sources) -> Image.Image:
    names = "great-wave cafe-terrace blue-horses grande-jatte young-hare don-quixote acanthus kiss".split()
    with tempfile.TemporaryDirectory() as folder:
        before = str(ROOT / "workflows" / "pictures" / "photos" / "lake.jpg")
        adain(["stylize", before, *names, "--each", "--size", str(SIDE), "--dtype", "float32", "--quiet", "-o", folder])
        return Image.open(Path(folder) / "contact-sheet.png").convert("RGB")


def kept_content(sources: Sources) -> Image.Image:
    before = view(photo("portrait"), middle=0.1)
    confined = style("cafe-terrace").masked(1 - face(before))
    results = [stylize(*sources.lite, before, confined, residual=kept) for kept in (False, True)]
    return draw_sheet(
        [[resize(each, CELL) for each in (before, *results)]], [["photograph", "as the paper decodes", "content kept"]]
    )


def working_size(sources: Sources) -> Image.Image:
    before, ink = photo("city"), style("poppies")
    results = [
        stylize(*sources.lite, before, ink, working_size=size, detail=share) for size, share in ((0, 0), (256, 0), (256, 0.8))
    ]
    captions = ["photograph", "at full size", "at 256 pixels, --detail 0", "at 256 pixels, --detail 0.8"]
    cells = [view(each, 400, middle=0.8) for each in (before, *results)]
    return draw_sheet([cells[:2], cells[2:]], [captions[:2], captions[2:]])


def refining(sources: Sources) -> Image.Image:
    cells = [resize(each, CELL) for each in (city(), *sources.refined)]
    return draw_sheet([cells], [["photograph", "vgg19", "refined, 30 steps"]])


def faults_lite(sources: Sources) -> Image.Image:
    before = view(photo("lake"), middle=0.2)
    results = [stylize(*networks, before, style("great-wave")) for networks in (sources.lite, sources.vgg19, sources.published)]
    return draw_sheet([[each[..., :CELL, :267] for each in results]], [["lite", "vgg19", "the published decoder"]])


def faults_vgg19(sources: Sources) -> Image.Image:
    before, rows = view(photo("portrait"), middle=0.1), []
    for name in ("four-horsemen", "fish-and-prawns"):
        results = [stylize(*networks, before, style(name)) for networks in (sources.vgg19, sources.published)]
        rows.append([resize(each, CELL) for each in (before, *results)])
    return draw_sheet(rows, [["photograph", "vgg19", "the published decoder"], [""] * 3])


def face(picture: Tensor) -> Tensor:
    """A soft oval `(H, W)` around the face of the portrait, as `view(photo("portrait"), middle=0.1)` shows it."""
    height, width = picture.shape[2:]
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    distance = ((x - 0.435) / 0.13) ** 2 + ((y - 0.31) / 0.33) ** 2
    return ((1.15 - distance) / 0.3).clamp(0, 1)


FIGURES: dict[str, Callable[[Sources], Image.Image | list[Image.Image]]] = {
    make.__name__.replace("_", "-"): make
    for make in (
        hero, first_steps, mix, mask, colors, large, clip, refine, model_lite, model_vgg19, model_published, model_refined,
        contact_sheet, kept_content, working_size, refining, faults_lite, faults_vgg19,
    )
}  # fmt: skip


def save(name: str, picture: Image.Image | list[Image.Image]) -> None:
    if isinstance(picture, list):
        path, first, rest = PICTURES / f"{name}.webp", picture[0], picture[1:]
        first.save(path, save_all=True, append_images=rest, duration=90, loop=0, quality=55, method=4)
    else:
        picture.save(PICTURES / f"{name}.jpg", quality=85)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the pictures and the tables of the documents anew.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(FIGURES)} (default: all)")
    parser.add_argument("--paintings", type=Path, metavar="FOLDER", help="folder with NAME.jpg of each painting")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(FIGURES):
        parser.error(f"there is no picture {', '.join(sorted(unknown))}")
    sources, missing = Sources(arguments.paintings), []
    for name in arguments.names or FIGURES:
        try:
            save(name, FIGURES[name](sources))
            print(name, flush=True)
        except Missing as error:
            missing.append(f"{name} was not made: {error}.")
    tables.renew()
    print(*missing, sep="\n")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
