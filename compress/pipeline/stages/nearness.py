"""How near int8 networks are to the float one before they are trained: what a choice by time alone does not see.

Of files that are about as fast, one may lose much more than another: of PP-OCRv5's detector, pruned to 0.59x, the
fastest (35.7 ms) agrees on .8329 of the text of images held back, one of 37.2 ms on .8712, and one of 40.2 ms, where
nothing is convolved before it is upsampled, on .9388 (AMD EPYC, one thread, calibrated, not trained).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
import torch
from torch import fx

from compress.artifacts import fingerprint
from compress.graph import to_torch
from compress.pipeline.evaluation import default_threads
from compress.pipeline.stages.int8_scan import network_predict
from compress.pipeline.stages.prepared import prepare
from compress.pipeline.training_images import BATCH
from compress.progress import Progress
from compress.quant import calibrate
from compress.quant.layer_scan import Calibration, read_calibration
from compress.quant.nodes import output_values
from compress.recipe import QuantizeStep
from compress.tasks.base import Comparable, Predict, Task

CALIBRATED = {"classification": 128, "recognition": 96, "detection": 16}
"""Kind of task -> images to calibrate on, at most."""
COMPARED = {"classification": 256, "recognition": 192, "detection": 8}
"""Kind of task -> images that outputs are compared on. By 48 words the best way to calibrate PP-OCRv4's recogniser is
not found (docs/recovery.md)."""
FIGURE = "agreement times the mean of exp(-divergence)"
OTHERS = 64
"""Of another kind of task, for both."""
STARTS = (None, 99.99, 99.9, 99.5)
"""Where ranges may start: at the least squared error, or at a percentile of |x|. Of tensors with few values far from
all others, the least squared error keeps those and rounds all others coarsely. Measured for PP-OCRv5's detector, pruned
to 0.59x, all in integers: docs/recovery.md."""


@dataclass(frozen=True)
class Candidate:
    """A way to quantise a network."""

    name: str
    lowered: onnx.ModelProto
    """The network in the form that is quantised."""
    float_values: Collection[str]
    """Values that are computed in float, as `prepare_qat` takes them."""


def start_in_words(percentile: float | None) -> str:
    """What a start of ranges is called.

    >>> start_in_words(None), start_in_words(99.9)
    ('least squared error', 'percentile 99.9')
    """
    return "least squared error" if percentile is None else f"percentile {percentile:g}"


@dataclass(frozen=True)
class Start:
    """Where the ranges of a network start."""

    percentile: float | None = None
    """Of |x|; None for the least squared error."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of what it was chosen from, in words -> how near the network is, higher is nearer."""


def score_outputs(task: Task, images: int, original: Predict) -> Callable[[Predict], float]:
    """How near what a network predicts is to the original's, from 0 to 1 (see `Nearness`).

    Args:
        task: gives training images and compares outputs; one that does not compare them is evaluated.
        images: how many to look at.
        original: run once on each.
    """
    if not isinstance(task, Comparable):
        return lambda predict: task.evaluate(predict, images).metric
    comparable, batches = task, list(task.calibration_batches(images, BATCH))
    wanted = [original(batch) for batch in batches]

    def score(predict: Predict) -> float:
        near, tallies = [], []
        for batch, target in zip(batches, wanted, strict=True):
            found = predict(batch)
            near.append(np.exp(-comparable.divergence(found, target)))
            tallies.append(comparable.agreement(found, target))
        right, counted = np.concatenate(tallies).sum(axis=0)
        agreement = right / counted if counted else 1.0
        return float(agreement * np.concatenate(near).mean())

    return score


