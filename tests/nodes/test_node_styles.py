from __future__ import annotations

import base64
import dataclasses
import io

import pytest
import torch
from PIL import Image

from adain_core.weights import read_network, write_network


def levels(style):
    return style.components[0].levels


def test_a_style_lies_on_the_cpu_and_is_the_librarys(run, encoder, painting, part):
    style = run("EncodeStyle", encoder=encoder, image=painting, size=0)
    expected = part("adain_core").encode_style(encoder.model, painting.movedim(-1, 1), size=0)
    assert levels(style)[0].mean.device.type == "cpu"
    torch.testing.assert_close(levels(style)[1].mean, levels(expected)[1].mean)


def test_each_makes_a_style_per_picture(run, encoder):
    style = run("EncodeStyle", encoder=encoder, image=torch.rand(3, 32, 32, 3), size=0, combine="each")
    assert style.batch == 3


def test_transparent_parts_of_a_style_do_not_count(run, encoder, painting):
    see_through = torch.cat([painting, torch.ones_like(painting[..., :1])], dim=-1)
    see_through[:, :, 16:] = torch.tensor([1.0, 1.0, 1.0, 0.0])
    with_hole = run("EncodeStyle", encoder=encoder, image=see_through, size=0)
    opaque = run("EncodeStyle", encoder=encoder, image=see_through[..., :3], size=0)
    assert levels(with_hole)[0].count < levels(opaque)[0].count


def test_matched_colours_change_the_style_and_leave_the_picture(run, encoder, painting, photo):
    before = painting.clone()
    plain = run("EncodeStyle", encoder=encoder, image=painting, size=0)
    matched = run("EncodeStyle", encoder=encoder, image=painting, size=0, match_colors_of=photo)
    assert not torch.allclose(levels(plain)[0].mean, levels(matched)[0].mean)
    assert torch.equal(painting, before)


def test_colours_are_matched_by_what_the_mask_leaves(run, encoder, painting, photo):
    mask = torch.zeros(1, 32, 96)
    mask[..., :16] = 1
    found = []
    for color in (0.0, 1.0):
        image = torch.full((1, 32, 96, 3), color)
        image[:, :, :64] = painting.mean((1, 2)) + torch.linspace(-0.2, 0.2, 64)[:, None]  # far beyond the mask
        found.append(run("EncodeStyle", encoder=encoder, image=image, size=0, mask=mask, match_colors_of=photo))
    torch.testing.assert_close(*(levels(style)[0].mean for style in found))


def test_a_mix_is_by_weight_with_left_out_styles_left_out(run, encoder, painting, photo):
    a = run("EncodeStyle", encoder=encoder, image=painting, size=0)
    b = run("EncodeStyle", encoder=encoder, image=photo, size=0)
    mix = run("StyleMix", style_1=a, weight_1=1.0, style_2=b, weight_2=1.0, style_4=a, weight_4=2.0, weight_3=5.0)
    assert [float(component.weight) for component in mix.components] == [0.25, 0.25, 0.5]


def test_weights_that_are_all_zero_are_refused(run, style):
    with pytest.raises(ValueError, match="not all 0"):
        run("StyleMix", style_1=style, weight_1=0.0, style_2=style, weight_2=0.0)


def test_an_empty_mask_is_refused(run, style):
    with pytest.raises(ValueError, match="mask is empty"):
        run("MaskStyle", style=style, mask=torch.zeros(1, 64, 64))


def test_a_mask_a_little_above_1_counts_as_1(run, style):
    masked = run("MaskStyle", style=style, mask=torch.full((1, 8, 8), 1.0000001))
    assert masked.components[0].mask.max() == 1


@pytest.mark.parametrize("shape", [(6, 8), (1, 6, 8), (1, 6, 8, 1), (1, 1, 6, 8)])
def test_a_mask_is_one_mask_in_every_layout(run, style, shape):
    mask = torch.linspace(0, 1, 48).reshape(6, 8)
    for kind in (mask, mask.double(), mask > 0.5):
        masked = run("MaskStyle", style=style, mask=kind.reshape(shape))
        assert torch.equal(masked.components[0].mask, kind.float().reshape(1, 1, 6, 8))


def test_several_masks_in_every_layout(run, encoder):
    styles = run("EncodeStyle", encoder=encoder, image=torch.rand(3, 32, 32, 3), size=0, combine="each")
    masks = torch.rand(3, 6, 8)
    for given in (masks, masks[:, None], masks[..., None]):
        assert torch.equal(run("MaskStyle", style=styles, mask=given).components[0].mask, masks[:, None])


