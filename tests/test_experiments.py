import json
import math

import pytest
import torch
from PIL import Image

from adain_core.cli import main, measurements
from adain_core.evaluation.losses import Losses
from adain_core.experiments import ablation, comparison
from adain_core.experiments.normalization import equalized
from adain_core.networks import fast
from adain_core.networks.vgg import VGGDecoder
from adain_core.normalization import InstanceNorm2d


def only(tables):
    (table,) = tables.values()
    return table


def test_the_comparison_places_every_method_on_the_curve(measure, capsys):
    arguments = ["--iterations", 6, "--training-steps", 3, "--crop-size", 16, "--batch-size", 2, "--content-count", 1]
    status, found, figure = measure("comparison", *arguments)
    assert status == 0 and figure.size[0] > 500
    table = only(found["tables"])
    shown = capsys.readouterr().out
    for name in ("the untouched content", "small", "Style-Swap", "one style, instance normalization",
                 "one style, batch normalization", "optimisation, 6 iterations"):  # fmt: skip
        row = table[name]
        assert name in shown and all(math.isfinite(row[part]) for part in ("content loss", "style loss"))
        assert row["content + 10 style"] == pytest.approx(row["content loss"] + 10 * row["style loss"])
    curve = found["curves"]["optimisation"]
    assert len(curve["style"]) == 7 and table["the untouched content"]["as iteration, sum"] == 0
    assert curve["style"][0] == pytest.approx(table["the untouched content"]["style loss"], rel=1e-4)
    assert measure("comparison", *arguments, file="again")[1] == found


def test_a_method_is_as_good_as_the_first_iteration_that_is_as_low():
    curve = [Losses(1.0, style) for style in (9.0, 5.0, 3.0, 2.0)]
    assert comparison.reached(curve, lambda each: each.style <= 3.5) == 2
    assert comparison.reached(curve, lambda each: each.style <= 1.0) is None


def test_the_ablation_trains_four_variants_and_judges_their_order(measure, small_files, tmp_path):
    arguments = ["--steps", 3, "--batch-size", 2, "--encoder", small_files[0], "--size", 16, "--learning-rate", 0.01]
    status, found, _ = measure("ablation", *arguments, "--folder", tmp_path / "kept", models=False)
    assert status == 0
    names = ["Enc-AdaIN-Dec", "Enc-Concat-Dec", "Enc-AdaIN-BNDec", "Enc-AdaIN-INDec"]
    assert list(found["curves"]) == names == list(only(found["tables"]))
    assert all(len(curve["content"]) == len(curve["style"]) == 3 for curve in found["curves"].values())
    assert len({curve["style"][0] for curve in found["curves"].values()}) == 4
    assert len(found["findings"]) == 8 and found["findings"][-1].startswith("the paper's order")
    for name in names:
        Image.open(tmp_path / "kept" / name / "samples.png").load()
    anew = measure("ablation", *arguments, models=False, file="anew")[1]
    assert anew["curves"] == found["curves"] and anew["findings"] == found["findings"]
    longer = ["--steps", 4, *arguments[2:], "--folder", tmp_path / "kept"]
    went_on = measure("ablation", *longer, models=False, file="longer")[1]
    assert all(went_on["curves"][name]["style"][:3] == found["curves"][name]["style"] for name in names)


def test_the_ablation_takes_the_papers_encoder(measure):
    arguments = ["--steps", 1, "--batch-size", 2, "--encoder", "", "--size", 16]
    status, found, _ = measure("ablation", *arguments, models=False)
    assert status == 0 and found["networks"]["encoder"] == found["networks"]["loss network"]


def test_the_verdict_says_which_claims_hold():
    means = {ablation.PLAIN: Losses(1, 1), ablation.CONCAT: Losses(5, 1), ablation.BATCH: Losses(2, 2)}
    holds = ablation.verdict(means | {ablation.INSTANCE: Losses(3, 3)})
    assert all(line.startswith("yes") for line in holds[:-1]) and holds[-1] == "the paper's order came out"
    fails = ablation.verdict(means | {ablation.INSTANCE: Losses(3, 1.5)})
    assert [line for line in fails if line.startswith("no")] == ["no: the IN decoder is above the BN decoder in style loss"]
    assert fails[-1] == "the paper's order did not come out"


