from __future__ import annotations

import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hub_server import HUB
from safetensors.torch import save_file

from adain_core import legacy, load_decoder, load_encoder
from adain_core.catalog import BUNDLED, catalog, find_entry
from adain_core.cli import main
from adain_core.evaluation import plain
from adain_core.files import read_safetensors
from adain_core.hub import HubError, HubFile, pull_file
from adain_core.networks import ARCHITECTURES
from adain_core.progress import showing
from adain_core.weights import network_path, pull, read_network

NAME = "hf:me/model/vgg.pth"


def command(*arguments: str, home: Path, **environment: str) -> subprocess.Popen:
    """An `adain` process of its own, whose cache is `home`."""
    environment = {**os.environ, "HF_HOME": str(home), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "adain_core", *arguments], env=environment, **pipes)


@pytest.fixture(scope="session")
def public_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("public") / "vgg.pth"
    torch.manual_seed(6)
    torch.save(plain.encoder().state_dict(), path)
    return path


@pytest.fixture
def public(served, public_file) -> Path:
    """A public encoder of 14 MB, served under `NAME`."""
    served.serve("me/model/vgg.pth", public_file)
    return public_file


# the catalog


def test_every_entry_is_complete():
    for entry in catalog():
        assert entry.architecture in ARCHITECTURES
        assert bool(entry.bundled) != bool(entry.mirrors) and entry.licence and entry.about
        if entry.mirrors:
            assert entry.size > 1e6 and len(entry.sha256) == 64
            assert len(entry.mirrors) == 1 or len({mirror.repo for mirror in entry.mirrors}) == len(entry.mirrors)


def test_the_papers_encoder_is_the_one_that_public_decoders_read():
    entry = find_entry("vgg19", "encoder")
    assert entry.fingerprint == legacy.PAPER_ENCODER
    assert entry.sha256 == "804ca2835ecf7539f0cd2a7ac3c18ce81e6f8468969ae7117ac0c148d286bb4a"


def test_bundled_files_are_all_in_the_catalog():
    files = {path.name for path in BUNDLED.glob("*.safetensors")}
    assert files <= {entry.bundled for entry in catalog()}


def test_a_new_entry_needs_no_code(public, listed):
    listed({"name": "mine", "role": "encoder", "mirrors": [{"repo": "me/model", "file": "vgg.pth"}], "licence": "MIT"})
    encoder = load_encoder("mine")
    assert encoder.name == "mine" and read_network(find_entry("mine", "encoder").path).licence == "MIT"


