"""Files on the Hugging Face Hub: pulled whole, or of a safetensors file only the tensors wanted.

All goes through huggingface-hub's public functions, and so by its token, proxies, cache folders, HF_ENDPOINT and
HF_HUB_OFFLINE. The bytes are read here, since `hf_hub_download` can neither be stopped, nor does it say in all versions how
far it is or go on where it was broken off.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar
from urllib.parse import urljoin, urlsplit

import safetensors.torch
import torch
from filelock import FileLock, Timeout
from huggingface_hub import (
    CommitOperationAdd,
    HfApi,
    constants,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.utils import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)
from torch import Tensor

from .files import read_safetensors

CHUNK = 1 << 17  # bytes between two looks at the progress and at whether to stop
HEADER_GUESS = 1 << 14  # what is read first of a safetensors file: the whole header of a hundred tensors
NEAR = 1 << 16  # tensors with gaps of up to so many bytes are read as one
LARGEST = 1 << 30  # no network here is larger; a name may be a slip
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before the next attempt
LONGEST_PAUSE = 60  # however long the Hub asks to wait
LIBRARY = "adain"

Progress = Callable[[int, int], None]  # bytes done, bytes in all; what it raises stops the pull
Span = tuple[int, int]  # bytes of a file from the first to before the second
Result = TypeVar("Result")


class HubError(OSError):
    """A pull that failed. The message is one sentence that says why and what to do."""


class _BrokenLine(Exception):
    """A request that was not answered, or not to the end."""


class _NoRanges(Exception):
    """A server that sends whole files only."""


@dataclass(frozen=True)
class HubFile:
    """A file in a repository `owner/name` of the Hub; `kind` is "model", "dataset" or "space"."""

    repo: str
    file: str
    revision: str = "main"
    kind: str = "model"

    @classmethod
    def parse(cls, name: str) -> HubFile:
        """Of `hf:owner/repo/file`, or with `datasets/` or `spaces/` before the owner. Raises ValueError for other names."""
        found = re.fullmatch(r"(?:hf:)?(?:(dataset|space)s/)?([\w.-]+/[\w.-]+)/([^\\]+)", name.strip())
        if not found or {"", ".", ".."} & set(found[3].split("/")):
            raise ValueError(f"{name!r} is no file on the Hugging Face Hub; write owner/repository/file, and no web address.")
        return cls(found[2], found[3], kind=found[1] or "model")

    def __str__(self) -> str:
        return "/".join([*([f"{self.kind}s"] if self.kind != "model" else []), self.repo, self.file])

    def url(self) -> str:
        return hf_hub_url(self.repo, self.file, repo_type=self.kind, revision=self.revision)

    def cached(self) -> Path | None:
        """Where the Hub's cache holds the file; asks nobody."""
        path = try_to_load_from_cache(
            self.repo, self.file, cache_dir=constants.HF_HUB_CACHE, revision=self.revision, repo_type=self.kind
        )
        return Path(path) if isinstance(path, str) else None


def assets() -> Path:
    """The folder under huggingface-hub's assets cache in which pulled networks are kept; it need not exist."""
    return Path(constants.HF_ASSETS_CACHE) / LIBRARY


@contextlib.contextmanager
def one_at_a_time(progress: Progress | None = None) -> Iterator[None]:
    """Wait until no other process pulls. `progress` is called meanwhile, so that the wait can be stopped."""
    assets().mkdir(parents=True, exist_ok=True)
    lock = FileLock(assets() / "pull.lock")
    while True:
        try:
            lock.acquire(timeout=0.5)
            break
        except Timeout:
            if progress:
                progress(0, 1)
    try:
        yield
    finally:
        lock.release()


def pull_file(mirrors: Sequence[HubFile], sha256: str = "", progress: Progress | None = None, refresh: bool = False) -> Path:
    """A file in the Hub's cache, pulled from the first of the `mirrors` that has it.

    It is checked against `sha256`, or where that is not known against the one that the Hub states. A file that is in the
    cache is taken as it is, unless `refresh`. Raises HubError.
    """
    if not refresh:
        for file in mirrors:
            path = file.cached()
            if path and sha256 in ("", _sha256(path)):
                return path
    pull = _Pull(progress)
    return _first(mirrors, lambda file: pull.whole(file, sha256))


