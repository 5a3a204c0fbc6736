"""`adain stylize DIR --styles DIR`: every picture of a data set in styles drawn at random."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adain_core import encode_style, load_decoder, load_encoder, stylize
from adain_core.cli import main
from adain_core.images import load_image, save_image

OPTIONS = ["--per-picture", "2", "--seed", "3", "--size", "8", "--style-size", "0", "--device", "cpu"]


@pytest.fixture
def command(tmp_path, small_files):
    """The options of a data set of nine pictures in two folders, and six styles, of which three have the same name."""
    for k in range(9):
        folder = tmp_path / "contents" / ("cats" if k < 5 else "dogs/small")
        folder.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 9, 8 + k), folder / f"{k}.png")
    for name in ("a/x.png", "b/x.png", "b/y.png", "x.png", "x.jpg", "z.png"):
        (tmp_path / "styles" / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(3, 8, 8), tmp_path / "styles" / name)
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1])]
    return ["stylize", str(tmp_path / "contents"), "--styles", str(tmp_path / "styles"), *networks, *OPTIONS]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(command, tmp_path):
    """What one run in one go writes."""
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    return files(tmp_path / "whole")


def test_every_picture_gets_different_styles_and_keeps_its_place(command, whole, tmp_path, small_files):
    assert len(whole) == 18
    name = next(name for name in whole if name.startswith("dogs/small/7-stylized-"))
    style = name.removeprefix("dogs/small/7-stylized-").removesuffix(".png")
    path = tmp_path / "styles" / style.replace("_", "/")  # with its ending, since names without are not unique
    encoder, decoder = (load(str(file)) for load, file in zip((load_encoder, load_decoder), small_files, strict=True))
    content = torch.nn.functional.interpolate(
        load_image(tmp_path / "contents/dogs/small/7.png"), (8, 13), mode="bicubic", antialias=True
    )
    expected = stylize(encoder, decoder, content.clamp(0, 1), encode_style(encoder, load_image(path), size=0))
    assert (load_image(tmp_path / "whole" / name) - expected).abs().max() < 0.6 / 255


def test_the_seed_decides(command, whole, tmp_path):
    command[command.index("--seed") + 1] = "4"
    assert main([*command, "-o", str(tmp_path / "other")]) == 0
    assert files(tmp_path / "other").keys() != whole.keys()


def die_while_writing(arguments: list[str], at: int) -> None:
    """Run the command until its write number `at`, of which a half gets to the disk."""
    write, count = Path.write_bytes, 0

    def interrupted(self, content):
        nonlocal count
        count += 1
        if count == at:
            write(self, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, content)

    Path.write_bytes = interrupted
    main(arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_twice_ends_like_one_in_one_go(command, whole, tmp_path):
    arguments = [*command, "-o", str(tmp_path / "killed")]
    for at in (4, 7):
        process = multiprocessing.get_context("spawn").Process(target=die_while_writing, args=(arguments, at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    done = {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in whole if (tmp_path / "killed" / name).exists()}
    assert len(done) == 9
    assert main(arguments) == 0
    assert files(tmp_path / "killed") == whole
    assert {name: os.stat(tmp_path / "killed" / name).st_mtime_ns for name in done} == done  # not made again


def test_two_processes_write_what_one_writes(command, whole, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    launch += ["--rdzv-endpoint=127.0.0.1:0", "-m", "adain_core", *command, "-o", str(tmp_path / "two")]
    done = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "two") == whole


def test_results_among_the_contents_are_refused(command, tmp_path, capsys):
    assert main([*command, "-o", str(tmp_path / "contents" / "out")]) == 2
    assert "outside of" in capsys.readouterr().err


def test_a_broken_style_leaves_the_others(command, whole, tmp_path):
    (tmp_path / "styles/z.png").write_bytes(b"no picture")
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert 0 < sum("-stylized-z" in name for name in whole) == len(whole) - len(files(tmp_path / "out"))


def test_broken_pictures_are_counted_and_the_others_done(command, tmp_path, capsys):
    (tmp_path / "contents/cats/2.png").write_bytes(b"no picture")
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert len(files(tmp_path / "out")) == 16
    assert "1 of 9 pictures could not be stylised" in capsys.readouterr().err


@pytest.mark.parametrize("change, sentence", [
    (["a.png"], "either one or more STYLE, or a folder"),
    (["--match-colors"], "do not go with --styles"),
    (["--per-picture", "7"], "there are 6 styles to draw from"),
    (["--alpha", "2"], "alpha is 2.0; it must be"),
])  # fmt: skip
def test_what_cannot_be_is_refused(command, tmp_path, change, sentence, capsys):
    command[2:2] = change if change[0] == "a.png" else []
    assert main([*command, *(change if change[0] != "a.png" else []), "-o", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
