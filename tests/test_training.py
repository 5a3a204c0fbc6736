import argparse
import dataclasses
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from adain_core import encode_style, load_decoder, load_encoder, stylize
from adain_core.cli import main
from adain_core.cli import train as command
from adain_core.errors import AdainError
from adain_core.evaluation import plain
from adain_core.images import load_image
from adain_core.networks.vgg import VGGDecoder
from adain_core.progress import showing
from adain_core.training import PRESETS, TrainingConfig, train, trainer
from adain_core.training.checkpoints import load_checkpoint
from adain_core.training.data import PictureFolder
from adain_core.training.muon import Muon, orthogonalized
from adain_core.training.networks import trained_file
from adain_core.training.objective import Objective
from adain_core.training.pictures import loss_curve
from adain_core.weights import read_network

SMALL = dict(blocks=(1, 1, 1), crop_size=32, resize_content=(32, 40), resize_style=(32, 40), batch_size=2,
             learning_rate=3e-3, clip_norm=10.0, ema=0.9, consistency_weight=1.0, consistency_every=2, workers=0,
             log_every=2, save_minutes=0, precision="float32", device="cpu")  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Contents and styles."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    for name in ("contents", "styles"):
        (folder / name).mkdir()
        for k in range(4):
            pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((60, 50)).save(folder / name / f"{k}.png")
    return folder


@pytest.fixture
def config(folders, vgg, small_files, tmp_path):
    """A training of a decoder for the small encoder."""
    return TrainingConfig(
        folders / "contents", folders / "styles", tmp_path / "out", str(vgg), "tiny", str(small_files[0]), steps=6, **SMALL
    )


@pytest.fixture
def both(config, small_files):
    """A training of both small networks."""
    return dataclasses.replace(config, stage="both", start_from=str(small_files[0].parent / "small"), encoder="", blocks=())


def test_a_decoder_learns_and_its_file_works(config):
    result = train(dataclasses.replace(config, steps=40, learning_rate=1e-2))
    assert result.steps[-1] == 40 and result.skipped_steps == 0
    assert sum(result.losses["style"][-4:]) < 0.7 * sum(result.losses["style"][:4])
    encoder, decoder = load_encoder(config.encoder), load_decoder(str(result.decoder))
    picture = torch.rand(1, 3, 45, 37)
    assert stylize(encoder, decoder, picture, encode_style(encoder, torch.rand(1, 3, 40, 40), 0)).shape == picture.shape
    recipe = read_network(result.decoder).recipe
    assert (recipe["steps"], recipe["style_weight"], recipe["blocks"]) == (40, 10.0, [1, 1, 1])
    for name in ("samples.png", "losses.png"):
        Image.open(config.output / name).load()


def test_a_line_with_losses_comes_every_few_seconds_and_at_the_end(config, caplog, monkeypatch):
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: 0.0))
    monkeypatch.setattr(trainer, "fmean", lambda values: 3.21e-6)
    with caplog.at_level("INFO"):
        result = train(dataclasses.replace(config, log_every=1))
    lines = [record.getMessage() for record in caplog.records if "style 3.21e-06" in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["step 1", "step 6"] and result.steps == [1, 2, 3, 4, 5, 6]


def test_no_line_crosses_the_names_of_the_losses():
    def above(values):
        return np.asarray(loss_curve([0, 1, 2], {"content": values, "style": values[::-1]}))[:22, 60:]

    names = above([9.9, 9.9, 9.9])
    assert (names < 255).any() and np.array_equal(names, above([1.0, 0.1, 5.0]))


def test_a_decoder_for_a_fixed_encoder(config):
    changed = dict(encoder="", blocks=(), ema=0.0, steps=4, learning_rate=1e-3)
    result = train(dataclasses.replace(config, **changed))
    assert result.encoder is None
    encoder, decoder = load_encoder(config.loss_encoder), load_decoder(str(result.decoder))
    assert decoder.encoder_fingerprint == encoder.fingerprint
    assert not list(config.output.glob("*-encoder.safetensors"))


def kill(config, at):
    def progress(step, *_):
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    with showing(progress):
        train(config)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("precision", "optimizer", "pairings"), [("float32", "muon", 2), ("bfloat16", "adam", 1)])
def test_a_killed_run_goes_on_to_the_same_losses(both, tmp_path, precision, optimizer, pairings):
    config = dataclasses.replace(both, precision=precision, optimizer=optimizer, pairings=pairings, augment=True)
    whole = train(config)
    broken_off = dataclasses.replace(config, output=tmp_path / "killed")
    process = multiprocessing.get_context("spawn").Process(target=kill, args=(broken_off, 4))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    seen = []
    with showing(lambda step, *_: seen.append(step)):
        resumed = train(broken_off)
    assert seen == [3, 4, 5, 6]  # the third step's checkpoint was the last
    assert (resumed.steps, resumed.losses) == (whole.steps, whole.losses)
    for file, wanted in ((resumed.encoder, whole.encoder), (resumed.decoder, whole.decoder)):
        torch.testing.assert_close(read_network(file).state, read_network(wanted).state, rtol=0, atol=0)


