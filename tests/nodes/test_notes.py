"""The templates' notes and titles in the languages of `locales/`, and `web/templates.js`, which puts them in, in Node."""

from __future__ import annotations

import copy
import json
import re

import pytest
from root import ROOT
from stand_in_page import run

TEMPLATES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "workflows").glob("*.json"))}
STYLES = {path.stem for path in (ROOT / "weights" / "styles").glob("*.safetensors")}
TEXTS = {
    path.parent.name: json.loads(path.read_text(encoding="utf-8"))["AdaINTemplates"]
    for path in sorted((ROOT / "locales").glob("*/main.json"))
}
LANGUAGES = sorted(TEXTS.keys() - {"en"})
OPEN = """
import { extensions, settings } from "./scripts/app.js";
import "./extensions/adain/templates.js";
const opened = JSON.parse(process.env.QUESTIONS).map(([language, workflow]) => {
  settings["Comfy.Locale"] = language;
  extensions[0].beforeConfigureGraph(workflow);
  return workflow;
});
console.log(JSON.stringify(opened));
"""


def note(template: dict) -> dict:
    return next(node for node in template["nodes"] if node["type"] == "MarkdownNote")


def titles(template: dict) -> list[str]:
    """The titles of nodes and groups and the labels of inputs that a template has of its own."""
    items = [*template["nodes"], *template["groups"]]
    labels = [entry["label"] for node in template["nodes"] for entry in node["inputs"] if "label" in entry]
    return [item["title"] for item in items if item.get("title") and item["title"] not in STYLES] + labels


def test_english_is_as_the_templates_have_it():
    assert TEXTS["en"]["notes"] == {name: note(template)["widgets_values"][0] for name, template in TEMPLATES.items()}
    assert TEXTS["en"]["titles"] == {title: title for template in TEMPLATES.values() for title in titles(template)}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_note_is_translated_line_by_line_with_its_numbers(language):
    assert TEXTS[language]["notes"].keys() == TEXTS["en"]["notes"].keys()
    for name, text in TEXTS["en"]["notes"].items():
        shown = TEXTS[language]["notes"][name]
        kinds = [[re.match(r"(## |\d\. )?", line)[0] for line in one.split("\n")] for one in (text, shown)]
        numbers = [set(re.findall(r"\d+(?:\.\d+)?", one)) for one in (text, shown)]
        assert kinds[0] == kinds[1] and numbers[0] <= numbers[1], name
        assert shown != text


@pytest.mark.parametrize("language", LANGUAGES)
def test_notes_name_nodes_and_titles_as_they_are_shown(language):
    english, shown = (json.loads((ROOT / "locales" / code / "nodeDefs.json").read_text()) for code in ("en", language))
    names = {english[key]["display_name"]: shown[key]["display_name"] for key in english} | TEXTS[language]["titles"]
    assert TEXTS[language]["titles"].keys() == TEXTS["en"]["titles"].keys() and all(names.values())
    for name, text in TEXTS["en"]["notes"].items():
        for one, its in names.items():
            if re.search(rf"\*{re.escape(one.removesuffix(' (AdaIN)'))}\*", text):
                assert f"*{its.removesuffix(' (AdaIN)')}*" in TEXTS[language]["notes"][name], (name, one)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_opened_in_the_language_of_the_page(tmp_path, name):
    template = TEMPLATES[name]
    japanese, english, arabic = run(tmp_path, OPEN, [[code, template] for code in ("ja", "en", "ar")])
    assert english == template and arabic == template  # the one as it is, for the other there are no texts
    texts = TEXTS["ja"]
    assert note(japanese)["widgets_values"] == [texts["notes"][name]]
    assert titles(japanese) == [texts["titles"][title] for title in titles(template)]
    assert [node.get("widgets_values") for node in japanese["nodes"] if node["type"] != "MarkdownNote"] == [
        node.get("widgets_values") for node in template["nodes"] if node["type"] != "MarkdownNote"
    ]


def test_what_a_person_wrote_stays(tmp_path):
    own = copy.deepcopy(TEMPLATES["01 First steps"])
    note(own)["widgets_values"][0] += " Mine."
    without = {"nodes": [{"id": 1, "type": "LoadImage", "title": "Result"}]}
    empty = {"nodes": [{"id": 1, "type": "MarkdownNote"}], "groups": []}
    assert run(tmp_path, OPEN, [["ja", workflow] for workflow in (own, without, empty, {})]) == [own, without, empty, {}]
