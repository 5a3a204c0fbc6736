"""What ComfyUI and its managers take from the root folder."""

from __future__ import annotations

import re

from root import ROOT


def test_installing_in_comfyui_leaves_torch_alone():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    names = {re.split(r"[<>=~! \[;]", line)[0].lower() for line in lines if not line.startswith("#")}
    assert "safetensors" in names and not names & {"torch", "torchvision", "torchaudio"}


def test_the_front_end_finds_its_folder(plugin):
    assert (ROOT / plugin.WEB_DIRECTORY / "gallery.js").is_file()


def test_the_registry_gets_templates_and_subgraphs():
    left_out = (ROOT / ".comfyignore").read_text().splitlines()
    assert not {"subgraphs/", "workflows/", "web/", "locales/"} & set(left_out)
    assert list((ROOT / "subgraphs").glob("*.json"))


def test_the_registry_gets_no_more_than_the_nodes_need():
    left_out = (ROOT / ".comfyignore").read_text().splitlines()
    assert {"/docs/", "tests/", "adain_core/experiments/", "workflows/api/"} <= set(left_out)
