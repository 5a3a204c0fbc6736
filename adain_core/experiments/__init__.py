"""The paper's experiments, which `adain evaluate` offers.

The version for ComfyUI's registry lacks this folder (`.comfyignore`), so no code outside of it may depend on it.
"""

from collections.abc import Callable

from ..evaluation.measurement import Measurement
from .ablation import AblationConfig, ablate
from .comparison import ComparisonConfig, compare
from .controls import ControlsConfig, show_controls
from .normalization import NormalizationConfig, compare_normalizations
from .speed import SpeedConfig, measure_speed

# By name: the settings, the function that measures with them, and a description.
EXPERIMENTS: dict[str, tuple[type, Callable[..., Measurement], str]] = {
    "comparison": (ComparisonConfig, compare, "losses of models and of other methods, beside optimisation step by step"),
    "speed": (SpeedConfig, measure_speed, "seconds for a picture, with a style encoded before and with encoding it"),
    "ablation": (AblationConfig, ablate, "train the paper's four variants, and compare their losses"),
    "controls": (ControlsConfig, show_controls, "strength, interpolation, colour and place as pictures"),
    "normalization": (NormalizationConfig, compare_normalizations, "batch, instance, conditional and adaptive normalization"),
}
