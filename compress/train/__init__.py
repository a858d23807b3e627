"""One training loop, `fit`, for fine-tuning, distillation and QAT."""

from compress.train.features import FeatureLoss
from compress.train.fit import FitResult, fit

__all__ = ["FeatureLoss", "FitResult", "fit"]