def pull_tensors(
    mirrors: Sequence[HubFile], tensors: Mapping[str, str], sha256: str = "", progress: Progress | None = None
) -> dict[str, Tensor]:
    """Some tensors of a safetensors file, pulled from the first of the `mirrors` that has them, and no others' bytes.

    `tensors` has for each name the SHA-256 of its bytes, or "" where that is not known. A server that sends whole files
    only is asked for the whole file; it is checked as in `pull_file`. Raises HubError.
    """
    for file in mirrors:
        path = file.cached()
        if path and sha256 == _sha256(path):
            return read_safetensors(path, tensors)[0]
    pull = _Pull(progress)

    def attempt(file: HubFile) -> dict[str, Tensor]:
        try:
            found = pull.ranges(file, tensors)
        except _NoRanges:
            found = read_safetensors(pull.whole(file, sha256), tensors)[0]
        for name, expected in tensors.items():
            content = found[name].contiguous().flatten().view(torch.uint8).numpy()
            if expected not in ("", hashlib.sha256(content).hexdigest()):
                _refuse(file, f"the SHA-256 of its {name} is another than expected")
        return found

    return _first(mirrors, attempt)


def upload(repo: str, files: Mapping[str, Path], texts: Mapping[str, str], private: bool = False) -> str:
    """Put files, by their names there, into the model repository `repo` in one commit; its address is returned.

    The repository is made if it is not there. `texts` are files by their content, which do not replace what is there.
    Raises HubError.
    """
    hub = HfApi(library_name=LIBRARY)
    try:
        with _one_kind_of_error():
            hub.create_repo(repo, private=private, exist_ok=True)
            contents = dict(files) | {name: text.encode() for name, text in texts.items() if not hub.file_exists(repo, name)}
            operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
            return hub.create_commit(repo, operations, commit_message=f"Add {', '.join(files)}").commit_url
    except OfflineModeIsEnabled:
        raise HubError(f"{repo} cannot be published while HF_HUB_OFFLINE is set; unset it.") from None
    except (HfHubHTTPError, _BrokenLine) as error:
        why = "set HF_TOKEN to a token that may write there" if _status(error) in (401, 403) else _reason(error)
        raise HubError(f"{repo} cannot be published: {why}.") from None


