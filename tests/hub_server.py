"""A small Hugging Face Hub on 127.0.0.1, with faults to inject. To be imported before huggingface-hub, which reads the
environment once: from then on that one asks nobody else."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """A file of a repository. As an LFS file it lies on another host, to which the Hub redirects, under its SHA-256."""

    path: Path
    lfs: bool = True
    etag: str = ""

    def __post_init__(self):
        if not self.etag:
            content = self.path.read_bytes()
            blob = b"blob %d\0%b" % (len(content), content)
            self.etag = hashlib.sha256(content).hexdigest() if self.lfs else hashlib.sha1(blob).hexdigest()
        self.commit = hashlib.sha1(self.etag.encode()).hexdigest()


@dataclass
class Fault:
    """Something that goes wrong with requests whose "METHOD path" has `where` in it, `times` times."""

    where: str
    times: int = 1_000_000
    status: int = 0  # answer with this
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # close without an answer
    cut: int | None = None  # close after so many bytes of the body
    stall: threading.Event | None = None  # after `cut` bytes wait for this
    stalled: threading.Event = field(default_factory=threading.Event)
    length: int = 0  # add to the length that is stated
    no_ranges: bool = False
    change: Callable[[bytes, int], bytes] | None = None  # of a piece of the file, and where it begins


class Hub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.reset()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """Clients that go away, as killed ones do, are no news."""

    def reset(self) -> None:
        self.files: dict[str, Served] = {}
        self.commits: list[dict[str, bytes]] = []
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, dict[str, str]]] = []  # "METHOD path", headers
        self.sent = 0  # bytes of bodies
        self.lock = threading.Lock()

    def serve(self, name: str, path: Path, **options) -> Served:
        """Serve a file as `owner/repo/file`, or with `datasets/` or `spaces/` before."""
        self.files[name] = Served(path, **options)
        return self.files[name]

    def fault(self, where: str, times: int = 1_000_000, **kind) -> Fault:
        self.faults.append(Fault(where, times, **kind))
        return self.faults[-1]

    def asked(self, where: str) -> int:
        return sum(where in request for request, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):  # noqa: N802
        self.answer()

    def do_GET(self):  # noqa: N802
        self.answer()

    def do_POST(self):  # noqa: N802
        self.answer()

    def log_message(self, *arguments):
        pass

    def answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {self.path}"
        with self.server.lock:
            self.server.requests.append((request, {k.lower(): v for k, v in self.headers.items()}))
            fault = next((f for f in self.server.faults if f.times > 0 and f.where in request), Fault(""))
            fault.times -= 1
        if fault.drop:
            self.close_connection = True
        elif fault.status:
            self.send(fault.status, fault.headers)
        elif found := re.fullmatch(r"/((?:datasets/|spaces/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self.resolve(f"{found[1]}/{found[3]}", fault)
        elif self.path.startswith("/cdn/"):
            self.content(self.server.files[self.path.removeprefix("/cdn/")], fault)
        else:
            self.api()

    def resolve(self, name: str, fault: Fault) -> None:
        file = self.server.files.get(name)
        if file is None:
            known = any(other.startswith("/".join(name.split("/")[: 3 if name.startswith(("datasets/", "spaces/")) else 2]))
                        for other in self.server.files)  # fmt: skip
            return self.send(404 if known else 401, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        if not file.lfs:
            return self.content(file, fault)
        size = str(file.path.stat().st_size + fault.length)
        linked = {"X-Repo-Commit": file.commit, "X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": size}
        host = self.server.url.replace("127.0.0.1", "localhost")
        self.send(302, linked | {"Location": f"{host}/cdn/{name}", "ETag": '"of the redirect"'} | fault.headers)

    def content(self, file: Served, fault: Fault) -> None:
        size = file.path.stat().st_size
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": file.commit, "Accept-Ranges": "bytes"}
        start, stop, status = 0, size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not fault.no_ranges:
            start, stop, status = int(asked[1]), min(size, int(asked[2] or size) + 1), 206
            if start >= size:
                return self.send(416, {"Content-Range": f"bytes */{size}"})
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self.send(status, headers | fault.headers, stop - start + fault.length)
        if self.command == "GET":
            self.stream(file.path, start, stop, fault)

    def stream(self, path: Path, start: int, stop: int, fault: Fault) -> None:
        end = stop if fault.cut is None else min(stop, start + fault.cut)
        with path.open("rb") as file:
            file.seek(start)
            while start < end:
                piece = file.read(min(1 << 16, end - start))
                try:
                    self.wfile.write(fault.change(piece, start) if fault.change else piece)
                except OSError:
                    break
                start += len(piece)
                with self.server.lock:
                    self.server.sent += len(piece)
        if fault.stall:
            fault.stalled.set()
            fault.stall.wait()
        if end < stop or fault.length:
            self.close_connection = True

    def send(self, status: int, headers: dict[str, str], length: int = 0) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def api(self) -> None:
        """What an upload asks; small files travel inside the commit."""
        if self.path.endswith("/preupload/main"):
            asked = json.loads(self.body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
        elif self.path.endswith("/commit/main"):
            self.server.commits.append(self.body)
            commit = "0" * 40
            answer = {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/me/model/commit/{commit}"}
            answer["hookOutput"] = ""
        elif self.path == "/api/repos/create":
            answer = {"url": f"{self.server.url}/me/model", "name": "me/model"}
        elif self.path == "/api/validate-yaml":
            answer = {"errors": [], "warnings": []}
        else:
            return self.send(404, {})
        content = json.dumps(answer).encode()
        self.send(200, {"Content-Type": "application/json"}, len(content))
        self.wfile.write(content)


HUB = Hub()
HOME = tempfile.TemporaryDirectory()
os.environ |= {"HF_ENDPOINT": HUB.url, "HF_HOME": HOME.name, "HF_HUB_DISABLE_TELEMETRY": "1"}
for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "HF_ASSETS_CACHE"):
    os.environ.pop(variable, None)
