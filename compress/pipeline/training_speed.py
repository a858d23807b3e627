"""How fast each training stage of a recipe is, part by part, and what it waits for. Nothing is trained or written.

The steps are those of `fit`, at a learning rate of 0: the network stays as it is, and so does what it costs.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.compute.device import device_of
from compress.compute.precision import float32_ends, make_scaler
from compress.errors import CompressError
from compress.graph import read_model
from compress.pipeline.evaluation import default_threads
from compress.pipeline.execution import Execution
from compress.pipeline.labelling import label_unlabelled, with_labels
from compress.pipeline.models import open_model
from compress.pipeline.run import recipe_device
from compress.pipeline.stages.finetune import feature_loss
from compress.pipeline.stages.fitting import (
    fit_settings,
    objective_of,
    teacher_outputs,
    trainable,
    with_partner,
)
from compress.pipeline.stages.placement import place
from compress.pipeline.stages.quantize import calibrated, float_layers_of, range_groups
from compress.pipeline.stages.stored_plan import PLAN_FILE, kept_by_plan
from compress.pipeline.state import FILES, LABELLED
from compress.pipeline.tasks import recipe_task
from compress.progress import Progress
from compress.recipe import FinetuneStep, QuantizeStep, Recipe, TeacherStep
from compress.tasks.base import Batch, Task
from compress.train import Lesson, Objective, freeze_batch_norm, make_optimizer, memory_format, take_step

DATA, TEACHER, NETWORK, TOGETHER = "data", "teacher", "network", "together"
SECONDS = 5.0
KEPT = 8
"""Batches that network and teacher are timed on, again and again."""
UNTIMED = 4
"""Steps before the clock runs: caches fill, and what was made ahead is used up."""
FEWEST = 3
"""Steps that are timed, however long they take."""
SLOWED = 1.1
"""Together so many times slower than the slower of the two, data and network are in each other's way."""
BEFORE = {
    "teacher": (),
    "finetune": ("reconstruct", "prune", "replace"),
    "quantize": ("finetune", "reconstruct", "prune", "replace"),
}
"""Step that trains -> steps whose file it starts from, the last one that there is."""


@dataclass(frozen=True)
class PartSpeed:
    """One part of training, by itself: the time of a batch."""

    images_per_second: float
    median_ms: float
    p10_ms: float
    p90_ms: float
    steps: int
    """Batches that were timed."""


@dataclass(frozen=True)
class StageSpeed:
    """A stage that trains."""

    stage: str
    model: str
    """What was trained: a file of the run, or the original where there is none yet."""
    batch_size: int
    parts: Mapping[str, PartSpeed]
    """`data`: making batches; `teacher`: its outputs; `network`: forward and backward pass, losses, update;
    `together`: as training does it."""
    bottleneck: str
    """`data`, `teacher` or `network`."""
    advice: str


def measure_training(
    recipe: Recipe, seconds: float = SECONDS, on_progress: Progress | None = None
) -> tuple[StageSpeed, ...]:
    """Time the parts of each stage that trains.

    Args:
        recipe: its model, data and settings; files that its run has made so far are what is trained.
        seconds: for each part of each stage.
        on_progress: called as (parts done, in all, message).

    Raises:
        CompressError: no step trains, or the data cannot be read.
    """
    kinds = TeacherStep | FinetuneStep | QuantizeStep
    steps = [step for step in recipe.steps if isinstance(step, kinds) and step.epochs]
    if not steps:
        raise CompressError("--train: no step of the recipe trains. Add teacher, finetune or quantize with epochs.")
    if recipe.data.images:
        if not (recipe.out / LABELLED).is_file():
            raise CompressError(
                f"--train: data.images is labelled when the recipe is run, and {recipe.out} holds no labels yet. Start "
                "`compress run` first; it may be stopped as soon as it scans."
            )
        recipe = with_labels(recipe).recipe
    task = recipe_task(recipe)
    original = open_model(recipe.model, recipe.weights, task.input_shape)
    threads = recipe.threads or default_threads()
    execution = Execution(recipe.seed, threads, recipe_device(recipe))
    task = label_unlabelled(task, original, threads=threads, on_progress=on_progress)
    speeds: list[StageSpeed] = []
    for number, step in enumerate(steps):

        def tell(part: int, name: str, stage: str = step.name, before: int = 4 * number) -> None:
            if on_progress:
                on_progress(before + part, 4 * len(steps), f"{stage}: {name}")

        made = _Stage.make(recipe, task, original, step, execution)
        parts = made.time(seconds, tell)
        bottleneck, advice = judge(parts, recipe.workers, (os.cpu_count() or 1) - threads)
        speeds.append(StageSpeed(FILES[step.name], made.model, step.batch_size, parts, bottleneck, advice))
    if on_progress:
        on_progress(4 * len(steps), 4 * len(steps), "done")
    return tuple(speeds)


