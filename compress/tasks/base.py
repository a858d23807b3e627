"""What a task is: how to read data, the loss, and the metric.

A task scores a `predict` function, so an fp32 network, a pruned one, a QAT model and an onnxruntime session
are scored by the very same lines.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from compress.artifacts import Score
from compress.data.overlap import Stored
from compress.data.processing import Processing
from compress.progress import Progress

Share = tuple[int, int]
"""Number of a process among those that share a batch or a score, and how many these are; (0, 1) is all."""
Predict = Callable[[np.ndarray], np.ndarray]
"""Float32 images [N, 3, H, W] -> the model's first output, float32 [N, ...]."""


@dataclass(frozen=True)
class Batch:
    """Images [N, 3, H, W] float32 as the model expects them, and whatever the task's loss needs."""

    images: Tensor
    targets: Any
    damaged: tuple[str, ...] = ()
    """Names of images that should be among these and cannot be decoded."""


MarkKind = Literal["ignored", "label", "missed", "found", "wrong"]
"""A region of the label: not counted, found, or missed; a region of the model: right or wrong."""


@dataclass(frozen=True)
class Mark:
    """A polygon to draw on an image: points [P, 2] (x, y) in the image's pixels."""

    points: np.ndarray
    kind: MarkKind


@dataclass(frozen=True)
class Case:
    """How a model judged one validation image. `index` names the image to the task, `name` (a file's) to people."""

    index: int
    name: str
    label: str
    found: str | None
    """What the model says, as people read it; None where its output was unusable (NaN)."""
    error: float
    """0 is right; up to 1, higher is worse. What it measures is the task's `error_name`."""
    marks: tuple[Mark, ...] | None = None
    """What to draw on the image; None where nothing ever is."""


@dataclass(frozen=True)
class Examination:
    """A model's score, and the single judgements it is made of, in the order of the validation images."""

    score: Score
    cases: tuple[Case, ...] = ()
    tallies: dict[str, np.ndarray] = field(default_factory=dict)
    """Figure (the score's own name, or one of its details) -> [N, 2]: what each of N images adds to the numerator and
    denominator of the figure. Intervals are made from them (`compress.measure.intervals`); none, no intervals."""


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


@runtime_checkable
class Examiner(Protocol):
    """What a task offers beside `Task` so that single images can be shown; one that does not is not shown."""

    error_name: str
    """What `Case.error` measures."""

    def examine(self, predict: Predict, limit: int | None = None) -> Examination:
        """What `evaluate` gives, from one pass over the images, with each image's judgement."""

    def picture(self, case: Case) -> np.ndarray:
        """The image that a case of this task is about, uint8 BGR [h, w, 3]."""


@runtime_checkable
class Unlabelled(Protocol):
    """What a task offers beside `Task` if it trains on images that only the original model says something of."""

    def label_unlabelled(self, predict: Predict, original: str, on_progress: Progress | None = None) -> Task:
        """The same task, its images without labels labelled by the original model, once, for all of training.

        Args:
            predict: the original model.
            original: its identity, which becomes part of the task's fingerprint.
            on_progress: called as (images done, in all, message).
        """


@runtime_checkable
class MutualLoss(Protocol):
    """What a task offers beside `Task` if two students are compared otherwise than a student with its teacher."""

    def mutual_loss(self, outputs: Tensor, other_outputs: Tensor) -> Tensor:
        """Mean distance of a student's output from the other student's, on the same images."""


@runtime_checkable
class Comparable(Protocol):
    """What a task offers beside `Task` if a changed model can be scored by what the original says, without labels."""

    def divergence(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """How far each image's output is from the original's, [N]: 0 for equal ones, infinite where not finite."""

    def agreement(self, outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
        """What each image adds to the metric's numerator and denominator, the original's answer for a label: [N, 2]."""


@runtime_checkable
class PostProcessing(Protocol):
    """What a task offers beside `Task` if settings of what follows the model decide its metric; reports say them."""

    def postprocessing(self) -> dict[str, float]:
        """Setting -> value, by the keys of a recipe."""


@runtime_checkable
class Processed(Protocol):
    """What a task offers beside `Task` if models are fed and read in several ways (see `Processing`)."""

    processing: Processing
    blank: int
    """The class of CTC's blank; of no meaning without time steps."""

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """A model's outputs as probabilities, images first."""

    def with_processing(self, processing: Processing) -> Task:
        """The same task on the same images, resized as they are, with other settings: to find out which ones fit."""


@runtime_checkable
class Shareable(Protocol):
    """What a task offers beside `Task` if several processes can train on it, each on its share of every batch."""

    share: Share


@runtime_checkable
class SharedScoring(Protocol):
    """What a task offers beside `Task` if several processes can score a model together."""

    def judge_share(self, predict: Predict, limit: int | None = None, share: Share = (0, 1)) -> Mapping[int, Any]:
        """What a model says of this share of the validation images, by their numbers. Images are fed in the batches in
        which one process feeds them, so that shares together are what that one finds."""

    def combine(self, judged: Mapping[int, Any], limit: int | None = None) -> Examination:
        """What `examine` gives, from what all shares together say."""


@runtime_checkable
class Listed(Protocol):
    """What a task offers beside `Task` if its images are files, so that lists that share some of them are found."""

    def stored_images(self) -> Mapping[str, Sequence[Stored]]:
        """The images of each of its lists (`train`, `unlabelled`, `val`) as they are stored."""


@runtime_checkable
class Resizable(Protocol):
    """What a task offers beside `Task` if its images are scored at a size of choice; a smaller one is quicker."""

    side: int

    def with_side(self, side: int) -> Task:
        """The same task at another side, with another fingerprint."""
