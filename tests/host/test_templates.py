"""The templates as a person sees them when they are opened, and as apps, in a real browser."""

from __future__ import annotations

import json
from itertools import combinations

import pytest
from browser import template
from comfyui_server import Server, needs_comfyui
from root import ROOT

pytestmark = needs_comfyui
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
APPS = ["01 First steps", "03 Keep the colours", "11 A video"]
# Opens a workflow as the list of templates does, waits until nothing moves, and tells where each node is on the page, as
# left, top, right and bottom, how much of a note is under something else, and the size of its text in pixels.
OPEN = """async ([workflow, name]) => {
    await app.loadGraphData(workflow, true, true, name, { openSource: "template" });
    const element = node => document.querySelector(`[data-node-id="${node.id}"]`);
    const corners = ([x, y, width, height]) =>
        [...app.canvasPosToClientPos([x, y]), ...app.canvasPosToClientPos([x + width, y + height])];
    const box = node => {
        const shown = element(node)?.getBoundingClientRect();
        return shown ? [shown.left, shown.top, shown.right, shown.bottom] : corners(node.boundingRect ?? node.getBounding());
    };
    const [note] = app.graph.findNodesByType("MarkdownNote");
    const size = () => {
        const shown = element(note) ?? note.widgets[0].element;
        const line = shown.querySelector(":is(.comfy-markdown-content, .tiptap) :is(p, li)");
        return line ? parseFloat(getComputedStyle(line).fontSize) * app.canvas.ds.scale : NaN; // it may not be shown yet
    };
    let boxes, text;
    for (let before, still = 0; still < 10; before = String(boxes)) {
        await new Promise(requestAnimationFrame);
        [boxes, text] = [app.graph.nodes.map(box), size()];
        still = String(boxes) === before && [text, ...boxes.flat()].every(Number.isFinite) ? still + 1 : 0;
    }
    const covered = app.graph.nodes.filter(node => node.type === "MarkdownNote").flatMap(note => {
        const [left, top, right, bottom] = box(note), own = [app.canvasEl, element(note), note.widgets[0].element];
        return Array.from({ length: 100 }, (_, k) => document.elementFromPoint(
            left + (right - left) * (k % 10 + 0.5) / 10, top + (bottom - top) * (Math.floor(k / 10) + 0.5) / 10,
        )).filter(found => !own.some(one => one === found || one !== app.canvasEl && one?.contains(found)));
    }).length;
    return { boxes: app.graph.nodes.map((node, k) => [node.title, boxes[k]]), covered, text };
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("templates")) as server:
        yield server


def overlapping(opened: dict) -> list[tuple[str, str]]:
    """The titles of nodes that overlap."""
    return [
        (one, other)
        for (one, a), (other, b) in combinations(opened["boxes"], 2)
        if max(a[0], b[0]) < min(a[2], b[2]) - 1 and max(a[1], b[1]) < min(a[3], b[3]) - 1
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_in_order(window, name):
    opened = window.evaluate(OPEN, [template(name), name])
    assert not overlapping(opened)
    assert not opened["covered"], "a note is under the interface's buttons, or outside of the window"
    assert opened["text"] > 7.5, "a note is too small to read in a window of 1400x900 pixels"


@pytest.mark.parametrize("name", NAMES)
def test_the_longest_translation_of_a_note_has_room(window, name):
    texts = [json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "locales").glob("*/main.json")]
    workflow = template(name)
    note = next(node for node in workflow["nodes"] if node["type"] == "MarkdownNote")
    note["widgets_values"] = [max((text["AdaINTemplates"]["notes"][name] for text in texts), key=len)]
    assert not overlapping(window.evaluate(OPEN, [workflow, name]))


@pytest.mark.parametrize("name", APPS)
def test_a_template_is_an_app_with_the_gallery(window, server, name):
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    window.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [workflow, name])
    assert window.evaluate("app.graph.nodes.length") == len(workflow["nodes"])
    if server.get("/system_stats")["system"]["comfyui_version"].startswith("0.3."):
        return  # there are no apps yet: it is a graph like any other
    inputs = workflow["extra"]["linearData"]["inputs"]
    items = window.locator("[data-testid=app-mode-widget-item]")
    items.nth(len(inputs) - 1).wait_for()
    assert items.count() == len(inputs)
    window.get_by_role("button", name="Choose by picture").first.click()
    window.locator(".adain-gallery [role=option]").filter(has_text="great-wave").click()
    style = next(place for place, (_, widget) in enumerate(inputs) if widget in ("style", "name"))
    assert "great-wave" in items.nth(style).inner_text()
    window.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [template("05 Mix styles"), "graph"])
    items.first.wait_for(state="detached")


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "subgraphs").glob("*.json"))])
def test_a_subgraph_offers_its_inputs_on_the_node(window, server, name):
    if server.get("/system_stats")["system"]["comfyui_version"].startswith("0.3."):
        pytest.skip("this host lists no subgraphs of plugins")
    blueprint = json.loads((ROOT / "subgraphs" / f"{name}.json").read_text())
    (node,), (inside,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    window.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [blueprint, name])
    offered = window.evaluate("app.graph.nodes[0].widgets.map(widget => widget.name)")
    names = [widget for _, widget in node["properties"]["proxyWidgets"]]
    last = sorted(names, key="choose_style".__eq__)  # newer hosts show no button of a node inside: the node has its own
    assert offered in (names, last)
    window.evaluate("app.graph.nodes[0].widgets.find(widget => widget.name === 'choose_style').callback()")
    window.locator(".adain-gallery [role=option]").filter(has_text="great-wave").click()
    window.locator(".adain-gallery").wait_for(state="detached")
    queued = window.evaluate("async () => (await app.graphToPrompt()).output")
    assert sorted(queued[f"{node['id']}:{one['id']}"]["class_type"] for one in inside["nodes"]) == sorted(
        one["type"] for one in inside["nodes"]
    )
    assert [one["inputs"]["name"] for one in queued.values() if one["class_type"] == "AdaINLoadStyle"] == ["great-wave"]
