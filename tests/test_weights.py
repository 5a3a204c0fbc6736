"""Networks from files: fingerprints, public files and folding, by docs/design.md, sections 5 and 7."""

import dataclasses
import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file

from adain_core import encode_style, stylize
from adain_core.cli import main
from adain_core.evaluation import plain
from adain_core.legacy import PAPER_ENCODER
from adain_core.weights import load_decoder, load_encoder, read_network, write_network


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    torch.manual_seed(5)
    torch.save(plain.encoder().state_dict(), folder / "vgg.pth")
    torch.save(plain.decoder().state_dict(), folder / "decoder.pth")
    return folder


def test_fingerprint_is_the_hash_of_biases_and_shapes(public):
    state = torch.load(public / "vgg.pth", weights_only=True)
    layers = sorted({int(name.split(".")[0]) for name in state})
    digest = hashlib.sha256(b"".join(state[f"{layer}.bias"].numpy().tobytes() for layer in layers))
    digest.update("".join(str(tuple(state[f"{layer}.weight"].shape)) for layer in layers).encode())
    assert load_encoder(str(public / "vgg.pth")).fingerprint == digest.hexdigest()


def test_the_reference_has_the_fingerprint_that_public_decoders_ask_for(reference):
    assert load_encoder(str(reference / "vgg_normalised.safetensors")).fingerprint == PAPER_ENCODER
    assert load_decoder(str(reference / "decoder.safetensors")).encoder_fingerprint == PAPER_ENCODER


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_convert_keeps_the_network_and_its_fingerprint(public, tmp_path, dtype, capsys):
    out = tmp_path / "vgg.safetensors"
    assert main(["convert", str(public / "vgg.pth"), "-o", str(out), "--dtype", dtype, "--licence", "MIT"]) == 0
    assert "encoder vgg19" in capsys.readouterr().out
    before, after = (read_network(path) for path in (public / "vgg.pth", out))
    assert after.licence == "MIT" and after.name == "vgg"
    assert after.encoder_fingerprint == before.encoder_fingerprint
    for name, tensor in before.state.items():
        assert after.state[name].float().equal(tensor if name.endswith("bias") or dtype == "float32" else tensor.half().float())


def test_layers_above_relu4_1_are_left_out(public, tmp_path):
    state = torch.load(public / "vgg.pth", weights_only=True)
    torch.save(state | {"32.weight": torch.rand(512, 512, 3, 3), "32.bias": torch.rand(512)}, tmp_path / "long.pth")
    assert load_encoder(str(tmp_path / "long.pth")).fingerprint == load_encoder(str(public / "vgg.pth")).fingerprint


def test_preprocessing_is_folded_exactly_at_the_border(public):
    state = torch.load(public / "vgg.pth", weights_only=True)
    network = plain.encoder()
    network.load_state_dict(state)
    picture = torch.rand(1, 3, 9, 11)
    found = load_encoder(str(public / "vgg.pth"), dtype="float32").features(picture, ["relu1_1"])[0]
    torch.testing.assert_close(found, network[:4](picture), rtol=1e-4, atol=1e-6)


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def whole_model(encoder, decoder):
    """As a public training saves it, its encoder in four parts."""
    starts = {"enc_4": 18, "enc_3": 11, "enc_2": 4, "enc_1": 0}

    def moved(name):
        number, _, kind = name.partition(".")
        part = next(part for part, start in starts.items() if int(number) >= start)
        return f"{part}.{int(number) - starts[part]}.{kind}"

    return {moved(name): tensor for name, tensor in encoder.items()} | prefixed(decoder, "decoder.")


WRAPPED = {
    "module.": lambda e, d: (prefixed(e, "module."), prefixed(d, "module.")),
    "_orig_mod.": lambda e, d: (prefixed(e, "_orig_mod."), prefixed(d, "_orig_mod.")),
    "module._orig_mod.": lambda e, d: (prefixed(e, "module._orig_mod."), prefixed(d, "module._orig_mod.")),
    "encoder. decoder.": lambda e, d: (prefixed(e, "encoder."), prefixed(d, "module.decoder.")),
    "state_dict": lambda e, d: ({"state_dict": e}, {"state_dict": d, "epoch": 3, "args": None, "best": 0.5}),
    "model": lambda e, d: ({"model": e, "optimizer": {"state": {0: torch.ones(2)}}}, {"step": 9, "model": d}),
    "nested": lambda e, d: ({"state_dict": {"encoder": e}}, {"model_state_dict": {"decoder": prefixed(d, "module.")}}),
    "both": lambda e, d: ({"encoder": e, "decoder": d, "step": 5},) * 2,
    "both in one": lambda e, d: ({"state_dict": prefixed(prefixed(e, "encoder.") | prefixed(d, "decoder."), "module.")},) * 2,
    "parts": lambda e, d: (whole_model(e, d), {"state_dict": prefixed(whole_model(e, d), "module.")}),
}  # fmt: skip


