from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch


@pytest.fixture
def stylize(run, encoder, decoder):
    def through_both_nodes(content, style, keep_colors_of=None, **options):
        features = run("AdaIN", encoder=encoder, content=content, style=style, **options)
        return run("Decode", decoder=decoder, features=features, keep_colors_of=keep_colors_of)

    return through_both_nodes


def library(part, encoder, decoder, content, style, **options):
    with torch.inference_mode():
        pictures = part("adain_core").stylize(encoder.model, decoder.model, content.movedim(-1, 1).float(), style, **options)
    return pictures.movedim(1, -1)


@pytest.mark.parametrize("mode", ["image", "batch", "running"])
def test_a_clip_in_chunks_is_the_librarys_result_in_one_go(stylize, style, part, encoder, decoder, mode):
    clip = torch.rand(5, 37, 45, 3)
    before = clip.clone()
    image = stylize(clip, style, content_statistics=mode, half_life=2.0, alpha=0.7)
    expected = library(part, encoder, decoder, clip, style, content_statistics=mode, half_life=2.0, alpha=0.7)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(clip, before)


def test_each_frame_meets_its_style_and_its_region(run, stylize, encoder, decoder, part, style):
    clip = torch.rand(3, 37, 45, 3)
    styles = run("EncodeStyle", encoder=encoder, image=torch.rand(3, 32, 32, 3), size=0, combine="each")
    mask = torch.zeros(3, 20, 20)
    mask[:, :, 8:] = torch.rand(3, 1, 1)
    masked = run("MaskStyle", style=styles, mask=mask)
    mix = run("StyleMix", style_1=masked, weight_1=1.0, style_2=style, weight_2=2.0)
    image = stylize(clip, mix, content_statistics="region")
    expected = library(part, encoder, decoder, clip, mix, content_statistics="region")
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-5)


def test_one_picture_in_a_sweep_is_a_clip(run, stylize, encoder, photo, style):
    other = run("EncodeStyle", encoder=encoder, image=photo, size=0)
    sweep = run("StyleSweep", style_from=style, style_to=other, frames=4)
    image = stylize(photo, sweep)
    assert image.shape == (4, 37, 45, 3)
    torch.testing.assert_close(image[:1], stylize(photo, style), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(image[3:], stylize(photo, other), rtol=1e-4, atol=1e-5)


def test_numbers_that_do_not_fit_are_refused(run, stylize, encoder):
    styles = run("EncodeStyle", encoder=encoder, image=torch.rand(2, 32, 32, 3), size=0, combine="each")
    with pytest.raises(ValueError, match="2 styles do not fit 3 contents"):
        stylize(torch.rand(3, 32, 32, 3), styles)


def test_transparency_is_carried_over(stylize, photo, style):
    alpha = torch.rand(1, 37, 45, 1).clamp(min=0.1)
    image = stylize(torch.cat([photo, alpha], dim=-1), style)
    torch.testing.assert_close(image[..., 3:], alpha)
    torch.testing.assert_close(image[..., :3], stylize(photo, style))


def test_the_picture_is_kept_where_no_style_is(stylize, run, photo, style):
    mask = torch.zeros(1, 37, 45)
    mask[..., 20:] = 1
    image = stylize(photo, run("MaskStyle", style=style, mask=mask))
    assert image[:, :, :20].equal(photo[:, :, :20]) and not torch.allclose(image, photo, atol=0.1)
    assert stylize(photo, style, alpha=0.0).equal(photo)


def test_half_precision_pictures_are_taken(stylize, photo, style):
    torch.testing.assert_close(stylize(photo.half(), style), stylize(photo, style), atol=0.02, rtol=0)


def test_results_have_the_hosts_number_type(stylize, photo, style, part, monkeypatch):
    assert stylize(photo, style).dtype == torch.float32
    monkeypatch.setattr(part("nodes.host").model_management, "intermediate_dtype", lambda: torch.float16)
    image = stylize(photo, style)
    assert image.dtype == torch.float16 and image.is_contiguous()


def test_colours_are_kept_frame_by_frame(stylize, style, part):
    clip = torch.rand(3, 37, 45, 3)
    image = stylize(clip, style, keep_colors_of=clip)
    plain = stylize(clip, style)
    expected = part("adain_core").keep_colors(plain.movedim(-1, 1), clip.movedim(-1, 1)).movedim(1, -1)
    torch.testing.assert_close(image, expected)


def test_colours_of_a_wrong_number_of_pictures_are_refused(stylize, style):
    clip = torch.rand(3, 32, 32, 3)
    with pytest.raises(ValueError, match="2 and 3 pictures cannot be paired"):
        stylize(clip[:2], style, keep_colors_of=clip)


def test_another_encoders_style_and_features_are_refused(run, encoder, decoder, photo, style):
    foreign = dataclasses.replace(style, encoder_fingerprint="other", encoder_name="other")
    with pytest.raises(ValueError, match="made by the encoder 'other', the content's features by 'small'"):
        run("AdaIN", encoder=encoder, content=photo, style=foreign)
    features = run("AdaIN", encoder=encoder, content=photo, style=style)
    other = dataclasses.replace(features.features, encoder_fingerprint="other", encoder_name="other")
    foreign = dataclasses.replace(features, features=other)
    with pytest.raises(ValueError, match="the decoder 'small' reads the encoder 'small', the features are of 'other'"):
        run("Decode", decoder=decoder, features=foreign)


def test_pixels_that_are_not_numbers_are_refused_before_any_work(run, encoder, decoder, photo, style, monkeypatch):
    features = run("AdaIN", encoder=encoder, content=photo, style=style)
    monkeypatch.setattr(encoder, "model", None)
    monkeypatch.setattr(decoder, "model", None)
    clip = torch.rand(3, 37, 45, 3)
    clip[2, 3, 3, 0] = float("nan")
    with pytest.raises(ValueError, match="the content picture holds NaN or infinite pixels"):
        run("AdaIN", encoder=encoder, content=clip, style=style)
    with pytest.raises(ValueError, match="the keep_colors_of picture holds NaN or infinite pixels"):
        run("Decode", decoder=decoder, features=features, keep_colors_of=clip)
    with pytest.raises(ValueError, match="the content picture holds NaN or infinite pixels"):
        run("StyleTransfer", content=clip, model="small", style="")


def test_the_short_way_is_the_long_way(run, stylize, photo, painting, encoder):
    run("SaveStyle", style=run("EncodeStyle", encoder=encoder, image=painting), name="painting")
    long = stylize(photo, run("LoadStyle", name="painting"), keep_colors_of=photo, alpha=0.5)
    short = run("StyleTransfer", content=photo, model="small", style="painting", alpha=0.5, keep_colors=True)
    torch.testing.assert_close(short, long, atol=0.02, rtol=0)  # its networks may be of 16 bits
    own = run("StyleTransfer", content=photo, model="small", style="", alpha=0.5, keep_colors=True, style_image=painting)
    torch.testing.assert_close(own, long, atol=0.02, rtol=0)


def test_the_short_way_has_all_that_the_library_has(run, encoder, decoder, part, painting):
    core = part("adain_core")
    clip, mask = torch.rand(2, 60, 80, 3), torch.zeros(1, 30, 40)
    mask[:, :, 20:] = 1
    pictures = clip.movedim(-1, 1)
    style = core.encode_style(encoder.model, painting.movedim(-1, 1), 24).masked(mask[0])
    options = {"content_statistics": "batch", "working_size": 32, "detail": 0.4, "texture": 0.5, "seed": 7}
    expected = core.stylize(encoder.model, decoder.model, pictures, style, **options).movedim(1, -1)
    own = {"style_image": painting, "style_size": 24, "mask": mask}
    found = run("StyleTransfer", content=clip, model="small", style="", **own, **options)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)  # its networks may be of 16 bits
    assert found[:, :, :38].equal(clip[:, :, :38])


