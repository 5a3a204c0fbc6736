"""The methods that the paper compares AdaIN with: optimisation, patch matching, and networks of one style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..evaluation.losses import Losses, layer_features
from ..evaluation.measurement import Judge, MeasurementConfig
from ..losses import content_loss, style_loss
from ..networks import Encoder
from ..networks.base import initialize
from ..networks.layers import DownsampleConv2d, PointwiseConv2d, ReflectionConv2d, ResidualBlock, UpsampleConv2d
from ..normalization import BatchNorm2d, ConditionalInstanceNorm2d, InstanceNorm2d
from ..progress import Counter, tell
from ..statistics import ChannelStatistics, adain, channel_statistics
from ..training.data import Augmentation, PictureFolder, stream

# The normalization layers of a network of one style, made from the number of channels.
NORMALIZATIONS = {"batch": BatchNorm2d, "instance": partial(InstanceNorm2d, affine=True)}
STYLE_WEIGHT = 10.0  # of every method here, as in the paper's training
WIDTH = 32  # channels at full size of a network of one style
SWAPPED = "relu3_1"  # the layer whose features Style-Swap swaps
PATCH = 3  # the side of a patch, in features
MATCHED = 2048  # patches of the content that are compared at once with all patches of the style

Net = TypeVar("Net", bound=nn.Module)


class AdaINLoss:
    """The training loss of AdaIN's decoders: the distance to the AdaIN target, and the style loss times 10.

    It is made from contents `(B, 3, H, W)` and the statistics of a style's `layer_features`. Every method here minimises it
    instead of its own losses (mostly of Gram matrices), so that the results can be compared. The network is plain (see
    `Network`), since gradients pass through it.
    """

    def __init__(self, network: Encoder, content: Tensor, style: Sequence[ChannelStatistics]):
        self.network, self.style = network, style
        self.target = adain(layer_features(network, content)[-1], style[-1])

    def __call__(self, pictures: Tensor) -> tuple[Tensor, Losses]:
        """The sum to minimise, and its parts, for pictures of the contents' shape."""
        features = self.network.features(pictures, self.network.loss_layers)
        parts = content_loss(features[-1], self.target), style_loss(features, self.style)
        return parts[0] + STYLE_WEIGHT * parts[1], Losses(*(part.item() for part in parts))


def optimise(start: Tensor, loss: Callable[[Tensor], Tensor], iterations: int) -> Tensor:
    """The picture `start` `(1, 3, H, W)` optimised by L-BFGS, clamped to [0, 1]; each iteration calls `loss` once."""
    picture = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS([picture], max_iter=1, tolerance_grad=0, tolerance_change=0, history_size=20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(picture)
        value.backward()
        return value

    for iteration in range(1, iterations + 1):
        optimizer.step(closure)
        with torch.no_grad():
            picture.clamp_(0, 1)
        tell(iteration, iterations)
    return picture.detach()


def gatys(network: Encoder, content: Tensor, style: Tensor, iterations: int) -> tuple[Tensor, list[Losses]]:
    """A picture optimised from the content (Gatys, Ecker and Bethge 2016), and its losses before each iteration and at the end.

    Content and style are `(1, 3, H, W)` in [0, 1]; the `AdaINLoss` is minimised.
    """
    statistics = [channel_statistics(x) for x in layer_features(network, style)]
    objective, curve = AdaINLoss(network, content, statistics), []

    def loss(picture: Tensor) -> Tensor:
        total, losses = objective(picture)
        curve.append(losses)
        return total

    picture = optimise(content, loss, iterations)
    with torch.no_grad():
        loss(picture)
    return picture, curve


def style_swap(network: Encoder, content: Tensor, style: Tensor, iterations: int) -> Tensor:
    """A picture by Style-Swap (Chen and Schmidt 2016): features at relu3_1 swapped, then inverted by optimisation.

    Content and style are `(1, 3, H, W)` in [0, 1]. The paper's total variation loss is left out of the inversion.
    """
    with torch.no_grad():
        target = swap_patches(network.features(content, [SWAPPED])[0], network.features(style, [SWAPPED])[0])
    return optimise(content, lambda picture: content_loss(network.features(picture, [SWAPPED])[0], target), iterations)


def swap_patches(content: Tensor, style: Tensor) -> Tensor:
    """Features `content` `(1, C, h, w)` with every patch replaced by the most similar one of `style` `(1, C, any, any)`.

    The similarity is the normalised cross-correlation; overlapping patches are averaged. Source: Chen and Schmidt 2016.
    """
    patches, own = F.unfold(style, PATCH)[0], F.unfold(content, PATCH)[0]
    unit_patches = F.normalize(patches, dim=0)
    nearest = torch.cat([(part.mT @ unit_patches).argmax(1) for part in own.split(MATCHED, dim=1)])
    swapped, size = patches[None, :, nearest], content.shape[2:]
    return F.fold(swapped, size, PATCH) / F.fold(torch.ones_like(swapped), size, PATCH)


def add_normalization(network: Net, layer: Callable[[int], nn.Module]) -> Net:
    """The same network with `layer(channels)` after each of its convolutions but the last, which draws the picture, and those
    of 1x1, which bring the texture.
    """
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d) and not isinstance(each, PointwiseConv2d)]
    for convolution in convolutions[:-1]:
        convolution.normalization = layer(convolution.out_channels)
        convolution.register_forward_hook(lambda module, _, result: module.get_submodule("normalization")(result))
    return network


