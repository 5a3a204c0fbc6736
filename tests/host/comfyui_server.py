"""A ComfyUI process with the plugin, of the checkout in COMFYUI_DIR with the Python in COMFYUI_PYTHON."""

from __future__ import annotations

import json
import os
import queue
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Collection, Iterator
from pathlib import Path

import clips
import pytest
import torch
from PIL import Image, ImageSequence
from root import ROOT
from torchvision.transforms.functional import pil_to_tensor

CHECKOUT, PYTHON = os.environ.get("COMFYUI_DIR", ""), os.environ.get("COMFYUI_PYTHON", "")
PATIENCE = 300  # seconds without a line in the log, after which a test fails

needs_comfyui = pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="COMFYUI_DIR and COMFYUI_PYTHON are not set")


class Server:
    """A ComfyUI process with the plugin and its files in `base`, followed by its log; it ends with the `with` block."""

    def __init__(self, base: Path):
        for folder in ("custom_nodes", "models/adain", "input", "output", "user"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        (base / "custom_nodes" / "comfyui-adain").symlink_to(ROOT, target_is_directory=True)
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

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=60)

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

    def start(self, workflow: dict, client: str = "") -> str:
        return self.post("/prompt", {"prompt": workflow, "client_id": client})["prompt_id"]

    def messages(self, client: str) -> Iterator[bytes]:
        """What the server sends this client over its websocket (RFC 6455), which is open once the first has come."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection, connection.makefile("rb") as stream:
            connection.sendall(
                f"GET /ws?clientId={client} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            while stream.readline().strip():
                pass
            while True:
                size = stream.read(2)[1]
                longer = {126: 2, 127: 8}.get(size, 0)
                yield stream.read(int.from_bytes(stream.read(longer), "big") if longer else size)

    def finish(self, prompt: str) -> dict:
        self.wait_for("Prompt executed in")
        return self.get(f"/history/{prompt}")[prompt]

    def run(self, workflow: dict) -> dict:
        history = self.finish(self.start(workflow))
        assert history["status"]["status_str"] == "success", history["status"]["messages"]
        return history

    def pictures(self, history: dict, nodes: Collection[str] = ()) -> torch.Tensor:
        """All pictures and frames that were saved, or those that the given nodes show, in the nodes' order: `(N, 3, H, W)`."""
        frames = []
        for node, output in sorted(history["outputs"].items(), key=lambda item: (len(item[0]), item[0])):
            for file in output["images"]:
                path = self.base / file["type"] / file["subfolder"] / file["filename"]
                if node not in nodes if nodes else file["type"] != "output":
                    continue
                if path.suffix == ".mp4":
                    frames += [torch.from_numpy(pixels).movedim(-1, 0) for pixels in clips.pixels(path)]
                    continue
                with Image.open(path) as picture:
                    frames += [pil_to_tensor(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
        return torch.stack(frames) / 255
