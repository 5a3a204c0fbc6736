"""Tensors on their way between the host and a GPU; on CUDA neither waits for the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Wait = Callable[[], object]


@dataclass(frozen=True)
class Arrival:
    """A tensor that may still be on its way; `wait` returns it once it is there."""

    tensor: Tensor
    arrived: Wait

    def wait(self) -> Tensor:
        self.arrived()
        return self.tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to CUDA it goes from pinned memory, so that the host goes on meanwhile."""
    if not _is_cuda(device) or tensor.device.type != "cpu":
        return tensor.to(device)
    return _pinned(tensor).copy_(tensor).to(device, non_blocking=True)  # PyTorch keeps the pinned copy until it is read


def bring(tensor: Tensor, device: torch.device) -> Arrival:
    """The tensor on its way to the device; from CUDA to the CPU it goes to pinned memory, while the host goes on."""
    if not _is_cuda(tensor.device) or device.type != "cpu":
        return Arrival(tensor.to(device), nothing)
    return Arrival(_pinned(tensor).copy_(tensor, non_blocking=True), mark(tensor.device))


def one_behind(items: Iterable[Item], device: torch.device) -> Iterator[Item]:
    """The same items, made by work on the device; with CUDA each comes when the work on the next one has been begun."""
    waiting = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _is_cuda(device):
            yield waiting.popleft()
    yield from waiting


def mark(device: torch.device) -> Wait:
    """What waits until a device of CUDA has done all that it was given so far; other devices are not waited for."""
    if not _is_cuda(device):
        return nothing
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def _is_cuda(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_available()  # not one that stands in for a GPU


def _pinned(tensor: Tensor) -> Tensor:
    """Pinned memory of the CPU for a tensor like this one."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True)


def nothing() -> None:
    """Waits for nothing."""
