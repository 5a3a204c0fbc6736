"""Files on the Hugging Face Hub: whole files are pulled into its cache; of a safetensors file, single tensors too."""

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

from .download import LIBRARY, BrokenLine, Download, NoLine, NoRanges, Result, Span, one_kind_of_error, status_of
from .errors import AdainError
from .files import is_safe_name, locked, parse_json, read_safetensors
from .progress import tell

HEADER_GUESS = 1 << 14  # bytes read first of a safetensors file; enough for the header of a hundred tensors
NEAR = 1 << 16  # tensors with gaps of up to so many bytes between them are read in one request
LARGEST = 1 << 30  # bytes; every network here is smaller, so a larger file is a wrong one


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
        is_valid = all(isinstance(part, str) for part in vars(self).values()) and self.kind in ("model", "dataset", "space")
        try:
            validate_repo_id(self.repo)
        except HFValidationError:
            is_valid = False
        if not is_valid or "/" not in self.repo:
            raise AdainError(f"{self.repo!r} is not a repository on the Hugging Face Hub; write owner/repository.")
        if not all(map(is_safe_name, [*self.file.split("/"), self.revision])):
            raise AdainError(f"{self.file!r} is not a file name that every system allows; rename it on the Hub.")

    @classmethod
    def described(cls, fields: dict) -> HubFile:
        """The file that a JSON object describes; unknown fields are ignored. Raises TypeError if one is missing."""
        return cls(**{field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields})

    @classmethod
    def parse(cls, name: str) -> HubFile:
        """The file `hf:owner/repo/file`; `datasets/` or `spaces/` may precede the owner. Raises AdainError for other names."""
        found = re.fullmatch(r"(?:hf:)?(?:(dataset|space)s/)?([\w.-]+/[\w.-]+)/([^\\]+)", name.strip())
        if not found or {"", ".", ".."} & set(found[3].split("/")):
            raise AdainError(f"{name!r} is not a file on the Hugging Face Hub; write owner/repository/file, not a web address.")
        return cls(found[2], found[3], kind=found[1] or "model")

    def __str__(self) -> str:
        return "/".join([*([f"{self.kind}s"] if self.kind != "model" else []), self.repo, self.file])

    def url(self) -> str:
        return hf_hub_url(self.repo, self.file, repo_type=self.kind, revision=self.revision)

    def cached(self) -> Path | None:
        """The file's path in the Hub's cache, or None; makes no request."""
        path = try_to_load_from_cache(
            self.repo, self.file, cache_dir=constants.HF_HUB_CACHE, revision=self.revision, repo_type=self.kind
        )
        return Path(path) if isinstance(path, str) else None


def assets() -> Path:
    """The folder under huggingface-hub's assets cache in which pulled networks are kept; it need not exist."""
    return Path(constants.HF_ASSETS_CACHE) / LIBRARY


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Wait until no other process pulls; reports 0 of 1 meanwhile, so that the wait can be stopped."""
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

    It is checked against `sha256`, or if that is empty against the hash that the Hub states. A file in the cache is used
    without a request, unless `refresh`. Reports how many bytes are pulled. Raises HubError.
    """
    if not refresh:
        for file in mirrors:
            path = file.cached()
            if path and _has_hash(path, sha256):
                return path
    download = Download()
    return _first_success(mirrors, lambda file: _pull_whole_file(download, file, sha256))


def pull_tensors(mirrors: Sequence[HubFile], tensors: Mapping[str, str], sha256: str = "") -> dict[str, Tensor]:
    """Some tensors of a safetensors file, pulled from the first of the `mirrors` that has them, without the other tensors.

    `tensors` has for each name the SHA-256 of its bytes, or "" if that is not known. From a server that sends whole files
    only, the whole file is pulled, and checked as in `pull_file`. Reports how many bytes are pulled. Raises HubError.
    """
    for file in mirrors:
        path = file.cached()
        if path and sha256 and _has_hash(path, sha256):
            return read_safetensors(path, tensors)[0]
    download = Download()

    def attempt(file: HubFile) -> dict[str, Tensor]:
        try:
            found = _pull_ranges(download, file, tensors, sha256)
        except NoRanges:
            found = read_safetensors(_pull_whole_file(download, file, sha256), tensors)[0]
        for name, expected in tensors.items():
            content = found[name].contiguous().flatten().view(torch.uint8).numpy().data
            if expected not in ("", hashlib.sha256(content).hexdigest()):
                _refuse(file, f"the SHA-256 of its {name} is not the expected one")
        return found

    return _first_success(mirrors, attempt)


