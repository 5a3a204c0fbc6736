"""Inputs that several nodes have."""

from __future__ import annotations

from comfy_api.latest import io

from ..adain_core.stylize import CONTENT_STATISTICS
from ..adain_core.working import AUTOMATIC

NOTHING_THERE = "(none found: see the tooltip)"
STRENGTH = "Strength of the style: 0 is the content, 1 the full style."


def alpha_input(default: float = 1.0, tooltip: str = STRENGTH) -> io.Float.Input:
    return io.Float.Input("alpha", default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def half_life_input() -> io.Float.Input:
    return io.Float.Input(
        "half_life",
        default=8.0,
        min=0.1,
        max=1000.0,
        step=0.5,
        tooltip="For running only: after so many frames, an old frame counts half.",
    )


def tile_input() -> io.Int.Input:
    return io.Int.Input(
        "tile",
        default=-1,
        min=-1,
        max=16384,
        tooltip="Large pictures are worked on in tiles, which fit together without seams. -1: as large as memory allows,"
        " 0: never in tiles, else their side in pixels.",
    )


def content_statistics_input(optional: bool = False) -> io.Combo.Input:
    return io.Combo.Input(
        "content_statistics",
        options=list(CONTENT_STATISTICS),
        default="image",
        optional=optional,
        tooltip="What the content is normalised by. image: each picture by itself. batch: all pictures together,"
        " which keeps a clip from flickering. running: smoothed along the clip, for scenes that change. region:"
        " inside the mask of each masked style.",
    )


def working_size_input() -> io.Int.Input:
    return io.Int.Input(
        "working_size",
        default=-1,
        min=-1,
        max=16384,
        optional=True,
        tooltip="Larger pictures are stylised with their smaller side at this many pixels, then enlarged to their own size: the"
        " smaller it is, the broader the strokes. -1: 1024, 0: always at full size.",
    )


def working_side(working_size: int) -> int:
    """The `working_size` of adain_core for the input's value."""
    return AUTOMATIC if working_size < 0 else working_size


def detail_input() -> io.Float.Input:
    return io.Float.Input(
        "detail",
        default=0.8,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        tooltip="How much of the picture's fine detail is added when the result is enlarged (see working_size).",
    )


def texture_input(default: float = 1.0) -> io.Float.Input:
    return io.Float.Input(
        "texture",
        default=default,
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        tooltip="How much texture flat areas get, from decoders that paint one (lite). 0 for clips, where it would stay in its"
        " place while the picture moves.",
    )


def texture_seed_input() -> io.Int.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**32 - 1,
        control_after_generate=False,
        optional=True,
        tooltip="Which texture it is; another number gives other strokes in flat areas.",
    )


def names_input(identifier: str, names: list[str], tooltip: str, default: str | None = None) -> io.Combo.Input:
    """A list of names found in folders, which may be empty."""
    names = names or [NOTHING_THERE]
    return io.Combo.Input(identifier, options=names, default=default if default in names else names[0], tooltip=tooltip)
