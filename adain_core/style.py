"""Styles: the channel statistics of pictures, weighted, mixed and masked, and their files."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from .errors import AdainError
from .files import parse_json, read_safetensors, text_of, write_file
from .images import check_mask, check_pictures, resize, resize_mask, thumbnail_jpeg, without_hidden
from .networks import Encoder
from .networks.base import STORED_DTYPES
from .statistics import ChannelStatistics, level_tensors, levels_of
from .tiling import measure_in_memory

FORMAT = "adain-style-2"
ONE_ENCODER = "adain-style-1"  # the format before, which is read
MASK_SIDE = 512  # masks are stored at most this large
# In a file: styles for as many pictures, such as the frames of a short clip, parts of a mix, and encoders. A file of some
# kilobytes could ask for any number of pictures otherwise.
MOST_STYLES, MOST_COMPONENTS, MOST_ENCODERS = 64, 256, 8
JPEG, LARGEST_JPEG = "/9j/", 1 << 16  # how one begins in base64; its characters, of which usual thumbnails have 6,000
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
class Variant:
    """What another encoder measured of a style: the statistics of its levels, for each of the style's components."""

    encoder_fingerprint: str
    encoder_name: str
    levels: tuple[tuple[ChannelStatistics, ...], ...]


@dataclass(frozen=True)
class Style:
    """One or more style pictures as statistics for AdaIN, made by `encode_style`, `mix_styles` or `load_style`.

    `encoder_fingerprint` and `encoder_name` identify its encoder, and `variants` are for others: `for_encoder` picks.
    `thumbnail` is a small JPEG, and so is `example`, a photograph in this style; `source` and `licence` belong to the picture;
    `note` is what else is to be known of the statistics. A style with a batch above 1 has one style for each content.
    """

    components: tuple[Component, ...]
    encoder_fingerprint: str
    encoder_name: str
    name: str = ""
    thumbnail: bytes = b""
    source: str = ""
    licence: str = ""
    example: bytes = b""
    note: str = ""
    variants: tuple[Variant, ...] = ()

    @property
    def batch(self) -> int:
        return max(component.batch for component in self.components)

    @property
    def encoders(self) -> dict[str, str]:
        """The names of the encoders that the style is for, by their fingerprints."""
        others = {variant.encoder_fingerprint: variant.encoder_name for variant in self.variants}
        return {self.encoder_fingerprint: self.encoder_name} | others

    def for_encoder(self, encoder: Encoder, what: str = "the content's features") -> Style:
        """The style for this encoder alone. Raises AdainError if it has none; the error calls what the encoder makes `what`."""
        if encoder.fingerprint not in self.encoders:
            raise _not_by(self, encoder.name, what)
        return self._by(encoder.fingerprint)

    def _by(self, fingerprint: str) -> Style:
        """The style for one of its `encoders` alone."""
        components, name = self.components, self.encoder_name
        if fingerprint != self.encoder_fingerprint:
            variant = next(variant for variant in self.variants if variant.encoder_fingerprint == fingerprint)
            parts = zip(components, variant.levels, strict=True)
            components = tuple(dataclasses.replace(component, levels=levels) for component, levels in parts)
            name = variant.encoder_name
        return dataclasses.replace(self, components=components, encoder_fingerprint=fingerprint, encoder_name=name, variants=())

    def masked(self, mask: Tensor) -> Style:
        """The style confined to `mask`, `(H, W)` or `(B, 1, H, W)` in [0, 1], of any size; masks of masks multiply.

        Raises AdainError for a mask of another shape or range, or one that is zero everywhere, and if there are several masks
        and several styles, but not the same number.
        """
        mask = check_mask(mask).to(self.components[0].weight.device)
        if 1 not in (len(mask), self.batch) and len(mask) != self.batch:
            raise AdainError(f"{len(mask)} masks do not fit {self.batch} styles; give one, or one for each.")

        def confine(component: Component) -> Component:
            if component.mask is None:
                return dataclasses.replace(component, mask=mask)
            size = [max(sides) for sides in zip(component.mask.shape[2:], mask.shape[2:], strict=True)]
            return dataclasses.replace(component, mask=resize_mask(component.mask, size) * resize_mask(mask, size))

        return dataclasses.replace(self, components=tuple(map(confine, self.components)))

    def to(self, device: str | torch.device) -> Style:
        """The style with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, indices: Tensor) -> Style:
        """The styles of the batch with these indices, in this order."""
        return self._map(lambda tensor: tensor if len(tensor) == 1 else tensor[indices])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Style:
        def measured(levels: tuple[ChannelStatistics, ...]) -> tuple[ChannelStatistics, ...]:
            return tuple(level.map(function) for level in levels)

        def change(part: Component) -> Component:
            return Component(function(part.weight), measured(part.levels), None if part.mask is None else function(part.mask))

        variants = tuple(dataclasses.replace(v, levels=tuple(map(measured, v.levels))) for v in self.variants)
        return dataclasses.replace(self, components=tuple(map(change, self.components)), variants=variants)

    def save(self, path: str | Path) -> None:
        """Write a style file (safetensors): a temporary file beside `path`, then renamed.

        Raises AdainError for more than `MOST_STYLES` styles, `MOST_COMPONENTS` components or `MOST_ENCODERS` encoders.
        """
        path = Path(path)
        if len(self.encoders) > MOST_ENCODERS:
            raise AdainError(f"a style file is for at most {MOST_ENCODERS} encoders, not {len(self.encoders)}; leave some out.")
        if self.batch > MOST_STYLES or len(self.components) > MOST_COMPONENTS:
            raise AdainError(
                f"a style file holds at most {MOST_STYLES} styles of {MOST_COMPONENTS} parts, not {self.batch} of"
                f" {len(self.components)}; save the styles that it is made of."
            )
        metadata = {
            "format": FORMAT,
            "role": "style",
            "encoders": json.dumps([{"fingerprint": _unicode(f), "name": _unicode(n)} for f, n in self.encoders.items()]),
            "name": self.name or path.stem,
            "thumbnail": base64.b64encode(self.thumbnail).decode(),
            "example": base64.b64encode(self.example).decode(),
            "source": self.source,
            "licence": self.licence,
            "note": self.note,
        }
        metadata = {key: _unicode(text) for key, text in metadata.items()}
        write_file(path, save(self.tensors(), metadata))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of a style file by name; masks have 8 bits."""
        tensors = {}
        measured = {self.encoder_fingerprint: [component.levels for component in self.components]}
        measured |= {variant.encoder_fingerprint: variant.levels for variant in self.variants}
        for k, component in enumerate(self.components):
            tensors[f"component.{k}.weight"] = component.weight
            for fingerprint, levels in measured.items():
                tensors |= level_tensors(levels[k], f"component.{k}.{_unicode(fingerprint)}.")
            if component.mask is not None:
                mask = component.mask
                size = [min(side, MASK_SIDE) for side in mask.shape[2:]]
                tensors[f"component.{k}.mask"] = (resize_mask(mask, size) * 255).round().to(torch.uint8)
        # clones, since a style may be mixed with itself, and safetensors refuses tensors that share memory
        return {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}


