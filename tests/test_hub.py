from __future__ import annotations

import errno
import hashlib
import shutil
import ssl
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from adain_core import download, hub
from adain_core.hub import HubError, HubFile, pull_file, pull_tensors
from adain_core.progress import showing

FILE = HubFile("me/model", "sub/model.safetensors")
WANTED = dict.fromkeys(["a.weight", "a.bias", "c.weight"], "")
STAGES = [0, 1, 7, 8, 100, 5000, 19_999]  # bytes of a body after which a line is cut


@pytest.fixture
def tensors(served, tmp_path, monkeypatch) -> dict[str, torch.Tensor]:
    """What a served file of 85 kB holds: some wanted, far apart, with others between."""
    monkeypatch.setattr(hub, "HEADER_GUESS", 100)
    monkeypatch.setattr(hub, "NEAR", 1000)
    monkeypatch.setattr(download, "CHUNK", 512)
    shapes = {"a.bias": (50,), "a.weight": (50, 7), "b": (70, 90), "c.weight": (90, 50), "d": (100, 100)}
    tensors = {name: torch.rand(shape) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    served.serve(str(FILE), tmp_path / "model.safetensors")
    return tensors


def equal(found, tensors) -> bool:
    return found.keys() == WANTED.keys() and all(found[name].equal(tensors[name]) for name in WANTED)


def flip(at):
    """Changes a bit of a byte."""

    def change(piece, start):
        index = at - start
        return piece[:index] + bytes([piece[index] ^ 1]) + piece[index + 1 :] if 0 <= index < len(piece) else piece

    return change


def left_behind(folder):
    """Files that look finished."""
    return [path for path in folder.glob("hf/**/*") if path.is_file() and path.suffix not in (".lock", ".incomplete")]


# names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hf:me/model/file.pth", HubFile("me/model", "file.pth")),
        ("me/my.model-1/sub/file.pth", HubFile("me/my.model-1", "sub/file.pth")),
        ("hf:datasets/me/data/file.pth", HubFile("me/data", "file.pth", kind="dataset")),
        ("hf:spaces/me/demo/file.pth", HubFile("me/demo", "file.pth", kind="space")),
    ],
)
def test_names_are_understood(name, expected):
    assert HubFile.parse(name) == expected
    assert str(expected) == name.removeprefix("hf:")


@pytest.mark.parametrize("name", ["", "hf:me/model", "me/model/../up.pth", "https://hub/me/model/a.pth", "a/b//c.pth"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="write owner/repository/file"):
        HubFile.parse(name)


# ranges


def test_only_the_wanted_bytes_move_and_tensors_are_the_same_bit_for_bit(served, tensors):
    seen = []
    with showing(lambda done, total, _: seen.append((done, total))):
        assert equal(pull_tensors([FILE], WANTED), tensors)
    size = sum(4 * tensors[name].numel() for name in WANTED)
    assert served.sent < size + 1000
    assert seen[-1] == (size, size) and seen == sorted(seen)
    # the header in two parts; two spans
    assert served.asked("GET /cdn") == 4


@pytest.mark.parametrize("cut", STAGES)
@pytest.mark.parametrize("where", ["HEAD", "GET /me", "GET /cdn"])
def test_a_line_that_breaks_is_taken_up_where_it_broke(served, tensors, where, cut):
    served.fault(where, times=2, drop=where != "GET /cdn", cut=cut)
    assert equal(pull_tensors([FILE], WANTED), tensors)
    assert served.sent < 24_000


@pytest.mark.parametrize("cut", STAGES[:-1])
def test_a_line_that_breaks_at_every_request_ends_in_one_sentence_or_in_the_tensors(served, tensors, cut):
    fault = served.fault("GET /cdn", cut=cut)
    try:
        assert equal(pull_tensors([FILE], WANTED), tensors)
        assert cut  # some bytes at a time are a way too
    except HubError as error:
        assert "the connection to" in str(error) and "HF_ENDPOINT" in str(error)
    fault.times = 0
    assert equal(pull_tensors([FILE], WANTED), tensors)


def test_a_pull_that_was_stopped_goes_on_from_what_is_there(served, tensors, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done, *_):
        if done > 10_000:
            raise Stopped

    with pytest.raises(Stopped), showing(stop):
        pull_tensors([FILE], WANTED)
    before, first = served.sent, []
    with showing(lambda *at: first.append(at)):
        assert equal(pull_tensors([FILE], WANTED), tensors)
    assert first[0][0] > 10_000 and served.sent - before < 12_000
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 503}, {"status": 429, "headers": {"Retry-After": "0"}}])
@pytest.mark.parametrize("where", ["HEAD", "GET /cdn"])
def test_a_server_in_trouble_is_asked_again(served, tensors, where, fault):
    served.fault(where, times=2, **fault)
    assert equal(pull_tensors([FILE], WANTED), tensors)


