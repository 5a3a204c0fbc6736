"""A second, plain implementation of the paper's networks in the public layout, for comparisons."""

from __future__ import annotations

from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ARCHITECTURE = "vgg19"
ENCODER = [(3, 3, 1), (3, 64), (64, 64), "pool", (64, 128), (128, 128), "pool", (128, 256)]
ENCODER += [(256, 256)] * 3 + ["pool", (256, 512)]
DECODER = [(512, 256), "up", *[(256, 256)] * 3, (256, 128), "up", (128, 128), (128, 64), "up", (64, 64), (64, 3)]
LOSS_LAYERS = (3, 10, 17, 30)  # relu1_1, relu2_1, relu3_1 and relu4_1 in the encoder
STYLE_WEIGHT = 10


def network(layers: list, last_relu: bool) -> nn.Sequential:
    """The network of `layers` with random weights, frozen."""
    modules = []
    for layer in layers:
        if layer == "pool":
            modules.append(nn.MaxPool2d(2, 2, ceil_mode=True))
        elif layer == "up":
            modules.append(nn.Upsample(scale_factor=2, mode="nearest"))
        elif len(layer) == 3:
            modules.append(nn.Conv2d(3, 3, 1))
        else:
            before, after = layer
            modules += [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]
    return nn.Sequential(*(modules if last_relu else modules[:-1])).requires_grad_(False)


def encoder() -> nn.Sequential:
    """Pictures `(B, 3, H, W)` in [0, 1] to features at relu4_1."""
    return network(ENCODER, True)


def decoder() -> nn.Sequential:
    """Features at relu4_1 to pictures, not clamped."""
    return network(DECODER, False)


def mean_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Channel statistics of `(B, C, H, W)`, each `(B, C, 1, 1)`."""
    flat = x.flatten(2)
    return flat.mean(2)[:, :, None, None], (flat.var(2, unbiased=False) + 1e-5).sqrt()[:, :, None, None]


def normalize_to(x: Tensor, mu: Tensor, sigma: Tensor) -> Tensor:
    """Features `x` with the mean `mu` and the standard deviation `sigma` in place of their own."""
    mu_x, sigma_x = mean_std(x)
    return sigma * (x - mu_x) / sigma_x + mu


def adain(x: Tensor, y: Tensor) -> Tensor:
    """Features `x` with the statistics of `y`."""
    return normalize_to(x, *mean_std(y))


def loss_features(encoder: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Features of pictures `x` at the layers that the losses compare."""
    features = []
    for index, module in enumerate(encoder):
        x = module(x)
        if index in LOSS_LAYERS:
            features.append(x)
    return features


def training_step(
    encoder: nn.Sequential, decoder: nn.Sequential, optimizer: torch.optim.Optimizer, content: Tensor, style: Tensor
) -> tuple[float, float]:
    """One step of the paper's recipe; the content and the style loss before it."""
    with torch.no_grad():
        style_features = loss_features(encoder, style)
        target = adain(encoder(content), style_features[-1])
    features = loss_features(encoder, decoder(target))
    content_loss = F.mse_loss(features[-1], target)
    layers = zip(features, style_features, strict=True)
    pairs = [pair for x, y in layers for pair in zip(mean_std(x), mean_std(y), strict=True)]
    style_loss = reduce(torch.add, (F.mse_loss(*pair) for pair in pairs))
    optimizer.zero_grad()
    (content_loss + STYLE_WEIGHT * style_loss).backward()
    optimizer.step()
    return content_loss.item(), style_loss.item()


def relative_error(a: Tensor, b: Tensor) -> float:
    """`|a - b| / |b|`, with Euclidean norms."""
    return ((a - b).norm() / b.norm()).item()
