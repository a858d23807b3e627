"""Each stage from ONNX to ONNX, usable alone: scan, prune, fine-tune, quantise."""

import fnmatch
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress import artifacts
from compress.artifacts import Parity, PruningPlan, Score, Sensitivity, fingerprint
from compress.errors import DataError, PlanError
from compress.export import check_parity, export_int8
from compress.graph import save_model, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.runtime import Session
from compress.pipeline.inputs import DEFAULT_SHAPE, default_threads, score_model, static_shape
from compress.prune.apply import apply_plan
from compress.prune.groups import find_groups
from compress.prune.plan import Network, plan_macs, plan_metric_drop, plan_ratio
from compress.prune.sensitivity import scan_sensitivity
from compress.quant import calibrate, prepare_qat, qat_parameter_groups
from compress.recipe import FinetuneStep, QuantizeStep
from compress.tasks.base import Task
from compress.train import fit

Progress = Callable[[int, int, str], None]
PARITY_IMAGES = 32
"""Images that an exported file is checked on: every integer tensor of each is compared."""


def run_sensitivity(
    model: onnx.ModelProto,
    task: Task,
    out: Path,
    *,
    criterion: str,
    ratios: Sequence[float],
    images: int | None = None,
    protect: Sequence[str] = (),
    seed: int = 0,
    threads: int | None = None,
    on_progress: Progress | None = None,
) -> Sensitivity:
    """Scan a model group by group; out/sensitivity.json holds every finished cell, and a stopped scan goes on from it.

    Raises:
        ArtifactError: out/sensitivity.json is of another model, data or settings.
    """
    path = out / "sensitivity.json"
    module = to_torch(model)
    _check_fits(model, task)
    identity = fingerprint(model_identity(model), task.fingerprint(), criterion, images, sorted(protect))
    previous = artifacts.load(Sensitivity, path) if path.exists() else None
    if previous is not None:
        artifacts.check_fresh(path, previous.fingerprint, identity)
    groups = find_groups(module, task.input_shape, expand_names(module, protect, "protect"))

    def evaluate(pruned: nn.Module) -> float:
        return score_model(to_onnx(_graph_module(pruned), model), task, threads, images).metric

    return scan_sensitivity(
        module,
        groups,
        evaluate=evaluate,
        ratios=ratios,
        criterion=criterion,
        fingerprint=identity,
        metric_name=task.metric_name,
        input_shape=task.input_shape,
        previous=previous,
        on_cell=lambda scan: artifacts.save(scan, path),
        on_progress=on_progress,
    )


def run_prune(
    model: onnx.ModelProto,
    out_file: Path,
    *,
    target: dict[str, float],
    align: int,
    criterion: str,
    sensitivity: Sensitivity | None = None,
    input_shape: tuple[int, int, int] | None = None,
    protect: Sequence[str] = (),
) -> PruningPlan:
    """Plan, store the plan as plan.json beside the file, and prune by the stored plan.

    Raises:
        PlanError: the target cannot be asked for like this, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups.
    """
    shape = input_shape or static_shape(model) or DEFAULT_SHAPE
    module = to_torch(model)
    groups = find_groups(module, shape, expand_names(module, protect, "protect"))
    network = Network(
        module, groups, shape, criterion, align, fingerprint(model_identity(model), target, align, criterion)
    )
    plan = _make_plan(network, target, sensitivity)
    plan_file = out_file.with_name("plan.json")
    artifacts.save(plan, plan_file)
    pruned = apply_plan(module, artifacts.load(PruningPlan, plan_file), shape)
    save_model(to_onnx(_graph_module(pruned), model), out_file)
    return plan


def _make_plan(network: Network, target: dict[str, float], sensitivity: Sensitivity | None) -> PruningPlan:
    kind, value = next(iter(target.items()))
    if kind == "ratio":
        return plan_ratio(network, value)
    if kind == "macs":
        return plan_macs(network, value, sensitivity)
    if sensitivity is None:
        raise PlanError("prune.target.metric_drop: needs a sensitivity scan. Run `compress sensitivity` first.")
    return plan_metric_drop(network, sensitivity, value)


