"""Training of decoders and of small models."""

from .config import PRESETS, TrainingConfig
from .trainer import TrainingResult, train

__all__ = ["PRESETS", "TrainingConfig", "TrainingResult", "train"]
