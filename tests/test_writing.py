"""What is written is whole or not there, whatever happens meanwhile; `writers.py` writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adain_core import files, large, load_encoder, load_style
from adain_core.cli import main
from adain_core.hub import HubError
from adain_core.images import load_image, save_image
from adain_core.training.checkpoints import load_checkpoint
from adain_core.weights import read_network

HERE = Path(__file__).parent
if sys.platform != "linux":
    pytest.skip("looks into /proc, and forks", allow_module_level=True)
pytest.importorskip("av")
pytest.importorskip("pyvips")
writers = pytest.importorskip("writers")


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """`folder` as a disk of its own in memory; where none can be mounted the test is skipped."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory) -> Iterator[Path]:
    """A disk of 2 MB."""
    with mounted(tmp_path_factory.mktemp("disk"), "2m") as folder:
        yield folder


# a kill, a full disk


@pytest.fixture(scope="module", params=["limited", pytest.param("filled", marks=pytest.mark.mounts)])
def outcomes(request, tmp_path_factory) -> dict:
    """What writers.py found of each file: as it was "killed", and "full", by a limit of files or on a small disk."""
    folder, modes = tmp_path_factory.mktemp("written"), ["killed", "limited"]
    if request.param == "filled":  # comes last: what a killed run leaves is removed by the next, which makes room
        folder, modes = request.getfixturevalue("small_disk"), [*modes, "filled"]
    command = [sys.executable, HERE / "writers.py", folder, *modes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE.parent}{os.pathsep}{HERE}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {name: found | {"full": found[request.param]} for name, found in json.loads(done.stdout).items()}


every_writer = pytest.mark.parametrize("name", writers.WRITERS)


@every_writer
def test_a_kill_before_the_end_leaves_the_old_file_and_what_the_next_run_removes(outcomes, name):
    found = outcomes[name]
    assert found["first"] == [0, ""] and found["killed"]["signal"] == signal.SIGKILL and found["killed"]["whole"]
    assert found["killed"]["left"] and all(left.startswith(".") or left.endswith(".parts") for left in found["killed"]["left"])
    assert found["again"] == {"ended": [0, ""], "replaced": True, "left": []}


@every_writer
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(outcomes, name):
    found = outcomes[name]["full"]
    assert outcomes[name]["size"] > writers.LIMIT
    assert found["signal"] == 0 and found["whole"]
    assert "the disk is full" in found["sentence"] or "free some space, or write to another disk" in found["sentence"]
    assert found["sentence"].startswith(("OSError", "AdainError")) and "\n" not in found["sentence"]
    killed = outcomes[name]["killed"]["left"]
    assert {left for left in found["left"] if left not in killed} == set()


@pytest.mark.mounts
def test_a_picture_whose_pixels_fill_the_disk_ends_in_an_error_and_not_with_the_process(small_disk):
    with pytest.raises(OSError) as caught:
        large.RawPicture(small_disk / "pixels", 1000, 1000)
    assert caught.value.errno == errno.ENOSPC


# what no process holds cannot be in the way on Windows


def held(path: str | Path) -> list[str]:
    """How this process holds a file: open, or mapped into memory."""
    numbers = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    held = [os.readlink(number) for number in numbers if os.path.lexists(number)]
    return [text for text in [*held, *Path("/proc/self/maps").read_text().splitlines()] if text.endswith(str(path))]


READERS = {
    ".safetensors": lambda path: {"network": read_network, "style": load_style}.get(path.stem, files.read_safetensors)(path),
    ".pt": lambda path: load_checkpoint(path, {}),
    ".json": Path.read_text,
    ".mp4": lambda path: writers.Video(path),
}


@every_writer
def test_nothing_is_replaced_or_removed_while_it_is_open_or_mapped(tmp_path, monkeypatch, name):
    target, write, seen = tmp_path / name, writers.WRITERS[name], []
    write(target, 1)
    kept = READERS.get(target.suffix, load_image)(target)
    replace, remove = os.replace, os.unlink

    def checked_replace(source, destination):
        seen.append(Path(destination).name)
        assert not held(source) and not held(destination)
        replace(source, destination)

    def checked_remove(path, dir_fd=None):
        folder = "" if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
        assert not held(os.path.join(folder, path))
        remove(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "replace", checked_replace)
    monkeypatch.setattr(os, "unlink", checked_remove)
    write(target, 2)
    assert name in seen and kept is not None