def test_the_server_says_how_long_to_wait(served, tensors, monkeypatch):
    pauses = []
    monkeypatch.setattr(download.Download, "_pause", lambda self, seconds: pauses.append(seconds))
    served.fault("HEAD", times=1, status=429, headers={"Retry-After": "7"})
    served.fault("HEAD", times=1, status=429, headers={"Retry-After": "86400"})
    assert equal(pull_tensors([FILE], WANTED), tensors)
    assert pauses == [7, 60]


def test_a_line_that_falls_silent_is_given_up_and_taken_up_again(served, tensors, monkeypatch):
    monkeypatch.setattr(hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    end = threading.Event()
    served.fault("GET /cdn", times=2, cut=150, stall=end)
    assert equal(pull_tensors([FILE], WANTED), tensors)
    end.set()


def test_a_pause_can_be_stopped(served, tensors, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    monkeypatch.setattr(download, "PAUSES", (3600,))
    served.fault("HEAD", status=503)
    with pytest.raises(Stopped), showing(stop):
        pull_tensors([FILE], WANTED)


@pytest.mark.parametrize("times", [1, 100])
def test_a_server_that_sends_whole_files_only_is_asked_for_the_whole_file(served, tensors, times):
    served.fault("GET /cdn", times=times, no_ranges=True)
    assert equal(pull_tensors([FILE], WANTED), tensors)
    assert served.sent > 80_000
    assert not list(hub.assets().glob("*.incomplete"))


def test_bytes_swapped_in_a_range_are_found_where_a_hash_is_known(served, tensors, tmp_path):
    served.fault("GET /cdn", change=flip(30_000))
    hashes = {name: hashlib.sha256(tensors[name].numpy().tobytes()).hexdigest() for name in WANTED}
    with pytest.raises(HubError, match="SHA-256 of its .* is not the expected one"):
        pull_tensors([FILE], hashes)
    served.faults.clear()
    assert equal(pull_tensors([FILE], hashes), tensors)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not answer like the Hub"),
        (b"short", "not a safetensors file"),
        (b"\xff" * 200, "not a safetensors file"),
        (b"\x08" + b"\0" * 7 + b"not json", "not a safetensors file"),
        (b"\x02" + b"\0" * 7 + b"[]", "not a safetensors file"),
        (b"\x02" + b"\0" * 7 + b"{}", "it lacks a.weight"),
        (b'\x12\0\0\0\0\0\0\0{"a.weight":{}}   ', "it lacks data_offsets"),
    ],
)
def test_what_is_no_such_safetensors_file_is_refused(served, tensors, tmp_path, content, why):
    (tmp_path / "wrong").write_bytes(content)
    served.serve(str(FILE), tmp_path / "wrong")
    with pytest.raises(HubError, match=why):
        pull_tensors([FILE], WANTED)


# whole files


def in_cache(path, tmp_path):
    return path.is_relative_to(tmp_path / "hf" / "hub") and path.name == "model.safetensors"


