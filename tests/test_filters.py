from __future__ import annotations

import dataclasses

import pytest
import torch

from adain_core import load_encoder
from adain_core.cli import main
from adain_core.evaluation import plain
from adain_core.filters import mean_activations, normalise, scale_filters
from adain_core.images import save_image
from adain_core.networks.student import StudentEncoder
from adain_core.networks.vgg import VGGEncoder
from adain_core.weights import NetworkFile, read_network, write_network


def vgg() -> NetworkFile:
    state = {f"{name}.{part}": tensor for name, part, tensor in _public()}
    return NetworkFile("encoder", "vgg19", {}, state, "vgg")


def _public():
    layers = [layer for layer in plain.encoder() if isinstance(layer, torch.nn.Conv2d)]
    for name, layer in zip(VGGEncoder({}).layer_names(), layers, strict=True):
        yield name, "weight", layer.weight * 1.4
        yield name, "bias", layer.bias + 0.01


def student() -> NetworkFile:
    """Without residual blocks, which cannot be normalised."""
    config = {"channels": [5, 7, 6], "blocks": [0, 0, 0]}
    drawn = StudentEncoder(config).state_dict().items()
    state = {name: tensor + 1 if name.endswith("bias") else tensor / 2 for name, tensor in drawn}  # all filters are active
    return NetworkFile("encoder", "student", config, state, "student")


def random_scales(network, seed) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for i in range(3) for layer in (f"down.{i}", f"conv.{i}.0")]
    biases = {layer: network.state[f"{layer}.bias"] for layer in layers}
    return {layer: torch.exp(3 * torch.randn(bias.shape, generator=generator)) for layer, bias in biases.items()}


@pytest.fixture(params=[vgg, student])
def network(request) -> NetworkFile:
    return request.param()


@pytest.fixture
def encoder_file(tmp_path) -> str:
    write_network(student(), tmp_path / "student-encoder.safetensors")
    return str(tmp_path / "student-encoder.safetensors")


@pytest.fixture
def images() -> list[torch.Tensor]:
    return [torch.rand(1, 3, 24, 20), torch.rand(2, 3, 17, 31)]


def features(network, picture):
    encoder = network.build(dtype=torch.float64)
    student = network.architecture == "student"
    names = [f"conv.{i}.0" for i in range(3)] if student else [layer.replace("relu", "conv") for layer in encoder.layers]
    return dict(zip(names, encoder.features(picture, encoder.layers), strict=True))


def test_every_filter_has_a_mean_activation_of_one(network, images):
    means, count = mean_activations(normalise(network, images).build(), images)
    assert count == 3
    for mean in means.values():
        # a filter that was never active stays so
        torch.testing.assert_close(mean[mean > 0], torch.ones_like(mean[mean > 0]), rtol=1e-3, atol=0)


def test_the_network_stays_the_same_function_up_to_the_scale_that_is_stored(network, images):
    normalised = normalise(network, images)
    scales = normalised.recipe["normalised"]["scale"]
    picture = torch.rand(1, 3, 21, 26)
    after = features(normalised, picture)
    for layer, before in features(network, picture).items():
        scale = torch.tensor(scales[layer], dtype=torch.float64)[:, None, None]
        torch.testing.assert_close(after[layer], before * scale, rtol=1e-4, atol=1e-6 * scale.max().item())


def test_any_positive_scales_keep_the_function_and_undo_each_other():
    network = student()
    for seed in range(5):
        scales = random_scales(network, seed)
        scaled = dataclasses.replace(network, state=scale_filters(network.state, scales))
        picture = torch.rand(1, 3, 15, 12)
        for layer, before in features(network, picture).items():
            after = features(scaled, picture)[layer]
            torch.testing.assert_close(after, before * scales[layer][:, None, None], rtol=1e-4, atol=1e-5)
        back = scale_filters(scaled.state, {layer: 1 / scale for layer, scale in scales.items()})
        for name, tensor in network.state.items():
            torch.testing.assert_close(back[name], tensor, rtol=1e-5, atol=1e-7)


