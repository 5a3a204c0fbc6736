"""Inputs that several nodes have."""

from __future__ import annotations

from comfy_api.latest import io

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


def texture_input() -> io.Float.Input:
    return io.Float.Input(
        "texture",
        default=1.0,
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
