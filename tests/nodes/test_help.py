"""The nodes' help pages, which ComfyUI shows beside the canvas: each agrees with its node's schema."""

from __future__ import annotations

import re

import pytest
from root import ROOT

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "web" / "docs").glob("*.md"))}
LISTS = {"name", "model", "style", "contents", "styles", "start_from"}  # combos of files that there are

every_page = pytest.mark.parametrize("node_id", PAGES)


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
