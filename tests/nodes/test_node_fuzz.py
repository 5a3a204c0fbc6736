"""Workflows from elsewhere: whatever a server lets through to a node is used, or refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

SECRET = "secret-encoder.safetensors"  # lies outside of every folder

texts = st.text(max_size=20) | st.text(alphabet=st.sampled_from("ab./\\:*?<>|\0\n \"'-_"), max_size=20)
ODD = [
    "small", "../secret", "../../secret-encoder.safetensors", "/etc/passwd", "~/.ssh/id_rsa", "CON", "nul.txt", "aux",
    "sub/../../secret", "..\\secret", "C:\\secret", "\\\\server\\share", "link/secret", "link", "\ud800", "a" * 300,
    "small-encoder.safetensors", "small-decoder.safetensors", "waves ", "waves.", ".hidden", "Small", "sea/waves", "sea//waves",
    "hf:a/b/c.pth",
]  # fmt: skip
names = texts | st.sampled_from(ODD)
others = st.none() | st.booleans() | st.integers() | st.lists(names, max_size=2) | st.dictionaries(names, names, max_size=1)
anything = names | others
numbers = st.sampled_from([0.0, 1.0, 0.5, float("nan"), -0.0, 1e-9])  # NaN is neither below a least nor above a most
tiles = st.sampled_from([-1, 0, 1, 64, 16384])
switches = st.booleans() | st.integers(-1, 2)


@pytest.fixture
def sockets(run, encoder, decoder, style, photo, painting, folders, small_files):
    """What is connected; beside the folders lie a secret, and links to it where there may be some."""
    (folders / SECRET).write_bytes(small_files[0].read_bytes())
    (folders / "output" / "adain_styles").mkdir(parents=True)
    (folders / "elsewhere").mkdir()
    (folders / "output" / "adain_styles" / "link").symlink_to(folders / "elsewhere")
    run("SaveStyle", style=style, name="waves")
    latent = {"samples": torch.rand(1, 4, 8, 8)}
    return {
        "encoder": encoder, "decoder": decoder, "style": style, "style_1": style, "style_2": style, "style_from": style,
        "style_to": style, "content": photo, "image": photo, "style_image": painting, "content_images": photo,
        "mask": torch.ones(1, 4, 4), "latent": latent, "reference": latent,
        "features": run("AdaIN", encoder=encoder, content=photo, style=style),
    }  # fmt: skip


NODES = {
    "LoadEncoder": ((), {"name": anything, "dtype": anything, "hub_file": anything}),
    "LoadDecoder": ((), {"name": anything, "dtype": anything, "hub_file": st.just("")}),
    "EncodeStyle": (("encoder", "image"), {"size": st.sampled_from([0, 1, 7, 64]), "combine": anything}),
    "StyleMix": (("style_1", "style_2"), {"weight_1": numbers, "weight_2": numbers}),
    "StyleSweep": (("style_from", "style_to"), {"frames": st.integers(2, 40), "curve": anything}),
    "SaveStyle": (("style",), {"name": anything}),
    "LoadStyle": ((), {"name": anything}),
    "AdaIN": (
        ("encoder", "content", "style"),
        {"alpha": numbers, "content_statistics": anything, "half_life": numbers, "tile": tiles},
    ),
    "Decode": (("decoder", "features"), {"tile": tiles}),
    "StyleTransfer": (
        ("content", "mask"),
        {
            "model": anything, "style": anything, "alpha": numbers, "keep_colors": switches,
            "working_size": st.integers(-1, 40), "detail": numbers, "content_statistics": anything, "texture": numbers,
        },
    ),
    "Refine": (
        ("image", "content", "style_image", "encoder"),
        {"steps": st.just(1), "alpha": numbers, "content_weight": numbers, "style_weight": numbers},
    ),
    "LatentAdaIN": (("latent", "reference"), {"alpha": numbers, "statistics": anything}),
    "LearnStyle": (
        ("encoder", "decoder", "style_image", "content_images"),
        {"steps": st.just(1), "learning_rate": numbers, "seed": st.integers(0, 2**32 - 2)},
    ),
}  # fmt: skip

CASES = {"LearnStyle": 5, "Refine": 20, "EncodeStyle": 10, "AdaIN": 15, "Decode": 5, "StyleTransfer": 40}


def written(folders: Path) -> set[Path]:
    return {
        path for path in folders.rglob("*") if path.is_file() and not {"output", "hf"} & set(path.relative_to(folders).parts)
    }


@pytest.mark.parametrize("name", NODES)
def test_any_value_is_used_or_refused_in_one_sentence(run, sockets, part, folders, served, name):
    connected, widgets = NODES[name]
    node = getattr(part("nodes"), name)
    before = written(folders)

    @settings(max_examples=CASES.get(name, 100))
    @given(values=st.fixed_dictionaries(widgets))
    def execute(values):
        if "fingerprint_inputs" in vars(node):
            inputs = dict.fromkeys(connected) | values
            assert node.fingerprint_inputs(**inputs) is not None
        try:
            result = run(name, **{key: sockets[key] for key in connected}, **values)
        except (ValueError, OSError) as error:
            text = str(error)
            assert "\n" not in text and len(text) < 1500, text
        else:
            if isinstance(result, torch.Tensor):
                assert result.isfinite().all() and 0 <= result.min() and result.max() <= 1

    execute()
    assert written(folders) == before  # but for what is saved in the output folder, and caches


@settings(max_examples=100)
@given(name=names)
def test_styles_lie_in_their_folder_under_names_that_every_system_takes(run, sockets, folders, name):
    place = folders / "output" / "adain_styles"
    before = {path for path in place.rglob("*.safetensors")}
    try:
        run("SaveStyle", style=sockets["style"], name=name)
    except ValueError as error:
        assert str(error).startswith((f"{name!r} is not a name for a style", f"{name!r} differs only in upper and lower case"))
        assert {path for path in place.rglob("*.safetensors")} == before
    else:
        stem = name.strip().removesuffix(".safetensors")
        assert (place / f"{stem}.safetensors").is_file() and (place / f"{stem}.safetensors").resolve().is_relative_to(place)
        assert run("LoadStyle", name=stem).name == stem.rpartition("/")[2]
    assert not os.path.lexists(folders / "secret.safetensors")


@pytest.mark.parametrize("value", [None, 5, 1.5, True, ["small"], {"a": 1}, b"small", torch.ones(1)])
def test_names_that_are_no_text_are_one_sentence(run, sockets, part, value):
    training = dict(
        encoder=sockets["encoder"], steps=1, batch_size=1, crop_size=32, learning_rate=1e-4, style_weight=1.0,
        content_weight=1.0, seed=0, preview_every=1, contents="(built-in examples)", styles="(built-in examples)", name="x",
    )  # fmt: skip
    for node, inputs in {
        "LoadEncoder": [{"name": value}, {"name": "small", "hub_file": value}, {"name": "small", "dtype": value}],
        "LoadDecoder": [{"name": value}, {"name": "small", "hub_file": value}],
        "LoadStyle": [{"name": value}],
        "SaveStyle": [{"style": sockets["style"], "name": value}],
        "StyleTransfer": [
            {"content": sockets["content"], "model": value, "style": "waves"},
            {"content": sockets["content"], "model": "small", "style": value},
        ],
        "TrainDecoder": [training | {key: value} for key in ("name", "contents", "styles", "start_from")],
    }.items():
        for chosen in inputs:
            kind = getattr(part("nodes"), node)
            if "fingerprint_inputs" in vars(kind):
                assert kind.fingerprint_inputs(**chosen) is not None
            with pytest.raises((ValueError, FileNotFoundError)) as caught:
                run(node, **chosen)
            assert "\n" not in str(caught.value)


@settings(max_examples=60)
@given(name=names)
def test_decoders_have_names_that_every_system_takes(part, folders, name):
    host = part("nodes.host")
    try:
        path, training = host.new_decoder_path(name)
    except ValueError as error:
        told = f"{name!r} is not a name for a decoder" in str(error)
        assert told or name.strip().removesuffix("-decoder.safetensors") == "small"  # which is there
    else:
        assert path.is_relative_to(folders / "output" / "adain")
        assert training.is_relative_to(folders / "output" / "adain_training") and training.name + "-decoder" == path.stem


def test_what_is_being_written_is_not_listed(run, sockets, part, folders):
    for left in ("output/adain_styles/.waves.adain-abcdefgh.safetensors", "models/adain/.x-encoder.adain-abcdefgh.safetensors"):
        (folders / left).write_bytes(b"half")
    assert part("nodes.styles").style_names() == ["waves"]
    assert not [name for name in part("nodes.networks").network_names("encoder") if name.startswith(".")]


def test_a_style_picture_that_would_become_huge_is_refused(run, encoder):
    with pytest.raises(ValueError, match="40000x1 pixels would have 163840000x4096 .*; give a smaller size, or 0 to keep it"):
        run("EncodeStyle", encoder=encoder, image=torch.rand(1, 1, 40_000, 3), size=4096)
    assert run("EncodeStyle", encoder=encoder, image=torch.rand(1, 1, 4000, 3), size=0)


@pytest.mark.parametrize(("value", "limit"), [("1000", 1000), ("", None), ("many", None)])
def test_the_limit_of_pixels_can_be_set_where_comfyui_is_started(part, monkeypatch, caplog, value, limit):
    from PIL import Image

    from adain_core.images import pixel_limit

    before = pixel_limit()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    monkeypatch.setenv("ADAIN_MAX_PIXELS", value)
    part("nodes.host").raise_pixel_limit()
    assert pixel_limit() == (limit or before)
    assert ("is no number" in caplog.text) == (value == "many")
