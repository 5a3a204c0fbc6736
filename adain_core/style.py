"""Styles: the channel statistics of pictures, weighted, mixed and masked, and their files."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .errors import AdainError
from .files import read_safetensors, replacing, text_of
from .images import check_mask, check_pictures, resize, resize_mask, thumbnail_jpeg
from .networks import Encoder
from .networks.base import DTYPES
from .statistics import ChannelStatistics, level_tensors, levels_of
from .tiling import measure_in_memory

FORMAT = "adain-style-1"
MASK_SIDE = 512  # masks are stored at most this large
# In a file: styles for as many pictures, such as the frames of a short clip, and parts of a mix. A file of some kilobytes could
# ask for any number of pictures otherwise.
MOST_STYLES, MOST_COMPONENTS = 64, 256
JPEG, LARGEST_THUMBNAIL = "/9j/", 1 << 16  # how one begins in base64; characters of a thumbnail, of which usual ones have 6,000
LARGEST = 1e6  # mean, deviation or weight; the activations of working networks are far smaller


@dataclass(frozen=True)
class Component:
    """One style of a mix: its `weight` `(B,)`, the statistics of each level, and its `mask` `(B or 1, 1, H, W)`, or None."""

    weight: Tensor
    levels: tuple[ChannelStatistics, ...]
    mask: Tensor | None = None

    @property
    def batch(self) -> int:
        return max(self.unmasked_batch, 1 if self.mask is None else len(self.mask))

    @property
    def unmasked_batch(self) -> int:
        """The batch but for its masks."""
        return max(len(self.weight), self.levels[0].batch)


@dataclass(frozen=True)
class Style:
    """One or more style pictures as statistics for AdaIN, made by `encode_style`, `mix_styles` or `load_style`.

    `encoder_fingerprint` and `encoder_name` identify its encoder; `thumbnail` is a small JPEG; `source` and `licence`
    belong to the picture. A style with a batch above 1 has one style for each content.
    """

    components: tuple[Component, ...]
    encoder_fingerprint: str
    encoder_name: str
    name: str = ""
    thumbnail: bytes = b""
    source: str = ""
    licence: str = ""

    @property
    def batch(self) -> int:
        return max(component.batch for component in self.components)

    def masked(self, mask: Tensor) -> Style:
        """The style confined to `mask`, `(H, W)` or `(B, 1, H, W)` in [0, 1], of any size; masks of masks multiply.

        Raises AdainError for a mask of another shape or range, or one that is zero everywhere, and if there are several masks
        and several styles, but not the same number.
        """
        mask = check_mask(mask)
        if 1 not in (len(mask), self.batch) and len(mask) != self.batch:
            raise AdainError(f"{len(mask)} masks do not fit {self.batch} styles; give one, or one for each.")

        def confine(component: Component) -> Component:
            if component.mask is None:
                return dataclasses.replace(component, mask=mask)
            return dataclasses.replace(component, mask=component.mask * resize_mask(mask, component.mask.shape[2:]))

        return dataclasses.replace(self, components=tuple(map(confine, self.components)))

    def to(self, device: str | torch.device) -> Style:
        """The style with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, indices: Tensor) -> Style:
        """The styles of the batch with these indices, in this order."""
        return self._map(lambda tensor: tensor if len(tensor) == 1 else tensor[indices])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Style:
        def change(part: Component) -> Component:
            levels = tuple(level.map(function) for level in part.levels)
            return Component(function(part.weight), levels, None if part.mask is None else function(part.mask))

        return dataclasses.replace(self, components=tuple(map(change, self.components)))

    def save(self, path: str | Path) -> None:
        """Write a style file (safetensors): a temporary file beside `path`, then renamed.

        Raises AdainError for more than `MOST_STYLES` styles or `MOST_COMPONENTS` components.
        """
        path = Path(path)
        if self.batch > MOST_STYLES or len(self.components) > MOST_COMPONENTS:
            raise AdainError(
                f"a style file holds at most {MOST_STYLES} styles of {MOST_COMPONENTS} parts, not {self.batch} of"
                f" {len(self.components)}; save the styles that it is made of."
            )
        metadata = {
            "format": FORMAT,
            "role": "style",
            "encoder_fingerprint": self.encoder_fingerprint,
            "encoder_name": self.encoder_name,
            "name": self.name or path.stem,
            "thumbnail": base64.b64encode(self.thumbnail).decode(),
            "source": self.source,
            "licence": self.licence,
        }
        # on Linux a file name, and so the name of a style, may be any bytes
        metadata = {key: text.encode(errors="replace").decode() for key, text in metadata.items()}
        with replacing(path) as temporary:
            temporary.write_bytes(save(self.tensors(), metadata))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a style file by name; masks have 8 bits."""
        tensors = {}
        for k, component in enumerate(self.components):
            tensors[f"component.{k}.weight"] = component.weight
            tensors |= level_tensors(component.levels, f"component.{k}.")
            if component.mask is not None:
                mask = component.mask
                size = [min(side, MASK_SIDE) for side in mask.shape[2:]]
                tensors[f"component.{k}.mask"] = (resize_mask(mask, size) * 255).round().to(torch.uint8)
        # clones, since a style may be mixed with itself, and safetensors refuses tensors that share memory
        return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def load_style(path: str | Path) -> Style:
    """Read a style file. Raises FileNotFoundError, or AdainError if it is damaged or not a style file."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise AdainError(f"{path} is not a style file of this format ({FORMAT}); make one with `adain style make`.")
    components = []
    try:
        while f"component.{len(components)}.weight" in tensors and len(components) <= MOST_COMPONENTS:
            prefix = f"component.{len(components)}"
            levels = tuple(level.map(_numbers) for level in levels_of(tensors, f"{prefix}."))
            mask = tensors.get(f"{prefix}.mask")
            if mask is not None and (mask.dtype != torch.uint8 or 0 in mask.shape):
                raise AdainError("its mask does not hold 8-bit numbers")
            if mask is not None and (mask.ndim != 4 or mask.shape[1] != 1 or max(mask.shape[2:]) > MASK_SIDE):
                raise AdainError("its mask has the wrong shape")
            mask = None if mask is None else mask.float() / 255
            components.append(Component(_numbers(tensors[f"{prefix}.weight"]), levels, mask))
        _check_components(components)
        thumbnail = base64.b64decode(thumbnail_of(metadata), validate=True)
    except (KeyError, ValueError) as error:
        raise AdainError(f"{path} is damaged ({error}); make the style again.") from None
    texts = {key: text_of(metadata, key) for key in ("encoder_fingerprint", "encoder_name", "name", "source", "licence")}
    return Style(tuple(components), thumbnail=thumbnail, **texts)


