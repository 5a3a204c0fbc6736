"""Thousands of files that are damaged or lie: each is read, or refused in one sentence, in little memory and time."""

from __future__ import annotations

import collections
import copy
import io
import itertools
import json
import os
import pickle
import shutil
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from safetensors.torch import load, save

from adain_core import catalog, encode_style, hub, legacy, load_encoder, load_style, mix_styles, transfer
from adain_core.catalog import Entry, find_entry
from adain_core.download import Download
from adain_core.errors import AdainError
from adain_core.files import read_safetensors
from adain_core.images import limit_pixels, load_image, load_mask, pixel_limit
from adain_core.large import check_large, needs_streaming
from adain_core.pickled import read_pickled
from adain_core.training.checkpoints import load_checkpoint
from adain_core.training.data import decode
from adain_core.video import Video
from adain_core.weights import NetworkFile, read_network, write_network

PIXELS = 40_000  # limit of a picture here
MEMORY = 1 << 30  # more than this no case may take
SECONDS = 5  # nor this, on a machine that does other things as well

numbers = st.sampled_from([-1, 0, 1, 3, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**30])
floats = st.sampled_from([0.5, -0.0, 1e300, float("inf"), float("-inf"), float("nan")])
texts = st.sampled_from(["", "a", "..", "/", "\0", "\ud800", "a" * 300, "student", "encoder", "F16", "F8_E4M3", "C64", "BOOL"])
json_values = st.recursive(
    st.none() | st.booleans() | numbers | floats | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def other_bytes(draw: Callable, content: bytes, head: int = 0) -> bytes:
    """The content with some bytes changed, put in, left out or cut off, half of them among the first `head`."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        end = min(head, len(changed)) if head and draw(st.booleans()) else len(changed)
        at = draw(st.integers(0, max(0, end - 1)))
        kind = draw(st.sampled_from(["change", "change", "put in", "leave out", "cut off"]))
        if kind == "change":
            changed[at : at + 1] = draw(st.sampled_from([b"\0", b"\x01", b"\x7f", b"\x80", b"\xff", b"{", b'"', b"9"]))
        elif kind == "put in":
            changed[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "leave out":
            del changed[at : at + draw(st.integers(1, 9))]
        else:
            del changed[at:]
    return bytes(changed)


@st.composite
def other_json(draw: Callable, tree: object) -> object:
    """The tree with up to three of its parts replaced, left out or put in."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        place = tree
        while isinstance(place, (dict, list)) and place:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            kind = draw(st.sampled_from(["replace", "replace", "replace", "leave out", "put in"]))
            if kind == "leave out":
                del place[key]
            elif kind == "put in" and isinstance(place, dict):
                place[draw(texts)] = draw(json_values)
            else:
                place[key] = draw(json_values)
            break
    return tree


def unpacked(content: bytes) -> tuple[dict, bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def packed(header: object, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


@pytest.fixture(scope="module", autouse=True)
def little_memory() -> Iterator[None]:
    """Where the system can do so, memory that a lying file asks for is refused, and what asks for it fails."""
    resource = pytest.importorskip("resource") if Path("/proc").exists() else None
    if resource:
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, before[1]))
    yield
    if resource:
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_or_refuse(read: Callable[[Path], object], path: Path, content: bytes | None = None) -> object:
    """What `read` gives, or None where it refuses the file as a person would want it refused."""
    if content is not None:
        path.write_bytes(content)
    begun = time.monotonic()
    try:
        return read(path)
    except (AdainError, OSError) as error:
        text = str(error)
        assert path.name in text and "\n" not in text and text.endswith(".") and len(text) < 1000, text
        return None
    finally:
        assert time.monotonic() - begun < SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# networks


@pytest.fixture(scope="module")
def network(small_files) -> bytes:
    return small_files[1].read_bytes()


@settings(max_examples=300)
@given(data=st.data())
def test_networks_with_other_bytes(folder, network, data):
    content = data.draw(other_bytes(network, head=2000))
    read_or_refuse(read_network, folder / "network.safetensors", content)


@settings(max_examples=300)
@given(data=st.data())
def test_networks_with_other_headers(folder, network, data):
    header, tensors = unpacked(network)
    read_or_refuse(read_network, folder / "network.safetensors", packed(data.draw(other_json(header)), tensors))


@settings(max_examples=400)
@given(data=st.data())
def test_networks_with_other_descriptions(folder, network, data):
    header, tensors = unpacked(network)
    description = json.loads(header["__metadata__"]["network"])
    text = json.dumps(data.draw(st.one_of(other_json(description), json_values)))
    header["__metadata__"]["network"] = text
    found = read_or_refuse(read_network, folder / "network.safetensors", packed(header, tensors))
    assert found is None or found.build().name == found.name


@pytest.mark.parametrize(
    "config",
    [
        {"channels": [4096] * 8, "blocks": [64] * 8},
        {"channels": [4, 6, 10**9], "blocks": [1, 1, 1]},
        {"channels": [4, 6, 8], "blocks": [10**9, 1, 1]},
        {"channels": [4] * 10_000, "blocks": [1] * 10_000},
        {"channels": [], "blocks": []},
        {"channels": [4], "blocks": [1]},
        {"channels": [4, 6, 8], "blocks": [1, 1]},
        {"channels": [4.0, 6.0, 8.0], "blocks": [1, 1, 1]},
        {"channels": [True, 6, 8], "blocks": [1, 1, 1]},
        {"channels": "468", "blocks": [1, 1, 1]},
        {},
    ],
)
def test_descriptions_that_ask_for_more_than_there_is(folder, network, config):
    header, tensors = unpacked(network)
    description = json.loads(header["__metadata__"]["network"])
    header["__metadata__"]["network"] = json.dumps(description | {"config": config})
    assert read_or_refuse(read_network, folder / "network.safetensors", packed(header, tensors)) is None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"role":' * 50_000, "", "null", "[]", '"student"', '{"role": "encoder"}'])
def test_descriptions_that_are_none(folder, network, text):
    header, tensors = unpacked(network)
    header["__metadata__"]["network"] = text
    assert read_or_refuse(read_network, folder / "network.safetensors", packed(header, tensors)) is None


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.bool, torch.complex64])
def test_weights_of_types_that_no_network_computes_in(folder, small_files, dtype):
    path = folder / "odd.safetensors"
    whole = read_network(small_files[0])
    state = whole.state | {"down.0.weight": torch.zeros(whole.state["down.0.weight"].shape, dtype=dtype)}
    write_network(NetworkFile("encoder", "student", whole.config, state, "odd"), path, None)
    with pytest.raises(ValueError, match="odd.safetensors cannot be used: down.0.weight is of .*; convert the weights"):
        read_network(path)