class _Pull:
    """The requests of one pull. Failures that may pass are tried again after growing pauses, which all mirrors share."""

    def __init__(self, progress: Progress | None):
        self.progress = progress or (lambda done, total: None)
        self.done, self.furthest, self.total, self.failures = 0, 0, 1, 0

    def whole(self, file: HubFile, sha256: str) -> Path:
        pinned, etag, size = self.describe(file)
        stated = etag if re.fullmatch("[0-9a-f]{64}", etag) else ""
        if sha256 and stated not in ("", sha256):
            _refuse(file, "the Hub states another SHA-256 than the catalog")
        # The cache's documented layout: a file's content is `blobs/ETAG`; hf_hub_download then links its name to that.
        blob = Path(constants.HF_HUB_CACHE) / "--".join([f"{file.kind}s", *file.repo.split("/")]) / "blobs" / etag
        expected = sha256 or stated
        if not (blob.is_file() and expected in ("", _sha256(blob))):
            staging = blob.with_name(f"{etag}.{LIBRARY}.incomplete")
            self.fetch(pinned.url(), [(0, size)], staging, whole=True)
            if expected not in ("", _sha256(staging)):
                staging.unlink()
                _refuse(file, "its SHA-256 is another than expected")
            os.replace(staging, blob)
        if (link := pinned.cached()) and not link.samefile(blob):
            link.unlink()  # a copy, made where links are not possible, that may be of something else
        options = {"repo_type": file.kind, "revision": file.revision, "library_name": LIBRARY}
        return Path(self.insist(lambda: _link(file.repo, file.file, cache_dir=constants.HF_HUB_CACHE, **options)))

    def ranges(self, file: HubFile, tensors: Mapping[str, str]) -> dict[str, Tensor]:
        pinned, etag, size = self.describe(file)
        url = pinned.url()
        try:
            header, begin = self.header(url, size)
            where = {name: tuple(begin + offset for offset in header[name]["data_offsets"]) for name in tensors}
            if any(not begin <= start < stop <= size for start, stop in where.values()):
                raise ValueError
        except KeyError as error:
            _refuse(file, f"it holds no {error.args[0]}")
        except (ValueError, TypeError):
            _refuse(file, "it is no safetensors file")
        spans = _joined(where.values())
        staging = assets() / f"{hashlib.sha256(f'{etag} {spans}'.encode()).hexdigest()[:32]}.incomplete"
        self.fetch(url, spans, staging)
        content = staging.read_bytes()
        staging.unlink()
        parts = {name: _cut(content, spans, span) for name, span in where.items()}
        try:
            return _tensors(header, parts)
        except (safetensors.SafetensorError, KeyError):
            _refuse(file, "it is no safetensors file")

    def describe(self, file: HubFile) -> tuple[HubFile, str, int]:
        """The file at the commit that its revision is now, its ETag and its size."""
        headers = self.insist(lambda: _head(file.url()))
        commit = headers.get("X-Repo-Commit")
        etag = re.fullmatch('(?:W/)?"?([0-9A-Za-z-]+)"?', headers.get("X-Linked-Etag") or headers.get("ETag", ""))
        size = int(headers.get("X-Linked-Size") or headers.get("Content-Length") or 0)
        if not (commit and etag and size):
            raise HubError(f"{constants.ENDPOINT} does not answer like the Hub; check HF_ENDPOINT, proxy and firewall.")
        if size > LARGEST:
            _refuse(file, f"it has {size / 1e9:.1f} GB, and no network of AdaIN has more than {LARGEST / 1e9:.1f}")
        return replace(file, revision=commit), etag[1], size

    def header(self, url: str, size: int) -> tuple[dict, int]:
        """A safetensors file's description of its tensors, and where their bytes begin. Raises ValueError for other files."""
        start = self.read(url, 0, min(HEADER_GUESS, size))
        if len(start) < 8 or not 0 < (length := struct.unpack("<Q", start[:8])[0]) <= min(size - 8, LARGEST // 100):
            raise ValueError
        begin = 8 + length
        if begin > len(start):
            start += self.read(url, len(start), begin)
        header = json.loads(start[8:begin])
        if not isinstance(header, dict):
            raise ValueError
        return header, begin

    def read(self, url: str, start: int, stop: int) -> bytes:
        return self.insist(lambda: b"".join(_chunks(url, start, stop)))

    def fetch(self, url: str, spans: Sequence[Span], staging: Path, whole: bool = False) -> None:
        """Append to the file `staging` what it lacks of the bytes of `spans`, one after the other."""
        self.total = sum(stop - start for start, stop in spans)
        staging.parent.mkdir(parents=True, exist_ok=True)
        with staging.open("ab") as sink:
            if shutil.disk_usage(staging.parent).free < self.total - sink.tell():
                raise OSError(errno.ENOSPC, "not enough space", str(staging))
            self.done = self.furthest = sink.tell()
            while sink.tell() < self.total:
                self.insist(lambda: self.advance(url, spans, sink, whole))

    def advance(self, url: str, spans: Sequence[Span], sink: BinaryIO, whole: bool) -> None:
        """Read on in the first span that is not complete. Failures are counted anew after a line that brought something."""
        start, stop = _rest(spans, sink.tell())
        try:
            for chunk in _chunks(url, start, stop, whole):
                sink.write(chunk)
                self.done = sink.tell()
                self.progress(self.done, self.total)
        except _BrokenLine:
            if self.done > self.furthest:
                self.furthest, self.failures = self.done, 0
            raise
        except _NoRanges:
            if not whole:
                raise
            sink.seek(0)
            sink.truncate()
            raise _BrokenLine("the server cannot go on in the middle of a file") from None

    def insist(self, request: Callable[[], Result]) -> Result:
        while True:
            try:
                result = request()
                self.failures = 0
                return result
            except (_BrokenLine, HfHubHTTPError) as error:
                if self.failures >= len(PAUSES) or not _may_pass(error):
                    raise
                self.pause(max(PAUSES[self.failures], min(_retry_after(error), LONGEST_PAUSE)))
                self.failures += 1

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self.progress(self.done, self.total)


def _chunks(url: str, start: int, stop: int, whole: bool = False) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file as they arrive; `whole` says that these are all of a file, or its end.

    Raises _BrokenLine where fewer arrive and _NoRanges where the server sends others.
    """
    options = {"headers": _headers(Range=f"bytes={start}-{stop - 1}"), "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    session = get_session()
    with _one_kind_of_error():
        if _is_httpx(session):
            opened, read = session.stream("GET", url, **options), "iter_bytes"
        else:
            opened, read = session.get(url, stream=True, **options), "iter_content"
        with opened as response:
            hf_raise_for_status(response)
            asked_for = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if not (asked_for if response.status_code == 206 else whole and start == 0):
                raise _NoRanges
            left = stop - start
            for chunk in getattr(response, read)(CHUNK):
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        raise _BrokenLine("the answer ended too early")


@contextlib.contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Whatever the HTTP client at hand calls a broken line becomes a _BrokenLine."""
    try:
        yield
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, _BrokenLine, _NoRanges):
        raise
    except Exception as error:
        raise _BrokenLine(f"{type(error).__name__}: {error}".splitlines()[0]) from error