def test_fewer_masks_than_styles_repeat_their_last(run, encoder, style):
    masks = torch.rand(2, 16, 16)
    three = run("EncodeStyle", encoder=encoder, image=torch.rand(3, 32, 32, 3), size=0, combine="each")
    assert run("MaskStyle", style=three, mask=masks).components[0].mask[:, 0].equal(masks[[0, 1, 1]])
    two = run("MaskStyle", style=style, mask=masks)
    assert run("MaskStyle", style=two, mask=torch.ones(3, 16, 16)).components[0].mask[:, 0].equal(masks[[0, 1, 1]])
    mixed = run("StyleMix", style_1=three, weight_1=1.0, style_2=two, weight_2=1.0)
    assert mixed.components[1].mask[:, 0].equal(masks[[0, 1, 1]])
    assert run("StyleSweep", style_from=two, style_to=style, frames=5).batch == 5


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(0, 6, 8), torch.zeros(1, 0, 8), torch.zeros(0), torch.rand(5), torch.rand(1, 6, 8, 3),
        torch.rand(1, 1, 1, 6, 8), torch.full((1, 6, 8), float("nan")), "text", None, [[1.0]],
    ],
)  # fmt: skip
def test_what_is_no_mask_is_one_sentence(run, style, encoder, painting, mask):
    with pytest.raises(ValueError, match="connect a MASK|from 0 to 1"):
        run("MaskStyle", style=style, mask=mask)
    if mask is not None:  # which is no mask there
        with pytest.raises(ValueError, match="connect a MASK|from 0 to 1"):
            run("EncodeStyle", encoder=encoder, image=painting, mask=mask)


@pytest.mark.parametrize(("curve", "quarter"), [("linear", 0.25), ("smooth", 0.15625)])
def test_a_sweep_goes_from_one_style_to_the_other(run, encoder, painting, photo, curve, quarter):
    a = run("EncodeStyle", encoder=encoder, image=painting, size=0)
    b = run("EncodeStyle", encoder=encoder, image=photo, size=0)
    sweep = run("StyleSweep", style_from=a, style_to=b, frames=5, curve=curve)
    assert sweep.batch == 5
    weight = sweep.components[1].weight
    assert weight[[0, 1, 2, 4]].tolist() == [0, quarter, 0.5, 1]


def test_a_saved_style_is_listed_and_loads_the_same(run, style, painting, part, folders):
    run("SaveStyle", style=style, name="sea/waves", thumbnail=painting)
    node = part("nodes.styles").LoadStyle
    assert node.define_schema().inputs[0].options == ["sea/waves"]
    loaded = run("LoadStyle", name="sea/waves")
    assert loaded.name == "waves" and torch.equal(levels(loaded)[0].mean, levels(style)[0].mean)


@pytest.mark.parametrize("place", ["models/adain_styles", "bundled/styles"])
def test_a_style_that_another_would_be_loaded_for_is_not_saved(run, style, folders, place):
    (folders / place).mkdir(parents=True)
    style.save(folders / place / "foo.safetensors")
    with pytest.raises(ValueError, match="'foo' is the name of a style in .*; give your own another"):
        run("SaveStyle", style=style, name="foo")
    assert not (folders / "output" / "adain_styles").exists()


def test_a_saved_style_is_saved_again_once_it_is_removed(run, style, part, folders):
    version = part("nodes.styles").SaveStyle.fingerprint_inputs
    before = version(name="waves")
    run("SaveStyle", style=style, name="waves")
    assert version(name="waves") == before
    (folders / "output" / "adain_styles" / "waves.safetensors").unlink()
    again = version(name="waves")
    assert again != before
    run("SaveStyle", style=style, name="waves")
    assert version(name="waves") == again


def test_a_changed_style_file_runs_again(run, encoder, painting, photo, part):
    node = part("nodes.styles").LoadStyle
    run("SaveStyle", style=run("EncodeStyle", encoder=encoder, image=painting, size=0), name="one")
    first = node.fingerprint_inputs(name="one")
    assert node.fingerprint_inputs(name="one") == first
    run("SaveStyle", style=run("EncodeStyle", encoder=encoder, image=photo, size=0), name="one")
    assert node.fingerprint_inputs(name="one") != first


@pytest.mark.parametrize("name", ["", "  ", "..", "../escape", "/etc/escape", "a/../../escape", "sub/", "x:y", "nul\0"])
def test_a_style_is_saved_nowhere_else(run, style, folders, name):
    with pytest.raises(ValueError, match="is not a name for a style"):
        run("SaveStyle", style=style, name=name)
    assert not list(folders.rglob("*escape*"))


def test_a_style_that_is_not_there_is_one_sentence(run):
    with pytest.raises(FileNotFoundError, match="there is no style 'gone'; choose another"):
        run("LoadStyle", name="gone")