def run_finetune(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    out_file: Path,
    step: FinetuneStep,
    *,
    seed: int = 0,
    threads: int | None = None,
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> Score:
    """Train a float model on, with the teacher's outputs as soft targets if there is one; the best epoch is written."""
    module = _trainable(model, task, threads)

    def evaluate(trained: nn.Module) -> float:
        return score_model(to_onnx(_graph_module(trained), model), task, threads).metric

    fit(
        module,
        batches=lambda epoch: task.train_batches(epoch=epoch, batch_size=step.batch_size, seed=seed),
        steps_per_epoch=task.train_steps(step.batch_size),
        loss=task.loss,
        evaluate=evaluate,
        epochs=step.epochs,
        lr=step.lr,
        optimizer=step.optimizer,
        momentum=step.momentum,
        weight_decay=step.weight_decay,
        warmup_epochs=step.warmup_epochs,
        teacher=_teacher(teacher, threads, step.distill),
        distillation_loss=task.distillation_loss,
        distill=step.distill,
        freeze_batch_norm=step.freeze_bn,
        seed=seed,
        checkpoint=checkpoint,
        fingerprint=train_identity(model, teacher, task, step, seed),
        on_progress=on_progress,
    )
    save_model(to_onnx(module, model), out_file)
    _discard(checkpoint)
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
    checkpoint: Path | None = None,
    on_progress: Progress | None = None,
) -> Parity:
    """Fold, calibrate, train with PACT, export to int8, and check the file against the trained model.

    Each epoch is scored as the int8 file it would become, so the best epoch is the best file. With no epochs the
    calibrated model is written.

    Raises:
        ParityError: the file does not compute what the model computes; nothing is written.
    """
    lowered = lower_for_int8(model)
    module = _trainable(lowered, task, threads)
    qat = prepare_qat(
        module,
        float_layers=expand_names(module, step.float_layers, "float_layers"),
        pact=step.pact.enabled,
        asymmetric_hard_swish=step.pact.asymmetric_hardswish,
        weight_bits=step.weight_bits,
    )
    batches = task.calibration_batches(step.calibration, min(step.batch_size, step.calibration))
    calibrate(qat, batches, percentile=step.pact.percentile, total=step.calibration, on_progress=on_progress)

    def evaluate(trained: nn.Module) -> float:
        return score_model(export_int8(_graph_module(trained), lowered).model, task, threads).metric

    if step.epochs:
        fit(
            qat,
            batches=lambda epoch: task.train_batches(epoch=epoch, batch_size=step.batch_size, seed=seed + 1),
            steps_per_epoch=task.train_steps(step.batch_size),
            loss=task.loss,
            evaluate=evaluate,
            epochs=step.epochs,
            lr=step.lr,
            optimizer=step.optimizer,
            momentum=step.momentum,
            warmup_epochs=step.warmup_epochs,
            parameter_groups=qat_parameter_groups(
                qat, lr=step.lr, weight_decay=step.weight_decay, l2=step.pact.l2, lr_multiplier=step.pact.lr_multiplier
            ),
            teacher=_teacher(teacher, threads, step.distill),
            distillation_loss=task.distillation_loss,
            distill=step.distill,
            seed=seed + 1,
            checkpoint=checkpoint,
            fingerprint=train_identity(model, teacher, task, step, seed),
            on_progress=on_progress,
        )
    exported = export_int8(qat, lowered)
    parity = check_parity(qat, exported, next(iter(task.calibration_batches(PARITY_IMAGES, PARITY_IMAGES))))
    save_model(exported.model, out_file)
    _discard(checkpoint)
    return parity


def train_identity(
    model: onnx.ModelProto, teacher: onnx.ModelProto | None, task: Task, step: FinetuneStep | QuantizeStep, seed: int
) -> str:
    """Fingerprint of a training stage: where it starts, what it learns from, and every setting."""
    settings = json.loads(step.model_dump_json())
    return fingerprint(
        model_identity(model), model_identity(teacher) if teacher else "", task.fingerprint(), settings, seed
    )


def model_identity(model: onnx.ModelProto) -> str:
    """Fingerprint of a model's content."""
    return fingerprint(model.SerializeToString(deterministic=True))


def expand_names(module: nn.Module, patterns: Sequence[str], where: str) -> tuple[str, ...]:
    """The layers that patterns name; `*` matches any text.

    Raises:
        PlanError: a pattern matches no layer.
    """
    layers = [name for name, child in module.named_modules() if name and next(child.parameters(), None) is not None]
    found: list[str] = []
    for pattern in patterns:
        matches = fnmatch.filter(layers, pattern)
        if not matches:
            raise PlanError(
                f"{where}: {pattern!r} matches no layer. `compress inspect` lists them, e.g. {', '.join(layers[:3])}."
            )
        found += matches
    return tuple(dict.fromkeys(found))


def _check_fits(model: onnx.ModelProto, task: Task) -> None:
    task.check_model(Session(model).output_shape)


def _trainable(model: onnx.ModelProto, task: Task, threads: int | None) -> fx.GraphModule:
    """Import a model to train it: data checked first, threads set."""
    _check_fits(model, task)
    if task.train_steps(1) == 0:
        raise DataError("no training images. Name label lists with --train (data.train in a recipe).")
    torch.set_num_threads(threads or default_threads())
    return to_torch(model)


def _graph_module(module: nn.Module) -> fx.GraphModule:
    assert isinstance(module, fx.GraphModule)
    return module


def _teacher(model: onnx.ModelProto | None, threads: int | None, weight: float) -> Callable[[Tensor], Tensor] | None:
    """The original model as a function of images; onnxruntime runs it faster than PyTorch."""
    if model is None or weight == 0:
        return None
    session = Session(model, threads=threads or default_threads(), spin=False)
    return lambda images: torch.from_numpy(session.run(np.ascontiguousarray(images.numpy())))


def _discard(checkpoint: Path | None) -> None:
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