def load_style(path: str | Path) -> Style:
    """Read a style file. Raises FileNotFoundError, or AdainError if it is damaged or not a style file."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") not in (FORMAT, ONE_ENCODER):
        raise AdainError(f"{path} is not a style file of this format ({FORMAT}); make one with `adain style make`.")
    try:
        one = metadata["format"] == ONE_ENCODER
        parts, encoders = _parts_of(tensors), _encoders_of(metadata)
        styles = []
        for fingerprint, made_by in encoders.items():
            components = []
            for k, (weight, mask) in enumerate(parts):
                prefix = f"component.{k}." if one else f"component.{k}.{fingerprint}."
                components.append(Component(weight, tuple(level.map(_numbers) for level in levels_of(tensors, prefix)), mask))
            _check_components(components)
            styles.append(Style(tuple(components), *made_by))
        style = join_encoders(styles)
        thumbnail, example = (base64.b64decode(jpeg_of(metadata, key), validate=True) for key in ("thumbnail", "example"))
    except (KeyError, ValueError) as error:
        raise AdainError(f"{path} is damaged ({error}); make the style again.") from None
    texts = {key: text_of(metadata, key) for key in ("name", "source", "licence", "note")}
    return dataclasses.replace(style, thumbnail=thumbnail, example=example, **texts)


def encoders_of(metadata: Mapping[str, str]) -> dict[str, str]:
    """The names of the encoders that a style file is for, by their fingerprints, from its metadata.

    Raises AdainError if the metadata does not say it.
    """
    return dict(_encoders_of(metadata).values())


def jpeg_of(metadata: Mapping[str, str], key: str) -> str:
    """A JPEG in a style file's metadata, in base64; "" if it is none, or far larger than a thumbnail."""
    jpeg = metadata.get(key, "")
    return jpeg if jpeg.startswith(JPEG) and len(jpeg) <= LARGEST_JPEG else ""


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
    pictures = resize(images, size)
    measured = measure_in_memory(encoder, without_hidden(pictures)[:, :3], mask)
    levels = [level.pool() if combine == "pool" else level for level in measured]
    weight = torch.ones(levels[0].batch, dtype=torch.float32)
    thumbnail = thumbnail_jpeg(min(images, pictures, key=Tensor.numel)[:1])  # a full picture may take longer than its encoding
    return Style((Component(weight, tuple(levels)),), encoder.fingerprint, encoder.name, thumbnail=thumbnail)


