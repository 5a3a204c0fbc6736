"""The speed of the networks here against a plain implementation of VGG-19 and its mirror, in the same process."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import json
import math
import platform
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import psutil
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..decoder import Decoder, VGGDecoder
from ..devices import exact_float32, is_out_of_memory, resolve_device, resolve_dtype
from ..encoder import Encoder, VGGEncoder
from ..files import replacing
from ..statistics import adain
from ..style import encode_style
from ..stylize import check_decoder, stylize
from ..training import TrainingConfig
from ..training.networks import fast_dtype, frozen_copy, initialize
from ..training.trainer import Trainer
from ..weights import load_decoder, load_encoder
from . import plain

PLAIN, VGG, LITE = "plain vgg19", "vgg19", "lite"
# Relative errors above which two pictures, or losses, are not of the same network.
AGREEMENT = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.05}
SMALLEST = 16  # pixels: two features to reflect
BATCH_SIZE, CROP_SIZE = 8, 256  # of a training step, the paper's

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BenchConfig:
    """Sides `sizes` of square pictures in pixels, and the number types `dtypes` of the networks here (empty: float32, and
    the type of 16 bits that the device multiplies fast). Of `runs` the median counts.

    `encoder` and `decoder` are a VGG-19 and its mirror, names or files; empty, their weights are drawn, on which speed does
    not depend. `training` measures a step of the paper's recipe too. Raises ValueError for what cannot be.
    """

    sizes: tuple[int, ...] = (256, 512)
    dtypes: tuple[str, ...] = ()
    runs: int = 5
    encoder: str = ""
    decoder: str = ""
    training: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if min(self.sizes) < SMALLEST or self.runs < 1:
            raise ValueError(f"a size must be at least {SMALLEST} pixels, and runs at least 1.")


@dataclass(frozen=True)
class Machine:
    """Where it was measured; `multiply_adds`: those a second of a large float32 matrix product there."""

    device: str
    cpu: str
    threads: int
    torch: str
    multiply_adds: float


@dataclass(frozen=True)
class Row:
    """One pipeline in one number type at one size.

    `seconds`, medians: "encode", "transfer" and "decode" by themselves, and "whole", the public `stylize` with the style
    already encoded; or "step", one of training. `speedup`: the plain implementation's seconds in float32, of the whole or
    the step, over these. `memory`: bytes that the whole or the step adds at its peak. `multiply_adds`: those a second of the
    encoder, as many as its layers have. `error`: relative, of the picture (of the losses, in training) to the plain one.
    """

    pipeline: str
    dtype: str
    size: int
    seconds: dict[str, float]
    speedup: float
    memory: int
    multiply_adds: float | None
    error: float | None


@dataclass(frozen=True)
class BenchReport:
    """What `bench` found by `config`."""

    config: BenchConfig
    machine: Machine
    rows: tuple[Row, ...]

    def save(self, path: str | Path) -> None:
        """Write all of it as JSON, beside `path` first and then renamed."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Pipeline:
    """What is measured: `calls`, the last of which is the whole; `work` is the number of the encoder's multiply-adds."""

    name: str
    dtype: torch.dtype
    calls: dict[str, Callable[[], object]]
    work: int = 0

    @property
    def whole(self) -> Callable[[], Tensor]:
        """Gives a picture, or the losses of a step."""
        return list(self.calls.values())[-1]


def bench(config: BenchConfig, progress: Progress | None = None) -> BenchReport:
    """Measure by `config`; `progress` is called with how many rounds are done, and of how many.

    All pipelines take turns, after a round that does not count, in which memory is measured. Raises ValueError for networks
    other than VGG-19, for pictures or losses that are not the plain implementation's, and where memory runs out.
    """
    device = resolve_device(config.device)
    fast = fast_dtype("auto", device) if device.type == "cpu" else torch.float16
    dtypes = list(dict.fromkeys(map(resolve_dtype, config.dtypes or (torch.float32, fast))))
    rounds, done = (len(config.sizes) + config.training) * (1 + config.runs), 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, rounds)

    with torch.no_grad(), exact_float32():
        networks, rows = _networks(config), []
        for size in config.sizes:
            rows += _measure(partial(_pipelines, *networks, dtypes, size, device), size, config.runs, device, advance)
        if config.training:
            with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
                steps = partial(_steps, *networks, dtypes, folder, device)
                rows += _measure(steps, CROP_SIZE, config.runs, device, advance)
        return BenchReport(config, _machine(device, config.runs), tuple(rows))


