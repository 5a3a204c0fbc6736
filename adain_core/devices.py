"""Devices, processes and number types: which there are, which one a network runs in, and float32 that means float32."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from .errors import AdainError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # GPUs, the CPU, the CPU on Windows
FAST_FLOAT16 = (7, 0)  # CUDA capability from which there are units for float16
# Cards of that capability without those units, on which ComfyUI found convolutions in float16 to give NaN
BROKEN_FLOAT16 = ("1630", "1650", "1660", "T500", "T550", "T600", "T1000", "T1200", "T2000", "MX450", "MX550", "CMP 30HX")
CGROUPS = Path("/sys/fs/cgroup")
# Limit, use, and what of the use can be taken back (by its name in memory.stat) of a container: cgroup v2, v1
CONTAINER_MEMORY = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def available_devices() -> list[str]:
    """Kinds of device that PyTorch finds here, the fastest first; the CPU is always the last."""
    kinds = [kind for kind in ("cuda", "xpu", "mps") if getattr(torch, kind, None) and getattr(torch, kind).is_available()]
    return [*kinds, "cpu"]


def resolve_device(device: str) -> torch.device:
    """A torch.device from "auto" (the fastest kind found) or a name such as "cuda:1". Raises AdainError for any other.

    Of several processes that torch's launcher started on a machine, "auto" gives each a GPU of its own.
    """
    found = available_devices()
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if found[0] == "cuda" else found[0]
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = None
    if resolved is None or resolved.type not in found or (resolved.index or 0) >= getattr(torch, resolved.type).device_count():
        raise AdainError(f"there is no device {device!r} here; choose auto or one of {', '.join(found)}.")
    return resolved


def rank_and_size() -> tuple[int, int]:
    """This process's number among those that torch's launcher started, and how many they are; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # No public question exists; a PyTorch without these answers no.
    asked = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device.type == "cpu" and any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def fast_dtype(device: torch.device) -> torch.dtype:
    """The number type in which the device computes fastest what is good enough for a picture."""
    if device.type in ("mps", "xpu"):
        return torch.float16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= FAST_FLOAT16:
        broken = any(name in torch.cuda.get_device_name(device) for name in BROKEN_FLOAT16)
        return torch.float32 if broken else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_fast_bfloat16(device) else torch.float32


def resolve_dtype(dtype: str | torch.dtype, device: str | torch.device = "cpu") -> torch.dtype:
    """A torch.dtype from "auto" (`fast_dtype` of the device), a name in `DTYPES`, or a torch.dtype."""
    if dtype == "auto":
        return fast_dtype(torch.device(device))
    resolved = DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if resolved is None or resolved not in DTYPES.values():
        raise AdainError(f"{dtype!r} is no number type for a network; choose auto, {', '.join(DTYPES)}.")
    return resolved


def free_memory(device: torch.device) -> int:
    """Bytes that new tensors could take on `device`."""
    if device.type in ("cuda", "xpu"):
        backend = getattr(torch, device.type)
        # what PyTorch has taken from the device and does not use now can be used again
        return backend.mem_get_info(device)[0] + backend.memory_reserved(device) - backend.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    return min(psutil.virtual_memory().available, _container_room())


def _container_room() -> int:
    """Bytes to the memory limit of the container that this runs in, which the system's own count does not know."""
    for limit, used, reclaimable in CONTAINER_MEMORY:
        with contextlib.suppress(OSError, ValueError, KeyError):  # another version, or "max": no limit
            room = int((CGROUPS / limit).read_text()) - int((CGROUPS / used).read_text())
            stat = dict(line.split() for line in (CGROUPS / limit).with_name("memory.stat").read_text().splitlines())
            return max(0, room + int(stat[reclaimable]))
    return sys.maxsize


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device's memory ran out."""
    message = str(error).lower()
    return isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(phrase in message for phrase in OUT_OF_MEMORY)
    )


def release_memory() -> None:
    """Give back what PyTorch keeps of the memory of GPUs for later."""
    for kind in available_devices()[:-1]:
        getattr(torch, kind).empty_cache()


def keep_freed_memory(all_of_it: bool = False) -> None:
    """Have glibc keep blocks of up to 32 MB that are freed, for the next; with `all_of_it` all blocks, as a training wants.

    A block from the system comes page by page, which on a CPU takes up to as long as the convolution that fills it. What is
    kept is this process's until it ends: for a host, blocks of up to 32 MB are enough. Other C libraries are left alone.
    """
    if not all_of_it:
        # glibc keeps blocks no larger than the largest that it was given back so far, of up to 32 MB
        torch.empty((1 << 25) - (1 << 14), dtype=torch.uint8)
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mmap_max, trim_threshold = -4, -1  # malloc.h
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)


class _ExactFloat32:
    """The flags of TF32, which are the process's: turned off while any thread is inside, and then as they were before."""

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
            # since PyTorch 2.9; where a host has set this one, the old one is refused
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
    """Turn TF32 off for the convolutions inside (10 bits of mantissa are not float32), and back to what it was after.

    Several threads may be inside; the last to leave turns it back.
    """
    _exact_float32.enter()
    try:
        yield
    finally:
        _exact_float32.leave()
