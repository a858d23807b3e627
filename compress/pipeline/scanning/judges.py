"""What a scan within a budget measures a cell by: drops on some images, the same ones each time, few among more."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from compress.errors import CompressError
from compress.pipeline.scanning.measures import Measure, check_comparable, count_images
from compress.pipeline.training_images import BATCH
from compress.prune.cell_choice import Cell, image_counts, measure_divergence, measure_drop
from compress.tasks.base import Examiner, Predict, Task


class Judge(Protocol):
    """Scores networks on images, and says how sure it is."""

    baseline: float
    """Figure of the network as it is: what there is to lose."""
    images: int
    """That there are."""
    seconds: float
    """That the network as it is takes on all of them."""

    def drop(self, predict: Predict, images: int) -> Cell:
        """What a network loses on so many images."""


class MetricJudge:
    """The metric on a task's validation images.

    Raises:
        CompressError: the task does not judge single images.
    """

    def __init__(self, task: Task, original: Callable[[], Predict], limit: int | None) -> None:
        """Examine the network as it is on all images, or on `limit`, and take the time."""
        if not isinstance(task, Examiner):
            raise CompressError(
                f"sensitivity.budget: task {type(task).__name__} does not judge single images (see "
                "compress.tasks.base.Examiner), so that nothing tells how sure a figure is. Use images."
            )
        self._task, self._original = task, original
        started = time.monotonic()
        found = task.examine(original(), limit)
        self._name = found.score.name
        if self._name not in found.tallies:
            raise CompressError(f"sensitivity.budget: the task has no tallies of {self._name}. Use images.")
        self.baseline, self.images = found.score.metric, found.score.count
        self.seconds = time.monotonic() - started
        self._known = {self.images: found.tallies[self._name]}

    def drop(self, predict: Predict, images: int) -> Cell:
        """What a network loses on so many images."""
        if images not in self._known:
            self._known[images] = self._tallies(self._original(), images)
        return measure_drop(images, self._known[images], self._tallies(predict, images))

    def _tallies(self, predict: Predict, images: int) -> np.ndarray:
        assert isinstance(self._task, Examiner)
        return self._task.examine(predict, images).tallies[self._name]


class OutputJudge:
    """How near outputs stay to the original's on training images, whose labels are not read.

    Raises:
        CompressError: the task does not compare outputs.
    """

    def __init__(self, measure: Measure, task: Task, original: Callable[[], Predict], limit: int | None) -> None:
        """Take as many images as `score_by`, and the time of the shortest measurement: loading a network takes as long
        as many images, so that a pace taken on all of them would exceed a budget."""
        self._task, self._measure, self._original = check_comparable(measure, task), measure, original
        self._batches = list(task.calibration_batches(count_images(task, limit), BATCH))
        self.baseline, self.images = 1.0, sum(map(len, self._batches))
        self._order = np.random.default_rng(0).permutation(self.images)
        self._known: dict[int, Sequence[np.ndarray]] = {}
        fewest, started = image_counts(self.images)[0], time.monotonic()
        self._wanted(fewest)
        self.seconds = (time.monotonic() - started) * self.images / fewest

    def drop(self, predict: Predict, images: int) -> Cell:
        """What a network loses on so many images: 1 - exp(-mean divergence), or 1 - agreement."""
        pairs = [
            (predict(batch), wanted) for batch, wanted in zip(self._some(images), self._wanted(images), strict=True)
        ]
        if self._measure == "divergence":
            return measure_divergence(images, np.concatenate([self._task.divergence(*pair) for pair in pairs]))
        same = np.concatenate([self._task.agreement(wanted, wanted) for _, wanted in pairs])
        return measure_drop(images, same, np.concatenate([self._task.agreement(*pair) for pair in pairs]))

    def _wanted(self, images: int) -> Sequence[np.ndarray]:
        """What the original says of the first images, by batches."""
        if images not in self._known:
            predict = self._original()
            self._known[images] = [predict(batch) for batch in self._some(images)]
        return self._known[images]

    def _some(self, images: int) -> list[np.ndarray]:
        """The first images of a fixed order, in the batches that they lie in."""
        chosen = np.isin(np.arange(self.images), self._order[:images])
        ends = np.cumsum([len(batch) for batch in self._batches])
        parts = (batch[chosen[end - len(batch) : end]] for batch, end in zip(self._batches, ends, strict=True))
        return [part for part in parts if len(part)]


def judge_by(measure: Measure, task: Task, training: Task, original: Callable[[], Predict], limit: int | None) -> Judge:
    """What a scan by this measure judges networks by.

    Args:
        measure: see `compress.pipeline.scanning.measures`.
        task: the data and metric that are scored.
        training: the task that has training images.
        original: makes the model before it is changed.
        limit: so many images at most; default all validation images, or `UNLABELLED_IMAGES`.

    Raises:
        CompressError: the task does not judge single images, or does not compare outputs.
    """
    if measure == "metric":
        return MetricJudge(task, original, limit)
    return OutputJudge(measure, training, original, limit)
