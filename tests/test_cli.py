import dataclasses
import io
import os
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from adain_core import encode_style, keep_colors, load_encoder, load_style, match_colors, mix_styles, stylize
from adain_core.cli import main
from adain_core.errors import AdainError
from adain_core.images import load_image, resize, save_image
from adain_core.weights import load_decoder


@pytest.fixture
def folder(tmp_path, monkeypatch, small_files):
    """A folder to stand in, with pictures and a small network."""
    monkeypatch.chdir(tmp_path)
    for name, shape in (("photo.png", (24, 30)), ("red.png", (20, 20)), ("blue.png", (16, 22)), ("mask.png", (8, 8))):
        save_image(torch.rand(3, *shape), tmp_path / name)
    for role, path in zip(("encoder", "decoder"), small_files, strict=True):
        (tmp_path / f"{role}.safetensors").write_bytes(path.read_bytes())
    return tmp_path


NETWORKS = ["--encoder", "encoder.safetensors", "--decoder", "decoder.safetensors"]


def run(*arguments: str) -> int:
    return main([str(a) for a in arguments])


def expected(content, style, **options):
    return stylize(load_encoder("encoder.safetensors"), load_decoder("decoder.safetensors"), content, style, **options)


def style_of(name, size=512):
    return encode_style(load_encoder("encoder.safetensors"), load_image(name), size)


def same(path, picture) -> bool:
    # rounding to 8 bits, and what one device differs from another
    return (load_image(path) - picture).abs().max().item() < 0.55 / 255


def test_one_picture_in_one_style(folder, device):
    assert run("stylize", "photo.png", "red.png", "-o", "out.png", "--device", device, *NETWORKS) == 0
    assert same("out.png", expected(load_image("photo.png"), style_of("red.png")))


def test_styles_may_stand_behind_options(folder):
    assert run("stylize", "photo.png", "-o", "out.png", "red.png", "blue.png", *NETWORKS) == 0
    assert same("out.png", expected(load_image("photo.png"), mix_styles([style_of("red.png"), style_of("blue.png")])))


