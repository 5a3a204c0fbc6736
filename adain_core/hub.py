"""Files on the Hugging Face Hub: pulled whole into its cache, or of a safetensors file only the tensors wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import safetensors.torch
import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, validate_repo_id
from torch import Tensor

from .download import LIBRARY, BrokenLine, Download, NoRanges, Result, Span, one_kind_of_error, status_of
from .errors import AdainError
from .files import is_safe_name, locked, parse_json, read_safetensors
from .progress import tell

HEADER_GUESS = 1 << 14  # bytes read first of a safetensors file: the whole header of a hundred tensors
NEAR = 1 << 16  # tensors with gaps of up to so many bytes are read as one
LARGEST = 1 << 30  # no network here is larger; a name may be a slip


class HubError(OSError):
    """A pull that failed. The message is one sentence that says why and what to do."""


@dataclass(frozen=True)
class HubFile:
    """A file in a repository `owner/name` of the Hub; `kind` is "model", "dataset" or "space"."""

    repo: str
    file: str
    revision: str = "main"
    kind: str = "model"

    def __post_init__(self) -> None:
        known = all(isinstance(part, str) for part in vars(self).values()) and self.kind in ("model", "dataset", "space")
        try:
            validate_repo_id(self.repo)
        except HFValidationError:
            known = False
        if not known or "/" not in self.repo:
            raise AdainError(f"{self.repo!r} is no repository on the Hugging Face Hub; write owner/repository.")
        if not all(map(is_safe_name, [*self.file.split("/"), self.revision])):
            raise AdainError(f"{self.file!r} is no name that a file can have on every system; rename it on the Hub.")

    @classmethod
    def described(cls, fields: dict) -> HubFile:
        """By its fields' names, of which others are ignored. Raises TypeError where one is missing."""
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields})

    @classmethod
    def parse(cls, name: str) -> HubFile:
        """Of `hf:owner/repo/file`, or with `datasets/` or `spaces/` before the owner. Raises AdainError for other names."""
        found = re.fullmatch(r"(?:hf:)?(?:(dataset|space)s/)?([\w.-]+/[\w.-]+)/([^\\]+)", name.strip())
        if not found or {"", ".", ".."} & set(found[3].split("/")):
            raise AdainError(f"{name!r} is no file on the Hugging Face Hub; write owner/repository/file, and no web address.")
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
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process pulls. Meanwhile it tells that nothing is done, so that the wait can be stopped."""
    assets().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(assets() / "pull.lock", timeout=0.5))
                break
            except BlockingIOError:
                tell(0, 1)
        yield


def pull_file(mirrors: Sequence[HubFile], sha256: str = "", refresh: bool = False) -> Path:
    """A file in the Hub's cache, pulled from the first of the `mirrors` that has it.

    It is checked against `sha256`, or where that is not known against the one that the Hub states. A file that is in the
    cache is taken as it is, unless `refresh`. While it is pulled, its bytes are told. Raises HubError.
    """
    if not refresh:
        for file in mirrors:
            path = file.cached()
            if path and _has(path, sha256):
                return path
    download = Download()
    return _first(mirrors, lambda file: _whole(download, file, sha256))


def pull_tensors(mirrors: Sequence[HubFile], tensors: Mapping[str, str], sha256: str = "") -> dict[str, Tensor]:
    """Some tensors of a safetensors file, pulled from the first of the `mirrors` that has them, and no others' bytes.

    `tensors` has for each name the SHA-256 of its bytes, or "" where that is not known. A server that sends whole files
    only is asked for the whole file; it is checked as in `pull_file`. While they are pulled, their bytes are told. Raises
    HubError.
    """
    for file in mirrors:
        path = file.cached()
        if path and sha256 and _has(path, sha256):
            return read_safetensors(path, tensors)[0]
    download = Download()

    def attempt(file: HubFile) -> dict[str, Tensor]:
        try:
            found = _ranges(download, file, tensors, sha256)
        except NoRanges:
            found = read_safetensors(_whole(download, file, sha256), tensors)[0]
        for name, expected in tensors.items():
            content = found[name].contiguous().flatten().view(torch.uint8).numpy().data
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
        with one_kind_of_error():
            hub.create_repo(repo, private=private, exist_ok=True)
            contents = dict(files) | {name: text.encode() for name, text in texts.items() if not hub.file_exists(repo, name)}
            operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in contents.items()]
            return hub.create_commit(repo, operations, commit_message=f"Add {', '.join(files)}").commit_url
    except OfflineModeIsEnabled:
        raise HubError(f"{repo} cannot be published while HF_HUB_OFFLINE is set; unset it.") from None
    except (HfHubHTTPError, BrokenLine) as error:
        why = "set HF_TOKEN to a token that may write there" if status_of(error) in (401, 403) else _reason(error)
        raise HubError(f"{repo} cannot be published: {why}.") from None


def _whole(download: Download, file: HubFile, sha256: str) -> Path:
    pinned, etag, size = _describe(download, file)
    stated = _stated(file, etag, sha256)
    # The cache's documented layout: a file's content is `blobs/ETAG`; hf_hub_download then links its name to that.
    blob = Path(constants.HF_HUB_CACHE) / "--".join([f"{file.kind}s", *file.repo.split("/")]) / "blobs" / etag
    expected = sha256 or stated
    if not (blob.is_file() and _has(blob, expected)):
        staging = blob.with_name(f"{etag}.{LIBRARY}.incomplete")
        download.fetch(pinned.url(), [(0, size)], staging, whole=True)
        if not _has(staging, expected):
            staging.unlink()
            _refuse(file, "its SHA-256 is another than expected")
        os.replace(staging, blob)
    if (named := pinned.cached()) and not named.samefile(blob):
        named.unlink()  # a copy, made where links are not possible, that may be of something else

    @one_kind_of_error()
    def link() -> str:
        return hf_hub_download(
            file.repo, file.file, repo_type=file.kind, revision=file.revision, library_name=LIBRARY,
            cache_dir=constants.HF_HUB_CACHE,
        )  # fmt: skip

    return Path(download.retry(link))


def _ranges(download: Download, file: HubFile, tensors: Mapping[str, str], sha256: str) -> dict[str, Tensor]:
    pinned, etag, size = _describe(download, file)
    _stated(file, etag, sha256)
    url = pinned.url()
    try:
        header, begin = _header(download, url, size)
        where = {name: tuple(begin + offset for offset in header[name]["data_offsets"]) for name in tensors}
        if any(not (type(start) is type(stop) is int and begin <= start < stop <= size) for start, stop in where.values()):
            raise ValueError
    except KeyError as error:
        _refuse(file, f"it holds no {error.args[0]}")
    except (ValueError, TypeError):
        _refuse(file, "it is no safetensors file")
    spans = _joined(where.values())
    staging = assets() / f"{hashlib.sha256(f'{etag} {spans}'.encode()).hexdigest()[:32]}.incomplete"
    download.fetch(url, spans, staging)
    content = staging.read_bytes()
    staging.unlink()
    parts = {name: _cut(content, spans, span) for name, span in where.items()}
    try:
        return _tensors(header, parts)
    except (safetensors.SafetensorError, KeyError):
        _refuse(file, "it is no safetensors file")


def _describe(download: Download, file: HubFile) -> tuple[HubFile, str, int]:
    """The file at the commit that its revision is now, its ETag and its size."""
    headers = download.head(file.url())
    commit = re.fullmatch("[0-9A-Za-z]+", headers.get("X-Repo-Commit", ""))  # both become names of files
    etag = re.fullmatch('(?:W/)?"?([0-9A-Za-z-]+)"?', headers.get("X-Linked-Etag") or headers.get("ETag", ""))
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    size = int(size) if re.fullmatch("[0-9]{1,18}", size) else 0
    if not (commit and etag and size):
        raise HubError(f"{constants.ENDPOINT} does not answer like the Hub; check HF_ENDPOINT, proxy and firewall.")
    if size > LARGEST:
        _refuse(file, f"it has {size / 1e9:.1f} GB, and no network of AdaIN has more than {LARGEST / 1e9:.1f}")
    return replace(file, revision=commit[0]), etag[1], size


def _stated(file: HubFile, etag: str, sha256: str) -> str:
    """The SHA-256 that an ETag states, as those of large files do, or "". Raises HubError where it is not the one wanted."""
    stated = etag if re.fullmatch("[0-9a-f]{64}", etag) else ""
    if sha256 and stated not in ("", sha256):
        _refuse(file, "the Hub states another SHA-256 than the catalog")
    return stated


def _header(download: Download, url: str, size: int) -> tuple[dict, int]:
    """A safetensors file's description of its tensors, and where their bytes begin. Raises ValueError for other files."""
    start = download.read(url, 0, min(HEADER_GUESS, size))
    if len(start) < 8 or not 0 < (length := struct.unpack("<Q", start[:8])[0]) <= min(size - 8, LARGEST // 100):
        raise ValueError
    begin = 8 + length
    if begin > len(start):
        start += download.read(url, len(start), begin)
    header = parse_json(start[8:begin])
    if not isinstance(header, dict):
        raise ValueError
    return header, begin


def _first(mirrors: Sequence[HubFile], attempt: Callable[[HubFile], Result]) -> Result:
    """`attempt(file)` with the first of the mirrors that works out. Raises HubError with what the first one said."""
    errors = []
    for file in mirrors:
        try:
            return attempt(file)
        except OfflineModeIsEnabled:
            raise HubError(
                "it is not on this machine, and HF_HUB_OFFLINE forbids to look for it; unset that, or copy the file that"
                f" adain pull makes on another machine into {assets()}."
            ) from None
        except (HfHubHTTPError, BrokenLine) as error:
            errors.append(HubError(_sentence(error, file)))
        except HubError as error:
            errors.append(error)
    raise errors[0] if len(errors) == 1 else HubError(f"none of its {len(errors)} places worked out; the first: {errors[0]}")


def _sentence(error: Exception, file: HubFile) -> str:
    status = status_of(error)
    if status in (401, 403):
        return (
            f"the Hub refuses access to {file} ({status}): its repository is gated, private or not there; accept its terms on"
            f" the web if it asks for that, and set HF_TOKEN to a token that may read it."
        )
    if status == 404:
        return f"there is no file {file} on the Hub (404); check its name."
    return f"{_reason(error)}."


def _reason(error: Exception) -> str:
    status = status_of(error)
    if status == 429:
        return "the Hub has too many requests (429); try again in some minutes"
    if status:
        return f"the Hub fails ({status}); try again later"
    return f"the line to {constants.ENDPOINT} is broken ({error}); check it and try again, or set HF_ENDPOINT to a mirror"


def _refuse(file: HubFile, why: str) -> NoReturn:
    raise HubError(f"{file} on the Hub is not the right file: {why}.")


def _has(path: Path, sha256: str) -> bool:
    """Whether a file has this SHA-256; where it is not known, any file has."""
    if not sha256:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == sha256


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The spans in their order, those that are near joined."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + NEAR:
            start, last = joined.pop()
            stop = max(stop, last)
        joined.append((start, stop))
    return joined


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