def test_a_held_file_would_be_seen(tmp_path):
    (tmp_path / "file").write_bytes(bytes(99))
    with (tmp_path / "file").open():
        assert held(tmp_path / "file")
    assert not held(tmp_path / "file")


# folders that cannot be written to


@pytest.fixture(params=["permissions", pytest.param("disk", marks=pytest.mark.mounts)])
def read_only(request, tmp_path) -> Iterator[Path]:
    """A folder with a file, to neither of which can be written."""
    folder = tmp_path / "kept"
    folder.mkdir()
    if request.param == "disk":
        with mounted(folder, "1m"):
            (folder / "old.png").write_text("old")
            subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
            yield folder
        return
    if os.geteuid() == 0:
        pytest.skip("permissions do not hinder root; `pytest -m mounts` does this on a disk of its own")
    (folder / "old.png").write_text("old")
    folder.chmod(0o555)
    yield folder
    folder.chmod(0o755)


@pytest.mark.parametrize("name", ["old.png", "new.png"])
def test_a_read_only_folder_is_one_sentence(read_only, name):
    with pytest.raises(OSError, match=rf"{name} cannot be written: .*; free it if it is read-only") as caught:
        save_image(torch.rand(3, 9, 9), read_only / name)
    assert "\n" not in str(caught.value)
    assert [path.read_text() for path in read_only.iterdir()] == ["old"]


def test_a_read_only_cache_is_one_sentence(read_only, served, small_files, monkeypatch):
    served.serve("me/model/a.safetensors", small_files[0])
    for cache in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
        monkeypatch.setattr(f"adain_core.hub.constants.{cache}", str(read_only / cache))
    with pytest.raises(HubError, match="a.safetensors cannot be pulled: .* is read-only, or set HF_HOME to a folder"):
        load_encoder("hf:me/model/a.safetensors")


@pytest.mark.parametrize(
    "command",
    [
        ["stylize", "photo.png", "photo.png", "-o", "kept/old.png"],
        ["stylize", "photo.png", "photo.png", "-o", "kept"],
        ["stylize", "photos", "photo.png", "-o", "kept"],
        ["stylize", "photos", "photo.png", "-o", "kept/new/folder"],
        ["stylize", "photos", "photo.png", "-o", "kept", "--content-statistics", "running"],
        ["stylize", "clip.mp4", "photo.png", "-o", "kept/new.mp4"],
        ["stylize", "photos", "--styles", "photos", "-o", "kept/new"],
        ["dataset", "photos", "photos", "-o", "kept/new"],
        ["style", "make", "photo.png", "-o", "kept/new.safetensors"],
        ["style", "learn", "photo.png", "--contents", "photos", "-o", "kept/new.safetensors"],
        ["style", "mix", "style.safetensors", "-o", "kept/new.safetensors"],
        ["convert", "network.safetensors", "-o", "kept/new.safetensors"],
        ["average", "lite", "lite", "-o", "kept/new"],
        ["evaluate", "--contents", "photos", "--styles", "photos", "--loss-encoder", "x", "-o", "kept/new.json"],
        ["bench", "-o", "kept/new.json"],
        ["train", "--contents", "photos", "--styles", "photos", "--loss-encoder", "x", "--output", "kept/new"],
    ],
)
def test_commands_refuse_a_read_only_folder_before_the_work(read_only, tmp_path, monkeypatch, capsys, command):
    def began(*arguments, **options):
        pytest.fail("the work began")

    monkeypatch.chdir(tmp_path)
    for path in ("photo.png", "photos/photo.png"):
        Path(path).parent.mkdir(exist_ok=True)
        save_image(torch.rand(3, 9, 9), path)
    writers.clips.write_clip(tmp_path / "clip.mp4", writers.clips.noise(2))
    writers.style(tmp_path / "style.safetensors", 1)
    loading = [f"{module}.read_network" for module in ("convert", "average")] + ["options.load_encoder", "style.load_encoder"]
    for function in (*loading, "evaluate.evaluate", "bench.bench"):
        monkeypatch.setattr(f"adain_core.cli.{function}", began)
    monkeypatch.setattr("adain_core.training.trainer.frozen", began)
    assert main(command) == 2
    err = capsys.readouterr().err
    assert err.startswith("adain: kept/") and "free it if it is read-only" in err and err.count("\n") == 1
    assert [path.read_text() for path in read_only.iterdir()] == ["old"]