class StyleNetwork(nn.Module):
    """A feed-forward network of one style, or of a few (Ulyanov et al. 2016, Johnson et al. 2016, Dumoulin et al. 2017).

    `layer(channels)` makes its normalization: batch or instance normalization, or `ChosenNorm2d`, with a pair for each style.
    """

    def __init__(self, layer: Callable[[int], nn.Module], seed: int = 0, width: int = WIDTH):
        super().__init__()
        narrow, middle, wide = width, 2 * width, 4 * width
        parts = [ReflectionConv2d(3, narrow), DownsampleConv2d(narrow, middle), DownsampleConv2d(middle, wide)]
        parts += [*(ResidualBlock(wide) for _ in range(3)), UpsampleConv2d(wide, middle), UpsampleConv2d(middle, narrow)]
        drawing = ReflectionConv2d(narrow, 3)
        modules = [module for part in parts for module in (part, nn.ReLU())]
        self.layers = nn.Sequential(*modules, drawing)
        initialize(self, seed)
        with torch.no_grad():  # pictures begin near mid-grey
            drawing.weight.mul_(0.1)
            drawing.bias.fill_(0.5)
        add_normalization(self, layer)

    def forward(self, content: Tensor, style: int = 0) -> Tensor:
        """Contents `(B, 3, H, W)` in the style of this number, not clamped."""
        for module in self.modules():
            if isinstance(module, ChosenNorm2d):
                module.style = style
        return self.layers(content)[:, :, : content.shape[2], : content.shape[3]]


class ChosenNorm2d(ConditionalInstanceNorm2d):
    """Conditional instance normalization whose `style` is set once for all layers of a network."""

    style = 0

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, torch.full((len(x),), self.style, device=x.device))


def train_style_network(
    style_network: StyleNetwork,
    network: Encoder,
    styles: Sequence[Sequence[ChannelStatistics]],
    contents: Path,
    steps: int,
    batch_size: int,
    crop_size: int,
    learning_rate: float = 1e-3,
    augment: Augmentation | None = None,
    seed: int = 0,
) -> list[Losses]:
    """Train a network on crops of the pictures in `contents`, the styles in turn. Returns its losses before each step.

    `styles` are the statistics of each style's `layer_features`; the `AdaINLoss` is minimised. Both networks are on one
    device; the trained one is in evaluation mode afterwards.
    """
    device, curve = network.weights_device, []
    optimizer = torch.optim.Adam(style_network.train().parameters(), learning_rate)
    pictures = PictureFolder(contents, crop_size, 2 * crop_size, augment, seed=seed)
    batches, counter = stream([pictures], batch_size, workers=0), Counter(steps)
    for step in range(steps):
        with counter.part():
            (batch,) = next(batches)
            content, index = batch.to(device).float() / 255, step % len(styles)
            total, losses = AdaINLoss(network, content, styles[index])(style_network(content, index))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            curve.append(losses)
    style_network.eval().requires_grad_(False)
    return curve


@dataclass(frozen=True)
class StyleNetworkConfig(MeasurementConfig):
    """An experiment on `content_count` contents and `style_count` styles that trains networks of one style, or of a few.

    They are trained for `training_steps` on batches of `batch_size` crops of `crop_size` pixels from `training_contents`
    (default: `contents`).
    """

    FULL: ClassVar[dict] = {
        "size": 512, "content_count": 50, "style_count": 10, "training_steps": 2000, "crop_size": 256,
    }  # fmt: skip

    content_count: int = 2
    style_count: int = 2
    training_contents: Path | None = None
    training_steps: int = 100
    batch_size: int = 4
    crop_size: int = 64

    def train(
        self, layer: Callable[[int], nn.Module], judge: Judge, styles: Sequence[str], augment: Augmentation | None = None
    ) -> tuple[StyleNetwork, list[Losses]]:
        """A network with the normalization `layer(channels)`, trained on these styles, and its losses before each step."""
        network = StyleNetwork(layer, self.seed).to(judge.device)
        return network, train_style_network(
            network, judge.network, [judge.statistics[style] for style in styles], self.training_contents or self.contents,
            self.training_steps, self.batch_size, self.crop_size, augment=augment, seed=self.seed,
        )  # fmt: skip