def pool_styles(styles: Sequence[Style]) -> Style:
    """One style from the pixels of several styles, which are of one encoder and neither mixed nor masked.

    Where `encode_style` pools pictures of one size, this pools pictures of any size.
    """
    parts = zip(*(style.components[0].levels for style in styles), strict=True)
    levels = tuple(ChannelStatistics.concatenate(level).pool() for level in parts)
    component = Component(styles[0].components[0].weight, levels)
    return dataclasses.replace(styles[0], components=(component,))


def join_encoders(styles: Sequence[Style]) -> Style:
    """One style from the same style by several encoders, with the name, the pictures and the texts of the first.

    Raises AdainError for two styles of one encoder, and for styles that are not made of as many parts.
    """
    first, *others = styles
    if len({style.encoder_fingerprint for style in styles}) < len(styles):
        raise AdainError(f"two of the encoders are the same network ({first.encoder_name!r} or another); give each once.")
    if any(len(style.components) != len(first.components) for style in others):
        raise AdainError("the styles are not made of as many parts; give the same style by several encoders.")
    variants = (
        Variant(style.encoder_fingerprint, style.encoder_name, tuple(component.levels for component in style.components))
        for style in others
    )
    return dataclasses.replace(first, variants=tuple(variants))


def mix_styles(styles: Sequence[Style], weights: Sequence[float | Tensor] | None = None) -> Style:
    """The convex sum of styles; weights (default equal) are normalised to a sum of 1.

    A weight may be `(N,)`: then the mix has N styles, one for each content. The mix is for the encoders that all the styles are
    for. Raises AdainError for negative or all-zero weights, for a wrong number of them, and for styles of different encoders or
    batches.
    """
    if not styles:
        raise AdainError("there is no style to mix; give at least one.")
    weights = [1.0] * len(styles) if weights is None else weights
    device = styles[0].components[0].weight.device
    shares = mix_shares(weights, [style.batch for style in styles], device)
    common = styles[0].encoders
    for style in styles[1:]:
        left = {fingerprint: name for fingerprint, name in common.items() if fingerprint in style.encoders}
        if not left:
            raise _not_by(style, next(iter(common.values())), "the styles before it")
        common = left

    def mixed(parts: Sequence[Style]) -> Style:
        components = tuple(
            dataclasses.replace(component, weight=component.weight.to(device) * share)
            for style, share in zip(parts, shares, strict=True)
            for component in style.to(device).components
        )
        return dataclasses.replace(parts[0], components=components)

    mix = join_encoders([mixed([style._by(fingerprint) for style in styles]) for fingerprint in common])
    name = " + ".join(style.name for style in styles if style.name)
    return dataclasses.replace(mix, name=name, source="", licence="", example=b"", note="")


