"""Quantise: calibration, quantisation-aware training with PACT, and the int8 file, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
from torch import fx, nn

from compress.artifacts import Quantized, fingerprint, lock
from compress.compute.memory import catch_out_of_memory
from compress.errors import PlanError
from compress.export.parity import THRESHOLD, Reading
from compress.graph import save_model, to_torch
from compress.graph.lowering import lower_for_int8
from compress.pipeline.evaluation import score_model
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.models import as_graph_module, expand_names
from compress.pipeline.shared_scoring import shared_metric
from compress.pipeline.stages.fitting import (
    check_trainable,
    note_outputs,
    objective_of,
    teacher_outputs,
    train,
    train_identity,
    trainable,
)
from compress.pipeline.stages.int8_file import export_checked, export_form
from compress.pipeline.stages.int8_scan import (
    SENSITIVITY,
    NamedLayers,
    Scanned,
    default_measure,
    resamples,
    run_int8_scan,
)
from compress.pipeline.stages.nearness import Nearness, Start
from compress.pipeline.stages.placement import Lowered, place, placement_lines
from compress.pipeline.stages.prepared import prepare
from compress.pipeline.state import Run, Stage
from compress.quant import calibrate, qat_parameter_groups
from compress.recipe import QuantizeStep
from compress.report.quant_table import quant_lines
from compress.tasks.base import PostProcessing, Processed, Task

PARITY_IMAGES, PARITY_PIXELS = 32, 4 * 640 * 640
"""Images that an exported file is checked on, fewer if they are large: every integer tensor of each is compared, and
all of them are kept in memory at once."""
QUANTISABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def run_quantize(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    out_file: Path,
    step: QuantizeStep,
    *,
    latency_threads: int = 1,
    execution: Execution = HERE,
) -> Quantized:
    """Fold, choose what runs in integers, calibrate, train with PACT, export, and check file against trained model.

    The choice is kept beside the file, in a .placement.json (see `place`). Each epoch is scored as the int8 file it
    would become, so the best epoch is the best file. With no epochs the calibrated model is written. LSTM and GRU
    layers are not quantised in training; at the end their forms in the file are compared (see `export_checked`).
    What is chosen by time is timed on `latency_threads`.

    Raises:
        ArtifactError: the choice beside the file was timed on another machine.
        ParityError: the file does not compute what the model computes; nothing is written.
        OutputError: another process is writing the file.
    """
    check_trainable(model, task)  # before anything is timed
    note_outputs(model, execution.on_note)
    with lock(out_file):
        lowered = lower_and_place(model, task, step, out_file, threads=latency_threads, execution=execution)
        qat = train_int8(model, lowered, teacher, task, step, execution)
        made, quantized = export_trained(qat, lowered.model, task, step, execution.threads, latency_threads)
        save_model(made, out_file)
    lines = quant_lines(lowered.sensitivity) if lowered.sensitivity else ()
    lines += placement_lines(lowered.placement) if lowered.placement else ()
    notes = (*lines, *quantized.notes)
    return replace(quantized, placement=lowered.placement, sensitivity=lowered.sensitivity, notes=notes)


def lower_and_place(
    model: onnx.ModelProto,
    task: Task,
    step: QuantizeStep,
    out_file: Path,
    *,
    threads: int = 1,
    execution: Execution = HERE,
) -> Lowered:
    """The lowered model and what of it runs in integers, as chosen for this file before, or now (see `place`).

    Layers that a float budget chooses are as if the user had named them: what is fastest is sought around them. What
    was measured for it is kept beside the file, in a .sensitivity.json (see `run_int8_scan`).
    """
    named, found, start = float_layers_of(model, step), None, Start(step.pact.percentile)
    if step.float_budget is not None:
        if step.optimize == "accuracy":  # the scan rounds as the file will
            near = Nearness(task, step, named, execution.threads, execution.on_progress)
            start = near.start(lower_for_int8(model, resample=resamples(step)))
            step = step.model_copy(update={"pact": step.pact.model_copy(update={"percentile": start.percentile})})
        file = out_file.with_suffix(SENSITIVITY)
        scanned = Scanned(model, task, step, named, default_measure(task))
        found = run_int8_scan(
            scanned,
            file,
            threads=execution.threads,
            on_progress=execution.on_progress,
            on_note=execution.on_note,
        )
    chosen = found.chosen.layers if found and found.chosen else ()

    def float_layers(module: fx.GraphModule) -> tuple[str, ...]:
        return (*named(module), *chosen)

    lowered = place(
        model,
        step,
        task.input_shape,
        float_layers,
        threads=threads,
        file=out_file.with_suffix(".placement.json"),
        nearness=Nearness(task, step, float_layers, execution.threads, execution.on_progress),
        on_progress=execution.on_progress,
    )
    if start.scores and lowered.placement is not None:
        lowered = replace(lowered, placement=replace(lowered.placement, ranges=dict(start.scores)))
    return replace(lowered, sensitivity=found)


def float_layers_of(model: onnx.ModelProto, step: QuantizeStep) -> NamedLayers:
    """Those layers of a lowered module that the step names by what they are called in the model."""
    return lambda module: _float_layers(model, module, step.float_layers)


def train_int8(
    model: onnx.ModelProto,
    lowered: Lowered,
    teacher: onnx.ModelProto | None,
    task: Task,
    step: QuantizeStep,
    execution: Execution = HERE,
) -> fx.GraphModule:
    """Calibrate and train with PACT: the network that an int8 file will hold, on the CPU.

    All in float32, whatever the device: what is learned is where values are rounded.

    Args:
        model: what is quantised.
        lowered: the same as `place` made it.
        teacher: see `run_finetune`.
        task: images and metric.
        step: how to train.
        execution: of a team's processes each calibrates, and the first one's thresholds are taken (lower ends are those
            of the same images).
    """
    seed, threads, device, team = execution.seed, execution.threads, execution.device, execution.team
    if team is not None and team.is_main and step.epochs:
        team.send(QuantizeJob(model, lowered, teacher, step, seed))
    qat = calibrated(model, lowered, task, step, execution)
    if step.epochs:
        train(
            qat,
            task,
            step,
            objective_of(
                task,
                step,
                lambda trained: shared_metric(
                    export_form(as_graph_module(trained), lowered.model, step).model, task, threads, team
                ),
                teacher_outputs(teacher, threads, step.distill, device),
            ),
            parameter_groups=range_groups(qat, step),
            identity=fingerprint(
                train_identity(model, teacher, task, step, seed),
                lowered.float_values,
                _padding(lowered),
                *(() if lowered.percentile is None else (lowered.percentile,)),
                *lowered.float_layers,
            ),
            execution=replace(execution, seed=seed + 1),  # other batches than fine-tuning saw
        )
    return qat.cpu()


def range_groups(qat: nn.Module, step: QuantizeStep) -> list[dict[str, Any]]:
    """The optimiser's groups: learned ranges have a rate and a decay of their own."""
    return qat_parameter_groups(
        qat, lr=step.lr, weight_decay=step.weight_decay, l2=step.pact.l2, lr_multiplier=step.pact.lr_multiplier
    )


