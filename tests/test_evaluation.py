import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from root import ROOT

from adain_core import EvaluationConfig, channel_statistics, encode_style, evaluate, load_decoder, load_encoder, stylize
from adain_core.cli import main
from adain_core.evaluation import boil, layer_features, pair_losses
from adain_core.evaluation.boil import Pan, Zoom
from adain_core.evaluation.report import draw_pairs, square
from adain_core.images import load_image, save_image
from adain_core.progress import showing
from adain_core.weights import read_network, write_network

EPS = 1e-5


@pytest.fixture
def config(tmp_path, vgg, small_files):
    """Two contents and two styles, one content in a sub-folder and with transparency."""
    shapes = {"c/a.png": (3, 20, 30), "c/sub/b.png": (4, 24, 18), "s/x.png": (3, 17, 17), "s/y.png": (3, 9, 40)}
    for name, shape in shapes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_image(torch.rand(shape), tmp_path / name)
    files = {"loss_encoder": str(vgg), "encoder": str(small_files[0]), "decoder": str(small_files[1])}
    measured = {"size": 16, "boil_pairs": 0, "flat_pairs": 0, "device": "cpu"}
    return {"contents": tmp_path / "c", "styles": tmp_path / "s"} | measured | files


def stripes(low, high):
    return torch.tensor([low, high]).repeat(4).expand(1, 3, 8, 8)


def test_losses_of_stripes(identity, device):
    content, style = layer_features(identity, stripes(0.2, 0.4)), layer_features(identity, stripes(0.3, 0.9))
    result = layer_features(identity, torch.full((1, 3, 8, 8), 0.5))
    losses = pair_losses(result, content, [channel_statistics(style[0])])
    assert result[0].device.type == device
    # the target is the style's stripes: 0.2 below and 0.4 above the result, whose mean is 0.1 off and whose sigma is sqrt(eps)
    assert losses.content == pytest.approx((0.2**2 + 0.4**2) / 2, rel=1e-3)
    assert losses.style == pytest.approx(0.1**2 + (math.sqrt(0.3**2 + EPS) - math.sqrt(EPS)) ** 2, rel=1e-4)


def test_more_noise_more_loss(identity):
    content, style = stripes(0.2, 0.4).to(identity.anchor), stripes(0.3, 0.9).to(identity.anchor)
    noise = torch.randn_like(style)
    found = [pair_losses([style + k * noise], [content], [channel_statistics(style)]) for k in (0.0, 0.1, 0.3)]
    assert found[0].content == pytest.approx(0, abs=1e-7) and found[0].style == pytest.approx(0, abs=1e-7)
    assert found[0].content < found[1].content < found[2].content
    assert found[0].style < found[1].style < found[2].style


def test_noise_in_the_reference_decoder_is_told(reference):
    encoder = load_encoder(str(reference / "vgg_normalised.safetensors"), dtype="float32")
    decoder = load_decoder(str(reference / "decoder.safetensors"), dtype="float32")
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 8, 8), 64, mode="bicubic").clamp(0, 1)
    content, style = layer_features(encoder, smooth[:1]), [channel_statistics(x) for x in layer_features(encoder, smooth[1:])]

    def losses():
        picture = stylize(encoder, decoder, smooth[:1], encode_style(encoder, smooth[1:], 0))
        return pair_losses(layer_features(encoder, picture), content, style)

    good = losses()
    for parameter in decoder.parameters():
        parameter += parameter.std() * torch.randn_like(parameter)
    bad = losses()
    assert good.content < bad.content and good.style < bad.style


@pytest.mark.parametrize("step", [8, 3])
def test_what_moves_with_the_picture_does_not_boil(step):
    still = torch.rand(1, 3, 256 + 7 * step, 300 + 7 * step)
    assert boil(lambda clip: 1 - clip, still, Pan(step)) == 0