@dataclass(frozen=True)
class _Stage:
    """A stage ready to train."""

    task: Task
    step: FinetuneStep | QuantizeStep
    module: nn.Module
    objective: Objective
    execution: Execution
    model: str

    @classmethod
    def make(
        cls,
        recipe: Recipe,
        task: Task,
        original: onnx.ModelProto,
        step: TeacherStep | FinetuneStep | QuantizeStep,
        execution: Execution,
    ) -> "_Stage":
        """What the stage would train on the files that are there."""
        file = next((found for name in BEFORE[step.name] if (found := _file(recipe, name)).is_file()), None)
        taught = _file(recipe, "teacher")
        teacher = read_model(taught) if taught.is_file() and step.name != "teacher" else original
        model = read_model(file) if file else original
        training = (step.as_finetune() if isinstance(step, TeacherStep) else step).model_copy(update={"lr": 0.0})
        if isinstance(training, QuantizeStep):
            module, features = _quantised(model, task, training, execution), None
        else:
            module = trainable(model, task, execution.threads, execution.device)
            features = feature_loss(teacher, module, training, _kept(recipe, original, task, training))
        asked = teacher_outputs(teacher, execution.threads, training.distill, execution.device)
        objective = objective_of(task, training, lambda _: 0.0, asked, features)
        student, objective = with_partner(module, task, training, objective, execution.seed)
        shown = file.name if file else f"{Path(recipe.model).name} (no file of an earlier step in {recipe.out})"
        if step.name == "teacher":
            shown = Path(recipe.model).name
        return cls(task, training, student, objective, execution, shown)

    def batches(self) -> Iterator[Batch]:
        """Training batches without end."""
        size, seed = self.step.batch_size, self.execution.seed
        for epoch in count(1):
            yield from self.task.train_batches(epoch=epoch, batch_size=size, seed=seed)

    def time(self, seconds: float, tell: Callable[[int, str], None]) -> dict[str, PartSpeed]:
        """Each part by itself, and all together."""
        parts: dict[str, PartSpeed] = {}
        made = self.batches()
        kept = list(islice(made, KEPT))
        tell(0, DATA)
        parts[DATA] = time_steps(lambda: len(next(made).images), seconds)
        made.close()  # type: ignore[attr-defined]
        again: Iterator[Batch] = cycle(kept)
        tell(1, TEACHER)
        if (teacher := self.objective.teacher) is not None:
            parts[TEACHER] = time_steps(lambda: self._ask(teacher, next(again)), seconds)
        tell(2, NETWORK)
        parts[NETWORK] = self._time_training(again, replace(self.objective, teacher=None), seconds)
        tell(3, TOGETHER)
        made = self.batches()
        parts[TOGETHER] = self._time_training(made, self.objective, seconds)
        made.close()  # type: ignore[attr-defined]
        return parts

    def _ask(self, teacher: Callable[[torch.Tensor], torch.Tensor], batch: Batch) -> int:
        device = self.execution.device
        with torch.no_grad():
            teacher(batch.images.to(device))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return len(batch.images)

    def _time_training(self, batches: Iterator[Batch], objective: Objective, seconds: float) -> PartSpeed:
        """Steps of `fit` on these batches."""
        settings = fit_settings(self.step, self.execution.seed)
        memory = memory_format(self.module)
        self.module.to(memory_format=memory)  # type: ignore[call-overload]
        learned = range_groups(self.module, self.step) if isinstance(self.step, QuantizeStep) else None
        tuner = make_optimizer(learned or [{"params": list(self.module.parameters())}], settings)
        scaler = make_scaler(settings.precision, device_of(self.module))
        lesson = Lesson(objective, settings.precision, memory)
        self.module.train()
        if settings.freeze_batch_norm:
            freeze_batch_norm(self.module)
        with float32_ends(self.module, settings.precision):
            return time_steps(lambda: take_step(self.module, next(batches), lesson, tuner, scaler)[1], seconds)


