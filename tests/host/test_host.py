"""The plugin in a real ComfyUI: set COMFYUI_DIR to a checkout of it and COMFYUI_PYTHON to a Python with its requirements."""

from __future__ import annotations

import json
import os
import queue
import shutil
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
import torch

from adain_core import encode_style, load_decoder, load_encoder, stylize
from adain_core.images import load_image, save_image

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT, PYTHON = os.environ.get("COMFYUI_DIR"), os.environ.get("COMFYUI_PYTHON")
PATIENCE = 300  # seconds without a line in the log, after which a test fails

pytestmark = pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="COMFYUI_DIR and COMFYUI_PYTHON are not set")


class Server:
    """A ComfyUI process, followed by its log."""

    def __init__(self, base: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base, self.url, self.log = base, f"http://127.0.0.1:{port}", []
        options = ["--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
        options += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
        self.process = subprocess.Popen(
            [PYTHON, "main.py", *options],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self.lines = queue.Queue()
        threading.Thread(target=self._follow, daemon=True).start()
        self.wait_for("To see the GUI go to")

    def _follow(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def wait_for(self, text: str) -> None:
        while True:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, "".join(["ComfyUI ended: ", *self.log[-30:]])
            self.log.append(line)
            if text in line:
                return

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path: str, content: dict) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(content).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "{}")

    def start(self, workflow: dict) -> str:
        return self.post("/prompt", {"prompt": workflow})["prompt_id"]

    def finish(self, prompt: str) -> dict:
        self.wait_for("Prompt executed in")
        return self.get(f"/history/{prompt}")[prompt]

    def run(self, workflow: dict) -> dict:
        history = self.finish(self.start(workflow))
        assert history["status"]["status_str"] == "success", history["status"]["messages"]
        return history

    def pictures(self, history: dict) -> torch.Tensor:
        files = [file for output in history["outputs"].values() for file in output["images"]]
        return torch.cat([load_image(self.base / "output" / file["subfolder"] / file["filename"]) for file in files])


@pytest.fixture(scope="module")
def server(tmp_path_factory, small_files):
    base = tmp_path_factory.mktemp("comfyui")
    for folder in ("custom_nodes", "models/adain", "input", "output", "user"):
        (base / folder).mkdir(parents=True)
    (base / "custom_nodes" / "comfyui-adain").symlink_to(ROOT, target_is_directory=True)
    for file in small_files:
        shutil.copy(file, base / "models" / "adain")
        shutil.copy(file, base / "models" / "adain" / file.name.replace("small", "fresh"))
    torch.manual_seed(0)
    save_image(torch.rand(1, 3, 37, 45), base / "input" / "photo.png")
    save_image(torch.rand(1, 3, 64, 80) * torch.tensor([1.0, 0.5, 0.2])[:, None, None], base / "input" / "painting.png")
    server = Server(base)
    yield server
    server.process.terminate()
    server.process.wait(timeout=60)


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def chain(model: str = "small", **more: dict) -> dict:
    """The full way from photo.png and painting.png to a saved picture."""
    nodes = {
        "photo": node("LoadImage", image="photo.png"),
        "painting": node("LoadImage", image="painting.png"),
        "encoder": node("AdaINLoadEncoder", name=model, dtype="float32"),
        "decoder": node("AdaINLoadDecoder", name=model, dtype="float32"),
        "style": node("AdaINEncodeStyle", encoder=["encoder", 0], image=["painting", 0], size=0, combine="pool"),
        "features": node(
            "AdaINTransfer",
            encoder=["encoder", 0],
            content=["photo", 0],
            style=["style", 0],
            alpha=0.8,
            content_statistics="image",
            half_life=8.0,
            tile=-1,
        ),
        "picture": node("AdaINDecode", decoder=["decoder", 0], features=["features", 0], tile=-1),
        "save": node("SaveImage", images=["picture", 0], filename_prefix="chain"),
    }
    return {**nodes, **more}


def test_all_nodes_register_and_nothing_failed(server):
    names = [name for name in server.get("/object_info") if name.startswith("AdaIN")]
    assert len(names) == 13
    assert server.get("/object_info/AdaINLoadEncoder")["AdaINLoadEncoder"]["input"]["required"]["name"][1]["options"] == [
        "fresh",
        "small",
    ]
    assert not [line for line in server.log if "IMPORT FAILED" in line or "Traceback" in line]


def test_the_chain_gives_the_librarys_picture_and_a_second_run_comes_from_the_cache(server, small_files):
    workflow = chain()
    picture = server.pictures(server.run(workflow))
    encoder, decoder = load_encoder(str(small_files[0])), load_decoder(str(small_files[1]))
    photo, painting = (load_image(server.base / "input" / name) for name in ("photo.png", "painting.png"))
    expected = stylize(encoder, decoder, photo, encode_style(encoder, painting, size=0), alpha=0.8)
    assert picture.shape == photo.shape
    torch.testing.assert_close(picture, expected, atol=1.01 / 255, rtol=0)
    again = dict(server.run(workflow)["status"]["messages"])
    assert set(again["execution_cached"]["nodes"]) == set(workflow)


def test_a_saved_style_is_offered_at_once_and_serves_the_short_way(server):
    style = ["style", 0]
    server.run(chain(saved=node("AdaINSaveStyle", style=style, name="mine")))
    options = server.get("/object_info/AdaINStyleTransfer")["AdaINStyleTransfer"]["input"]["required"]["style"][1]["options"]
    assert "mine" in options
    content = ["photo", 0]
    workflow = {
        "photo": node("LoadImage", image="photo.png"),
        "short": node("AdaINStyleTransfer", content=content, model="small", style="mine", alpha=0.8, keep_colors=False),
        "save": node("SaveImage", images=["short", 0], filename_prefix="short"),
    }
    torch.testing.assert_close(server.pictures(server.run(workflow)), server.pictures(server.run(chain())))


def test_mixed_masked_and_swept_styles_make_a_clip(server):
    other = node("AdaINEncodeStyle", encoder=["encoder", 0], image=["photo", 0], size=0, combine="pool")
    workflow = chain(
        other=other,
        half=node("SolidMask", value=1.0, width=45, height=20),
        masked=node("AdaINMaskStyle", style=["other", 0], mask=["half", 0]),
        mix=node("AdaINStyleMix", style_1=["style", 0], weight_1=1.0, style_2=["masked", 0], weight_2=0.5),
        sweep=node("AdaINStyleSweep", style_from=["style", 0], style_to=["mix", 0], frames=3, curve="smooth"),
    )
    workflow["features"]["inputs"]["style"] = ["sweep", 0]
    workflow["picture"]["inputs"]["keep_colors_of"] = ["photo", 0]
    clip = server.pictures(server.run(workflow))
    assert clip.shape == (3, 3, 37, 45)
    assert not torch.equal(clip[0], clip[2])


def test_latents_go_through(server):
    workflow = {
        "a": node("EmptyLatentImage", width=64, height=64, batch_size=2),
        "b": node("EmptyLatentImage", width=128, height=64, batch_size=1),
        "latent": node("AdaINLatent", latent=["a", 0], reference=["b", 0], alpha=1.0, statistics="image"),
        "save": node("SaveLatent", samples=["latent", 0], filename_prefix="latent"),
    }
    server.run(workflow)


def test_a_mistake_is_one_sentence(server):
    empty = node("SolidMask", value=0.0, width=45, height=37)
    workflow = chain(empty=empty, masked=node("AdaINMaskStyle", style=["style", 0], mask=["empty", 0]))
    workflow["features"]["inputs"]["style"] = ["masked", 0]
    messages = dict(server.finish(server.start(workflow))["status"]["messages"])
    assert messages["execution_error"]["exception_message"].strip().startswith("the mask is empty (0 everywhere)")


def test_cancelling_is_honoured(server):
    workflow = chain("fresh", many=node("RepeatImageBatch", image=["photo", 0], amount=4000))
    workflow["features"]["inputs"]["content"] = ["many", 0]
    prompt = server.start(workflow)
    server.wait_for("Requested to load")
    server.post("/interrupt", {})
    assert "execution_interrupted" in dict(server.finish(prompt)["status"]["messages"])
