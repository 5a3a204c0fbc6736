"""Styles: mixing by docs/design.md, section 1, and their files, by section 5."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save

from adain_core import channel_statistics, encode_style, load_style, mix_styles, stylize
from adain_core.cli import main
from adain_core.errors import AdainError
from adain_core.style import join_encoders, pool_styles


def picture(*values: float) -> torch.Tensor:
    """One row of grey pixels."""
    return torch.tensor(values).expand(1, 3, 1, -1)


def first(style):
    return style.to("cpu").components[0].levels[0]


def described(*fingerprints: str) -> dict[str, str]:
    """The metadata of a style file."""
    encoders = [{"fingerprint": fingerprint, "name": fingerprint} for fingerprint in fingerprints]
    return {"format": "adain-style-2", "encoders": json.dumps(encoders)}


def test_a_thumbnail_is_made_of_a_large_picture_s_reduced_copy(identity, monkeypatch):
    seen = []
    monkeypatch.setattr("adain_core.style.thumbnail_jpeg", lambda image: seen.append(tuple(image.shape)) or b"")
    for size in (20, 80):
        encode_style(identity, torch.rand(2, 3, 40, 60), size)
    assert seen == [(1, 3, 20, 30), (1, 3, 40, 60)]


def test_pool_and_each(identity):
    images = torch.cat([picture(0.2, 0.4), picture(0.6, 0.8)])
    pooled = encode_style(identity, images, size=0)
    assert first(pooled).mean[0].tolist() == pytest.approx([0.5] * 3) and first(pooled).count.item() == 4
    each = encode_style(identity, images, size=0, combine="each")
    assert first(each).mean[:, 0].tolist() == pytest.approx([0.3, 0.7]) and each.batch == 2
    with pytest.raises(ValueError, match="combine"):
        encode_style(identity, images, combine="sum")


def test_each_needs_something_to_measure_in_every_picture(identity):
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="mask|transparent"):
        encode_style(identity, images, mask=torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(2, 4, 4), size=0, combine="each")


def test_pictures_of_any_size_pool(identity):
    styles = [encode_style(identity, picture(*values), size=0) for values in ((0.1, 0.2, 0.9), (0.4,))]
    assert first(pool_styles(styles)).mean[0, 0].item() == pytest.approx(0.4)


def test_size_is_the_smallest_side(identity):
    style = encode_style(identity, torch.rand(1, 3, 20, 40), size=10)
    assert first(style).count.item() == 10 * 20


def test_only_the_masked_and_opaque_part_counts(identity):
    image, mask = picture(0.2, 0.4, 0.9), torch.tensor([[1.0, 1.0, 0.0]])
    assert first(encode_style(identity, image, size=0, mask=mask)).mean[0, 0].item() == pytest.approx(0.3)
    transparent = torch.cat([image, mask[None, None]], dim=1)
    assert first(encode_style(identity, transparent, size=0)).mean[0, 0].item() == pytest.approx(0.3)


def test_weights_are_normalised_and_nest(identity):
    a, b, c = (encode_style(identity, picture(v, v), size=0) for v in (0.1, 0.2, 0.3))
    mix = mix_styles([mix_styles([a, b], [2, 6]), c], [3, 1])
    assert [component.weight.item() for component in mix.components] == pytest.approx([3 / 16, 9 / 16, 1 / 4])


def test_weights_along_a_batch(identity):
    a, b = (encode_style(identity, picture(v, v), size=0) for v in (0.1, 0.2))
    sweep = mix_styles([a, b], [torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.0, 0.5, 1.0])])
    assert sweep.batch == 3 and sweep.components[1].weight.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("weights", [[-1, 2], [0, 0], [1], [float("nan"), 1]])
def test_impossible_weights_are_refused(identity, weights):
    style = encode_style(identity, picture(0.5, 0.1))
    with pytest.raises(ValueError, match="weight"):
        mix_styles([style, style], weights)


def test_styles_of_two_encoders_do_not_mix(identity, small_files):
    style = encode_style(identity, picture(0.5, 0.1))
    other = dataclasses.replace(style, encoder_fingerprint="other", encoder_name="vgg19")
    with pytest.raises(ValueError, match="'vgg19'.*'identity'"):
        mix_styles([style, other])


def test_masks_of_masks_multiply(identity):
    style = encode_style(identity, picture(0.5, 0.1)).masked(torch.tensor([[1.0, 0.5]]))
    again = style.masked(torch.tensor([[0.5, 0.5, 1.0, 1.0]]))
    assert again.components[0].mask.flatten().tolist() == [0.5, 0.5, 0.5, 0.5]
    fine, coarse = torch.rand(6, 8), torch.rand(3, 4)
    orders = style.masked(fine).masked(coarse), style.masked(coarse).masked(fine)
    torch.testing.assert_close(*(order.components[0].mask for order in orders))  # in the finer detail of both


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (torch.zeros(4, 4), "empty"),
        (torch.full((4, 4), 2.0), "0 to 1"),
        (torch.full((4, 4), float("nan")), "0 to 1"),
        (torch.ones(4), "shape"),
    ],
)
def test_impossible_masks_are_refused(identity, mask, reason):
    with pytest.raises(ValueError, match=reason):
        encode_style(identity, picture(0.5, 0.1)).masked(mask)


@pytest.mark.parametrize(
    "image", [torch.full((1, 3, 2, 2), float("nan")), torch.ones(3, 2, 2), torch.ones(1, 3, 2, 2, dtype=torch.uint8)]
)
def test_impossible_pictures_are_refused(identity, image):
    with pytest.raises(ValueError, match="style picture"):
        encode_style(identity, image)


def test_a_saved_style_comes_back(identity, tmp_path):
    a, b = (encode_style(identity, torch.rand(2, 3, 9, 7), combine="each") for _ in range(2))
    mask = torch.rand(1, 1, 6, 5)
    style = dataclasses.replace(mix_styles([a.masked(mask), b], [1, 3]), name="pair", source="a museum", licence="CC0")
    style.save(tmp_path / "style.safetensors")
    loaded = load_style(tmp_path / "style.safetensors")
    assert (loaded.name, loaded.source, loaded.licence) == ("pair", "a museum", "CC0")
    assert loaded.encoder_fingerprint == "identity"
    assert loaded.thumbnail == style.thumbnail and loaded.thumbnail[:2] == b"\xff\xd8"
    assert [c.weight.tolist() for c in loaded.components] == [[0.25, 0.25], [0.75, 0.75]]
    torch.testing.assert_close(first(loaded).std, first(style).std)
    torch.testing.assert_close(loaded.components[0].mask, mask, atol=0.002, rtol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["style.safetensors"]


def test_large_masks_are_stored_small(identity, tmp_path):
    style = encode_style(identity, picture(0.5, 0.1)).masked(torch.ones(700, 30))
    style.save(tmp_path / "style.safetensors")
    assert load_style(tmp_path / "style.safetensors").components[0].mask.shape == (1, 1, 512, 30)


def test_damaged_style_files_are_refused(identity, tmp_path, small_files):
    path = tmp_path / "style.safetensors"
    encode_style(identity, picture(0.5, 0.1)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="safetensors"):
        load_style(path)
    path.write_bytes(whole.replace(b"identity.level.0.m2", b"identity.level.0.mX"))
    with pytest.raises(ValueError, match="damaged"):
        load_style(path)
    with pytest.raises(ValueError, match="not a style file"):
        load_style(small_files[0])
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_style(tmp_path / "none.safetensors")


def test_statistics_that_cannot_be_are_refused(identity, tmp_path):
    style = encode_style(identity, picture(0.5, 0.1))
    broken = channel_statistics(torch.full((1, 3, 2, 2), float("nan")))
    component = dataclasses.replace(style.components[0], levels=(broken,))
    dataclasses.replace(style, components=(component,)).save(tmp_path / "style.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        load_style(tmp_path / "style.safetensors")


def test_a_file_holds_no_more_styles_than_it_is_for(identity, tmp_path):
    """A weight of four bytes in a file would be a picture of any size."""
    style = encode_style(identity, torch.rand(1, 3, 8, 8))
    path = tmp_path / "sweep.safetensors"

    def swept(count):
        return mix_styles([style, style], [torch.linspace(0, 1, count), torch.linspace(1, 0, count)])

    swept(64).save(path)
    assert load_style(path).batch == 64
    with pytest.raises(AdainError, match="a style file holds at most 64 styles .* not 65 of 2; save the styles"):
        swept(65).save(path)
    metadata = described("identity")
    for wrong in (swept(1000), mix_styles([style] * 257)):
        (tmp_path / "wrong.safetensors").write_bytes(save(wrong.tensors(), metadata))
        with pytest.raises(AdainError, match="wrong.safetensors is damaged .*(a file holds at most 64|more than 256 parts)"):
            load_style(tmp_path / "wrong.safetensors")
    tensors = swept(3).tensors()
    for name, tensor in {
        "component.0.mask": torch.ones(65, 1, 2, 2, dtype=torch.uint8),
        "component.1.mask": torch.ones(1, 1, 1, 1000, dtype=torch.uint8),
        "component.0.weight": torch.ones(2),
        "component.1.weight": torch.full((3,), 3e38),
        "component.1.identity.level.0.mean": torch.ones(1000, 3),
    }.items():
        (tmp_path / "wrong.safetensors").write_bytes(save(tensors | {name: tensor}, metadata))
        with pytest.raises(AdainError, match="wrong.safetensors is damaged"):
            load_style(tmp_path / "wrong.safetensors")


ESCAPES = "\x1b]0;stolen\x07\x1b[2Jwaves\nlicence\u202e \ud800"


def test_a_styles_texts_are_shown_and_not_obeyed(identity, tmp_path, capsys):
    path = tmp_path / "style.safetensors"
    style = dataclasses.replace(
        encode_style(identity, torch.rand(1, 3, 8, 8)), name=ESCAPES, source=ESCAPES, encoder_name=ESCAPES,
        licence="Musée\xa0d’Orsay 漢字" + "a" * 9999, encoder_fingerprint=ESCAPES,
    )  # fmt: skip
    style.save(path)
    loaded = load_style(path)
    assert loaded.name == r"\x1b]0;stolen\x07\x1b[2Jwaves\nlicence\u202e ?"
    assert loaded.licence.startswith("Musée\xa0d’Orsay 漢字aaa") and len(loaded.licence) == 2000
    assert main(["style", "show", str(path), str(tmp_path / "no\x1b[2J")]) == 2
    out, err = capsys.readouterr()
    assert out.count(r"\x1b[2Jwaves") == 3 and "\x1b" not in out + err and r"no\x1b[2J" in err and out.count("\n") == 5


@pytest.mark.parametrize("thumbnail", ["/9j/" + "A" * (1 << 20), "iVBORw0KGgo=", "javascript:", "%"])
def test_a_thumbnail_is_a_small_jpeg(identity, tmp_path, thumbnail):
    path = tmp_path / "style.safetensors"
    style = encode_style(identity, torch.rand(1, 3, 8, 8))
    for key in ("thumbnail", "example"):
        path.write_bytes(save(style.tensors(), described("identity") | {key: thumbnail}))
        assert getattr(load_style(path), key) == b""


@pytest.fixture
def two(identity, small):
    """A picture as a style for two encoders, and what each alone makes of it."""
    image = torch.rand(1, 3, 20, 20)
    alone = [encode_style(encoder, image, size=0) for encoder in (identity, small[0])]
    return join_encoders(alone), *alone


def same(one, other):
    levels = zip(one.components[0].levels, other.components[0].levels, strict=True)
    return all(torch.allclose(a.std, b.std.to(a.std.device)) for a, b in levels)


def test_a_style_for_two_encoders_is_in_one_file(two, identity, small, tmp_path):
    both, *alone = two
    path = tmp_path / "style.safetensors"
    dataclasses.replace(both, example=both.thumbnail, note="a copy").masked(torch.rand(3, 4)).save(path)
    loaded = load_style(path)
    assert loaded.encoders == {"identity": identity.name, small[0].fingerprint: "small"}
    assert loaded.example == both.thumbnail and loaded.note == "a copy"
    for encoder, one in zip((identity, small[0]), alone, strict=True):
        picked = loaded.for_encoder(encoder)
        assert same(picked, one) and picked.encoder_name == encoder.name and picked.components[0].mask.shape == (1, 1, 3, 4)
    content = torch.rand(1, 3, 24, 30).to(next(small[0].parameters()).device)
    assert torch.equal(stylize(*small, content, both), stylize(*small, content, alone[1]))


def test_a_mix_is_for_the_encoders_of_all_its_styles(two, identity, small):
    both, for_identity, for_small = two
    mix = mix_styles([both, both.masked(torch.ones(2, 2))], [1, 3])
    assert list(mix.encoders) == ["identity", small[0].fingerprint]
    assert [component.weight.item() for component in mix.for_encoder(small[0]).components] == [0.25, 0.75]
    alone = mix_styles([both, for_small])
    assert list(alone.encoders) == [small[0].fingerprint] and same(alone, for_small)
    with pytest.raises(AdainError, match="'small', the styles before it by 'identity'; encode"):
        mix_styles([both, for_identity, for_small])


def test_a_style_for_other_encoders_is_refused_with_the_names_of_all(two, networks):
    variants = tuple(dataclasses.replace(variant, encoder_fingerprint="1" * 64) for variant in two[0].variants)
    other = dataclasses.replace(two[0], encoder_fingerprint="0" * 64, variants=variants)
    with pytest.raises(AdainError, match="by the encoders 'identity' and 'small', the content's features by 'small'; encode"):
        stylize(*networks, torch.rand(1, 3, 24, 30), other)


def test_two_styles_of_one_encoder_and_different_ones_are_not_joined(two):
    both, for_identity, for_small = two
    with pytest.raises(AdainError, match="same network .*give each once"):
        join_encoders([for_identity, for_identity])
    with pytest.raises(AdainError, match="as many parts"):
        join_encoders([for_identity, mix_styles([for_small, for_small])])


def test_a_file_of_version_1_and_one_with_unknown_fields_are_read(identity, tmp_path):
    style = encode_style(identity, picture(0.1, 0.5))
    tensors = {name.replace(".identity", ""): tensor for name, tensor in style.tensors().items()}
    of_version_1 = {"format": "adain-style-1", "encoder_fingerprint": "identity", "encoder_name": "me", "name": "waves"}
    path = tmp_path / "style.safetensors"
    path.write_bytes(save(tensors, of_version_1))
    loaded = load_style(path)
    assert (loaded.encoders, loaded.name) == ({"identity": "me"}, "waves") and same(loaded, style)
    more = {"other": torch.zeros(2), "component.0.other": torch.zeros(2)}
    path.write_bytes(save(style.tensors() | more, described("identity") | {"newer": "field"}))
    assert same(load_style(path), style)
    path.write_bytes(save(style.tensors(), described("identity") | {"format": "adain-style-3"}))
    with pytest.raises(AdainError, match="not a style file of this format"):
        load_style(path)


@pytest.mark.parametrize(
    "encoders",
    ["", "[]", "{}", "[1]", '[{"fingerprint": "identity"}]', '[{"fingerprint": 1, "name": "a"}]', "[" * 9999,
     json.dumps([{"fingerprint": str(k), "name": ""} for k in range(9)]), '[{"fingerprint": "gone", "name": "gone"}]',
     json.dumps([{"fingerprint": f, "name": "a"} for f in ("identity", "gone")])],
)  # fmt: skip
def test_encoders_that_a_file_does_not_describe_or_does_not_hold_are_refused(identity, tmp_path, encoders):
    path = tmp_path / "style.safetensors"
    tensors = encode_style(identity, picture(0.1, 0.5)).tensors()
    path.write_bytes(save(tensors, {"format": "adain-style-2", "encoders": encoders}))
    with pytest.raises(AdainError, match="style.safetensors is damaged"):
        load_style(path)


def test_a_file_is_for_no_more_encoders_than_can_be_read(identity, tmp_path):
    style = encode_style(identity, picture(0.1, 0.5))
    nine = join_encoders([dataclasses.replace(style, encoder_fingerprint=str(number)) for number in range(9)])
    with pytest.raises(AdainError, match="at most 8 encoders, not 9"):
        nine.save(tmp_path / "style.safetensors")
