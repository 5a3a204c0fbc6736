import contextlib
import io
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from adain_core.cli import main
from adain_core.cli.options import progress_bar
from adain_core.images import save_image
from adain_core.progress import Counter, part_of, showing, tell


class Stopped(Exception):
    pass


@pytest.fixture
def seen():
    """What is told inside of the test."""
    seen = []
    with showing(lambda *told: seen.append(told)):
        yield seen


def test_the_innermost_is_shown_until_its_end_also_by_an_error(seen):
    def stop(*_):
        raise Stopped

    picture = torch.rand(1, 3, 4, 4)
    tell(1, 3, picture)
    with pytest.raises(Stopped), showing(stop):
        tell(2, 3)
    tell(3, 3)
    assert seen == [(1, 3, picture), (3, 3, None)]


def test_nobody_need_be_shown():
    tell(1, 2)
    with part_of(0, 2):
        tell(1, 2)


def test_a_part_is_told_by_the_steps_of_the_whole(seen):
    with part_of(2, 7):
        tell(0, 3)
        tell(3, 3, torch.rand(1, 3, 4, 4))
        with part_of(1, 2):
            tell(1, 1)
    with part_of(2, 7, steps=4):
        for done in range(9):
            tell(done, 8)
    assert seen == [(2, 7, None)] * 3 + [(2 + done, 7, None) for done in (0, 0, 1, 1, 2, 2, 3, 3, 3)]


def test_a_counter_tells_what_is_done_and_not_what_failed(seen):
    counter = Counter(4)
    with counter.part():
        tell(1, 1)
    with pytest.raises(Stopped), counter.part():
        raise Stopped
    with counter.part(3):
        tell(2, 3)
    assert [done for done, *_ in seen] == [0, 0, 1, 3, 4] and {total for _, total, _ in seen} == {4}


def test_another_thread_tells_nobody(seen):
    with ThreadPoolExecutor(1) as thread:
        thread.submit(tell, 1, 2).result()
    assert not seen


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(call) -> str:
    """What `call()` writes to stderr where that is a terminal."""
    with contextlib.redirect_stderr(Terminal()) as terminal:
        call()
    return terminal.getvalue()


def test_a_bar_follows_what_is_told_in_its_unit():
    def work():
        with progress_bar("picture", scale=8):
            tell(50, 100)
            tell(100, 100)

    last = on_a_terminal(work).rpartition("\r")[2]
    assert "100%" in last and "800/800" in last and "picture/s" in last


@pytest.mark.parametrize("options", [{"delay": 60}, {"shown": False}])
def test_a_bar_that_is_not_due_or_not_shown_leaves_nothing(options):
    def work():
        with progress_bar("tile", **options):
            tell(1, 2)

    assert not on_a_terminal(work).strip()


@pytest.mark.parametrize("command", ["stylize", "dataset"])
def test_a_folder_is_counted_in_pictures(small_files, tmp_path, command):
    for name in ("contents", "styles"):
        (tmp_path / name).mkdir()
        for index in range(3):
            save_image(torch.rand(3, 16, 16), tmp_path / name / f"{index}.png")
    styles = tmp_path / "styles" / "0.png" if command == "stylize" else tmp_path / "styles"
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--device", "cpu"]
    arguments = [command, str(tmp_path / "contents"), str(styles), "-o", str(tmp_path / "out"), *networks]
    shown = on_a_terminal(lambda: main(arguments))
    assert "3/3" in shown and "picture" in shown and "tile" not in shown
    assert len(list((tmp_path / "out").iterdir())) == 3