def test_what_grows_with_the_picture_does_not_boil():
    ramp = torch.linspace(0.1, 0.9, 300).expand(1, 3, 300, 300)
    assert boil(lambda clip: 1 - clip, (ramp + ramp.mT) / 2, Zoom(1.02)) < 1e-4
    frames = Zoom(1.5).clip(torch.linspace(0, 1, 144).expand(1, 3, 144, 144), 3, 64)
    assert frames.shape == (3, 3, 64, 64)
    slopes = frames[:, 0, 0, -4] - frames[:, 0, 0, 3]
    torch.testing.assert_close(slopes, 57 / 143 * torch.tensor([1.5**2, 1.5, 1]), rtol=0.01, atol=0)  # bicubic


@pytest.mark.parametrize("step", [8, 3])
def test_what_stays_on_the_screen_boils(step):
    ramp = torch.arange(256) * 0.001
    assert boil(lambda clip: clip + ramp, torch.rand(1, 3, 400, 400), Pan(step)) == pytest.approx(0.001 * step, rel=1e-3)


def test_what_stays_on_the_screen_boils_in_a_zoom():
    distance = (torch.arange(256) - 127.5).abs() * 0.001
    still = torch.full((1, 3, 400, 400), 0.5)
    # a position at distance d from the middle was at d / 1.02; frames are compared up to a distance of 80 pixels
    expected = 0.001 * 40 * (1 - 1 / 1.02)
    assert boil(lambda clip: clip + distance, still, Zoom(1.02)) == pytest.approx(expected, rel=0.02)


def test_statistics_that_change_with_the_window_boil():
    still = (torch.arange(160 + 3 * 2) * 0.01).expand(1, 3, 166, 166)
    found = boil(lambda clip: clip - clip.mean((1, 2, 3), keepdim=True), still, Pan(2), frames=4, size=160)
    assert found == pytest.approx(0.02, rel=1e-3)


def test_the_border_does_not_count():
    def framed(clip):
        clip = clip.clone()
        clip[:, :, 48:-48, 48:-48] = 0
        return clip

    for motion in (Pan(3), Zoom(1.1)):
        assert boil(framed, torch.rand(1, 3, 180, 180), motion, frames=2, size=160) == 0


@pytest.mark.parametrize(("frames", "motion", "size"), [
    (1, Pan(3), 128), (8, Pan(0), 128), (8, Pan(32), 128), (8, Pan(3), 96), (8, Zoom(1.0), 128), (8, Zoom(1.1), 96),
])  # fmt: skip
def test_frames_without_overlap_are_refused(frames, motion, size):
    with pytest.raises(ValueError, match="overlap"):
        boil(lambda clip: clip, torch.rand(1, 3, 64, 64), motion, frames, size)


def test_a_square_is_the_centre():
    assert torch.equal(square(torch.arange(5.0).expand(1, 3, 3, 5), 3)[0, 0, 0], torch.tensor([1.0, 2, 3]))


def test_pairs_are_all_or_drawn_under_the_seed():
    contents, styles = list("abc"), list("xyzw")
    everything = [(c, s) for c in contents for s in styles]
    assert draw_pairs(contents, styles) == draw_pairs(contents, styles, 12) == draw_pairs(contents, styles, 99) == everything
    drawn = draw_pairs(contents, styles, 5, seed=1)
    assert len(set(drawn)) == 5 and drawn == [pair for pair in everything if pair in drawn]
    assert drawn == draw_pairs(contents, styles, 5, seed=1) != draw_pairs(contents, styles, 5, seed=2)


