from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch


def moments(samples):
    flat = samples.flatten(2)
    return flat.mean(2), flat.std(2, correction=0)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 16, 5, 8, 6), (2, 8, 50)])
def test_a_latent_gets_the_references_mean_and_contrast(run, shape):
    latent, reference = torch.randn(shape) * 2 + 1, torch.randn(1, shape[1], 6, 6) * 0.3 - 2
    before = latent.clone()
    result = run("LatentAdaIN", latent={"samples": latent}, reference={"samples": reference})["samples"]
    assert result.shape == shape and torch.equal(latent, before)
    for found, wanted in zip(moments(result), moments(reference), strict=True):
        torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-3, atol=1e-3)


def test_half_the_strength_goes_half_the_way(run):
    latent, reference = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8) + 3
    full, half = (
        run("LatentAdaIN", latent={"samples": latent}, reference={"samples": reference}, alpha=alpha)["samples"]
        for alpha in (1.0, 0.5)
    )
    torch.testing.assert_close(half, (full + latent) / 2)


def test_batch_statistics_keep_what_differs_within_the_batch(run):
    latent = torch.cat([torch.randn(1, 4, 8, 8) - 5, torch.randn(1, 4, 8, 8) + 5])
    reference = {"samples": torch.randn(1, 4, 8, 8)}
    result = run("LatentAdaIN", latent={"samples": latent}, reference=reference, statistics="batch")["samples"]
    assert (result[0].mean() + 0.5 < result[1].mean()).item()
    together = result.movedim(1, 0).flatten(1).mean(1)
    torch.testing.assert_close(together, moments(reference["samples"])[0][0], atol=1e-4, rtol=0)


def test_one_latent_meets_several_references_and_keeps_its_other_entries(run):
    latent = {"samples": torch.randn(1, 4, 8, 8), "noise_mask": torch.ones(1, 64, 64), "batch_index": [0]}
    result = run("LatentAdaIN", latent=latent, reference={"samples": torch.randn(3, 4, 8, 8)})
    assert result["samples"].shape == (3, 4, 8, 8) and set(result) == {"samples", "noise_mask"}
    assert "batch_index" in latent


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (torch.randn(1, 16, 8, 8), "4 and 16 channels"),
        (torch.randn(3, 4, 8, 8), "2 latents and 3 references"),
        (torch.full((1, 4, 8, 8), float("nan")), "NaN or infinite"),
        (None, "kind of latent is not supported"),
    ],
)
def test_latents_that_do_not_fit_are_refused(run, reference, message):
    with pytest.raises(ValueError, match=message):
        run("LatentAdaIN", latent={"samples": torch.randn(2, 4, 8, 8)}, reference={"samples": reference})


class Nested:
    """As `comfy.nested_tensor.NestedTensor`, which holds video and sound."""

    def __init__(self, tensors):
        self.tensors, self.is_nested = list(tensors), True

    def unbind(self):
        return self.tensors


def test_each_part_of_a_nested_latent_gets_the_statistics_of_the_references_part(run):
    video, sound = torch.randn(2, 16, 5, 8, 6) * 2 + 1, torch.randn(2, 8, 50, 4) - 4
    references = torch.randn(1, 16, 1, 6, 6) * 0.3 - 2, torch.randn(1, 8, 20, 4) * 3
    latent = {"samples": Nested([video, sound]), "noise_mask": "kept"}
    result = run("LatentAdaIN", latent=latent, reference={"samples": Nested(references)})
    assert isinstance(result["samples"], Nested) and result["noise_mask"] == "kept"
    for found, part, reference in zip(result["samples"].unbind(), (video, sound), references, strict=True):
        assert found.shape == part.shape
        for a, b in zip(moments(found), moments(reference), strict=True):
            torch.testing.assert_close(a, b.expand_as(a), rtol=1e-3, atol=1e-3)


