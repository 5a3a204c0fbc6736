"""The only door to ComfyUI's internals: devices, memory, progress, cancelling and folders."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.input_impl import VideoFromFile
from torch import Tensor, nn

from ..adain_core.catalog import BUNDLED
from ..adain_core.images import to_pil
from ..adain_core.tiling import COPIES, reporting
from ..adain_core.video import Video

NETWORKS, STYLES = "adain", "adain_styles"  # names of the model folders
EXTENSIONS = (".safetensors", ".pth", ".pt")
PREVIEW_SIDE = 512


@contextlib.contextmanager
def working(patchers: list[ModelPatcher], size: Sequence[int]) -> Iterator[None]:
    """The networks on their devices for pictures of `size` (H, W), and the work of adain_core inside shown on the node.

    Progress moves with every part of the work, finished pictures are shown, and between parts cancelling is honoured.
    """
    pixels, models = size[0] * size[1], [patcher.model for patcher in patchers]
    needed = max(pixels * model.values_per_pixel * COPIES * model.dtype.itemsize for model in models)
    model_management.load_models_gpu(patchers, memory_required=needed, force_full_load=True)
    with reporting(progress()):
        yield


def progress() -> Callable[..., None]:
    """Shows `(done, total, part=None)` on the running node, of `part` the last picture; raises once cancel was pressed."""
    bar = ProgressBar(1)

    def show(done: int, total: int, part: Tensor | None = None) -> None:
        model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total, None if part is None else ("JPEG", to_pil(part[-1]), PREVIEW_SIDE))

    return show


def managed(network: nn.Module) -> ModelPatcher:
    """The network in ComfyUI's care, which moves it between devices; `.model` is the network."""
    return ModelPatcher(
        network,
        load_device=model_management.get_torch_device(),
        offload_device=model_management.unet_offload_device(),
    )


def network_dtype(choice: str) -> str:
    """ "auto" is float16 on GPUs that are good at it and float32 elsewhere; other choices are kept."""
    if choice != "auto":
        return choice
    return "float16" if model_management.should_use_fp16(model_management.get_torch_device()) else "float32"


def intermediate_device() -> torch.device:
    """Where results lie between nodes."""
    return model_management.intermediate_device()


def intermediate_dtype() -> torch.dtype:
    """The number type of pictures between nodes; hosts before it was a choice have float32."""
    choose = getattr(model_management, "intermediate_dtype", None)
    return torch.float32 if choose is None else choose()


def register_folders() -> None:
    """Make the folders of networks and styles known to ComfyUI, after those of extra_model_paths.yaml."""
    for name, bundled in ((NETWORKS, BUNDLED), (STYLES, BUNDLED / "styles")):
        for folder in (Path(folder_paths.models_dir) / name, _output_folder(name), bundled):
            folder_paths.add_model_folder_path(name, str(folder))


def list_files(name: str) -> list[str]:
    """Files of networks or styles in a registered folder and below, as they are now."""
    return [file for file in folder_paths.get_filename_list(name) if file.lower().endswith(EXTENSIONS)]


def find_file(name: str, file: str) -> Path | None:
    """The path of a listed file; nothing outside of the registered folders is found."""
    path = folder_paths.get_full_path(name, file)
    return None if path is None else Path(path)


def new_style_path(style_name: str) -> Path:
    """Where a style of this name is saved: in `output/adain_styles`, a sub-folder of which the name may give.

    Raises ValueError for a name that is empty, leaves the folder or has characters that a file name cannot have.
    """
    folder = _output_folder(STYLES).resolve()
    name = style_name.strip().removesuffix(".safetensors")
    usable = name.split("/")[-1].strip(". ") and not set(name) & set('<>:"|?*\\\0')
    path = Path(os.path.realpath(folder / f"{name}.safetensors")) if usable else None
    if path is None or not path.is_relative_to(folder):
        raise ValueError(f"{style_name!r} is no name for a style; use letters and digits, for example waves or sea/waves.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def opened_video(video: Any) -> Iterator[Video]:
    """A VIDEO to read as a stream: its file, of which hosts may have cut a part, or one that is written for it."""
    if isinstance(video, VideoFromFile):
        hidden = vars(video).get  # hosts that cut before they said where
        trim = getattr(video, "get_active_trim_window", None)
        cut = trim() if trim else (hidden("_VideoFromFile__start_time", 0), hidden("_VideoFromFile__duration", 0))
        yield Video(video.get_stream_source(), *cut)
        return
    with tempfile.TemporaryDirectory(dir=temp_folder()) as folder:
        path = Path(folder) / "video.mp4"
        video.save_to(str(path))
        yield Video(path)


def to_video(path: Path) -> VideoFromFile:
    """VIDEO of a file."""
    return VideoFromFile(str(path))


def temp_folder() -> Path:
    """ComfyUI's folder for files until its next start."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _output_folder(name: str) -> Path:
    return Path(folder_paths.get_output_directory()) / name
