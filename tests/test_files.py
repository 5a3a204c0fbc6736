"""Names that every system takes, and what killed runs leave."""

from __future__ import annotations

import os
import sys

import pytest

from adain_core import files
from adain_core.background import write_behind
from adain_core.files import is_safe_name, new_path, parse_json, remove_leftovers, replacing, working_folder

SAFE = ["waves", "sea waves", "Große Welle", "神奈川", "a.b", "v1.0", "console", "com10", "nullify", "x" * 200]
UNSAFE = [
    "", ".", "..", "...", ".hidden", "ends.", "ends ", " begins", "a\\b", "c:", "c:x", "a:stream", "nul", "NUL", "CON",
    "con.txt", "aux.tar.gz", "Com1", "lpt9.png", "com¹", "con .txt", "conin$", "what?", "star*", '"', "<", ">", "|", "nul\0l",
    "tab\there", "line\nbreak", "\x7f", "\ud800", "\u202egnp.exe", "x" * 201, "神" * 67,
]  # fmt: skip


@pytest.mark.parametrize("name", SAFE)
def test_names_that_every_system_takes(tmp_path, name):
    assert is_safe_name(name)
    assert new_path(tmp_path, name, ".ext") == new_path(tmp_path, f" {name}.ext", ".ext") == tmp_path / f"{name}.ext"
    assert new_path(tmp_path, f"{name}/{name}", ".ext") == tmp_path / name / f"{name}.ext"


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_some_system_refuses_or_changes(tmp_path, name):
    assert not is_safe_name(name)
    with pytest.raises(ValueError, match="is not a name for a style"):
        new_path(tmp_path, f"sea/{name}/waves", ".ext", "style")


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "sea/../../up", "//server/share", "sea//waves", "sea/", "C:/up"])
def test_paths_that_lead_elsewhere(tmp_path, name):
    assert not is_safe_name(name)
    with pytest.raises(ValueError, match="is not a name for a file"):
        new_path(tmp_path, name, ".ext")


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_that_lead_out(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "out").symlink_to(tmp_path)
    (tmp_path / "folder" / "file.ext").symlink_to(tmp_path / "elsewhere.ext")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("out/waves", "out/folder/../waves", "file"):
        with pytest.raises(ValueError, match="is not a name for a file"):
            new_path(tmp_path / "folder", name, ".ext")
    # a folder that a person has put elsewhere is the person's choice
    assert new_path(tmp_path / "link", "waves", ".ext") == tmp_path / "folder" / "waves.ext"


@pytest.mark.parametrize(("name", "twin"), [("waves", "Waves.ext"), ("Sea/other", "sea"), ("WAVES", "Waves.ext")])
def test_names_that_some_systems_take_for_one_that_is_there(tmp_path, name, twin):
    (tmp_path / "Waves.ext").touch()
    (tmp_path / "sea").mkdir()
    assert new_path(tmp_path, "Waves", ".ext") == tmp_path / "Waves.ext"
    if not (tmp_path / "waves.ext").exists():  # where it is one, it is found by either name
        with pytest.raises(ValueError, match=f"only in upper and lower case from '{twin}'"):
            new_path(tmp_path, name, ".ext")


def test_leftovers_of_one_file_are_not_those_of_another(tmp_path):
    others = [".a.thumb.png", ".a.b.adain-abcdefgh.png", ".a.adain-abcdefgh.jpg", "a.adain-abcdefgh.png", "a.png"]
    for name in [*others, ".a.adain-abcdefgh.png"]:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    with replacing(tmp_path / "a.b.png") as temporary:
        remove_leftovers(tmp_path / "a.png")
        assert temporary.exists()
        remove_leftovers(tmp_path / "a.b.png")
        assert not temporary.exists()
        temporary.touch()


def test_only_what_a_killed_run_left_is_removed_beside_the_next_one(tmp_path):
    (tmp_path / ".other.adain-abcdefgh").mkdir()
    (tmp_path / ".other.adain-abcdefgh" / "lock").touch()
    (tmp_path / ".other.adain-abcdefgh" / "pixels").write_bytes(bytes(99))
    with working_folder(tmp_path / "a.png") as at_work:
        (at_work / "pixels").touch()
        with working_folder(tmp_path / "b.png"):
            assert (at_work / "pixels").exists() and not (tmp_path / ".other.adain-abcdefgh").exists()
    assert not list(tmp_path.iterdir())


def test_disks_without_locks_lose_nothing(tmp_path, monkeypatch):
    def unsupported(*arguments, **options):
        raise NotImplementedError

    monkeypatch.setattr(files.FileLock, "acquire", unsupported)
    with working_folder(tmp_path / "a.png") as at_work:
        (at_work / "lock").touch()
        with working_folder(tmp_path / "b.png"):
            assert at_work.exists()


def test_json_that_is_nested_too_deeply_is_an_error_like_any_other():
    for text in ("[" * 100_000, '{"a":' * (sys.getrecursionlimit() * 20), "{", "", b"\xff\xff", "1" * 10_000):
        with pytest.raises(ValueError):
            parse_json(text)


def test_calls_are_made_in_their_order_and_all_at_the_end():
    made = []
    with write_behind(depth=1) as later:
        for number in range(20):
            later(made.append, number)
    assert made == list(range(20))


def test_what_a_call_raises_is_not_lost():
    made = []
    with pytest.raises(OSError, match="disk full"), write_behind() as later:
        later(made.append, 1)
        later(_fail)
    assert made == [1]


def _fail() -> None:
    raise OSError("disk full")
