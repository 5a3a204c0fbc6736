"""`adain dataset`: every picture of a data set in styles drawn at random."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adain_core import encode_style, keep_colors, load_decoder, load_encoder, stylize
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
    return ["dataset", str(tmp_path / "contents"), str(tmp_path / "styles"), *networks, *OPTIONS]


@pytest.fixture
def stylize_command(command):
    """The same by its older spelling."""
    _, contents, styles, *rest = command
    return ["stylize", contents, "--styles", styles, *rest]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(command, tmp_path):
    """What one run in one go writes."""
    assert main([*command, "-o", str(tmp_path / "whole")]) == 0
    return files(tmp_path / "whole")


@pytest.mark.parametrize("options, finish", [([], lambda result, content: result), (["--keep-colors"], keep_colors)])
def test_every_picture_gets_different_styles_and_keeps_its_place(command, tmp_path, small_files, options, finish):
    assert main([*command, *options, "-o", str(tmp_path / "out")]) == 0
    names = files(tmp_path / "out")
    assert len(names) == 18
    name = next(name for name in names if name.startswith("dogs/small/7-stylized-"))
    style = name.removeprefix("dogs/small/7-stylized-").removesuffix(".png")
    path = tmp_path / "styles" / style.replace("_", "/")  # with its ending, since names without are not unique
    encoder, decoder = (load(str(file)) for load, file in zip((load_encoder, load_decoder), small_files, strict=True))
    content = torch.nn.functional.interpolate(
        load_image(tmp_path / "contents/dogs/small/7.png"), (8, 13), mode="bicubic", antialias=True
    ).clamp(0, 1)
    expected = finish(stylize(encoder, decoder, content, encode_style(encoder, load_image(path), size=0)), content)
    assert (load_image(tmp_path / "out" / name) - expected).abs().max() < 0.6 / 255


def test_stylize_with_styles_does_the_same(stylize_command, whole, tmp_path):
    assert main([*stylize_command, "-o", str(tmp_path / "stylized")]) == 0
    assert files(tmp_path / "stylized") == whole


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
    for at in (5, 8):
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


@pytest.mark.parametrize("default", [[], ["--texture", "1"]])
def test_an_unfinished_data_set_of_other_settings_is_refused(
    command, whole, tmp_path, monkeypatch, capsys, default
):
    arguments, saved = [*command, "-o", str(tmp_path / "out")], []

    def save(*picture):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(save_image(*picture))

    with monkeypatch.context() as patched:
        patched.setattr("adain_core.cli.dataset.save_image", save)
        assert main(arguments) == 130
    half = files(tmp_path / "out")
    for other in (["--alpha", "0.5"], ["--seed", "4"], ["--per-picture", "1"]):
        assert main([*arguments, *other]) == 2
        assert "holds an unfinished data set of other settings; give the same ones to go on" in capsys.readouterr().err
    (tmp_path / "styles" / "z.png").rename(tmp_path / "z.png")
    save_image(torch.rand(3, 9, 9), tmp_path / "styles" / "z.png")  # another painting of that name
    assert main(arguments) == 2 and "of other settings" in capsys.readouterr().err
    (tmp_path / "z.png").replace(tmp_path / "styles" / "z.png")
    assert files(tmp_path / "out") == half
    assert main([*arguments, *default]) == 0 and files(tmp_path / "out") == whole
    capsys.readouterr()
    assert main(arguments) == 0 and "beside 18 that were there and are kept as they are" in capsys.readouterr().err


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


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_may_be_any_bytes(command, tmp_path):
    os.rename(tmp_path / "contents/cats/2.png", os.fsencode(tmp_path / "contents/cats") + b"/\xe9t\xe9.png")
    os.rename(tmp_path / "styles/z.png", os.fsencode(tmp_path / "styles") + b"/\xfc.png")
    assert main([*command, "-o", str(tmp_path / "out")]) == 0
    assert sum(name.startswith("cats/\udce9t\udce9-stylized-") for name in files(tmp_path / "out")) == 2


@pytest.fixture
def no_networks(monkeypatch):
    """Fails where the networks are loaded."""
    monkeypatch.setattr("adain_core.cli.options.load_encoder", lambda *_: pytest.fail("the networks were loaded"))


@pytest.mark.parametrize("change, sentence", [
    (["--per-picture", "7"], "there are 6 styles to draw from"),
    (["--per-picture", "0"], "there are 6 styles to draw from"),
    (["--alpha", "2"], "alpha is 2.0; it must be"),
    (["--size", "-1"], "the size is -1; give"),
    (["--tile", "3"], "tile is 3; give at least 64"),
    (["--device", "abacus"], "this machine has no device 'abacus'"),
])  # fmt: skip
def test_bad_options_are_refused_before_networks_are_loaded(command, tmp_path, no_networks, change, sentence, capsys):
    assert main([*command, *change, "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("contents, styles, sentence", [
    ("nowhere", "styles", "nowhere is not a folder"),
    ("contents/cats/0.png", "styles", "0.png is not a folder"),
    ("contents", "nowhere", "there is no folder"),
    ("contents", "styles/z.png", "there is no folder"),
    ("contents", "empty", "holds no pictures"),
])  # fmt: skip
def test_folders_without_pictures_are_refused(command, tmp_path, no_networks, contents, styles, sentence, capsys):
    (tmp_path / "empty").mkdir()
    command[1:3] = str(tmp_path / contents), str(tmp_path / styles)
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert sentence in err and err.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("change, sentence", [
    (["a.png"], "either one or more STYLE, or a folder"),
    (["--match-colors"], "do not work with --styles"),
    (["--content-statistics", "running"], "can only be image with --styles"),
    (["--per-picture", "7"], "there are 6 styles to draw from"),
    (["--alpha", "2"], "alpha is 2.0; it must be"),
])  # fmt: skip
def test_stylize_refuses_what_does_not_go_with_styles(stylize_command, tmp_path, no_networks, change, sentence, capsys):
    place = 2 if change == ["a.png"] else len(stylize_command)
    stylize_command[place:place] = change
    assert main([*stylize_command, "-o", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
