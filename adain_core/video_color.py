"""The colours of video frames in sRGB: high dynamic range (PQ, HLG) and wide gamuts, by the code points of ITU-T H.273."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

LINEAR, PQ, HLG = 8, 16, 18  # transfer characteristics
BT2020, P3 = 9, (11, 12)  # primaries; P3 of cinemas has another white, which is taken for the same
WHITE = 203.0  # candelas per square metre of white paper in PQ and HLG, by ITU-R BT.2408
PEAK = 1000.0  # of the display that HLG is made for; brighter light is shown as this
KNEE = 0.9  # sRGB values above are compressed, so that highlights up to the peak keep their shapes
# linear light, by the primaries of each space and the white D65
TO_SRGB = {
    BT2020: [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]],
    **dict.fromkeys(P3, [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]]),
}
LUMINANCE_2020 = (0.2627, 0.6780, 0.0593)


def needs_conversion(transfer: int, primaries: int) -> bool:
    """Whether RGB of this transfer and these primaries differs visibly from sRGB. Other curves of SDR are shown as they are."""
    return transfer in (LINEAR, PQ, HLG) or primaries in TO_SRGB


def to_srgb(pixels: np.ndarray, transfer: int, primaries: int) -> Tensor:
    """RGB of 16 bits `(H, W, 3)` as float32 sRGB `(1, 3, H, W)` in [0, 1]; light brighter than white paper is compressed."""
    linear = torch.from_numpy(_linear(transfer)[pixels]).permute(2, 0, 1)
    if transfer == HLG:  # what a display of the peak shows of a scene
        luminance = torch.einsum("c,chw->hw", linear.new_tensor(LUMINANCE_2020), linear)
        linear = linear * (luminance.clamp_min(1e-6) ** 0.2 * (PEAK / WHITE))
    if primaries in TO_SRGB:
        linear = torch.einsum("dc,chw->dhw", linear.new_tensor(TO_SRGB[primaries]), linear)
    encoded = _encode(linear.clamp_min(0))
    if transfer in (PQ, HLG):
        encoded = _compress(encoded)
    return encoded.clamp(0, 1)[None]


@functools.lru_cache(maxsize=4)
def _linear(transfer: int) -> np.ndarray:
    """The linear light of each value of 16 bits, 1 is white; of the scene for HLG."""
    x = np.arange(65536) / 65535
    if transfer == PQ:  # SMPTE ST 2084
        power = x ** (32 / 2523)
        light = 10000 / WHITE * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (16384 / 2610)
    elif transfer == HLG:  # ARIB STD-B67
        light = np.where(x <= 0.5, x**2 / 3, (np.exp((x - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    elif transfer == LINEAR:
        light = x
    else:  # SDR is meant for displays much like those of sRGB
        light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return light.astype(np.float32)


def _encode(linear: Tensor) -> Tensor:
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def _compress(encoded: Tensor) -> Tensor:
    """Bring a picture `(3, H, W)` down to 1 at the peak, without a change of hue: its largest channel follows a curve."""
    peak = (_encode(torch.tensor(PEAK / WHITE)).item() - KNEE) / (1 - KNEE)
    largest = encoded.amax(0).clamp_min(KNEE)
    over = ((largest - KNEE) / (1 - KNEE)).clamp(max=peak)
    return encoded * ((KNEE + (1 - KNEE) * over * (1 + over / peak**2) / (1 + over)) / largest)
