"""A second, plain implementation of the paper's networks in the public layout, to compare with."""

from __future__ import annotations

import torch
from torch import nn

ENCODER = [(3, 3, 1), (3, 64), (64, 64), "pool", (64, 128), (128, 128), "pool", (128, 256)]
ENCODER += [(256, 256)] * 3 + ["pool", (256, 512)]
DECODER = [(512, 256), "up", *[(256, 256)] * 3, (256, 128), "up", (128, 128), (128, 64), "up", (64, 64), (64, 3)]


def network(layers, last_relu: bool) -> nn.Sequential:
    modules = []
    for layer in layers:
        if layer == "pool":
            modules.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif layer == "up":
            modules.append(nn.Upsample(scale_factor=2, mode="nearest"))
        elif len(layer) == 3:
            modules.append(nn.Conv2d(3, 3, 1))
        else:
            modules += [nn.ReflectionPad2d(1), nn.Conv2d(*layer, 3), nn.ReLU()]
    return nn.Sequential(*(modules if last_relu else modules[:-1])).requires_grad_(False)


def encoder() -> nn.Sequential:
    return network(ENCODER, True)


def decoder() -> nn.Sequential:
    return network(DECODER, False)


def mean_std(x):
    flat = x.flatten(2)
    return flat.mean(2)[:, :, None, None], (flat.var(2, unbiased=False) + 1e-5).sqrt()[:, :, None, None]


def adain(x, y):
    (mu_x, sigma_x), (mu_y, sigma_y) = mean_std(x), mean_std(y)
    return sigma_y * (x - mu_x) / sigma_x + mu_y


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()