def _networks(config: BenchConfig) -> tuple[VGGEncoder, VGGDecoder]:
    encoder = load_encoder(config.encoder) if config.encoder else VGGEncoder({})
    decoder = load_decoder(config.decoder) if config.decoder else VGGDecoder({})
    for network, kind, name in ((encoder, VGGEncoder, config.encoder), (decoder, VGGDecoder, config.decoder)):
        if not isinstance(network, kind):
            raise ValueError(f"{name} is a {network.architecture}; give a VGG-19, with which the plain one can be compared.")
        if not name:
            initialize(network, seed=0)
    if not config.decoder:
        decoder.encoder_fingerprint = encoder.fingerprint
    check_decoder(decoder, encoder.fingerprint, encoder.name)
    return encoder, decoder


def _plain_copy(network: VGGEncoder | VGGDecoder, device: torch.device) -> nn.Sequential:
    """The plain implementation with the same weights; what was folded into conv1_1 stays there."""
    copied = plain.encoder() if isinstance(network, VGGEncoder) else plain.decoder()
    theirs, ours = ([module for module in net.modules() if isinstance(module, nn.Conv2d)] for net in (copied, network))
    if isinstance(network, VGGEncoder):
        preprocess = theirs.pop(0)
        nn.init.dirac_(preprocess.weight)
        nn.init.zeros_(preprocess.bias)
    for to, of in zip(theirs, ours, strict=True):
        to.load_state_dict(of.state_dict())
    return copied.to(device)


def _pipelines(
    encoder: VGGEncoder, decoder: VGGDecoder, dtypes: list[torch.dtype], size: int, device: torch.device
) -> list[_Pipeline]:
    content, style = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(size)).to(device)
    f, g = _plain_copy(encoder, device), _plain_copy(decoder, device)
    mu, sigma = plain.mean_std(f(style))
    features, work = f(content), _multiply_adds(f, size)
    target = plain.normalize_to(features, mu, sigma)
    calls = {
        "encode": lambda: f(content),
        "transfer": lambda: plain.normalize_to(features, mu, sigma),
        "decode": lambda: g(target),
        "whole": lambda: g(plain.normalize_to(f(content), mu, sigma))[:, :, :size, :size].clamp(0, 1),
    }
    pipelines = [_Pipeline(PLAIN, torch.float32, calls, work)]
    for dtype in dtypes:
        networks = [frozen_copy(network, device, dtype) for network in (encoder, decoder)]
        pipelines.append(_Pipeline(VGG, dtype, _own_calls(*networks, content, style), work))
        lite = load_encoder(LITE, device, dtype), load_decoder(LITE, device, dtype)
        pipelines.append(_Pipeline(LITE, dtype, _own_calls(*lite, content, style), _multiply_adds(lite[0], size)))
    return pipelines


def _own_calls(encoder: Encoder, decoder: Decoder, content: Tensor, style_picture: Tensor) -> dict[str, Callable[[], object]]:
    style = encode_style(encoder, style_picture, size=0)
    statistics = style.to(content.device).components[0].levels
    features = encoder(content)

    def transfer() -> list[Tensor]:
        return [adain(x, level) for x, level in zip(features, statistics, strict=True)]

    target = transfer()
    return {
        "encode": lambda: encoder(content),
        "transfer": transfer,
        "decode": lambda: decoder(target),
        "whole": lambda: stylize(encoder, decoder, content, style),
    }