_link = _one_kind_of_error()(hf_hub_download)


@_one_kind_of_error()
def _head(url: str) -> Mapping[str, str]:
    """The headers by which the Hub describes a file.

    Some versions of `get_hf_file_metadata` try again for half a minute, in which they cannot be stopped.
    """
    session = get_session()
    options = {"headers": _headers(), "timeout": constants.HF_HUB_ETAG_TIMEOUT}
    options["follow_redirects" if _is_httpx(session) else "allow_redirects"] = False
    for _ in range(5):
        response = session.request("HEAD", url, **options)
        hf_raise_for_status(response)
        # A redirect without a commit is that of a renamed repository; other hosts must not get the token.
        before, url = url, urljoin(url, response.headers.get("Location", ""))
        if "X-Repo-Commit" in response.headers or url == before or urlsplit(url).netloc != urlsplit(before).netloc:
            break
    return response.headers


def _headers(**more: str) -> dict[str, str]:
    return build_hf_headers(library_name=LIBRARY) | {"Accept-Encoding": "identity", **more}


def _is_httpx(session: object) -> bool:
    """Whether huggingface-hub's session is one of httpx, as from 1.0 on, or of requests, where `stream` is a flag."""
    return callable(session.stream)


def _first(mirrors: Sequence[HubFile], attempt: Callable[[HubFile], Result]) -> Result:
    """`attempt(file)` with the first of the mirrors that works out. Raises HubError with what the first one said."""
    first = None
    for file in mirrors:
        try:
            return attempt(file)
        except OfflineModeIsEnabled:
            raise HubError(
                f"it is not on this machine, and HF_HUB_OFFLINE forbids to look for it; unset that, or download"
                f" {file.url()} elsewhere and give the file."
            ) from None
        except (HfHubHTTPError, _BrokenLine) as error:
            first = first or HubError(_sentence(error, file))
        except HubError as error:
            first = first or error
    raise HubError(f"none of its {len(mirrors)} places worked out; the first: {first}") if len(mirrors) > 1 else first


def _sentence(error: Exception, file: HubFile) -> str:
    status = _status(error)
    if status in (401, 403):
        return (
            f"the Hub refuses access to {file} ({status}): its repository is gated, private or not there; accept its terms on"
            f" the web if it asks for that, and set HF_TOKEN to a token that may read it."
        )
    if status == 404:
        return f"there is no file {file} on the Hub (404); check its name."
    return f"{_reason(error)}."


def _reason(error: Exception) -> str:
    status = _status(error)
    if status == 429:
        return "the Hub has too many requests (429); try again in some minutes"
    if status:
        return f"the Hub fails ({status}); try again later"
    return f"the line to {constants.ENDPOINT} is broken ({error}); check it and try again, or set HF_ENDPOINT to a mirror"


def _status(error: Exception) -> int:
    """The HTTP status behind an error, or 0."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _may_pass(error: Exception) -> bool:
    return (status := _status(error)) in (0, 408, 429) or status >= 500


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait, or 0."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0


def _refuse(file: HubFile, why: str) -> NoReturn:
    raise HubError(f"{file} on the Hub is not the right file: {why}.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _joined(spans: Iterator[Span]) -> list[Span]:
    """The spans in their order, those that are near joined."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + NEAR:
            start, last = joined.pop()
            stop = max(stop, last)
        joined.append((start, stop))
    return joined


def _rest(spans: Sequence[Span], done: int) -> Span:
    """What is left of the first span that is not complete, after `done` bytes of all."""
    for start, stop in spans:
        if done < stop - start:
            return start + done, stop
        done -= stop - start
    raise ValueError("nothing is left.")


def _cut(content: bytes, spans: Sequence[Span], wanted: Span) -> bytes:
    """The bytes `wanted` of a file, of which `content` has those of `spans`, one after the other."""
    for start, stop in spans:
        if start <= wanted[0] and wanted[1] <= stop:
            return content[wanted[0] - start : wanted[1] - start]
        content = content[stop - start :]
    raise ValueError("it is not in the spans.")


def _tensors(header: dict, parts: dict[str, bytes]) -> dict[str, Tensor]:
    """Tensors from their bytes, read as a safetensors file of them alone."""
    described, end = {}, 0
    for name, part in parts.items():
        described[name] = header[name] | {"data_offsets": [end, end := end + len(part)]}
    start = json.dumps(described).encode()
    return safetensors.torch.load(b"".join([struct.pack("<Q", len(start)), start, *parts.values()]))