def test_sizes_alpha_mix_mask_and_style_files(folder):
    assert run("style", "make", "red.png", "-o", "red.safetensors", "--size", "9", "--encoder", "encoder.safetensors") == 0
    arguments = ["--alpha", "0.7", "--weights", "1", "3", "--mask", "mask.png", "-", "--size", "12", "--style-size", "11"]
    assert run("stylize", "photo.png", "red.safetensors", "blue.png", "-o", "out.png", *arguments, *NETWORKS) == 0
    mask = (load_image("mask.png")[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    style = mix_styles([style_of("red.png", 9).masked(mask), style_of("blue.png", 11)], [1, 3])
    assert same("out.png", expected(resize(load_image("photo.png"), 12), style, alpha=0.7))


def test_large_pictures_are_worked_on_at_1024_pixels_unless_another_size_is_said(folder):
    content, style = load_image("photo.png"), style_of("red.png")
    for size, arguments in ((1024, []), (10, ["--working-size", "10", "--detail", "0.3"]), (0, ["--working-size", "0"])):
        picture = resize(content, 1100) if size == 1024 else content
        save_image(picture, "in.png")
        assert run("stylize", "in.png", "red.png", "-o", "out.png", *arguments, *NETWORKS) == 0
        detail = 0.3 if size == 10 else 0.8
        assert same("out.png", expected(load_image("in.png"), style, working_size=size, detail=detail))


def test_a_style_file_of_several_styles_makes_no_more_pictures_of_one(folder, capsys):
    shares = [torch.linspace(0, 1, 20), torch.linspace(1, 0, 20)]
    mix_styles([style_of("red.png"), style_of("blue.png")], shares).save("sweep.safetensors")
    assert run("stylize", "photo.png", "sweep.safetensors", "-o", "out.png", *NETWORKS) == 2
    assert "is 20 styles for as many frames; give it to a clip" in capsys.readouterr().err
    assert not (folder / "out.png").exists()


def test_colours(folder):
    content = load_image("photo.png")
    assert run("stylize", "photo.png", "red.png", "-o", "keep.png", "--keep-colors", *NETWORKS) == 0
    assert same("keep.png", keep_colors(expected(content, style_of("red.png")), content))
    assert run("stylize", "photo.png", "red.png", "-o", "match.png", "--match-colors", *NETWORKS) == 0
    matched = encode_style(load_encoder("encoder.safetensors"), match_colors(load_image("red.png"), content))
    assert same("match.png", expected(content, matched))


def test_a_folder_goes_on_past_a_broken_picture(folder, capsys):
    (folder / "in" / "sub").mkdir(parents=True)
    (folder / "photo.png").rename("in/sub/photo.png")
    save_image(torch.rand(3, 9, 9), "in/a.jpg")
    (folder / "in" / "broken.png").write_text("not a picture")
    assert run("stylize", "in", "red.png", "-o", "out", *NETWORKS) == 1
    assert sorted(p.relative_to(folder / "out").as_posix() for p in (folder / "out").rglob("*.*")) == ["a.jpg", "sub/photo.png"]
    assert "1 of 3" in (err := capsys.readouterr().err) and "broken.png" in err


def test_a_picture_too_long_for_its_format_is_refused_before_the_work(folder, capsys, monkeypatch):
    monkeypatch.setattr("adain_core.cli.pictures.stylize", lambda *_, **__: pytest.fail("it was stylised"))
    save_image(torch.rand(3, 2, 16384), folder / "long.png")
    assert run("stylize", "long.png", "red.png", "-o", "long.webp", *NETWORKS) == 2
    assert "WEBP allows at most 16383; write a PNG or a TIFF" in capsys.readouterr().err


def test_two_pictures_that_would_become_one_file_are_refused(folder, capsys):
    (folder / "in").mkdir()
    Image.new("RGB", (9, 9)).save("in/a.gif")
    save_image(torch.rand(3, 9, 9), "in/a.gif.png")
    assert run("stylize", "in", "red.png", "-o", "out", *NETWORKS) == 2
    assert "would both be written to out/a.gif.png" in capsys.readouterr().err and not (folder / "out").exists()


def test_too_little_memory_is_one_line(folder, capsys, monkeypatch):
    def exhausted(*arguments, **options):
        torch.empty(1 << 58)

    monkeypatch.setattr("adain_core.cli.pictures.stylize", exhausted)
    assert run("stylize", "photo.png", "red.png", "-o", "out.png", *NETWORKS) == 2
    assert "the memory is too small" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_style_files_are_made_mixed_and_shown(folder, capsys):
    make = ["style", "make", "--encoder", "encoder.safetensors"]
    assert run(*make, "red.png", "blue.png", "-o", "pool.safetensors", "--name", "both", "--licence", "CC0") == 0
    assert run(*make, "red.png", "-o", "red.safetensors") == 0
    styles = [load_style("pool.safetensors"), style_of("red.png"), style_of("blue.png")]
    pooled, *parts = (style.components[0].levels[0] for style in styles)
    torch.testing.assert_close(pooled.mean, parts[0].merge(parts[1]).mean)
    assert run("style", "mix", "pool.safetensors", "red.safetensors", "--weights", "1", "3", "-o", "mix.safetensors") == 0
    capsys.readouterr()
    assert run("style", "show", "mix.safetensors", "pool.safetensors") == 0
    shown = capsys.readouterr().out
    assert "both + red" in shown and "0.75" in shown and "CC0" in shown and "small" in shown


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_a_style_whose_name_is_not_unicode_is_saved_and_shown(folder, capsys):
    make = ["style", "make", "red.png", "--encoder", "encoder.safetensors", "-o", "red.safetensors"]
    assert run(*make, "--name", "gr\udcfcn", "--licence", "\udcff") == 0
    assert run("style", "show", "red.safetensors") == 0
    assert "gr?n" in capsys.readouterr().out


def test_a_style_is_shown_where_the_screen_lacks_the_letters_of_its_name(folder):
    assert run("style", "make", "red.png", "--encoder", "encoder.safetensors", "-o", "red.safetensors", "--name", "波") == 0
    command = [sys.executable, "-m", "adain_core", "style", "show", "red.safetensors"]
    shown = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 0 and "\\u6ce2" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["photo.png", "red.png", "-o", "none/o.png"], "create it first"),
        (["photo.png", "red.png", "-o", "o.png", "--alpha", "nan"], "alpha"),
        (["photo.png", "red.png", "-o", "o.png", "--style-size", "-1"], "size is -1"),
        (["photo.png", "red.png", "-o", "o.png", "--max-pixels", "-1"], "--max-pixels is -1"),
        (["photo.png", "red.png", "-o", "o.png", "--max-pixels", "99"], "red.png has more than 99 pixels"),
        (["photo.png", "red.png", "-o", "o.png", "--device", "cpu:9"], "cpu:9"),
        (["photo.png", "red.png", "-o", "o.png", "--encoder", "decoder.safetensors"], "holds a decoder"),
        (["photo.png", "encoder.safetensors", "-o", "o.png"], "not a style file"),
        (["photo.png", "s.safetensors", "-o", "o.png", "--match-colors"], "--keep-colors"),
        (["photo.png"], "required"),
    ],
)
def test_errors_are_one_line_and_status_2(folder, capsys, arguments, reason):
    networks = [] if len(arguments) < 3 else NETWORKS
    try:
        status = run("stylize", *networks, *arguments)
    except SystemExit as stopped:
        status = stopped.code
    err = capsys.readouterr().err
    assert status == 2 and reason in err and err.count("\n") == 1
    assert not (folder / "o.png").exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["none.png", "red.png", "-o", "o.png"], "none.png"),
        (["photo.png", "none.png", "-o", "o.png"], "none.png"),
        (["photo.png", "red.png", "-o", "o.gif"], "extension"),
        (["photo.png", "red.png", "-o", "photo.png"], "content itself"),
        (["photo.png", "red.png", "-o", "o.png", "--mask", "mask.png", "mask.png"], "2 masks"),
        (["photo.png", "red.png", "-o", "o.png", "--mask", "none.png"], "none.png"),
        (["photo.png", "red.png", "-o", "o.png", "--alpha", "2"], "alpha"),
        (["photo.png", "red.png", "-o", "o.png", "--size", "-1"], "size is -1"),
        (["photo.png", "red.png", "-o", "o.png", "--tile", "3"], "tile is 3"),
        (["photo.png", "red.png", "-o", "o.png", "--working-size", "-1"], "size is -1"),
        (["photo.png", "red.png", "-o", "o.png", "--detail", "2"], "detail is 2"),
        (["photo.png", "red.png", "-o", "o.png", "--device", "abacus"], "abacus"),
        (["photo.png", "red.png", "-o", "o.png", "--style-to", "blue.png"], "needs a clip"),
        (["photo.png", "red.png", "-o", "o.png", "--working-size", "0", "--detail", "0.1"], "--detail does nothing"),
        (["photo.png", "red.png", "-o", "o.png", "--content-statistics", "running"], "is one picture"),
        (["in", "red.png", "-o", "o", "--content-statistics", "running", "--half-life", "0"], "half_life"),
        (["in", "red.png", "-o", "o", "--content-statistics", "running", "--match-colors"], "does not work for a clip"),
        (["in", "red.png", "-o", "o", "--content-statistics", "running", "--style-to", "none.png"], "none.png"),
        (["photo.png", "red.png", "-o", "o.png", "--weights", "1", "2"], "2 weights"),
        (["photo.png", "red.png", "-o", "o.png", "--weights", "nan"], "the weights of a mix must be finite"),
        (["photo.png", "red.png", "-o", "o.png", "--content-statistics", "region"], "mask"),
        (["in", "red.png", "-o", "in/o"], "outside of in"),
    ],
)
def test_bad_input_is_refused_before_networks_are_loaded(folder, capsys, monkeypatch, arguments, reason):
    monkeypatch.setattr("adain_core.cli.options.load_encoder", lambda *_: pytest.fail("the networks were loaded"))
    (folder / "in").mkdir()
    save_image(torch.rand(3, 9, 9), "in/a.png")
    before = set(folder.rglob("*"))
    assert run("stylize", *arguments, *NETWORKS) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1 and set(folder.rglob("*")) == before