def test_the_concatenating_decoder_takes_twice_the_channels(small):
    encoder, decoder = small
    decoder.plain = True
    concat = ablation.ConcatDecoder(decoder).to(next(decoder.parameters()).device)
    features = encoder.encode(torch.rand(1, 3, 16, 16).to(next(encoder.parameters())))
    assert concat([torch.cat([x, x], 1) for x in features]).shape == (1, 3, 16, 16)
    with pytest.raises(RuntimeError):
        concat(features)


def test_a_normalised_decoder_sees_the_whole_picture(monkeypatch):
    """A decoder for use works in bands of rows, whose statistics would differ."""
    decoder = VGGDecoder({})
    decoder.initialize(0)
    decoder = ablation.normalized(decoder, InstanceNorm2d, "instance normalization")
    monkeypatch.setattr(fast, "BAND", 1)
    monkeypatch.setattr(fast, "BAND_ROWS", 16)
    features = [torch.rand(1, 512, 8, 3)]
    wanted = decoder(features).detach()
    with torch.no_grad():
        torch.testing.assert_close(decoder(features), wanted)


def test_controls_are_pictures_and_numbers(measure):
    status, found, figure = measure("controls")
    tables = found["tables"]
    assert status == 0 and figure.size[0] >= 7 * 32 and figure.size[1] >= 8 * 32
    strength = [row["distance to the content"] for row in tables["content-style trade-off"].values()]
    assert len(set(strength)) == 5
    colours = {name: row["colour difference"] for name, row in tables["colour control"].items()}
    assert colours["colours kept"] < colours["style's colours"]
    left, right = (list(tables["spatial control"][f"{side} half"].values()) for side in ("left", "right"))
    assert left[0] < left[1] and right[1] < right[0]
    assert len(tables["interpolation"]) == 3


def test_the_four_normalizations_on_one_task(measure):
    arguments = ["--training-steps", 3, "--crop-size", 16, "--batch-size", 2, "--content-count", 2]
    status, found, _ = measure("normalization", *arguments)
    assert status == 0 and len(found["curves"]) == 6
    abilities = found["tables"]["2 contents, 32x32"]
    assert [row["styles"] for row in abilities.values()] == ["1", "1", "2", "any"]
    numbers = [row["learned for each"] for row in abilities.values()]
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3] == "0 numbers"
    assert [row["style loss, unseen style"] is None for row in abilities.values()] == [True, True, True, False]
    changes = {name: row["change at half contrast"] for name, row in abilities.items()}
    assert changes["instance"] < 1e-3 < changes["batch"] and changes["conditional instance"] < 1e-3


def test_equalized_pictures_have_the_same_contrast():
    picture = torch.rand(1, 64, 64).expand(3, -1, -1)
    dim = equalized(0.4 + 0.2 * picture)
    torch.testing.assert_close(dim.std(), equalized(picture).std(), rtol=0.1, atol=0)
    assert 0 <= dim.min() and dim.max() <= 1


def test_speeds_stand_with_and_without_the_style(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert main(["evaluate", "speed", "--sizes", "32", "48", "--runs", "1", "--device", "cpu", "-o", str(out)]) == 0
    table = json.loads(out.read_text())["tables"]["seconds a picture"]
    assert "vgg19, float32" in table and "lite, float32" in table and "vgg19, float32" in capsys.readouterr().out
    for name, row in table.items():
        for size in (32, 48):
            known, encoded = (row[f"{size}, style {state}"] for state in ("known", "encoded"))
            assert known > 0 and (encoded is None or encoded > known), name
    Image.open(out.with_suffix(".png")).load()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["comparison", "--size", "8"], "size is 8"),
        (["comparison", "--iterations", "0"], "iterations is 0"),
        (["comparison", "--model", "a", "b", "c"], "not a b c"),
        (["controls", "--styles", "CONTENTS"], "interpolation needs 4"),
        (["comparison", "--loss-encoder", "lite"], "give a VGG-19"),
        (["ablation", "--contents", "nowhere"], "nowhere"),
    ],
)
def test_errors_are_one_line(measure, picture_folders, capsys, arguments, reason):
    name, *more = [str(picture_folders / "contents") if argument == "CONTENTS" else argument for argument in arguments]
    assert measure(name, *more, models=name != "ablation")[0] == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1


def test_curves_without_matplotlib_stop_before_the_work(measure, capsys, monkeypatch):
    monkeypatch.setattr(measurements.importlib.util, "find_spec", lambda name: None)
    assert measure("comparison", "--contents", "nowhere")[0] == 2
    assert "pip install '.[evaluate]'" in capsys.readouterr().err