def test_a_report_agrees_with_the_library(config):
    steps = []
    with showing(lambda done, total, _: steps.append((done, total))):
        report = evaluate(EvaluationConfig(**config))
    assert list(dict.fromkeys(steps)) == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)] and steps == sorted(steps)
    assert [(p.content, p.style) for p in report.pairs] == [(c, s) for c in ("a.png", "sub/b.png") for s in ("x.png", "y.png")]
    assert (report.encoder, report.decoder, report.loss_encoder) == ("small", "small", "judge")
    assert report.loss_encoder_fingerprint == read_network(config["loss_encoder"]).encoder_fingerprint
    assert report.boil == {} and report.skipped == ()

    judge, encoder = (load_encoder(config[role], dtype="float32") for role in ("loss_encoder", "encoder"))
    content = load_image(config["contents"] / "sub" / "b.png")
    content = square(content[:, :3] * content[:, 3:] + 1 - content[:, 3:], 16)
    style = square(load_image(config["styles"] / "x.png"), 16)
    result = stylize(encoder, load_decoder(config["decoder"], dtype="float32"), content, encode_style(encoder, style, 0))
    features, wanted = layer_features(judge, content), [channel_statistics(x) for x in layer_features(judge, style)]
    model, untouched = (vars(pair_losses(x, features, wanted)) for x in (layer_features(judge, result), features))
    assert vars(report.pairs[2].model) == pytest.approx(model, rel=1e-4)
    assert vars(report.pairs[2].untouched) == pytest.approx(untouched, rel=1e-4)
    assert report.model.style == pytest.approx(sum(p.model.style for p in report.pairs) / 4)
    assert report.untouched.content == pytest.approx(sum(p.untouched.content for p in report.pairs) / 4)


def test_the_boil_is_measured_on_some_pairs(config):
    report = evaluate(EvaluationConfig(**config | {"pairs": 2, "boil_pairs": 1, "half_life": 2.0}))
    (found,) = report.boils
    encoder, decoder = load_encoder(config["encoder"], dtype="float32"), load_decoder(config["decoder"], dtype="float32")
    style = encode_style(encoder, square(load_image(config["styles"] / found.style), 16), 0)
    still = load_image(config["contents"] / found.content)
    still = still[:, :3] * still[:, 3:] + 1 - still[:, 3:] if still.shape[1] == 4 else still
    for mode in ("image", "running"):
        options = {"content_statistics": mode, "half_life": 2.0, "texture": 0.0}
        wanted = boil(lambda clip, options=options: stylize(encoder, decoder, clip, style, **options), still, Pan(3))
        motion = "pan, 3 pixels a frame"
        assert report.boil[motion][mode] == found.boil[motion][mode] == pytest.approx(wanted, rel=1e-4) and wanted > 0
    assert report.boil.keys() == {"pan, 8 pixels a frame", "pan, 3 pixels a frame", "zoom, 1% a frame"}
    assert all(values.keys() == {"image", "batch", "running"} for values in report.boil.values())


def test_flat_areas_are_measured_on_some_pairs(config, capsys):
    report = evaluate(EvaluationConfig(**config | {"flat_pairs": 2}))
    assert len(report.flats) == 2 and 0 <= report.flat.grid <= 1
    assert report.flat.texture == pytest.approx(sum(pair.flat.texture for pair in report.flats) / 2)
    assert command(config, "--flat", 1) == 0 and "flat areas of 1 pairs" in capsys.readouterr().out
    assert command(config, "--flat", 0) == 0 and "flat areas" not in capsys.readouterr().out
    with pytest.raises(ValueError, match="at 8 pixels a side or more"):
        EvaluationConfig(**config | {"size": 7, "flat_pairs": 1})


def test_pictures_that_cannot_be_read_are_left_out(config, capsys):
    (config["contents"] / "broken.png").write_text("no picture")
    report = evaluate(EvaluationConfig(**config))
    assert len(report.pairs) == 4 and len(report.skipped) == 1 and "broken.png" in report.skipped[0]
    assert command(config) == 1
    assert "broken.png" in capsys.readouterr().err