def mix_shares(
    weights: Sequence[float | Tensor], batches: Sequence[int], device: str | torch.device = "cpu"
) -> list[Tensor]:
    """The weights `(1,)` or `(N,)` of a mix of styles of these batches, normalised to a sum of 1. Raises as `mix_styles`."""
    if len(weights) != len(batches):
        raise AdainError(f"{len(weights)} weights do not fit {len(batches)} styles; give one weight for each.")
    tensors = [torch.as_tensor(weight, dtype=torch.float32, device=device).reshape(-1) for weight in weights]
    counts = sorted({*map(len, tensors), *batches} - {1})
    if len(counts) > 1:
        raise AdainError(
            f"styles or weights for {counts[0]} and {counts[1]} pictures cannot be mixed; give equal numbers, or 1."
        )
    table = torch.stack(torch.broadcast_tensors(*tensors))
    total = table.sum(0)
    if (table < 0).any() or not ((total > 0) & torch.isfinite(total)).all():
        raise AdainError("the weights of a mix must be finite, at least 0 and not all 0.")
    return list(table / total)


def check_levels(style: Style, encoder: Encoder) -> None:
    """Raise AdainError unless `style` has statistics for each channel of the encoder's levels."""
    channels = [level.channels for level in encoder.levels]
    if any([level.mean.shape[1] for level in component.levels] != channels for component in style.components):
        raise AdainError(f"the style does not fit the levels of {encoder.name!r}; encode the style again.")


def _not_by(style: Style, name: str, what: str) -> AdainError:
    """The error for a style that was not made by the encoder `name`, which made `what`."""
    made_by = " and ".join(map(repr, style.encoders.values()))
    return AdainError(
        f"the style was made by the encoder{'s' if style.variants else ''} {made_by}, {what} by {name!r};"
        f" encode the style again with {name!r}."
    )


def _unicode(text: str) -> str:
    """The text as a file can have it: on Linux a file name, and so the name of a style, may be any bytes."""
    return text.encode(errors="replace").decode()


def _encoders_of(metadata: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Fingerprint and name, to be shown, of each encoder in a style file's metadata, by the fingerprint in the file."""
    if metadata.get("format") == ONE_ENCODER:
        described = [{"fingerprint": metadata.get("encoder_fingerprint", ""), "name": metadata.get("encoder_name", "")}]
    else:
        described = parse_json(metadata.get("encoders", ""))
    if not isinstance(described, list) or not 0 < len(described) <= MOST_ENCODERS:
        raise AdainError(f"it does not say for which encoders it is, of which there are at most {MOST_ENCODERS}")
    texts = [entry.get(key) if isinstance(entry, dict) else None for entry in described for key in ("fingerprint", "name")]
    if not all(isinstance(text, str) for text in texts):
        raise AdainError("its description of an encoder is damaged")
    return {entry["fingerprint"]: (text_of(entry, "fingerprint"), text_of(entry, "name")) for entry in described}


def _parts_of(tensors: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    """Weight and mask of each component in a style file's tensors."""
    parts = []
    while f"component.{len(parts)}.weight" in tensors and len(parts) <= MOST_COMPONENTS:
        prefix = f"component.{len(parts)}"
        mask = tensors.get(f"{prefix}.mask")
        if mask is not None and (mask.dtype != torch.uint8 or 0 in mask.shape):
            raise AdainError("its mask does not hold 8-bit numbers")
        if mask is not None and (mask.ndim != 4 or mask.shape[1] != 1 or max(mask.shape[2:]) > MASK_SIDE):
            raise AdainError("its mask has the wrong shape")
        parts.append((_numbers(tensors[f"{prefix}.weight"]), None if mask is None else mask.float() / 255))
    return parts


def _numbers(tensor: Tensor) -> Tensor:
    """A tensor of a style file in float32."""
    if tensor.dtype not in STORED_DTYPES:
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
