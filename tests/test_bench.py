import json

import pytest
import torch

from adain_core.cli import main
from adain_core.evaluation import check, pipelines, plain
from adain_core.weights import load_encoder

PIPELINES = [("plain vgg19", "float32"), ("vgg19", "float32"), ("lite", "float32"), ("vgg19", "bfloat16"), ("lite", "bfloat16")]


def bench(device, *arguments: object) -> int:
    return main(["bench", "--runs", "1", "--device", device, *map(str, arguments)])


def test_table_and_json_hold_every_row(tmp_path, device, capsys):
    arguments = ["--sizes", 64, 44, "--dtypes", "float32", "bfloat16", "-o", tmp_path / "speed.json"]
    assert bench(device, *arguments) == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    rows = found["rows"]
    assert [(row["size"], row["pipeline"], row["dtype"]) for row in rows] == [(s, *p) for s in (64, 44) for p in PIPELINES]
    for row in rows:
        assert list(row["seconds"]) == ["style", "encode", "transfer", "decode", "whole"] and min(row["seconds"].values()) > 0
        plain_row = next(r for r in rows if r["pipeline"] == "plain vgg19" and r["size"] == row["size"])
        assert row["speedup"] == pytest.approx(plain_row["seconds"]["whole"] / row["seconds"]["whole"])
        assert row["memory"] >= 0 and row["multiply_adds"] > 0
        assert (row["error"] is None) == (row["pipeline"] != "vgg19")
        assert row["error"] is None or row["error"] < (1e-4 if row["dtype"] == "float32" else 0.05)
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["multiply_adds"] > 0
    table = capsys.readouterr().out
    assert "64x64" in table and "44x44" in table
    assert [(line[2:14].rstrip(), line[14:24].rstrip()) for line in table.splitlines() if line[:2] == "  "] == 2 * PIPELINES


def test_a_training_step_is_the_plain_one(tmp_path, device, monkeypatch, capsys):
    monkeypatch.setattr(pipelines, "BATCH_SIZE", 2)
    monkeypatch.setattr(pipelines, "CROP_SIZE", 32)
    assert bench(device, "--sizes", 32, "--dtypes", "float32", "--training", "-o", tmp_path / "speed.json") == 0
    steps = [row for row in json.loads((tmp_path / "speed.json").read_text())["rows"] if "step" in row["seconds"]]
    # the third only where the machine multiplies it fast
    assert [(row["pipeline"], row["dtype"]) for row in steps] == [row for row in PIPELINES if row[0] != "lite"][: len(steps)]
    assert steps[1]["error"] < 1e-4
    assert "step" in capsys.readouterr().out


def test_the_encoders_work_is_that_of_its_convolutions():
    positions = {64: 64**2, 128: 32**2, 256: 16**2, 512: 8**2}
    layers = [(3, 64), (64, 64), (128, 128), (256, 256), (256, 256), (256, 256)]
    work = 9 * sum(a * b * positions[b] for a, b in [*layers, (64, 128), (128, 256), (256, 512)]) + 3 * 3 * 64**2
    assert pipelines.multiply_adds(plain.encoder(), 64) == work


def test_a_check_compares_the_device_with_the_cpu_and_goes_on_after_a_fault(device, monkeypatch, capsys):
    def broken(device):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(check, "_clip", broken)
    monkeypatch.setattr(check, "_training", lambda device: 0.5)
    monkeypatch.setattr(check, "SIZE", (73, 65))
    assert main(["bench", "--check", device, "--sizes", "32", "--runs", "1", "--dtypes", "float32"]) == 1
    report = capsys.readouterr().out
    lines = {line[8:68].rstrip(): line[:8].rstrip() for line in report.splitlines() if line[:8].rstrip() in ("ok", "FAILED")}
    assert {name for name, found in lines.items() if found == "FAILED"} == {"a clip", "a training"}
    assert {"texture", "lite: picture in torch.float32", "vgg19: tiles", "lite: masks in tiles"} <= lines.keys()
    assert "no kernel image is available" in report and torch.__version__ in report and "32x32" in report


def test_a_clip_and_a_training_are_checked(device, monkeypatch):
    monkeypatch.setattr(check, "STEPS", 1)
    monkeypatch.setattr(check, "FRAMES", 2)
    assert check._clip(torch.device(device)) <= check.SHADES
    assert check._training(torch.device(device)) <= check.LOSSES


def test_networks_of_a_name_are_measured(reference, device):
    encoder, decoder = (str(reference / f"{name}.safetensors") for name in ("vgg_normalised", "decoder"))
    assert pipelines.vgg_networks(encoder, decoder)[0].fingerprint == load_encoder(encoder).fingerprint
    assert bench(device, "--sizes", 64, "--dtypes", "float32", "--encoder", encoder, "--decoder", decoder) == 0


def test_pipelines_that_differ_are_not_compared(device, monkeypatch, capsys):
    monkeypatch.setattr(plain, "normalize_to", lambda x, mu, sigma: x)
    assert bench(device, "--sizes", 32, "--dtypes", "float32") == 2
    assert "another result" in (err := capsys.readouterr().err) and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--sizes", "8"], "16 pixels"),
        (["--runs", "0"], "1 run"),
        (["--device", "abacus"], "abacus"),
        (["--check", "abacus"], "abacus"),
        (["--encoder", "lite"], "give a VGG-19"),
        (["--decoder", "none.pth"], "none.pth"),
        (["-o", "none/speed.json"], "the folder none does not exist; create it first"),
    ],
)
def test_errors_are_one_line(capsys, arguments, reason):
    assert main(["bench", *arguments]) == 2
    assert reason in (err := capsys.readouterr().err) and err.count("\n") == 1