def _file(recipe: Recipe, step: str) -> Path:
    return recipe.out / f"{FILES[step]}.onnx"


def _kept(recipe: Recipe, original: onnx.ModelProto, task: Task, step: FinetuneStep) -> dict[str, Sequence[int]] | None:
    """The channels that the run's pruned file has, where features are compared."""
    plan = recipe.out / PLAN_FILE
    if not step.features or not plan.is_file():
        return None
    return dict(kept_by_plan(original, artifacts.load(PruningPlan, plan), task.input_shape))


def _quantised(model: onnx.ModelProto, task: Task, step: QuantizeStep, execution: Execution) -> nn.Module:
    """The network that learns its ranges, all in integers that can be: where that pays is not measured here."""
    changes: dict[str, Any] = {"optimize": "size", "float_budget": None, "calibration": step.batch_size}
    quick = step.model_copy(update=changes)
    lowered = place(model, quick, task.input_shape, float_layers_of(model, quick))
    return calibrated(model, lowered, task, quick, execution)


def time_steps(step: Callable[[], int], seconds: float, clock: Callable[[], float] = time.perf_counter) -> PartSpeed:
    """Time a step for some seconds, `FEWEST` times at least, after `UNTIMED` steps or as long.

    Args:
        step: returns its number of images.
        seconds: how long.
        clock: seconds, from anywhere.
    """
    began = clock()
    for _ in range(UNTIMED):
        step()
        if clock() - began > seconds:
            break
    times: list[float] = []
    images, started = 0, clock()
    last = started
    while last - started < seconds or len(times) < FEWEST:
        images += step()
        now = clock()
        times.append(now - last)
        last = now
    p10, median, p90 = (1000 * float(value) for value in np.percentile(times, (10, 50, 90)))
    rate = images / (last - started) if last > started else math.inf
    return PartSpeed(round(rate, 1), round(median, 3), round(p10, 3), round(p90, 3), len(times))


def judge(parts: Mapping[str, PartSpeed], workers: int, idle: int) -> tuple[str, str]:
    """Which part training waits for, and what can be done.

    Args:
        parts: see `StageSpeed.parts`.
        workers: processes that make batches.
        idle: cores that training does not use.
    """
    ms = {name: 1000 / part.images_per_second for name, part in parts.items()}  # for each image
    learning = ms[NETWORK] + ms.get(TEACHER, 0.0)
    if ms[DATA] > learning:
        wanted = math.ceil(max(1, workers) * ms[DATA] / learning)
        advice = f"An image takes {ms[DATA]:.2f} ms to make and {learning:.2f} ms to learn from. "
        return DATA, advice + (
            f"Try workers: {min(wanted, max(1, idle))}." if idle > 0 else "No core is idle to make batches on."
        )
    slowest = TEACHER if ms.get(TEACHER, 0.0) > ms[NETWORK] else NETWORK
    advice = f"Of {learning:.2f} ms that an image is learned in, the {slowest} takes {ms[slowest]:.2f}"
    if ms[TOGETHER] > SLOWED * learning:
        return slowest, (
            f"{advice}. With data it is {ms[TOGETHER]:.2f} ms: making batches takes cores from the network."
        )
    return slowest, f"{advice}; batches are made meanwhile, and more workers would not help."
