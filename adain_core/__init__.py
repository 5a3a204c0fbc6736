"""Arbitrary style transfer by adaptive instance normalization (Huang and Belongie 2017, arXiv 1703.06868).

Pictures are RGB in [0, 1], float32, of shape `(B, 3, H, W)`; a fourth channel is alpha and is kept.
"""

from .color import keep_colors, match_colors
from .evaluation import EvaluationConfig, Report, evaluate
from .networks import Decoder, Encoder
from .refine import refine
from .statistics import ChannelStatistics, adain, channel_statistics
from .style import Style, encode_style, join_encoders, load_style, mix_styles
from .stylize import Features, decode, stylize, transfer
from .training import TrainingConfig, TrainingResult, learn_style, train
from .weights import load_decoder, load_encoder

__all__ = [
    "ChannelStatistics",
    "Decoder",
    "Encoder",
    "EvaluationConfig",
    "Features",
    "Report",
    "Style",
    "TrainingConfig",
    "TrainingResult",
    "adain",
    "channel_statistics",
    "decode",
    "encode_style",
    "evaluate",
    "join_encoders",
    "keep_colors",
    "learn_style",
    "load_decoder",
    "load_encoder",
    "load_style",
    "match_colors",
    "mix_styles",
    "refine",
    "stylize",
    "train",
    "transfer",
]
