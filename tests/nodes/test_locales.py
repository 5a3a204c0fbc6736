"""The texts of the nodes and of the gallery in the languages of ComfyUI: those that `locales/` has a folder for.

`locales/LANGUAGE/sources.json` has a hash of the English text, or help page, that each translation was made from. With
WRITE_LOCALES=1 the English texts are written anew, as the schemas have them; with WRITE_LOCALES="de fr" the hashes of these
languages.
"""

from __future__ import annotations

import hashlib
import json
import os
import re

import pytest
from root import ROOT

FOLDER = ROOT / "locales"
LANGUAGES = sorted({path.name for path in FOLDER.iterdir()} - {"en"})
SAME = {  # words that a language has in common with English
    "de": {"alpha", "decoder", "encoder", "latent", "name", "seed", "video"},
    "es": {"video"},
    "fr": {"alpha", "image", "latent", "style", "style 1.", "style 2.", "styles", "texture"},
    "zh": {"latent"},
}
HELP = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "web" / "docs").glob("*.md")}
WRITE = os.environ.get("WRITE_LOCALES", "").split()
LITERAL = re.compile(r"[\w./-]*[\d/_][\w./-]*|(?<!\w)\.\w+|\b[A-Z]{3,}\b")  # numbers, paths, endings, abbreviations

GALLERY = (ROOT / "web" / "gallery.js").read_text(encoding="utf-8")

every_language = pytest.mark.parametrize("language", LANGUAGES)


def read(language: str, file: str = "nodeDefs") -> dict:
    return json.loads((FOLDER / language / f"{file}.json").read_text(encoding="utf-8"))


def write(language: str, file: str, content: dict) -> None:
    text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
    (FOLDER / language / f"{file}.json").write_text(text, encoding="utf-8")