def test_nothing_is_fetched_by_listing(served, monkeypatch, capsys, tmp_path):
    def refuse(*arguments):
        raise AssertionError("something was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["info"]) == 0
    shown = capsys.readouterr().out
    assert "to pull: 80.1 MB from Curise/FreestyleRet/vgg_normalised.pth or 6 other places" in shown
    assert "to pull: 14.0 MB from timm/vgg19.tv_in1k/model.safetensors" in shown
    assert "bundled" in shown and "no decoder of its own" in shown
    assert not (tmp_path / "hf").exists()


def test_what_is_bundled_works_without_a_line(small_files, listed, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("something was fetched")

    listed(*({"name": "small", "role": role, "bundled": f"small-{role}.safetensors"} for role in ("encoder", "decoder")))
    for file in small_files:
        shutil.copy(file, tmp_path / "weights")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert load_decoder("small").encoder_fingerprint == load_encoder("small").fingerprint


# one pull


def test_a_name_on_the_hub_is_pulled_and_converted_once(public, tmp_path, capsys):
    encoder = load_encoder(NAME)
    assert encoder.fingerprint == load_encoder(str(public)).fingerprint
    requests = len(HUB.requests)
    shutil.rmtree(tmp_path / "hf" / "hub")
    assert load_encoder(NAME).fingerprint == encoder.fingerprint and len(HUB.requests) == requests
    assert main(["pull", NAME]) == 0 and len(HUB.requests) == requests
    assert f"{NAME}: encoder, fingerprint {encoder.fingerprint[:12]}, {tmp_path / 'hf' / 'assets'}" in capsys.readouterr().out


def test_other_names_cannot_be_pulled(served, public, capsys):
    assert main(["pull", NAME, "vgg16"]) == 2
    err = capsys.readouterr().err
    assert "'vgg16' is not in the catalog; choose from lite, " in err and err.count("\n") == 1
    assert not served.requests


def test_a_changed_file_is_pulled_on_request(public, tmp_path):
    before = load_encoder(NAME).fingerprint
    torch.save(plain.encoder().state_dict(), tmp_path / "other.pth")
    HUB.serve("me/model/vgg.pth", tmp_path / "other.pth")
    assert load_encoder(NAME).fingerprint == before
    assert main(["pull", "--again", NAME]) == 0
    assert load_encoder(NAME).fingerprint == load_encoder(str(tmp_path / "other.pth")).fingerprint != before


def test_files_of_this_project_keep_their_precision_name_and_recipe(served, small_files):
    for file in small_files:
        served.serve(f"me/model/{file.name}", file)
    encoder = load_encoder("hf:me/model/small-encoder.safetensors")
    decoder = load_decoder("hf:me/model/small-decoder.safetensors")
    assert encoder.name == "small" and decoder.encoder_fingerprint == encoder.fingerprint


def test_roles_and_files_are_checked(served, public, tmp_path):
    with pytest.raises(ValueError, match="holds an encoder, not a decoder"):
        load_decoder(NAME)
    with pytest.raises(ValueError, match="is not a weight file; give a name that ends in .safetensors"):
        load_encoder("hf:me/model/picture.png")
    with pytest.raises(FileNotFoundError, match="no decoder 'vgg19-imagenet'.*has no decoder of its own"):
        load_decoder("vgg19-imagenet")
    save_file({"strange": torch.ones(3)}, tmp_path / "strange.safetensors")
    served.serve("me/model/strange.safetensors", tmp_path / "strange.safetensors")
    with pytest.raises(ValueError, match="layout of the weights is unknown"):
        load_encoder("hf:me/model/strange.safetensors")


def test_a_refused_file_does_not_stay_on_the_disk_unless_it_was_there(served, tmp_path):
    torch.save({"0.weight": torch.nn.Linear}, tmp_path / "code.pth")
    served.serve("me/model/code.pth", tmp_path / "code.pth")
    cache = tmp_path / "hf" / "hub"
    with pytest.raises(ValueError, match="^hf:me/model/code.pth is not a PyTorch weight file"):
        load_encoder("hf:me/model/code.pth")
    assert not list(cache.rglob("code.pth")) and not list(cache.rglob("blobs/*"))
    kept = pull_file([HubFile("me/model", "code.pth")])  # as another program may have
    with pytest.raises(ValueError, match="is not a PyTorch weight file"):
        load_encoder("hf:me/model/code.pth")
    assert kept.is_file()


def test_another_network_than_expected_is_refused(public, listed):
    entry = {"name": "mine", "role": "encoder", "mirrors": [{"repo": "me/model", "file": "vgg.pth"}]}
    listed(entry | {"fingerprint": "0" * 64})
    with pytest.raises(ValueError, match="the fingerprint of mine is not the expected one"):
        load_encoder("mine")
    assert not find_entry("mine", "encoder").path.exists()
    listed(entry | {"role": "decoder"})
    with pytest.raises(ValueError, match="mine holds an encoder, not a decoder"):
        load_decoder("mine")


def test_a_full_disk_is_said_in_one_sentence(public, monkeypatch, capsys):
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(path)._replace(free=1000))
    assert main(["pull", NAME]) == 2
    err = capsys.readouterr().err
    assert "is full; free some space, or set HF_HOME" in err and err.count("\n") == 1


@pytest.mark.parametrize("where", ["HEAD", "GET /me", "GET /cdn"])
@pytest.mark.parametrize("cut", [0, 1, 1_000_000, 14_000_000])
def test_a_network_survives_a_broken_line(public, where, cut):
    HUB.fault(where, times=2, drop=where != "GET /cdn", cut=cut)
    assert load_encoder(NAME).fingerprint == load_encoder(str(public)).fingerprint


# processes


def test_two_processes_pull_once(public, tmp_path):
    both = [command("pull", NAME, home=tmp_path / "hf") for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], [process.communicate() for process in both]
    assert HUB.sent == public.stat().st_size
    assert load_encoder(NAME).fingerprint == load_encoder(str(public)).fingerprint


def test_a_killed_process_leaves_nothing_wrong_and_the_next_goes_on(public, tmp_path):
    end = threading.Event()
    fault = HUB.fault("GET /cdn", times=1, cut=9_000_000, stall=end)
    process = command("pull", NAME, home=tmp_path / "hf")
    assert fault.stalled.wait(60)
    process.kill()
    process.communicate()
    end.set()
    assert not list(tmp_path.glob("hf/assets/**/*.safetensors"))
    (half,) = tmp_path.glob("hf/hub/**/*.incomplete")
    assert (there := half.stat().st_size) > 1_000_000
    before = HUB.sent
    assert load_encoder(NAME).fingerprint == load_encoder(str(public)).fingerprint
    assert HUB.sent - before == public.stat().st_size - there


def test_offline_names_say_what_is_missing_and_how_to_get_it(public, tmp_path):
    process = command("pull", "vgg19", home=tmp_path / "hf", HF_HUB_OFFLINE="1")
    _, err = process.communicate()
    assert process.returncode == 2 and err.count("\n") == 1
    assert "vgg19 cannot be pulled: it is not on this machine" in err and "HF_HUB_OFFLINE" in err
    assert f"copy the file that it makes into {tmp_path / 'hf' / 'assets' / 'adain'}" in err
    # which helps
    made = pull(find_entry(NAME, ""))
    (tmp_path / "here" / "assets" / "adain").mkdir(parents=True)
    shutil.copy(made, tmp_path / "here" / "assets" / "adain")
    process = command("pull", NAME, home=tmp_path / "here", HF_HUB_OFFLINE="1")
    out, _ = process.communicate()
    assert process.returncode == 0 and "fingerprint" in out


# the two networks of the catalog that are on the Hub: docs/design.md, section 5


def timm_file(path: Path) -> dict[str, torch.Tensor]:
    """A sparse file with the layout of timm's VGG-19, 575 MB; its tensors up to conv4_1 are random and returned."""
    widths = [64, 64, 128, 128, 256, 256, 256, 256, *[512] * 8]
    layers = zip((0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), [3, *widths], widths, strict=False)
    shapes = {f"features.{layer}": (after, before, 3, 3) for layer, before, after in layers}
    shapes |= {"pre_logits.fc1": (4096, 512, 7, 7), "pre_logits.fc2": (4096, 4096, 1, 1), "head.fc": (1000, 4096)}
    shapes = {f"{name}.weight": shape for name, shape in shapes.items()} | {f"{n}.bias": s[:1] for n, s in shapes.items()}
    header, end = {}, 0
    for name in sorted(shapes):
        offsets = [end, end := end + 4 * math.prod(shapes[name])]
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": offsets}
    assert end == 4 * 143_667_240
    start = json.dumps(header).encode()
    tensors = {}
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(start)) + start)
        file.truncate(8 + len(start) + end)
        for name in shapes:
            if name.startswith("features.") and int(name.split(".")[1]) <= 19:
                tensors[name] = torch.randn(shapes[name])
                file.seek(8 + len(start) + header[name]["data_offsets"][0])
                file.write(tensors[name].numpy().tobytes())
    return tensors


