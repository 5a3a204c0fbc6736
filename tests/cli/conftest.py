from __future__ import annotations

import pytest
import torch

from adain_core import encode_style, load_encoder
from adain_core.cli import main
from adain_core.images import load_image, save_image


@pytest.fixture
def folder(tmp_path, monkeypatch, small_files):
    """A folder to stand in, with pictures, a model named small, and a style file of the picture red.png."""
    monkeypatch.chdir(tmp_path)
    for name, shape in (("photo.png", (24, 30)), ("lake.png", (20, 26)), ("red.png", (20, 20)), ("blue.png", (16, 22))):
        save_image(torch.rand(3, *shape), tmp_path / name)
    for path in small_files:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    encode_style(load_encoder("small"), load_image("red.png")).save("sunset.safetensors")
    return tmp_path


@pytest.fixture
def adain(folder, capsys):
    """Runs the command: its status, and what it wrote to stderr."""

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        try:
            status = main(list(arguments))
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        return status, capsys.readouterr().err

    return run


@pytest.fixture
def stylize(adain):
    """Runs `adain stylize` with the model small."""
    return lambda *arguments: adain("stylize", *arguments, "--model", "small", "--device", "cpu")