def calibrated(
    model: onnx.ModelProto, lowered: Lowered, task: Task, step: QuantizeStep, execution: Execution
) -> fx.GraphModule:
    """The network that learns its ranges, on the execution's device; they start as calibration finds them."""
    module = trainable(lowered.model, task, execution.threads)
    float_layers = (*_float_layers(model, module, step.float_layers), *lowered.float_layers)
    qat = prepare(module, step, float_layers=float_layers, float_values=lowered.float_values).to(execution.device)
    batches = task.calibration_batches(step.calibration, min(step.batch_size, step.calibration))
    with catch_out_of_memory("calibration", f"Try batch_size: {max(1, step.batch_size // 2)}, or --device cpu."):
        calibrate(
            qat,
            batches,
            percentile=lowered.percentile if step.pact.percentile is None else step.pact.percentile,
            total=step.calibration,
            on_progress=execution.on_progress,
        )
    return qat


def export_trained(
    qat: fx.GraphModule,
    lowered: onnx.ModelProto,
    task: Task,
    step: QuantizeStep,
    threads: int | None = None,
    latency_threads: int = 1,
) -> tuple[onnx.ModelProto, Quantized]:
    """The int8 file of a trained network, checked against it (see `export_checked`).

    Raises:
        ParityError: the file does not compute what the network computes.
    """
    _, height, width = task.input_shape
    count = max(1, min(PARITY_IMAGES, PARITY_PIXELS // (height * width)))
    images = max(task.calibration_batches(count, count), key=len)  # batches may differ in width
    return export_checked(
        qat,
        lowered,
        step,
        lambda file: score_model(file, task, threads).metric,
        images,
        latency_threads,
        reading_of(task),
    )


def reading_of(task: Task) -> Reading:
    """What the outputs of a task's models mean; those of a task that does not say are probabilities as usual."""
    settings = task.postprocessing() if isinstance(task, PostProcessing) else {}
    reading = Reading(threshold=settings.get("threshold", THRESHOLD))
    if isinstance(task, Processed):
        return replace(reading, blank=task.blank, probabilities=task.probabilities)
    return reading


def _float_layers(model: onnx.ModelProto, lowered: fx.GraphModule, patterns: Sequence[str]) -> tuple[str, ...]:
    """The lowered module's layers that patterns name as they are called in the model.

    Lowering folds a BatchNorm into its convolution, which then computes the BatchNorm's value and has its name. Of a
    layer that became several (see `compress.graph.resampling`) all are found.

    Raises:
        PlanError: a pattern matches no layer.
    """
    module = to_torch(model)
    named = set(expand_names(module, patterns, "float_layers"))
    targets = {node.meta["onnx"]: str(node.target) for node in lowered.graph.nodes if node.op == "call_module"}
    found: list[str] = []
    for node in module.graph.nodes:
        if str(node.target) not in named or not isinstance(module.get_submodule(str(node.target)), QUANTISABLE):
            continue  # what cannot be quantised is in float anyway
        readers = list(node.users)
        folded = len(readers) == 1 and readers[0].meta["op_type"] == "BatchNormalization"
        value = readers[0].meta["onnx"] if folded and readers[0].meta["onnx"] in targets else node.meta["onnx"]
        parts = [target for name, target in targets.items() if name == value or name.startswith(f"{value}.")]
        if not parts:
            raise PlanError(f"float_layers: {node.target!r} is merged into the convolution behind it. Name that one.")
        found += parts
    return tuple(found)


def _padding(lowered: Lowered) -> dict[str, int]:
    """Widths of the sets of channels that are padded: of another padding, weights have other shapes."""
    return lowered.placement.padding if lowered.placement else {}


@dataclass(frozen=True)
class QuantizeJob:
    """The share of quantisation-aware training that is another process's; the arguments of `train_int8`."""

    model: onnx.ModelProto
    lowered: Lowered
    teacher: onnx.ModelProto | None
    step: QuantizeStep
    seed: int

    def join(self, run: Run, task: Task) -> None:
        """Calibrate and train along."""
        execution = replace(run.execution(), seed=self.seed)
        train_int8(self.model, self.lowered, self.teacher, run.task, self.step, execution)


@dataclass(frozen=True)
class Quantisation(Stage):
    """The stage of a run: `model` as an int8 file."""

    run: Run
    model: onnx.ModelProto
    step: QuantizeStep

    name = "int8"
    takes_over = (
        "int8.placement.json",
        f"int8{SENSITIVITY}",
    )

    def identity(self) -> str:
        run = self.run
        timed_on = () if self.step.optimize == "size" else (run.recipe.compare.threads,)  # else time chooses nothing
        return fingerprint(train_identity(self.model, run.teacher, run.task, self.step, run.recipe.seed), timed_on)

    def compute(self, file: Path) -> Quantized:
        run = self.run
        return run_quantize(
            self.model,
            run.teacher,
            run.task,
            file,
            self.step,
            latency_threads=run.recipe.compare.threads,
            execution=run.execution(file),
        )
