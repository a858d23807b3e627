"""Each stage that shapes a network, from ONNX to ONNX and usable alone: scan, plan and prune."""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from torch import nn

from compress import artifacts
from compress.artifacts import PruningPlan, Score, Sensitivity, fingerprint
from compress.errors import PlanError
from compress.graph import save_model, to_onnx, to_torch
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import Kernels
from compress.measure.runtime import Session
from compress.pipeline.code import MIXED, merge, stage_code, task_modules
from compress.pipeline.inputs import DEFAULT_SHAPE, score_model, static_shape
from compress.pipeline.scan_cost import Note, announce_cost, at_side, side_of
from compress.pipeline.timing import as_graph_module, is_timed, saved_times, table_timing
from compress.prune.allocation import Allocation
from compress.prune.apply import apply_plan
from compress.prune.groups import find_groups
from compress.prune.plan import plan_latency, plan_macs, plan_metric_drop, plan_ratio
from compress.prune.ranking import Network
from compress.prune.sensitivity import count_cells, scan_sensitivity
from compress.tasks.base import Task

Progress = Callable[[int, int, str], None]


def run_sensitivity(
    model: onnx.ModelProto,
    task: Task,
    out: Path,
    *,
    criterion: str,
    ratios: Sequence[float],
    images: int | None = None,
    side: int | None = None,
    protect: Sequence[str] = (),
    recurrent: bool = True,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> Sensitivity:
    """Scan a model group by group; out/sensitivity.json holds every finished cell, and a stopped scan goes on from it.

    `on_note` is told what the scan will cost as soon as one evaluation was timed: the original's, or, of a scan that
    goes on, its first cell.

    Raises:
        ArtifactError: out/sensitivity.json is of another model, data or settings.
        CompressError: `side` is given, but the task has none.
    """
    task = at_side(task, side)
    path = out / "sensitivity.json"
    module = to_torch(model)
    check_fits(model, task)
    identity = fingerprint(model_identity(model), task.fingerprint(), criterion, images, sorted(protect), recurrent)
    previous = artifacts.load(Sensitivity, path) if path.exists() else None
    if previous is not None:
        artifacts.check_fresh(path, previous.fingerprint, identity)
    code = stage_code("sensitivity", task_modules(task))
    if previous is not None:
        code = merge(previous.code or dict.fromkeys(code, MIXED), code)
    groups = find_groups(module, task.input_shape, expand_names(module, protect, "protect"), recurrent)

    def score(pruned: nn.Module) -> Score:
        return score_model(to_onnx(as_graph_module(pruned), model), task, threads, images)

    cells = count_cells(groups, ratios, previous)
    scan = scan_sensitivity(
        module,
        groups,
        evaluate=announce_cost(score, cells, side_of(task), on_note, resumed=previous is not None),
        ratios=ratios,
        criterion=criterion,
        fingerprint=identity,
        metric_name=task.metric_name,
        input_shape=task.input_shape,
        previous=previous,
        on_cell=lambda scan: artifacts.save(replace(scan, code=code), path),
        on_progress=on_progress,
    )
    if not path.exists():  # a model without a single group to prune
        artifacts.save(replace(scan, code=code), path)
    return replace(scan, code=artifacts.load(Sensitivity, path).code)


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
    recurrent: bool = True,
    allocation: Allocation = "price",
    table: LatencyTable | None = None,
    precision: Kernels = "float32",
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> PruningPlan:
    """Plan, store the plan as plan.json beside the file, and prune by the stored plan.

    With a `table` the plan says what time is predicted before and after, in kernels of this `precision`; a latency
    target needs one. `on_note` is told how long operators were timed.

    Raises:
        PlanError: the target cannot be asked for like this, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups.
        ModelError: onnxruntime does not run one of the operators alone, and the target is a latency.
    """
    shape = input_shape or static_shape(model) or DEFAULT_SHAPE
    module = to_torch(model)
    groups = find_groups(module, shape, expand_names(module, protect, "protect"), recurrent)
    network = Network(
        module, groups, shape, criterion, align, fingerprint(model_identity(model), target, align, criterion)
    )
    if table is not None:
        timing = table_timing(model, shape, table, precision, on_progress)
        with saved_times(table, on_note):
            if "latency" in target or is_timed(module, timing, on_note):
                network = replace(network, timing=timing)
            plan = _make_plan(network, target, sensitivity, allocation)
    else:
        plan = _make_plan(network, target, sensitivity, allocation)
    plan_file = out_file.with_name("plan.json")
    artifacts.save(plan, plan_file)
    pruned = apply_plan(module, artifacts.load(PruningPlan, plan_file), shape)
    save_model(to_onnx(as_graph_module(pruned), model), out_file)
    return plan


def _make_plan(
    network: Network, target: dict[str, float], sensitivity: Sensitivity | None, allocation: Allocation
) -> PruningPlan:
    kind, value = next(iter(target.items()))
    if kind == "ratio":
        return plan_ratio(network, value)
    if kind == "macs":
        return plan_macs(network, value, sensitivity, allocation)
    if kind == "latency":
        return plan_latency(network, value, sensitivity, allocation)
    if sensitivity is None:
        raise PlanError("prune.target.metric_drop: needs a sensitivity scan. Run `compress sensitivity` first.")
    return plan_metric_drop(network, sensitivity, value)


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


def check_fits(model: onnx.ModelProto, task: Task) -> None:
    """Raise DataError where the model's output does not fit the task."""
    task.check_model(Session(model).output_shape)
