"""Which networks and styles belong together; nothing is fetched for those that do not."""

import dataclasses
import shutil

import pytest

from adain_core import catalog, load_encoder, load_style
from adain_core.cli import main
from adain_core.cli.options import NetworkOptions
from adain_core.images import load_image
from adain_core.weights import read_network, write_network

NAMES = {"model": None, "encoder": None, "decoder": None, "device": "cpu", "dtype": "float32"}


def names(**given):
    return tuple(NetworkOptions(**NAMES | given).names.values())


@pytest.mark.parametrize("given, expected", [
    ({}, ("lite", "lite")),
    ({"model": "vgg19"}, ("vgg19", "vgg19")),
    ({"encoder": "vgg19"}, ("vgg19", "vgg19")),
    ({"decoder": "vgg19"}, ("vgg19", "vgg19")),
    ({"encoder": "vgg19", "decoder": "mine.safetensors"}, ("vgg19", "mine.safetensors")),
    ({"encoder": "out/a-encoder.safetensors"}, ("out/a-encoder.safetensors", "out/a-decoder.safetensors")),
    ({"model": "out/a-decoder.safetensors"}, ("out/a-encoder.safetensors", "out/a-decoder.safetensors")),
    ({"model": "hf:me/model/a"}, ("hf:me/model/a-encoder.safetensors", "hf:me/model/a-decoder.safetensors")),
])  # fmt: skip
def test_one_name_stands_for_both_networks(given, expected):
    assert names(**given) == expected


def test_a_model_is_a_picture_with_its_two_networks(adain, folder):
    for number, networks in enumerate(
        (["--model", "small"], ["--encoder", "small"], ["--decoder", "small-decoder.safetensors"])
    ):
        assert adain("stylize", "photo.png", "red.png", "-o", f"{number}.png", "--device", "cpu", *networks)[0] == 0
    assert (folder / "0.png").read_bytes() == (folder / "1.png").read_bytes() == (folder / "2.png").read_bytes()


@pytest.mark.parametrize("networks, sentence", [
    (["--model", "small", "--decoder", "small"], "--model stands for both networks"),
    (["--model", "smal"], "there is no encoder 'smal'"),
    (["--encoder", "small", "--decoder", "vgg19"], "reads the encoder 'vgg19', which is not 'small'; give --model vgg19."),
    (["--model", "vgg19"], "the style 'sunset' was made by the encoder 'small', which is not 'vgg19'"),
])  # fmt: skip
def test_parts_that_do_not_fit_are_named_with_what_to_type(adain, served, folder, networks, sentence):
    status, err = adain("stylize", "photo.png", "sunset", "-o", "o.png", *networks)
    assert status == 2 and err.count("\n") == 1 and sentence in err
    assert not served.requests and not (folder / "o.png").exists()


def test_an_encoder_is_advised_for_a_decoder_of_ones_own(adain, folder):
    decoder = catalog.BUNDLED / "vgg19-decoder.safetensors"
    (folder / "mine-decoder.safetensors").write_bytes(decoder.read_bytes())
    networks = ["--encoder", "lite", "--decoder", "mine-decoder.safetensors"]
    status, err = adain("stylize", "photo.png", "red.png", "-o", "o.png", *networks)
    assert status == 2 and "which is not 'lite'; give --encoder vgg19." in err


def test_a_public_file_alone_is_answered_with_the_other_one(adain, reference):
    file = reference / "vgg_normalised.safetensors"
    status, err = adain("stylize", "photo.png", "red.png", "-o", "o.png", "--encoder", str(file))
    assert status == 2 and f"give --encoder {file} --decoder vgg19." in err


@pytest.fixture
def far(folder, served, listed):
    """The catalog has the bundled decoder near, and the encoder far, which is on the Hub with the fingerprint that is given."""

    def make(fingerprint: str, decoder_name: str = "near"):
        mirrors = [{"repo": "me/model", "file": "encoder.safetensors"}]
        listed(
            {"name": "far", "role": "encoder", "mirrors": mirrors, "fingerprint": fingerprint},
            {"name": decoder_name, "role": "decoder", "bundled": "near-decoder.safetensors"},
        )
        shutil.copy("small-decoder.safetensors", catalog.BUNDLED / "near-decoder.safetensors")
        served.serve("me/model/encoder.safetensors", folder / "small-encoder.safetensors")

    return make


def test_what_fits_by_the_catalog_is_fetched(adain, far, served, folder):
    far(load_encoder("small").fingerprint)
    status, err = adain("stylize", "photo.png", "sunset", "-o", "o.png", "--encoder", "far", "--decoder", "near")
    assert status == 0, err
    assert served.requests and (folder / "o.png").exists()


