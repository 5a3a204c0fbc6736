"""The files of `web/` in Node, with the texts of `locales/` and a stand-in for ComfyUI's page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from root import ROOT

API = """
import { readdirSync, readFileSync } from "node:fs";
const FOLDER = process.env.LOCALES;
const read = (language) => JSON.parse(readFileSync(`${FOLDER}/${language}/main.json`, "utf8"));
const texts = Object.fromEntries(readdirSync(FOLDER).map((language) => [language, read(language)]));
export const api = { getCustomNodesI18n: async () => texts };
"""
APP = """
globalThis.document = { createElement: () => ({}), head: { appendChild: (element) => element } };
export const extensions = [];
export const settings = {};
export const app = {
  registerExtension: (extension) => extensions.push(extension),
  extensionManager: { setting: { get: (id) => settings[id] } },
};
"""


def run(folder: Path, script: str, questions: object) -> list:
    """What a script prints as JSON, with the questions as JSON in its environment; it runs in an empty folder."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no Node")
    shutil.copytree(ROOT / "web", folder / "extensions" / "adain", ignore=shutil.ignore_patterns("docs"))
    texts = {"package.json": '{"type": "module"}', "scripts/api.js": API, "scripts/app.js": APP, "ask.js": script}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "QUESTIONS": json.dumps(questions), "LOCALES": str(ROOT / "locales")}
    done = subprocess.run([node, "ask.js"], cwd=folder, env=environment, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)
