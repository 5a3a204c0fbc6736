"""`adain stylize` of a clip: a video, or a folder of frames in the order of their names."""

from __future__ import annotations

import torch

from ..clip import ClipStylizer, PictureSequence
from ..errors import AdainError
from ..files import make_folder, natural_order
from ..statistics import check_half_life
from ..style import mix_styles
from ..video import SAVE_FORMATS, VIDEO_EXTENSIONS, Video, save_format
from .options import StylizeOptions, progress_bar
from .results import Failures, check_target, result_pairs
from .style_sources import StyleSources, encode_source, read_source

CLIP_STATISTICS = ("batch", "running")  # with these a folder of pictures is a clip


def is_clip(options: StylizeOptions) -> bool:
    """Whether the content is a video, or the options treat it as a clip."""
    return options.content.suffix.lower() in VIDEO_EXTENSIONS or options.content_statistics in CLIP_STATISTICS


def stylize_clip(options: StylizeOptions) -> int:
    """Write the result, or go on with an interrupted one. Returns the exit status."""
    if options.match_colors:
        raise AdainError("--match-colors does not work for a clip, whose frames share a style; use --keep-colors instead.")
    check_half_life(options.half_life)
    content, output = options.content, options.output
    if content.is_dir():
        pairs = result_pairs(content, output, options.sources)
        pairs.sort(key=lambda pair: natural_order(pair[0].relative_to(content)))
        paths, targets = zip(*pairs, strict=True)
        clip = PictureSequence(paths)
    elif content.suffix.lower() in VIDEO_EXTENSIONS:
        name = content.with_suffix(content.suffix if content.suffix.lower() in SAVE_FORMATS else ".mp4").name
        target = output / name if output.is_dir() else output
        clip = Video(content)
        save_format(target)
        check_target(content, target, options.sources)
    else:
        raise AdainError(f"{content} is one picture; --content-statistics batch and running are for a folder or a video.")
    sources = StyleSources.read(options)
    last = read_source(options.style_to) if options.style_to else None
    encoder, decoder = options.load_networks()
    style = sources.mix(encoder)
    if last is not None:
        ends = [style, encode_source(last, encoder, options.style_size)]
        style = mix_styles(ends, [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])])
    stylizer = ClipStylizer(
        encoder, decoder, style, options.alpha, options.content_statistics or "running", options.half_life,
        options.tile, options.keep_colors, options.size, options.texture_or(0.0),
    )  # fmt: skip
    with progress_bar("frame"):
        if isinstance(clip, PictureSequence):
            make_folder(output)
            stylizer.pictures(clip, targets, output / ".clip.safetensors")
        else:
            stylizer.video(clip, target)
    failures = Failures(len(clip))
    for path, error in clip.failures.items() if isinstance(clip, PictureSequence) else ():
        with failures.noted(path):
            raise error
    return failures.printed()
