"""The stages that train: fine-tuning a float model, and quantisation-aware training up to the int8 file."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.artifacts import Quantized, Score, fingerprint, lock
from compress.errors import PlanError, TrainingError
from compress.export.parity import THRESHOLD, Reading
from compress.graph import check_runs, save_model, to_onnx, to_torch
from compress.measure.runtime import Session
from compress.pipeline.exporting import export_checked, export_form
from compress.pipeline.inputs import default_threads, score_model
from compress.pipeline.placing import Lowered, place, placement_lines
from compress.pipeline.scan_cost import Note
from compress.pipeline.stages import (
    Progress,
    as_graph_module,
    check_fits,
    check_train_images,
    expand_names,
    model_identity,
)
from compress.quant import calibrate, prepare_qat, qat_parameter_groups
from compress.recipe import FinetuneStep, QuantizeStep
from compress.tasks.base import MutualLoss, PostProcessing, Processed, Task
from compress.train import FeatureLoss, Objective, Pair, fit, pair_objective

PARITY_IMAGES, PARITY_PIXELS = 32, 4 * 640 * 640
"""Images that an exported file is checked on, fewer if they are large: every integer tensor of each is compared, and
all of them are kept in memory at once."""
QUANTISABLE = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def run_finetune(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    out_file: Path,
    step: FinetuneStep,
    *,
    seed: int = 0,
    threads: int | None = None,
    kept: Mapping[str, Sequence[int]] | None = None,
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> Score:
    """Train a float model on, with the teacher's outputs as soft targets if there is one; the best epoch is written.

    With `step.features` its layers learn what the teacher's compute, too; `kept` names the teacher's channels that
    they have, where some were pruned (see `compress.prune.channels.kept_outputs`). With `step.mutual` a perturbed copy
    is trained beside it, both learn from each other, and the better one is kept (see `compress.train.mutual`).

    `on_note` is told where a model has outputs that are not trained. A checkpoint stays: with it the same call gives
    the finished file again. Whoever keeps the result removes it.
    """
    note_outputs(model, on_note)
    module = _trainable(model, task, threads)
    with lock(out_file):
        _train(
            module,
            task,
            step,
            evaluate=lambda trained: score_model(to_onnx(as_graph_module(trained), model), task, threads).metric,
            teacher=_teacher(teacher, threads, step.distill),
            features=_features(teacher, module, step, kept),
            seed=seed,
            checkpoint=checkpoint,
            identity=train_identity(model, teacher, task, step, seed, kept),
            on_progress=on_progress,
        )
        save_model(to_onnx(module, model), out_file)
        return score_model(out_file, task, threads)


def run_quantize(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    out_file: Path,
    step: QuantizeStep,
    *,
    seed: int = 0,
    threads: int | None = None,
    latency_threads: int = 1,
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> Quantized:
    """Fold, choose what runs in integers, calibrate, train with PACT, export, and check file against trained model.

    The choice is kept beside the file, in a .placement.json (see `place`). Each epoch is scored as the int8 file it
    would become, so the best epoch is the best file. With no epochs the calibrated model is written. LSTM and GRU
    layers are not quantised in training; at the end their forms in the file are compared (see `export_checked`).
    What is chosen by time is timed on `latency_threads`. A checkpoint stays, as in `run_finetune`.

    Raises:
        ArtifactError: the choice beside the file was timed on another machine.
        ParityError: the file does not compute what the model computes; nothing is written.
        OutputError: another process is writing the file.
    """
    _check_trainable(model, task)  # before anything is timed
    note_outputs(model, on_note)
    with lock(out_file):
        lowered = lower_and_place(model, task, step, out_file, on_progress, threads=latency_threads)
        qat = train_int8(
            model,
            lowered,
            teacher,
            task,
            step,
            seed=seed,
            threads=threads,
            checkpoint=checkpoint,
            on_progress=on_progress,
        )
        made, quantized = export_trained(qat, lowered.model, task, step, threads, latency_threads)
        save_model(made, out_file)
    lines = placement_lines(lowered.placement) if lowered.placement else ()
    return replace(quantized, placement=lowered.placement, notes=(*lines, *quantized.notes))


def note_outputs(model: onnx.ModelProto, on_note: Note | None) -> None:
    """Say of a model of several outputs which one is trained and scored."""
    first, *others = (value.name for value in model.graph.output)
    if others and on_note:
        on_note(
            f"Note: the model has {1 + len(others)} outputs. The first, {first!r}, is trained and scored; "
            f"{', '.join(map(repr, others))} follow{'s' if len(others) == 1 else ''} untrained."
        )


def lower_and_place(
    model: onnx.ModelProto,
    task: Task,
    step: QuantizeStep,
    out_file: Path,
    on_progress: Progress | None = None,
    *,
    threads: int = 1,
) -> Lowered:
    """The lowered model and what of it runs in integers, as chosen for this file before, or now (see `place`)."""
    return place(
        model,
        step,
        task.input_shape,
        lambda module: _float_layers(model, module, step.float_layers),
        threads=threads,
        file=out_file.with_suffix(".placement.json"),
        on_progress=on_progress,
    )


def train_int8(
    model: onnx.ModelProto,
    lowered: Lowered,
    teacher: onnx.ModelProto | None,
    task: Task,
    step: QuantizeStep,
    *,
    seed: int = 0,
    threads: int | None = None,
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> fx.GraphModule:
    """Calibrate and train with PACT: the network that an int8 file will hold.

    A checkpoint stays; the same call with it goes on, or gives the finished network again.

    Args:
        model: what is quantised.
        lowered: the same as `place` made it.
        teacher: see `run_finetune`.
        task: images and metric.
        step: how to train.
        seed: of order and augmentation.
        threads: for training and scoring.
        checkpoint: file to go on from.
        on_progress: called as (done, in all, message).
    """
    module = _trainable(lowered.model, task, threads)
    qat = prepare_qat(
        module,
        float_layers=_float_layers(model, module, step.float_layers),
        float_values=lowered.float_values,
        pact=step.pact.enabled,
        asymmetric_hard_swish=step.pact.asymmetric_hardswish,
        weight_bits=step.weight_bits,
    )
    batches = task.calibration_batches(step.calibration, min(step.batch_size, step.calibration))
    calibrate(qat, batches, percentile=step.pact.percentile, total=step.calibration, on_progress=on_progress)
    if step.epochs:
        _train(
            qat,
            task,
            step,
            evaluate=lambda trained: (
                score_model(export_form(as_graph_module(trained), lowered.model, step).model, task, threads).metric
            ),
            teacher=_teacher(teacher, threads, step.distill),
            parameter_groups=qat_parameter_groups(
                qat, lr=step.lr, weight_decay=step.weight_decay, l2=step.pact.l2, lr_multiplier=step.pact.lr_multiplier
            ),
            seed=seed + 1,  # other batches than fine-tuning saw
            checkpoint=checkpoint,
            identity=fingerprint(
                train_identity(model, teacher, task, step, seed), lowered.float_values, _padding(lowered)
            ),
            on_progress=on_progress,
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


def _train(
    module: fx.GraphModule,
    task: Task,
    step: FinetuneStep | QuantizeStep,
    *,
    evaluate: Callable[[nn.Module], float],
    teacher: Callable[[Tensor], Tensor] | None,
    features: FeatureLoss | None = None,
    parameter_groups: list[dict[str, Any]] | None = None,
    seed: int,
    checkpoint: Path | None,
    identity: str,
    on_progress: Progress | None,
) -> None:
    """Fit a module to a task as a recipe's step says, alone or, with `step.mutual`, as one of two students."""
    trained: nn.Module = module
    objective = Objective(task.loss, task.distillation_loss, evaluate, features)
    if isinstance(step, FinetuneStep) and step.mutual:
        trained = Pair(module, torch.zeros(1, *task.input_shape), seed)
        distance = task.mutual_loss if isinstance(task, MutualLoss) else task.distillation_loss
        objective = pair_objective(objective, distance, step.mutual)
    fit(
        trained,
        batches=lambda epoch: task.train_batches(epoch=epoch, batch_size=step.batch_size, seed=seed),
        steps_per_epoch=task.train_steps(step.batch_size),
        loss=objective.loss,
        evaluate=objective.evaluate,
        epochs=step.epochs,
        lr=step.lr,
        optimizer=step.optimizer,
        momentum=step.momentum,
        weight_decay=step.weight_decay,
        warmup_epochs=step.warmup_epochs,
        parameter_groups=parameter_groups,
        teacher=teacher,
        distillation_loss=objective.distillation_loss,
        distill=step.distill,
        features=objective.features,
        average=step.average,
        freeze_batch_norm=isinstance(step, FinetuneStep) and step.freeze_bn,
        seed=seed,
        checkpoint=checkpoint,
        fingerprint=identity,
        on_progress=on_progress,
    )
    if isinstance(trained, Pair):
        module.load_state_dict(trained.better().state_dict())


