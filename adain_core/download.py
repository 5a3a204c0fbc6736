"""Requests to the Hugging Face Hub that are tried again, and downloads that go on where they were interrupted.

All requests use huggingface-hub's session, and so its token, proxies, HF_ENDPOINT and HF_HUB_OFFLINE. Its own downloads cannot
be stopped; in some versions they do not report their progress, and do not go on where they were interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import SplitResult, urljoin, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from .progress import tell

LIBRARY = "adain"
CHUNK = 1 << 17  # bytes between two reports of the progress, each of which may stop the download
PAUSES = (0.5, 1, 2, 4, 8)  # seconds before the next attempt
NEVER = (501, 505, 511)  # a server's errors that last: what it cannot do, and a network that wants a login first
LASTING, HEADER = ("InvalidURL", "UnsupportedProtocol", "TooManyRedirects"), ("LocalProtocolError", "InvalidHeader")
LONGEST_PAUSE = 60  # seconds, even if the Hub asks for a longer one

Span = tuple[int, int]  # bytes of a file: the first one, and the one after the last
Result = TypeVar("Result")


class BrokenLine(Exception):
    """A request without a complete answer."""


class NoLine(BrokenLine):
    """A request that fails in the same way each time, such as one by a proxy whose package is missing."""


class NoRanges(Exception):
    """The server sends whole files only."""


class Download:
    """A series of requests that reports its bytes. Temporary failures are tried again after pauses, which grow until a
    request succeeds.
    """

    def __init__(self):
        self.done, self.furthest, self.total, self.failures = 0, 0, 1, 0

    def head(self, url: str) -> Mapping[str, str]:
        """The headers that describe a file on the Hub."""
        return self.retry(lambda: _head(url))

    def read(self, url: str, start: int, stop: int) -> bytes:
        """The bytes `start` to `stop` of a file. Raises NoRanges."""
        return self.retry(lambda: b"".join(_chunks(url, start, stop)))

    def fetch(self, url: str, spans: Sequence[Span], staging: Path, whole_file: bool = False) -> None:
        """Append the missing bytes of `spans`, one after the other, to the file `staging`.

        `whole_file` says that the spans are a whole file. Raises NoRanges if they are not and the server cannot send parts.
        """
        self.total = sum(stop - start for start, stop in spans)
        staging.parent.mkdir(parents=True, exist_ok=True)
        with staging.open("ab") as sink:
            if shutil.disk_usage(staging.parent).free < self.total - sink.tell():
                raise OSError(errno.ENOSPC, "not enough space", str(staging))
            self.done = self.furthest = sink.tell()
            while sink.tell() < self.total:
                self.retry(lambda: self._advance(url, spans, sink, whole_file))

    def _advance(self, url: str, spans: Sequence[Span], sink: BinaryIO, whole_file: bool) -> None:
        """Go on with the first incomplete span. A request that brought new bytes resets the count of failures."""
        start, stop = _rest(spans, sink.tell())
        try:
            for chunk in _chunks(url, start, stop, whole_file):
                sink.write(chunk)
                self.done = sink.tell()
                tell(self.done, self.total)
        except BrokenLine:
            if self.done > self.furthest:
                self.furthest, self.failures = self.done, 0
            raise
        except NoRanges:
            if not whole_file:
                raise
            sink.seek(0)
            sink.truncate()
            raise BrokenLine("the server cannot go on in the middle of a file") from None

    def retry(self, request: Callable[[], Result]) -> Result:
        """`request()`, tried again after a BrokenLine, a 429 or a server's error, unless these last."""
        while True:
            try:
                result = request()
                self.failures = 0
                return result
            except (BrokenLine, HfHubHTTPError) as error:
                if self.failures >= len(PAUSES) or not _may_pass(error):
                    raise
                self._pause(max(PAUSES[self.failures], min(_retry_after(error), LONGEST_PAUSE)))
                self.failures += 1

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            tell(self.done, self.total)


