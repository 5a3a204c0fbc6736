"""VGG-19 up to relu4_1, the paper's encoder, and its mirror."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Architecture, Decoder, Encoder, Level, State, check_weights, fingerprint, load_checked, shapes
from .layers import Arithmetic, ReflectionConv2d, UpsampleConv2d, reflection_pad
from .texture import Texture

POSITIONS = 60_000  # to which each layer of the inverse is fitted
RIDGE = 1e-3  # relative to the mean square of such a layer's input


class VGGEncoder(Encoder):
    """VGG-19 (Simonyan and Zisserman 2015) up to relu4_1, reflection padding, 2x2 max pooling with ceil_mode.

    A network file also holds `preprocess`, the 1x1 convolution from RGB in [0, 1] to the network's input in training
    (BGR minus a mean in the paper's file); it is folded into conv1_1, which is exact under reflection padding.
    """

    architecture = "vgg19"
    levels = (Level("relu4_1", 512, 8),)
    perceptual = True
    blocks = ((64, 64), (128, 128), (256, 256, 256, 256), (512,))
    layers = tuple(f"relu{block}_{k}" for block, widths in enumerate(blocks, 1) for k in range(1, len(widths) + 1))
    # a 3x3 convolution depends on one position more, pooling on no further ones
    halo = sum(len(widths) * 2**block for block, widths in enumerate(blocks))
    values_per_pixel = blocks[0][0]

    def __init__(self, config: dict):
        super().__init__(config)
        channels = 3
        for block, widths in enumerate(self.blocks, 1):
            for index, width in enumerate(widths, 1):
                setattr(self, f"conv{block}_{index}", ReflectionConv2d(channels, width))
                channels = width

    @property
    def loss_levels(self) -> tuple[Level, ...]:
        return tuple(Level(f"relu{k}_1", widths[0], 2 ** (k - 1)) for k, widths in enumerate(self.blocks, 1))

    def layer_names(self) -> list[str]:
        return ["preprocess", *super().layer_names()]

    def load(self, state: State) -> None:
        check_weights(state, shapes(self) | {"preprocess.weight": (3, 3, 1, 1), "preprocess.bias": (3,)})
        self.fingerprint = fingerprint(state, self.layer_names())
        kernel, bias = state["preprocess.weight"].double()[:, :, 0, 0], state["preprocess.bias"].double()
        first = state["conv1_1.weight"].double()
        folded = {
            "conv1_1.weight": torch.einsum("oihw,ic->ochw", first, kernel).float(),
            "conv1_1.bias": (state["conv1_1.bias"].double() + first.sum((2, 3)) @ bias).float(),
        }
        load_checked(self, {k: v for k, v in state.items() if not k.startswith("preprocess.")} | folded)

    def activations(self, x: Tensor, names: Collection[str], arithmetic: Arithmetic) -> dict[str, Tensor]:
        last, features = max(map(self.layers.index, names)), {}
        for block, widths in enumerate(self.blocks, 1):
            here = [name for name in self.layers[: last + 1] if name.startswith(f"relu{block}_")]
            if not here:
                break
            pool = here[-1] != self.layers[last]
            part = partial(self._block, arithmetic=arithmetic, names=here, requested=names, features=features, pool=pool)
            if not set(here).isdisjoint(names):
                x = part(x)
            else:  # an even halo, since pooling works on cells of 2x2
                x = self.in_bands(part, x, len(here) + len(here) % 2, 0.5, max(widths) * x.shape[3])
        return features

    def _block(
        self,
        x: Tensor,
        arithmetic: Arithmetic,
        names: Sequence[str],
        requested: Collection[str],
        features: dict[str, Tensor],
        pool: bool,
    ) -> Tensor:
        """The layers `names` of a block, with pooling if `pool`; the `requested` ones are also put into `features`."""
        for name in names:
            x = arithmetic.relu(getattr(self, name.replace("relu", "conv")), x)
            if name in requested:
                features[name] = x
        return F.max_pool2d(x, 2, ceil_mode=True) if pool and max(x.shape[2:]) > 1 else x

    def inputs(self, image: Tensor) -> dict[str, Tensor]:
        """The input of each convolution for a picture `(1, 3, H, W)`, by its name; float32 `(C, h, w)`."""
        inputs, x = {}, image
        for name, features in zip(self.layers, self.features(image, self.layers), strict=True):
            if name.endswith("_1") and name != self.layers[0]:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            inputs[name.replace("relu", "conv")], x = x[0].float(), features
        return inputs


class VGGDecoder(Decoder):
    """The mirror of VGG-19 from relu4_1, as in the paper."""

    architecture = "vgg19"
    layers = (
        ("conv4_1", 512, 256),
        ("conv3_4", 256, 256),
        ("conv3_3", 256, 256),
        ("conv3_2", 256, 256),
        ("conv3_1", 256, 128),
        ("conv2_2", 128, 128),
        ("conv2_1", 128, 64),
        ("conv1_2", 64, 64),
        ("conv1_1", 64, 3),
    )
    # all blocks but the first begin with upsampling
    blocks = (("conv4_1",), ("conv3_4", "conv3_3", "conv3_2", "conv3_1"), ("conv2_2", "conv2_1"), ("conv1_2", "conv1_1"))
    upsampled = tuple(names[0] for names in blocks[1:])
    channels = (layers[0][1],)
    centred = True
    stride = 2 ** len(upsampled)
    values_per_pixel = layers[-1][1]

    def __init__(self, config: dict):
        super().__init__(config)
        for name, before, after in self.layers:
            setattr(self, name, (UpsampleConv2d if name in self.upsampled else ReflectionConv2d)(before, after))
        stride, self.halo = self.stride, 0
        for name, _, _ in self.layers:
            stride //= 2 if name in self.upsampled else 1
            self.halo += stride  # a 3x3 convolution depends on one position more

    @classmethod
    def for_encoder(cls, encoder: Encoder, blocks: Sequence[int] | None = None) -> VGGDecoder:
        return cls({})

    def draw(self, features: Sequence[Tensor], arithmetic: Arithmetic, texture: Texture) -> Tensor:
        (x,) = features
        for names in self.blocks:
            scale = 2 if names[0] in self.upsampled else 1
            values_per_row = getattr(self, names[0]).out_channels * scale**2 * x.shape[3]
            # upsampling depends on one position more, two convolutions after it together on one more
            part = partial(self._block, arithmetic=arithmetic, names=names)
            x = self.in_bands(part, x, len(names) // 2 + 1, scale, values_per_row)
        return x

    def _block(self, x: Tensor, arithmetic: Arithmetic, names: Sequence[str]) -> Tensor:
        for name in names:
            x = (arithmetic.output if name == self.layers[-1][0] else arithmetic.relu)(getattr(self, name), x)
        return x

    @torch.no_grad()
    def fit_inverse(self, encoder: VGGEncoder, images: Tensor) -> None:
        """Each layer becomes the least-squares inverse of the encoder's layer of its name, on RGB `images`
        `(B, 3, H, W)` in [0, 1].

        The layers are fitted from deep to shallow. Each reads the results of those before it, and corrects their errors as far
        as a linear layer can. The result is a blurred inverse, in the time of a few hundred steps.
        """
        height, width = (side // self.stride * self.stride for side in images.shape[2:])
        images = images[:, :, :height, :width]  # a decoder's result has the features' size times the stride
        generator = torch.Generator().manual_seed(0)
        count = POSITIONS // len(images)
        inputs = [encoder.inputs(image) for image in images.split(1)]
        x = torch.cat([encoder.features(image, encoder.layers[-1:])[0].float() for image in images.split(1)])
        for name, _, _ in self.layers:
            convolution = getattr(self, name)
            input_count = 9 * convolution.in_channels + 1  # 3x3 positions, and a 1 for the bias
            moments = torch.zeros(input_count, input_count, dtype=torch.float64)
            products = torch.zeros(input_count, convolution.out_channels, dtype=torch.float64)
            for features, targets in zip(x.split(1), inputs, strict=True):
                target = targets.pop(name)
                if name in self.upsampled:
                    features = F.interpolate(features, scale_factor=2)
                places = torch.randperm(target[0].numel(), generator=generator)[:count].to(x.device)
                patches = F.unfold(reflection_pad(features, 1, 1, 1, 1), 3)[0, :, places].T
                patches = F.pad(patches, (0, 1), value=1.0)  # the bias
                moments += (patches.T @ patches).cpu().double()
                products += (patches.T @ target.flatten(1)[:, places].T).cpu().double()
            # no penalty on the bias, except a tiny one that keeps the system solvable if all inputs are 0
            ridge = torch.full((input_count,), RIDGE * moments.diagonal()[:-1].mean().item() + 1e-6)
            ridge[-1] = 1e-6
            weights = torch.linalg.solve(moments + ridge.double().diag(), products).T.float()
            convolution.weight.copy_(weights[:, :-1].reshape(convolution.weight.shape))
            convolution.bias.copy_(weights[:, -1])
            x = torch.cat([convolution(part) for part in x.split(1)])
            x = x if name == self.layers[-1][0] else F.relu(x, inplace=True)


ARCHITECTURE = Architecture(VGGEncoder, VGGDecoder)
