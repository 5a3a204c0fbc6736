"""The only door to ComfyUI's internals: devices, memory, progress, cancelling and folders."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import folder_paths
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from PIL import Image
from torch import Tensor, nn

from ..adain_core.catalog import BUNDLED

NETWORKS, STYLES = "adain", "adain_styles"  # names of the model folders
EXTENSIONS = (".safetensors", ".pth", ".pt")
# The most memory per pixel is taken at full resolution: 64 channels in the paper's VGG, of which input, padded input,
# output and the convolution's work space are alive at once.
VALUES_PER_PIXEL = 64 * 4
PREVIEW_SIDE = 512

Result = TypeVar("Result")


class Progress:
    """The progress bar of the running node, in pictures."""

    def __init__(self, total: int):
        self.bar = ProgressBar(total)
        self.done, self.total = 0, total

    def advance(self, count: int, picture: Tensor | None = None) -> None:
        """`count` more pictures are done; `picture` `(H, W, 3 or 4)` in [0, 1] is shown on the node."""
        self.done += count
        preview = None
        if picture is not None:
            pixels = (picture[..., :3].float().clamp(0, 1) * 255).round().to(torch.uint8)
            preview = ("JPEG", Image.fromarray(pixels.cpu().numpy()), PREVIEW_SIDE)
        self.bar.update_absolute(self.done, self.total, preview)


def progress_in_bytes() -> Callable[[int, int], None]:
    """Shows the bytes done, of how many, on the running node; raises when the person pressed cancel."""
    bar = ProgressBar(1)

    def show(done: int, total: int) -> None:
        model_management.throw_exception_if_processing_interrupted()  # the bar leaves out updates that follow fast
        bar.update_absolute(done, total)

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


def in_chunks(
    patchers: list[ModelPatcher],
    count: int,
    pixels: int,
    run: Callable[[slice], Result],
    advance: Callable[[int, Result], None],
) -> list[Result]:
    """`run(part)` for consecutive parts of `count` pictures of `pixels` pixels each, with the networks on their device.

    Parts are as large as the free memory allows; when it runs out after all, the part is tried again in halves, down to
    one picture. After each part `advance(its length, its result)` is called. Cancelling is honoured between parts.
    """
    size = _load(patchers, count, pixels)
    results, start = [], 0
    while start < count:
        model_management.throw_exception_if_processing_interrupted()
        part = slice(start, min(start + size, count))
        length = part.stop - start
        try:
            result = run(part)
        except Exception as error:
            if length == 1 or not _is_out_of_memory(error):
                raise
            result = None
        if result is None:  # outside of the handler, which keeps the tensors of the failed attempt alive
            size = length // 2
            model_management.soft_empty_cache()
            continue
        advance(length, result)
        results.append(result)
        start = part.stop
    return results


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


def _output_folder(name: str) -> Path:
    return Path(folder_paths.get_output_directory()) / name


def _load(patchers: list[ModelPatcher], count: int, pixels: int) -> int:
    """Bring the networks to their device; how many pictures to work on at once."""
    picture = pixels * VALUES_PER_PIXEL * next(patchers[0].model.parameters()).element_size()
    model_management.load_models_gpu(patchers, memory_required=picture, force_full_load=True)
    if model_management.is_device_cpu(patchers[0].load_device):
        return 1  # several at once are no faster there, and one at a time shows progress
    free = model_management.get_free_memory(patchers[0].load_device)
    return max(1, min(count, int(0.8 * free) // picture))


def _is_out_of_memory(error: Exception) -> bool:
    # ComfyUI's own list of such errors is "all" where there is no CUDA
    message = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)
    )
