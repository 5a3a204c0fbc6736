"""Checkpoints: all of a training's state in one file that is always whole."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from ..errors import AdainError
from ..files import replacing

FORMAT = "adain-training-1"


def save_checkpoint(path: Path, recipe: dict, state: dict) -> None:
    """Write `state` (tensors and plain values) with its recipe; beside `path` first, and then renamed."""
    buffer = io.BytesIO()  # what torch raises for a full disk does not say so
    torch.save({"format": FORMAT, "recipe": recipe, **state}, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, recipe: dict) -> dict:
    """The state that was saved. Raises AdainError for a file that holds none or one of another recipe, and OSError."""
    with open(path, "rb") as file:  # one that cannot be opened may be whole
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            found = state["recipe"] if state["format"] == FORMAT else None
        except Exception:  # torch.load raises whatever a damaged file leads it to
            found = None
    if found is None:
        raise AdainError(f"{path} is no checkpoint of a training; remove it to begin anew.")
    # what a checkpoint of an older version does not know is not compared
    changed = sorted(key for key in found if recipe.get(key) != found[key])
    if changed:
        raise AdainError(
            f"{path} is of another recipe ({', '.join(changed)} differ); give the same options, or another name or"
            " output folder."
        )
    return state