def test_scales_of_before_make_no_difference(images):
    network = student()
    other = dataclasses.replace(network, state=scale_filters(network.state, random_scales(network, 0)))
    first, second = normalise(network, images), normalise(other, images)
    for name, tensor in first.state.items():
        torch.testing.assert_close(second.state[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_filter_that_is_never_active_stays_as_it_is(images):
    network = student()
    network.state["down.0.bias"][1] = -100
    normalised = normalise(network, images)
    assert normalised.recipe["normalised"]["scale"]["down.0"][1] == 1
    assert all(torch.isfinite(tensor).all() for tensor in normalised.state.values())


def test_nothing_that_is_given_is_changed_and_twice_is_the_same(network, images):
    before = {name: tensor.clone() for name, tensor in network.state.items()}
    first, second = normalise(network, images), normalise(network, images)
    assert all(network.state[name].equal(tensor) for name, tensor in before.items())
    assert all(first.state[name].equal(tensor) for name, tensor in second.state.items())
    assert first.recipe == second.recipe
    assert first.encoder_fingerprint == second.encoder_fingerprint != network.encoder_fingerprint


def test_decoders_and_no_pictures_are_refused(small_files):
    with pytest.raises(ValueError, match="only encoders"):
        normalise(read_network(small_files[1]), [torch.rand(1, 3, 8, 8)])
    with pytest.raises(ValueError, match="no pictures"):
        normalise(student(), [])


def test_an_encoder_with_residual_blocks_is_refused():
    network = StudentEncoder({"channels": [4, 5], "blocks": [0, 1]})
    with pytest.raises(ValueError, match="residual blocks"):
        normalise(NetworkFile("encoder", "student", network.config, network.state_dict(), "small"), [torch.rand(1, 3, 8, 8)])


def test_means_are_the_same_of_an_encoder_in_sixteen_bits(images):
    network = student()
    wanted, found = (mean_activations(network.build(dtype=dtype), images)[0] for dtype in (torch.float32, torch.bfloat16))
    assert all(found[layer].equal(mean) for layer, mean in wanted.items())


def test_convert_normalises_over_a_folder_and_stores_the_scale(encoder_file, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    for index in range(2):
        save_image(torch.rand(3, 30, 40), tmp_path / "pictures" / f"{index}.png")
    arguments = ["convert", encoder_file, "--normalise", str(tmp_path / "pictures"), "-o"]
    assert main([*arguments, str(tmp_path / "one.safetensors")]) == main([*arguments, str(tmp_path / "two.safetensors")]) == 0
    one, two = (read_network(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.recipe["normalised"]["pictures"] == 2 and len(one.recipe["normalised"]["scale"]["conv.1.0"]) == 7
    assert one.recipe == two.recipe and all(one.state[name].equal(tensor) for name, tensor in two.state.items())
    assert load_encoder(str(tmp_path / "one.safetensors")).fingerprint != load_encoder(encoder_file).fingerprint
    assert main([*arguments[:-2], str(tmp_path / "none"), "-o", str(tmp_path / "three.safetensors")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_convert_leaves_broken_files_out_and_counts_them(encoder_file, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    save_image(torch.rand(3, 30, 40), tmp_path / "pictures" / "a.png")
    arguments = ["convert", encoder_file, "--normalise", str(tmp_path / "pictures"), "-o"]
    assert main([*arguments, str(tmp_path / "one.safetensors")]) == 0
    (tmp_path / "pictures" / "broken.png").write_text("no picture")
    capsys.readouterr()
    assert main([*arguments, str(tmp_path / "two.safetensors")]) == 0
    out, err = capsys.readouterr()
    assert "normalised over 1 pictures, 1 files unreadable" in out and "broken.png" in err
    assert read_network(tmp_path / "one.safetensors").recipe == read_network(tmp_path / "two.safetensors").recipe
    (tmp_path / "pictures" / "a.png").unlink()
    assert main([*arguments, str(tmp_path / "three.safetensors")]) == 2
    assert "there are no pictures to normalise over" in capsys.readouterr().err


def test_every_position_counts_once_in_a_picture_that_is_computed_in_bands():
    """256 rows of 64 channels are more than one band, whose borders overlap."""
    encoder, picture = vgg().build(), torch.rand(1, 3, 256, 256)
    means, _ = mean_activations(encoder, [picture])
    for layer, features in zip(encoder.layers, encoder.features(picture, encoder.layers), strict=True):
        mean = features.double().mean((0, 2, 3))
        torch.testing.assert_close(means[layer.replace("relu", "conv")], mean, rtol=1e-5, atol=1e-7)
