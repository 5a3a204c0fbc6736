"""AdaIN of a content: masks, weights and alpha by the formulas of docs/design.md, section 1."""

import pytest
import torch

from adain_core import adain, channel_statistics, decode, encode_style, load_encoder, mix_styles, stylize, transfer
from adain_core.affine import interpolate_styles


@pytest.fixture
def content():
    return torch.rand(1, 3, 4, 6)


@pytest.fixture
def styles(identity):
    return [encode_style(identity, torch.rand(1, 3, 5, 5) * scale, size=0) for scale in (1.0, 0.3)]


def level(features):
    return features.levels[0].cpu()


def plain_adain(x, style, content=None):
    return adain(x, style.to("cpu").components[0].levels[0], content=content)


def test_a_hard_mask_confines_the_style(identity, content, styles):
    mask = torch.zeros(4, 6)
    mask[:, :3] = 1
    found = level(transfer(identity, content, styles[0].masked(mask)))
    torch.testing.assert_close(found[..., :3], plain_adain(content, styles[0])[..., :3])
    assert found[..., 3:].equal(content[..., 3:])


def test_soft_masks_and_weights_follow_the_formula(identity, content, styles):
    masks = torch.rand(2, 4, 6)
    weights = [0.25, 0.75]
    mix = mix_styles([style.masked(mask) for style, mask in zip(styles, masks, strict=True)], weights)
    alpha = 0.6
    a = torch.stack([w * m for w, m in zip(weights, masks, strict=True)])
    a = a / a.sum(0)
    c = masks.sum(0).clamp(max=1)
    t = (1 - c) * content + c * (a[0] * plain_adain(content, styles[0]) + a[1] * plain_adain(content, styles[1]))
    torch.testing.assert_close(level(transfer(identity, content, mix, alpha)), alpha * t + (1 - alpha) * content)


def test_an_unmasked_style_fills_the_rest(identity, content, styles):
    mask = torch.zeros(4, 6)
    mask[:2] = 1
    mix = mix_styles([styles[0].masked(mask), styles[1]], [1, 0.0001])
    found = level(transfer(identity, content, mix))
    torch.testing.assert_close(found[:, :, 2:], plain_adain(content, styles[1])[:, :, 2:])
    torch.testing.assert_close(found[:, :, :2], plain_adain(content, styles[0])[:, :, :2], atol=1e-3, rtol=0)


def test_a_style_of_weight_zero_has_no_say(identity, content, styles):
    mask = torch.zeros(4, 6)
    mask[:2] = 1
    found = level(transfer(identity, content, mix_styles([styles[0], styles[1].masked(mask)], [0, 1])))
    assert found[:, :, 2:].equal(content[:, :, 2:]) and found.isfinite().all()


@pytest.mark.parametrize("case", ["masks apart", "one mask", "no mask", "a mix"])
def test_between_two_styles_is_the_weighted_mean_of_both(identity, content, styles, case):
    left, right = torch.zeros(2, 4, 6)
    left[:, :4], right[:, 2:] = 1, torch.rand(4, 4)
    first, last = styles
    if case == "masks apart":
        first, last = first.masked(left), last.masked(right)
    elif case == "one mask":
        last = last.masked(right)
    elif case == "a mix":
        first, last = mix_styles([first.masked(left), last.masked(right)], [0.2, 0.8]), first
    share = torch.tensor([0.0, 0.3, 1.0])
    found = level(transfer(identity, content, interpolate_styles(first, last, share)))
    ends = [level(transfer(identity, content, end)) for end in (first, last)]
    expected = [(1 - part) * ends[0] + part * ends[1] for part in share]
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_masks_of_another_size_are_area_resized(identity, styles):
    content = torch.rand(1, 3, 2, 2)
    mask = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2)  # half of the left column
    found = level(transfer(identity, content, styles[0].masked(mask)))
    expected = (plain_adain(content, styles[0]) + content) / 2
    torch.testing.assert_close(found[..., 0], expected[..., 0])
    assert found[..., 1].equal(content[..., 1])


def test_region_statistics_come_from_inside_the_mask(identity, content, styles):
    mask = torch.zeros(4, 6)
    mask[:, :2] = 1
    mix = mix_styles([styles[0].masked(mask), styles[1].masked(1 - mask)])
    found = level(transfer(identity, content, mix, content_statistics="region"))
    torch.testing.assert_close(found[..., :2], plain_adain(content[..., :2], styles[0]))
    torch.testing.assert_close(found[..., 2:], plain_adain(content[..., 2:], styles[1]))


def test_one_content_has_statistics_of_its_own_in_each_mask(identity, content, styles):
    masks = torch.zeros(2, 1, 4, 6)
    masks[0, ..., :2] = masks[1, ..., 2:] = 1
    found = level(transfer(identity, content, styles[0].masked(masks), content_statistics="region"))
    torch.testing.assert_close(found[:1, ..., :2], plain_adain(content[..., :2], styles[0]))
    torch.testing.assert_close(found[1:, ..., 2:], plain_adain(content[..., 2:], styles[0]))


