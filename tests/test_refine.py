"""Gradient steps on the picture (docs/design.md, section 1)."""

import sys

import pytest
import torch

from adain_core import channel_statistics, encode_style, load_decoder, load_encoder, mix_styles, refine, stylize
from adain_core.cli import main
from adain_core.errors import AdainError
from adain_core.images import load_image, resize, save_image
from adain_core.losses import content_loss, style_loss
from adain_core.networks.vgg import VGGDecoder
from adain_core.progress import showing
from adain_core.statistics import adain
from adain_core.weights import NetworkFile, write_network


def smooth(*shape):
    return torch.nn.functional.interpolate(torch.rand(*shape[:2], 5, 6), shape[2:], mode="bicubic").clamp(0, 1)


@pytest.fixture
def content():
    return smooth(1, 3, 45, 61)


@pytest.fixture
def painting():
    return torch.rand(1, 3, 40, 48) * torch.tensor([1.0, 0.5, 0.2])[:, None, None]


def losses(encoder, picture, content, painting):
    """Content and style loss, worked out from the features of whole pictures."""
    found, own, style = (encoder.features(x, encoder.loss_layers) for x in (picture, content, painting))
    statistics = [channel_statistics(x) for x in style]
    return content_loss(found[-1], adain(own[-1], statistics[-1])).item(), style_loss(found, statistics).item()


def total(*arguments):
    content, style = losses(*arguments)
    return content + 10 * style


@torch.no_grad()
def test_thirty_steps_leave_a_quarter_of_the_style_loss_and_no_more_content_loss(reference):
    folder = reference.parent / "pictures" / "validation"
    if not folder.is_dir():
        pytest.skip("the validation pictures are not here")
    encoder = load_encoder(str(reference / "vgg_normalised.safetensors"), dtype="float32")
    decoder, judge = load_decoder("vgg19", dtype="float32"), encoder.for_losses()
    contents, styles = (sorted((folder / kind).iterdir())[::15] for kind in ("contents", "styles"))
    before, after = [], []
    for paths in zip(contents, styles, strict=False):
        content, style = (resize(load_image(path)[:, :3], 128)[:, :, :128, :128] for path in paths)
        result = stylize(encoder, decoder, content, encode_style(encoder, style, 0))
        refined = refine(encoder, result, content, encode_style(judge, style, 0))
        before.append(losses(encoder, result, content, style))
        after.append(losses(encoder, refined, content, style))
    (content_before, style_before), (content_after, style_after) = (torch.tensor(each).mean(0) for each in (before, after))
    assert style_after <= style_before / 4 and content_after <= content_before


def test_it_finds_adain_of_the_pixels_where_the_pixels_are_the_features(identity, content):
    content, painting = content * 0.4 + 0.3, 0.5 + 0.1 * smooth(1, 3, 32, 32)
    for alpha in (1.0, 0.5):
        wanted = adain(content, channel_statistics(painting), alpha)
        found = refine(identity, torch.zeros_like(content), content, encode_style(identity, painting, 0), 40, alpha)
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)  # also from black, where clamping must not stop it


def test_mixed_styles_are_aimed_at_as_adain_mixes_them(identity, content):
    content, paintings = content * 0.4 + 0.3, [0.5 + 0.1 * smooth(1, 3, 32, 32), 0.3 + 0.1 * smooth(1, 3, 20, 32)]
    mix = mix_styles([encode_style(identity, painting, 0) for painting in paintings], [0.75, 0.25])
    parts = [adain(content, channel_statistics(painting)) for painting in paintings]
    found = refine(identity, content, content, mix, 40)
    torch.testing.assert_close(found, 0.75 * parts[0] + 0.25 * parts[1], atol=2e-3, rtol=0)