def train_identity(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    step: FinetuneStep | QuantizeStep,
    seed: int,
    kept: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Fingerprint of a training stage: where it starts, what it learns from, and every setting."""
    settings = json.loads(step.model_dump_json())
    if not settings.get("features"):  # a run of an earlier version goes on
        settings.pop("features", None)
        kept = None
    if not settings.get("mutual"):
        settings.pop("mutual", None)
    more = [] if kept is None else [{name: list(channels) for name, channels in kept.items()}]
    return fingerprint(
        model_identity(model), model_identity(teacher) if teacher else "", task.fingerprint(), settings, seed, *more
    )


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


def _check_trainable(model: onnx.ModelProto, task: Task) -> None:
    check_fits(model, task)
    check_train_images(task)


def _trainable(model: onnx.ModelProto, task: Task, threads: int | None) -> fx.GraphModule:
    """Import a model to train it: data checked first, threads set."""
    _check_trainable(model, task)
    torch.set_num_threads(threads or default_threads())
    module = to_torch(model)
    check_runs(module, task.input_shape)
    return module


def _teacher(model: onnx.ModelProto | None, threads: int | None, weight: float) -> Callable[[Tensor], Tensor] | None:
    """The original model as a function of images; onnxruntime runs it faster than PyTorch."""
    if model is None or weight == 0:
        return None
    session = Session(model, threads=threads or default_threads(), spin=False)
    return lambda images: torch.from_numpy(session.run(np.ascontiguousarray(images.numpy())))


def _features(
    teacher: onnx.ModelProto | None,
    student: fx.GraphModule,
    step: FinetuneStep,
    kept: Mapping[str, Sequence[int]] | None,
) -> FeatureLoss | None:
    """The loss on features, where the step has one.

    Raises:
        TrainingError: there is no teacher, or its layers are not the student's.
    """
    if step.features == 0:
        return None
    if teacher is None:
        raise TrainingError("features: needs a teacher to compare the layers with. Name one, or use 0.")
    loss = FeatureLoss(to_torch(teacher), step.features, kept)
    loss.check(student)
    return loss


def _padding(lowered: Lowered) -> dict[str, int]:
    """Widths of the sets of channels that are padded: of another padding, weights have other shapes."""
    return lowered.placement.padding if lowered.placement else {}
