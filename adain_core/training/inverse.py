"""A decoder for VGG-19 in closed form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoder import VGGDecoder
from ..encoder import VGGEncoder
from ..layers import reflection_pad

POSITIONS = 60_000  # that a layer is fitted to
LEVEL = [VGGEncoder.levels[0].name]  # named, since without a name 16-bit convolutions read what differs from the mean colour
RIDGE = 1e-3  # of the mean square of what a layer reads


@torch.no_grad()
def fit_inverse(decoder: VGGDecoder, encoder: VGGEncoder, images: Tensor) -> None:
    """Make each layer of the decoder the least-squares inverse of the encoder's layer of its name, on RGB `images`
    `(B, 3, H, W)` in [0, 1].

    From deep to shallow, each reads what those before it give, and makes up for their errors as far as a linear layer
    can: a blurred inverse, in the time of a few hundred steps.
    """
    height, width = (side // decoder.stride * decoder.stride for side in images.shape[2:])
    images = images[:, :, :height, :width]  # what the decoder gives is of the features' size
    generator = torch.Generator().manual_seed(0)
    count = POSITIONS // len(images)
    targets = _inputs(encoder, images)
    x = torch.cat([encoder(image, LEVEL)[0].float() for image in images.split(1)])
    for name, _, _ in decoder.layers:
        convolution = getattr(decoder, name)
        moments = products = 0
        for features, target in zip(x.split(1), targets.pop(name), strict=True):
            if name in decoder.upsampled:
                features = F.interpolate(features, scale_factor=2)
            places = torch.randperm(target[0].numel(), generator=generator)[:count].to(x.device)
            seen = F.unfold(reflection_pad(features, 1, 1, 1, 1), 3)[0, :, places].T
            seen = F.pad(seen, (0, 1), value=1.0)  # the bias
            moments = moments + (seen.T @ seen).double().cpu()
            products = products + (seen.T @ target.flatten(1)[:, places].T).double().cpu()
        # a bias is not held back, but for what keeps the system solvable where a layer reads nothing
        ridge = torch.full((len(moments),), RIDGE * moments.diagonal()[:-1].mean().item() + 1e-6)
        ridge[-1] = 1e-6
        weights = torch.linalg.solve(moments + ridge.double().diag(), products).T.float()
        convolution.weight.copy_(weights[:, :-1].reshape(convolution.weight.shape))
        convolution.bias.copy_(weights[:, -1])
        x = torch.cat([convolution(part) for part in x.split(1)])
        x = x if name == decoder.layers[-1][0] else F.relu(x, inplace=True)


def _inputs(encoder: VGGEncoder, images: Tensor) -> dict[str, list[Tensor]]:
    """What each convolution of the encoder reads, `(C, H, W)` for each image."""
    found = {name: [] for name, _, _ in VGGDecoder.layers}
    hooks = [
        getattr(encoder, name).register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0][0].float()))
        for name, seen in found.items()
    ]
    with torch.enable_grad():  # whole, not in bands
        for image in images.split(1):
            encoder(image, LEVEL)
    for hook in hooks:
        hook.remove()
    return found
