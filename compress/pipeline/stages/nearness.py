"""How near int8 networks are to the float one before they are trained: what a choice by time alone does not see.

Of files that are about as fast, one may lose much more than another: of PP-OCRv5's detector, pruned to 0.59x, the
fastest (35.7 ms) agrees on .8329 of the text of images held back, one of 37.2 ms on .8712, and one of 40.2 ms, where
nothing is convolved before it is upsampled, on .9388 (AMD EPYC, one thread, calibrated, not trained).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Candidate:
    """A way to quantise a network."""

    name: str
    lowered: onnx.ModelProto
    """The network in the form that is quantised."""
    float_values: Collection[str]
    """Values that are computed in float, as `prepare_qat` takes them."""


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

    def __call__(self, candidates: Sequence[Candidate]) -> Mapping[str, float]:
        """Name of each candidate -> its score, higher is nearer.

        Candidates of the same lowered network share a calibration where they can, of fewer images than the stage's own.
        """
        torch.set_num_threads(self.threads or default_threads())
        found: dict[str, float] = {}
        for form in {id(one.lowered): one.lowered for one in candidates}.values():
            alike = [one for one in candidates if one.lowered is form]
            module = to_torch(form)
            scores = self._scores(module, alike, tuple(self.float_layers(module)))
            for one, score in zip(alike, scores, strict=True):
                found[one.name] = score
                if self.on_progress is not None:
                    self.on_progress(
                        len(found), len(candidates), f"{one.name}: {default_measure(self.task)} {score:.4f}"
                    )
        return found

    def identity(self) -> str:
        """Fingerprint of what scores depend on beside the network and which layers stay in float."""
        step = self.step
        calibrated = (step.calibration, step.batch_size, step.pact.percentile, step.pact.asymmetric_hardswish)
        return fingerprint(self.task.fingerprint(), *calibrated)

    def _scores(self, module: fx.GraphModule, alike: Sequence[Candidate], float_layers: tuple[str, ...]) -> list[float]:
        task, step = self.task, self.step

        def prepare(values: Collection[str], more: Collection[str] = ()) -> fx.GraphModule:
            return prepare_qat(
                module,
                float_layers=tuple(dict.fromkeys((*float_layers, *more))),
                float_values=values,
                weight_bits=step.weight_bits,
                asymmetric_hard_swish=step.pact.asymmetric_hardswish,
            )

        outputs = output_values(module)
        images = min(step.calibration, CALIBRATED * count_images(task, None))
        batches = partial(task.calibration_batches, images, min(step.batch_size, images))
        percentile = step.pact.percentile
        calibration = read_calibration(
            lambda more: prepare(outputs, more),
            batches,
            percentile=percentile,
            total=images,
            on_progress=self.on_progress,
        )
        score_of = score_by(default_measure(task), task, task, None, network_predict(module))
        scores = []
        for one in alike:
            made = prepare(one.float_values)
            if not calibration.covers(made):
                calibrate(made, batches(), percentile=percentile, total=images, on_progress=self.on_progress)
                calibration = calibration.with_those_of(made)
            calibration.apply(made)
            scores.append(score_of(network_predict(made)).metric)
        return scores
