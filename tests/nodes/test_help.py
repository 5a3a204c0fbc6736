"""The nodes' help pages, which ComfyUI shows beside the canvas: each agrees with its node's schema.

`web/docs/ID.md` is the English page, `web/docs/ID/LANGUAGE.md` the same in another language. Which of those are older than
their English, `test_locales.py` tells.
"""

from __future__ import annotations

import json
import re

import pytest
from root import ROOT

DOCS = ROOT / "web" / "docs"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
LANGUAGES = sorted({path.name for path in (ROOT / "locales").iterdir()} - {"en"})
LISTS = {"name", "model", "style", "contents", "styles", "start_from"}  # combos of files that there are
TEMPLATES = {path.stem for path in (ROOT / "workflows").glob("*.json")}

every_page = pytest.mark.parametrize("node_id", PAGES)
every_language = pytest.mark.parametrize("language", LANGUAGES)


def listed(page: str, heading: str) -> dict[str, str]:
    """The names in the list under a heading, each with what is in brackets after it."""
    part = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    items = re.findall(r"^- (`[^(]+`) \(([^)]+)\): ", re.sub(r"\n  ", " ", part), re.MULTILINE)
    return {name: values for names, values in items for name in re.findall("`(.+?)`", names)}


def number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def values(item) -> str:
    """What a page says that an input takes."""
    from comfy_api.latest import io

    if isinstance(item, (io.Int.Input, io.Float.Input)):
        return f"{number(item.min)} to {number(item.max)}; default {number(item.default)}"
    if isinstance(item, io.Combo.Input):
        options = ", ".join(f"`{option}`" for option in item.options)
        return "a list" if item.id in LISTS else f"{options}; default `{item.default}`"
    if isinstance(item, io.Boolean.Input):
        return f"on or off; default {'on' if item.default else 'off'}"
    if isinstance(item, io.String.Input):
        return f"text; default {f'`{item.default}`' if item.default else 'empty'}"
    return item.get_io_type() + ", optional" * item.optional


def test_every_node_has_a_page_and_no_page_is_left_over(schemas):
    assert PAGES.keys() == schemas.keys()


@every_page
def test_a_page_has_all_inputs_and_outputs_with_what_they_take(node_id, schemas):
    schema = schemas[node_id][1]
    assert listed(PAGES[node_id], "Inputs") == {item.id: values(item) for item in schema.inputs}
    assert listed(PAGES[node_id], "Outputs") == {item.display_name: item.get_io_type() for item in schema.outputs}


@every_page
def test_a_page_shows_an_example_and_names_only_templates_that_there_are(node_id):
    page = PAGES[node_id]
    assert "\n## Example\n" in page
    templates = re.findall(r"template \*(.+?)\*", page)
    assert all((ROOT / "workflows" / f"{name}.json").is_file() for name in templates)


@every_page
def test_a_page_says_more_than_the_tooltips(node_id, schemas):
    schema = schemas[node_id][1]
    words = sum(len(text.split()) for text in [schema.description, *(item.tooltip for item in schema.inputs)])
    assert len(PAGES[node_id].split()) > words
    assert not [item.id for item in schema.inputs if f": {item.tooltip}\n" in re.sub(r"\n  ", " ", PAGES[node_id])]


def translated(language: str) -> dict[str, str]:
    """The pages of a language by the node's id."""
    return {path.parent.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob(f"*/{language}.md"))}


def terms(language: str) -> dict[str, dict]:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def items(page: str) -> list[list[tuple[list[str], str]]]:
    """Each section's list of inputs or outputs: the names of an item, and what is in brackets after them."""
    sections = re.sub(r"\n  (?! )", " ", page).split("\n## ")
    found = [re.findall(r"^- (`.+?`) ?[(（](.+?)[)）]\s?[:：]", section, re.MULTILINE) for section in sections]
    return [[(re.findall("`(.+?)`", names), taken) for names, taken in section] for section in found]


def fixed(taken: str) -> list[str]:
    """What no language changes in what an input takes: numbers, values, types."""
    return re.findall(r"`.*?`|-?\d[\d.]*|[A-Z_]{3,}", taken)


