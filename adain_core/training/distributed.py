"""One training in several processes, which torch's launcher (`torchrun`) started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
import torch.distributed as dist

from ..devices import rank_and_size


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Connect the launched processes, by NCCL on CUDA and Gloo elsewhere; does nothing for a single process."""
    if rank_and_size()[1] == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def same_in_processes(value: int, device: torch.device) -> bool:
    """Whether `value` is the same in all processes."""
    if not dist.is_initialized():
        return True
    largest = torch.tensor([value, -value], device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return bool(largest.sum() == 0)


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of `values` over all processes."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()