@pytest.mark.parametrize("lfs", [True, False])
def test_a_whole_file_lies_in_the_hubs_cache_for_others_too(served, tensors, tmp_path, lfs):
    served.serve(str(FILE), tmp_path / "model.safetensors", lfs=lfs)
    path = pull_file([FILE])
    assert in_cache(path, tmp_path) and path.read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert hub.hf_hub_download(FILE.repo, FILE.file, cache_dir=hub.constants.HF_HUB_CACHE, local_files_only=True) == str(path)
    before = len(served.requests)
    assert pull_file([FILE]) == path and len(served.requests) == before


@pytest.mark.parametrize("cut", STAGES)
@pytest.mark.parametrize("where", ["HEAD", "GET /me", "GET /cdn"])
def test_a_whole_file_is_taken_up_where_it_broke(served, tensors, tmp_path, where, cut):
    served.fault(where, times=3, drop=where != "GET /cdn", cut=cut)
    assert pull_file([FILE]).read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert served.sent < 90_000


@pytest.mark.parametrize("cut", [0, 50_000])
def test_a_whole_file_that_cannot_be_had_leaves_no_file(served, tensors, tmp_path, cut):
    served.fault("GET /cdn", cut=cut, no_ranges=True)
    with pytest.raises(HubError, match="the connection to"):
        pull_file([FILE])
    assert not left_behind(tmp_path)
    served.faults.clear()
    assert pull_file([FILE]).read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("where", ["HEAD", "GET /cdn"])
@pytest.mark.parametrize("length", [-1000, 1000])
def test_a_wrong_length_is_refused_or_does_no_harm(served, tensors, tmp_path, where, length):
    served.fault(where, length=length)
    try:
        assert pull_file([FILE]).read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    except HubError as error:
        assert "not the right file" in str(error) or "try again" in str(error)
        assert not left_behind(tmp_path)
    served.faults.clear()
    assert pull_file([FILE]).read_bytes() == (tmp_path / "model.safetensors").read_bytes()


@pytest.mark.parametrize("at", [0, 12_345, 84_999])
def test_a_changed_byte_is_refused(served, tensors, tmp_path, at):
    served.fault("GET /cdn", change=flip(at))
    with pytest.raises(HubError, match="is not the right file: its SHA-256"):
        pull_file([FILE])
    assert not left_behind(tmp_path)


def test_the_catalogs_hash_counts_and_not_the_hubs(served, tensors, tmp_path):
    with pytest.raises(HubError, match="the SHA-256 that the Hub states is not the one in the catalog"):
        pull_file([FILE], "0" * 64)
    assert served.sent == 0
    served.serve(str(FILE), tmp_path / "model.safetensors", etag="unknown")
    with pytest.raises(HubError, match="its SHA-256 is not the expected one"):
        pull_file([FILE], "0" * 64)
    assert not left_behind(tmp_path)


def test_a_damaged_copy_in_the_cache_is_replaced(served, tensors, tmp_path):
    path = pull_file([FILE])
    good = path.read_bytes()
    path.write_bytes(b"damaged" + good[7:])
    assert pull_file([FILE], hashlib.sha256(good).hexdigest()).read_bytes() == good


