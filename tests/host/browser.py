"""ComfyUI's page in a Chromium of the system, driven by playwright (`pip install playwright`)."""

from __future__ import annotations

import json
import shutil

from root import ROOT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]  # no network


def template(name: str) -> dict:
    """A template as a graph, where it would open as an app."""
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
    workflow["extra"].pop("linearMode", None)
    return workflow


def loaded(page, server):
    page.set_default_timeout(180_000)
    page.goto(server.url, wait_until="domcontentloaded")
    page.wait_for_function("window.app?.extensionManager && app.canvas?.graph?.nodes.length")  # its own first workflow
    return page