def test_a_region_too_small_for_statistics_takes_the_picture(identity, content, styles):
    mask = torch.zeros(4, 6)
    mask[0, 0] = 0.5
    found = level(transfer(identity, content, styles[0].masked(mask), content_statistics="region"))
    torch.testing.assert_close(found, level(transfer(identity, content, styles[0].masked(mask))))


def test_batch_statistics_are_pooled_and_running_ones_follow(identity, styles):
    contents = torch.rand(3, 3, 4, 4) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1, 1)
    statistics = channel_statistics(contents)
    for mode, content in (("batch", statistics.pool()), ("running", statistics.running(2.0)), ("image", statistics)):
        found = level(transfer(identity, contents, styles[0], content_statistics=mode, half_life=2.0))
        torch.testing.assert_close(found, plain_adain(contents, styles[0], content))


def test_one_style_for_each_content(small):
    contents, pictures = torch.rand(2, 3, 12, 12), torch.rand(2, 3, 12, 12)
    each = encode_style(small[0], pictures, size=0, combine="each")
    together = stylize(*small, contents, each)
    for index in range(2):
        alone = stylize(*small, contents[index : index + 1], encode_style(small[0], pictures[index : index + 1], size=0))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)
    assert stylize(*small, contents[:1], each).shape[0] == 2


def test_alpha_zero_leaves_the_features_as_they_are(small):
    content = torch.rand(1, 3, 10, 10)
    style = encode_style(small[0], torch.rand(1, 3, 12, 12))
    features = small[0].encode(content.to(next(small[0].parameters())))
    assert all(map(torch.equal, transfer(small[0], content, style, alpha=0.0).levels, features))


@pytest.mark.parametrize("tile", [0, 64])
def test_the_content_is_kept_where_nothing_is_stylised(small, tile):
    contents = torch.rand(2, 3, 90, 110)
    style = encode_style(small[0], torch.rand(1, 3, 12, 12) * 0.3)
    assert stylize(*small, contents, style, alpha=0.0, tile=tile).equal(contents)
    masks = torch.zeros(2, 1, 90, 110)
    masks[0, ..., 50:] = masks[1, :, :30] = 1
    found, plain = (stylize(*small, contents, style.masked(masks), tile=tile, residual=r).cpu() for r in (True, False))
    inside = masks.expand_as(contents) == 1
    assert found[~inside].equal(contents[~inside]) and found[inside].equal(plain[inside])
    assert not torch.allclose(plain[~inside], contents[~inside], atol=0.1)


@pytest.mark.parametrize("tile", [0, 64])
def test_in_between_the_content_returns_by_the_formula(small, tile):
    content, mask = torch.rand(2, 3, 90, 110), torch.linspace(0.2, 1, 110).expand(90, 110)
    style = encode_style(small[0], torch.rand(1, 3, 12, 12) * 0.3).masked(mask)
    features = transfer(small[0], content, style, 0.5, tile=0)
    with torch.no_grad():
        stylised, own = (small[1](x)[..., :90, :110].cpu() for x in (features.levels, features.content_levels))
    expected = (stylised + (1 - 0.5 * mask) * (content - own)).clamp(0, 1)
    found = stylize(*small, content, style, 0.5, tile=tile, texture=0.0).cpu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_content_is_kept_in_each_of_its_styles(small):
    content, ramp = torch.rand(1, 3, 30, 40), torch.linspace(0, 1, 40).expand(30, 40)
    styles = encode_style(small[0], torch.rand(2, 3, 12, 12) * 0.3, combine="each").masked(ramp)
    together = stylize(*small, content, styles)
    for index in range(2):
        alone = stylize(*small, content, styles.select(torch.tensor([index])))
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)


def test_masks_that_fill_the_picture_and_the_full_style_take_one_decoding(small, monkeypatch):
    content, styles = torch.rand(1, 3, 40, 50), [encode_style(small[0], torch.rand(1, 3, 12, 12)) for _ in range(2)]
    decoded, forward = [], small[1].forward
    monkeypatch.setattr(small[1], "forward", lambda *given: decoded.append(1) or forward(*given))
    mask = torch.rand(40, 50)
    for style, count in ((mix_styles([styles[0].masked(mask), styles[1].masked(1 - mask)]), 1), (styles[0].masked(mask), 2)):
        decoded.clear()
        stylize(*small, content, style, tile=0)
        assert len(decoded) == count


