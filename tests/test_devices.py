"""What a device can do, and how much of it is free."""

from __future__ import annotations

import psutil
import pytest
import torch

from adain_core import devices
from adain_core.devices import fast_dtype, free_memory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", (8, 9), torch.float16),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), torch.float32),
        ("NVIDIA GeForce GTX 1080", (6, 1), torch.float32),
    ],
)
def test_the_fast_number_type_of_an_nvidia_card(monkeypatch, name, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert fast_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "1000000", "memory.current": "700000", "memory.stat": "anon 500000\ninactive_file 50000\n"},
        {
            "memory/memory.limit_in_bytes": "1000000",
            "memory/memory.usage_in_bytes": "700000",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
        },
    ],
    ids=["v2", "v1"],
)
def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "CGROUPS", tmp_path)
    assert free_memory(CPU) == 350_000


def test_without_a_limit_the_system_says_what_is_free(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(devices, "CGROUPS", tmp_path)
    assert abs(free_memory(CPU) - psutil.virtual_memory().available) < 1 << 30


def test_tf32_is_off_until_the_last_of_several_threads_is_done(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    first, second = devices.exact_float32(), devices.exact_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32
