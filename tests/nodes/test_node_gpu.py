"""The nodes on the GPU that is not there: see tests/test_gpu.py."""

from __future__ import annotations

import pytest
import torch
from stand_in_gpu import put_on_gpu, stand_in


@pytest.fixture
def gpu(part, encoder, decoder, style, monkeypatch):
    """The networks on a GPU, where the host would have brought them."""
    monkeypatch.setattr(part("nodes.host"), "_load", lambda patchers, memory: None)
    for module in ("tiling", "stylize"):
        monkeypatch.setattr(part(f"adain_core.{module}"), "free_memory", lambda device: 8 << 30)
    kept = part("adain_core.networks.fast")._places
    kept.cache_clear()
    with stand_in() as counted:
        for patcher in (encoder, decoder):
            patcher.model.dtype = torch.float16
            put_on_gpu(patcher.model)
        yield counted
    kept.cache_clear()


def test_the_nodes_path_sends_a_picture_and_gets_one_back(gpu, run, encoder, decoder, style):
    content = torch.rand(1, 80, 64, 3)
    for _ in range(2):  # the first time kernels are prepared, and a flat picture of this colour
        gpu.taken()
        features = run("AdaIN", encoder=encoder, content=content, style=style)
        of_transfer = gpu.taken()
        image = run("Decode", decoder=decoder, features=features)
        of_decode = gpu.taken()
    levels = [level.channels for level in encoder.model.levels]
    assert of_transfer.uploads == [(1, 3, 80, 64), *((2, 1, channels) for channels in levels)]
    # between the nodes features lie on the CPU, as ComfyUI keeps results
    assert len(of_transfer.downloads) == len(of_decode.uploads) == len(levels)
    assert image.shape == (1, 80, 64, 3)
    # the picture, and its preview, made small
    assert of_decode.downloads[0] == (1, 3, 80, 64) and all(max(shape) <= 512 for shape in of_decode.downloads[1:])


def test_a_preview_is_made_small_on_the_gpu(gpu, part):
    part("nodes.host").progress()(1, 1, torch.rand(1, 3, 2000, 1000).to("cuda"))
    assert gpu.taken().downloads == [(667, 334, 3)]


def test_a_sampling_step_sends_the_statistics_of_a_reference_together(gpu, part):
    latent = part("nodes.latent")
    target = latent.latent_statistics(torch.rand(1, 4, 8, 8))
    gpu.taken()
    latent.adain_latent(torch.rand(2, 4, 9, 9).to("cuda"), target, 0.5)
    count = gpu.taken()
    assert count.uploads == [(2, 4, 9, 9), (2, 1, 4)] and count.downloads == []