def test_the_gallery_has_every_style_and_of_a_damaged_one_the_name(run, encoder, painting, part, folders):
    run("SaveStyle", style=run("EncodeStyle", encoder=encoder, image=painting, size=0), name="sea/waves")
    (folders / "output" / "adain_styles" / "broken.safetensors").write_bytes(b"no style")
    broken, waves = part("nodes.styles").gallery()
    assert broken == {"name": "broken", "thumbnail": "", "example": "", "source": "", "not_for": []}
    with Image.open(io.BytesIO(base64.b64decode(waves["thumbnail"]))) as thumbnail:
        assert waves["name"] == "sea/waves" and max(thumbnail.size) == 96


def test_what_the_gallery_answers_does_not_grow_with_what_files_hold(run, style, part, folders):
    """The answer for three styles with huge fields is as small as for three usual ones."""
    place = folders / "output" / "adain_styles"
    place.mkdir(parents=True)
    for name, fields in {"a": {"thumbnail": b"\xff\xd8\xff" * (1 << 18)}, "b": {"source": "\x1b[2J" + "a" * (1 << 20)}}.items():
        dataclasses.replace(style, name=name, **fields).save(place / f"{name}.safetensors")
    huge = dataclasses.replace(style, source="a" * (1 << 23))
    huge.save(place / "c.safetensors")
    found = part("nodes.styles").gallery()
    assert [entry["name"] for entry in found] == ["a", "b", "c"]
    assert found[0]["thumbnail"] == "" and found[1]["source"].startswith(r"\x1b[2Ja")
    assert len(str(found)) < 20_000


@pytest.fixture
def stated(folders, small_files):
    """Two models, one and two, whose encoders differ and state their fingerprints, as those that are trained do."""
    place = folders / "models" / "adain"
    for name in ("one", "two"):
        network = read_network(small_files[0])
        state = {key: tensor * (2 if name == "one" else 3) for key, tensor in network.state.items()}
        network = dataclasses.replace(network, name=name, state=state).checked()
        write_network(network, place / f"{name}-encoder.safetensors")
        decoder = read_network(small_files[1])
        decoder = dataclasses.replace(decoder, encoder_name=name, encoder_fingerprint=network.encoder_fingerprint)
        write_network(decoder, place / f"{name}-decoder.safetensors")


@pytest.fixture
def both(run, part, stated, painting):
    """A style for the two models."""
    styles = [run("EncodeStyle", encoder=run("LoadEncoder", name=name), image=painting, size=0) for name in ("one", "two")]
    return part("adain_core.style").join_encoders(styles)


def test_a_style_for_two_models_goes_with_both_masked_mixed_and_saved(run, both, photo, painting):
    masked = run("MaskStyle", style=both, mask=torch.rand(1, 6, 8))
    run("SaveStyle", style=run("StyleMix", style_1=both, weight_1=1.0, style_2=masked, weight_2=2.0), name="mine")
    for name in ("one", "two"):
        encoder, decoder = run("LoadEncoder", name=name), run("LoadDecoder", name=name)
        features = run("AdaIN", encoder=encoder, content=photo, style=run("LoadStyle", name="mine"))
        long = run("Decode", decoder=decoder, features=features)
        short = run("StyleTransfer", content=photo, model=name, style="mine")
        torch.testing.assert_close(short, long)


def test_a_style_that_is_not_for_the_model_is_refused_before_anything_is_loaded(run, both, photo, part, monkeypatch, encoder):
    run("SaveStyle", style=both, name="both")
    run("SaveStyle", style=run("StyleMix", style_1=both, weight_1=1.0, style_2=both, weight_2=1.0), name="mix")
    lone = part("adain_core.style").load_style(part("nodes.styles").find_style("both"))
    run("SaveStyle", style=dataclasses.replace(lone, variants=()), name="one")
    monkeypatch.setattr(part("nodes.stylize"), "load_network", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match="the style 'one' is for 'one', not for the model 'two'; choose another style or"):
        run("StyleTransfer", content=photo, model="two", style="one")
    with pytest.raises(ValueError, match="'mix' is for 'one' and 'two', not for the model 'vgg19'"):
        run("StyleTransfer", content=photo, model="vgg19", style="mix")


def test_the_gallery_says_which_models_a_style_is_not_for(run, both, part, style):
    run("SaveStyle", style=both, name="both")
    run("SaveStyle", style=dataclasses.replace(both, variants=(), example=both.thumbnail), name="one")
    run("SaveStyle", style=style, name="small")
    found = {entry["name"]: entry for entry in part("nodes.styles").gallery()}
    # small's own file does not state its fingerprint, so that nothing is known of it
    assert {name: entry["not_for"] for name, entry in found.items()} == {"both": [], "one": ["two"], "small": ["one", "two"]}
    assert found["one"]["example"] == found["one"]["thumbnail"] != "" == found["both"]["example"]
