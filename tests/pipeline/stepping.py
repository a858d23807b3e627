"""Stages with their settings as keywords, one thread: a step's keys and an execution's fields in one list."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import onnx

from compress.artifacts import PruningPlan, Sensitivity
from compress.measure.latency_table import LatencyTable
from compress.pipeline import run_budgeted_scan, run_prune, run_sensitivity
from compress.pipeline.execution import Execution
from compress.pipeline.scope import Scope
from compress.pipeline.stages.prune import Choose, GivenScan
from compress.recipe import PruneStep, SensitivityStep
from compress.tasks.base import Task


def split(given: dict[str, Any]) -> tuple[dict[str, Any], Execution]:
    """The keys of a step, and an execution."""
    names = {field.name for field in fields(Execution)}
    step = {key: value for key, value in given.items() if key not in names}
    return step, Execution(**{"threads": 1, **{key: value for key, value in given.items() if key in names}})


def scan(
    model: onnx.ModelProto,
    task: Task,
    out: Path,
    *,
    protect: Any = (),
    recurrent: bool = True,
    training: Task | None = None,
    **given: Any,
) -> Sensitivity:
    """A sensitivity scan."""
    step, execution = split(given)
    return run_sensitivity(
        model, task, out, SensitivityStep(**step), scope=Scope(tuple(protect), recurrent), training=training,
        execution=execution,
    )  # fmt: skip


def budgeted_scan(
    model: onnx.ModelProto, task: Task, out: Path, *, protect: Any = (), recurrent: bool = True, **given: Any
) -> Sensitivity:
    """A sensitivity scan within a budget."""
    step, execution = split(given)
    return run_budgeted_scan(
        model, task, out, SensitivityStep(**step), scope=Scope(tuple(protect), recurrent), execution=execution
    )


def prune(
    model: onnx.ModelProto,
    out: Path,
    *,
    sensitivity: Sensitivity | None = None,
    scanned: onnx.ModelProto | None = None,
    input_shape: tuple[int, int, int] | None = None,
    table: LatencyTable | None = None,
    choose: Choose | None = None,
    **given: Any,
) -> PruningPlan:
    """A plan, and the model pruned by it."""
    step, execution = split(given)
    return run_prune(
        model,
        out,
        PruneStep(**step),
        given=GivenScan(sensitivity, scanned) if sensitivity else None,
        input_shape=input_shape,
        table=table,
        choose=choose,
        execution=execution,
    )
