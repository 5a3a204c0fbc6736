"""Several processes, one training: what torch's launcher (`torchrun`) started."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
import torch.distributed as dist


def rank_and_size() -> tuple[int, int]:
    """This process's number among those of its launch, and how many they are; (0, 1) where none was launched."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@contextlib.contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """The launched processes connected, by NCCL on CUDA and Gloo elsewhere; nothing where there is one process."""
    if rank_and_size()[1] == 1:
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor that every process has."""
    if not dist.is_initialized():
        return values
    dist.all_reduce(values)
    return values / dist.get_world_size()
