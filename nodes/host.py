"""The only door to ComfyUI's internals: devices, memory, progress, cancelling, folders and the server's routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
import torch.nn.functional as F
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from comfy_api.input_impl import VideoFromFile
from comfy_api.latest import ui
from torch import Tensor, nn

from ..adain_core.catalog import BUNDLED, network_file
from ..adain_core.devices import count_memory_by, is_out_of_memory
from ..adain_core.files import check_writable, make_folder, new_path
from ..adain_core.images import limit_pixels, to_pil
from ..adain_core.picture_video import PictureVideo
from ..adain_core.progress import Progress, showing
from ..adain_core.tiling import COPIES, KEPT
from ..adain_core.video import Video

try:
    from aiohttp import web
    from comfy_execution.utils import get_executing_context
    from server import PromptServer
except ImportError:  # ComfyUI's modules without its server, as in tests
    PromptServer = None

log = logging.getLogger(__name__)

NETWORKS, STYLES = "adain", "adain_styles"  # names of the model folders
TRAININGS = "adain_training"
EXTENSIONS = (".safetensors", ".pth", ".pt")
PREVIEW_SIDE, PREVIEW_SECONDS = 512, 1 / 3  # the largest side of a preview, and the time from one to the next
ENOUGH = 1024  # pixels; for a larger picture the host is asked for memory for tiles of this side, which cost little more
Interrupted = model_management.InterruptProcessingException


@contextlib.contextmanager
def working(
    patchers: list[ModelPatcher], size: Sequence[int], tile: int | None = None, show: Progress | None = None
) -> Iterator[None]:
    """The networks on their devices for pictures of `size` (H, W), and the work of adain_core inside shown on the node.

    With a `tile` of 0 there is memory for the whole picture, which is not worked on in tiles. Progress moves with every part
    of the work, finished pictures are shown, and between parts cancelling is honoured. `show` does this instead of
    `progress()`, which it calls in the end.
    """
    pixels, models = size[0] * size[1], [patcher.model for patcher in patchers]
    if tile != 0:
        pixels = min(pixels, max(tile or 0, ENOUGH) ** 2)
    _load(patchers, max(pixels * model.values_per_pixel * COPIES * model.dtype.itemsize for model in models))
    with showing(show or progress()):
        yield


@contextlib.contextmanager
def training(patchers: list[ModelPatcher], pixels: int) -> Iterator[None]:
    """The networks on their devices, with memory for gradients through them of `pixels` in all, given back afterwards."""
    _load(patchers, pixels * max(p.model.values_per_pixel for p in patchers) * COPIES * KEPT * torch.float32.itemsize)
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # it holds the tensors, and they the memory that is given back below
        # a GPU's error stays of the host's class, after which it gives its own memory back too
        kind = type(error) if isinstance(error, torch.cuda.OutOfMemoryError) else RuntimeError
        raise kind("there is too little memory for this training; give smaller pictures or batches.") from None
    finally:
        with contextlib.suppress(RuntimeError):  # after some errors of a GPU nothing works there any more
            model_management.soft_empty_cache()


def _load(patchers: list[ModelPatcher], memory: float) -> None:
    """Have the host bring the networks to their devices, with so many bytes free beside them."""
    model_management.load_models_gpu(patchers, memory_required=memory, force_full_load=True)
    for patcher in patchers:  # with --novram the host leaves layers that are not its own where they are
        device = patcher.load_device
        if any(parameter.device.type != device.type for parameter in patcher.model.parameters()):
            patcher.model.to(device)


def final_preview(image: Tensor, node: type) -> ui.PreviewImage:
    """What shows an IMAGE on the node once it has run."""
    return ui.PreviewImage(image, cls=node)


def say(text: str) -> None:
    """Show a line on the running node, where this ComfyUI can."""
    send = getattr(getattr(PromptServer, "instance", None), "send_progress_text", None)
    context = get_executing_context() if send else None
    if send and context is not None:
        send(text, context.node_id)


def progress(every_picture: bool = False) -> Progress:
    """Shows on the running node how far it is, and the last of the pictures; raises Interrupted once cancel was pressed.

    Pictures that follow each other quickly are left out, except the last ones, unless `every_picture` was asked for.
    """
    bar, shown = ProgressBar(1), 0.0

    def show(done: int, total: int, pictures: Tensor | None) -> None:
        nonlocal shown
        model_management.throw_exception_if_processing_interrupted()
        preview = None
        is_due = every_picture or done == total or time.monotonic() - shown > PREVIEW_SECONDS
        if pictures is not None and is_due:
            # reduced where it is: what a GPU sends is waited for
            factor = max(1, max(pictures.shape[2:]) // PREVIEW_SIDE)
            preview = "JPEG", to_pil(F.avg_pool2d(pictures[-1].float(), factor, ceil_mode=True)), PREVIEW_SIDE
            shown = time.monotonic()
        bar.update_absolute(done, total, preview)

    return show


def managed(network: nn.Module) -> ModelPatcher:
    """The network in ComfyUI's care, which moves it between devices; `.model` is the network."""
    return ModelPatcher(
        network,
        load_device=model_management.get_torch_device(),
        offload_device=model_management.unet_offload_device(),
    )


def network_dtype(choice: str) -> str:
    """ "auto" is float16 on GPUs that ComfyUI finds good at it, else float32, and on a CPU left to adain_core; other
    choices are kept.
    """
    device = model_management.get_torch_device()
    if choice == "auto" and model_management.should_use_fp16(device):
        return "float16"
    return "float32" if choice == "auto" and device.type != "cpu" else choice


