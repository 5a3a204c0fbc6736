"""What crosses between the host and a GPU of CUDA, by one that works only when it is waited for."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adain_core import crossing, decode, encode_style, transfer

CUDA = torch.device("cuda:0")


class LateGPU:
    """Copies by a GPU, which are made when an event behind them is waited for."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []
        self.most = 0

    def bring(self, tensor: Tensor, device: torch.device) -> crossing.Arrival:
        arrived, values = torch.full_like(tensor, 7.0), tensor.clone()
        self.waiting.append(lambda: arrived.copy_(values))
        self.most = max(self.most, len(self.waiting))
        return crossing.Arrival(arrived, self.work)

    def work(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


@pytest.fixture
def late(monkeypatch):
    gpu = LateGPU()
    monkeypatch.setattr(crossing, "_is_cuda", lambda device: True)
    monkeypatch.setattr(crossing, "_pinned", torch.empty_like)
    monkeypatch.setattr(importlib.import_module("adain_core.stylize"), "bring", gpu.bring)  # of the same name as a function
    monkeypatch.setattr("adain_core.tiling.mark", lambda device: gpu.work)
    return gpu


def test_tiles_are_fetched_when_they_are_there_and_one_behind(small, late):
    encoder, decoder = small
    content = torch.rand(1, 3, 150, 200)
    style = encode_style(encoder, torch.rand(1, 3, 40, 40), size=0)
    found = decode(decoder, transfer(encoder, content, style, tile=64), tile=64)
    assert late.most == 2 and not late.waiting
    whole = decode(decoder, transfer(encoder, content, style, tile=0), tile=0)
    assert torch.allclose(found, whole, atol=1e-4)


def test_items_come_when_the_next_one_has_begun_on_cuda_alone(monkeypatch):
    begun = []

    def items():
        for number in range(3):
            begun.append(number)
            yield number

    assert [(number, len(begun)) for number in crossing.one_behind(items(), CUDA)] == [(0, 1), (1, 2), (2, 3)]
    begun.clear()
    monkeypatch.setattr(crossing, "_is_cuda", lambda device: device == CUDA)
    assert [(number, len(begun)) for number in crossing.one_behind(items(), CUDA)] == [(0, 2), (1, 3), (2, 3)]


def test_what_goes_to_cuda_goes_from_pinned_memory_and_back_to_it(monkeypatch):
    copies, pinned = [], []

    class OnGPU:
        """A tensor on the GPU."""

        device, values = CUDA, torch.rand(2, 3)

    class Pinned:
        device = torch.device("cpu")

        def copy_(self, source, non_blocking=False):
            copies.append((type(source), non_blocking))
            return self

        def to(self, device, non_blocking=False):
            copies.append((device, non_blocking))
            return OnGPU()

    class Event:
        def record(self, stream):
            copies.append("recorded")

        def synchronize(self):
            copies.append("waited")

    monkeypatch.setattr(crossing, "_is_cuda", lambda device: device.type == "cuda")
    monkeypatch.setattr(crossing, "_pinned", lambda tensor: pinned.append(tensor) or Pinned())
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    there = crossing.to_device(torch.rand(2, 3), CUDA)
    assert copies == [(Tensor, False), (CUDA, True)]
    arrival = crossing.bring(there, torch.device("cpu"))
    assert copies[2:] == [(OnGPU, True), "recorded"]
    assert isinstance(arrival.wait(), Pinned) and copies[-1] == "waited" and len(pinned) == 2