def first_gradients(output):
    """After one step, Adam's first moment is a tenth of the gradient."""
    state = torch.load(output / "checkpoint.pt", weights_only=True)["optimizer"]["state"]
    return [state[index]["exp_avg"] * 10 for index in range(len(state))]


def command_line(config, **changes) -> list[str]:
    """The options of `adain train` for what differs from the defaults."""
    config, words = dataclasses.replace(config, **changes), ["train"]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else [value]
            words += ["--" + field.name.replace("_", "-"), *map(str, values)]
    return words


def assert_equal_gradients(found, wanted):
    # sums in another order may tip a ReLU or a pooling that is near its edge
    for a, b in zip(first_gradients(found), first_gradients(wanted), strict=True):
        assert a.equal(b) or plain.relative_error(a, b) < 1e-3  # those of a texture that is not read are 0


@pytest.fixture
def one_step(both):
    """A configuration of one step of a batch of four, and its gradients in one process and one part.

    Without the loss "map", whose least squares are those of a part.
    """
    config = dataclasses.replace(both, steps=1, batch_size=4, consistency_every=1, clip_norm=0.0, map_weight=0.0)
    train(config)
    return config


def test_two_processes_have_the_gradients_of_one(one_step, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d"]
    launch += ["--rdzv-endpoint=127.0.0.1:0", "-m", "adain_core", *command_line(one_step, output=tmp_path / "two")]
    done = subprocess.run(launch, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 steps, 0 skipped") == 1
    assert_equal_gradients(tmp_path / "two", one_step.output)


def test_a_batch_in_parts_has_the_gradients_of_the_whole(one_step, tmp_path):
    train(dataclasses.replace(one_step, output=tmp_path / "parts", accumulate=4))
    assert_equal_gradients(tmp_path / "parts", one_step.output)


def test_a_batch_that_cannot_be_shared_out_is_refused(config):
    with pytest.raises(ValueError, match="a batch of 2 for 1 processes with 3 parts each cannot be shared out"):
        train(dataclasses.replace(config, accumulate=3))


def test_crops_of_any_size_are_trained_on(config):
    odd = dataclasses.replace(config, crop_size=21, steps=2, consistency_every=1)
    assert train(odd).skipped_steps == 0


@pytest.mark.parametrize(("accumulate", "style_loss"), [(1, "statistics"), (2, "gram")])
def test_a_picture_serves_several_pairings(config, monkeypatch, accumulate, style_loss):
    losses = dict(style_loss=style_loss, coarse_style_weight=1.0, consistency_weight=0.0, consistency_every=0)
    config = dataclasses.replace(config, batch_size=4, accumulate=accumulate, **losses)
    prepared, steps = [], {}
    prepare, forward = Objective.prepare, Objective.forward

    def record(self, content, style):
        prepared.append((content, style))
        return prepare(self, content, style)

    def compare(self, batch, step):
        steps.setdefault(step, []).append((batch.content, batch.style))
        wanted = prepare(self, batch.content, batch.style)
        torch.testing.assert_close(batch.content_features, wanted.content_features)
        for kind in ("style_statistics", "coarse_statistics"):
            for found, other in zip(getattr(batch, kind), getattr(wanted, kind), strict=True):
                torch.testing.assert_close(found.mean, other.mean)
        torch.testing.assert_close(batch.style_grams, wanted.style_grams)
        return forward(self, batch, step)

    monkeypatch.setattr(Objective, "prepare", record)
    monkeypatch.setattr(Objective, "forward", compare)
    train(dataclasses.replace(config, pairings=3, steps=6))
    assert len(prepared) == (trainer.POOL + 1) * accumulate  # one batch more for the second three steps
    pool = [torch.cat(pictures) for pictures in zip(*prepared, strict=True)]
    drawn = []
    for parts in steps.values():
        for chosen, all_pictures in zip(map(torch.cat, zip(*parts, strict=True)), pool, strict=True):
            found = [[torch.equal(picture, other) for other in all_pictures].index(True) for picture in chosen]
            assert len(set(found)) == 4  # none twice in a batch
            drawn.append(found)
    assert len(drawn) == 12 and len(set(map(tuple, drawn))) == 12  # contents apart from styles, anew in each step


def test_the_loss_network_given_as_the_encoder_too_sees_pictures_once(config, vgg, tmp_path, monkeypatch):
    encoded, encode = [], Objective._encode
    monkeypatch.setattr(Objective, "_encode", lambda self, *pair: encoded.append(pair) or encode(self, *pair))
    shared = dataclasses.replace(config, encoder="", blocks=(), consistency_weight=0.0, steps=2, output=tmp_path / "shared")
    copied = shutil.copy(vgg, tmp_path / "copy.safetensors")
    files = [train(shared).decoder, train(dataclasses.replace(shared, output=tmp_path / "again", encoder=str(copied))).decoder]
    assert len(encoded) == 2  # for their sample sheets
    states = [read_network(file).state for file in files]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_training_begins_with_other_networks(both, config, tmp_path):
    start = train(dataclasses.replace(both, steps=1))
    begun = dataclasses.replace(both, output=tmp_path / "on", start_from=str(both.output / "tiny"), learning_rate=1e-9)
    result = train(dataclasses.replace(begun, steps=1, ema=0.0))
    for file, wanted in ((result.encoder, start.encoder), (result.decoder, start.decoder)):
        torch.testing.assert_close(read_network(file).state, read_network(wanted).state)
    with pytest.raises(ValueError, match="do not fit"):
        other = dict(output=tmp_path / "wider", stage="encoder", channels=(4, 6, 9), blocks=(0, 1, 1))
        train(dataclasses.replace(begun, **other))
    with pytest.raises(ValueError, match="do not fit"):
        other = dict(output=tmp_path / "deeper", encoder=str(start.encoder), blocks=(1, 2, 1), start_from=begun.start_from)
        train(dataclasses.replace(config, **other))


def test_a_decoder_for_a_fixed_small_encoder_and_none_of_another(config, small_files, tmp_path):
    fixed = dataclasses.replace(config, start_from=str(small_files[1]))
    result = train(dataclasses.replace(fixed, steps=1))
    assert load_decoder(str(result.decoder)).encoder_fingerprint == load_encoder(str(small_files[0])).fingerprint
    with pytest.raises(ValueError, match="reads the encoder 'small', the features are of 'judge'"):
        train(dataclasses.replace(fixed, encoder="", output=tmp_path / "wrong"))


def test_a_teacher_draws_the_decoder_towards_its_pictures(config, vgg, tmp_path):
    alone = dataclasses.replace(config, encoder="", blocks=(), consistency_weight=0.0, content_weight=0.0, style_weight=0.0)
    teacher = train(dataclasses.replace(alone, content_weight=1.0, output=tmp_path / "teacher")).decoder
    taught = dataclasses.replace(alone, teacher=str(teacher), seed=1, steps=30)
    differences = train(taught).losses["teacher"]
    assert differences[-1] < 0.5 * differences[0]
    with pytest.raises(ValueError, match="reads the encoder"):
        train(dataclasses.replace(config, teacher="lite", output=tmp_path / "wrong"))


def test_another_teacher_does_not_go_on(config, vgg, tmp_path):
    config = dataclasses.replace(config, encoder="", blocks=(), steps=1)
    for seed in (1, 2):
        train(dataclasses.replace(config, seed=seed, output=tmp_path / str(seed), name="teacher"))
    first, second = (str(tmp_path / str(seed) / "teacher") for seed in (1, 2))
    train(dataclasses.replace(config, teacher=first))
    with pytest.raises(ValueError, match="teacher_network differ"):
        train(dataclasses.replace(config, teacher=second, steps=2))


def test_a_decoder_that_would_learn_nothing_is_refused(config):
    with pytest.raises(ValueError, match="nothing would be learned"):
        train(dataclasses.replace(config, content_weight=0.0, style_weight=0.0))


@pytest.mark.parametrize("change", [
    dict(style_loss="gram"), dict(content_target="content"), dict(variation_weight=1.0), dict(grid_weight=1.0),
    dict(layer_weights=(0.0,) * 4), dict(coarse_style_weight=1.0),
])  # fmt: skip
def test_other_losses_are_other_losses(config, tmp_path, change):
    losses = []
    for name, changes in (("paper", {}), ("other", change)):
        losses.append(train(dataclasses.replace(config, output=tmp_path / name, steps=2, **changes)).losses)
    assert losses[0] != losses[1]
    assert all((name in losses[1]) == (f"{name}_weight" in change) for name in ("variation", "grid", "coarse_style"))


@pytest.mark.parametrize("clamp", [False, True])
def test_losses_of_the_pictures_as_they_are_shown(config, monkeypatch, clamp):
    config = dataclasses.replace(config, clamp=clamp, variation_weight=1.0, consistency_every=1)
    objective = trainer.Trainer(config, torch.device("cpu")).objective
    generator = torch.Generator().manual_seed(0)
    content, style = torch.rand(2, 1, 3, 32, 32, generator=generator)
    batch, picture = objective.prepare(content, style), 3 * torch.rand(1, 3, 32, 32, generator=generator) - 1

    def losses(result):
        monkeypatch.setattr(objective, "_decode", lambda features, size, texture: result[..., : size[0], :])
        return objective(batch, step=1)[1]

    found, shown = losses(picture.requires_grad_()), losses(picture.detach().clamp(0, 1))
    assert all((found[name] == shown[name]) == clamp for name in found)
    found["style"].backward()
    step, below, above = -picture.grad, picture < 0, picture > 1
    assert step[~below & ~above].ne(0).all() and step[below].gt(0).any() and step[above].lt(0).any()
    assert (step[below].lt(0).any() or step[above].gt(0).any()) != clamp  # none goes further out


def test_float16_scales_its_gradients(config, monkeypatch):
    # it would ask a GPU whether the gradients are finite, which is known then
    monkeypatch.setattr(torch.amp.GradScaler, "step", None)
    small = dict(content_weight=0.01, style_weight=0.1)  # losses whose gradients, times the first scale, float16 can hold
    result = train(dataclasses.replace(config, precision="float16", steps=4, **small))
    assert result.skipped_steps == 0
    assert all(np.isfinite(result.losses["style"]))
    checkpoint = torch.load(config.output / "checkpoint.pt", weights_only=True)
    assert checkpoint["scaler"]["scale"] > 1


def test_the_number_of_workers_changes_nothing(config, tmp_path):
    losses = [train(dataclasses.replace(config, output=tmp_path / str(n), workers=n)).losses for n in (0, 2)]
    assert losses[0] == losses[1]


def test_another_recipe_does_not_go_on(config):
    train(config)
    with pytest.raises(ValueError, match="style_weight"):
        train(dataclasses.replace(config, style_weight=5.0))
    train(dataclasses.replace(config, steps=8, log_every=1))


def test_a_checkpoint_of_an_older_version_goes_on(config):
    train(config)
    checkpoint = config.output / "checkpoint.pt"
    state = torch.load(checkpoint, weights_only=True)
    hashes = {name: state["recipe"][name] for name in ("loss_network", "encoder", "contents", "styles")}
    recipe = dict(
        channels=[], blocks=[1, 1, 1], start_from="", batch_size=2, pairings=1, crop_size=32, resize_content=[32, 40],
        resize_style=[32, 40], augment=False, optimizer="adam", learning_rate=3e-3, schedule="published", warmup=0,
        clip_norm=10.0, ema=0.9, content_weight=1.0, content_target="adain", style_weight=10.0, style_loss="statistics",
        layer_weights=[1.0] * 4, variation_weight=0.0, clamp=False, consistency_weight=1.0, consistency_every=2,
        precision="float32", seed=0,
    )  # fmt: skip
    torch.save(state | {"recipe": recipe | hashes}, checkpoint)
    steps = []
    with showing(lambda step, *_: steps.append(step)):
        train(dataclasses.replace(config, steps=7))
    assert steps == [6, 7]


def test_a_damaged_checkpoint_is_named(config):
    config.output.mkdir()
    (config.output / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="checkpoint.pt"):
        train(config)


def changed(*place, to):
    """Changes a part of a checkpoint."""

    def change(state):
        for key in place[:-1]:
            state = state[key]
        state[place[-1]] = to(state[place[-1]])

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("parameters", 0, to=lambda x: x * float("nan")),
        changed("average", 3, to=lambda x: x / 0),
        changed("parameters", 0, to=lambda x: x[:1]),
        changed("parameters", 0, to=lambda x: x.int()),
        changed("parameters", 0, to=lambda x: "text"),
        changed("parameters", to=lambda x: x[:-1]),
        changed("parameters", to=lambda x: None),
        changed("optimizer", "state", to=lambda x: {}),
        changed("optimizer", "state", 0, "exp_avg", to=lambda x: x * float("nan")),
        changed("optimizer", "state", 0, "exp_avg", to=lambda x: x[:1]),
        changed("optimizer", "state", 0, to=lambda x: {"exp_avg": x["exp_avg"]}),
        changed("optimizer", "state", to=lambda x: dict(list(x.items())[1:])),
        changed("optimizer", to=lambda x: {}),
        changed("scaler", to=lambda x: None),
        changed("step", to=lambda x: -1),
        changed("step", to=lambda x: 2.5),
        changed("skipped", to=lambda x: 9),
        changed("steps", to=lambda x: x + [4]),
        changed("losses", to=lambda x: x | {"style": [float("nan")] * 3}),
        changed("losses", to=lambda x: ["text"]),
        changed("recent", to=lambda x: [{"style": None}, {"style": "text"}]),
        changed("recipe", to=lambda x: x | {"seed": torch.ones(2)}),
        changed("recipe", to=lambda x: [x]),
        lambda state: state.pop("losses"),
        lambda state: state.clear(),
    ],
)
def test_a_checkpoint_with_a_damaged_part_is_one_sentence_or_does_no_harm(checkpointed, change):
    config, state = checkpointed
    change(state)
    torch.save(state, config.output / "checkpoint.pt")
    try:
        train(config)
    except AdainError as error:
        assert "checkpoint.pt" in str(error) and "\n" not in str(error)
        assert "remove it to begin anew" in str(error) or "of another recipe" in str(error)
    else:
        assert all(x.isfinite().all() for x in read_network(config.output / "tiny-decoder.safetensors").state.values())


