"""What the command says about its work."""

import contextlib
import io
import re
import threading

import pytest
import torch
from PIL import Image

from adain_core.cli import main, options
from adain_core.cli.options import progress_bar
from adain_core.images import count_frames, save_image
from adain_core.progress import tell
from adain_core.video import Video


def test_one_line_says_what_was_written_and_how_long_it_took(stylize):
    status, err = stylize("photo.png", "red.png", "-o", "o.png")
    assert status == 0 and re.fullmatch(r"adain: wrote o.png in \d+\.\d s\.\n", err)


@pytest.mark.parametrize("arguments, what", [
    (["dataset", "contents", "contents", "-o", "out", "--model", "small"], "2 pictures to out"),
    (["stylize", "contents", "red.png", "-o", "out", "--model", "small"], "2 pictures to out"),
    (["stylize", "contents", "red.png", "-o", "out", "--model", "small", "--content-statistics", "batch"], "2 frames to out"),
    (["style", "make", "red.png", "-o", "s.safetensors", "--model", "small"], "s.safetensors"),
    (["style", "mix", "sunset", "-o", "s.safetensors"], "s.safetensors"),
])  # fmt: skip
def test_every_command_that_writes_says_so_and_quiet_ones_do_not(adain, folder, arguments, what):
    (folder / "contents").mkdir()
    for name in ("a.png", "b.png"):
        save_image(torch.rand(3, 16, 16), folder / "contents" / name)
    status, err = adain(*arguments)
    assert status == 0 and f"adain: wrote {what} in " in err and err.count("\n") == 1
    assert adain(*arguments, "--quiet") == (0, "")


def test_quiet_commands_print_their_errors(stylize):
    status, err = stylize("none.png", "red.png", "-o", "o.png", "--quiet")
    assert status == 2 and "none.png" in err


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_shows_itself_before_the_first_part_is_done(monkeypatch):
    """As for one large picture, which may be a single tile."""
    shown = threading.Event()

    class Watched(Terminal):
        def write(self, text):
            if "tile" in text and "0/1" in text:
                shown.set()
            return super().write(text)

    monkeypatch.setattr(options, "REFRESH", 0.01)
    with contextlib.redirect_stderr(Watched()), progress_bar("tile", delay=0.01):
        tell(0, 1)
        assert shown.wait(30)


def test_quiet_shows_no_bar(folder):
    arguments = ["stylize", "contents", "red.png", "-o", "out", "--model", "small", "--device", "cpu"]
    (folder / "contents").mkdir()
    for name in ("a.png", "b.png"):
        save_image(torch.rand(3, 16, 16), folder / "contents" / name)
    with contextlib.redirect_stderr(Terminal()) as loud:
        assert main(arguments) == 0
    with contextlib.redirect_stderr(Terminal()) as quiet:
        assert main([*arguments, "--quiet"]) == 0
    assert "2/2" in loud.getvalue() and quiet.getvalue() == ""


@pytest.fixture
def animations(folder):
    """The same three frames in each format that has frames."""
    frames = [Image.new("RGB", (32, 24), (80 * k, 100, 200)) for k in range(3)]
    for ending in ("gif", "webp", "png", "tif"):
        duration = {} if ending == "tif" else {"duration": 100}
        frames[0].save(f"moving.{ending}", save_all=True, append_images=frames[1:], **duration)
    return folder


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tif"])
def test_it_is_said_that_only_the_first_frame_is_taken(stylize, animations, ending):
    assert count_frames(f"moving.{ending}") == 3
    status, err = stylize(f"moving.{ending}", "red.png", "-o", "o.png")
    assert status == 0 and f"only the first frame is taken of moving.{ending}" in err
    assert f"only the first frame is taken of moving.{ending}" in stylize("photo.png", f"moving.{ending}", "-o", "o.png")[1]
    assert "first frame" not in stylize("photo.png", "red.png", "-o", "o.png")[1]


@pytest.mark.parametrize("ending", ["gif", "png"])
def test_an_animation_is_a_clip_where_the_result_is_a_video(stylize, animations, ending):
    pytest.importorskip("av")
    status, err = stylize(f"moving.{ending}", "red.png", "-o", "o.mp4")
    assert status == 0 and "first frame" not in err
    assert len(list(Video("o.mp4").frames())) == 3
