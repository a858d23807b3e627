"""Fine-tune a float model, the best epoch kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from torch import fx

from compress.artifacts import PruningPlan, Score, lock
from compress.compute.device import device_of
from compress.compute.precision import check_precision
from compress.errors import TrainingError
from compress.graph import save_model, to_onnx, to_torch
from compress.pipeline.evaluation import score_model
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.models import as_graph_module
from compress.pipeline.shared_scoring import shared_metric
from compress.pipeline.stages.fitting import (
    note_outputs,
    objective_of,
    teacher_outputs,
    train,
    train_identity,
    trainable,
)
from compress.pipeline.stages.stored_plan import kept_by_plan
from compress.pipeline.state import Run, Stage
from compress.recipe import FinetuneStep
from compress.tasks.base import Task
from compress.train import FeatureLoss


def run_finetune(
    model: onnx.ModelProto,
    teacher: onnx.ModelProto | None,
    task: Task,
    out_file: Path,
    step: FinetuneStep,
    *,
    kept: Mapping[str, Sequence[int]] | None = None,
    execution: Execution = HERE,
) -> Score:
    """Train a float model on, with the teacher's outputs as soft targets if there is one; the best epoch is written.

    With `step.features` its layers learn what the teacher's compute, too; `kept` names the teacher's channels that
    they have, where some were pruned (see `compress.prune.channels.kept_outputs`). With `step.mutual` a perturbed copy
    is trained beside it, both learn from each other, and the better one is kept (see `compress.train.mutual`).

    A note says where a model has outputs that are not trained.
    """
    check_precision(step.precision, execution.device)
    note_outputs(model, execution.on_note)
    module = trainable(model, task, execution.threads, execution.device)
    with lock(out_file):
        if execution.team is not None:
            execution.team.send(FinetuneJob(model, teacher, step, execution.seed, kept))
        train(
            module,
            task,
            step,
            objective_of(
                task,
                step,
                lambda trained: shared_metric(
                    to_onnx(as_graph_module(trained), model), task, execution.threads, execution.team
                ),
                teacher_outputs(teacher, execution.threads, step.distill, execution.device),
                feature_loss(teacher, module, step, kept),
            ),
            identity=train_identity(model, teacher, task, step, execution.seed, kept),
            execution=execution,
        )
        save_model(to_onnx(module, model), out_file)
        return score_model(out_file, task, execution.threads)


def feature_loss(
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
    loss = FeatureLoss(to_torch(teacher).to(device_of(student)), step.features, kept)
    loss.check(student)
    return loss


@dataclass(frozen=True)
class FinetuneJob:
    """The share of fine-tuning that is another process's; the arguments of `run_finetune`."""

    model: onnx.ModelProto
    teacher: onnx.ModelProto | None
    step: FinetuneStep
    seed: int
    kept: Mapping[str, Sequence[int]] | None

    def join(self, run: Run, task: Task) -> None:
        """Train along."""
        module = trainable(self.model, run.task, run.threads, run.device)
        train(
            module,
            run.task,
            self.step,
            objective_of(
                run.task,
                self.step,
                lambda _: 0.0,
                teacher_outputs(self.teacher, run.threads, self.step.distill, run.device),
                feature_loss(self.teacher, module, self.step, self.kept),
            ),
            execution=replace(run.execution(), seed=self.seed),
        )


@dataclass(frozen=True)
class Finetuning(Stage):
    """The stage of a run that trains `model` in float, near the run's teacher."""

    run: Run
    name: str
    model: onnx.ModelProto
    step: FinetuneStep
    plan: PruningPlan | None = None
    """What `model` was pruned by."""

    def identity(self) -> str:
        run = self.run
        return train_identity(self.model, run.teacher, run.task, self.step, run.recipe.seed)

    def compute(self, file: Path) -> None:
        run, plan = self.run, self.plan
        kept = kept_by_plan(run.original, plan, run.task.input_shape) if plan and self.step.features else None
        run_finetune(
            self.model,
            run.teacher,
            run.task,
            file,
            self.step,
            kept=kept,
            execution=run.execution(file),
        )