# PyTorch's files


@pytest.fixture(scope="module")
def checkpoint(folder) -> bytes:
    buffer = io.BytesIO()
    torch.save({"format": "adain-training-1", "recipe": {"seed": 0}, "step": 3, "parameters": [torch.rand(3, 2)]}, buffer)
    return buffer.getvalue()


@settings(max_examples=300)
@given(data=st.data())
def test_pickled_weights_with_other_bytes(folder, checkpoint, data):
    content = data.draw(other_bytes(checkpoint))
    read_or_refuse(read_network, folder / "network.pth", content)
    read_or_refuse(lambda path: load_checkpoint(path, {"seed": 0}), folder / "checkpoint.pt", content)


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"0.weight": x}, lambda x: {x: torch.ones(1)}, lambda x: [[x]]])
@pytest.mark.parametrize("how", ["zip", "old zip", "pickle"])
def test_pickles_that_call_something_call_nothing(tmp_path, monkeypatch, wrap, how):
    monkeypatch.chdir(tmp_path)
    for function, arguments in [
        (os.system, ("touch stolen",)), (eval, ("open('stolen', 'w')",)), (exec, ("open('stolen', 'w')",)),
        (open, ("stolen", "w")), (shutil.rmtree, (str(tmp_path),)), (torch.load, ("stolen",)), (torch.hub.load, ("a/b", "c")),
    ]:  # fmt: skip
        content = wrap(Call(function, *arguments))
        if how == "pickle":
            (tmp_path / "network.pth").write_bytes(pickle.dumps(content))
        else:
            torch.save(content, tmp_path / "network.pth", _use_new_zipfile_serialization=how == "zip")
        for read in (read_network, lambda path: load_checkpoint(path, {})):
            assert read_or_refuse(read, tmp_path / "network.pth") is None
    assert [path.name for path in tmp_path.iterdir()] == ["network.pth"]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(64, 3, 3, 3).to_sparse(),
        torch.empty(64, 3, 3, 3, device="meta"),
        torch.quantize_per_tensor(torch.rand(64, 3, 3, 3), 0.1, 0, torch.quint8),
        torch.ones(1).half().expand(1 << 20, 1 << 20),
        torch.ones(64, 3, 3, 3, dtype=torch.complex64),
    ],
)
@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_tensors_that_are_no_plain_weights(tmp_path, tensor, name):
    shapes = {"0": (3, 3, 1, 1), "2": (64, 3, 3, 3)}
    state = {f"{layer}.weight": torch.ones(1).expand(*shapes.get(layer, (1,))) for layer in map(str, legacy.ENCODER_LAYERS)}
    state |= {f"{layer}.bias": torch.ones(1) for layer in map(str, legacy.ENCODER_LAYERS)}
    torch.save(state | {name: tensor}, tmp_path / "network.pth")
    assert read_or_refuse(read_network, tmp_path / "network.pth") is None