def test_what_the_reference_has_no_part_for_is_kept(run):
    """A picture's latent as the reference of a video with sound, and the other way round."""
    video, sound, picture = torch.randn(1, 16, 5, 8, 6), torch.randn(1, 8, 50, 4), torch.randn(2, 16, 1, 6, 6) * 3 - 2
    nested, plain = {"samples": Nested([video, sound])}, {"samples": picture}
    found = run("LatentAdaIN", latent=nested, reference=plain)["samples"].unbind()
    assert found[0].shape == (2, 16, 5, 8, 6) and torch.equal(found[1], sound.expand(2, -1, -1, -1))
    for a, b in zip(moments(found[0]), moments(picture), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    found = run("LatentAdaIN", latent=plain, reference=nested)["samples"]
    torch.testing.assert_close(moments(found)[0], moments(video)[0].expand(2, -1), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "samples",
    [
        None, "text", [], torch.rand(4), torch.rand(0, 4, 8, 8), torch.full((1, 4, 8, 8), float("inf")), Nested([]),
        Nested([torch.rand(1, 4, 8, 8), None]), Nested([torch.full((1, 4, 8, 8), float("nan"))]),
        torch.nested.nested_tensor([torch.rand(4, 8, 8), torch.rand(4, 6, 8)]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("which", ["latent", "reference"])
def test_both_latents_are_checked(run, samples, which):
    given = dict.fromkeys(("latent", "reference"), {"samples": torch.rand(1, 4, 8, 8)}) | {which: {"samples": samples}}
    with pytest.raises(ValueError, match="kind of latent is not supported|NaN or infinite"):
        run("LatentAdaIN", **given)


@pytest.mark.parametrize("latent", [None, {}, {"other": 1}, "text", torch.rand(1, 4, 8, 8)])
def test_what_is_no_latent_is_refused(run, latent):
    for reference in ({"samples": torch.rand(1, 4, 8, 8)}, latent):
        with pytest.raises(ValueError, match="kind of latent is not supported"):
            run("LatentAdaIN", latent=latent, reference=reference)


class StandInModel:
    """What ModelAdaIN uses of a diffusion model: sigma falls from 10 to 0, the model's latents are half of the VAE's."""

    def __init__(self, latent_format=None):
        self.after, self.latent_format = [], latent_format or SimpleNamespace(process_in=lambda samples: samples / 2)

    def clone(self):
        return copy.deepcopy(self)

    def get_model_object(self, name):
        return {
            "model_sampling": SimpleNamespace(percent_to_sigma=lambda percent: 10 * (1 - percent)),
            "latent_format": self.latent_format,
        }[name]

    def set_model_sampler_post_cfg_function(self, function):
        self.after.append(function)

    def denoise(self, denoised, sigma):
        for function in self.after:
            denoised = function({"denoised": denoised, "sigma": torch.full((len(denoised),), float(sigma))})
        return denoised


@pytest.fixture
def reference():
    return torch.randn(1, 4, 8, 8) * 3 + 7


def test_a_steered_step_has_the_references_statistics_in_the_models_own_scale(run, reference):
    model = StandInModel()
    steered = run("ModelAdaIN", model=model, reference={"samples": reference}, alpha=1.0)
    result = steered.denoise(torch.randn(2, 4, 8, 8), sigma=9)
    for found, wanted in zip(moments(result), moments(reference / 2), strict=True):
        torch.testing.assert_close(found, wanted.expand_as(found), rtol=1e-3, atol=1e-3)
    assert model.after == []


@pytest.mark.parametrize(("sigma", "steered"), [(9, False), (8, True), (6, True), (4, True), (3, False)])
def test_only_the_chosen_part_of_sampling_is_steered(run, reference, sigma, steered):
    model = run("ModelAdaIN", model=StandInModel(), reference={"samples": reference}, start_percent=0.2, end_percent=0.6)
    denoised = torch.randn(1, 4, 8, 8)
    assert torch.equal(model.denoise(denoised, sigma), denoised) != steered


def test_a_picture_steers_a_model_of_videos(run):
    """By each channel's own mean and deviation in `process_in`, as in ComfyUI's latents of Wan."""
    means = torch.arange(4.0).view(1, 4, 1, 1, 1)
    latent_format = SimpleNamespace(latent_dimensions=3, process_in=lambda samples: samples - means)
    model, reference = StandInModel(latent_format), torch.randn(2, 4, 8, 8)
    result = run("ModelAdaIN", model=model, reference={"samples": reference}, alpha=1.0).denoise(torch.randn(2, 4, 3, 8, 8), 9)
    torch.testing.assert_close(result.mean((2, 3, 4)), (reference[:, :, None] - means).mean((2, 3, 4)), rtol=1e-3, atol=1e-3)


def test_a_start_after_the_end_is_refused(run, reference):
    with pytest.raises(ValueError, match="exchange them"):
        run("ModelAdaIN", model=StandInModel(), reference={"samples": reference}, start_percent=0.7, end_percent=0.6)


def test_references_of_a_wrong_number_are_refused(run):
    model = run("ModelAdaIN", model=StandInModel(), reference={"samples": torch.randn(3, 4, 8, 8)})
    with pytest.raises(ValueError, match="3 references do not fit a batch of 2"):
        model.denoise(torch.randn(2, 4, 8, 8), 9)


def test_latents_of_several_parts_do_not_steer_and_are_not_steered(run, reference):
    with pytest.raises(ValueError, match="the reference has 2 parts"):
        run("ModelAdaIN", model=StandInModel(), reference={"samples": Nested([reference, torch.rand(1, 8, 5, 4)])})
    model = run("ModelAdaIN", model=StandInModel(), reference={"samples": reference})
    with pytest.raises(ValueError, match="a latent of several parts, such as video and sound, cannot be steered"):
        model.denoise(torch.rand(1, 1, 999), 9)
