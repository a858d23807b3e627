"""One training loop, `fit`, for fine-tuning, distillation and QAT."""

from compress.train.features import FeatureLoss
from compress.train.fit import FitResult, fit, freeze_batch_norm, make_optimizer, memory_format
from compress.train.mutual import Pair, pair_objective
from compress.train.settings import Checkpoint, FitSettings, Objective, TrainingData
from compress.train.step import Lesson, take_step

__all__ = [
    "Checkpoint",
    "FeatureLoss",
    "FitResult",
    "FitSettings",
    "Lesson",
    "Objective",
    "Pair",
    "TrainingData",
    "fit",
    "freeze_batch_norm",
    "make_optimizer",
    "memory_format",
    "pair_objective",
    "take_step",
]