def training_device() -> str:
    """The device that ComfyUI computes on."""
    return str(model_management.get_torch_device())


def intermediate_device() -> torch.device:
    """Where results lie between nodes."""
    return model_management.intermediate_device()


def intermediate_dtype() -> torch.dtype:
    """The number type of pictures between nodes; hosts before it was a choice have float32."""
    choose = getattr(model_management, "intermediate_dtype", None)
    return torch.float32 if choose is None else choose()


def serve(path: str, content: Callable[[], Any]) -> None:
    """Answer GET requests for `path` with what `content()` is then, as JSON, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    @server.routes.get(path)
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(content))


def share_memory_count() -> None:
    """Let adain_core ask ComfyUI for the free memory of devices that it does not know."""
    count_memory_by(model_management.get_free_memory)


def register_folders() -> None:
    """Make the folders of networks and styles known to ComfyUI, after those of extra_model_paths.yaml."""
    for name, bundled in ((NETWORKS, BUNDLED), (STYLES, BUNDLED / "styles")):
        for folder in (Path(folder_paths.models_dir) / name, _output_folder(name), bundled):
            folder_paths.add_model_folder_path(name, str(folder))


def raise_pixel_limit() -> None:
    """Let ADAIN_MAX_PIXELS set the most pixels of a picture, which is Pillow's limit, and so that of Load Image too."""
    most = os.environ.get("ADAIN_MAX_PIXELS", "")
    if most.isdigit():
        limit_pixels(int(most))
    elif most:
        log.warning("ADAIN_MAX_PIXELS is %r, which is no number; it is not heeded", most)


def list_files(name: str) -> list[str]:
    """Files of networks or styles in a registered folder and below, as they are now; hidden ones are being written."""
    files = folder_paths.get_filename_list(name)
    return [f for f in files if f.lower().endswith(EXTENSIONS) and not any(part.startswith(".") for part in Path(f).parts)]


def find_file(name: str, file: str) -> Path | None:
    """The path of a listed file; nothing outside of the registered folders is found."""
    path = folder_paths.get_full_path(name, str(file))  # not every host checks that it is text
    return None if path is None else Path(path)


def new_style_path(style_name: str) -> Path:
    """Where a style of this name is saved: in `output/adain_styles`, a sub-folder of which the name may give.

    Raises ValueError for a name that is empty, leaves the folder or has characters that a file name cannot have, and for that
    of a style elsewhere, which would be loaded instead.
    """
    return _new_file(STYLES, style_name, ".safetensors", "style")


def new_decoder_path(decoder_name: str) -> tuple[Path, Path]:
    """Where a decoder of this name is saved, in `output/adain`, and the folder of its training, in `output/adain_training`.

    Names and errors are as in `new_style_path`.
    """
    ending = network_file("", "decoder")
    path = _new_file(NETWORKS, decoder_name, ending, "decoder")
    name = path.relative_to(_output_folder(NETWORKS).resolve()).as_posix().removesuffix(ending)
    return path, _output_folder(TRAININGS) / name


def new_image_paths(prefix: str, count: int) -> list[Path]:
    """Where so many new pictures are saved in ComfyUI's output folder, numbered as Save Image does it."""
    folder, name, number, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    return [Path(folder) / f"{name}_{number + index:05}_.png" for index in range(count)]


def input_folders() -> list[str]:
    """The folders in ComfyUI's input folder and below, hidden ones left out, as they are now."""
    root, found = Path(folder_paths.get_input_directory()), []
    for parent, folders, _ in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [(Path(parent) / name).relative_to(root).as_posix() for name in folders]
    return sorted(found)


def input_folder(name: str) -> Path:
    """The path of a listed folder. Raises FileNotFoundError for any other."""
    if name not in input_folders():
        raise FileNotFoundError(f"there is no folder {name!r} in ComfyUI's input folder; make it there and press R.")
    return Path(folder_paths.get_input_directory()) / name


def _new_file(folder_name: str, file_name: str, ending: str, what: str) -> Path:
    path = new_path(_output_folder(folder_name), file_name, ending, what)
    listed = find_file(folder_name, path.relative_to(os.path.realpath(_output_folder(folder_name))).as_posix())
    if listed is not None and os.path.realpath(listed) != str(path):
        raise ValueError(f"{file_name.strip()!r} is the name of a {what} in {listed.parent}; give your own another.")
    make_folder(path.parent)
    check_writable(path)
    return path


def opened_video(video: Any) -> Video | PictureVideo:
    """A VIDEO to read frame by frame: its file, of which hosts may have cut a part, or the pictures that it is made of."""
    if isinstance(video, VideoFromFile):
        hidden = vars(video).get  # hosts that cut before they said where
        trim = getattr(video, "get_active_trim_window", None)
        cut = trim() if trim else (hidden("_VideoFromFile__start_time", 0), hidden("_VideoFromFile__duration", 0))
        return Video(video.get_stream_source(), *cut)
    components = video.get_components()
    images = [picture for item in components.images for picture in (item if item.ndim == 4 else item[None])]
    samples, rate = None, 0
    if components.audio:
        samples, rate = components.audio["waveform"][0], int(components.audio["sample_rate"])
    colours = [image[..., :4] if image.shape[-1] >= 3 else image[..., :1].expand(-1, -1, 3) for image in images]
    pictures = [image.permute(2, 0, 1)[None] for image in colours]
    return PictureVideo(pictures, components.frame_rate, samples, rate)


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