def test_imagenets_vgg_moves_14_of_575_mb_and_is_the_same_bit_for_bit(served, tmp_path):
    tensors = timm_file(tmp_path / "model.safetensors")
    entry = find_entry("vgg19-imagenet", "encoder")
    served.serve("timm/vgg19.tv_in1k/model.safetensors", tmp_path / "model.safetensors", etag=entry.sha256)
    process = command("pull", "vgg19-imagenet", home=tmp_path / "hf")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert served.sent < 14.1e6
    state = read_safetensors(entry.path)[0]
    for ours, theirs in entry.tensors.items():
        assert all(state[f"{ours}.{part}"].equal(tensors[f"{theirs}.{part}"]) for part in ("weight", "bias"))
    # its pictures are normalised as torchvision's are
    picture = torch.rand(1, 3, 9, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (picture - mean[:, None, None]) / std[:, None, None]
    padded = torch.nn.functional.pad(normalised, (1, 1, 1, 1), mode="reflect")
    expected = torch.conv2d(padded, tensors["features.0.weight"], tensors["features.0.bias"]).relu()
    found = load_encoder("vgg19-imagenet", dtype="float32").features(picture, ["relu1_1"])[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_imagenets_vgg_is_refused_where_the_hub_states_another_file(served, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    served.serve("timm/vgg19.tv_in1k/model.safetensors", tmp_path / "model.safetensors", etag="0" * 64)
    process = command("pull", "vgg19-imagenet", home=tmp_path / "hf")
    assert "the SHA-256 that the Hub states is not the one in the catalog" in process.communicate()[1]
    assert process.returncode == 2


def test_imagenets_vgg_from_a_server_without_ranges_is_checked_whole(served, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(1_000_000))
    served.serve("timm/vgg19.tv_in1k/model.safetensors", tmp_path / "model.safetensors", etag="unknown")
    served.fault("GET", no_ranges=True)
    with pytest.raises(HubError, match="vgg19-imagenet cannot be pulled: .* its SHA-256 is not the expected one"):
        load_encoder("vgg19-imagenet")


@pytest.fixture
def papers_file(reference, served, tmp_path, listed) -> Path:
    """The paper's encoder as it is passed around, whose kernels here are those of the reference."""
    state = {name: t.float() for name, t in read_safetensors(reference / "vgg_normalised.safetensors")[0].items()}
    path = tmp_path / "vgg_normalised.pth"
    torch.save(state, path)
    entry = next(e for e in json.loads((BUNDLED / "catalog.json").read_text()) if e.get("fingerprint") == legacy.PAPER_ENCODER)
    listed(entry | {"sha256": served.serve("datasets/HanzhouLiu/Stylos/checkpoints/vgg_normalised.pth", path).etag})
    return path


def test_the_papers_encoder_comes_from_the_first_place_that_has_it(papers_file, reference):
    encoder = load_encoder("vgg19")
    assert encoder.name == "vgg19" and encoder.fingerprint == legacy.PAPER_ENCODER
    decoder = load_decoder(str(reference / "decoder.safetensors"))
    assert decoder.encoder_fingerprint == encoder.fingerprint


@pytest.mark.parametrize("share", [0, 0.3, 0.99999])
def test_a_changed_byte_in_the_papers_encoder_is_refused(papers_file, share):
    at = int(share * papers_file.stat().st_size)
    content = bytearray(papers_file.read_bytes())
    content[at] ^= 1
    papers_file.write_bytes(content)
    with pytest.raises(HubError, match="vgg19 cannot be pulled: all of its 7 places failed"):
        load_encoder("vgg19")
    assert not find_entry("vgg19", "encoder").path.exists()
    content[at] ^= 1
    papers_file.write_bytes(content)
    assert load_encoder("vgg19").fingerprint == legacy.PAPER_ENCODER


def test_progress_is_told_and_a_stop_is_heard(public):
    class Stopped(Exception):
        pass

    seen = []

    def stop(done, total, _):
        seen.append((done, total))
        if done > total // 2:
            raise Stopped

    with pytest.raises(Stopped), showing(stop):
        network_path(NAME, "encoder")
    assert seen[-1][1] == public.stat().st_size
    assert pull(find_entry(NAME, "")).is_file()


def test_loading_does_not_mix_the_bytes_of_its_pull_with_what_else_is_counted(public):
    seen = []
    with showing(lambda *told: seen.append(told)):
        load_encoder(NAME)
    assert set(seen) == {(0, 1, None)}