def thumbnail_of(metadata: Mapping[str, str]) -> str:
    """The thumbnail in a style file's metadata, in base64; "" if it is not a JPEG, or far larger than one of 96 pixels."""
    thumbnail = metadata.get("thumbnail", "")
    return thumbnail if thumbnail.startswith(JPEG) and len(thumbnail) <= LARGEST_THUMBNAIL else ""


def encode_style(encoder: Encoder, images: Tensor, size: int = 512, combine: str = "pool", mask: Tensor | None = None) -> Style:
    """The style of pictures `images` `(B, 3, H, W)`, or `(B, 4, H, W)` without their transparent parts, in [0, 1].

    `size`: the smallest side in pixels that they are resized to; 0 keeps their size. A larger one makes the style weaker, and
    its strokes hardly broader: for these see `working_size` of `stylize`.
    `combine`: "pool", one style from all pictures' pixels, or "each", one per picture. `mask`, `(H, W)` or
    `(B, 1, H, W)` in [0, 1]: the part of the pictures that counts. Raises AdainError for other values.
    """
    if combine not in ("pool", "each"):
        raise AdainError(f'combine is {combine!r}; choose "pool" (one style) or "each" (one per picture).')
    images = check_pictures(images, "style")
    if mask is not None:
        mask = check_mask(mask)
        if len(mask) not in (1, len(images)):
            raise AdainError(f"{len(mask)} masks do not fit {len(images)} style pictures; give one, or one for each.")
    if images.shape[1] == 4:
        opaque = images[:, 3:].float().clamp(0, 1).cpu()
        mask = opaque if mask is None else opaque * resize_mask(mask.cpu(), opaque.shape[2:])
    if mask is not None:
        visible = mask.flatten(1).any(1)
        if not (visible.any() if combine == "pool" else visible.all()):
            raise AdainError("a style picture is transparent or masked everywhere; leave it out, or paint its mask.")
    pictures = resize(images[:, :3], size)
    measured = measure_in_memory(encoder, pictures, [] if mask is None else [mask.cpu()])
    levels = [level[-1].pool() if combine == "pool" else level[-1] for level in measured]
    weight = torch.ones(levels[0].batch, dtype=torch.float32)
    return Style((Component(weight, tuple(levels)),), encoder.fingerprint, encoder.name, thumbnail=thumbnail_jpeg(images[:1]))


def pool_styles(styles: Sequence[Style]) -> Style:
    """One style from the pixels of several styles, which are of one encoder and neither mixed nor masked.

    Where `encode_style` pools pictures of one size, this pools pictures of any size.
    """
    parts = zip(*(style.components[0].levels for style in styles), strict=True)
    levels = tuple(ChannelStatistics.concatenate(level).pool() for level in parts)
    component = Component(styles[0].components[0].weight, levels)
    return dataclasses.replace(styles[0], components=(component,))