def test_transparency_is_kept_and_has_no_influence(small):
    content = torch.rand(1, 3, 9, 7)
    alpha = torch.rand(1, 1, 9, 7).clamp(min=0.1)
    style = encode_style(small[0], torch.rand(1, 3, 12, 12))
    result = stylize(*small, torch.cat([content, alpha], 1), style).cpu()
    assert result[:, 3:].equal(alpha)
    torch.testing.assert_close(result[:, :3], stylize(*small, content, style).cpu())


@pytest.mark.parametrize("options", [{}, {"tile": 64}, {"working_size": 40}, {"content_statistics": "region"}])
def test_hidden_colours_of_contents_count_nowhere(small, options):
    content, visible = torch.rand(1, 3, 90, 70), torch.zeros(1, 1, 90, 70)
    visible[..., 20:70, :50] = 1
    style = encode_style(small[0], torch.rand(1, 3, 12, 12))
    if options.get("content_statistics") == "region":
        style = style.masked(torch.ones(90, 70))
    black, white = (
        stylize(*small, torch.cat([content * visible + hidden * (1 - visible), visible], 1), style, **options)
        for hidden in (0.0, 1.0)
    )
    torch.testing.assert_close(black, white)


def test_the_statistics_of_contents_are_of_what_is_visible(identity):
    content = torch.zeros(1, 4, 8, 8)
    content[:, :, :, 4:] = 1
    content[:, :3, :, 4:6] = 0.4
    (found,) = transfer(identity, content, encode_style(identity, torch.rand(1, 3, 8, 8), size=0)).content_statistics
    assert found.count.item() == 32 and found.mean.tolist() == [[pytest.approx(0.7)] * 3]


@pytest.mark.parametrize("options", [{}, {"working_size": 32}])
def test_a_soft_mask_ends_without_a_line(small, options):
    content = torch.rand(1, 3, 64, 64)
    mask = torch.linspace(-0.5, 1, 64).clamp(min=0).expand(64, 64)
    style = encode_style(small[0], torch.rand(1, 3, 12, 12)).masked(mask)
    change = (stylize(*small, content, style, **options).cpu() - content).abs()
    assert change[..., mask[0] == 0].max() == 0
    assert change[..., (mask[0] > 0) & (mask[0] < 0.025)].max() < 0.4 * change.max()


def test_nothing_given_is_changed(small):
    content, picture = torch.rand(1, 3, 9, 7), torch.rand(1, 3, 9, 7)
    before = content.clone(), picture.clone()
    stylize(*small, content, encode_style(small[0], picture, size=0))
    assert content.equal(before[0]) and picture.equal(before[1])


def test_networks_loaded_and_run_in_inference_mode_can_be_trained_through(small_files, device):
    with torch.inference_mode():
        encoder = load_encoder(str(small_files[0]), device, "float32")
        encode_style(encoder, torch.rand(1, 3, 8, 8))
    x = torch.rand(1, 3, 8, 8, device=device, requires_grad=True)
    with pytest.raises(ValueError, match="loaded for use"):
        encoder.encode(x)
    encoder.plain = True
    encoder.encode(x)[-1].sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"alpha": 1.5}, "alpha"),
        ({"content_statistics": "frame"}, "content_statistics"),
        ({"content_statistics": "region"}, "mask"),
        ({"content": torch.full((1, 3, 2, 2), float("inf"))}, "NaN or infinite"),
    ],
)
def test_impossible_requests_are_refused(identity, content, styles, options, reason):
    with pytest.raises(ValueError, match=reason):
        transfer(identity, **({"content": content, "style": styles[0]} | options))


def test_batches_that_do_not_fit_are_refused(identity, content):
    style = encode_style(identity, torch.rand(2, 3, 4, 4), combine="each")
    with pytest.raises(ValueError, match="2 styles do not fit 3 contents"):
        transfer(identity, content.expand(3, -1, -1, -1), style)


def test_strangers_are_named(identity, small, content, styles):
    with pytest.raises(ValueError, match="'identity'.*'small'"):
        transfer(small[0], content, styles[0])
    with pytest.raises(ValueError, match="'small'.*'identity'"):
        decode(small[1], transfer(identity, content, styles[0]))


def test_results_are_float32_where_the_content_lies_whatever_the_default_type(small, device):
    content, before = torch.rand(1, 3, 70, 90, device=device), torch.get_default_dtype()
    wanted = stylize(*small, content, encode_style(small[0], torch.ones(1, 3, 9, 9).triu(), size=0))
    try:
        for dtype in (torch.float64, torch.bfloat16):
            torch.set_default_dtype(dtype)
            style = encode_style(small[0], torch.ones(1, 3, 9, 9, dtype=torch.float32).triu(), size=0)
            for tile in (0, 64):
                result = stylize(*small, content, mix_styles([style, style], [1, 2]), tile=tile)
                assert result.dtype == torch.float32 and result.device == content.device
                torch.testing.assert_close(result, wanted)
    finally:
        torch.set_default_dtype(before)
