"""What the host is asked for, and how its memory comes back."""

from __future__ import annotations

import weakref

import pytest
import torch


@pytest.fixture
def host(folders, part):
    return part("nodes.host")


@pytest.fixture
def asked(host, monkeypatch) -> list[float]:
    """The bytes that the host was asked for beside the networks."""
    requests = []
    load = host.model_management.load_models_gpu

    def noted(patchers, memory_required=0, **options):
        requests.append(memory_required)
        return load(patchers, memory_required=memory_required, **options)

    monkeypatch.setattr(host.model_management, "load_models_gpu", noted)
    return requests


def test_a_large_picture_asks_for_the_memory_of_a_tile(host, asked, encoder):
    for size, tile in (((512, 512), None), ((1024, 1024), None), ((8000, 8000), None), ((2048, 2048), 0), ((8000, 8000), 2048)):
        with host.working([encoder], size, tile):
            pass
    assert asked[0] < asked[1] == asked[2] < asked[3] == asked[4]


def test_a_style_asks_for_the_memory_of_the_size_it_is_encoded_at(run, asked, encoder):
    run("EncodeStyle", encoder=encoder, image=torch.rand(1, 64, 64, 3), size=64)
    run("EncodeStyle", encoder=encoder, image=torch.rand(1, 640, 640, 3), size=64)
    assert asked[-1] == asked[-2]


def test_refining_a_large_picture_asks_for_the_memory_of_a_tile(host, run, asked, encoder, monkeypatch):
    monkeypatch.setattr(host, "ENOUGH", 16)
    for side in (12, 16, 24):
        image = torch.rand(1, side, side, 3)
        run("Refine", image=image, content=image, style_image=image, encoder=encoder, steps=1)
    assert asked[0] < asked[1] == asked[2]


def test_a_network_that_the_host_leaves_where_it_is_is_moved(host, encoder, monkeypatch):
    # as with --novram; the meta device stands in for a GPU
    monkeypatch.setattr(host.model_management, "load_models_gpu", lambda patchers, **options: None)
    encoder.load_device = torch.device("meta")
    with host.working([encoder], (64, 64)):
        assert next(encoder.model.parameters()).device.type == "meta"


@pytest.mark.parametrize("kind", [RuntimeError, torch.cuda.OutOfMemoryError])
def test_a_training_out_of_memory_gives_it_back_and_says_so_in_the_hosts_class(host, encoder, monkeypatch, kind):
    held = []

    def train():
        tensors = torch.zeros(1000)
        held.append(weakref.ref(tensors))
        raise kind("CUDA out of memory")

    def empty(*arguments):
        assert held[0]() is None  # what still holds tensors keeps their memory
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(host.model_management, "soft_empty_cache", empty)
    with pytest.raises(kind, match="too little memory for this training"), host.training([encoder], 64):
        train()


def test_the_host_counts_the_memory_of_devices_that_only_it_knows(host, part, monkeypatch):
    monkeypatch.setattr(host.model_management, "get_free_memory", lambda device: 123)
    host.share_memory_count()
    assert part("adain_core.devices").free_memory(torch.device("privateuseone")) == 123


def test_previews_are_few_and_small(host, monkeypatch):
    shown, now = [], [100.0]

    class Bar:
        def __init__(self, total):
            pass

        def update_absolute(self, done, total, preview):
            shown.append(preview and preview[1].size)

    monkeypatch.setattr(host, "ProgressBar", Bar)
    monkeypatch.setattr(host.time, "monotonic", lambda: now[0])
    show = host.progress()
    for done in range(8):
        show(done, 8, torch.rand(2, 3, 2000, 1000))
        now[0] += 0.2
    show(8, 8, torch.rand(2, 3, 40, 1))
    assert [index for index, size in enumerate(shown) if size] == [0, 2, 4, 6, 8]
    assert shown[0] == (334, 667) and shown[8] == (1, 40)
    show(1, 8, None)
    assert shown[-1] is None
