from __future__ import annotations

import shutil

import pytest
import torch

from adain_core import catalog
from adain_core.devices import fast_dtype


def test_networks_stay_trainable_though_the_server_runs_in_inference_mode(encoder, decoder):
    assert not any(parameter.is_inference() for parameter in [*encoder.model.parameters(), *decoder.model.parameters()])


def test_the_host_can_set_the_device_of_a_model_as_it_does(encoder, decoder):
    for patcher in (encoder, decoder):
        patcher.model.device = torch.device("cpu")


def test_a_number_type_is_taken(run):
    assert run("LoadEncoder", name="small", dtype="bfloat16").model.dtype == torch.bfloat16


def test_automatic_is_16_bits_where_the_device_is_good_at_it(run, part, monkeypatch):
    management = part("nodes.host").model_management
    monkeypatch.setattr(management, "should_use_fp16", lambda device: True)
    assert run("LoadDecoder", name="small", dtype="auto").model.dtype == torch.float16
    monkeypatch.setattr(management, "should_use_fp16", lambda device: False)
    assert run("LoadDecoder", name="small", dtype="auto").model.dtype == fast_dtype(torch.device("cpu"))


def test_one_file_is_in_memory_once(run):
    assert run("LoadEncoder", name="small", dtype="float32") is run("LoadEncoder", name="small", dtype="float32")


def test_a_replaced_file_is_read_again(run, part, folders):
    node = part("nodes.networks").LoadEncoder
    before, version = run("LoadEncoder", name="small"), node.fingerprint_inputs(name="small")
    path = folders / "models" / "adain" / "small-encoder.safetensors"
    shutil.copy(path, folders / "copy")
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is no encoder 'small'"):
        run("LoadEncoder", name="small")
    path.write_bytes((folders / "copy").read_bytes())
    assert node.fingerprint_inputs(name="small") != version
    assert run("LoadEncoder", name="small") is not before


def test_nothing_outside_of_the_folders_is_loaded(run, folders, small_files):
    shutil.copy(small_files[0], folders / "outside.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no encoder"):
        run("LoadEncoder", name="../../outside.safetensors")


def test_a_decoder_as_an_encoder_is_refused(run, folders, small_files):
    shutil.copy(small_files[1], folders / "models" / "adain" / "wrong-encoder.safetensors")
    with pytest.raises(ValueError, match="holds a decoder, not an encoder"):
        run("LoadEncoder", name="wrong")


def test_without_any_file_the_list_says_so_and_the_run_what_to_do(run, part, folders):
    for file in (folders / "models" / "adain").iterdir():
        file.unlink()
    options = part("nodes.networks").LoadDecoder.define_schema().inputs[0].options
    assert len(options) == 1 and "none found" in options[0]
    with pytest.raises(FileNotFoundError, match="there is no decoder yet; .* put NAME-decoder.safetensors into models/adain"):
        run("LoadDecoder", name=options[0])


HUB_FILE = "me/model/small-encoder.safetensors"


@pytest.fixture
def on_the_hub(served, small_files):
    """The small networks on the Hub on 127.0.0.1."""
    for file in small_files:
        served.serve(f"me/model/{file.name}", file)
    return served


@pytest.fixture
def listed(listed, part, monkeypatch):
    """Puts entries in the place of the plugin's catalog."""

    def replace(*entries: dict) -> None:
        listed(*entries)
        monkeypatch.setattr(part("adain_core.catalog"), "BUNDLED", catalog.BUNDLED)

    return replace


@pytest.fixture
def shown(part, monkeypatch) -> list[tuple[int, int]]:
    """What progress bars show: done and total."""
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, *more, **named: shown.append((done, total)))
    return shown


def test_a_file_on_the_hub_is_fetched_on_run_with_progress_and_only_once(run, on_the_hub, shown, small_files):
    first = run("LoadEncoder", name="small", dtype="float32", hub_file=f" {HUB_FILE} ")
    size = small_files[0].stat().st_size
    assert (size, size) in shown
    requests = len(on_the_hub.requests)
    assert run("LoadEncoder", name="nothing", dtype="float32", hub_file=f"hf:{HUB_FILE}") is first
    assert len(on_the_hub.requests) == requests


def test_a_name_on_the_hub_is_fetched_on_run_unless_its_file_is_in_a_folder(run, on_the_hub, listed, small_files, folders):
    listed({"name": "mine", "role": "encoder", "mirrors": [{"repo": "me/model", "file": "small-encoder.safetensors"}]})
    assert run("LoadEncoder", name="mine").model.name == "mine" and on_the_hub.requests
    on_the_hub.reset()
    shutil.copy(small_files[0], folders / "models" / "adain" / "mine-encoder.safetensors")
    assert run("LoadEncoder", name="mine").model.name == "small" and not on_the_hub.requests


def test_a_pair_of_which_one_is_on_the_hub_serves_the_short_way(run, on_the_hub, listed, part, folders, photo, painting):
    (folders / "models" / "adain" / "small-encoder.safetensors").unlink()
    listed({"name": "small", "role": "encoder", "mirrors": [{"repo": "me/model", "file": "small-encoder.safetensors"}]})
    assert part("nodes.networks").model_names() == ["small"]
    picture = run("StyleTransfer", content=photo, model="small", style="", style_image=painting)
    assert picture.shape == photo.shape


def test_cancelling_stops_the_fetching(run, on_the_hub, part, monkeypatch):
    management = part("nodes.host").model_management
    management.interrupt_current_processing(True)
    with pytest.raises(management.InterruptProcessingException):
        run("LoadEncoder", name="small", hub_file=HUB_FILE)
    management.interrupt_current_processing(False)
    assert run("LoadEncoder", name="small", hub_file=HUB_FILE)


@pytest.mark.parametrize(
    ("hub_file", "reason"),
    [
        ("me/model", "write owner/repository/file"),
        ("me/model/picture.png", "not a weight file"),
        ("me/model/other.pth", "no file me/model/other.pth on the Hub"),
        ("me/model/small-decoder.safetensors", "holds a decoder, not an encoder"),
    ],
)
def test_a_hub_file_that_is_none_is_one_sentence(run, on_the_hub, hub_file, reason):
    with pytest.raises((ValueError, OSError), match=reason):
        run("LoadEncoder", name="small", hub_file=hub_file)


def test_nothing_is_fetched_by_listing_or_asking_for_changes(part, on_the_hub, folders):
    node = part("nodes.networks").LoadEncoder
    assert "vgg19" in node.define_schema().inputs[0].options
    assert node.fingerprint_inputs(name="vgg19") == "vgg19"
    assert node.fingerprint_inputs(name="small", hub_file=HUB_FILE) == f"hf:{HUB_FILE}"
    assert not on_the_hub.requests
