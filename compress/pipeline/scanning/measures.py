"""What a cell of a sensitivity scan is scored by: the metric, or how far its outputs are from the original's."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from compress.artifacts import Score
from compress.errors import CompressError
from compress.pipeline.training_images import BATCH
from compress.tasks.base import Comparable, Predict, Task

Measure = Literal["metric", "divergence", "agreement"]
"""Of a scan's cells."""
UNLABELLED_IMAGES = {"classification": 64, "recognition": 48, "detection": 8}
"""Images that `divergence` and `agreement` look at, where nobody says how many (docs/sensitivity.md has the reason)."""
DEFAULT_IMAGES = 64
"""Of any other kind of task."""

ScoreOf = Callable[[Predict], Score]
"""Scores what a model predicts, on the same images in the same order each time."""


def score_by(measure: Measure, task: Task, training: Task, images: int | None, original: Predict) -> ScoreOf:
    """How a scan scores a network.

    Args:
        measure: "metric", on validation images; "divergence", exp(-d) with d the mean divergence from the original's
            outputs on training images, so that logarithms of cells add up; "agreement", the metric with the original's
            answers for labels, on training images. No label of training images is looked at.
        task: the data and metric that are scored.
        training: the task that has training images.
        images: how many; default all validation images, or `UNLABELLED_IMAGES`.
        original: the model before it is changed; run once on training images.

    Raises:
        CompressError: the task does not compare outputs.
    """
    if measure == "metric":
        return lambda predict: task.evaluate(predict) if images is None else task.evaluate(predict, images)
    comparable = check_comparable(measure, training)
    batches = list(training.calibration_batches(count_images(task, images), BATCH))
    wanted = [original(batch) for batch in batches]
    compare = comparable.divergence if measure == "divergence" else comparable.agreement

    def score(predict: Predict) -> Score:
        found = [compare(predict(batch), target) for batch, target in zip(batches, wanted, strict=True)]
        return Score(_figure(measure, np.concatenate(found)), measure, sum(map(len, batches)))

    return score


def check_comparable(measure: Measure, task: Task) -> Comparable:
    """A task as one that compares outputs; CompressError where it does not."""
    if not isinstance(task, Comparable):
        raise CompressError(
            f"sensitivity.measure: {measure}: task {type(task).__name__} does not compare outputs (it has no "
            "divergence and agreement; see compress.tasks.base.Comparable). Use metric."
        )
    return task


def count_images(task: Task, images: int | None) -> int:
    """Training images that outputs are compared on: `images`, or what the kind of task takes."""
    return compared_images(task.kind, images)


def compared_images(kind: str, images: int | None = None) -> int:
    """The same of a kind of task."""
    return images or UNLABELLED_IMAGES.get(kind, DEFAULT_IMAGES)


def _figure(measure: Measure, images: np.ndarray) -> float:
    """One number of what single images say: [N] divergences, or [N, 2] tallies."""
    if measure == "divergence":
        return math.exp(-float(images.mean()))
    right, counted = images.sum(axis=0)
    return float(right / counted) if counted else 1.0