def remove(path: Path) -> None:
    """Remove a file that `pull_file` gave from the Hub's cache."""
    content = path.resolve()
    path.unlink(missing_ok=True)
    content.unlink(missing_ok=True)


def upload(repo: str, files: Mapping[str, Path], texts: Mapping[str, str], private: bool = False) -> str:
    """Put files, by their names in the repository, into the model repository `repo` in one commit; returns its address.

    The repository is made if it does not exist. `texts` are the contents of further files, which do not replace existing
    files. Raises HubError.
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
        why = "set HF_TOKEN to a token with the right to write to it" if status_of(error) in (401, 403) else _reason(error)
        raise HubError(f"{repo} cannot be published: {why}.") from None


def _pull_whole_file(download: Download, file: HubFile, sha256: str) -> Path:
    pinned, etag, size = _describe(download, file)
    stated = _stated_hash(file, etag, sha256)
    # The cache's documented layout: a file's content lies in `blobs/ETAG`, and hf_hub_download links the file's name to it.
    blob = Path(constants.HF_HUB_CACHE) / "--".join([f"{file.kind}s", *file.repo.split("/")]) / "blobs" / etag
    expected = sha256 or stated
    if not (blob.is_file() and _has_hash(blob, expected)):
        staging = blob.with_name(f"{etag}.{LIBRARY}.incomplete")
        download.fetch(pinned.url(), [(0, size)], staging, whole_file=True)
        if not _has_hash(staging, expected):
            staging.unlink()
            _refuse(file, "its SHA-256 is not the expected one")
        os.replace(staging, blob)
    if (named := pinned.cached()) and not named.samefile(blob):
        named.unlink()  # a copy, made on a disk without links, perhaps of an older content

    @one_kind_of_error()
    def link() -> str:
        return hf_hub_download(
            file.repo, file.file, repo_type=file.kind, revision=file.revision, library_name=LIBRARY,
            cache_dir=constants.HF_HUB_CACHE,
        )  # fmt: skip

    return Path(download.retry(link))


def _pull_ranges(download: Download, file: HubFile, tensors: Mapping[str, str], sha256: str) -> dict[str, Tensor]:
    pinned, etag, size = _describe(download, file)
    _stated_hash(file, etag, sha256)
    url = pinned.url()
    try:
        header, begin = _header(download, url, size)
        where = {name: tuple(begin + offset for offset in header[name]["data_offsets"]) for name in tensors}
        if any(not (type(start) is type(stop) is int and begin <= start < stop <= size) for start, stop in where.values()):
            raise ValueError
    except KeyError as error:
        _refuse(file, f"it lacks {error.args[0]}")
    except (ValueError, TypeError):
        _refuse(file, "it is not a safetensors file")
    spans = _joined(where.values())
    staging = assets() / f"{hashlib.sha256(f'{etag} {spans}'.encode()).hexdigest()[:32]}.incomplete"
    try:
        download.fetch(url, spans, staging)
    except NoRanges:
        staging.unlink(missing_ok=True)
        raise
    content = staging.read_bytes()
    staging.unlink()
    parts = {name: _cut(content, spans, span) for name, span in where.items()}
    try:
        return _tensors(header, parts)
    except (safetensors.SafetensorError, KeyError):
        _refuse(file, "it is not a safetensors file")


def _describe(download: Download, file: HubFile) -> tuple[HubFile, str, int]:
    """The file at the newest commit of its revision, its ETag and its size in bytes."""
    headers = download.head(file.url())
    # commit and ETag become names of files
    commit = re.fullmatch("[0-9A-Za-z]{1,128}", headers.get("X-Repo-Commit", ""))
    etag = re.fullmatch('(?:W/)?"?([0-9A-Za-z-]{1,128})"?', headers.get("X-Linked-Etag") or headers.get("ETag", ""))
    size = headers.get("X-Linked-Size") or headers.get("Content-Length") or ""
    size = int(size) if re.fullmatch("[0-9]{1,18}", size) else 0
    if not (commit and etag and size and is_safe_name(commit[0]) and is_safe_name(etag[1])):
        raise HubError(f"{constants.ENDPOINT} does not answer like the Hub; check HF_ENDPOINT, proxy and firewall.")
    if size > LARGEST:
        _refuse(file, f"it has {size / 1e9:.1f} GB, and no network of AdaIN has more than {LARGEST / 1e9:.1f}")
    return replace(file, revision=commit[0]), etag[1], size


def _stated_hash(file: HubFile, etag: str, sha256: str) -> str:
    """The SHA-256 in an ETag, which large files have, or "". Raises HubError if it is not `sha256`."""
    stated = etag if re.fullmatch("[0-9a-f]{64}", etag) else ""
    if sha256 and stated not in ("", sha256):
        _refuse(file, "the SHA-256 that the Hub states is not the one in the catalog")
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


def _first_success(mirrors: Sequence[HubFile], attempt: Callable[[HubFile], Result]) -> Result:
    """The result of `attempt(file)` with the first mirror that works. Raises HubError with the first mirror's error."""
    errors = []
    for file in mirrors:
        try:
            return attempt(file)
        except OfflineModeIsEnabled:
            raise HubError(
                "it is not on this machine, and HF_HUB_OFFLINE forbids a download; unset that, or run adain pull on another"
                f" machine and copy the file that it makes into {assets()}."
            ) from None
        except (HfHubHTTPError, BrokenLine) as error:
            errors.append(HubError(_sentence(error, file)))
        except HubError as error:
            errors.append(error)
    raise errors[0] if len(errors) == 1 else HubError(f"all of its {len(errors)} places failed; the first one: {errors[0]}")


