"""One training loop, `fit`, for fine-tuning, distillation and QAT."""

from compress.train.features import FeatureLoss
from compress.train.fit import FitResult, fit
from compress.train.mutual import Objective, Pair, pair_objective

__all__ = ["FeatureLoss", "FitResult", "Objective", "Pair", "fit", "pair_objective"]