@pytest.mark.parametrize("size, side", [(-1, 1024), (0, 0)])
def test_large_pictures_are_worked_on_at_1024_pixels_or_at_full_size(run, encoder, decoder, part, style, size, side):
    run("SaveStyle", style=style, name="painting")
    core, content = part("adain_core"), torch.rand(1, 1030, 1040, 3)
    expected = core.stylize(encoder.model, decoder.model, content.movedim(-1, 1), style, working_size=side).movedim(1, -1)
    found = run("StyleTransfer", content=content, model="small", style="painting", working_size=size)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_a_clip_the_short_way_is_its_pictures_each_by_itself(run, encoder):
    clip = torch.rand(3, 37, 45, 3)
    styles = run("EncodeStyle", encoder=encoder, image=torch.rand(3, 32, 32, 3), size=0, combine="each")
    run("SaveStyle", style=styles, name="each")
    run("SaveStyle", style=run("EncodeStyle", encoder=encoder, image=clip[:1], size=0), name="one")
    for style in ("one", "each"):
        together = run("StyleTransfer", content=clip, model="small", style=style, keep_colors=True)
        assert together.shape == clip.shape
    first = run("StyleTransfer", content=clip[:1], model="small", style="each", keep_colors=True)
    torch.testing.assert_close(first[:1], together[:1])
    assert first.shape == clip.shape
    with pytest.raises(ValueError, match="3 styles do not fit 2 contents"):
        run("StyleTransfer", content=clip[:2], model="small", style="each")


@pytest.mark.usefixtures("every_preview")
def test_progress_counts_pictures_and_shows_them(stylize, style, monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *update, **_: seen.append(update))
    stylize(torch.rand(3, 32, 32, 3), style)
    encoding, decoding = [u for u in seen if u[2] is None], [u for u in seen if u[2] is not None]
    assert (3, 3) in [u[:2] for u in encoding] and [u[:2] for u in decoding] == [(1, 3), (2, 3), (3, 3)]
    assert decoding[0][2][1].size == (32, 32)