@dataclass(frozen=True)
class Nearness:
    """Scores candidates by how near their outputs are to the float network's on unlabelled training images: agreement
    (the metric with the float network's answers for labels) times the mean of exp(-d), d an image's divergence.

    Either alone misleads: few words change where outputs drift, and some that drift little all change alike; the mean
    of d itself is that of few images (docs/recovery.md). Of a task that does not compare outputs it is the metric on as
    many validation images. NaN counts as nothing."""

    task: Task
    step: QuantizeStep
    float_layers: Callable[[fx.GraphModule], Collection[str]]
    """A lowered module -> its layers that stay in float."""
    threads: int | None = None
    on_progress: Progress | None = None
    _kept: dict[int, "Network"] = field(default_factory=dict, repr=False, compare=False)
    """By the lowered network's id: what was calibrated to find a start, until its candidates are scored."""

    def start(self, lowered: onnx.ModelProto) -> Start:
        """Where ranges start: as the step says, else where the network is nearest with all that can in integers."""
        if self.step.pact.percentile is not None:
            return Start(self.step.pact.percentile)
        form = self._form(lowered)
        scores = {}
        for percentile in STARTS:
            scores[percentile] = form.score(form.outputs, percentile)
            self._say(len(scores), len(STARTS), f"ranges at {start_in_words(percentile)}", scores[percentile])
        self._kept[id(lowered)] = form
        best = max(scores, key=scores.__getitem__)
        return Start(best, {start_in_words(percentile): score for percentile, score in scores.items()})

    def scores(self, candidates: Sequence[Candidate], percentile: float | None) -> Mapping[str, float]:
        """Name of each candidate -> its score with such ranges, higher is nearer.

        Candidates of the same lowered network share a calibration where they can, of fewer images than the stage's own.
        """
        found: dict[str, float] = {}
        for lowered in {id(one.lowered): one.lowered for one in candidates}.values():
            form = self._form(lowered)
            for one in candidates:
                if one.lowered is lowered:
                    found[one.name] = form.score(one.float_values, percentile)
                    self._say(len(found), len(candidates), one.name, found[one.name])
        return {one.name: found[one.name] for one in candidates}

    def identity(self) -> str:
        """Fingerprint of what scores depend on beside the network and which layers stay in float."""
        step = self.step
        ends = (step.pact.asymmetric_hardswish, step.pact.symmetric)
        calibrated = (step.calibration, step.batch_size, step.pact.percentile, *ends)
        images = (CALIBRATED.get(self.task.kind, OTHERS), COMPARED.get(self.task.kind, OTHERS))
        return fingerprint(self.task.fingerprint(), *calibrated, *map(start_in_words, STARTS), *images, FIGURE)

    def _form(self, lowered: onnx.ModelProto) -> "Network":
        torch.set_num_threads(self.threads or default_threads())
        return self._kept.pop(id(lowered), None) or Network(self, lowered)

    def _say(self, done: int, total: int, what: str, score: float) -> None:
        if self.on_progress is not None:
            self.on_progress(done, total, f"{what}: nearness {score:.4f}")


class Network:
    """A lowered network, calibrated, and how near it is with parts of it in integers."""

    def __init__(self, given: Nearness, lowered: onnx.ModelProto) -> None:
        """Calibrate it, all in integers and all in float."""
        self._given, self.module = given, to_torch(lowered)
        self._float_layers = tuple(given.float_layers(self.module))
        self.outputs = output_values(self.module)
        """Values that are in float always."""
        task, step = given.task, given.step
        self._images = min(step.calibration, CALIBRATED.get(task.kind, OTHERS))
        self._batches = partial(task.calibration_batches, self._images, min(step.batch_size, self._images))
        self._calibration = read_calibration(
            lambda more: self._prepare(self.outputs, more),
            self._batches,
            percentile=step.pact.percentile,
            total=self._images,
            on_progress=given.on_progress,
        )
        self._ranges: dict[float | None, Calibration] = {}
        self._score = score_outputs(task, COMPARED.get(task.kind, OTHERS), network_predict(self.module))

    def score(self, float_values: Collection[str], percentile: float | None) -> float:
        """How near it is so (see `rounded`)."""
        found = self._score(network_predict(self.rounded(float_values, percentile)))
        return 0.0 if math.isnan(found) else found

    def rounded(self, float_values: Collection[str], percentile: float | None) -> fx.GraphModule:
        """What an int8 file would compute, with ranges that start at a percentile of |x|, or at the least squared
        error; `float_values` computed in float."""
        made = self._prepare(float_values)
        if not self._calibration.covers(made):
            progress = self._given.on_progress
            observed = calibrate(made, self._batches(), total=self._images, on_progress=progress)
            self._calibration = self._calibration.with_those_of(made, observed)
            self._ranges.clear()
        if percentile not in self._ranges:
            self._ranges[percentile] = self._calibration.at(percentile)
        self._ranges[percentile].apply(made)
        return made

    def _prepare(self, values: Collection[str], more: Collection[str] = ()) -> fx.GraphModule:
        float_layers = tuple(dict.fromkeys((*self._float_layers, *more)))
        return prepare(self.module, self._given.step, float_layers=float_layers, float_values=values)
