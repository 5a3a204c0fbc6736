"""The networks of a training: how they begin, frozen copies of others, and their files."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from ..catalog import network_file
from ..devices import has_fast_bfloat16, resolve_dtype
from ..errors import AdainError
from ..networks import ARCHITECTURES, Decoder, Encoder
from ..networks.base import State, fingerprint, load_checked
from ..networks.fast import fast_format
from ..stylize import check_decoder
from ..weights import NetworkFile, load_network, network_files, write_network
from .config import INVERSE, TrainingConfig

Kind = TypeVar("Kind", Encoder, Decoder)

TAUGHT = "student"  # the architecture of an encoder that is taught


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number type of `precision`; "auto" is bfloat16 where the device has instructions for it, else float32."""
    if precision != "auto":
        return resolve_dtype(precision)
    return torch.bfloat16 if has_fast_bfloat16(device) else torch.float32


def frozen(network: str | Kind, kind: type[Kind], device: torch.device, dtype: torch.dtype = torch.float32) -> Kind:
    """The plain network of a name or a file, or a copy of the given network: a host may move its own, or hold it as
    inference tensors, through which no gradients pass.
    """
    if not isinstance(network, str):
        return network.copy_for(device, dtype)
    loaded = load_network(network, kind, device, dtype)
    loaded.plain = True
    return loaded


def new_networks(config: TrainingConfig, loss_network: Encoder, device: torch.device) -> tuple[Encoder, Decoder | None]:
    """The encoder, fixed or to be trained, and the decoder, in float32; weights are those of `start_from`, or drawn.

    There is no decoder where an encoder is taught.

    Raises AdainError for a `start_from` that does not fit the encoder.
    """
    order = fast_format(device, loss_network.dtype)  # the weights stay float32, and are computed with in the type of the losses
    if config.stage == "encoder":
        encoder = ARCHITECTURES[TAUGHT].encoder({"channels": list(config.channels), "blocks": list(config.blocks)})
        encoder.initialize(config.seed)
        encoder.plain = True
        if config.start_from:
            load_checked(encoder, frozen(str(config.start_from), Encoder, device).state_dict())
        return encoder.to(device).to(memory_format=order), None
    inverse = config.start_from == INVERSE
    start = frozen(config.start_from, Decoder, device) if config.start_from and not inverse else None
    if config.stage == "both":
        encoder = frozen(str(config.start_from), Encoder, device).requires_grad_()
        if encoder.architecture != TAUGHT:
            raise AdainError(f"{encoder.name!r} cannot be trained together with its decoder; start from a taught encoder's.")
    else:
        encoder = frozen(config.encoder, Encoder, device) if config.encoder else loss_network
    kind = ARCHITECTURES[encoder.architecture].decoder
    if inverse and not kind.has_inverse():
        raise AdainError(f"only a VGG-19 is inverted in closed form, not {encoder.name!r}; start from something else.")
    decoder = kind.for_encoder(encoder, config.blocks or (start.config.get("blocks") if start else None))
    decoder.initialize((config.seed + 1) % 2**64)
    decoder.plain = True
    if start:
        check_decoder(start, encoder.fingerprint, encoder.name)
        load_checked(decoder, start.state_dict())
    return encoder.to(device).to(memory_format=order), decoder.to(device).to(memory_format=order)


def trained_file(config: TrainingConfig, role: str) -> Path:
    """Where the "encoder" or "decoder" of a training is written."""
    return Path(config.output) / network_file(config.name, role)


def network_sources(config: TrainingConfig) -> list[Path]:
    """The files that the names of the networks that a training reads may stand for."""
    read = [(config.encoder, "encoder"), (config.loss_encoder, "encoder"), (config.teacher, "decoder")]
    read += [(config.start_from, role) for role in config.trained_roles]
    named = [(name, role) for name, role in read if isinstance(name, str) and name not in ("", INVERSE)]
    return [file for name, role in named for file in network_files(name, role)]


def write_networks(config: TrainingConfig, encoder: Encoder, decoder: Decoder | None, recipe: dict) -> None:
    """Write those of an encoder and a decoder that were trained, with kernels in float16 and the recipe in the metadata."""
    encoder_name, encoder_fingerprint = encoder.name, encoder.fingerprint
    if "encoder" in config.trained_roles:
        encoder_name, encoder_fingerprint = config.name, fingerprint(on_cpu(encoder), encoder.layer_names())
    for network in (encoder, decoder):
        if network is None or network.role not in config.trained_roles:
            continue
        file = NetworkFile(
            network.role, network.architecture, network.config, on_cpu(network), config.name, encoder_name,
            encoder_fingerprint, recipe, config.licence,
        )  # fmt: skip
        write_network(file, trained_file(config, network.role), "float16")


def on_cpu(network: nn.Module) -> State:
    """The weights of a network, on the CPU."""
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