def raising(error: BaseException):
    def function(*arguments, **options):
        raise error

    return function


@pytest.mark.parametrize("error", [AdainError("give another."), FileNotFoundError("it is not there."), OSError(5, "no answer")])
def test_errors_of_what_was_given_and_of_the_system_are_one_line(capsys, monkeypatch, error):
    monkeypatch.setattr("adain_core.cli.info.catalog", raising(error))
    assert run("info") == 2
    assert capsys.readouterr().err == f"adain: {error}\n"


@pytest.mark.parametrize("error", [RuntimeError("wires crossed"), ValueError("a number"), KeyError("a name")])
def test_faults_of_the_program_pass_behind_a_line_that_asks_to_report_them(capsys, monkeypatch, error):
    monkeypatch.setattr("adain_core.cli.info.catalog", raising(error))
    with pytest.raises(type(error)):
        run("info")
    err = capsys.readouterr().err
    assert err.startswith("adain: this is a fault of the program; please report it") and err.count("\n") == 1


def test_a_fault_of_the_program_is_a_traceback():
    program = """
import sys
from adain_core.cli import info, main

def broken():
    raise RuntimeError("wires crossed")

info.catalog = broken
sys.exit(main(["info"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 1 and first.startswith("adain: this is a fault of the program; please report it")
    assert rest[0].startswith("Traceback") and rest[-1] == "RuntimeError: wires crossed"


def test_an_interrupt_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr("adain_core.cli.info.catalog", raising(KeyboardInterrupt()))
    assert run("info") == 130
    assert capsys.readouterr().err == "adain: stopped.\n"


@pytest.mark.parametrize("name", [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)])
def test_the_system_may_end_a_command_which_leaves_nothing_half_done(folder, capsys, monkeypatch, name):
    number = getattr(signal, name)

    def ended(path, *more):
        os.kill(os.getpid(), number)

    monkeypatch.setattr("adain_core.style.save", ended)
    before = signal.signal(number, signal.SIG_DFL)  # whoever started the tests may ignore it
    try:
        assert run("style", "make", "red.png", "-o", "red.safetensors", "--encoder", "encoder.safetensors") == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "adain: stopped.\n"
    assert not [path.name for path in folder.iterdir() if "red" in path.name and path.suffix == ".safetensors"]


def test_a_command_outlives_a_terminal_where_it_was_told_to(folder, monkeypatch):
    if not hasattr(signal, "SIGHUP"):
        pytest.skip("Windows has no SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        monkeypatch.setattr("adain_core.cli.info.available_devices", lambda: os.kill(os.getpid(), signal.SIGHUP) or ["cpu"])
        assert run("info") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("seed", ["-1", str(2**64), "1" * 99])
def test_seeds_of_more_than_64_bits_are_refused_before_the_work(folder, capsys, seed):
    (folder / "in").mkdir()
    (folder / "photo.png").rename("in/photo.png")
    folders = ["--contents", "in", "--styles", "in", "--loss-encoder", "none"]
    commands = [
        ["dataset", "in", "in", "-o", "out"], ["evaluate", *folders], ["evaluate", "sheet", *folders, "-o", "out.json"],
        ["train", *folders, "--output", "out"], ["style", "learn", "red.png", "--contents", "in", "-o", "x.safetensors"],
    ]  # fmt: skip
    for command in commands:
        assert run(*command, "--seed", seed) == 2
        err = capsys.readouterr().err
        assert "seed" in err and err.count("\n") == 1
    with pytest.raises(AdainError, match="the seed is"):
        stylize(load_encoder("encoder.safetensors"), load_decoder("decoder.safetensors"),
                torch.rand(1, 3, 9, 9), style_of("red.png"), seed=int(seed))  # fmt: skip


def test_results_among_the_styles_are_refused(folder, capsys):
    (folder / "in").mkdir()
    (folder / "photo.png").rename("in/photo.png")
    (folder / "styles").mkdir()
    (folder / "red.png").rename("styles/red.png")
    assert run("dataset", "in", "styles", "-o", "styles/out", *NETWORKS) == 2
    assert "styles/out is inside of styles: its pictures would be styles" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp932"])
def test_every_line_is_printed_in_every_encoding(folder, monkeypatch, encoding):
    """Letters that a terminal does not have are shown by their numbers, in helps too."""
    name = "Ōe’s 漢字 \u202eé ✓ \udcff"
    style = dataclasses.replace(style_of("red.png"), name=name, source=name, licence=name, encoder_name=name)
    style.save(folder / "style.safetensors")
    os.rename("style.safetensors", "漢字é.safetensors")
    commands = [
        ["style", "show", "漢字é.safetensors"], ["info"], ["convert", "encoder.safetensors", "-o", "é漢.safetensors"],
        ["style", "show", "nothing 漢字é"], ["--help"], ["train", "--help"], ["stylize", "--help"], ["style", "make", "--help"],
    ]  # fmt: skip
    for command in commands:
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors) for errors in ("strict", "backslashreplace"))
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            try:
                status = run(*command)
            except SystemExit as stopped:
                status = stopped.code
        for stream in (out, err):
            stream.flush()
        assert status == (2 if "nothing" in command[-1] else 0), err.buffer.getvalue()
        assert (err if status else out).buffer.getvalue().decode(encoding)


def test_info_and_the_module_run(small_files):
    found = subprocess.run([sys.executable, "-m", "adain_core", "info"], capture_output=True, text=True, check=True)
    assert torch.__version__.split("+")[0] in found.stdout and "cpu" in found.stdout
