import copy
import logging
import re

import pytest
import torch

from adain_core import encode_style, learn_style, load_style, stylize
from adain_core.cli import main
from adain_core.errors import AdainError
from adain_core.images import resize, save_image
from adain_core.progress import showing
from adain_core.statistics import channel_statistics


@pytest.fixture
def painting():
    return torch.rand(1, 3, 64, 48) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]


@pytest.fixture
def contents():
    return torch.nn.functional.interpolate(torch.rand(3, 3, 6, 8), (48, 64), mode="bicubic").clamp(0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("adain_core.training.learn.CONTENT_SIDE", 32)
    monkeypatch.setattr("adain_core.training.learn.STYLE_SIDE", 64)


def distance(small, painting, contents, style):
    """Of the statistics of results to the painting's, as the encoder itself sees them."""
    encoder, decoder = small
    result = stylize(encoder, decoder, contents, style, texture=0.0)
    found, wanted = (encoder.features(x, encoder.loss_layers) for x in (result, painting))
    pairs = [(channel_statistics(x), channel_statistics(y)) for x, y in zip(found, wanted, strict=True)]
    return sum((a.mean - b.mean).square().mean() + (a.std - b.std).square().mean() for a, b in pairs).item()


def test_a_learned_style_comes_closer_to_its_picture_also_on_other_contents(small, painting, contents):
    parts = []
    with torch.inference_mode():  # as a host calls
        with showing(lambda *part: parts.append(part)):
            style = learn_style(*small, painting, contents, 60)
    others = contents.flip(1)
    assert distance(small, painting, others, style) < 0.8 * distance(
        small, painting, others, encode_style(small[0], painting, 64)
    )
    while parts[0] == (0, 60, None):  # the style is encoded first
        parts.pop(0)
    assert [(done, total) for done, total, _ in parts] == [(step, 60) for step in range(1, 61)]
    assert parts[9][2].shape == (1, 3, 32, 43) and parts[8][2] is None
    assert style.thumbnail and style.encoder_fingerprint == small[0].fingerprint


def test_hidden_colors_of_transparent_contents_count_nowhere(small, painting, contents):
    alpha = torch.zeros(3, 1, 48, 64)
    alpha[:, :, 8:40, 8:50] = 1
    hidden = [torch.cat([contents * alpha + color * (1 - alpha), alpha], 1) for color in (0.0, 1.0)]
    first, second = (learn_style(*small, painting, pictures, 5).components[0].levels for pictures in hidden)
    assert all(a.mean.equal(b.mean) for a, b in zip(first, second, strict=True))


def test_the_start_is_kept_and_it_ends_early_where_nothing_is_gained(small, painting, contents, caplog, monkeypatch):
    monkeypatch.setattr("adain_core.training.learn.SPEED", 500)  # each step goes far too far
    steps = []
    with caplog.at_level(logging.INFO), showing(lambda done, *_: steps.append(done)):
        style = learn_style(*small, painting, contents, 100, learning_rate=1.0)
    start = encode_style(small[0], painting, 64)
    for found, wanted in zip(style.components[0].levels, start.components[0].levels, strict=True):
        torch.testing.assert_close(found.mean, wanted.mean)
        torch.testing.assert_close(found.m2, wanted.m2)
    assert len(steps) - steps.count(0) == 30 and steps[-1] == 100 and "in 30 steps" in caplog.text


def test_it_is_judged_by_what_is_shown_of_the_results(small, painting, contents, caplog, monkeypatch):
    monkeypatch.setattr("adain_core.training.learn.training_dtype", lambda *_: torch.float32)  # as `distance` computes
    encoder, decoder = small[0], copy.deepcopy(small[1])
    with torch.no_grad():
        decoder.out.weight.mul_(20)  # far beyond black and white
    with caplog.at_level(logging.INFO):
        learn_style(encoder, decoder, painting, contents, 1)
    style = encode_style(encoder, painting, 64)
    shown = distance((encoder, decoder), resize(painting, 64), resize(contents, 32), style)
    assert float(re.search(r"fell from ([\d.]+)", caplog.text)[1]) == pytest.approx(shown, abs=0.002)


def test_hidden_colours_are_not_learned(small, painting, contents):
    half = torch.cat([painting, torch.ones_like(painting[:, :1])], 1)
    half[:, :, :, :32] = 0
    other = half.clone()
    other[:, :2, :, :32] = 1
    opaque = [torch.cat([x[:, :3], torch.ones_like(x[:, 3:])], 1) for x in (half, other)]
    learned, shown = ([learn_style(*small, x, contents, 3).components[0].levels[-1].mean for x in xs]
                      for xs in ((half, other), opaque))  # fmt: skip
    assert (learned[0] - learned[1]).norm() < 0.3 * (shown[0] - shown[1]).norm()


def test_the_networks_are_left_alone(small, painting, contents):
    before = [parameter.clone() for network in small for parameter in network.parameters()]
    learn_style(*small, painting, contents, 2)
    after = [parameter for network in small for parameter in network.parameters()]
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(before, after, strict=True))


def test_another_encoders_decoder_and_tensors_that_are_not_pictures_are_refused(small, painting, contents, identity):
    with pytest.raises(ValueError, match="reads the encoder 'small', the features are of 'identity'"):
        learn_style(identity, small[1], painting, contents)
    with pytest.raises(ValueError, match="the content picture holds NaN"):
        learn_style(*small, painting, contents * float("nan"))
    with pytest.raises(ValueError, match="steps must be at least 1"):
        learn_style(*small, painting, contents, 0)
    for seed in (-1, 2**64):
        with pytest.raises(AdainError, match=f"the seed is {seed}; give a whole number from 0"):
            learn_style(*small, painting, contents, seed=seed)


def test_the_command_learns_a_style(small_files, tmp_path, painting, contents, capsys):
    (tmp_path / "contents").mkdir()
    for index, content in enumerate(contents):
        save_image(content, tmp_path / "contents" / f"{index}.png")
    save_image(painting, tmp_path / "painting.png")
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--loss-encoder", str(small_files[0])]
    command = ["style", "learn", str(tmp_path / "painting.png"), "--contents", str(tmp_path / "contents"), *networks]
    command += ["--steps", "3", "--device", "cpu", "--source", "me"]
    assert main([*command, "-o", str(tmp_path / "learned.safetensors")]) == 0
    style = load_style(tmp_path / "learned.safetensors")
    assert (style.name, style.source, style.encoder_name) == ("learned", "me", "small")
    assert main([*command, "--seed", "-1", "-o", str(tmp_path / "other.safetensors")]) == 2
    assert "the seed is -1" in capsys.readouterr().err
