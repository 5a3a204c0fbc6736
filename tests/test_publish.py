from __future__ import annotations

import base64
import dataclasses
import json

import pytest

from adain_core import load_decoder, load_encoder
from adain_core.cli import main
from adain_core.weights import read_network, write_network


@pytest.fixture
def mine(served, small_files, tmp_path, monkeypatch) -> str:
    """The name of own networks in a folder to stand in."""
    monkeypatch.chdir(tmp_path)
    for path in small_files:
        network = dataclasses.replace(read_network(path), licence="CC-BY-4.0", recipe={"steps": 7})
        write_network(network, tmp_path / path.name.replace("small", "mine"))
    return "mine"


def uploaded(served) -> dict[str, bytes]:
    (commit,) = served.commits
    operations = [json.loads(line) for line in commit.splitlines()]
    files = [operation["value"] for operation in operations if operation["key"] == "file"]
    return {file["path"]: base64.b64decode(file["content"]) for file in files}


def test_a_dry_run_prints_what_would_go_and_sends_nothing(served, mine, capsys):
    assert main(["publish", mine, "--repo", "me/model", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "to me/model" in shown and "mine-encoder.safetensors" in shown and "mine-decoder.safetensors" in shown
    assert "license: cc-by-4.0" in shown and "--encoder hf:me/model/mine-encoder.safetensors" in shown and '"steps": 7' in shown
    assert not served.requests


@pytest.mark.parametrize(("role", "other"), [("decoder", "encoder"), ("encoder", "decoder")])
def test_the_card_of_one_network_names_the_other(mine, capsys, role, other):
    assert main(["publish", f"mine-{role}.safetensors", "--repo", "me/model", "--dry-run"]) == 0
    assert f"-o result.png --{role} hf:me/model/mine-{role}.safetensors --{other} FILE\n" in capsys.readouterr().out


def test_what_is_published_can_be_pulled(served, mine, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert main(["publish", mine, "--repo", "me/model"]) == 0
    assert "/commit" in capsys.readouterr().out
    files = uploaded(served)
    assert set(files) == {"mine-encoder.safetensors", "mine-decoder.safetensors", "README.md"}
    assert files["README.md"].startswith(b"---\n") and b"\nlicense: cc-by-4.0\n" in files["README.md"]
    for name in ("mine-encoder.safetensors", "mine-decoder.safetensors"):
        (tmp_path / f"served-{name}").write_bytes(files[name])
        served.serve(f"me/model/{name}", tmp_path / f"served-{name}")
    encoder = load_encoder("hf:me/model/mine-encoder.safetensors")
    decoder = load_decoder("hf:me/model/mine-decoder.safetensors")
    assert decoder.encoder_fingerprint == encoder.fingerprint == load_encoder(mine).fingerprint


def test_a_card_that_is_there_is_kept(served, mine, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "README.md").write_text("mine")
    served.serve("me/model/README.md", tmp_path / "README.md", lfs=False)
    assert main(["publish", "mine-decoder.safetensors", "--repo", "me/model"]) == 0
    assert set(uploaded(served)) == {"mine-decoder.safetensors"}


@pytest.mark.parametrize(
    ("networks", "repo", "reason"),
    [
        (["none"], "me/model", "there is no file none"),
        (["public.pth"], "me/model", "make one with adain convert"),
        (["bare.safetensors"], "me/model", "does not say its licence"),
        (["mine"], "model", "write owner/repository"),
        (["mine"], "me/model", "HF_TOKEN"),
    ],
)
def test_what_cannot_be_published_is_one_line(served, mine, small_files, tmp_path, capsys, networks, repo, reason):
    (tmp_path / "public.pth").touch()
    (tmp_path / "bare.safetensors").write_bytes(small_files[0].read_bytes())
    served.fault("POST /api/repos/create", status=401)
    assert main(["publish", *networks, "--repo", repo]) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1
    assert not served.commits
