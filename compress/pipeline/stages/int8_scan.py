"""Which layers hurt in int8: the scan on files, and which layers a budget leaves in float."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, fx

from compress import artifacts
from compress.artifacts import QuantSensitivity, Score, fingerprint
from compress.graph import to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.cost import layer_positions, macs_at, weight_count
from compress.pipeline.evaluation import default_threads
from compress.pipeline.models import model_identity
from compress.pipeline.scanning.measures import Measure, score_by
from compress.pipeline.scanning.scan_cost import announce_cost
from compress.pipeline.stages.prepared import prepare
from compress.pipeline.training_images import check_train_images
from compress.progress import Note, Progress
from compress.quant.layer_scan import Networks, integer_layers, read_calibration, scan_layers, spend_budget
from compress.quant.nodes import output_values
from compress.recipe import QuantizeStep
from compress.tasks.base import Comparable, Predict, Task

FILE, SENSITIVITY = "int8_sensitivity.json", ".sensitivity.json"
"""A scan of its own in a folder; and what the name of one beside an int8 file ends with."""

NamedLayers = Callable[[fx.GraphModule], tuple[str, ...]]
"""A lowered module -> its layers that the user wants in float."""


@dataclass(frozen=True)
class Scanned:
    """What is scanned, and how: each of these decides a figure."""

    model: onnx.ModelProto
    """In canonical form."""
    task: Task
    step: QuantizeStep
    named: NamedLayers
    measure: Measure
    images: int | None = None


def resamples(step: QuantizeStep) -> bool:
    """Whether what is upsampled is computed at low resolution (see `compress.graph.resampling`), which is faster and
    rounds more: `accuracy` tries both, and one of them alone around the layers that a budget chooses."""
    return step.optimize in ("latency", "balanced") or (step.optimize == "accuracy" and step.float_budget is None)


def default_measure(task: Task) -> Measure:
    """How far outputs are from the float network's, where the task can tell: rounding hardly moves the metric."""
    return "divergence" if isinstance(task, Comparable) else "metric"


def run_int8_scan(
    given: Scanned,
    file: Path,
    *,
    parts: bool = False,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> QuantSensitivity:
    """Measure each layer alone in integers, calibrated and not trained; with a float budget, choose what it leaves.

    `file` holds every finished layer, and a stopped scan goes on from it. Nothing is timed, so the choice is the same
    on every machine.

    Args:
        given: model, data and settings; `step.float_budget` is the budget.
        file: the .json file to write.
        parts: also measure weights and activations alone.
        threads: of PyTorch; default every core.
        on_progress: called as (done, in all, message).
        on_note: is told what the scan will cost.

    Raises:
        ArtifactError: the file is of another model, data or settings.
        OutputError: another process is writing it.
        DataError: there are no training images, or none can be read.
        CompressError: the task does not compare outputs, and the measure does.
    """
    check_train_images(given.task)
    budget = given.step.float_budget
    with artifacts.lock(file):
        identity = _identity(given)
        found = artifacts.load(QuantSensitivity, file) if file.exists() else None
        if found is not None:
            artifacts.check_fresh(file, found.fingerprint, identity)
        scan = LayerScan(given, on_progress)
        cells = scan.missing(found, parts)
        spent = budget is None or (found is not None and bool(found.choices) and found.float_budget == budget)
        if found is not None and cells == 0 and spent:
            return found if budget is not None else replace(found, float_budget=None, choices=())
        torch.set_num_threads(threads or default_threads())
        evaluate = announce_cost(scan.scorer(), cells, None, on_note, resumed=found is not None)

        def save(so_far: QuantSensitivity) -> None:
            artifacts.save(so_far, file)

        networks = scan.networks()
        found = found or scan.start(networks, evaluate, identity)
        found = scan_layers(
            found, networks, scan.macs, evaluate, parts=parts, on_cell=save, on_progress=on_progress
        )  # fmt: skip
        if budget is not None:
            found = spend_budget(found, budget, networks, evaluate)
        save(found)
        return found


class LayerScan:
    """The networks of one scan, and how they are scored."""

    def __init__(self, given: Scanned, on_progress: Progress | None = None) -> None:
        """Import the lowered model; nothing is calibrated or scored yet."""
        self._given, self._on_progress = given, on_progress
        self._module = to_torch(lower_for_int8(given.model, resample=resamples(given.step)))
        self._named = given.named(self._module)
        self.layers = integer_layers(self._prepare(()))
        positions = layer_positions(self._module, given.task.input_shape)
        self.whole = macs_at(self._module, positions)
        layers = {name: self._module.get_submodule(name) for name in self.layers}
        self.macs = {name: positions[name] * weight_count(layer) for name, layer in layers.items()}

    def missing(self, found: QuantSensitivity | None, parts: bool) -> int:
        """How many networks are to be scored; the two that a scan starts with are not counted."""
        known = {} if found is None else found.layers
        whole = sum(name not in known for name in self.layers)
        single = sum(name not in known or known[name].weights is None for name in self.layers)
        return whole + (2 * single if parts else 0)

    def networks(self) -> Networks:
        """Calibrated as the stage itself does it."""
        step, task = self._given.step, self._given.task
        calibration = read_calibration(
            self._prepare,
            lambda: task.calibration_batches(step.calibration, min(step.batch_size, step.calibration)),
            percentile=step.pact.percentile,
            total=step.calibration,
            on_progress=self._on_progress,
        )
        return Networks(self._prepare, calibration, self.layers)

    def scorer(self) -> Callable[[fx.GraphModule], Score]:
        """The figure of a network."""
        given = self._given
        score_of = score_by(given.measure, given.task, given.task, given.images, network_predict(self._module))
        return lambda network: score_of(network_predict(network))

    def start(self, networks: Networks, evaluate: Callable[[fx.GraphModule], float], identity: str) -> QuantSensitivity:
        """The scan without a layer: what float and integers throughout score."""
        given = self._given
        return QuantSensitivity(
            fingerprint=identity,
            metric_name=given.task.metric_name if given.measure == "metric" else given.measure,
            weight_bits=given.step.weight_bits,
            baseline=evaluate(networks.without(self.layers)),
            integer=evaluate(networks.without(())),
            macs=self.whole,
            input_shape=given.task.input_shape,
            layers={},
        )

    def _prepare(self, float_layers: Collection[str]) -> fx.GraphModule:
        return prepare(
            self._module,
            self._given.step,
            float_layers=(*self._named, *float_layers),
            float_values=output_values(self._module),
        )


def network_predict(module: fx.GraphModule) -> Predict:
    """What a network predicts: its first output."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            outputs = module(torch.from_numpy(images))
        first: Tensor = outputs[0] if isinstance(outputs, tuple) else outputs
        return first.numpy()

    return predict


def _identity(given: Scanned) -> str:
    """Fingerprint of everything that a figure depends on; a budget chooses by figures, and changes none."""
    step = given.step
    calibrated = (step.calibration, min(step.batch_size, step.calibration), step.pact.percentile)
    ends = (step.pact.asymmetric_hardswish, step.pact.symmetric)
    ranges = (step.weight_bits, *ends, not resamples(step), sorted(step.float_layers))
    return fingerprint(
        model_identity(given.model), given.task.fingerprint(), calibrated, ranges, given.measure, given.images
    )
