"""README.md and the documents: their links lead somewhere, their tables are the numbers in docs/numbers/, and their snippets
and commands run as they stand.

Commands stand in blocks of `sh`, snippets in blocks of `python`. A block that is not run says why in its first line: "# needs
..." or "# takes ...".
"""

from __future__ import annotations

import re
import shlex
import sys
import unicodedata
from pathlib import Path

import clips
import pytest
import torch
from root import ROOT

from adain_core.cli import main
from adain_core.images import save_image

FOLDERS = ("", "docs", "weights", "workflows", "workflows/pictures/photos")
DOCUMENTS = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.md"))]
RUN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LEFT_OUT = ("# needs ", "# takes ")
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", BLOCK.sub("", text))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    words = (re.sub(r"\[([^]]+)]\([^)]+\)", r"\1", head).lower() for head in heads)
    kept = ("".join(c for c in word if c in "-_ " or unicodedata.category(c)[0] in "LN") for word in words)
    return {word.replace(" ", "-") for word in kept}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document):
    text = without_code(document.read_text(encoding="utf-8"))
    targets = re.findall(r"]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = (document.parent / file).resolve() if file else document
        assert place.exists(), f"{target} is not here"
        assert not anchor or anchor in anchors(place), f"{target}: there is no such heading"


def test_every_document_is_reached_from_the_readme():
    found, open_ones = set(), [ROOT / "README.md"]
    while open_ones:
        document = open_ones.pop()
        found.add(document)
        links = re.findall(r"]\(([^)\s#:]+\.md)", document.read_text(encoding="utf-8"))
        open_ones += {(document.parent / link).resolve() for link in links} - found
    assert set(RUN) <= found


def test_every_picture_is_shown():
    shown = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert [path.name for path in (ROOT / "docs" / "pictures").iterdir() if f"pictures/{path.name}" not in shown] == []


def test_tables_are_the_numbers(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs"), *sys.path])
    import tables

    for document in tables.DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert tables.filled(text) == text, f"python docs/tables.py renews the tables of {name_of(document)}"


def test_the_tests_run_as_the_readme_says():
    (command,) = re.findall(r"^pip install -e .*pytest.*$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert command in (ROOT / ".ci" / "run").read_text().replace("pip install -q", "pip install")


def picture(path: Path, height: int = 72, width: int = 96) -> None:
    path.parent.mkdir(exist_ok=True)
    coarse = torch.rand(1, 3, 6, 8)
    save_image(torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear"), path)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder to stand in, with the bundled files where they are in the project's, and those that documents name."""
    for folder in ("workflows", "weights"):
        (tmp_path / folder).symlink_to(ROOT / folder, target_is_directory=True)
    for name in (
        "photo",
        "painting",
        "a",
        "b",
        "c",
        "waves",
        "sunflowers",
        "photos/1",
        "photos/2",
        "paintings/1",
        "paintings/2",
    ):
        picture(tmp_path / f"{name}.jpg")
    for index in range(3):
        picture(tmp_path / "frames" / f"{index}.png")
    for name, left, right in (("background", 1, 0), ("sky", 0, 1), ("ground", 1, 0)):
        half = torch.tensor([left, right]).repeat_interleave(24).expand(1, 3, 36, 48)
        save_image(half.float(), tmp_path / f"{name}.png")
    clips.write_clip(tmp_path / "film.mp4", clips.noise(4, 96, 128))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(document: Path) -> list[str]:
    """The commands in the blocks of a document that are run, in its order."""
    blocks = BLOCK.findall(document.read_text(encoding="utf-8"))
    run = (block for kind, block in blocks if kind == "sh" and not block.startswith(LEFT_OUT))
    return [part for block in run for line in block.splitlines() for part in line.split(" && ")]


def commands(document: Path) -> list[str]:
    """The commands `adain` among them, and those in the text and in tables that name a file to write."""
    text = document.read_text(encoding="utf-8")
    inline = re.findall(r"`(adain [^`\n]+ -o [^`\n]+)`", BLOCK.sub("", text))
    return [each for each in lines(document) if each.startswith("adain ")] + [
        each for each in inline if not PLACEHOLDER.search(each)
    ]


@pytest.mark.parametrize("document", [path for path in RUN if commands(path)], ids=name_of)
def test_commands_run(document, place, capsys):
    for command in commands(document):
        status = main(shlex.split(command, comments=True)[1:])
        assert status == 0, f"{command}\n{capsys.readouterr().err}"
        after = re.search(r" -o (\S+)", command)
        assert after is None or (place / after[1]).exists(), command


@pytest.mark.parametrize("document", [path for path in RUN if "```python" in path.read_text(encoding="utf-8")], ids=name_of)
def test_snippets_run(document, place):
    names: dict = {}
    for kind, block in BLOCK.findall(document.read_text(encoding="utf-8")):
        if kind == "python":
            exec(compile(block, name_of(document), "exec"), names)  # noqa: S102
    assert (place / "result.png").exists()


@pytest.mark.parametrize("document", RUN, ids=name_of)
def test_commands_stand_in_blocks_that_are_run(document):
    text = document.read_text(encoding="utf-8")
    assert {kind for kind, _ in BLOCK.findall(text)} <= {"sh", "python"} and text.count("```") == 2 * len(BLOCK.findall(text))
    assert not re.search(r"^ {4}(adain|pip|python|torchrun) ", text, re.MULTILINE)
    setting_up = () if document.name != "README.md" else ("pip ", "ruff ", "pyright", "pytest ")  # run by .ci/run
    assert all(line.startswith(("adain ", *setting_up)) for line in lines(document))
