"""Normalising an encoder: its filters scaled so that each has a mean activation of 1 over natural pictures.

As in Gatys, Ecker and Bethge (2015). Rectified and max-pooled features scale with their filters. So each filter is divided by
its mean activation, the next layer is multiplied by it, and the network stays the same function up to the scale of its
features. AdaIN's losses need this: with the scales of a network trained for classification, some channels dominate the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .errors import AdainError
from .networks import Encoder
from .networks.base import State
from .networks.layers import ResidualBlock
from .weights import NetworkFile


def normalise(network: NetworkFile, images: Iterable[Tensor]) -> NetworkFile:
    """The encoder `network` normalised over pictures `(B, 3, H, W)` in [0, 1]; `network` itself is not changed.

    The features of each layer are the old ones times `recipe["normalised"]["scale"][layer]`. Raises AdainError for a decoder,
    for an encoder with residual blocks, whose sums have no scale that could be undone, and if there are no pictures.
    """
    encoder = network.build()
    if not isinstance(encoder, Encoder):
        raise AdainError(f"{network.name} is a {network.role}; only encoders are normalised.")
    if any(isinstance(module, ResidualBlock) for module in encoder.modules()):
        raise AdainError(f"{network.name} has residual blocks, which cannot be normalised; give a VGG-19.")
    means, count = mean_activations(encoder, images)
    # a filter that is never active stays as it is
    scales = {layer: torch.where(mean > 0, 1 / mean, 1.0) for layer, mean in means.items()}
    recipe = network.recipe | {"normalised": {"pictures": count, "scale": {k: scale.tolist() for k, scale in scales.items()}}}
    scaled = dataclasses.replace(network, state=scale_filters(network.state, scales), recipe=recipe)
    return dataclasses.replace(scaled, encoder_fingerprint=scaled.build().fingerprint)


def mean_activations(encoder: Encoder, images: Iterable[Tensor]) -> tuple[dict[str, Tensor], int]:
    """Mean of each filter's rectified output over all positions of pictures `(B, 3, H, W)`, and the number of pictures.

    Means are float64 `(C,)` by the layer's name, in the order in which the layers run. Raises AdainError if there are
    no pictures.
    """
    sums: dict[str, Tensor] = {}
    positions: dict[str, int] = {}

    def watch(name: str, layer: nn.Conv2d) -> torch.utils.hooks.RemovableHandle:
        def add(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            sums[name] = sums.get(name, 0) + output.clamp(min=0).sum((0, 2, 3), dtype=torch.float64)
            positions[name] = positions.get(name, 0) + output[:, 0].numel()

        return layer.register_forward_hook(add)

    # in one piece, layer by layer, and in float32: in 16 bits a layer is called for the mean colour too
    plain = encoder.copy_for(encoder.weights_device)
    hooks = [watch(name, layer) for name, layer in plain.named_modules() if isinstance(layer, nn.Conv2d)]
    count = 0
    try:
        with torch.no_grad():
            for batch in images:
                plain.encode(batch)
                count += len(batch)
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise AdainError("there are no pictures to normalise over; give at least one.")
    return {name: sums[name] / positions[name] for name in sums}, count


def scale_filters(state: State, scales: dict[str, Tensor]) -> State:
    """A chain of rectified convolutions with the features of each layer multiplied by its positive scales `(C,)`.

    `scales` are in the layers' order. Each layer undoes its input's scale first. Computed in float64.
    """
    scaled, before = dict(state), None
    for layer, scale in scales.items():
        kernel, bias = state[f"{layer}.weight"].double(), state[f"{layer}.bias"].double()
        if before is not None:
            kernel = kernel / before[:, None, None]
        scaled[f"{layer}.weight"] = (kernel * scale[:, None, None, None]).float()
        scaled[f"{layer}.bias"] = (bias * scale).float()
        before = scale
    return scaled
