"""The gallery of styles in a real browser."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import pytest
from browser import loaded, template
from comfyui_server import Server, needs_comfyui
from root import ROOT

from adain_core import load_style
from adain_core.catalog import BUNDLED

pytestmark = needs_comfyui
TEMPLATE, OTHER, MIX = map(template, ("01 First steps", "03 Keep the colours", "05 Mix styles"))
TWIN = json.loads((ROOT / "workflows" / "api" / "01 First steps.json").read_text())["3"]["inputs"]  # what is queued of it
BUNDLED_NAMES = sorted(path.stem for path in (BUNDLED / "styles").glob("*.safetensors"))
BUTTON = "Choose by picture"
# Where a node's button is on the page, once it has been drawn and the view stands still.
AT_REST = """async kind => {
    for (let before, still = 0; ; ) {
        await new Promise(requestAnimationFrame);
        const node = app.graph.findNodesByType(kind)[0];
        const at = app.canvasPosToClientPos([node.pos[0] + 80, node.pos[1] + node.widgets.at(-1).last_y + 10]);
        still = String(at) === before && at.every(Number.isFinite) ? still + 1 : 0;
        if (still === 10) return at;
        before = String(at);
    }
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with styles of a person's own besides the bundled ones: of one folder, for `lite` alone without pictures,
    damaged.
    """
    base = tmp_path_factory.mktemp("gallery")
    styles = base / "output" / "adain_styles"
    (styles / "sea").mkdir(parents=True)
    wave = load_style(BUNDLED / "styles" / "great-wave.safetensors")
    wave.save(styles / "sea" / "mine.safetensors")
    plain = dataclasses.replace(wave, thumbnail=b"", example=b"", source="", variants=())
    plain.save(styles / "plain.safetensors")
    (styles / "broken.safetensors").write_bytes(b"no style")
    with Server(base) as server:
        yield server


class Canvas:
    """A page with a workflow, of which `node` is the node with a style."""

    def __init__(self, page, workflow: dict, kind: str):
        self.page, self.kind = page, kind
        page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        self.options = page.locator(".adain-gallery [role=option]")
        self.shown = page.locator(".adain-gallery [role=option]:not([hidden])")
        self.active = page.locator(".adain-gallery [role=option].active")
        # the nodes are elements of the page, or drawn on the canvas
        self.elements = page.evaluate("app.extensionManager.setting.get('Comfy.VueNodes.Enabled')")

    def ask(self, expression: str):
        return self.page.evaluate(
            f"kind => {{ const node = app.graph.findNodesByType(kind)[0]; return {expression}; }}", self.kind
        )

    def open(self) -> None:
        """Press the button on the node with the mouse."""
        if self.elements:
            self.page.get_by_role("button", name=BUTTON).click()
        else:
            self.page.mouse.click(*self.page.evaluate(AT_REST, self.kind))
        self.wait()

    def wait(self) -> None:
        self.options.first.wait_for()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def closed(self) -> bool:
        self.page.locator(".adain-gallery").wait_for(state="detached")
        return True

    def names(self) -> list[str]:
        return [name.strip() for name in self.shown.evaluate_all("all => all.map(option => option.lastChild.textContent)")]

    def values(self) -> list:
        return self.ask("node.serialize().widgets_values")

    def queued(self) -> dict:
        """The inputs of the node in the prompt that is queued."""
        answer = json.dumps({"prompt_id": "none", "number": 1, "node_errors": {}})
        self.page.route("**/prompt", lambda route: route.fulfill(body=answer, content_type="application/json"))
        with self.page.expect_request("**/prompt") as request:
            self.page.evaluate("app.queuePrompt(0)")
        self.page.unroute("**/prompt")
        nodes = request.value.post_data_json["prompt"].values()
        return next(node["inputs"] for node in nodes if node["class_type"] == self.kind)


@pytest.fixture
def canvas(window) -> Canvas:
    canvas = Canvas(window, TEMPLATE, "AdaINStyleTransfer")
    yield canvas
    canvas.press("Escape")


def test_the_button_shows_every_style_with_its_name_beneath(canvas):
    canvas.open()
    assert sorted(canvas.names()) == sorted([*BUNDLED_NAMES, "broken", "plain", "sea/mine"])
    assert sorted(canvas.names()) == sorted(canvas.ask("node.widgets.find(widget => widget.name === 'style').options.values"))
    painted = canvas.options.filter(has=canvas.page.locator("img"))
    assert painted.count() == len(BUNDLED_NAMES) + 1
    assert painted.locator("img").evaluate_all("all => all.every(image => image.complete && image.naturalWidth > 0)")
    beneath = "all => all.every(o => o.firstChild.getBoundingClientRect().bottom <= o.getBoundingClientRect().bottom - 12)"
    assert canvas.options.evaluate_all(beneath)
    assert canvas.active.text_content() == canvas.page.locator(".adain-gallery [aria-selected=true]").text_content()


def test_a_style_is_a_photograph_in_it_with_the_painting_in_the_corner(canvas):
    canvas.open()
    corners = canvas.options.locator("img.painting")
    assert 0 < corners.count() < len(BUNDLED_NAMES)  # the pictures of some paintings are not free
    assert canvas.options.locator("img:not(.painting)").count() == len(BUNDLED_NAMES) + 1
    inside = """all => all.every(image => {
        const [small, large] = [image, image.parentNode].map(shown => shown.getBoundingClientRect());
        return small.width < large.width / 2 && small.right <= large.right && small.bottom <= large.bottom;
    })"""
    assert corners.evaluate_all(inside)


def test_styles_that_are_not_for_the_chosen_model_are_marked(canvas):
    unfit = canvas.page.locator(".adain-gallery .unfit")
    canvas.open()
    assert unfit.count() == 0
    canvas.press("Escape")
    canvas.ask("node.widgets.find(widget => widget.name === 'model').value = 'vgg19'")
    canvas.open()
    assert [name.strip() for name in unfit.locator("span").all_text_contents()] == ["plain"]
    canvas.page.keyboard.type("plain")
    assert canvas.page.get_by_text("Not for the chosen model").is_visible()


def test_arrows_and_enter_choose_what_is_saved_and_queued(canvas):
    before = canvas.values()
    canvas.open()
    names, tiles = canvas.names(), canvas.options.evaluate_all("all => all.map(option => option.offsetTop)")
    place, columns = names.index(before[1]), tiles.count(tiles[0])
    assert columns > 3
    canvas.press("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft", "Enter")
    assert canvas.closed()
    chosen = names[place + columns + 1]
    # the button itself is saved nowhere: workflows keep values by position
    assert canvas.values() == [before[0], chosen, *before[2:]]
    assert canvas.queued() == TWIN | {"style": chosen}
    assert canvas.ask("app.extensionManager.workflow.activeWorkflow.isModified")
    canvas.press("Control+z")
    canvas.page.wait_for_function("app.graph.findNodesByType('AdaINStyleTransfer')[0].widgets[1].value === 'cafe-terrace'")


def test_a_click_chooses(canvas):
    canvas.open()
    canvas.options.filter(has_text="great-wave").click()
    assert canvas.closed() and canvas.values()[1] == "great-wave"


@pytest.mark.parametrize("leave", ["Escape", "backdrop", "close"])
def test_leaving_changes_nothing(canvas, leave):
    before = canvas.values()
    canvas.open()
    canvas.press("ArrowRight")
    if leave == "Escape":
        canvas.press("Escape")
    elif leave == "backdrop":
        canvas.page.mouse.click(5, 5)
    else:
        canvas.press("Tab")
        assert canvas.page.evaluate("document.activeElement.ariaLabel") == "Close"
        canvas.press("Enter")
    assert canvas.closed() and canvas.values() == before


def test_typing_filters_by_name_and_painter(canvas):
    canvas.open()
    canvas.page.keyboard.type("hokusai")
    assert canvas.names() == ["great-wave", "poppies", "sea/mine"]
    canvas.press("End", "Enter")
    assert canvas.closed() and canvas.values()[1] == "sea/mine"


def test_painters_are_found_with_their_accents_and_without(canvas):
    canvas.open()
    for text in ("dürer", "duerer", "durer"):
        canvas.press("Control+a")
        canvas.page.keyboard.type(text)
        assert canvas.names() == ["four-horsemen", "young-hare"]
    canvas.press("Control+a")
    canvas.page.keyboard.type("Cézanne")
    assert canvas.names() == ["mont-sainte-victoire"]


def test_text_selected_out_of_the_filter_leaves_the_gallery_open(canvas):
    canvas.open()
    canvas.page.keyboard.type("spring")
    box = canvas.page.locator(".adain-gallery input").bounding_box()
    canvas.page.mouse.move(box["x"] + 40, box["y"] + box["height"] / 2)
    canvas.page.mouse.down()
    canvas.page.mouse.move(5, 5)
    canvas.page.mouse.up()
    assert canvas.page.locator(".adain-gallery").is_visible()
    canvas.page.mouse.click(5, 5)
    assert canvas.closed()


def test_a_filter_that_nothing_passes_says_so_and_chooses_nothing(canvas):
    before = canvas.values()
    canvas.open()
    canvas.page.keyboard.type("zzz")
    assert canvas.names() == [] and canvas.page.get_by_text("There is no such style.").is_visible()
    canvas.press("Enter", "ArrowDown", "Escape")
    assert canvas.closed() and canvas.values() == before


def test_the_list_takes_keys_too_and_gives_letters_to_the_filter(canvas):
    canvas.open()
    canvas.page.get_by_role("listbox").focus()
    canvas.press("Home", "ArrowRight")
    assert canvas.active.text_content().strip().endswith(canvas.names()[1])
    canvas.page.keyboard.type("spring")
    assert canvas.names() == ["spring"]


def test_the_text_of_the_filter_is_selected_by_keys(canvas):
    canvas.open()
    canvas.page.keyboard.type("spring")
    canvas.press("Shift+Home")
    canvas.page.keyboard.type("hokusai")
    assert canvas.names()[0] == "great-wave"
    canvas.press("Escape")


def test_a_click_beside_the_tiles_chooses_nothing(canvas):
    canvas.open()
    canvas.page.keyboard.type("poppies")
    box = canvas.page.get_by_role("listbox").bounding_box()
    canvas.page.mouse.click(box["x"] + box["width"] - 12, box["y"] + 20)
    assert canvas.page.locator(".adain-gallery").is_visible()
    canvas.press("Escape")


def test_a_style_saved_meanwhile_is_there(canvas, server):
    saved = server.base / "output" / "adain_styles" / "late.safetensors"
    shutil.copy(BUNDLED / "styles" / "poppies.safetensors", saved)
    canvas.open()
    canvas.page.keyboard.type("late")
    canvas.press("Enter")
    assert canvas.closed() and canvas.queued()["style"] == "late"
    saved.unlink()


def test_the_selected_node_answers_to_the_keyboard(window):
    workflow = {
        "nodes": [{"id": 1, "type": "AdaINLoadStyle", "pos": [300, 300], "widgets_values": ["harvest"]}],
        "version": 0.4,
    }
    canvas = Canvas(window, {**workflow, "last_node_id": 1, "last_link_id": 0, "links": []}, "AdaINLoadStyle")
    canvas.ask("app.canvas.selectNode(node)")
    canvas.press("Shift+S")
    canvas.wait()
    canvas.press("Home", "Enter")
    assert canvas.closed() and canvas.values() == [BUNDLED_NAMES[0]]


def test_the_menu_of_a_node_with_a_style_opens_the_gallery(canvas):
    if canvas.elements:
        canvas.page.get_by_text("2. Style Transfer", exact=True).click(button="right")
    else:
        canvas.page.evaluate(AT_REST, canvas.kind)
        canvas.page.mouse.click(*canvas.ask("app.canvasPosToClientPos([node.pos[0] + 100, node.pos[1] - 15])"), button="right")
    canvas.page.get_by_text("Choose a style by picture", exact=True).click()
    canvas.wait()
    canvas.press("Escape")
    assert canvas.closed()


@pytest.mark.parametrize("query", ["adain", "style", "style transfer"])
def test_style_transfer_is_the_first_hit_of_search(canvas, query):
    canvas.page.evaluate("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
    canvas.page.locator("input:focus").wait_for()
    canvas.page.keyboard.type(query)
    options = canvas.page.get_by_role("option").filter(has_not=canvas.page.get_by_role("combobox"))  # not the box, as on 0.3.64
    first = options.first
    pytest.importorskip("playwright.sync_api").expect(first).to_contain_text(re.compile(r"^\s*Style Transfer"))
    canvas.press("Escape")
    first.wait_for(state="hidden")


def test_style_mix_shows_the_sockets_in_use_and_a_free_one(window):
    canvas = Canvas(window, MIX, "AdaINStyleMix")
    shown = """(() => ({
        sockets: node.inputs.map(input => input.name).filter(name => name.startsWith("style")),
        weights: node.widgets.filter(widget => !widget.hidden).length,
        saved: node.serialize().widgets_values.length,
        agree: node.inputs.every((input, slot) => input.link == null || node.graph.getLink(input.link).target_slot === slot),
    }))()"""

    def expect(sockets: int, weights: int) -> None:
        canvas.page.evaluate("() => new Promise(requestAnimationFrame)")
        names = [f"style_{index + 1}" for index in range(sockets)]
        assert canvas.ask(shown) == {"sockets": names, "weights": weights, "saved": 6, "agree": True}

    source, slot = (
        "node.graph.findNodesByType('AdaINLoadStyle')[0]",
        "node.inputs.findIndex(input => input.name === 'style_{}')",
    )
    expect(3, 2)
    for index, state in ((3, (4, 3)), (4, (5, 4)), (5, (6, 5)), (6, (6, 6))):
        canvas.ask(f"{source}.connect(0, node, {slot.format(index)}) && null")
        expect(*state)
    assert {f"style_{index}" for index in range(1, 7)} <= canvas.queued().keys()
    canvas.ask(f"node.disconnectInput({slot.format(6)})")
    expect(6, 5)
    canvas.ask(f"node.disconnectInput({slot.format(4)})")
    expect(6, 5)  # the fifth is still in use
    canvas.ask(f"node.disconnectInput({slot.format(5)})")
    expect(4, 3)


@pytest.fixture
def japanese(server, window):
    """Another page, in Japanese."""
    server.post("/settings", {"Comfy.Locale": "ja"})
    page = loaded(window.context.browser.new_page(), server)
    yield page
    page.close()
    server.post("/settings", {"Comfy.Locale": "en"})


def test_the_gallery_and_the_nodes_of_templates_are_in_the_language_of_the_page(japanese):
    canvas = Canvas(japanese, OTHER, "AdaINLoadStyle")
    assert canvas.ask("node.title") == "スタイルを読み込む (AdaIN)" and canvas.ask("node.widgets.at(-1).label") == "画像で選ぶ"
    canvas.ask("app.canvas.selectNode(node)")
    canvas.press("Shift+S")
    canvas.wait()
    assert japanese.get_by_role("heading", name="スタイルを選ぶ").is_visible()
    japanese.keyboard.type("zzz")
    assert japanese.get_by_text("該当するスタイルがありません。").is_visible()