def flat(tree: dict, *path: str) -> dict[tuple[str, ...], str]:
    """Each text by where it is."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, *path, key) if isinstance(value, dict) else {(*path, key): value}
    return found


def hashes(texts: dict[tuple[str, ...], str]) -> dict[str, str]:
    """What `sources.json` has of texts: by where each is, the beginning of its SHA-256."""
    return {"/".join(place): hashlib.sha256(text.encode()).hexdigest()[:8] for place, text in texts.items()}


def stale(now: dict[str, str], sources: dict[str, dict[str, str]]) -> list[str]:
    """The texts whose English is not the one that translations were made from: one a line, its hash now, the languages."""
    places = dict.fromkeys([*now, *(place for of_language in sources.values() for place in of_language)])
    found = {place: [code for code, of in sources.items() if of.get(place) != now.get(place)] for place in places}
    return [f"{place} ({now.get(place, 'removed')}): {', '.join(codes)}" for place, codes in found.items() if codes]


@pytest.fixture
def english(schemas) -> dict:
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {item.id: {"name": item.id, "tooltip": item.tooltip} for item in schema.inputs},
            "outputs": {str(k): {"name": o.display_name, "tooltip": o.tooltip} for k, o in enumerate(schema.outputs)},
        }
        for node_id, (_, schema) in schemas.items()
    }


def test_english_is_as_the_schemas_have_it(english):
    if "1" in WRITE:
        write("en", "nodeDefs", english)
    assert read("en") == english, "set WRITE_LOCALES=1 to write it anew, and translate what has changed"


def test_no_translation_is_older_than_its_english(english):
    pages = {node_id: HELP[node_id] for node_id in english}
    now = hashes(flat({"nodeDefs": english, "main": read("en", "main"), "commands": read("en", "commands"), "help": pages}))
    for language in set(LANGUAGES).intersection(WRITE):
        write(language, "sources", now)
    if lines := stale(now, {language: read(language, "sources") for language in LANGUAGES}):
        pytest.fail(
            "\n".join(["the English of these texts has changed since they were translated:", *lines])
            + "\ntranslate them anew in locales/ and web/docs/, then run this file with WRITE_LOCALES set to the languages"
            " that are done.",
            pytrace=False,
        )


def test_a_changed_a_new_and_a_removed_text_are_stale():
    now = hashes({("main", "Styles"): "Styles", ("main", "Close"): "Close"})
    old = hashes({("main", "Styles"): "Style", ("main", "Close"): "Close"})
    assert stale(now, {"de": now, "fr": now}) == []
    assert stale(now, {"de": old, "fr": now, "ja": old}) == [f"main/Styles ({now['main/Styles']}): de, ja"]
    new, gone = stale(now, {"de": {"main/Styles": now["main/Styles"]}, "fr": now | {"main/Gone": "00000000"}})
    assert new == f"main/Close ({now['main/Close']}): de" and gone == "main/Gone (removed): fr"


def test_the_gallery_has_a_command_in_every_language():
    labels = {language: read(language, "commands")["AdaIN_ChooseStyle"]["label"] for language in ("en", *LANGUAGES)}
    assert f'label: "{labels["en"]}"' in GALLERY and 'COMMAND = "AdaIN.ChooseStyle"' in GALLERY
    assert len(set(labels.values())) == len(labels)


@pytest.mark.parametrize("language", [*LANGUAGES, "en"])
def test_the_gallery_has_every_text_and_names_nodes_as_they_are_shown(language):
    texts = read(language, "main")["AdaIN"]
    assert texts.keys() == set(re.findall(r'translate\("(.+?)"\)', GALLERY))
    left = {text for text in texts if texts[text] == text}
    assert left == (texts.keys() if language == "en" else {text for text in texts if text.casefold() in SAME.get(language, ())})
    for node_id in ("AdaINLoadStyle", "AdaINStyleTransfer"):
        title = read(language)[node_id]["display_name"].removesuffix(" (AdaIN)")
        assert title in texts["Select Load Style or Style Transfer first"]


@every_language
def test_a_language_has_all_files(language):
    names = {path.name for path in (FOLDER / language).iterdir()}
    assert names == {"commands.json", "main.json", "nodeDefs.json", "sources.json"}


@every_language
def test_a_language_has_every_text_and_no_other(language, english):
    assert flat(read(language)).keys() == flat(english).keys()


@every_language
def test_every_text_is_translated(language, english):
    translated, same = flat(read(language)), SAME.get(language, set())
    assert all(text.strip() for text in translated.values())
    left = {text for place, text in flat(english).items() if translated[place].casefold() == text.casefold()}
    assert {text.casefold() for text in left} == same


@every_language
def test_translations_keep_numbers_paths_and_options_and_name_nodes_and_inputs_as_they_are_shown(language, english, schemas):
    tree = read(language)
    translated = flat(tree)
    titles = {node["display_name"]: tree[node_id]["display_name"] for node_id, node in english.items()}
    assert len(set(titles.values())) == len(titles)
    for title, shown in titles.items():
        assert "AdaIN" in shown or title == "Style Transfer"
        assert shown.endswith(" (AdaIN)") == title.endswith(" (AdaIN)")
    for place, text in flat(english).items():
        node_id, shown_in = place[0], place[-1]
        if shown_in not in ("description", "tooltip"):
            continue
        inputs = {key: item["name"] for key, item in tree[node_id]["inputs"].items()}
        expected = [inputs.get(found.rstrip("."), found.rstrip(".")) for found in LITERAL.findall(text)]
        for title, shown in titles.items():
            if re.search(rf"\b{title.removesuffix(' (AdaIN)')}\b", text):
                expected.append(shown.removesuffix(" (AdaIN)"))
        for item in schemas[node_id][1].inputs:
            if place[1:3] == ("inputs", item.id):
                expected += [option for option in getattr(item, "options", None) or [] if f"{option}:" in text]
        assert not [part for part in expected if part not in translated[place]], place


@pytest.mark.parametrize("language", [*LANGUAGES, "en"])
def test_no_text_holds_what_the_frontend_would_replace(language):
    assert not [text for text in flat(read(language)).values() if set("{}@|") & set(text)]
