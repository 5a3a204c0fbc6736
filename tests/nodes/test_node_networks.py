from __future__ import annotations

import shutil

import pytest
import torch


def test_networks_stay_trainable_though_the_server_runs_in_inference_mode(encoder, decoder):
    assert not any(parameter.is_inference() for parameter in [*encoder.model.parameters(), *decoder.model.parameters()])


def test_a_number_type_is_taken(run):
    assert run("LoadEncoder", name="small", dtype="bfloat16").model.dtype == torch.bfloat16


def test_automatic_is_16_bits_where_the_device_is_good_at_it(run, part, monkeypatch):
    management = part("nodes.host").model_management
    monkeypatch.setattr(management, "should_use_fp16", lambda device: True)
    assert run("LoadDecoder", name="small", dtype="auto").model.dtype == torch.float16
    monkeypatch.setattr(management, "should_use_fp16", lambda device: False)
    assert run("LoadDecoder", name="small", dtype="auto").model.dtype == torch.float32


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
    options = part("nodes.networks").LoadEncoder.define_schema().inputs[0].options
    assert len(options) == 1 and "none found" in options[0]
    with pytest.raises(FileNotFoundError, match="there is no encoder yet; put NAME-encoder.safetensors into models/adain"):
        run("LoadEncoder", name=options[0])


def test_the_hub_is_refused_as_long_as_nothing_can_be_fetched(run):
    with pytest.raises(ValueError, match="cannot fetch files from the Hugging Face Hub; download"):
        run("LoadEncoder", name="small", hub_file="owner/repository/file.safetensors")
