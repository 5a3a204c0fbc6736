"""`adain stylize` of a clip: a video, or a folder of frames in the order of their names."""

from __future__ import annotations

import time

import torch

from ..affine import coverage, interpolate_styles, mask_size
from ..clip import ClipStylizer, PictureSequence
from ..errors import AdainError
from ..files import make_folder, natural_order
from ..images import count_frames
from ..statistics import check_half_life
from ..style import Style
from ..video import SAVE_FORMATS, VIDEO_EXTENSIONS, Video, save_format
from .options import StylizeOptions, progress_bar
from .results import Failures, check_target, print_animations, print_written, result_pairs
from .style_sources import StyleSources, encode_source, read_source

CLIP_STATISTICS = ("batch", "running")  # with these a folder of pictures is a clip
ANIMATIONS = (".gif", ".png", ".apng")  # those that PyAV reads


def is_clip(options: StylizeOptions) -> bool:
    """Whether the content is a video, or the options treat it as a clip."""
    return _is_video(options) or options.content_statistics in CLIP_STATISTICS


def has_running_statistics(options: StylizeOptions) -> bool:
    """Whether the content's statistics are smoothed along a clip."""
    return is_clip(options) and options.content_statistics in (None, "running")


def _is_video(options: StylizeOptions) -> bool:
    """Whether the content is a video, or an animation whose result is to be one."""
    kind, result = options.content.suffix.lower(), options.output.suffix.lower()
    return kind in VIDEO_EXTENSIONS or (kind in ANIMATIONS and result in SAVE_FORMATS and count_frames(options.content) > 1)


def stylize_clip(options: StylizeOptions) -> int:
    """Write the result, or go on with an interrupted one. Returns the exit status."""
    start = time.monotonic()
    if options.each:
        raise AdainError("--each is for pictures; stylise a clip in one style after the other.")
    if options.match_colors:
        raise AdainError("--match-colors does not work for a clip, whose frames share a style; use --keep-colors instead.")
    check_half_life(options.half_life)
    content, output = options.content, options.output
    if content.is_dir():
        pairs = result_pairs([content], output, options.sources)
        pairs.sort(key=lambda pair: natural_order(pair[0].relative_to(content)))
        paths, targets = zip(*pairs, strict=True)
        clip = PictureSequence(paths)
    elif _is_video(options):
        name = content.with_suffix(content.suffix if content.suffix.lower() in SAVE_FORMATS else ".mp4").name
        target = output / name if output.is_dir() else output
        clip = Video(content)
        save_format(target)
        check_target(content, target, options.sources)
    else:
        raise AdainError(f"{content} is one picture; --content-statistics batch and running are for a folder or a video.")
    sources = StyleSources.read(options)
    last = read_source(options.style_to, options.style_size) if options.style_to else None
    styles = [*sources.style_files, *([last] if isinstance(last, Style) else [])]
    print_animations([*(clip.paths if isinstance(clip, PictureSequence) else ()), *options.style_pictures])
    encoder, decoder = options.load_networks(styles)
    style = sources.mix(encoder)
    if last is not None:
        end = encode_source(last, encoder, options.style_size)
        if any(component.mask is not None for component in style.components):  # what none covers stays the content to the end
            end = end.masked(coverage(style.components, mask_size(style.components)))
        style = interpolate_styles(style, end, torch.tensor([0.0, 1.0]))
    stylizer = ClipStylizer(
        encoder, decoder, style, options.alpha, options.content_statistics or "running", options.half_life,
        options.tile, options.keep_colors, options.size, options.texture_or(0.0), options.working_size, options.detail,
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
    status = failures.printed()
    what = f"{len(clip)} frames to {output}" if isinstance(clip, PictureSequence) else str(target)
    print_written(what, start)
    return status
