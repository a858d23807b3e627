"""One training loop, `fit`, for fine-tuning, distillation and QAT."""

from compress.train.features import FeatureLoss
from compress.train.fit import FitResult, fit
from compress.train.mutual import Pair, pair_objective
from compress.train.settings import Checkpoint, FitSettings, Objective, TrainingData

__all__ = [
    "Checkpoint",
    "FeatureLoss",
    "FitResult",
    "FitSettings",
    "Objective",
    "Pair",
    "TrainingData",
    "fit",
    "pair_objective",
]