def test_each_masks_area_gets_its_styles_statistics_and_the_rest_stays(identity, content):
    mask = torch.zeros(3, 45, 61)
    mask[0, :, :20], mask[1, :, 20:40], mask[2, :, 40:] = 1, 1, 1
    styles = [encode_style(identity, level + 0.1 * smooth(1, 3, 32, 32), 0) for level in (0.3, 0.6)]
    style = mix_styles([style.masked(area) for style, area in zip(styles, mask, strict=False)])
    found = refine(identity, content, content, style, 60)
    assert torch.equal(found[..., 40:], content[..., 40:])
    for area, wanted in ((found[..., :20], styles[0]), (found[..., 20:40], styles[1])):
        statistics = channel_statistics(area)
        torch.testing.assert_close(statistics.mean, wanted.components[0].levels[0].mean, atol=5e-3, rtol=0)
        torch.testing.assert_close(statistics.std, wanted.components[0].levels[0].std, atol=5e-3, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_tiles_give_the_same_picture(small, content, painting, masked):
    encoder = small[0]
    content = smooth(1, 3, 150, 131)
    style = encode_style(encoder.for_losses(), painting, 0)
    if masked:
        other = encode_style(encoder.for_losses(), painting.flip(1), 0)
        style = mix_styles([style.masked(torch.rand(7, 9)), other.masked((torch.rand(5, 4) > 0.5).float())])
    whole, tiled = (refine(encoder, content, content, style, 5, tile=tile) for tile in (0, 64))
    assert (whole - tiled).norm() < 1e-4 * whole.norm()
    assert (whole - content).norm() > 0.01 * content.norm()


def test_what_is_shown_is_the_best_so_far_and_a_host_may_call_in_inference_mode(small, content, painting, device):
    encoder, shown = small[0], []
    start = torch.rand(1, 3, 45, 61)
    with torch.inference_mode(), showing(lambda *part: shown.append(part)):
        style = encode_style(encoder, painting, 0)
        shown.clear()
        result = refine(encoder, start * 1, content * 1, style, 6)
    assert result.device == start.device
    steps = [(done, total, picture) for done, total, picture in shown if picture is not None]
    assert [(done, count) for done, count, _ in steps] == [(step, 6) for step in range(1, 7)]
    content, painting = content.to(device), painting.to(device)
    sums = [total(encoder, picture, content, painting) for _, _, picture in steps]
    assert sums == sorted(sums, reverse=True) and sums[-1] < 0.5 * total(encoder, start.to(device), content, painting)
    torch.testing.assert_close(steps[-1][2].cpu(), result.cpu())


def test_the_start_is_kept_where_nothing_is_better(small, content, painting, monkeypatch):
    monkeypatch.setattr(sys.modules["adain_core.refine"], "FIRST_STEP", 100)  # to black and white
    style = encode_style(small[0], painting, 0)
    assert torch.equal(refine(small[0], content, content, style, 1), content)


def test_pictures_are_refined_one_by_one_and_keep_their_alpha(small, painting):
    images, contents = torch.rand(2, 4, 33, 40), smooth(2, 4, 33, 40)
    styles = encode_style(small[0], torch.cat([painting, painting.flip(1)]), 0, combine="each")
    both = refine(small[0], images, contents, styles, 4)
    assert torch.equal(both[:, 3], images[:, 3])
    for index in range(2):
        one = slice(index, index + 1)
        style = styles.select(torch.tensor([index]))
        torch.testing.assert_close(both[one], refine(small[0], images[one], contents[one], style, 4))
    shared = refine(small[0], images, contents[:1], painting, 2)
    torch.testing.assert_close(shared[1:], refine(small[0], images[1:], contents[:1], painting, 2))


def test_what_cannot_be_used_is_refused_before_the_work(small, identity, content, painting):
    encoder, shown = small[0], []
    style = encode_style(encoder, painting)
    two_styles = encode_style(encoder, painting.expand(2, -1, -1, -1), combine="each")
    cases = [
        ((content, content[..., 1:], style), {}, "the picture to refine is 61x45, its content 60x45"),
        ((content.expand(3, -1, -1, -1), content.expand(2, -1, -1, -1), style), {}, "2 contents do not fit 3 pictures"),
        ((content, content, two_styles), {}, "2 styles do not fit 1"),
        ((content * float("nan"), content, style), {}, "the stylised picture holds NaN"),
        ((content, content, encode_style(identity, painting)), {}, "the style was made by the encoder 'identity'"),
        ((content, content, style), {"steps": 0}, "steps is 0; give at least 1"),
        ((content, content, style), {"alpha": 1.5}, "alpha is 1.5"),
        ((content, content, style), {"style_weight": -1.0}, "the weights are 1.0 and -1.0"),
        ((content, content, style), {"content_weight": 0.0, "style_weight": 0.0}, "not both 0"),
        ((content, content, style), {"content_weight": float("nan")}, "the weights are nan"),
        ((content, content, style), {"tile": 5}, "tile is 5"),
    ]
    with showing(lambda *part: shown.append(part)):
        for given, options, message in cases:
            with pytest.raises(AdainError, match=message):
                refine(encoder, *given, **options)
    assert not shown


@pytest.fixture
def files(tmp_path, content, painting):
    save_image(content, tmp_path / "photo.png")
    save_image(painting, tmp_path / "painting.png")
    return tmp_path


def test_the_command_refines_its_result(files, small_files, networks, content, painting):
    command = ["stylize", str(files / "photo.png"), str(files / "painting.png"), "--device", "cpu", "--dtype", "float32"]
    command += ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--style-size", "0"]
    for name, more in (("plain", ()), ("refined", ("--refine", "5"))):
        assert main([*command, *more, "-o", str(files / f"{name}.png")]) == 0
    sums = [total(networks[0], load_image(files / f"{name}.png"), content, painting) for name in ("plain", "refined")]
    assert sums[1] < 0.7 * sums[0]


def test_the_command_refuses_to_refine_without_a_style_picture_and_clips(files, small_files, vgg, capsys):
    load = load_encoder(str(vgg))
    encode_style(load, torch.rand(1, 3, 32, 32)).save(files / "style.safetensors")
    command = ["stylize", str(files / "photo.png"), str(files / "style.safetensors"), "-o", str(files / "out.png")]
    command += ["--refine", "5", "--device", "cpu"]
    decoder = files / "judge-decoder.safetensors"
    write_network(NetworkFile("decoder", "vgg19", {}, VGGDecoder({}).state_dict(), "judge", "judge", load.fingerprint), decoder)
    assert main([*command, "--encoder", str(vgg), "--decoder", str(decoder)]) == 2
    assert "the style has no statistics of relu1_1, relu2_1, relu3_1, relu4_1, which" in capsys.readouterr().err
    assert main([*command, "--content-statistics", "batch"]) == 2
    assert "--refine works on pictures by themselves" in capsys.readouterr().err
    assert main([*command[:-3], "-3", "--device", "cpu"]) == 2
    assert "steps is -3" in capsys.readouterr().err
    assert not (files / "out.png").exists()