def test_a_file_that_changed_is_fetched_on_request(served, tensors, tmp_path):
    assert pull_file([FILE])
    save_file({"new": torch.ones(9)}, tmp_path / "new.safetensors")
    served.serve(str(FILE), tmp_path / "new.safetensors", lfs=False)
    assert pull_file([FILE]).read_bytes() != (tmp_path / "new.safetensors").read_bytes()
    assert pull_file([FILE], refresh=True).read_bytes() == (tmp_path / "new.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ({"status": 401}, "refuses access to me/model.*HF_TOKEN"),
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, "gated.*accept its terms"),
        ({"status": 404, "headers": {"X-Error-Code": "EntryNotFound"}}, "no file me/model/sub/model.safetensors"),
        ({"status": 404, "headers": {"X-Error-Code": "RevisionNotFound"}}, "no file"),
        ({"status": 429}, "too many requests"),
        ({"status": 502}, "fails .502.; try again later"),
        ({"status": 200}, "does not answer like the Hub"),
        ({"drop": True}, "the connection to http://127.0.0.1.* failed"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_sentence(served, tensors, tmp_path, fault, why):
    served.fault("", **fault)
    for pull in (lambda: pull_file([FILE]), lambda: pull_tensors([FILE], WANTED)):
        with pytest.raises(HubError, match=why) as caught:
            pull()
        assert "\n" not in str(caught.value)
    assert not left_behind(tmp_path)


class LocalProtocolError(Exception):
    """As httpx has it, which may not be installed."""


class UnsupportedProtocol(Exception):
    pass


class ConnectError(Exception):
    pass


class ProxyError(Exception):
    pass


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "lasts"),
    [
        (ImportError("Using SOCKS proxy, but the 'socksio' package is not installed."), True),
        (caused(ConnectError("certificate"), ssl.SSLCertVerificationError("self-signed certificate")), True),
        (UnsupportedProtocol("Request URL has an unsupported protocol 'ftp://'."), True),
        (LocalProtocolError("Illegal header value b'Bearer hf_secret'"), True),
        (ValueError("Missing dependencies for SOCKS support."), True),
        (ProxyError("407 Proxy Authentication Required"), True),
        (ProxyError("503 Service Unavailable"), False),
        (ConnectError("Connection refused"), False),
        (caused(ConnectError("broken"), ValueError("invalid literal for int() with base 16: b''")), False),
        (TimeoutError("timed out"), False),
    ],
)
@pytest.mark.parametrize("session", [{"side_effect": True}, {}])
def test_what_would_fail_again_is_not_tried_again(served, tensors, monkeypatch, error, lasts, session):
    """Whether the session cannot be made, or the request."""
    tries = []

    def fail(*arguments, **options):
        tries.append(1)
        raise error

    broken = SimpleNamespace(request=fail, stream=fail, get=fail)
    monkeypatch.setattr(download, "get_session", fail if session else lambda: broken)
    for pull in (lambda: pull_file([FILE]), lambda: list(download._chunks(FILE.url(), 0, 9))):
        tries.clear()
        with pytest.raises((HubError, download.BrokenLine)) as caught:
            pull()
        if isinstance(caught.value, HubError):
            assert len(tries) == (1 if lasts else 1 + len(download.PAUSES))
            assert ("no connection to" in str(caught.value)) == lasts == ("mirror" not in str(caught.value))
        else:
            assert isinstance(caught.value, download.NoLine) == lasts
        assert "hf_secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [501, 505, 511, 400, 404, 410])
def test_answers_that_stay_the_same_are_asked_for_once(served, tensors, status):
    served.fault("HEAD", status=status)
    with pytest.raises(HubError):
        pull_file([FILE])
    assert served.asked("HEAD") == 1


def test_a_file_too_large_for_a_network_is_refused_before_it_moves(served, tensors, monkeypatch):
    monkeypatch.setattr(hub, "LARGEST", 80_000)
    with pytest.raises(HubError, match="no network of AdaIN has more"):
        pull_file([FILE])
    assert served.sent == 0


@pytest.mark.parametrize("fault", [{"status": 404}, {"status": 500}, {"drop": True}, {"change": flip(9)}])
def test_mirrors_are_tried_in_turn(served, tensors, tmp_path, fault):
    others = [HubFile("me/data", "a/model.safetensors", kind="dataset"), HubFile("me/demo", "model.safetensors", kind="space")]
    for other in others:
        served.serve(str(other), tmp_path / "model.safetensors")
    served.fault("/me/model/", **fault)
    served.fault("HEAD /datasets/me/data", status=403)
    path = pull_file([FILE, *others])
    assert path.read_bytes() == (tmp_path / "model.safetensors").read_bytes() and "spaces--me--demo" in str(path)
    assert equal(pull_tensors([FILE, *others], WANTED), tensors)


