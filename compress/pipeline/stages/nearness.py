"""How near int8 networks are to the float one before they are trained: what a choice by time alone does not see.

Of files that are about as fast, one may lose much more than another: of PP-OCRv5's detector, pruned to 0.59x, the
fastest (35.7 ms) agrees on .8329 of the text of images held back, one of 37.2 ms on .8712, and one of 40.2 ms, where
nothing is convolved before it is upsampled, on .9388 (AMD EPYC, one thread, calibrated, not trained).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import onnx
import torch
from torch import fx

from compress.artifacts import fingerprint
from compress.graph import to_torch
from compress.pipeline.evaluation import default_threads
from compress.pipeline.scanning.measures import count_images, score_by
from compress.pipeline.stages.int8_scan import default_measure, network_predict
from compress.progress import Progress
from compress.quant import calibrate, prepare_qat
from compress.quant.layer_scan import read_calibration
from compress.quant.nodes import output_values
from compress.recipe import QuantizeStep
from compress.tasks.base import Task

CALIBRATED = 2
"""Images to calibrate on for each one that is compared, at most."""
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
class Compared:
    """What comparing candidates came to."""

    percentile: float | None = None
    """Of |x|, where ranges start; None for the least squared error."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Name of each candidate -> its score with such ranges, higher is nearer."""
    ranges: Mapping[str, float] = field(default_factory=dict)
    """Where ranges could start, in words -> the score of the candidate with most in integers; empty where the step says
    where they start."""


@dataclass(frozen=True)
class Nearness:
    """Scores candidates: exp(-d), d the mean divergence of outputs from the float network's on unlabelled training
    images; of a task that does not compare outputs the metric on validation images."""

    task: Task
    step: QuantizeStep
    float_layers: Callable[[fx.GraphModule], Collection[str]]
    """A lowered module -> its layers that stay in float."""
    threads: int | None = None
    on_progress: Progress | None = None

    def __call__(self, candidates: Sequence[Candidate]) -> Compared:
        """Where ranges start is chosen first, if the step leaves it open: for the candidate with most in integers.

        Candidates of the same lowered network share a calibration where they can, of fewer images than the stage's own.
        """
        torch.set_num_threads(self.threads or default_threads())
        lowered = {id(one.lowered): one.lowered for one in candidates}
        forms = {key: _Form(self, form) for key, form in lowered.items()}
        percentile, ranges = self.step.pact.percentile, dict[str, float]()
        if percentile is None:
            most = min(candidates, key=lambda one: len(one.float_values))
            found = {start: forms[id(most.lowered)].score(most, start) for start in STARTS}
            percentile = max(found, key=lambda start: found[start])
            ranges = {start_in_words(start): score for start, score in found.items()}
        scores: dict[str, float] = {}
        for one in candidates:
            scores[one.name] = forms[id(one.lowered)].score(one, percentile)
            if self.on_progress is not None:
                figure = f"{default_measure(self.task)} {scores[one.name]:.4f}"
                self.on_progress(len(scores), len(candidates), f"{one.name}: {figure}")
        return Compared(percentile, scores, ranges)

    def identity(self) -> str:
        """Fingerprint of what scores depend on beside the network and which layers stay in float."""
        step = self.step
        calibrated = (step.calibration, step.batch_size, step.pact.percentile, step.pact.asymmetric_hardswish)
        return fingerprint(self.task.fingerprint(), *calibrated)


class _Form:
    """A lowered network: its calibration, and how near candidates of it are."""

    def __init__(self, given: Nearness, lowered: onnx.ModelProto) -> None:
        """Calibrate it, all in integers and all in float."""
        self._given, self._module = given, to_torch(lowered)
        self._float_layers = tuple(given.float_layers(self._module))
        task, step, outputs = given.task, given.step, output_values(self._module)
        self._images = min(step.calibration, CALIBRATED * count_images(task, None))
        self._batches = partial(task.calibration_batches, self._images, min(step.batch_size, self._images))
        self._calibration = read_calibration(
            lambda more: self._prepare(outputs, more),
            self._batches,
            percentile=step.pact.percentile,
            total=self._images,
            on_progress=given.on_progress,
        )
        measure = default_measure(task)
        self._score = score_by(measure, task, task, None, network_predict(self._module))

    def score(self, candidate: Candidate, percentile: float | None) -> float:
        """How near it is with ranges that start at a percentile of |x|, or at the least squared error."""
        made = self._prepare(candidate.float_values)
        if not self._calibration.covers(made):
            progress = self._given.on_progress
            observed = calibrate(made, self._batches(), total=self._images, on_progress=progress)
            self._calibration = self._calibration.with_those_of(made, observed)
        self._calibration.at(percentile).apply(made)
        return float(self._score(network_predict(made)).metric)

    def _prepare(self, values: Collection[str], more: Collection[str] = ()) -> fx.GraphModule:
        step = self._given.step
        return prepare_qat(
            self._module,
            float_layers=tuple(dict.fromkeys((*self._float_layers, *more))),
            float_values=values,
            weight_bits=step.weight_bits,
            asymmetric_hard_swish=step.pact.asymmetric_hardswish,
        )
