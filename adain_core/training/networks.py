"""The networks of a training: new ones, the frozen one that measures, and their files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..decoder import Decoder, PyramidDecoder, VGGDecoder
from ..devices import has_fast_bfloat16, resolve_dtype
from ..encoder import Encoder, PyramidEncoder, State, VGGEncoder, fingerprint, load_checked
from ..layers import ResidualBlock
from ..losses import LAYERS
from ..stylize import check_decoder
from ..weights import NetworkFile, load_decoder, load_encoder, write_network
from .config import INVERSE, TrainingConfig

Network = TypeVar("Network", Encoder, Decoder)


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number type of `precision`; "auto" is bfloat16 where the device has instructions for it, else float32."""
    if precision != "auto":
        return resolve_dtype(precision)
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def frozen_encoder(encoder: str | Encoder, device: torch.device, dtype: torch.dtype = torch.float32) -> Encoder:
    """The encoder of a name or a file, or a copy of the one that is given: a host keeps its own where it likes, and as
    inference tensors, which nothing can be trained through.
    """
    return load_encoder(encoder, device, dtype) if isinstance(encoder, str) else frozen_copy(encoder, device, dtype)


def frozen_decoder(decoder: str | Decoder, device: torch.device) -> Decoder:
    """As `frozen_encoder`."""
    return load_decoder(decoder, device, torch.float32) if isinstance(decoder, str) else frozen_copy(decoder, device)


def frozen_copy(network: Network, device: torch.device, dtype: torch.dtype = torch.float32) -> Network:
    """A copy that can be trained through, if it is made outside of inference mode."""
    copied = copy.deepcopy(network)
    copied.dtype = dtype
    return copied.requires_grad_(False).to(device, memory_format=torch.channels_last)


def loss_layers(network: Encoder) -> tuple[str, ...]:
    """The layers that losses compare: the paper's of a VGG-19, the levels of another encoder."""
    return LAYERS if isinstance(network, VGGEncoder) else tuple(level.name for level in network.levels)


def new_networks(config: TrainingConfig, loss_network: Encoder, device: torch.device) -> tuple[Encoder, Decoder]:
    """The encoder, fixed or to be trained, and the decoder, in float32; weights are those of `start_from`, or drawn.

    Raises ValueError where `start_from` does not fit the encoder.
    """
    inverse = config.start_from == INVERSE
    start = frozen_decoder(config.start_from, device) if config.start_from and not inverse else None
    if config.channels:
        encoder = PyramidEncoder({"channels": list(config.channels)})
        initialize(encoder, config.seed)
    else:
        encoder = frozen_encoder(config.encoder, device) if config.encoder else loss_network
    if inverse and not isinstance(encoder, VGGEncoder):
        raise ValueError(f"only a VGG-19 is inverted in closed form, and {encoder.name!r} is none; start from something else.")
    decoder = _new_decoder(encoder, config.blocks or (start.config.get("blocks") if start else None))
    initialize(decoder, config.seed + 1)
    if start:
        if not config.channels:
            check_decoder(start, encoder.fingerprint, encoder.name)
        load_checked(decoder, start.state_dict())
        if config.channels:
            load_checked(encoder, load_encoder(config.start_from, device, torch.float32).state_dict())
    return tuple(network.to(device, memory_format=torch.channels_last) for network in (encoder, decoder))


def _new_decoder(encoder: Encoder, blocks: Sequence[int] | None) -> Decoder:
    if isinstance(encoder, VGGEncoder):
        return VGGDecoder({})
    channels = encoder.config["channels"]
    blocks = blocks or [1] * (len(channels) - 1) + [4]
    if len(blocks) != len(channels):
        raise ValueError(f"the encoder {encoder.name} has {len(channels)} levels; give as many numbers of blocks.")
    return PyramidDecoder({"channels": channels, "blocks": list(blocks)})


def initialize(network: nn.Module, seed: int) -> None:
    """He-normal kernels; residual blocks begin near the identity, a decoder's pictures around mid-grey."""
    generator = torch.Generator().manual_seed(seed)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu", generator=generator)
        nn.init.zeros_(convolution.bias)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                module.conv2.weight.mul_(0.1)
        if isinstance(network, Decoder):
            convolutions[-1].weight.mul_(0.1)
            convolutions[-1].bias.fill_(0.5)
        if isinstance(network, PyramidDecoder):
            # The pixels of a position begin equal, without a checkerboard (Aitken et al. 2017).
            network.out.weight.copy_(network.out.weight[::4].repeat_interleave(4, 0))


def network_file(config: TrainingConfig, role: str) -> Path:
    """Where the "encoder" or "decoder" of a training is written."""
    return Path(config.output) / f"{config.name}-{role}.safetensors"


def write_networks(config: TrainingConfig, encoder: Encoder, decoder: Decoder, recipe: dict) -> None:
    """Write the decoder, and the encoder if it was trained, with kernels in float16 and the recipe in the metadata."""
    name, mark = encoder.name, encoder.fingerprint
    files = [(decoder, "decoder")]
    if config.channels:
        name, mark = config.name, fingerprint(_on_cpu(encoder), encoder.layer_names())
        files.append((encoder, "encoder"))
    for network, role in files:
        state = _on_cpu(network)
        file = NetworkFile(
            role, network.architecture, network.config, state, config.name, name, mark, recipe, config.licence
        )  # fmt: skip
        write_network(file, network_file(config, role), "float16")


def _on_cpu(network: nn.Module) -> State:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