def test_when_no_mirror_works_the_first_ones_reason_is_told(served, tensors):
    served.fault("HEAD /me/model", status=404)
    served.fault("HEAD /me/other", status=403)
    with pytest.raises(HubError, match="all of its 2 places failed; the first one: there is no file me/model/sub/model"):
        pull_file([FILE, HubFile("me/other", "model.safetensors")])


def test_a_token_goes_to_the_hub_and_not_to_the_host_it_redirects_to(served, tensors, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    pull_tensors([FILE], WANTED)
    for request, headers in served.requests:
        assert headers.get("authorization", "") == ("" if "/cdn/" in request else "Bearer hf_secret")


@pytest.mark.parametrize("to", ["http://hub", "ftp://hub", "https://other", "https://hub:444", "https://user@hub", "file://"])
def test_a_token_goes_nowhere_less_safe_than_the_hub(monkeypatch, to):
    asked = []

    def request(method, url, headers, **options):
        asked.append((url, headers.get("authorization")))
        return SimpleNamespace(headers={"Location": f"{to}/b"}, status_code=302, raise_for_status=lambda: None)

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(download, "get_session", lambda: SimpleNamespace(request=request, stream=request))
    monkeypatch.setattr(download, "hf_raise_for_status", lambda response: None)
    download._head("https://hub/a")
    assert asked == [("https://hub/a", "Bearer hf_secret")]


def test_a_token_may_go_from_http_to_https_of_the_same_hub(monkeypatch):
    asked = []

    def request(method, url, headers, **options):
        asked.append(url)
        return SimpleNamespace(headers={"Location": "https://hub/b"}, status_code=302)

    monkeypatch.setattr(download, "get_session", lambda: SimpleNamespace(request=request, stream=request))
    monkeypatch.setattr(download, "hf_raise_for_status", lambda response: None)
    download._head("http://hub/a")
    assert asked == ["http://hub/a", "https://hub/b"]


@pytest.mark.parametrize("name", ["X-Repo-Commit", "X-Linked-Etag"])
@pytest.mark.parametrize("value", ["a" * 300, "con", "NUL", ""])
def test_headers_that_no_file_can_be_named_by_are_one_sentence(served, tensors, tmp_path, name, value):
    served.fault("HEAD", headers={name: value, "ETag": ""})
    for pull in (lambda: pull_file([FILE]), lambda: pull_tensors([FILE], WANTED)):
        with pytest.raises(HubError, match="does not answer like the Hub"):
            pull()
    assert not left_behind(tmp_path)


def test_a_renamed_repository_is_followed(served, tensors):
    served.fault("/me/old/", status=307, headers={"Location": "/me/model/resolve/main/sub/model.safetensors"})
    assert equal(pull_tensors([HubFile("me/old", FILE.file)], WANTED), tensors)


def test_a_full_disk_is_noticed_before_anything_moves(served, tensors, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    with pytest.raises(OSError) as caught:
        pull_file([FILE])
    assert caught.value.errno == errno.ENOSPC and served.sent == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_disk_that_fills_up_is_noticed(served, tensors, tmp_path):
    served.serve(str(FILE), tmp_path / "model.safetensors", etag="abc")
    blobs = tmp_path / "hf" / "hub" / "models--me--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "abc.adain.incomplete").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught:
        pull_file([FILE])
    assert caught.value.errno == errno.ENOSPC
    assert not left_behind(tmp_path)


def test_the_lock_is_for_one_at_a_time_and_the_wait_can_be_stopped(served):
    class Stopped(Exception):
        pass

    def stop(*_):
        raise Stopped

    with hub.one_at_a_time():
        with pytest.raises(Stopped), showing(stop), hub.one_at_a_time():
            pass
    with hub.one_at_a_time():
        pass
