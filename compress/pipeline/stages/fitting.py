"""What both stages that train have in common: the loop with its objective, the teacher, and the fingerprint."""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, fx, nn

from compress.artifacts import fingerprint
from compress.compute.device import CPU, device_of
from compress.compute.processes import Team
from compress.errors import ProcessError
from compress.graph import check_runs, to_torch
from compress.measure.session import Session
from compress.pipeline.evaluation import check_fits, default_threads
from compress.pipeline.execution import Execution
from compress.pipeline.models import model_identity
from compress.pipeline.shared_scoring import help_scoring
from compress.pipeline.training_images import check_train_images
from compress.progress import Note
from compress.recipe import FinetuneStep, QuantizeStep
from compress.tasks.base import MutualLoss, Shareable, Task
from compress.train import (
    Checkpoint,
    FeatureLoss,
    FitResult,
    FitSettings,
    Objective,
    Pair,
    TrainingData,
    fit,
    pair_objective,
)


def note_outputs(model: onnx.ModelProto, on_note: Note | None) -> None:
    """Say of a model of several outputs which one is trained and scored."""
    first, *others = (value.name for value in model.graph.output)
    if others and on_note:
        on_note(
            f"Note: the model has {1 + len(others)} outputs. The first, {first!r}, is trained and scored; "
            f"{', '.join(map(repr, others))} follow{'s' if len(others) == 1 else ''} untrained."
        )


def train(
    module: fx.GraphModule,
    task: Task,
    step: FinetuneStep | QuantizeStep,
    objective: Objective,
    *,
    parameter_groups: list[dict[str, Any]] | None = None,
    identity: str = "",
    execution: Execution,
) -> FitResult:
    """Fit a module to a task as a recipe's step says, alone or, with `step.mutual`, as one of two students.

    The module is trained on the device where it is, and afterwards on the CPU. Of a team's processes each trains on its
    share of every batch, and scores its share of the validation images where the task is `SharedScoring`; the first one
    stores and reports, and it alone has the best weights in the end.

    Args:
        module: what is trained, in place.
        task: batches.
        step: how.
        objective: losses and metric (see `objective_of`).
        parameter_groups: see `fit`.
        identity: of the training, for its checkpoint.
        execution: seed, checkpoint, team, progress.
    """
    team, checkpoint, on_progress = execution.team, execution.checkpoint, execution.on_progress
    if team is not None:
        if not team.is_main:
            whole, members = task, team
            objective = replace(objective, evaluate=lambda _: help_scoring(whole, execution.threads, members))
            checkpoint, on_progress = None, None
        task = shared_task(task, team)
    trained, objective = with_partner(module, task, step, objective, execution.seed)
    result = fit(
        trained,
        TrainingData(
            lambda epoch: task.train_batches(epoch=epoch, batch_size=step.batch_size, seed=execution.seed),
            task.train_steps(step.batch_size),
        ),
        objective,
        fit_settings(step, execution.seed),
        parameter_groups=parameter_groups,
        checkpoint=Checkpoint(checkpoint, identity) if checkpoint else None,
        team=team,
        on_progress=on_progress,
    )
    if isinstance(trained, Pair):
        module.load_state_dict(trained.better().state_dict())
    module.cpu()
    if execution.on_speed:
        execution.on_speed(result.images_per_second)
    return result


def fit_settings(step: FinetuneStep | QuantizeStep, seed: int) -> FitSettings:
    """A step's settings of the training loop. Ranges are trained in float32: rounding is what they are about."""
    common = {
        name: getattr(step, name)
        for name in ("epochs", "lr", "optimizer", "momentum", "weight_decay", "warmup_epochs", "average")
    }
    if isinstance(step, QuantizeStep):
        return FitSettings(**common, seed=seed)
    return FitSettings(**common, freeze_batch_norm=step.freeze_bn, precision=step.precision, seed=seed)


def with_partner(
    module: nn.Module, task: Task, step: FinetuneStep | QuantizeStep, objective: Objective, seed: int
) -> tuple[nn.Module, Objective]:
    """What is trained, and its objective: with `step.mutual` the module as one of two students, else as it is."""
    if not isinstance(step, FinetuneStep) or not step.mutual:
        return module, objective
    pair = Pair(module, torch.zeros(1, *task.input_shape, device=device_of(module)), seed)
    distance = task.mutual_loss if isinstance(task, MutualLoss) else task.distillation_loss
    return pair, pair_objective(objective, distance, step.mutual)


def objective_of(
    task: Task,
    step: FinetuneStep | QuantizeStep,
    evaluate: Callable[[nn.Module], float],
    teacher: Callable[[Tensor], Tensor] | None,
    features: FeatureLoss | None = None,
) -> Objective:
    """The task's losses, and the teacher's as much as the step weighs them.

    Args:
        task: its losses.
        step: the weight of distillation.
        evaluate: module -> metric.
        teacher: images -> outputs to stay near.
        features: the loss on what layers inside compute.
    """
    return Objective(task.loss, evaluate, task.distillation_loss, teacher, step.distill, features)


def shared_task(task: Task, team: Team) -> Task:
    """The same task with this process's share of its batches.

    Raises:
        ProcessError: it does not say how to share them.
    """
    if not isinstance(task, Shareable):
        raise ProcessError(f"torchrun: the task {task.kind!r} has no `share` of its batches. Run it in one process.")
    shared = copy.copy(task)
    shared.share = (team.rank, team.count)
    return shared


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
    for later in ("mutual", "float_budget"):
        if not settings.get(later):
            settings.pop(later, None)
    if settings.get("precision") == "float32":
        del settings["precision"]
    if settings.get("pact", {}).get("symmetric"):
        del settings["pact"]["symmetric"]
    more = [] if kept is None else [{name: list(channels) for name, channels in kept.items()}]
    return fingerprint(
        model_identity(model), model_identity(teacher) if teacher else "", task.fingerprint(), settings, seed, *more
    )


def first_output(made: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a network of several outputs is trained and scored by."""
    return made[0] if isinstance(made, tuple) else made


def check_trainable(model: onnx.ModelProto, task: Task) -> None:
    check_fits(model, task)
    check_train_images(task)


def trainable(model: onnx.ModelProto, task: Task, threads: int | None, device: torch.device = CPU) -> fx.GraphModule:
    """Import a model to train it on a device: data checked first, threads set."""
    check_trainable(model, task)
    torch.set_num_threads(threads or default_threads())
    module = to_torch(model).to(device)
    check_runs(module, task.input_shape)
    return module


def teacher_outputs(
    model: onnx.ModelProto | None, threads: int | None, weight: float, device: torch.device = CPU
) -> Callable[[Tensor], Tensor] | None:
    """The original model as a function of images.

    On the CPU onnxruntime runs it, faster than PyTorch. Beside a GPU that would be what training waits for, so there
    PyTorch runs it on the GPU.
    """
    if model is None or weight == 0:
        return None
    if device.type != "cpu":
        module = to_torch(model).to(device)
        return lambda images: first_output(module(images))
    session = Session(model, threads=threads or default_threads(), spin=False)
    return lambda images: torch.from_numpy(session.run(np.ascontiguousarray(images.numpy())))
