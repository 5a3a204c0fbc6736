"""Training of decoders, of small models and of single styles."""

from .config import PRESETS, TrainingConfig
from .learn import learn_style
from .trainer import TrainingResult, train

__all__ = ["PRESETS", "TrainingConfig", "TrainingResult", "learn_style", "train"]