@pytest.mark.parametrize("how", WRAPPED)
def test_public_checkpoints_are_read_as_trainings_wrap_them(public, tmp_path, how):
    states = [torch.load(public / name, weights_only=True) for name in ("vgg.pth", "decoder.pth")]
    loaders = {"vgg.pth": load_encoder, "decoder.pth": load_decoder}
    for wrapped, (name, load) in zip(WRAPPED[how](*states), loaders.items(), strict=True):
        torch.save(wrapped, tmp_path / name)
        found, wanted = (load(str(folder / name)).state_dict() for folder in (tmp_path, public))
        assert found.keys() == wanted.keys() and all(found[key].equal(wanted[key]) for key in wanted)


def test_prefixes_in_safetensors_and_other_wrappings(public, tmp_path):
    state = torch.load(public / "decoder.pth", weights_only=True)
    save_file(prefixed(state, "module.decoder."), tmp_path / "decoder.safetensors")
    assert read_network(tmp_path / "decoder.safetensors").role == "decoder"
    torch.save({"module.1.weight": torch.ones(2), "1.bias": torch.ones(2)}, tmp_path / "mixed.pth")
    with pytest.raises(ValueError, match="layout of the weights is unknown"):
        load_decoder(str(tmp_path / "mixed.pth"))
    deep = {"state_dict": {"model": {"state_dict": {"model": {"model": state}}}}}
    for wrong in ({"state_dict": None}, deep, {"epoch": 1}, [state]):
        torch.save(wrong, tmp_path / "wrong.pth")
        with pytest.raises(ValueError, match="wrong.pth is not a state dict of named tensors"):
            load_decoder(str(tmp_path / "wrong.pth"))
    torch.save({"encoder": torch.load(public / "vgg.pth", weights_only=True)}, tmp_path / "encoder.pth")
    with pytest.raises(ValueError, match="holds an encoder, not a decoder"):
        load_decoder(str(tmp_path / "encoder.pth"))


class Code:
    def __reduce__(self):
        return (open, ("stolen", "w"))


def test_pickles_with_code_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, save in (("new.pth", torch.save), ("raw.pth", lambda thing, path: path.write_bytes(pickle.dumps(thing)))):
        save({"0.weight": Code()}, tmp_path / name)
        with pytest.raises(ValueError, match="not run|damaged"):
            load_encoder(name)
    assert not (tmp_path / "stolen").exists()


def damaged(public, change):
    state = torch.load(public / "vgg.pth", weights_only=True)
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("29.weight"), "29.weight"),
        (lambda s: s.update({"5.weight": torch.rand(64, 32, 3, 3)}), "conv1_2.weight is .64, 32, 3, 3."),
        (lambda s: s["9.weight"].fill_(float("nan")), "not finite"),
        (lambda s: s.clear(), "layout of the weights is unknown"),
        (lambda s: s.update({"note": "text"}), "state dict"),
    ],
)
def test_wrong_weights_are_refused(public, tmp_path, change, reason):
    torch.save(damaged(public, change), tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=reason):
        load_encoder(str(tmp_path / "wrong.pth"))


def test_numbers_too_large_for_a_number_type_are_refused(public, small_files, tmp_path):
    state = torch.load(public / "vgg.pth", weights_only=True)
    torch.save(state | {"9.weight": torch.full_like(state["9.weight"], 1e300, dtype=torch.float64)}, tmp_path / "double.pth")
    with pytest.raises(ValueError, match="not finite in conv2_1.weight"):
        load_encoder(str(tmp_path / "double.pth"))
    network = read_network(small_files[1])
    kernel = next(name for name in network.state if name.endswith("weight"))
    network.state[kernel] = torch.full_like(network.state[kernel], 1e5)
    with pytest.raises(ValueError, match=f"{kernel} holds numbers too large for torch.float16"):
        write_network(network, tmp_path / "half.safetensors", "float16")
    assert not (tmp_path / "half.safetensors").exists()
    write_network(network, tmp_path / "half.safetensors", "bfloat16")


def test_truncated_files_are_refused(public, tmp_path, small_files):
    for source, name in ((public / "decoder.pth", "short.pth"), (small_files[1], "short.safetensors")):
        (tmp_path / name).write_bytes(source.read_bytes()[:-100])
        with pytest.raises(ValueError, match="short"):
            load_decoder(str(tmp_path / name))