def _sentence(error: Exception, file: HubFile) -> str:
    status = status_of(error)
    if status in (401, 403):
        return (
            f"the Hub refuses access to {file} ({status}): its repository is gated, private or missing; accept its terms on"
            f" the web if it asks for that, and set HF_TOKEN to a token with the right to read it."
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
    if isinstance(error, NoLine):
        return (
            f"no connection to {constants.ENDPOINT} can be made ({error}); put that right: it lies with the proxy (HTTPS_PROXY,"
            " ALL_PROXY), the certificates (SSL_CERT_FILE, REQUESTS_CA_BUNDLE), HF_TOKEN or HF_ENDPOINT"
        )
    return f"the connection to {constants.ENDPOINT} failed ({error}); check it and try again, or set HF_ENDPOINT to a mirror"


def _refuse(file: HubFile, why: str) -> NoReturn:
    raise HubError(f"{file} on the Hub is not the right file: {why}.")


def _has_hash(path: Path, sha256: str) -> bool:
    """Whether a file has this SHA-256; True for any file if `sha256` is empty."""
    if not sha256:
        return True
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == sha256


def _joined(spans: Iterable[Span]) -> list[Span]:
    """The spans in the order of their bytes; spans closer than `NEAR` are joined."""
    joined: list[Span] = []
    for start, stop in sorted(spans):
        if joined and start <= joined[-1][1] + NEAR:
            start, last = joined.pop()
            stop = max(stop, last)
        joined.append((start, stop))
    return joined


def _cut(content: bytes, spans: Sequence[Span], part: Span) -> bytes:
    """The bytes `part` of a file; `content` holds the bytes of `spans`, one after the other."""
    for start, stop in spans:
        if start <= part[0] and part[1] <= stop:
            return content[part[0] - start : part[1] - start]
        content = content[stop - start :]
    raise ValueError("it is not in the spans.")


def _tensors(header: dict, parts: dict[str, bytes]) -> dict[str, Tensor]:
    """Tensors from their bytes, read as a safetensors file of these tensors only."""
    described, end = {}, 0
    for name, part in parts.items():
        described[name] = header[name] | {"data_offsets": [end, end := end + len(part)]}
    start = json.dumps(described).encode()
    return safetensors.torch.load(b"".join([struct.pack("<Q", len(start)), start, *parts.values()]))