def test_the_command_shows_a_table_and_writes_json(config, tmp_path, capsys):
    assert command(config, "--pairs", "3", "--seed", "5", "-o", tmp_path / "report.json") == 0
    report = evaluate(EvaluationConfig(**config | {"pairs": 3, "seed": 5}))
    shown = capsys.readouterr().out
    assert "3 pairs, 16x16" in shown and "judge" in shown and report.loss_encoder_fingerprint[:12] in shown
    assert f"{report.model.content:.4g}" in shown and f"{report.untouched.style:.4g}" in shown
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["means"]["model"] == pytest.approx(vars(report.model), rel=1e-4)
    assert [pair["style"] for pair in written["pairs"]] == [pair.style for pair in report.pairs]
    assert written["loss_encoder_fingerprint"] == report.loss_encoder_fingerprint and written["config"]["seed"] == 5


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"contents": "nowhere"}, "nowhere"),
        ({"styles": "empty"}, "holds no pictures"),
        ({"styles": "broken"}, "is not a readable picture, or is damaged"),
        ({"loss_encoder": "SMALL"}, "VGG-19"),
        ({"size": 0}, "size is 0"),
        ({"pairs": -1}, "must be at least 0"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(config, tmp_path, capsys, monkeypatch, changes, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_text("no picture")
    if changes.get("loss_encoder"):
        changes = {"loss_encoder": config["encoder"]}
    assert command(config | changes) == 2
    err = capsys.readouterr().err
    assert reason in err and err.count("\n") == 1


def test_an_output_that_cannot_be_written_stops_before_the_work(config, tmp_path, capsys):
    assert command(config | {"contents": "nowhere"}, "-o", tmp_path / "none" / "report.json") == 2
    assert "none does not exist; create it first" in capsys.readouterr().err


def test_a_model_that_gives_no_numbers_is_refused(config, tmp_path):
    network = read_network(config["decoder"])
    network.state["out.bias"].fill_(math.nan)
    write_network(network, tmp_path / "broken-decoder.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        evaluate(EvaluationConfig(**config | {"decoder": str(tmp_path / "broken-decoder.safetensors")}))


def test_the_bare_command_says_what_is_missing(capsys):
    assert main(["evaluate", "--contents", "somewhere"]) == 2
    assert "--styles is missing" in (err := capsys.readouterr().err) and err.count("\n") == 1


def test_the_help_marks_what_is_required(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    shown = capsys.readouterr().out
    assert "usage: adain evaluate --contents DIR --styles DIR --loss-encoder NAME [options]" in shown
    marked = [line.split()[0] for line in shown.splitlines() if line.endswith("(required)")]
    assert marked == ["--contents", "--styles", "--loss-encoder"]


def test_without_the_experiments_the_rest_works(config, tmp_path):
    """As ComfyUI's registry gives it."""
    left_out = {ROOT / line.rstrip("/") for line in (ROOT / ".comfyignore").read_text().splitlines()}
    shutil.copytree(
        ROOT / "adain_core", tmp_path / "adain_core",
        ignore=lambda folder, names: {name for name in names if name == "__pycache__" or Path(folder, name) in left_out},
    )  # fmt: skip
    (tmp_path / "weights").mkdir()
    shutil.copy(ROOT / "weights" / "catalog.json", tmp_path / "weights")
    assert (ROOT / "adain_core" / "experiments").is_dir() and not (tmp_path / "adain_core" / "experiments").exists()

    def adain(*words):
        # without `site`, which would lead to the experiments of an editable install
        start = f"""
import runpy, sys
sys.path[1:1], sys.argv = {sys.path}, ["adain", *{words}]
runpy.run_module("adain_core", run_name="__main__")
"""
        command = [sys.executable, "-S", "-c", start]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    report = adain(*arguments(config), "-o", "report.json")
    assert report.returncode == 0 and "4 pairs, 16x16" in report.stdout and (tmp_path / "report.json").is_file()
    refused = adain("evaluate", "comparison")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    offered = refused.stderr.partition("choose from")[2]
    assert "sheet" in offered and "ablation" not in offered


def arguments(config) -> list[str]:
    names = {"boil_pairs": "boil", "flat_pairs": "flat"}
    options = [text for key, value in config.items() for text in ("--" + names.get(key, key).replace("_", "-"), str(value))]
    return ["evaluate", *options]


def command(config, *more) -> int:
    return main([*arguments(config), *map(str, more)])