def test_a_checkpoint_that_is_cut_off_or_flipped_anywhere_is_one_sentence(checkpointed):
    config, _ = checkpointed
    path = config.output / "checkpoint.pt"
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for place in map(int, rng.integers(0, len(whole), 30)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        for content in (whole[:place], bytes(flipped)):
            path.write_bytes(content)
            try:
                load_checkpoint(path, {})
            except AdainError as error:
                assert "checkpoint.pt" in str(error) and "\n" not in str(error)


@pytest.fixture(scope="module")
def checkpointed_once(folders, small_files, tmp_path_factory):
    output = tmp_path_factory.mktemp("checkpointed")
    settings = SMALL | dict(loss_encoder=str(small_files[0]), layer_weights=(1.0, 1.0))
    config = TrainingConfig(folders / "contents", folders / "styles", output, name="tiny", steps=3, **settings)
    train(config)
    return config


@pytest.fixture
def checkpointed(checkpointed_once, tmp_path):
    """The configuration of a training that goes on from step 3 to 4, and what its checkpoint holds."""
    shutil.copy(checkpointed_once.output / "checkpoint.pt", tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    return dataclasses.replace(checkpointed_once, output=tmp_path, steps=4), state


def poison(monkeypatch, is_bad):
    whole = Objective.forward

    def call(self, batch, step):
        total, losses = whole(self, batch, step)
        return (total * float("nan") if is_bad(step) else total), losses

    monkeypatch.setattr(Objective, "forward", call)


def test_steps_without_a_finite_loss_are_skipped(config, monkeypatch):
    poison(monkeypatch, lambda step: step in (1, 2, 4))
    result = train(config)
    assert result.skipped_steps == 3
    for tensor in read_network(result.decoder).state.values():
        assert tensor.isfinite().all()


def test_losses_that_stay_non_finite_end_the_training(config, monkeypatch):
    poison(monkeypatch, lambda step: step >= 2)
    with pytest.raises(FloatingPointError, match="20 steps in a row"):
        train(dataclasses.replace(config, steps=100))


def test_broken_files_are_counted_and_empty_folders_refused(config, folders, tmp_path):
    styles = tmp_path / "styles"
    styles.mkdir()
    with pytest.raises(ValueError, match="styles"):
        train(dataclasses.replace(config, styles=styles))
    (styles / "a.png").write_bytes((folders / "styles" / "0.png").read_bytes())
    (styles / "b.png").write_bytes((folders / "styles" / "1.png").read_bytes()[:60])
    assert train(dataclasses.replace(config, styles=styles)).broken_files == 1


def test_any_encoder_measures_at_its_own_levels(config, small_files):
    alone = dataclasses.replace(config, loss_encoder=str(small_files[0]), encoder="", layer_weights=(1.0, 2.0))
    assert train(alone).losses["style"][-1] > 0
    with pytest.raises(ValueError, match="there are 4 layer_weights; give one for each of stride4, stride8"):
        train(dataclasses.replace(alone, layer_weights=(1.0,) * 4))


def test_pictures_and_networks_at_hand_give_what_their_files_give(config, folders, small_files, tmp_path):
    """As a host calls: in inference mode, with networks and pictures that nothing can be trained through."""
    files = dataclasses.replace(config, start_from=str(small_files[1]), steps=2)
    wanted = train(files)
    before = train(dataclasses.replace(files, output=tmp_path / "none", learning_rate=1e-9)).losses
    with torch.inference_mode():
        pictures = [
            torch.cat([load_image(path) for path in sorted((folders / name).iterdir())]) for name in ("contents", "styles")
        ]
        networks = load_encoder(config.loss_encoder), load_encoder(files.encoder), load_decoder(files.start_from)
        networks = dict(zip(("loss_encoder", "encoder", "start_from"), (n.double().float() for n in networks), strict=True))
        at_hand = dict(zip(("contents", "styles"), pictures, strict=True), output=tmp_path / "at hand", **networks)
        found = train(dataclasses.replace(files, **at_hand))
    assert found.losses == wanted.losses != before
    assert all(p.is_inference() for p in networks["encoder"].parameters())


@pytest.mark.parametrize("what", ["contents", "styles"])
def test_other_pictures_do_not_go_on(config, folders, tmp_path, what):
    train(config)
    shutil.copytree(folders / what, tmp_path / "more")
    assert train(dataclasses.replace(config, **{what: tmp_path / "more"})).steps[-1] == 6  # they may lie elsewhere
    shutil.copy(folders / what / "0.png", tmp_path / "more" / "another.png")
    with pytest.raises(ValueError, match=rf"of other pictures \({what}\)"):
        train(dataclasses.replace(config, **{what: tmp_path / "more"}))


class Stop(BaseException):
    """As ComfyUI's is when a person cancels."""


def test_only_one_training_at_a_time_writes_to_a_folder(config):
    def another(*_):
        with pytest.raises(ValueError, match="another training writes to .*out now; wait, or give another output folder"):
            train(config)

    with showing(another):
        assert train(config).steps[-1] == 6
    assert train(dataclasses.replace(config, steps=7)).steps[-1] == 7


def test_what_killed_trainings_left_is_removed(config):
    config.output.mkdir()
    left = config.output / ".checkpoint.adain-abcdefgh.pt"
    left.touch()
    train(dataclasses.replace(config, steps=1))
    assert not left.exists()


def test_what_is_stopped_is_kept_and_goes_on(config, tmp_path):
    config = dataclasses.replace(config, save_minutes=60.0)

    def stop(step, *_):
        if step == 3:
            raise Stop

    with pytest.raises(Stop), showing(stop):
        train(config)
    assert read_network(config.output / "tiny-decoder.safetensors").recipe["steps"] == 3
    whole = train(dataclasses.replace(config, output=tmp_path / "whole"))
    assert train(config).losses == whole.losses


def test_steps_after_the_last_logged_one_are_logged_at_the_end(config):
    assert train(dataclasses.replace(config, steps=5, log_every=3)).steps == [3, 5]
    assert train(dataclasses.replace(config, output=config.output / "short", steps=2, log_every=100)).steps == [2]


def test_a_result_that_cannot_be_written_for_a_while_is_written_later(config, monkeypatch, caplog):
    write, full = trainer.save_image, []

    def written(*picture):
        if not full:
            full.append(picture)
            raise OSError("samples.png cannot be written.")
        write(*picture)

    monkeypatch.setattr(trainer, "save_image", written)
    result = train(dataclasses.replace(config, results_minutes=0.0))
    assert full and result.step == config.steps and (config.output / "samples.png").exists()
    assert "samples.png cannot be written. It is tried again later." in caplog.text


def test_what_was_learned_before_a_training_diverged_is_kept(config, monkeypatch):
    poison(monkeypatch, lambda step: step >= 3)
    with pytest.raises(FloatingPointError, match="before them are in .*: start_from them in another output folder"):
        train(dataclasses.replace(config, steps=60))
    assert read_network(config.output / "tiny-decoder.safetensors").recipe["steps"] > 3


def at_step(monkeypatch, where, step, action):
    """Has `action` done in a method of the training when it is called with this step done."""
    whole = getattr(trainer.Trainer, where)

    def call(self, *arguments):
        result = whole(self, *arguments)
        if self.step == step:
            action()
        return result

    monkeypatch.setattr(trainer.Trainer, where, call)


@pytest.mark.parametrize("name", [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)])
@pytest.mark.parametrize("where", ["_gradients", "_update", "_log_losses", "_tell", "_save_checkpoint", "_write_results"])
def test_a_signal_at_any_moment_keeps_what_was_learned(checkpointed_once, tmp_path, monkeypatch, capfd, where, name):
    number = getattr(signal, name)
    config = dataclasses.replace(checkpointed_once, output=tmp_path / "out", save_minutes=60.0)
    if where in ("_save_checkpoint", "_write_results"):
        config = dataclasses.replace(config, save_minutes=0.0, results_minutes=0.0)
    usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
    before = signal.signal(number, usual)  # whoever started the tests may ignore it
    try:
        with monkeypatch.context() as patch:
            at_step(patch, where, 2, lambda: os.kill(os.getpid(), number))
            assert main(command_line(config, steps=5)) == 128 + number
            assert signal.getsignal(number) == usual
    finally:
        signal.signal(number, before)
    err = capfd.readouterr().err
    assert "adain: stopped." in err and "Traceback" not in err
    assert torch.load(config.output / "checkpoint.pt", weights_only=True)["step"] == 2
    assert not list(config.output.glob(".*.adain-*"))
    whole = train(dataclasses.replace(config, output=tmp_path / "whole", steps=4))
    assert train(dataclasses.replace(config, steps=4)).losses == whole.losses


def kill_readers():
    for child in multiprocessing.active_children():
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # PyTorch finds out by itself


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_signal_that_ends_the_processes_that_read_pictures_too_stops_in_order(
    checkpointed_once, tmp_path, monkeypatch, capfd
):
    config = dataclasses.replace(checkpointed_once, output=tmp_path / "out", save_minutes=60.0, workers=1)
    with monkeypatch.context() as patch:
        at_step(patch, "_gradients", 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        at_step(patch, "_save_checkpoint", 2, kill_readers)
        assert main(command_line(config, steps=500)) == 128 + signal.SIGTERM
    err = capfd.readouterr().err
    assert "adain: stopped." in err and "Traceback" not in err and "killed" not in err
    assert torch.load(config.output / "checkpoint.pt", weights_only=True)["step"] == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("where", ["_gradients", "_update", "_tell"])
def test_a_killed_process_that_reads_pictures_loses_nothing(checkpointed_once, tmp_path, monkeypatch, capfd, where):
    config = dataclasses.replace(checkpointed_once, output=tmp_path / "out", save_minutes=60.0, workers=1)
    with monkeypatch.context() as patch:
        at_step(patch, where, 2, kill_readers)
        assert main(command_line(config, steps=500)) == 2
    err = capfd.readouterr().err
    assert "a process that reads pictures was killed" in err and "fewer workers" in err and "Traceback" not in err
    step = torch.load(config.output / "checkpoint.pt", weights_only=True)["step"]
    assert f"what was learned up to step {step} is kept" in err and 2 <= step < 20
    assert train(dataclasses.replace(config, steps=step + 1)).steps


@pytest.mark.parametrize("what", ["contents", "styles"])
@pytest.mark.parametrize("inside", ["", "out", "sub/out"])
def test_an_output_among_the_pictures_is_refused(config, folders, tmp_path, what, inside):
    shutil.copytree(folders / what, tmp_path / "pictures")
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    changed = dataclasses.replace(config, **{what: tmp_path / "pictures"}, output=tmp_path / "link" / inside)
    with pytest.raises(AdainError, match="is inside of .*pictures, .* name a folder outside of it"):
        train(changed)
    assert not (tmp_path / "pictures" / "out").exists()


def test_the_largest_seed_is_one_and_larger_ones_are_refused(checkpointed_once, tmp_path):
    config = dataclasses.replace(checkpointed_once, output=tmp_path, steps=1)
    assert train(dataclasses.replace(config, seed=2**64 - 1)).decoder.is_file()
    for seed in (-1, 2**64, 10**30):
        with pytest.raises(AdainError, match="seed"):
            dataclasses.replace(config, seed=seed)


def test_a_taught_encoder_has_no_preview(config):
    taught = dataclasses.replace(config, stage="encoder", encoder="", channels=(4, 6, 8), blocks=(0, 1, 1))
    with pytest.raises(ValueError, match="preview"):
        train(taught, preview_every=1)
    assert train(dataclasses.replace(taught, steps=2)).encoder.is_file()


def test_a_preview_shows_fixed_pairs_at_the_start_and_every_few_steps(config):
    shown = {}
    with showing(lambda step, steps, pictures: shown.update({(step, steps): pictures})):
        train(config, preview_every=3)
    assert list(shown) == [(step, 6) for step in range(7)]
    sheets = [sheet for sheet in shown.values() if sheet is not None]
    assert len(sheets) == 3 and all(sheet.shape == (1, 3, 3 * 36, 4 * 36) for sheet in sheets)
    assert all(shown[step, 6] is not None for step in (0, 3, 6))
    rows = [sheet[0].split(36, dim=1) for sheet in sheets]
    assert torch.equal(rows[0][0], rows[2][0]) and torch.equal(rows[0][1], rows[2][1])
    assert not torch.equal(rows[0][2], rows[2][2])


def test_a_decoder_has_the_blocks_of_its_start_or_usual_ones(config, small_files, tmp_path):
    fixed = dataclasses.replace(config, blocks=(), steps=1)
    assert load_decoder(str(train(fixed).decoder)).config["blocks"] == [1, 2, 2]
    begun = dataclasses.replace(fixed, output=tmp_path / "begun", start_from=str(small_files[1]))
    assert load_decoder(str(train(begun).decoder)).config["blocks"] == [1, 1, 1]
    with pytest.raises(AdainError, match="the encoder 'small' has 3 strides; give a number of blocks for each"):
        train(dataclasses.replace(fixed, output=tmp_path / "few", blocks=(1, 1)))


def test_a_vgg_is_inverted_in_closed_form(config, folders):
    encoder, decoder = load_encoder(config.loss_encoder), VGGDecoder({}).requires_grad_(False)
    images = PictureFolder(folders / "contents", 44, 50)
    images = torch.stack([images[k] for k in range(4)]).float() / 255
    decoder.fit_inverse(encoder, images)
    seen = images[:, :, :40, :40]
    error = (decoder(encoder.encode(seen)) - seen).square().mean() / seen.var()
    assert error < 0.2


def test_a_training_begins_with_the_inverse(config, monkeypatch):
    fixed = dict(encoder="", blocks=(), start_from="inverse", steps=1, learning_rate=1e-9, ema=0.0)
    fit = lambda decoder, _, images: nn.init.constant_(decoder.conv1_1.bias, len(images))  # noqa: E731
    monkeypatch.setattr(VGGDecoder, "fit_inverse", fit)
    result = train(dataclasses.replace(config, **fixed))
    file = read_network(result.decoder)
    assert file.state["conv1_1.bias"][0] == pytest.approx(2 * 768) and file.recipe["start_from"] == "inverse"
    with pytest.raises(ValueError, match="only a VGG-19 is inverted"):
        train(dataclasses.replace(config, start_from="inverse", output=config.output / "other"))


def test_muon_steps_alike_in_all_directions():
    torch.manual_seed(0)
    for shape in ((6, 40), (40, 6)):
        values = torch.linalg.svdvals(orthogonalized(torch.randn(shape) @ torch.diag(torch.logspace(-1, 1, shape[1]))))
        assert values.max() < 1.3 and values.min() > 0.5


def test_muon_finds_a_kernel():
    torch.manual_seed(0)
    wanted, found = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
    optimizer = Muon(found.parameters(), 0.02)
    seen = torch.randn(2, 3, 12, 12)
    losses = []
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 120)
        optimizer.zero_grad()
        losses.append((found(seen) - wanted(seen).detach()).square().mean())
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.01 * losses[0]


def test_the_paper_is_the_default(config):
    """docs/design.md, section 1."""
    paper = TrainingConfig(config.contents, config.styles, config.output, config.loss_encoder, **PRESETS["paper"])
    assert (paper.batch_size, paper.crop_size, paper.style_weight, paper.steps) == (8, 256, 10.0, 160_000)
    assert paper.rate(0) == 1e-4
    assert paper.rate(20_000) == pytest.approx(5e-5)


def test_each_setting_is_explained_in_python_and_on_the_command_line(config, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")  # no text is broken into lines
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    listed = {line.split()[0]: line for line in TrainingConfig.__doc__.splitlines() if line}
    for field in dataclasses.fields(TrainingConfig):
        text = listed[field.name if field.name in config.recipe() else f"{field.name}*"].split("): ", 1)[1]
        assert f" --{field.name.replace('_', '-')}" in words and f" {text}" in words
    assert listed["steps*"] == "    steps* (int = 160000): of the whole training; where it has done fewer, it goes on"


def test_a_decoder_without_a_name_does_not_repeat_what_it_is(config):
    plain = TrainingConfig(config.contents, config.styles, config.output, config.loss_encoder)
    assert trained_file(plain, "decoder") == config.output / "trained-decoder.safetensors"


def test_the_cosine_schedule_rises_stays_and_falls(config):
    config = dataclasses.replace(config, schedule="cosine", learning_rate=0.1, warmup=9, steps=90)
    assert config.rate(0) == pytest.approx(0.01)
    assert config.rate(9) == config.rate(60) == pytest.approx(0.1)
    assert config.rate(75) == pytest.approx(0.051)
    assert config.rate(90) == pytest.approx(0.002)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(steps=0), dict(schedule="linear"), dict(optimizer="sgd"), dict(ema=1.0), dict(style_weight=float("nan")),
        dict(seed=2**64), dict(clip_norm=-1.0), dict(style_weight=-1.0), dict(layer_weights=(1.0, -1.0, 1.0, 1.0)),
        dict(grid_weight=1.0, crop_size=4), dict(consistency_every=0),  # which has a weight here
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_is_refused(config, wrong):
    with pytest.raises(ValueError):
        dataclasses.replace(config, **wrong)


@pytest.mark.parametrize("changes, sentence", [
    (dict(channels=(4, 6, 8)), "channels are for the stage encoder; teach an encoder by it first, then train a decoder"),
    (dict(channels=(4, 6, 8), stage="encoder"), "is taught from drawn weights, or from one that start_from names"),
])  # fmt: skip
def test_channels_are_of_an_encoder_that_is_taught(config, changes, sentence):
    with pytest.raises(AdainError, match=sentence):
        dataclasses.replace(config, **changes)


def test_a_seed_of_many_bits_is_taken(config):
    assert train(dataclasses.replace(config, seed=2**63, consistency_every=1, steps=1)).skipped_steps == 0


def test_the_command_trains_and_goes_on(config, capsys):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    paths = [f"--contents={config.contents}", f"--styles={config.styles}", f"--output={config.output}"]
    options = "--crop-size 32 --resize-content 40 --resize-style 32 40 --batch-size 2 --blocks 1 1 1".split()
    options += ["--workers=0", "--device=cpu", "--precision=float32", "--no-augment", "--preset=lite", "--name=tiny"]
    options += ["--pairings=2", f"--encoder={config.encoder}"]
    for steps in (2, 3):
        arguments = parser.parse_args(["train", *paths, f"--loss-encoder={config.loss_encoder}", *options, f"--steps={steps}"])
        assert arguments.run(arguments) == 0
        assert f"{steps} steps, 0 skipped, 0 files unreadable" in capsys.readouterr().out
    recipe = read_network(config.output / "tiny-decoder.safetensors").recipe
    assert (recipe["resize_content"], recipe["learning_rate"], recipe["augment"]) == ([40, 40], 5e-4, False)
