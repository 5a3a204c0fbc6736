"""Measurements of models: their losses, their stability in clips, and their speed."""

from .boil import boil
from .losses import Losses, layer_features, pair_losses
from .report import EvaluationConfig, PairBoil, PairLosses, Report, evaluate

__all__ = [
    "EvaluationConfig",
    "Losses",
    "PairBoil",
    "PairLosses",
    "Report",
    "boil",
    "evaluate",
    "layer_features",
    "pair_losses",
]
