"""The pipelines that `adain bench` compares: a plain VGG-19 and its mirror, this project's ones, and the bundled lite."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..devices import DTYPES
from ..errors import AdainError
from ..networks import ARCHITECTURES, Decoder, Encoder, Network
from ..statistics import adain
from ..style import encode_style
from ..stylize import check_decoder, stylize
from ..training import TrainingConfig
from ..training.trainer import Trainer
from ..weights import load_decoder, load_encoder
from . import plain

PLAIN, VGG, LITE = "plain vgg19", "vgg19", "lite"
BATCH_SIZE, CROP_SIZE = 8, 256  # of a training step by the paper's recipe


@dataclass(frozen=True)
class Pipeline:
    """The `calls` to measure, the last of which does everything; `work` is the number of the encoder's multiply-adds."""

    name: str
    dtype: str
    calls: dict[str, Callable[[], Any]]
    work: int = 0

    @property
    def last(self) -> str:
        """The name of the call that does everything; its result is a picture, or the losses of a step."""
        return list(self.calls)[-1]


def vgg_networks(encoder: str, decoder: str) -> tuple[Encoder, Decoder]:
    """The VGG-19 and its mirror of these names or files, on the CPU; with random weights for an empty name.

    Raises AdainError for other networks, and if the two do not belong together.
    """
    networks = (
        load_encoder(encoder, dtype="float32") if encoder else ARCHITECTURES[plain.ARCHITECTURE].encoder({}),
        load_decoder(decoder, dtype="float32") if decoder else ARCHITECTURES[plain.ARCHITECTURE].decoder({}),
    )
    for name, network in zip((encoder, decoder), networks, strict=True):
        if network.architecture != plain.ARCHITECTURE:
            raise AdainError(f"{name} is a {network.architecture}; give a VGG-19, to compare with the plain one.")
        if not name:
            network.requires_grad_(False).initialize(seed=0)
    if not decoder:
        networks[1].encoder_fingerprint = networks[0].fingerprint
    check_decoder(networks[1], networks[0].fingerprint, networks[0].name)
    return networks


def _plain_copy(network: Network, device: torch.device) -> nn.Sequential:
    """The plain implementation with the same weights; a preprocessing folded into conv1_1 stays in it."""
    copied = plain.encoder() if network.role == "encoder" else plain.decoder()
    theirs, ours = ([module for module in net.modules() if isinstance(module, nn.Conv2d)] for net in (copied, network))
    if network.role == "encoder":
        theirs.pop(0).load_state_dict({"weight": torch.eye(3)[:, :, None, None], "bias": torch.zeros(3)})
    for to, of in zip(theirs, ours, strict=True):
        to.load_state_dict(of.state_dict())
    return copied.to(device)


def stylizing(
    encoder: Encoder, decoder: Decoder, dtypes: Sequence[str], size: int, device: torch.device
) -> list[Pipeline]:
    """All pipelines, on a random picture `(1, 3, size, size)`; the plain one comes first."""
    content, style = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(size)).to(device)
    f, g = _plain_copy(encoder, device), _plain_copy(decoder, device)
    mu, sigma = plain.mean_std(f(style))
    features, work = f(content), multiply_adds(f, size)
    target = plain.normalize_to(features, mu, sigma)
    calls = {
        "style": lambda: plain.mean_std(f(style)),
        "encode": lambda: f(content),
        "transfer": lambda: plain.normalize_to(features, mu, sigma),
        "decode": lambda: g(target),
        "whole": lambda: g(plain.normalize_to(f(content), mu, sigma))[:, :, :size, :size].clamp(0, 1),
    }
    pipelines = [Pipeline(PLAIN, "float32", calls, work)]
    for dtype in dtypes:
        vgg = encoder.copy_for(device, DTYPES[dtype], plain=False), decoder.copy_for(device, DTYPES[dtype], plain=False)
        pipelines.append(Pipeline(VGG, dtype, _own_calls(*vgg, content, style), work))
        lite = load_encoder(LITE, device, dtype), load_decoder(LITE, device, dtype)
        pipelines.append(Pipeline(LITE, dtype, _own_calls(*lite, content, style), multiply_adds(lite[0], size)))
    return pipelines


def _own_calls(encoder: Encoder, decoder: Decoder, content: Tensor, style_picture: Tensor) -> dict[str, Callable[[], Any]]:
    style = encode_style(encoder, style_picture, size=0)
    statistics = style.to(content.device).components[0].levels
    features = encoder.encode(content)

    def transfer() -> list[Tensor]:
        return [adain(x, level) for x, level in zip(features, statistics, strict=True)]

    target = transfer()
    return {
        "style": lambda: encode_style(encoder, style_picture, size=0),
        "encode": lambda: encoder.encode(content),
        "transfer": transfer,
        "decode": lambda: decoder(target),
        "whole": lambda: stylize(encoder, decoder, content, style),
    }


def training_steps(
    encoder: Encoder, decoder: Decoder, dtypes: Sequence[str], folder: str, device: torch.device
) -> list[Pipeline]:
    """A step of the paper's recipe on random crops, in a plain implementation and in this project's; may write to `folder`."""
    shape = (2, BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE)
    content, style = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    f, g = _plain_copy(encoder, device), _plain_copy(decoder, device).requires_grad_(True)
    optimizer = torch.optim.Adam(g.parameters(), 1e-4)
    pipelines = [
        Pipeline(PLAIN, "float32", {"step": lambda: torch.tensor(plain.training_step(f, g, optimizer, content, style))})
    ]
    for dtype in dtypes:
        config = TrainingConfig(
            content.cpu(), style.cpu(), Path(folder), encoder, start_from=decoder, batch_size=BATCH_SIZE, crop_size=CROP_SIZE,
            precision=dtype,
        )  # fmt: skip
        trainer = Trainer(config, device)

        def step(trainer: Trainer = trainer) -> Tensor:
            return torch.tensor(list(trainer.train_step([trainer.objective.prepare(content, style)]).values()))

        pipelines.append(Pipeline(VGG, dtype, {"step": step}))
    return pipelines


def multiply_adds(network: nn.Module, size: int) -> int:
    """The number of multiply-adds of a network's layers for a square picture of `size` pixels a side."""
    with FlopCounterMode(display=False) as counter:
        network = call = copy.deepcopy(network).to("meta")
        if isinstance(network, Encoder):
            network.plain, call = True, network.encode
        call(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() // 2