def test_weights_that_were_saved_while_they_were_trained_are_read(tmp_path):
    torch.save({"weight": torch.nn.Parameter(torch.ones(3))}, tmp_path / "network.pth")
    assert not legacy.read_state(tmp_path / "network.pth")["weight"].requires_grad


def test_archives_that_would_unpack_to_much_more_are_refused(tmp_path, checkpoint):
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as source, zipfile.ZipFile(tmp_path / "network.pth", "w") as bomb:
        for part in source.namelist():
            content = bytes(1 << 27) if part.endswith("data/0") else source.read(part)
            bomb.writestr(part, content, zipfile.ZIP_DEFLATED)
    small = (tmp_path / "network.pth").read_bytes()
    assert len(small) < 1 << 20
    for name, after in (("plain", b""), ("zeros", bytes(1 << 17)), ("more zeros", bytes(1 << 21)), ("twice", small)):
        for read in (read_network, lambda path: load_checkpoint(path, {"seed": 0})):
            path = tmp_path / f"{name}.pth"
            assert read_or_refuse(read, path, small + after) is None
    with pytest.raises(ValueError, match="network.pth .*it would be larger when unpacked"):
        read_network(tmp_path / "network.pth")


def pickled(value: object) -> bytes:
    """A pickle in which `(name, count)` stands for a tensor of `count` float32, which lie in the part `name`."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, *value) if isinstance(value, tuple) and len(value) == 3 else None

    class Rebuilt:
        def __init__(self, name, count):
            self.name, self.count = name, count

        def __reduce__(self):
            arguments = ((self.name, "cpu", self.count), 0, (self.count,), (1,), False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, arguments

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({key: Rebuilt(*part) for key, part in value.items()})
    return buffer.getvalue()


def archive(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as target:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, content in ({"version": b"3\n", "byteorder": b"little"} | parts).items():
            target.writestr(f"archive/{name}", content)
    return buffer.getvalue()


SPELLINGS = ["".join(letters) for letters in itertools.product(*(letter + letter.upper() for letter in "abcdefghij"))]


@pytest.mark.parametrize(
    "content",
    [
        # PyTorch does not tell upper from lower case: a part is read again for each spelling of its name
        archive({"data.pkl": pickled({name: (name, 1 << 18) for name in SPELLINGS}), "data/abcdefghij": bytes(1 << 20)}),
        archive({"data.pkl": pickled({"a": ("0", 1 << 28)}), "data/0": bytes(16)}),
        archive({"data.pkl": pickled({"a": ("0", 4)}), "DATA.pkl": pickled({}), "data/0": bytes(16)}),
        archive({"data.pkl": pickle.dumps({"a": Call(bytearray, 1 << 31)}, 2)}),
        archive({"data.pkl": pickle.dumps({"a": Call(set, [1])}, 4)}),
        b"".join(pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
        + pickled({"a": ("0", 1 << 27)}) + pickle.dumps([], 2),
        pickle.dumps({"a": Call(bytearray, 1 << 31)}, 2),
        b"",
        b"ustar",
    ],
)  # fmt: skip
def test_pickles_that_ask_for_more_than_they_have_are_refused_in_little_memory(folder, content):
    for read in (read_network, lambda path: load_checkpoint(path, {"seed": 0})):
        assert read_or_refuse(read, folder / "network.pth", content) is None


@pytest.mark.parametrize("newer", [True, False])
def test_what_such_pickles_are_made_of_is_read(folder, newer):
    state = {"a": torch.rand(3), "b": torch.rand(2, 2).half(), "c": torch.arange(3), "d": torch.rand(4, 4)[1:, ::2]}
    torch.save({"state": state, "of": [1, 2.0, "x", None, (True,)]}, folder / "b.pth", _use_new_zipfile_serialization=newer)
    found = read_pickled(folder / "b.pth")
    assert found["of"] == [1, 2.0, "x", None, (True,)]
    assert all(found["state"][name].equal(tensor) for name, tensor in state.items())
    content = archive({"data.pkl": pickled({"a": ("0", 4)}), "data/0": np.arange(4, dtype="<f4").tobytes()})
    (folder / "c.pth").write_bytes(content)
    assert read_pickled(folder / "c.pth")["a"].tolist() == [0, 1, 2, 3]


def test_a_pickle_that_holds_itself_and_tensors_larger_than_their_file(folder):
    turns: list = []
    turns.append(turns)
    torch.save({"a": turns}, folder / "turns.pth")
    assert read_or_refuse(read_network, folder / "turns.pth") is None
    one = torch.ones(1)
    torch.save({"a": one.expand(1 << 40)}, folder / "wide.pth")
    with pytest.raises(ValueError, match="wide.pth holds other than plain tensors"):
        read_network(folder / "wide.pth")


# styles


@pytest.fixture(scope="module")
def encoder(small_files):
    return load_encoder(str(small_files[0]))


@pytest.fixture(scope="module")
def style(encoder, folder) -> bytes:
    pictures = [torch.rand(2, 3, 20, 20) for _ in range(2)]
    styles = [encode_style(encoder, x, combine="each", size=0).masked(torch.rand(3, 4)) for x in pictures]
    mix_styles(styles).save(folder / "style.safetensors")
    return (folder / "style.safetensors").read_bytes()


def usable(path: Path, encoder) -> None:
    """A style that is read stylises, and what comes out are pictures."""
    style = load_style(path)
    try:
        features = transfer(encoder, torch.rand(style.batch, 3, 12, 12) if style.batch < 9 else torch.rand(1, 3, 12, 12), style)
    except ValueError as error:
        assert "made by the encoder" in str(error) or "does not fit the levels" in str(error)
        return
    assert all(level.isfinite().all() for level in features.levels)


@settings(max_examples=400)
@given(data=st.data())
def test_styles_with_other_bytes(folder, style, encoder, data):
    content = data.draw(other_bytes(style, head=3000))
    read_or_refuse(lambda path: usable(path, encoder), folder / "style.safetensors", content)


@settings(max_examples=300)
@given(data=st.data())
def test_styles_with_other_headers(folder, style, encoder, data):
    header, tensors = unpacked(style)
    content = packed(data.draw(other_json(header)), tensors)
    read_or_refuse(lambda path: usable(path, encoder), folder / "style.safetensors", content)


TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2, torch.complex64, torch.int64, torch.uint8,
    torch.bool,
]  # fmt: skip


@settings(max_examples=300)
@given(data=st.data())
def test_styles_with_other_numbers(folder, style, encoder, data):
    tensors = load(style)
    name = data.draw(st.sampled_from(sorted(tensors)))
    shape = data.draw(st.just(tensors[name].shape) | st.lists(st.sampled_from([0, 1, 2, 4, 6]), max_size=5))
    number = data.draw(st.sampled_from([0, 1, -1, 3e38, -3e38, 1e-38, float("nan"), float("inf"), 7, 255]))
    number = torch.tensor(number, dtype=torch.float64).to(data.draw(st.sampled_from(TYPES)))
    tensors[name] = number.repeat(*shape, 1).squeeze(-1)
    content = save(tensors, unpacked(style)[0]["__metadata__"])
    read_or_refuse(lambda path: usable(path, encoder), folder / "style.safetensors", content)


# the catalog and the Hub


ENTRIES = json.loads((catalog.BUNDLED / "catalog.json").read_text(encoding="utf-8"))


@settings(max_examples=400)
@given(data=st.data())
def test_other_catalogs(folder, data):
    (folder / "weights").mkdir(exist_ok=True)
    path = folder / "weights" / "catalog.json"
    content = data.draw(st.one_of(other_json(ENTRIES), json_values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "BUNDLED", folder / "weights")
        entries = read_or_refuse(lambda path: catalog.catalog(), path, json.dumps(content).encode())
        for entry in entries or ():
            assert entry.path.resolve().parent in (folder / "weights", hub.assets().resolve())
            for mirror in entry.mirrors:
                assert mirror.url().startswith(hub.constants.ENDPOINT)
                assert mirror.cached() is None


@settings(max_examples=200)
@given(content=other_bytes(json.dumps(ENTRIES[:2]).encode()))
@example(content=b"[" * 100_000)
@example(content=b"\xff")
def test_catalogs_with_other_bytes(folder, content):
    (folder / "weights").mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "BUNDLED", folder / "weights")
        read_or_refuse(lambda path: catalog.catalog(), folder / "weights" / "catalog.json", content)


NAMES = st.text(alphabet=st.sampled_from("ab/.\\:-_ \0\n*~%?#é"), max_size=24) | st.text(max_size=12)


@settings(max_examples=400)
@given(name=NAMES)
@example(name="a/b/CON.pth")
@example(name="a/b/c:d.pth")
@example(name="../../c.pth")
@example(name="a/../b.pth")
@example(name="a/b/nul/c.pth")
@example(name="a/b/ c.pth")
@example(name="a--b/c/d.pth")
def test_names_on_the_hub_stay_in_its_cache(name):
    for given_name in (name, f"hf:{name}", f"hf:a/b/{name}.pth", f"hf:{name}/c.pth"):
        try:
            entry = find_entry(f"hf:{given_name.removeprefix('hf:')}", "encoder")
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        (file,) = entry.mirrors
        parts = Path(file.file).parts
        assert not {"..", "/"} & set(parts) and not Path(file.file).is_absolute() and ":" not in file.file
        assert entry.path.parent == hub.assets() and file.cached() is None


@pytest.mark.parametrize("name", ["a/b/CON.pth", "a/b/c:d.pth", "../../c.pth", "a/b/../c.pth", "a/b/nul/c.pth", "a--b/c/d.pth"])
def test_names_that_would_leave_the_cache_somewhere_are_refused(name):
    with pytest.raises(ValueError, match="on the Hugging Face Hub; write owner/repo|system allows; rename it on the Hub"):
        find_entry(f"hf:{name}", "encoder")


@settings(max_examples=300)
@given(data=st.data())
def test_other_headers_on_the_hub(folder, network, data):
    """Of a file of which only some tensors are read."""
    header, tensors = unpacked(network)
    wanted = [name for name in header if name != "__metadata__"][:2]
    content = packed(data.draw(st.one_of(other_json(header), json_values)), tensors)
    if data.draw(st.booleans()):
        content = data.draw(other_bytes(content, head=400))

    class Line(Download):
        def read(self, url, start, stop):
            return content[start:stop]

        def fetch(self, url, spans, staging, whole_file=False):
            staging.write_bytes(b"".join(content[start:stop] for start, stop in spans))

    file = hub.HubFile("me/model", "model.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub, "_describe", lambda download, file: (file, "etag", len(content)))
        patch.setattr(hub, "assets", lambda: folder)
        try:
            found = hub._pull_ranges(Line(), file, dict.fromkeys(wanted, ""), "")
        except hub.HubError as error:
            assert "me/model/model.safetensors on the Hub is not the right file: " in str(error) and "\n" not in str(error)
        else:
            assert set(found) == set(wanted)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Repo-Commit": "../../.."}, {"X-Repo-Commit": "a/b"}, {"X-Linked-Size": "-5"}, {"X-Linked-Size": "many"},
        {"X-Linked-Size": "9" * 400}, {"X-Linked-Size": "1e3"}, {"X-Linked-Etag": '"../../x"'}, {"X-Linked-Etag": '"a\\b"'},
    ],
)  # fmt: skip
def test_answers_that_no_hub_gives(served, small_files, headers):
    served.serve("me/model/a.safetensors", small_files[0])
    served.fault("HEAD", status=200, headers={"X-Repo-Commit": "abc", "X-Linked-Etag": '"abc"', "X-Linked-Size": "9"} | headers)
    with pytest.raises(hub.HubError, match="does not answer like the Hub"):
        hub.pull_file([hub.HubFile("me/model", "a.safetensors")])


def test_entries_that_are_no_file_are_refused():
    for wrong in ({"bundled": "../a"}, {"bundled": "/a"}, {"bundled": "a/b"}, {"bundled": "NUL"}, {}):
        with pytest.raises(ValueError, match="names neither a file beside the catalog nor a file on the Hub"):
            Entry("name", "encoder", **wrong)


# pictures


def written(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Small pictures of every format and mode that is read."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {f"PNG {mode}": written(colours.convert(mode), "PNG") for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")}
    found |= {f"JPEG {mode}": written(colours.convert(mode), "JPEG", exif=turned) for mode in ("RGB", "L", "CMYK")}
    found |= {"progressive": written(colours, "JPEG", progressive=True)}
    modes = ("RGB", "RGBA", "CMYK", "YCbCr", "I", "1")
    found |= {f"TIFF {mode}": written(colours.convert(mode), "TIFF") for mode in modes}
    found["TIFF F"] = written(Image.fromarray(np.random.default_rng(0).random((9, 7), dtype=np.float32)), "TIFF")
    found |= {kind: written(colours, "TIFF", compression=kind) for kind in ("tiff_deflate", "tiff_lzw", "packbits", "jpeg")}
    found |= {f"WEBP {lossless}": written(colours.convert("RGBA"), "WEBP", lossless=lossless) for lossless in (False, True)}
    found["WEBP frames"] = written(colours, "WEBP", save_all=True, append_images=[colours.rotate(180)])
    found["GIF frames"] = written(colours.quantize(9), "GIF", save_all=True, append_images=[colours.rotate(180).quantize(9)])
    found |= {kind: written(colours, kind) for kind in ("BMP", "PPM")}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return found | {"profile": written(colours, "PNG", icc_profile=profile), "mask": written(colours.convert("L"), "PNG")}


PICTURES = pictures()


def with_checksums(content: bytes) -> bytes:
    """A PNG whose checksums are right, so that what is wrong is read."""
    if content[:4] != b"\x89PNG":
        return content
    whole, at = content[:8], 8
    while at + 8 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        body = content[at + 4 : at + 8 + length]
        whole += content[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return whole


@pytest.fixture(scope="module")
def few_pixels() -> Iterator[None]:
    before = pixel_limit()
    limit_pixels(PIXELS)
    yield
    limit_pixels(before)


@settings(max_examples=70)
@given(data=st.data())
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("ignore")
def test_pictures_with_other_bytes(folder, few_pixels, name, data):
    content = data.draw(other_bytes(PICTURES[name], head=120))
    path = folder / "picture.png"
    image = read_or_refuse(load_image, path, with_checksums(content) if data.draw(st.booleans()) else content)
    if image is not None:
        assert image.ndim == 4 and image.shape[1] in (3, 4) and image.shape[2] * image.shape[3] <= PIXELS
        assert image.min() >= 0 and image.max() <= 1
        assert load_mask(path).shape == image.shape[2:]
    needs_streaming(path)
    read_or_refuse(lambda path: decode(path, 8), path)


@settings(max_examples=20)
@given(data=st.data())
@pytest.mark.parametrize("name", ["PNG RGB", "JPEG RGB", "TIFF RGB", "tiff_deflate", "WEBP True", "GIF frames"])
def test_large_pictures_with_other_bytes(folder, name, data):
    pytest.importorskip("pyvips")
    content = with_checksums(data.draw(other_bytes(PICTURES[name], head=120)))
    read_or_refuse(lambda path: check_large(path, folder / "out.png", max_pixels=PIXELS), folder / "picture.png", content)


@pytest.fixture(scope="module")
def videos(folder) -> dict[str, bytes]:
    clips = pytest.importorskip("clips")
    return {ending: clips.write_clip(folder / f"a{ending}", clips.noise(4, 16, 16)).read_bytes() for ending in (".mp4", ".mkv")}


@settings(max_examples=150)
@given(data=st.data())
@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
def test_videos_with_other_bytes(folder, videos, ending, data):
    content = videos[ending]
    if ending == ".mp4" and data.draw(st.booleans()):  # its tables are at the end
        content = content[:-1500] + data.draw(other_bytes(content[-1500:]))
    else:
        content = data.draw(other_bytes(content, head=600))
    read_or_refuse(lambda path: list(itertools.islice(Video(path).frames(), 20)), folder / f"video{ending}", content)


def test_a_video_whose_title_is_in_another_encoding_is_read(folder, videos):
    av = pytest.importorskip("av")
    with av.open(str(folder / "a.mp4")) as source, av.open(str(folder / "titled.mp4"), "w") as target:
        target.metadata["title"] = "Welle XX"
        stream = target.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (folder / "titled.mp4").read_bytes()
    (folder / "titled.mp4").write_bytes(content.replace(b"Welle XX", b"W\xe4lle XX"))
    assert len(list(Video(folder / "titled.mp4").frames())) == 4


def test_safetensors_are_read_in_little_memory(folder):
    """A file that says it has a terabyte."""
    header = {"a": {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}}
    assert read_or_refuse(read_safetensors, folder / "lies.safetensors", packed(header, bytes(64))) is None
    for length in (1 << 23, 1 << 40, (1 << 64) - 1):
        lies = struct.pack("<Q", length) + b"{}"
        assert read_or_refuse(read_safetensors, folder / "lies.safetensors", lies) is None
    long = packed({"__metadata__": {"name": "a" * (1 << 23)}}, b"")
    assert read_or_refuse(read_safetensors, folder / "long.safetensors", long) is None


def test_the_untouched_ones_are_read(folder, network, style, encoder, few_pixels):
    """Or all of this would test nothing."""
    assert read_or_refuse(read_network, folder / "network.safetensors", network)
    (folder / "style.safetensors").write_bytes(style)
    usable(folder / "style.safetensors", encoder)
    for content in PICTURES.values():
        assert read_or_refuse(load_image, folder / "picture.png", content).shape[2:] in ((9, 7), (7, 9))
