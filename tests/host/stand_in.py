"""A node for the tests' ComfyUI: a diffusion model without weights, on latents that are pixels."""

import torch
from comfy import latent_formats, model_base, model_management, supported_models_base
from comfy.model_patcher import ModelPatcher


class Config(supported_models_base.BASE):
    latent_format = latent_formats.ChromaRadiance


class Denoiser(torch.nn.Module):
    """Takes all of its input for noise."""

    dtype = torch.float32

    def __init__(self, **options: object):
        super().__init__()

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, **conditions: object) -> torch.Tensor:
        return x


class StandInModel:
    RETURN_TYPES = ("MODEL", "CONDITIONING")
    FUNCTION = "make"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {}}

    def make(self) -> tuple[ModelPatcher, list]:
        model = model_base.BaseModel(Config({}), unet_model=Denoiser)
        devices = model_management.get_torch_device(), model_management.unet_offload_device()
        return ModelPatcher(model, *devices), [[torch.zeros(1, 1, 8), {}]]


NODE_CLASS_MAPPINGS = {"StandInModel": StandInModel}