def mix_styles(styles: Sequence[Style], weights: Sequence[float | Tensor] | None = None) -> Style:
    """The convex sum of styles; weights (default equal) are normalised to a sum of 1.

    A weight may be `(N,)`: then the mix has N styles, one for each content. Raises AdainError for negative or all-zero
    weights, for a wrong number of them, and for styles of different encoders or batches.
    """
    if not styles:
        raise AdainError("there is no style to mix; give at least one.")
    weights = [1.0] * len(styles) if weights is None else weights
    if len(weights) != len(styles):
        raise AdainError(f"{len(weights)} weights do not fit {len(styles)} styles; give one weight for each.")
    for style in styles[1:]:
        check_same_encoder(style, styles[0].encoder_fingerprint, styles[0].encoder_name, "the first style")
    device = styles[0].components[0].weight.device
    weights = [torch.as_tensor(weight, dtype=torch.float32, device=device).reshape(-1) for weight in weights]
    batches = sorted({*map(len, weights), *(style.batch for style in styles)} - {1})
    if len(batches) > 1:
        raise AdainError(
            f"styles or weights for {batches[0]} and {batches[1]} pictures cannot be mixed; give equal numbers, or 1."
        )
    table = torch.stack(torch.broadcast_tensors(*weights))
    total = table.sum(0)
    if (table < 0).any() or not ((total > 0) & torch.isfinite(total)).all():
        raise AdainError("the weights of a mix must be finite, at least 0 and not all 0.")
    table = table / total
    components = tuple(
        dataclasses.replace(component, weight=component.weight.to(device) * share)
        for style, share in zip(styles, table, strict=True)
        for component in style.to(device).components
    )
    return dataclasses.replace(
        styles[0], components=components, name=" + ".join(s.name for s in styles if s.name), source="", licence=""
    )


def check_levels(style: Style, encoder: Encoder) -> None:
    """Raise AdainError unless `style` has statistics for each channel of the encoder's levels."""
    channels = [level.channels for level in encoder.levels]
    if any([level.mean.shape[1] for level in component.levels] != channels for component in style.components):
        raise AdainError(f"the style does not fit the levels of {encoder.name!r}; encode the style again.")


def check_same_encoder(style: Style, fingerprint: str, name: str, what: str) -> None:
    """Raise AdainError unless `style` was made by the encoder with this fingerprint and name; the error calls it `what`."""
    if style.encoder_fingerprint != fingerprint:
        raise AdainError(
            f"the style was made by the encoder {style.encoder_name!r}, {what} by {name!r};"
            f" encode the style again with {name!r}."
        )


def _numbers(tensor: Tensor) -> Tensor:
    """A tensor of a style file in float32."""
    if tensor.dtype not in DTYPES:
        raise AdainError("its statistics are not floating-point numbers")
    return tensor.float()


def _check_components(components: list[Component]) -> None:
    if not components:
        raise AdainError("it holds no styles")
    if len(components) > MOST_COMPONENTS:
        raise AdainError(f"it has more than {MOST_COMPONENTS} parts")
    shapes = [tuple(level.mean.shape[1:]) for level in components[0].levels]
    for component in components:
        tensors = [component.weight] + [t for level in component.levels for t in (level.count, level.mean, level.m2)]
        if not all(torch.isfinite(t).all() and t.numel() for t in tensors):
            raise AdainError("its statistics are not finite numbers")
        if component.weight.ndim != 1 or not component.levels or any(t.ndim != 2 for t in tensors[1:]):
            raise AdainError("its tensors have the wrong shapes")
        if [tuple(level.mean.shape[1:]) for level in component.levels] != shapes:
            raise AdainError("its components have different levels")
        for level in component.levels:
            if level.m2.shape != level.mean.shape or level.count.shape != (level.batch, 1):
                raise AdainError("its tensors have the wrong shapes")
            if (level.m2 < 0).any() or (level.count <= 0).any() or max(level.mean.abs().max(), level.std.max()) > LARGEST:
                raise AdainError("its statistics are impossible")
        if (component.weight < 0).any() or (component.weight > LARGEST).any():
            raise AdainError("its weights are negative or too large")
    batches = {count for c in components for count in (len(c.weight), c.batch, *(level.batch for level in c.levels))}
    if len(batches - {1}) > 1:
        raise AdainError("its batches do not agree")
    if max(batches) > MOST_STYLES:
        raise AdainError(f"it has {max(batches)} styles, and a file holds at most {MOST_STYLES}")
