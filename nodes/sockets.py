"""What travels between nodes: socket types, and the layout of ComfyUI's pictures and masks."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core.files import printable
from ..adain_core.images import check_pictures
from ..adain_core.stylize import Features
from . import host

EncoderSocket = io.Custom("ADAIN_ENCODER")
DecoderSocket = io.Custom("ADAIN_DECODER")
StyleSocket = io.Custom("ADAIN_STYLE")
FeaturesSocket = io.Custom("ADAIN_FEATURES")


@dataclass(frozen=True)
class ManagedFeatures:
    """Features with their encoder, which those that are deferred need when they are decoded."""

    features: Features
    encoder: ModelPatcher


class Node(io.ComfyNode):
    """Base of the nodes: errors leave them as built-in ones, since the host shows an error's type with its module's path."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        execute = getattr(vars(cls).get("execute"), "__func__", None)
        if execute is None or hasattr(execute, "__wrapped__"):  # the host makes locked copies of a node for each call
            return

        @functools.wraps(execute)
        def guarded(cls: type, *arguments: Any, **inputs: Any) -> io.NodeOutput:
            try:
                return execute(cls, *arguments, **inputs)
            except (OSError, ValueError) as error:  # our own, and those of libraries, such as Pillow's
                kind = next(base for base in type(error).__mro__ if base.__module__ == "builtins")
                if kind is type(error):
                    raise
                raise kind(printable(str(error))).with_traceback(error.__traceback__) from None

        cls.execute = classmethod(guarded)


class Written:
    """What the nodes of a kind wrote in this session, by the names that people gave it."""

    def __init__(self):
        self._paths: dict[str, tuple[Path, ...]] = {}
        self._removed: Counter[str] = Counter()

    def note(self, name: str, *paths: Path) -> None:
        self._paths[name] = paths

    def times_removed(self, name: str) -> int:
        """Differs where a person has removed what was written; the host would not run the node again."""
        if not all(path.exists() for path in self._paths.get(name, ())):
            del self._paths[name]
            self._removed[name] += 1
        return self._removed[name]


def schema(**fields: Any) -> io.Schema:
    """A node's schema, with the fields that this ComfyUI knows."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def to_pictures(image: Tensor, what: str) -> Tensor:
    """IMAGE `(B, H, W, C)` to float32 `(B, 3 or 4, H, W)`; grey is repeated, channels after alpha are left out.

    Raises ValueError, which names `what` the pictures are, for an empty IMAGE and for pixels that are not finite.
    """
    if not isinstance(image, Tensor) or image.ndim != 4 or 0 in image.shape:
        raise ValueError(f"{what} is empty or of an unknown kind; connect an IMAGE of at least one picture.")
    pictures = image[..., :4].movedim(-1, 1).float()
    return check_pictures(pictures if pictures.shape[1] >= 3 else pictures[:, :1].expand(-1, 3, -1, -1), what)


def to_image(pictures: Tensor) -> Tensor:
    """Pictures `(B, C, H, W)` to IMAGE, where ComfyUI keeps its results."""
    return pictures.movedim(1, -1).to(host.intermediate_device(), host.intermediate_dtype()).contiguous()


def repeat_last(batch: Tensor, count: int) -> Tensor:
    """A batch of several with its last one repeated up to `count`, as ComfyUI does with batches that do not match."""
    missing = count - len(batch)
    return batch if len(batch) == 1 or missing <= 0 else torch.cat([batch, batch[-1:].expand(missing, -1, -1, -1)])


def to_mask(mask: Tensor) -> Tensor:
    """MASK `(B, H, W)`, also `(H, W)`, `(B, 1, H, W)` or `(B, H, W, 1)`, to `(B, 1, H, W)` in [0, 1], which hosts' masks leave
    by rounding. Raises ValueError for an empty one and other shapes.
    """
    known = isinstance(mask, Tensor) and 2 <= mask.ndim <= 4 and 0 not in mask.shape
    if not known or (mask.ndim == 4 and 1 not in (mask.shape[1], mask.shape[3])):
        raise ValueError("the mask is empty or of an unknown kind; connect a MASK.")
    if mask.ndim == 4:
        mask = mask.squeeze(1 if mask.shape[1] == 1 else 3)
    return mask.reshape(-1, 1, *mask.shape[-2:]).to(torch.float32).clamp(0, 1)
