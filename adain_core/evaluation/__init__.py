"""Measurements of models: what a result loses, how steady it is, and how fast it comes."""

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
