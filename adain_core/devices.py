"""Devices, processes and number types: what is available, what a network runs in, and float32 without TF32."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

from .errors import AdainError

# What errors say when memory runs out: GPUs and libraries, the CPU, the CPU on Windows, C++, cuDNN and cuBLAS, oneDNN (whose
# primitive descriptors fail for other reasons), the system, whose threads need memory too, cuDNN without room for its work
# space, Apple's GPUs, and DirectML
OUT_OF_MEMORY = re.compile(
    r"out[ _]of[ _](device[ _]|host[ _])?memory|can(no|')t allocate memory|not enough memory|insufficient memory|"
    r"bad[_ ]alloc|status_alloc_failed|could not create a (primitive(?! desc)|memory)|can't start new thread|"
    r"(unable|failed) to allocate|unable to find an engine|invalid buffer size|not enough gpu video memory",
    re.IGNORECASE,
)
FAST_FLOAT16 = (7, 0)  # the first CUDA capability with units for float16
FAST_BFLOAT16 = (8, 0)  # and for bfloat16
# Cards of that capability without those units; ComfyUI found that convolutions in float16 give NaN on them
BROKEN_FLOAT16 = ("1630", "1650", "1660", "T500", "T550", "T600", "T1000", "T1200", "T2000", "MX450", "MX550", "CMP 30HX")
CGROUPS = Path("/sys/fs/cgroup")
# The files of a container's memory limit and use, and the entry of memory.stat with the reclaimable part: cgroup v2, v1
CONTAINER_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
KINDS = ("cuda", "xpu", "mps", "cpu")  # of devices whose memory is counted here
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def available_devices() -> list[str]:
    """The kinds of device that PyTorch finds here, the fastest first, the CPU last."""
    kinds = [kind for kind in ("cuda", "xpu", "mps") if getattr(torch, kind, None) and getattr(torch, kind).is_available()]
    return [*kinds, "cpu"]


def resolve_device(device: str) -> torch.device:
    """A torch.device from "auto" (the fastest kind found) or a name such as "cuda:1". Raises AdainError for other names.

    If torch's launcher started several processes on this machine, "auto" and a kind of GPU give each its own.
    """
    found = available_devices()
    if device == "auto":
        device = "cuda:0" if found[0] == "cuda" and "LOCAL_RANK" not in os.environ else found[0]
    if device in ("cuda", "xpu") and "LOCAL_RANK" in os.environ:
        device = f"{device}:{os.environ['LOCAL_RANK']}"
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in found or (resolved.index or 0) >= getattr(torch, resolved.type).device_count():
        raise AdainError(f"this machine has no device {device!r}; choose auto or one of {', '.join(found)}.")
    return resolved


def rank_and_size() -> tuple[int, int]:
    """This process's number among the processes that torch's launcher started, and their count; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bfloat16."""
    if device.type == "cuda":  # torch.cuda.is_bf16_supported asks the current device, which may be another one
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= FAST_BFLOAT16
    # PyTorch has no public function for this; a version without these private ones counts as a no.
    functions = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in functions)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The fastest number type of the device that is precise enough for pictures."""
    if device.type in ("mps", "xpu"):
        return torch.float16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FAST_FLOAT16:
        broken = any(name in torch.cuda.get_device_name(device) for name in BROKEN_FLOAT16)
        return torch.float32 if broken else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16(device) else torch.float32


def resolve_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """A torch.dtype from "auto" (`fast_dtype` of the device), a name in `DTYPES`, or a torch.dtype.

    Raises AdainError for other types.
    """
    if dtype == "auto":
        return fast_dtype(torch.device(device))
    resolved = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in DTYPES.values():
        raise AdainError(f"{dtype!r} is not a number type of the networks; choose one of auto, {', '.join(DTYPES)}.")
    return resolved


def free_memory(device: torch.device) -> int:
    """The number of free bytes for new tensors on `device`."""
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        reserved = backend.memory_reserved(device)
        try:
            free = backend.mem_get_info(device)[0]
        except RuntimeError:  # not every GPU of Intel tells it
            free = backend.get_device_properties(device).total_memory - reserved
        # PyTorch can use again the memory that it has reserved on the device and does not use now
        return free + reserved - backend.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    if device.type not in KINDS and _count_of_host is not None:
        return _count_of_host(device)
    return min(psutil.virtual_memory().available, _container_room())


_count_of_host: Callable[[torch.device], int] | None = None


def count_memory_by(count: Callable[[torch.device], int]) -> None:
    """Have a host's function count the free bytes of devices of other kinds than `KINDS`, such as DirectML's."""
    global _count_of_host
    _count_of_host = count


def _container_room() -> int:
    """The number of bytes left below the memory limit of this container; the system's own count ignores that limit."""
    for limit, used, reclaimable in CONTAINER_MEMORY:
        with contextlib.suppress(OSError, ValueError, KeyError):  # another cgroup version, or "max", which is no limit
            room = int((CGROUPS / limit).read_text()) - int((CGROUPS / used).read_text())
            stat = dict(line.split() for line in (CGROUPS / limit).with_name("memory.stat").read_text().splitlines())
            return max(0, room + int(stat[reclaimable]))
    return sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a library or of the system says that a device's memory, or the system's, ran out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return not isinstance(error, ValueError) and OUT_OF_MEMORY.search(str(error)) is not None


def release_memory() -> None:
    """Give back the GPU memory that PyTorch keeps unused for later."""
    for kind in available_devices()[:-1]:
        with contextlib.suppress(RuntimeError):  # after an error that left the device unusable, the next work will say so
            getattr(torch, kind).empty_cache()


def keep_freed_memory(all_of_it: bool = False) -> None:
    """Have glibc keep freed blocks of up to 32 MB and reuse them; with `all_of_it` all blocks, for a training.

    The system hands out a new block page by page, which on a CPU can take as long as the convolution that fills it. Kept
    memory stays with this process until it ends, so only blocks of up to 32 MB are kept inside a host. With another C
    library nothing happens.
    """
    if not all_of_it:
        # glibc keeps blocks as large as the largest block freed so far, up to 32 MB: free one of almost that size
        torch.empty((1 << 25) - (1 << 14), dtype=torch.uint8)
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_max, trim_threshold = -4, -1  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


class _ExactFloat32:
    """Turns the process-wide flags of TF32 off while any thread is inside, and restores them when the last one leaves."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.before: list[tuple[object, str, object]] = []

    def enter(self) -> None:
        with self.lock:
            self.inside += 1
            if self.inside > 1:
                return
            cudnn = torch.backends.cudnn
            flags: list[tuple[object, str, object]] = [(cudnn, "allow_tf32", False)]
            # since PyTorch 2.9; if a host has set this flag, PyTorch refuses the old one
            if convolutions := getattr(cudnn, "conv", None):
                flags.append((convolutions, "fp32_precision", "ieee"))
            for holder, flag, off in flags:
                with contextlib.suppress(RuntimeError):
                    self.before.append((holder, flag, getattr(holder, flag)))
                    setattr(holder, flag, off)

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            while not self.inside and self.before:
                holder, flag, value = self.before.pop()
                setattr(holder, flag, value)


_exact_float32 = _ExactFloat32()


@contextlib.contextmanager
def exact_float32() -> Iterator[None]:
    """Turn TF32, which has only 10 bits of mantissa, off for the convolutions inside, and restore its flags afterwards.

    Several threads may be inside; the last one to leave restores the flags.
    """
    _exact_float32.enter()
    try:
        yield
    finally:
        _exact_float32.leave()
