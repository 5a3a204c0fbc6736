"""The templates and subgraphs: what the host lists, and the templates' API twins, which tests/host runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from root import ROOT

from adain_core.catalog import BUNDLED

FOLDER = ROOT / "workflows"
TEMPLATES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
TWINS = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "api").glob("*.json"))}
SUBGRAPHS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "subgraphs").glob("*.json"))}
INSIDE = {name: file["definitions"]["subgraphs"][0] for name, file in SUBGRAPHS.items()}
NOT_HERE = {"CheckpointLoaderSimple", "WebcamCapture"}  # a template with one needs a file that is not ours, or a camera
BUTTON = ("choose_style", {"AdaINStyleTransfer", "AdaINLoadStyle"})  # what web/gallery.js adds, and to which nodes

every_template = pytest.mark.parametrize("name", TEMPLATES)


def nodes(template: dict) -> dict[int, dict]:
    return {node["id"]: node for node in template["nodes"]}


def exported(template: dict, schemas: dict) -> dict:
    """The API format of a template, as the host's menu exports it: notes are left out."""
    links = {link: [str(source), slot] for link, source, slot, *_ in template["links"]}
    workflow = {}
    for node in template["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        widgets = [item["name"] for item in node["inputs"] if "widget" in item]
        inputs = dict(zip(widgets, node["widgets_values"], strict=True))
        inputs |= {item["name"]: links[item["link"]] for item in node["inputs"] if item["link"] is not None}
        title = node.get("title") or schemas[node["type"]][1].display_name
        workflow[str(node["id"])] = {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}
    return workflow


@pytest.fixture
def bundled() -> Path:
    """The real ones, which templates name."""
    return BUNDLED


def test_templates_are_numbered_in_the_order_of_their_names():
    # hosts list them by name, or in the folder's order
    assert [name[:3] for name in TEMPLATES] == [f"{number:02} " for number in range(1, len(TEMPLATES) + 1)]
    assert list(TEMPLATES)[0] == "01 First steps"


@every_template
def test_a_template_has_a_thumbnail_and_tells_what_to_do(name):
    with Image.open(FOLDER / f"{name}.jpg") as thumbnail:
        assert thumbnail.format == "JPEG" and thumbnail.width == thumbnail.height == 512
    notes = [node for node in TEMPLATES[name]["nodes"] if node["type"] == "MarkdownNote"]
    assert len(notes) == 1 and "**Run**" in notes[0]["widgets_values"][0]


@every_template
def test_a_template_begins_with_bundled_photographs_and_says_how_to_take_another(name):
    kinds = {node["type"] for node in TEMPLATES[name]["nodes"]}
    assert not kinds & {"LoadImage", "LoadVideo"}  # whose files not every ComfyUI has
    note = next(node for node in TEMPLATES[name]["nodes"] if node["type"] == "MarkdownNote")["widgets_values"][0]
    if "AdaINExamplePicture" in kinds:
        assert any(f"put *{loader}*" in note.replace("Put", "put") for loader in ("Load Image", "Load Video"))


@pytest.mark.parametrize("name", ["10 A clip without flicker", "11 A video"])
def test_a_clip_moves_and_has_a_frame_for_each_style(name):
    frames = {node["class_type"]: node["inputs"].get("frames") for node in TWINS[name].values()}
    assert frames["AdaINExamplePicture"] == frames["AdaINStyleSweep"] > 1


@every_template
def test_what_runs_anywhere_has_a_twin_for_the_tests(name, schemas):
    kinds = {node["type"] for node in TEMPLATES[name]["nodes"]}
    assert (name in TWINS) != bool(kinds & NOT_HERE)
    if name in TWINS:
        assert TWINS[name] == exported(TEMPLATES[name], schemas)


def test_every_twin_belongs_to_a_template():
    assert TWINS.keys() <= TEMPLATES.keys()


@pytest.mark.parametrize("name", ["01 First steps", "03 Keep the colours", "11 A video"])
def test_an_app_offers_inputs_that_there_are_and_shows_what_is_saved(name):
    by_id, extra = nodes(TEMPLATES[name]), TEMPLATES[name]["extra"]
    assert extra["linearMode"] is True
    for number, widget in extra["linearData"]["inputs"]:
        node = by_id[number]
        widgets = {item["name"] for item in node["inputs"] if "widget" in item}
        assert widget in widgets or widget == BUTTON[0] and node["type"] in BUTTON[1]
    saving = {number for number, node in by_id.items() if node["type"].startswith("Save")}
    assert set(extra["linearData"]["outputs"]) == saving


@every_template
def test_links_lead_from_an_output_to_an_input_of_its_type(name):
    by_id = nodes(TEMPLATES[name])
    for link, source, slot, target, place, kind in TEMPLATES[name]["links"]:
        output, entry = by_id[source]["outputs"][slot], by_id[target]["inputs"][place]
        assert output["type"] == entry["type"] == kind
        assert link in output["links"] and entry["link"] == link


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_a_subgraph_is_one_node_that_says_what_it_is(name):
    (node,), inside = SUBGRAPHS[name]["nodes"], INSIDE[name]
    assert node["type"] == inside["id"] and node["title"] == inside["name"] == name
    assert inside["category"] == "AdaIN" and SUBGRAPHS[name]["extra"]["BlueprintDescription"] == inside["description"]
    for ends in ("inputs", "outputs"):
        assert [(end["name"], end["type"]) for end in node[ends]] == [(end["name"], end["type"]) for end in inside[ends]]
    by_id = nodes(inside)
    for number, widget in node["properties"]["proxyWidgets"]:
        within = by_id[int(number)]
        widgets = {item["name"] for item in within["inputs"] if "widget" in item}
        assert widget in widgets or widget == BUTTON[0] and within["type"] in BUTTON[1]


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_links_inside_of_a_subgraph_lead_from_an_output_to_an_input_of_its_type(name):
    inside = INSIDE[name]
    by_id, ends = nodes(inside), {inside["inputNode"]["id"]: "inputs", inside["outputNode"]["id"]: "outputs"}
    for link in inside["links"]:
        source, target = link["origin_id"], link["target_id"]
        output = inside[ends[source]][link["origin_slot"]] if source in ends else by_id[source]["outputs"][link["origin_slot"]]
        entry = inside[ends[target]][link["target_slot"]] if target in ends else by_id[target]["inputs"][link["target_slot"]]
        assert output["type"] == entry["type"] == link["type"]
        assert link["id"] in (output["linkIds"] if source in ends else output["links"])
        assert entry["linkIds"] == [link["id"]] if target in ends else entry["link"] == link["id"]


@pytest.mark.parametrize("name", {**TEMPLATES, **INSIDE})
def test_our_nodes_are_as_the_schema_has_them(name, schemas):
    from comfy_api.latest import io

    for node in {**TEMPLATES, **INSIDE}[name]["nodes"]:
        if not node["type"].startswith("AdaIN"):
            continue
        schema = schemas[node["type"]][1]
        assert node.get("title") != schema.display_name  # left out, it is shown in the person's language
        widgets = [item for item in schema.inputs if isinstance(item, io.WidgetInput)]
        sockets = [item for item in schema.inputs if item not in widgets]
        entries = [(item["name"], item["type"]) for item in node["inputs"]]
        # values are stored by position: the widgets' order is the schema's
        assert entries[len(sockets) :] == [(item.id, item.get_io_type()) for item in widgets]
        assert sorted(entries[: len(sockets)]) == sorted((item.id, item.get_io_type()) for item in sockets)
        assert [(o["name"], o["type"]) for o in node["outputs"]] == [(o.display_name, o.get_io_type()) for o in schema.outputs]
        linked = {item["name"] for item in node["inputs"] if item["link"] is not None}
        assert {item.id for item in sockets if not item.optional} <= linked
        for item, value in zip(widgets, node["widgets_values"], strict=True):
            if isinstance(item, io.Combo.Input):
                assert value in item.options
            elif isinstance(item, (io.Int.Input, io.Float.Input)):
                assert item.min <= value <= item.max
