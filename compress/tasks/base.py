"""What a task is: how to read data, the loss, and the metric.

A task scores a `predict` function, so an fp32 network, a pruned one, a QAT model and an onnxruntime session
are scored by the very same lines.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from compress.artifacts import Score

Predict = Callable[[np.ndarray], np.ndarray]
"""Float32 images [N, 3, H, W] -> the model's first output, float32 [N, ...]."""


@dataclass(frozen=True)
class Batch:
    """Images [N, 3, H, W] float32 as the model expects them, and whatever the task's loss needs."""

    images: Tensor
    targets: Any


class Task(Protocol):
    """One OCR task on one set of data. Bring your own with `--task package.module:Class`."""

    kind: str
    metric_name: str
    input_shape: tuple[int, int, int]
    """(3, H, W) of the images that the model is fed and measured with."""

    def train_batches(self, *, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """Shuffled, augmented batches; the same (epoch, seed) gives the same batches, in any process."""

    def train_steps(self, batch_size: int) -> int:
        """Number of batches in an epoch."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mean loss of the model's output against the targets."""

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Mean distance of the model's output from its teacher's, on the same images."""

    def evaluate(self, predict: Predict, limit: int | None = None) -> Score:
        """Score on the validation data, or on `limit` of its images, always the same ones."""

    def calibration_batches(self, count: int, batch_size: int) -> Iterator[np.ndarray]:
        """At most `count` unaugmented training images, in batches, always the same ones."""

    def check_model(self, output_shape: tuple[int | None, ...]) -> None:
        """Raise DataError where the model's output does not fit the task (e.g. number of classes)."""

    def fingerprint(self) -> str:
        """Identity of the data and of everything that changes the metric."""

    def warnings(self) -> tuple[str, ...]:
        """What was counted, named and skipped while reading (unreadable images, ...)."""
