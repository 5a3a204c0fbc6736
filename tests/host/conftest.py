from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from browser import ARGUMENTS, CHROMIUM, loaded
from comfyui_server import Server

from adain_core.images import save_image


@pytest.fixture(scope="module")
def server(tmp_path_factory, small_files):
    """A server with two pairs of small networks, a node of the tests' own, and two pictures in its input folder."""
    base = tmp_path_factory.mktemp("comfyui")
    (base / "models" / "adain").mkdir(parents=True)
    (base / "input").mkdir()
    (base / "custom_nodes").mkdir()
    shutil.copy(Path(__file__).with_name("stand_in.py"), base / "custom_nodes")
    for file in small_files:
        shutil.copy(file, base / "models" / "adain")
        shutil.copy(file, base / "models" / "adain" / file.name.replace("small", "fresh"))
    torch.manual_seed(0)
    save_image(torch.rand(1, 3, 37, 45), base / "input" / "photo.png")
    save_image(torch.rand(1, 3, 64, 80) * torch.tensor([1.0, 0.5, 0.2])[:, None, None], base / "input" / "painting.png")
    with Server(base) as server:
        yield server


@pytest.fixture(scope="module", params=["canvas", "vue"])
def window(server, request):
    """The server's page, with nodes drawn on the canvas or as elements of the page ("Nodes 2.0")."""
    engine = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    if request.param == "vue" and server.get("/system_stats")["system"]["comfyui_version"].startswith("0.3."):
        pytest.skip("this host has them as an unfinished preview")
    # else the templates come up first, and a tour where an app is opened
    server.post("/settings", {"Comfy.TutorialCompleted": True, "Comfy.OnboardingCoachmarks.Seen": ["appMode", "firstRun"]})
    with engine.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = loaded(browser.new_page(viewport={"width": 1400, "height": 900}), server)
        page.evaluate("on => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param == "vue")
        yield page
        browser.close()