def _steps(
    encoder: VGGEncoder, decoder: VGGDecoder, dtypes: list[torch.dtype], folder: str, device: torch.device
) -> list[_Pipeline]:
    shape = (2, BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE)
    content, style = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    f, g = _plain_copy(encoder, device), _plain_copy(decoder, device).requires_grad_(True)
    optimizer = torch.optim.Adam(g.parameters(), 1e-4)
    pipelines = [
        _Pipeline(PLAIN, torch.float32, {"step": lambda: torch.tensor(plain.training_step(f, g, optimizer, content, style))})
    ]
    for dtype in dtypes:
        config = TrainingConfig(
            content.cpu(), style.cpu(), Path(folder), encoder, start_from=decoder, batch_size=BATCH_SIZE, crop_size=CROP_SIZE,
            precision=str(dtype).removeprefix("torch."),
        )  # fmt: skip
        trainer = Trainer(config, device)

        def step(trainer: Trainer = trainer) -> Tensor:
            return torch.tensor(list(trainer.train_step([trainer.objective.look(content, style)]).values()))

        pipelines.append(_Pipeline(VGG, dtype, {"step": step}))
    return pipelines


def _measure(
    build: Callable[[], list[_Pipeline]], size: int, runs: int, device: torch.device, advance: Callable[[], None]
) -> list[Row]:
    try:
        pipelines = build()
        peaks = [_peak_memory(pipeline.whole, device) for pipeline in pipelines]
        wanted = peaks[0][0]
        errors = [_error(pipeline, result, wanted, size) for pipeline, (result, _) in zip(pipelines, peaks, strict=True)]
        advance()
        times = [{name: [] for name in pipeline.calls} for pipeline in pipelines]
        for _ in range(runs):
            for pipeline, found in zip(pipelines, times, strict=True):
                for name, call in pipeline.calls.items():
                    found[name].append(_seconds(call, device))
            advance()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(f"at {size} pixels the memory runs out; measure smaller sizes.") from None
    medians = [{name: median(values) for name, values in found.items()} for found in times]
    plain_seconds = list(medians[0].values())[-1]
    return [
        Row(
            pipeline.name, str(pipeline.dtype).removeprefix("torch."), size, seconds,
            speedup=plain_seconds / list(seconds.values())[-1],
            memory=memory,
            multiply_adds=pipeline.work / seconds["encode"] if pipeline.work else None,
            error=error,
        )
        for pipeline, seconds, (_, memory), error in zip(pipelines, medians, peaks, errors, strict=True)
    ]  # fmt: skip


def _error(pipeline: _Pipeline, result: Tensor, wanted: Tensor, size: int) -> float | None:
    """Of a pipeline that should give the plain one's result. Raises ValueError where it does not."""
    if pipeline.name != VGG:
        return None
    error = plain.relative_error(result.cpu(), wanted.cpu()) if result.shape == wanted.shape else math.nan
    if not error < AGREEMENT[pipeline.dtype]:
        raise ValueError(
            f"at {size} pixels {pipeline.name} in {pipeline.dtype} gives another result than the plain implementation"
            f" (relative error {error:.2g}); their speeds are not compared."
        )
    return error


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    call()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def _peak_memory(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int]:
    """The result, and the most bytes that were taken meanwhile beyond those before.

    On CUDA and XPU those of PyTorch's allocator. Elsewhere the process's resident set, sampled every millisecond, after the C
    library, where it is glibc, has given back what it kept.
    """
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        backend.reset_peak_memory_stats(device)
        before = backend.memory_allocated(device)
        return call(), backend.max_memory_allocated(device) - before
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss

    def highest() -> int:
        peak = before
        while not done.wait(0.001):
            peak = max(peak, process.memory_info().rss)
        return peak

    with ThreadPoolExecutor(1) as sampler:
        peak = sampler.submit(highest)
        try:
            result = call()
        finally:
            done.set()
    return result, peak.result() - before


def _multiply_adds(network: nn.Module, size: int) -> int:
    """Of one picture."""
    with FlopCounterMode(display=False) as counter:
        copy.deepcopy(network).to("meta")(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2


def _machine(device: torch.device, runs: int) -> Machine:
    side = 2048 if device.type == "cpu" else 8192
    a, b = torch.rand(2, side, side, device=device)
    seconds = median([_seconds(lambda: a @ b, device) for _ in range(1 + runs)][1:])
    backend = getattr(torch, device.type)
    name = backend.get_device_name(device) if device.type in ("cuda", "xpu") else device.type
    return Machine(name, _cpu_model(), torch.get_num_threads(), torch.__version__, side**3 / seconds)


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