@pytest.mark.parametrize("fingerprint", ["0" * 64, ""])
def test_what_does_not_fit_is_not_fetched(adain, far, served, fingerprint):
    far(fingerprint, "far")
    status, err = adain("stylize", "photo.png", "red.png", "-o", "o.png", "--model", "far")
    assert status == 2 and "the decoder 'far' reads the encoder 'small', which is not 'far'" in err
    assert not served.requests


def test_a_style_file_of_another_encoder_is_refused_before_the_fetch(adain, far, served, folder):
    far(load_encoder("small").fingerprint)
    style = load_style("sunset.safetensors")
    object.__setattr__(style, "encoder_fingerprint", "1" * 64)
    style.save("sunset.safetensors")
    status, err = adain("stylize", "photo.png", "sunset", "-o", "o.png", "--encoder", "far", "--decoder", "near")
    assert status == 2 and "the style 'sunset' was made by" in err and "give a picture in place of the style file" in err
    assert not served.requests


def test_a_texture_is_for_a_decoder_that_paints_one(adain, served):
    command = ["stylize", "photo.png", "red.png", "-o"]
    for texture in ("0", "1"):
        assert adain(*command, f"{texture}.png", "--model", "small", "--texture", texture)[0] == 0
    assert not load_image("0.png").equal(load_image("1.png"))
    status, err = adain(*command, "o.png", "--model", "vgg19", "--texture", "0.5")
    assert status == 2 and "--texture does nothing: the decoder 'vgg19' paints none; leave it out" in err
    assert err.count("\n") == 1 and not served.requests


def test_a_model_on_the_hub_has_one_name(adain, served, folder):
    for role in ("encoder", "decoder"):
        served.serve(f"me/model/small-{role}.safetensors", folder / f"small-{role}.safetensors")
    assert adain("stylize", "photo.png", "red.png", "-o", "o.png", "--model", "hf:me/model/small")[0] == 0


def test_evaluation_does_not_fetch_what_does_not_fit(adain, far, served):
    far("0" * 64, "far")
    status, err = adain("evaluate", "--contents", ".", "--styles", ".", "--loss-encoder", "small", "--model", "far")
    assert status == 2 and "which is not 'far'" in err and not served.requests


@pytest.fixture
def other(folder):
    """A model named other, with an encoder of its own."""
    network = read_network("small-encoder.safetensors")
    state = {name: tensor * 2 for name, tensor in network.state.items()}
    network = dataclasses.replace(network, name="other", state=state).checked()
    write_network(network, "other-encoder.safetensors")
    decoder = dataclasses.replace(read_network("small-decoder.safetensors"), name="other", encoder_name="other")
    write_network(dataclasses.replace(decoder, encoder_fingerprint=network.encoder_fingerprint), "other-decoder.safetensors")


def test_a_style_file_for_several_encoders_goes_with_each(adain, other, folder, capsys):
    encoders = ["--encoder", "small", "--encoder", "other"]
    assert adain("style", "make", "red.png", "blue.png", "-o", "both.safetensors", *encoders)[0] == 0
    for name in ("small", "other"):
        assert adain("style", "make", "red.png", "blue.png", "-o", f"{name}.safetensors", "--encoder", name)[0] == 0
        for style in ("both", name):
            assert adain("stylize", "photo.png", style, "-o", f"{style}.png", "--model", name, "--device", "cpu")[0] == 0
        assert (folder / "both.png").read_bytes() == (folder / f"{name}.png").read_bytes()
    assert main(["style", "show", "both"]) == 0 and main(["style", "list"]) == 0
    out = capsys.readouterr().out
    assert out.count(": 6 + 8 channels") == 2 and "  encoder  other (" in out and "small, other" in out
    assert adain("style", "mix", "both", "sunset", "-o", "mix.safetensors")[0] == 0
    assert list(load_style("mix.safetensors").encoders.values()) == ["small"]
    status, err = adain("stylize", "photo.png", "both", "-o", "o.png", "--model", "vgg19")
    assert status == 2 and "made by the encoders 'small' and 'other', none of which is 'vgg19'; give a picture" in err


def test_an_encoder_that_is_given_twice_is_refused(adain):
    status, err = adain("style", "make", "red.png", "-o", "o.safetensors", "--encoder", "small", "--encoder", "small")
    assert status == 2 and "the same network" in err and err.count("\n") == 1


@pytest.mark.parametrize("model", ["lite", "vgg19"])
def test_every_bundled_style_is_for_the_bundled_models(model):
    """docs/design.md, section 5."""
    fingerprint = read_network(catalog.find_entry(model, "decoder").path).encoder_fingerprint
    files = list((catalog.BUNDLED / "styles").glob("*.safetensors"))
    assert len(files) >= 24
    for file in files:
        style = load_style(file)
        assert style.encoders[fingerprint] == model and style.source and style.licence and style.example
        assert model != "vgg19" or "1 %" in style.note