def test_enlarging_and_colouring_are_told_picture_by_picture_and_can_be_cancelled(run, part, monkeypatch):
    told, host = [], part("nodes.host")
    monkeypatch.setattr(host.ProgressBar, "update_absolute", lambda bar, done, total, preview: told.append((done, total)))
    checks = []
    monkeypatch.setattr(host.model_management, "throw_exception_if_processing_interrupted", lambda: checks.append(len(told)))
    run(
        "StyleTransfer", content=torch.rand(3, 64, 64, 3), model="small", style="", style_image=torch.rand(1, 32, 32, 3),
        working_size=32, keep_colors=True,
    )  # fmt: skip
    assert told[-8:] == [(0, 3), (1, 3), (2, 3), (3, 3)] * 2
    assert checks == list(range(len(told)))


def test_cancelling_stops_after_the_picture_at_work(stylize, style, part, encoder, monkeypatch):
    class Cancelled(Exception):
        pass

    checks, calls = iter([None, None, None]), []

    def cancelled():
        if next(checks, "cancel") == "cancel":
            raise Cancelled

    management = part("nodes.host").model_management
    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled)
    encode = encoder.model.encode
    monkeypatch.setattr(encoder.model, "encode", lambda pictures: calls.append(pictures) or encode(pictures))
    with pytest.raises(Cancelled):
        stylize(torch.rand(5, 32, 32, 3), style)
    assert len(calls) == 3


def test_tiles_change_nothing_but_the_memory(run, encoder, decoder, style, part, monkeypatch):
    photo = torch.rand(1, 150, 133, 3)
    whole, tiled = (
        run("Decode", decoder=decoder, tile=tile, features=run("AdaIN", encoder=encoder, content=photo, style=style, tile=tile))
        for tile in (0, 64)
    )
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-5)
    # with little memory, tiles are chosen by themselves
    monkeypatch.setattr(part("adain_core.tiling"), "free_memory", lambda device: 300_000)
    features = run("AdaIN", encoder=encoder, content=photo, style=style)
    assert type(features.features).__name__ == "DeferredFeatures"
    torch.testing.assert_close(run("Decode", decoder=decoder, features=features), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="tile is 7; give at least 64"):
        run("AdaIN", encoder=encoder, content=photo, style=style, tile=7)


def test_masks_and_colours_for_fewer_frames_repeat_their_last(run, encoder, decoder, style):
    clip, colours, masks = torch.rand(4, 32, 40, 3), torch.rand(2, 32, 40, 3), torch.rand(2, 32, 40)
    last = [0, 1, 1, 1]
    results = []
    for mask, picture in ((masks, colours), (masks[last], colours[last])):
        features = run("AdaIN", encoder=encoder, content=clip, style=run("MaskStyle", style=style, mask=mask))
        results.append(run("Decode", decoder=decoder, features=features, keep_colors_of=picture))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
    whole = [
        run("StyleTransfer", content=clip, model="small", style="", style_image=colours[:1], mask=mask)
        for mask in (masks, masks[last])
    ]
    torch.testing.assert_close(*whole, rtol=1e-4, atol=1e-5)


def test_more_masks_than_frames_are_refused_as_masks(run, stylize, style):
    masked = run("MaskStyle", style=style, mask=torch.rand(3, 16, 16))
    with pytest.raises(ValueError, match="3 masks do not fit 2 contents; give one mask"):
        stylize(torch.rand(2, 32, 32, 3), masked)


@pytest.fixture
def previews(monkeypatch):
    """The pictures that nodes show while they work, as they come."""
    import comfy.utils

    shown = []

    def hook(done, total, preview=None, **more):
        if preview is not None:
            shown.append(torch.from_numpy(np.array(preview[1])).float() / 255)

    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return shown


def test_previews_show_kept_colours(run, encoder, decoder, style, previews):
    clip = torch.rand(2, 32, 40, 3)
    features = run("AdaIN", encoder=encoder, content=clip, style=style)
    image = run("Decode", decoder=decoder, features=features, keep_colors_of=clip)
    torch.testing.assert_close(previews[-1], image[-1], rtol=0, atol=1 / 255)
    image = run("StyleTransfer", content=clip, model="small", style="", style_image=clip[:1], keep_colors=True)
    torch.testing.assert_close(previews[-1], image[-1], rtol=0, atol=1 / 255)


def test_tiles_whose_place_is_not_told_are_not_shown_in_wrong_colours(run, encoder, decoder, style, previews):
    photo = torch.rand(1, 96, 128, 3)
    features = run("AdaIN", encoder=encoder, content=photo, style=style, tile=64)
    image = run("Decode", decoder=decoder, features=features, keep_colors_of=photo, tile=64)
    assert image.shape == photo.shape and not previews
