"""The speed of this project's networks compared with a plain implementation of VGG-19 and its mirror, in one process."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
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
from torch import Tensor

from ..devices import exact_float32, is_out_of_memory, resolve_device
from ..errors import AdainError
from ..files import write_json
from ..progress import Counter
from ..training.networks import training_dtype
from . import pipelines, plain
from .pipelines import Pipeline

# Relative errors above which two pictures, or losses, count as different.
AGREEMENT = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.05}
SMALLEST = 16  # pixels; two rows of features, enough for reflection


@dataclass(frozen=True)
class BenchConfig:
    """Sides `sizes` of square pictures in pixels, and the number types `dtypes` of this project's networks (empty: float32,
    and the 16-bit type that the device multiplies fast). The median of `runs` measurements is taken.

    `encoder` and `decoder` are a VGG-19 and its mirror, names or files; if empty, their weights are random, which does not
    change the speed. `training` also measures a step of the paper's recipe, in float32 and in the default type of a
    training. Raises AdainError for settings out of range.
    """

    sizes: tuple[int, ...] = (256, 512)
    dtypes: tuple[str, ...] = ()
    runs: int = 5
    encoder: str = ""
    decoder: str = ""
    training: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if min(self.sizes, default=0) < SMALLEST or self.runs < 1:
            raise AdainError(f"give sizes of at least {SMALLEST} pixels, and at least 1 run.")
        for dtype in self.dtypes:
            if dtype not in AGREEMENT:
                raise AdainError(f"{dtype!r} is not a number type to measure; choose from {', '.join(AGREEMENT)}.")


@dataclass(frozen=True)
class Machine:
    """The machine of a measurement; `multiply_adds`: per second, in a large float32 matrix product."""

    device: str
    cpu: str
    threads: int
    torch: str
    multiply_adds: float

    def __str__(self) -> str:
        return f"{self.device}; {self.cpu}, {self.threads} threads; torch {self.torch}"


@dataclass(frozen=True)
class Row:
    """One pipeline in one number type at one size.

    `seconds`, medians: "style" (encoding one), "encode", "transfer" and "decode" by themselves, and "whole", the public
    `stylize` with the style already encoded; or "step", a training step. `speedup`: the plain implementation's seconds in
    float32 divided by these, for "whole" or "step". `memory`: the most bytes that "whole" or "step" adds. `multiply_adds`:
    those of the encoder's layers, per second. `error`: the relative error of the picture, in training of the losses, to the
    plain implementation.
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
class BenchResult:
    """The result of `bench` with `config`."""

    config: BenchConfig
    machine: Machine
    rows: tuple[Row, ...]

    def save(self, path: str | Path) -> None:
        """Write everything as JSON: a temporary file beside `path`, then renamed."""
        write_json(path, dataclasses.asdict(self))


def bench(
    config: BenchConfig, others: Callable[[int, torch.device], list[Pipeline]] = lambda size, device: []
) -> BenchResult:
    """Measure by `config`. Reports how many rounds are done, and of how many.

    `others(size, device)` makes further pipelines for a size in pixels and a device.

    All pipelines take turns. The first round measures the memory, not the time. Raises AdainError for networks other than
    VGG-19, for pictures or losses that differ from the plain implementation's, and if the memory runs out.
    """
    device = resolve_device(config.device)
    training_dtypes = "float32", str(training_dtype("auto", device)).removeprefix("torch.")
    dtypes = config.dtypes or (training_dtypes if device.type == "cpu" else ("float32", "float16"))
    dtypes, training_dtypes = (tuple(dict.fromkeys(names)) for names in (dtypes, training_dtypes))
    with torch.no_grad(), exact_float32():
        networks, rows = pipelines.vgg_networks(config.encoder, config.decoder), []
        counter = Counter((len(config.sizes) + config.training) * (1 + config.runs))
        for size in config.sizes:
            def build(size: int = size) -> list[Pipeline]:
                return pipelines.stylizing(*networks, dtypes, size, device) + others(size, device)

            rows += _measure(build, size, config.runs, device, counter)
        if config.training:
            with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
                steps = partial(pipelines.training_steps, *networks, training_dtypes, folder, device)
                rows += _measure(steps, pipelines.CROP_SIZE, config.runs, device, counter)
        return BenchResult(config, _machine(device, config.runs), tuple(rows))


def _measure(
    build: Callable[[], list[Pipeline]], size: int, runs: int, device: torch.device, counter: Counter
) -> list[Row]:
    try:
        with counter.part():
            built = build()
            peaks = [_peak_memory(pipeline.calls[pipeline.last], device) for pipeline in built]
            expected = peaks[0][0]
            errors = [_error(pipeline, result, expected, size) for pipeline, (result, _) in zip(built, peaks, strict=True)]
        times = [{name: [] for name in pipeline.calls} for pipeline in built]
        for _ in range(runs):
            with counter.part():
                for pipeline, seconds in zip(built, times, strict=True):
                    for name, call in pipeline.calls.items():
                        seconds[name].append(_seconds(call, device))
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise AdainError(f"the memory is too small for {size} pixels; measure smaller sizes.") from None
    medians = [{name: median(values) for name, values in seconds.items()} for seconds in times]
    plain_seconds = medians[0][built[0].last]
    return [
        Row(
            pipeline.name, pipeline.dtype, size, seconds,
            speedup=plain_seconds / seconds[pipeline.last],
            memory=memory,
            multiply_adds=pipeline.work / seconds["encode"] if pipeline.work else None,
            error=error,
        )
        for pipeline, seconds, (_, memory), error in zip(built, medians, peaks, errors, strict=True)
    ]  # fmt: skip


def _error(pipeline: Pipeline, result: Tensor, expected: Tensor, size: int) -> float | None:
    """The relative error of a VGG-19's result, or None for other pipelines. Raises AdainError if it is too large."""
    if pipeline.name != pipelines.VGG:
        return None
    error = plain.relative_error(result.cpu(), expected.cpu()) if result.shape == expected.shape else math.nan
    if not error < AGREEMENT[pipeline.dtype]:
        raise AdainError(
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
        torch.accelerator.synchronize(device)


def _peak_memory(call: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, int]:
    """The result of `call()`, and the most bytes that it added to the memory in use.

    On CUDA and XPU PyTorch's allocator is measured; elsewhere the process's resident set, every millisecond, after glibc has
    given its unused memory back.
    """
    if device.type in ("cuda", "xpu"):
        backend = torch.get_device_module(device)
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


def _machine(device: torch.device, runs: int) -> Machine:
    side = 2048 if device.type == "cpu" else 8192
    a, b = torch.rand(2, side, side, device=device)
    seconds = median([_seconds(lambda: a @ b, device) for _ in range(1 + runs)][1:])
    name = torch.get_device_module(device).get_device_name(device) if device.type in ("cuda", "xpu") else device.type
    return Machine(name, _cpu_model(), torch.get_num_threads(), torch.__version__, side**3 / seconds)


def _cpu_model() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
