"""Nodes that apply AdaIN to latents: between generations, and inside of one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from torch import Tensor

from ..adain_core import ChannelStatistics, adain, channel_statistics
from ..adain_core.statistics import check_alpha
from .inputs import alpha_input
from .sockets import Node, schema

STATISTICS = ["image", "batch"]
STRENGTH = "Strength: 0 changes nothing, 1 takes the reference's statistics over in full."


class LatentAdaIN(Node):
    """AdaIN on a latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINLatent",
            display_name="AdaIN on Latents",
            category="AdaIN/diffusion",
            description="Gives a latent the mean and contrast of another, per channel: colours and mood change, shapes stay.",
            search_aliases=["latent adain", "latent color match", "latent statistics", "match latent"],
            inputs=[
                io.Latent.Input("latent", tooltip="The latent to change."),
                io.Latent.Input("reference", tooltip="Whose statistics it gets; of the same kind of VAE, of any size."),
                alpha_input(1.0, STRENGTH),
                io.Combo.Input(
                    "statistics",
                    options=STATISTICS,
                    default="image",
                    tooltip="image: each latent by itself (a video latent is one). batch: all of a batch together.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent", tooltip="The changed latent.")],
        )

    @classmethod
    def execute(cls, latent: dict, reference: dict, alpha: float = 1.0, statistics: str = "image") -> io.NodeOutput:
        if statistics not in STATISTICS:
            raise ValueError(f"statistics is {statistics!r}; choose one of {', '.join(STATISTICS)}.")
        check_alpha(alpha)
        parts, references = latent_parts(latent), latent_parts(reference)
        results = [_changed(part, target, alpha, statistics) for part, target in zip(parts, references, strict=False)]
        count = len(results[0])
        # what the reference has no part for, such as the sound of a video, stays as it is
        results += [part.expand(count, *part.shape[1:]) if len(part) == 1 else part for part in parts[len(results) :]]
        samples = latent["samples"]
        changed = {**latent, "samples": results[0] if isinstance(samples, Tensor) else type(samples)(results)}
        if count != len(parts[0]):
            changed.pop("batch_index", None)  # it numbers the latents there were
        return io.NodeOutput(changed)


class ModelAdaIN(Node):
    """AdaIN at each step of sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="AdaINModel",
            display_name="AdaIN on Sampling",
            category="AdaIN/diffusion",
            description="Steers a generation towards the colours and mood of a reference: at each step, the model's picture"
            " so far gets the reference latent's mean and contrast per channel.",
            search_aliases=["model adain", "color guidance", "reference guidance", "latent guidance"],
            inputs=[
                io.Model.Input("model", tooltip="The diffusion model; connect the result to KSampler."),
                io.Latent.Input("reference", tooltip="From VAE Encode of a picture with the wanted mood; the model's own VAE."),
                alpha_input(0.5, STRENGTH),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="From which part of sampling on; 0: the start.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Up to which part of sampling; the steps after it are free to add details.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The steered model; the given one is not changed.")],
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, reference: dict, alpha: float = 0.5, start_percent: float = 0.0, end_percent: float = 0.6
    ) -> io.NodeOutput:
        check_alpha(alpha)
        if not 0 <= start_percent <= end_percent <= 1:
            raise ValueError(f"start_percent {start_percent} is after end_percent {end_percent}; exchange them.")
        sampling = model.get_model_object("model_sampling")
        sigmas = [float(sampling.percent_to_sigma(percent)) for percent in (start_percent, end_percent)]
        latent_format, samples = model.get_model_object("latent_format"), _one_part(reference)
        if samples.ndim == 4 and getattr(latent_format, "latent_dimensions", 2) == 3:  # a picture, for a model of videos
            samples = samples.unsqueeze(2)
        samples = latent_format.process_in(samples)
        steered = model.clone()
        steered.set_model_sampler_post_cfg_function(steer(latent_statistics(samples), alpha, *sigmas))
        return io.NodeOutput(steered)


def steer(target: ChannelStatistics, alpha: float, first_sigma: float, last_sigma: float) -> Callable[[dict], Tensor]:
    """What a sampler calls with each denoised latent: AdaIN while sigma is from `first_sigma` down to `last_sigma`."""

    def after_guidance(step: dict) -> Tensor:
        denoised = step["denoised"]
        if not last_sigma <= float(step["sigma"].max()) <= first_sigma:
            return denoised
        if target.batch not in (1, len(denoised)):
            raise ValueError(f"{target.batch} references do not fit a batch of {len(denoised)}; give one, or one for each.")
        if denoised.ndim == 3 and denoised.shape[1] == 1 != target.mean.shape[1]:  # as hosts hand over several parts
            raise ValueError("a latent of several parts, such as video and sound, cannot be steered; take the node away.")
        return adain_latent(denoised, target, alpha)

    return after_guidance


def adain_latent(samples: Tensor, target: ChannelStatistics, alpha: float, content: ChannelStatistics | None = None) -> Tensor:
    """AdaIN of latents `(B, C, ...)` in their own shape; batch 1 broadcasts. Raises ValueError where the two do not fit."""
    flat = _flat(samples)
    if flat.shape[1] != target.mean.shape[1]:
        raise ValueError(
            f"the latents have {flat.shape[1]} and {target.mean.shape[1]} channels; both must come from the same kind of VAE."
        )
    if len(flat) != target.batch and 1 not in (len(flat), target.batch):
        raise ValueError(f"{len(flat)} latents and {target.batch} references do not fit; give one, or one for each.")
    result = adain(flat, target, alpha, content)
    return result.reshape(len(result), *samples.shape[1:])


def latent_statistics(samples: Tensor) -> ChannelStatistics:
    """Channel statistics of latents `(B, C, ...)`; a clip counts as one picture, so that it does not flicker."""
    return channel_statistics(_flat(samples))


def latent_parts(latent: dict) -> list[Tensor]:
    """The tensors of a LATENT: one, or of a nested one several, such as video and sound. Raises ValueError for other values."""
    samples = latent.get("samples") if isinstance(latent, dict) else None
    unbind = getattr(samples, "unbind", None)
    parts = [samples] if isinstance(samples, Tensor) or unbind is None else list(unbind())
    return [check_latent(part) for part in parts] or [check_latent(None)]


def check_latent(samples: object) -> Tensor:
    """Latents that are one tensor of finite numbers, else ValueError."""
    if not isinstance(samples, Tensor) or samples.is_nested or samples.ndim < 3 or 0 in samples.shape:
        raise ValueError("this kind of latent is not supported; use one of pictures or of video.")
    if not torch.isfinite(samples).all():
        raise ValueError("the latent holds NaN or infinite values; find the step before that makes them.")
    return samples


def _changed(samples: Tensor, reference: Tensor, alpha: float, statistics: str) -> Tensor:
    """AdaIN of latents `(B, C, ...)` with the statistics of the reference, of each latent or of the batch."""
    target, content = latent_statistics(reference), None
    if statistics == "batch":
        content, target = latent_statistics(samples).pool(), target.pool()
    return adain_latent(samples, target, alpha, content)


def _one_part(latent: dict) -> Tensor:
    parts = latent_parts(latent)
    if len(parts) > 1:
        raise ValueError(f"the reference has {len(parts)} parts, such as video and sound; use one of pictures or of video.")
    return parts[0]


def _flat(samples: Tensor) -> Tensor:
    """`(B, C, ...)` to `(B, C, N, 1)`."""
    return samples.flatten(2).unsqueeze(-1)