def _chunks(url: str, start: int, stop: int, whole_file: bool = False) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file as they arrive; `whole_file` says that `stop` is the end of the file.

    Raises BrokenLine if fewer bytes arrive and NoRanges if the server sends other bytes.
    """
    options = {"headers": _headers(Range=f"bytes={start}-{stop - 1}"), "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT}
    with one_kind_of_error():
        session: Any = get_session()  # httpx's or requests'
        if _is_httpx(session):
            opened, read = session.stream("GET", url, **options), "iter_bytes"
        else:
            opened, read = session.get(url, stream=True, **options), "iter_content"
        with opened as response:
            hf_raise_for_status(response)
            is_span = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if not (is_span if response.status_code == 206 else whole_file and start == 0):
                raise NoRanges
            left = stop - start
            for chunk in getattr(response, read)(CHUNK):
                yield chunk[:left]
                left -= len(chunk)
                if left <= 0:
                    return
        raise BrokenLine("the answer ended too early")


@contextlib.contextmanager
def one_kind_of_error() -> Iterator[None]:
    """Turn the connection errors of either HTTP client, httpx or requests, into a BrokenLine."""
    try:
        yield
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, BrokenLine, NoRanges):
        raise
    except Exception as error:
        # errors about a header quote it, and so the token
        about = "HF_TOKEN holds characters that it cannot" if _is_named(error, HEADER) else str(error)
        kind = NoLine if _is_lasting(error) else BrokenLine
        raise kind(f"{type(error).__name__}: {about}".splitlines()[0]) from error


def _is_lasting(error: BaseException) -> bool:
    """Whether a request that ended in this error would end so again."""
    # an address, header or proxy that is none: of requests these are ValueErrors
    if _is_named(error, LASTING + HEADER) or isinstance(error, (ValueError, TypeError)):
        return True
    if _is_named(error, ("ProxyError",)) and str(error).startswith(("401", "403", "407")):
        return True
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, (ImportError, ssl.SSLCertVerificationError)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_named(error: BaseException, names: Sequence[str]) -> bool:
    """Whether the error is of a class of one of these names: httpx's or requests', of which only one may be installed."""
    return any(kind.__name__ in names for kind in type(error).__mro__)


@one_kind_of_error()
def _head(url: str) -> Mapping[str, str]:
    """The headers that describe a file on the Hub.

    Not by `get_hf_file_metadata`: some versions of it try again for half a minute and cannot be stopped meanwhile.
    """
    session: Any = get_session()
    options = {"headers": _headers(), "timeout": constants.HF_HUB_ETAG_TIMEOUT}
    options["follow_redirects" if _is_httpx(session) else "allow_redirects"] = False
    for _ in range(5):
        response = session.request("HEAD", url, **options)
        hf_raise_for_status(response)
        # Follow a redirect only within the Hub, where it does not describe the file yet: other hosts must not get the token.
        before, url = url, urljoin(url, response.headers.get("Location", ""))
        if "X-Linked-Size" in response.headers or url == before or not _is_as_safe(urlsplit(url), urlsplit(before)):
            break
    return response.headers


def _is_as_safe(url: SplitResult, before: SplitResult) -> bool:
    """Whether the token that was sent to `before` may be sent to `url`: to the same host, and not in the clear now."""
    return url.netloc == before.netloc and url.scheme in (before.scheme, "https")


def _headers(**more: str) -> dict[str, str]:
    return build_hf_headers(library_name=LIBRARY) | {"Accept-Encoding": "identity", **more}


def _is_httpx(session: Any) -> bool:
    """Whether huggingface-hub's session is of httpx (from 1.0 on), not of requests, where `stream` is a flag."""
    return callable(session.stream)


def status_of(error: Exception) -> int:
    """The HTTP status behind an error, or 0."""
    return getattr(getattr(error, "response", None), "status_code", 0)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, NoLine):
        return False
    status = status_of(error)
    return status in (0, 408, 429) or (status >= 500 and status not in NEVER)


def _retry_after(error: Exception) -> float:
    """Seconds that the server asks to wait, or 0."""
    asked = getattr(getattr(error, "response", None), "headers", {}).get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0


def _rest(spans: Sequence[Span], done: int) -> Span:
    """The rest of the first incomplete span, after `done` bytes of all spans."""
    for start, stop in spans:
        if done < stop - start:
            return start + done, stop
        done -= stop - start
    raise ValueError("nothing is left.")