def test_roles_and_names_are_checked(public, small_files, tmp_path):
    with pytest.raises(ValueError, match="holds a decoder, not an encoder"):
        load_encoder(str(public / "decoder.pth"))
    with pytest.raises(ValueError, match="holds an encoder, not a decoder"):
        load_decoder(str(small_files[0]))
    with pytest.raises(FileNotFoundError, match="'nobody'"):
        load_encoder("nobody")
    with pytest.raises(ValueError, match="number type"):
        load_encoder(str(small_files[0]), dtype="float8")


def test_recipes_travel_with_the_file(small_files, tmp_path):
    import dataclasses

    network = dataclasses.replace(read_network(small_files[1]), recipe={"steps": 3, "loss": 1.5})
    write_network(network, tmp_path / "again.safetensors", "float16")
    assert read_network(tmp_path / "again.safetensors").recipe == {"steps": 3, "loss": 1.5}


def model(path, factor, like):
    """An encoder and its decoder in files that begin with `path`: those of `like`, multiplied by a factor."""
    encoder, decoder = (read_network(file) for file in like)
    scaled = [dataclasses.replace(n, state={name: w * factor for name, w in n.state.items()}) for n in (encoder, decoder)]
    encoder = scaled[0].checked()
    write_network(encoder, f"{path}-encoder.safetensors")
    decoder = dataclasses.replace(scaled[1], encoder_fingerprint=encoder.encoder_fingerprint, recipe={"factor": factor})
    write_network(decoder, f"{path}-decoder.safetensors")
    return str(path)


def test_the_mean_of_trainings_has_the_means_of_their_weights(small_files, tmp_path):
    first, second = (model(tmp_path / name, factor, small_files) for name, factor in (("a", 1.0), ("b", 2.0)))
    out = tmp_path / "new" / "mean"
    assert main(["average", first, second, "--weights", "3", "1", "-o", str(out)]) == 0
    for role, file in zip(("encoder", "decoder"), small_files, strict=True):
        found = read_network(f"{out}-{role}.safetensors")
        assert found.name == "mean"
        for name, tensor in read_network(file).state.items():
            torch.testing.assert_close(found.state[name].float(), 1.25 * tensor.float(), rtol=1e-3, atol=1e-6)
    assert [part["share"] for part in found.recipe["mean_of"]] == [0.75, 0.25]
    assert [part["recipe"]["factor"] for part in found.recipe["mean_of"]] == [1.0, 2.0]
    encoder, decoder = load_encoder(str(out)), load_decoder(str(out))
    picture = torch.rand(1, 3, 24, 30)
    assert stylize(encoder, decoder, picture, encode_style(encoder, picture)).shape == picture.shape


def test_in_a_mean_of_decoders_for_one_encoder_it_stays_as_it_is(small_files, tmp_path):
    first, second = (model(tmp_path / name, 1.0, small_files) for name in "ab")
    assert main(["average", first, second, "-o", str(tmp_path / "mean")]) == 0
    found = read_network(tmp_path / "mean-encoder.safetensors")
    assert found.encoder_fingerprint == read_network(small_files[0]).encoder_fingerprint


def test_a_mean_needs_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["average", "lite", "lite", "-o", "folder/"]) == 2
    assert "does not end in a name" in capsys.readouterr().err and not any(tmp_path.iterdir())


@pytest.mark.parametrize(("models", "more", "message"), [
    (["a"], [], "give at least two"),
    (["a", "none"], [], "there is no network"),
    (["a", "b"], ["--weights", "1"], "1 weights do not fit 2 models"),
    (["a", "b"], ["--weights", "1", "-1"], "at least 0 and not all 0"),
    (["a", "b"], ["--weights", "0", "nan"], "at least 0 and not all 0"),
    (["a", "lite"], [], "such have no mean"),
    (["a", "alone"], [], "for different encoders"),
    (["alone", "encoder"], [], "no network in common"),
])  # fmt: skip
def test_what_has_no_mean_is_refused(small_files, tmp_path, monkeypatch, capsys, models, more, message):
    monkeypatch.chdir(tmp_path)
    for name, factor in (("a", 1.0), ("b", 2.0), ("alone", 3.0), ("encoder", 4.0)):
        model(tmp_path / name, factor, small_files)
    (tmp_path / "alone-encoder.safetensors").unlink()
    (tmp_path / "encoder-decoder.safetensors").unlink()
    assert main(["average", *models, *more, "-o", "mean"]) == 2
    assert message in (err := capsys.readouterr().err) and err.count("\n") == 1
    assert not list(tmp_path.glob("mean*"))
