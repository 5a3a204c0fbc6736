"""A file that is read is never replaced by a result, whatever it is called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from adain_core.cli import main
from adain_core.errors import AdainError
from adain_core.files import check_not_sources
from adain_core.images import save_image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, small_files, vgg):
    """Pictures, networks, a style and links to them."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/x.png", "d/sub/x.png", "d/sub/sub/x.png", "styles/s.png", "photo.png", "other.png", "plain/samples.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 20, 24), name)
    for path, name in zip((*small_files, vgg), ("encoder", "decoder", "judge"), strict=True):
        Path(f"{name}.safetensors").write_bytes(path.read_bytes())
    Path("mask.png").write_bytes(Path("photo.png").read_bytes())
    Path("out").mkdir()
    Path("out/sub").symlink_to("../in")
    Path("deep/sub").mkdir(parents=True)
    save_image(torch.rand(3, 20, 24), "deep/sub/x.png")
    Path("link.png").symlink_to("photo.png")
    Path("hard.png").hardlink_to("photo.png")
    Path("linked").symlink_to("in")
    Path("set").mkdir()
    Path("set/sub").symlink_to("../plain")
    Path("judge2.safetensors").symlink_to("judge.safetensors")
    assert (
        main(
            ["style", "make", "styles/s.png", "-o", "style.safetensors", "--encoder", "encoder.safetensors", "--device", "cpu"]
        )
        == 0
    )
    Path("result-decoder.safetensors").write_bytes(Path("decoder.safetensors").read_bytes())
    return tmp_path


TRAIN = [
    "train",
    "--styles",
    "styles",
    "--encoder",
    "judge.safetensors",
    "--loss-encoder",
    "judge.safetensors",
    "--device",
    "cpu",
]
CLIP = ["--content-statistics", "running"]
EVALUATE = ["--contents", "in", "--styles", "styles", "--loss-encoder", "judge.safetensors"]
REFUSED = {
    "a picture": ["stylize", "photo.png", "other.png", "-o", "photo.png"],
    "a picture by a link": ["stylize", "photo.png", "other.png", "-o", "link.png"],
    "a picture read through a link": ["stylize", "link.png", "other.png", "-o", "photo.png"],
    "a picture by a hard link": ["stylize", "photo.png", "other.png", "-o", "hard.png"],
    "a picture by its folder": ["stylize", "in/x.png", "other.png", "-o", "linked"],
    "a style picture": ["stylize", "photo.png", "other.png", "-o", "other.png"],
    "a mask": ["stylize", "photo.png", "other.png", "--mask", "mask.png", "-o", "mask.png"],
    "a picture below the folder of results": ["stylize", "d/sub", "other.png", "-o", "d"],
    "pictures behind a link in the results": ["stylize", "deep", "other.png", "-o", "out2"],
    "a style among the results": ["stylize", "in", "out3/x.png", "-o", "out3"],
    "frames": ["stylize", "d/sub", "other.png", "-o", "d", *CLIP],
    "the last style of a clip": ["stylize", "in", "other.png", "-o", "out3", "--style-to", "out3/x.png", *CLIP],
    "a data set's contents": ["dataset", "d/sub", "styles", "-o", "d"],
    "a data set's contents by its older spelling": ["stylize", "d/sub", "--styles", "styles", "-o", "d"],
    "a style file that is mixed": ["style", "mix", "style.safetensors", "-o", "style.safetensors"],
    "the encoder of a style": ["style", "make", "photo.png", "--encoder", "encoder.safetensors", "-o", "encoder.safetensors"],
    "the decoder of a learned style": ["style", "learn", "photo.png", "--contents", "in", "--decoder", "decoder.safetensors",
                                       "-o", "decoder.safetensors"],
    "a converted network": ["convert", "judge.safetensors", "-o", "judge.safetensors"],
    "a converted network by a link": ["convert", "judge2.safetensors", "-o", "judge.safetensors"],
    "a decoder in a mean": ["average", "result", "./result", "-o", "result"],
    "a content of the evaluation": ["evaluate", *EVALUATE, "-o", "in/x.png"],
    "the loss network of the evaluation": ["evaluate", *EVALUATE, "-o", "judge2.safetensors"],
    "a figure over a style of the sheet": ["evaluate", "sheet", *EVALUATE, "--results", "d", "-o", "styles/s.json"],
    "the network of the bench": ["bench", "--encoder", "judge.safetensors", "-o", "judge.safetensors"],
    "the decoder that a training begins with": [*TRAIN, "--contents", "in", "--start-from", "result-decoder.safetensors",
                                                "--name", "result", "--output", "."],
    "the teacher of a training": [*TRAIN, "--contents", "in", "--teacher", "result-decoder.safetensors", "--name", "result",
                                  "--output", "."],
    "a training's content": [*TRAIN, "--contents", "set", "--output", "plain"],
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_target_that_is_a_source_is_refused_before_the_work(folder, monkeypatch, capsys, what):
    Path("out2").mkdir()
    Path("out2/sub").symlink_to("../deep/sub")
    Path("out3").symlink_to("linked3")
    Path("linked3").mkdir()
    Path("linked3/x.png").write_bytes(Path("other.png").read_bytes())
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    loading = [f"{module}.read_network" for module in ("convert", "average")] + ["options.load_encoder", "style.load_encoder"]
    for name in (*loading, "evaluate.evaluate", "bench.bench"):
        monkeypatch.setattr(f"adain_core.cli.{name}", lambda *rest, **more: pytest.fail("the work began"))
    capsys.readouterr()
    assert main(REFUSED[what]) == 2
    err = capsys.readouterr().err
    assert "one of the files that are read, and would be replaced" in err or "is the content itself" in err
    assert err.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_names_that_differ_in_case_are_one_where_the_disk_says_so(folder):
    twin = Path("PHOTO.png")
    if not twin.exists():  # as on a disk that does not tell them apart
        twin.hardlink_to("photo.png")
    with pytest.raises(AdainError, match="PHOTO.png is photo.png, one of the files that are read"):
        check_not_sources([twin], ["photo.png"])


def test_other_targets_are_not_refused(folder):
    check_not_sources(["new.png", "out", "other.png", "nowhere/x.png"], ["photo.png", "lite", "", "in", "nul\0l", "hf:a/b/c"])
