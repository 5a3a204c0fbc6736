"""The labels of the values that lists offer: `web/labels.js` in Node, with the texts of `locales/` and a stand-in for
ComfyUI."""

from __future__ import annotations

import json

import pytest
from root import ROOT
from stand_in_page import run

from adain_core.catalog import catalog

LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())
OPTIONS = {
    language: json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))["AdaINOptions"]
    for language in LANGUAGES
}
FILES = {"name", "model", "style", "contents", "styles", "start_from"}  # combos of files that there are

ASK = """
import { extensions, settings } from "./scripts/app.js";
import "./extensions/adain/labels.js";
const answers = JSON.parse(process.env.QUESTIONS).map(([comfyClass, name, language, value]) => {
  const node = { comfyClass, widgets: [{ name, options: {} }] };
  extensions[0].nodeCreated(node);
  settings["Comfy.Locale"] = language;
  return node.widgets[0].options.getOptionLabel?.(value) ?? null;
});
console.log(JSON.stringify(answers));
"""


@pytest.fixture
def labels(tmp_path):
    """What `labels.js` shows, for each of (node's id, input, language, value); None where it leaves the list alone."""
    return lambda *questions: run(tmp_path, ASK, questions)


def test_a_list_shows_labels_in_the_chosen_language_and_other_values_as_they_are(labels):
    german = OPTIONS["de"]
    assert labels(
        ("AdaINTransfer", "content_statistics", "de", "running"),
        ("AdaINTransfer", "content_statistics", "en", "running"),
        ("AdaINTransfer", "content_statistics", "ar", "running"),  # a language that there is not
        ("AdaINLoadEncoder", "name", "de", "lite"),
        ("AdaINLoadEncoder", "name", "de", "of-my-own"),
        ("AdaINTrainDecoder", "start_from", "de", "(nothing)"),
        ("AdaINTrainDecoder", "contents", "de", "(built-in examples)"),
        ("AdaINLatent", "statistics", "de", None),
    ) == [
        german["content_statistics"]["running"],
        "running",
        "running",
        german["model"]["lite"],
        "of-my-own",
        german["model"]["(nothing)"],
        german["folder"]["(built-in examples)"],
        "",
    ]


def test_lists_of_styles_and_other_nodes_are_left_alone(labels):
    assert labels(("AdaINLoadStyle", "name", "de", "lite"), ("KSampler", "model", "de", "lite")) == [None, None]


def test_every_value_has_a_label_and_no_label_is_left_over(schemas, part):
    from comfy_api.latest import io

    expected: dict[str, set[str]] = {}
    for _, schema in schemas.values():
        for item in schema.inputs:
            if isinstance(item, io.Combo.Input) and item.id not in FILES:
                expected.setdefault(item.id, set()).update(item.options)
    training = part("nodes.training")
    expected["model"] = {*(entry.name for entry in catalog()), training.NOTHING, part("nodes.inputs").NOTHING_THERE}
    expected["folder"] = {training.EXAMPLES}
    assert {group: set(texts) for group, texts in OPTIONS["en"].items()} == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_labels_hold_the_values_that_tooltips_and_messages_name(language):
    for group, texts in OPTIONS[language].items():
        assert len(set(texts.values())) == len(texts)
        for value, label in texts.items():
            if language == "en":
                assert label == value
            elif value.startswith("("):
                assert label[0] in "(（" and label != value
            else:
                assert value in label and label != value, (group, value)
