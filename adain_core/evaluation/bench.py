"""The speed of the networks here against a plain implementation of VGG-19 and its mirror, in the same process."""

from __future__ import annotations

import contextlib
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
from torch import Tensor

from ..devices import exact_float32, is_out_of_memory, resolve_device
from ..errors import AdainError
from ..files import replacing
from ..progress import Counter
from ..training.networks import training_dtype
from . import pipelines, plain
from .pipelines import Pipeline

# Relative errors above which two pictures, or losses, are not of the same network.
AGREEMENT = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.05}
SMALLEST = 16  # pixels: two features to reflect


@dataclass(frozen=True)
class BenchConfig:
    """Sides `sizes` of square pictures in pixels, and the number types `dtypes` of the networks here (empty: float32, and
    the type of 16 bits that the device multiplies fast). Of `runs` the median counts.

    `encoder` and `decoder` are a VGG-19 and its mirror, names or files; empty, their weights are drawn, on which speed does
    not depend. `training` measures a step of the paper's recipe too, in float32 and in the type that a training takes by
    itself. Raises AdainError for what cannot be.
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
                raise AdainError(f"{dtype!r} is no number type to measure; choose from {', '.join(AGREEMENT)}.")


@dataclass(frozen=True)
class Machine:
    """Where it was measured; `multiply_adds`: those a second of a large float32 matrix product there."""

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
    `stylize` with the style already encoded; or "step", one of training. `speedup`: the plain implementation's seconds in
    float32, of the whole or the step, over these. `memory`: bytes that the whole or the step adds at its peak.
    `multiply_adds`: those a second of the encoder, as many as its layers have. `error`: relative, of the picture (of the
    losses, in training) to the plain one.
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
    """What `bench` found by `config`."""

    config: BenchConfig
    machine: Machine
    rows: tuple[Row, ...]

    def save(self, path: str | Path) -> None:
        """Write all of it as JSON, beside `path` first and then renamed."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")


def bench(
    config: BenchConfig, others: Callable[[int, torch.device], list[Pipeline]] = lambda size, device: []
) -> BenchResult:
    """Measure by `config`. It tells how many rounds are done, and of how many.

    `others` makes further pipelines that take their turns, of a size in pixels and a device.

    All pipelines take turns, after a round that does not count, in which memory is measured. Raises AdainError for networks
    other than VGG-19, for pictures or losses that are not the plain implementation's, and where memory runs out.
    """
    device = resolve_device(config.device)
    trained = "float32", str(training_dtype("auto", device)).removeprefix("torch.")
    dtypes = config.dtypes or (trained if device.type == "cpu" else ("float32", "float16"))
    dtypes, trained = (tuple(dict.fromkeys(names)) for names in (dtypes, trained))
    with torch.no_grad(), exact_float32():
        networks, rows = pipelines.vgg_networks(config.encoder, config.decoder), []
        counter = Counter((len(config.sizes) + config.training) * (1 + config.runs))
        for size in config.sizes:
            def build(size: int = size) -> list[Pipeline]:
                return pipelines.stylizing(*networks, dtypes, size, device) + others(size, device)

            rows += _measure(build, size, config.runs, device, counter)
        if config.training:
            with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
                steps = partial(pipelines.training_steps, *networks, trained, folder, device)
                rows += _measure(steps, pipelines.CROP_SIZE, config.runs, device, counter)
        return BenchResult(config, _machine(device, config.runs), tuple(rows))


def _measure(
    build: Callable[[], list[Pipeline]], size: int, runs: int, device: torch.device, counter: Counter
) -> list[Row]:
    try:
        with counter.part():
            built = build()
            peaks = [_peak_memory(pipeline.calls[pipeline.last], device) for pipeline in built]
            wanted = peaks[0][0]
            errors = [_error(pipeline, result, wanted, size) for pipeline, (result, _) in zip(built, peaks, strict=True)]
        times = [{name: [] for name in pipeline.calls} for pipeline in built]
        for _ in range(runs):
            with counter.part():
                for pipeline, found in zip(built, times, strict=True):
                    for name, call in pipeline.calls.items():
                        found[name].append(_seconds(call, device))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise AdainError(f"at {size} pixels the memory runs out; measure smaller sizes.") from None
    medians = [{name: median(values) for name, values in found.items()} for found in times]
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


def _error(pipeline: Pipeline, result: Tensor, wanted: Tensor, size: int) -> float | None:
    """Of a pipeline that should give the plain one's result. Raises AdainError where it does not."""
    if pipeline.name != pipelines.VGG:
        return None
    error = plain.relative_error(result.cpu(), wanted.cpu()) if result.shape == wanted.shape else math.nan
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
    """The result, and the most bytes that were taken meanwhile beyond those before.

    On CUDA and XPU those of PyTorch's allocator. Elsewhere the process's resident set, sampled every millisecond, after the C
    library, where it is glibc, has given back what it kept.
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