def code(page: str) -> list[str]:
    """The formulas without their words: a language has its own for some."""
    lines = [line for line in page.splitlines() if line.startswith("    ")]
    return [re.sub(r"[^\W\d_μσφαλγ]|[\s，,]", "", line) for line in lines]


def test_there_are_pages_of_these_languages_only():
    assert {path.name for path in DOCS.iterdir()} == {f"{node_id}.md" for node_id in PAGES} | PAGES.keys()
    assert {path.stem for path in DOCS.glob("*/*")} == set(LANGUAGES)


@every_language
def test_every_page_is_translated_with_the_same_parts(language):
    pages, headings, brackets = translated(language), {}, {}
    assert pages.keys() == PAGES.keys()
    for node_id, page in pages.items():
        english = PAGES[node_id]
        theirs, ours = (re.findall(r"^## (.+)$", text, re.MULTILINE) for text in (page, english))
        assert len(theirs) == len(ours), node_id
        for heading, shown in zip(ours, theirs, strict=True):
            assert headings.setdefault(heading, shown) == shown, node_id
        for one, other in zip(items(english), items(page), strict=True):
            assert len(one) == len(other), node_id
            for (_, taken), (_, shown) in zip(one, other, strict=True):
                assert fixed(shown) == fixed(taken), (node_id, shown)
                words = re.sub(r"`.*?`|-?\d[\d.]*|[A-Z_]{3,}", "#", taken)
                said = re.sub(r"`.*?`|-?\d[\d.]*|[A-Z_]{3,}", "#", shown)
                assert brackets.setdefault(words, said) == said, (node_id, shown)
        assert code(page) == code(english), node_id
        for mark in (r"^- ", r"^\d+\. "):
            assert len(re.findall(mark, page, re.MULTILINE)) == len(re.findall(mark, english, re.MULTILINE)), node_id


@every_language
def test_a_page_names_nodes_inputs_and_templates_as_they_are_shown(language, schemas):
    tree = terms(language)
    own: dict[str, tuple[dict, dict]] = {}  # of each node, what its inputs and its outputs are shown as
    shown: dict[str, set[str]] = {}  # the same of all nodes together
    for node_id, (_, schema) in schemas.items():
        inputs = {item.id: tree[node_id]["inputs"][item.id]["name"] for item in schema.inputs}
        outputs = {item.display_name: tree[node_id]["outputs"][str(k)]["name"] for k, item in enumerate(schema.outputs)}
        own[node_id] = (inputs, outputs)
        for name, label in [*inputs.items(), *outputs.items()]:
            shown.setdefault(name, set()).add(label)
    for node_id, page in translated(language).items():
        english, spaced = PAGES[node_id], " ".join(page.split())
        lists = zip(filter(None, items(english)), filter(None, items(page)), own[node_id], strict=True)
        for ours, theirs, labels in lists:
            assert [names for names, _ in theirs] == [[labels[name] for name in names] for names, _ in ours], node_id
        code_spans, english_spans = (re.findall("`(.+?)`", text) for text in (page, english))
        allowed = {label for name in english_spans for label in (name, *shown.get(name, ()))}
        assert not set(code_spans) - allowed and len(code_spans) == len(english_spans), node_id
        templates = [{name for name in TEMPLATES if f"*{name}*" in " ".join(text.split())} for text in (page, english)]
        assert templates[0] == templates[1], node_id
        for other, (_, schema) in schemas.items():
            if re.search(rf"(?<!VAE )\b{schema.display_name.removesuffix(' (AdaIN)')}\b", english):
                assert tree[other]["display_name"].removesuffix(" (AdaIN)") in spaced, (node_id, other)


@every_language
def test_a_translated_page_is_in_that_language(language):
    for node_id, page in translated(language).items():
        lines = [{line for line in text.splitlines() if line[:4].strip()} for text in (page, PAGES[node_id])]
        assert not [line for line in lines[0] & lines[1] if len(re.findall(r"[^\W\d_]{3,}", line)) > 4], node_id
