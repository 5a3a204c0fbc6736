"""Checkpoints: all of a training's state in one file, which is whole even if the process is killed while writing it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from ..errors import AdainError
from ..files import write_file
from ..pickled import read_pickled

FORMAT = "adain-training-1"
ELSEWHERE = "another output folder (in ComfyUI: another name)"


def save_checkpoint(path: Path, recipe: dict, state: dict) -> None:
    """Write `state` (tensors and plain values) with its recipe; beside `path` first, and then renamed."""
    buffer = io.BytesIO()  # what torch raises for a full disk does not say so
    torch.save({"format": FORMAT, "recipe": recipe, **state}, buffer)
    write_file(path, buffer.getbuffer())


def load_checkpoint(path: Path, recipe: dict) -> dict:
    """The state that was saved. Raises AdainError for a file that is not a checkpoint or is one of another recipe, OSError
    for one that cannot be opened, which may still be whole.
    """
    state = read_pickled(path, "remove it to begin anew")
    found = state.get("recipe") if isinstance(state, dict) and state.get("format") == FORMAT else None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise AdainError(f"{path} is not a checkpoint of a training; remove it to begin anew.")
    # settings that are newer than the checkpoint are not compared
    changed = sorted(key for key in found if _differ(recipe.get(key), found[key]))
    if changed and set(changed) <= {"contents", "styles"}:
        raise AdainError(f"{path} is of other pictures ({' and '.join(changed)}); give the same ones, or {ELSEWHERE}.")
    if changed:
        raise AdainError(
            f"{path} is of another recipe ({', '.join(changed)} differ); give the same options, or {ELSEWHERE}."
        )
    return state


def _differ(setting: Any, found: Any) -> bool:
    try:
        return bool(setting != found)
    except (TypeError, ValueError, RuntimeError):  # such as a tensor
        return True
