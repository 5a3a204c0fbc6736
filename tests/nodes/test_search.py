"""What people find first when they type into ComfyUI's search, by the rule of its frontend (fuseUtil.ts, 1.45 and 1.58)."""

from __future__ import annotations

import re

import pytest
from root import ROOT

WORDS = re.compile(r" |\b|(?<=[a-z])(?=[A-Z])|(?=[A-Z][a-z])")
SEARCH = (ROOT / "web" / "search.js").read_text(encoding="utf-8")
OURS = {re.search(r"defs\.(\w+)", SEARCH).group(1): int(re.search(r"USE = (\d+)", SEARCH).group(1))}
CORE = {  # ComfyUI's own nodes that the searches below find too, with how often they are used, by the frontend's own table
    "StyleModelLoader": ("Load Style Model", 21),
    "StyleModelApply": ("Apply Style Model", 15),
    "USOStyleReference": ("USO Style Reference", 6),
    "MagnificImageStyleTransferNode": ("Magnific Image Style Transfer", 0),
}


def score(query: str, text: str) -> tuple[float, float, float]:
    """How well a query in lower case fits a name: less is better, 9 where it does not."""
    words, parts = [word.lower() for word in WORDS.split(text)], query.split(" ")
    text = text.lower()
    late = len(text) / 2
    if text == query:
        return 0, 0, 0
    if text.startswith(query):
        return 1, 0, len(text)
    if query in words or query in text:
        return 2 if query in words else 3, text.index(query) + late, len(text)
    if all(part in words for part in parts):
        places = [words.index(part) for part in parts]
        return 4, max(places) - min(places) + max(places) / 2 + late, len(text)
    if all(part in text for part in parts):
        first, last = min(map(text.index, parts)), max(text.index(part) + len(part) for part in parts)
        return 5, last - first + last / 2 + late, len(text)
    return 9, 0, 0


@pytest.fixture
def found(schemas):
    def search(query: str) -> list[str]:
        """The nodes that a query finds by name, the best first: by the better of id and display name, then by use."""
        nodes = {key: (schema.display_name, OURS.get(key, 0)) for key, (_, schema) in schemas.items()} | CORE
        ranks = {key: (min(score(query, key), score(query, title)), use) for key, (title, use) in nodes.items()}
        order = {title: (kind, -use, *rest) for title, ((kind, *rest), use) in ((nodes[k][0], r) for k, r in ranks.items())}
        return sorted((title for title in order if order[title][0] < 9), key=order.__getitem__)

    return search


@pytest.mark.parametrize("query", ["adain", "style", "style transfer", "styl", "transfer"])
def test_style_transfer_is_the_first_hit(found, query):
    assert found(query)[0] == "Style Transfer"


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("refine", "Refine (AdaIN)"),
        ("stylize", "Stylize Video (AdaIN)"),
        ("mask style", "Mask Style (AdaIN)"),
        ("adain on", "AdaIN on Latents"),
        ("adain on sampling", "AdaIN on Sampling"),
    ],
)
def test_nodes_are_found_by_what_they_are_called(found, query, title):
    assert found(query)[0] == title
