"""Each stage that shapes a network, from ONNX to ONNX and usable alone: scan, plan and prune."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import torch
from torch import fx, nn

from compress import artifacts
from compress.artifacts import PruningPlan, Sensitivity, fingerprint
from compress.errors import ArtifactError, CompressError, DataError, PlanError
from compress.graph import save_model, to_onnx, to_torch
from compress.graph.activations import is_replacement
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import Kernels
from compress.measure.runtime import Session
from compress.pipeline.cells import Cells
from compress.pipeline.code import MIXED, merge, stage_code, task_modules
from compress.pipeline.guessing import shape_for
from compress.pipeline.inputs import default_threads
from compress.pipeline.scan_cost import Note, announce_cost, at_side, side_of
from compress.pipeline.scan_measures import BATCH, Measure, score_by
from compress.pipeline.timing import as_graph_module, is_timed, saved_times, table_timing
from compress.prune.allocation import Allocation
from compress.prune.apply import apply_plan
from compress.prune.candidates import Planner
from compress.prune.channels import ChannelGroup, kept_outputs
from compress.prune.compensation import Compensation
from compress.prune.groups import find_groups
from compress.prune.plan import NAMES, plan_metric_drop, plan_ratio, plan_shares
from compress.prune.ranking import Kind, Network
from compress.prune.reconstruct import bytes_per_pixel
from compress.prune.sensitivity import check_scan, count_cells, scan_sensitivity
from compress.tasks.base import Processed, Task

Progress = Callable[[int, int, str], None]

Choose = Callable[[Network, Sensitivity, Allocation, Planner], PruningPlan]
"""(what is pruned, its scan, the rule, what makes a plan of curves by a rule) -> the plan."""
Recover = Literal["none", "reconstruct"]
"""What happens to a pruned network before it is scored."""
RECONSTRUCTED = 256
"""Images that layers are solved anew by, where nobody says how many."""
MEMORY = 2 << 30
"""Bytes that activations may take there: of large images fewer are used."""
PLAN_FILE = "plan.json"
"""Beside a pruned model: exactly which channels were removed."""


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
    recover: Recover = "none",
    measure: Measure = "metric",
    training: Task | None = None,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> Sensitivity:
    """Scan a model group by group; out/sensitivity.json holds every finished cell, and a stopped scan goes on from it.

    `measure` says what a cell's figure is (see `compress.pipeline.scan_measures`): the metric on validation images, or
    how near the outputs stay to the original's on training images. With `recover` "reconstruct" the layers that read a
    pruned group make up for it before it is scored, on training images. No label of these is looked at; `training` is
    the task that has them, if not `task`. `on_note` is told what the scan will cost once one evaluation was timed: the
    original's, or, of a scan that goes on, its first cell.

    Raises:
        ArtifactError: out/sensitivity.json is of another model, data or settings.
        OutputError: another process is writing it.
        CompressError: `side` is given, but the task has none; or the task does not compare outputs, and `measure` does.
        DataError: there are no training images, and `measure` or `recover` needs some.
    """
    if measure != "metric" and side is not None:
        raise CompressError(f"sensitivity.side: not with measure: {measure}, which scores training images. Remove it.")
    training, task = training or task, at_side(task, side)
    path = out / "sensitivity.json"
    module = to_torch(model)
    check_fits(model, task)
    scanned = model_identity(model)
    more: list[str] = [value for value in (recover, measure) if value not in ("none", "metric")]
    if more:  # what else decides, and the images that it is seen on
        more.append(training.fingerprint())
    identity = fingerprint(scanned, task.fingerprint(), criterion, images, sorted(protect), recurrent, *more)
    now = stage_code("sensitivity", task_modules(task))
    groups = find_groups(module, task.input_shape, expand_names(module, protect, "protect"), recurrent)
    if measure != "metric":
        check_train_images(training)
    cells = Cells(
        module,
        model,
        groups,
        threads=threads or default_threads(),
        exact=measure == "metric",
        batch_first=not (isinstance(task, Processed) and task.processing.layout == "tnk"),
    )
    score_of = score_by(measure, task, training, images, cells.original())

    with artifacts.lock(path):
        previous = _earlier_scan(path, identity, scanned, task.input_shape)
        code = now if previous is None else merge(previous.code or dict.fromkeys(now, MIXED), now)
        count = count_cells(groups, ratios, previous)
        share = cells.share(task.input_shape)
        metric_of = announce_cost(score_of, count, side_of(task), on_note, resumed=previous is not None, share=share)
        compensate = None
        if recover == "reconstruct" and count:
            torch.set_num_threads(threads or default_threads())
            compensate = Compensation(module, groups, fitting_batches(module, training), on_progress=on_progress)

        def evaluate_group(group: ChannelGroup, removed: Sequence[int]) -> float:
            return metric_of(cells.predictor(group, cells.pruned_layers(group, removed, compensate)))

        scan = scan_sensitivity(
            module,
            groups,
            evaluate=lambda _: metric_of(cells.original()),
            evaluate_group=evaluate_group,
            ratios=ratios,
            criterion=criterion,
            fingerprint=identity,
            metric_name=task.metric_name if measure == "metric" else measure,
            input_shape=task.input_shape,
            previous=previous,
            on_cell=lambda scan: artifacts.save(replace(scan, code=code), path),
            on_progress=on_progress,
            model=scanned,
        )
        if not path.exists():  # a model without a single group to prune
            artifacts.save(replace(scan, code=code), path)
        return replace(scan, code=artifacts.load(Sensitivity, path).code)


def check_train_images(task: Task) -> None:
    """Raise DataError where a task has no images to train on."""
    if task.train_steps(1) == 0:
        raise DataError("no training images. Name label lists with --train (data.train in a recipe).")


def _earlier_scan(path: Path, identity: str, model: str, input_shape: Sequence[int]) -> Sensitivity | None:
    """What an earlier scan of the same things left; one that does not say of which model it is learns it here.

    Raises:
        ArtifactError: it is of another model, data or settings.
    """
    if not path.exists():
        return None
    found = artifacts.load(Sensitivity, path)
    artifacts.check_fresh(path, found.fingerprint, identity)
    if not found.model:
        found = replace(found, model=model, input_shape=tuple(input_shape))
        artifacts.save(found, path)
    return found


def run_prune(
    model: onnx.ModelProto,
    out_file: Path,
    *,
    target: dict[str, float],
    align: int,
    criterion: str | None = None,
    sensitivity: Sensitivity | None = None,
    scanned: onnx.ModelProto | None = None,
    input_shape: tuple[int, int, int] | None = None,
    protect: Sequence[str] = (),
    recurrent: bool = True,
    allocation: Allocation = "price",
    table: LatencyTable | None = None,
    precision: Kernels = "float32",
    choose: Choose | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> PruningPlan:
    """Plan, store the plan as plan.json beside the file, and prune by the stored plan.

    With a `table` the plan says what time is predicted before and after, in kernels of this `precision`; a latency
    target needs one. `on_note` is told how long operators were timed.

    Args:
        model: in canonical form.
        out_file: the .onnx file to write.
        target: {"ratio": r}, or one or several of {"metric_drop": t}, {"macs": share}, {"params": share} and
            {"latency": share}.
        align: keep channel counts at multiples of this.
        criterion: how channels are ranked; default the scan's, else "fpgm".
        sensitivity: a scan of this model, or of `scanned`.
        scanned: what the scan is of, where `model` is that with activations replaced.
        input_shape: (C, H, W) that multiply-adds refer to; default the scan's, else the model's.
        protect: layers never to prune.
        recurrent: prune hidden units, too.
        allocation: the rule from curves to ratios.
        table: times of operators.
        precision: whose kernels are timed.
        choose: tries several plans and returns one (see `compress.pipeline.searching`); default the scan's own.
        on_progress: called as (done, in all, message).
        on_note: is told how long operators were timed.

    Raises:
        PlanError: the target cannot be asked for like this, `align` leaves every group whole, or the scan ranks by
            another criterion.
        ArtifactError: the scan is of another model or other groups, or plan.json was edited and would be overwritten.
        ModelError: onnxruntime does not run one of the operators alone, and the target is a latency.
    """
    plan_file = out_file.with_name(PLAN_FILE)
    _check_unedited(plan_file)
    identity = model_identity(model)
    if sensitivity is not None:
        _check_scan(sensitivity, model, identity, scanned, input_shape)
    criterion = _criterion(criterion, sensitivity)
    shape = shape_for(model, input_shape, sensitivity.input_shape if sensitivity else ())
    module = to_torch(model)
    groups = find_groups(module, shape, expand_names(module, protect, "protect"), recurrent)
    curves = {name: curve.metric for name, curve in sensitivity.curves.items()} if sensitivity else {}
    made_from = fingerprint(identity, target, align, criterion, sorted(protect), recurrent, allocation, shape, curves)
    network = Network(module, groups, shape, criterion, align, made_from)

    def make() -> PruningPlan:
        if choose is None or sensitivity is None:
            return _make_plan(network, target, sensitivity, allocation)
        return choose(network, sensitivity, allocation, lambda scan, rule: _make_plan(network, target, scan, rule))

    if table is not None:
        timing = table_timing(model, shape, table, precision, on_progress)
        with saved_times(table, on_note):
            if "latency" in target or is_timed(module, timing, on_note):
                network = replace(network, timing=timing)
            plan = make()
    else:
        plan = make()
    plan = replace(plan, model=identity, input_shape=shape)
    with artifacts.lock(plan_file), artifacts.lock(out_file):
        artifacts.save(plan, plan_file)
        pruned = apply_plan(module, artifacts.load(PruningPlan, plan_file), shape)
        save_model(to_onnx(as_graph_module(pruned), model), out_file)
    return plan


def _check_unedited(plan_file: Path) -> None:
    """Refuse to write over somebody's work.

    Raises:
        ArtifactError: the plan that lies there is not as this program wrote it.
    """
    if plan_file.exists() and artifacts.load_edited(PruningPlan, plan_file)[1]:
        raise ArtifactError(
            f"{plan_file}: edited by hand, or of an earlier version, and would be overwritten. "
            f"Prune by it with `compress prune MODEL --plan {plan_file} --out FILE`, or delete it."
        )


def _check_scan(
    scan: Sensitivity,
    model: onnx.ModelProto,
    identity: str,
    scanned: onnx.ModelProto | None,
    input_shape: tuple[int, int, int] | None,
) -> None:
    """Refuse a scan that does not fit what is pruned.

    Raises:
        ArtifactError: it is of another model.
    """
    of = identity if scanned is None else model_identity(scanned)
    check_scan(scan, of, input_shape)
    if scanned is not None and of != identity and not is_replacement(model, scanned):
        raise ArtifactError(
            "sensitivity: stale: the scanned model and the pruned one differ in more than replaced activations "
            f"(fingerprints {of} and {identity}). Scan the model that is to be pruned."
        )


def _criterion(asked: str | None, scan: Sensitivity | None) -> str:
    """What ranks the channels.

    Raises:
        PlanError: the scan ranks by something else than what is asked for.
    """
    if scan is not None and asked not in (None, scan.criterion):
        raise PlanError(
            f"prune.criterion: got {asked!r}, but the sensitivity scan ranks by {scan.criterion!r}. Must be the same."
        )
    return asked or (scan.criterion if scan is not None else "fpgm")


def _make_plan(
    network: Network, target: dict[str, float], sensitivity: Sensitivity | None, allocation: Allocation
) -> PruningPlan:
    if "ratio" in target:
        return plan_ratio(network, target["ratio"])
    shares: dict[Kind, float] = {kind: target[kind] for kind in NAMES if kind in target}
    drop = target.get("metric_drop")
    if shares:
        return plan_shares(network, shares, sensitivity, allocation, drop)
    if sensitivity is None or drop is None:
        raise PlanError("prune.target.metric_drop: needs a sensitivity scan. Run `compress sensitivity` first.")
    return plan_metric_drop(network, sensitivity, drop)


def fitting_batches(module: fx.GraphModule, task: Task, count: int = RECONSTRUCTED) -> Iterator[np.ndarray]:
    """Batches of at most `count` training images, as many as `MEMORY` holds the activations of, at least one.

    Raises:
        DataError: there are no images to train on.
    """
    check_train_images(task)
    per_pixel, used = 0.0, 0.0
    for batch in task.calibration_batches(count, BATCH):
        per_pixel = per_pixel or bytes_per_pixel(module, torch.from_numpy(batch[:1].copy()))
        needed = per_pixel * batch.shape[-1] * batch.shape[-2]
        room = int((MEMORY - used) / needed)
        if used and room < 1:
            return
        part = batch[: max(1, room)]
        used += needed * len(part)
        yield part


def kept_by_plan(model: onnx.ModelProto, plan: PruningPlan, input_shape: tuple[int, int, int]) -> dict[str, list[int]]:
    """Layer -> its output channels that a plan leaves, of layers that lose some.

    Args:
        model: what the plan is for.
        plan: which channels go.
        input_shape: (C, H, W), where the plan does not say.

    Raises:
        PlanError: it names channel groups that the model lacks.
    """
    module = to_torch(model)
    groups = find_groups(module, shape_for(model, None, plan.input_shape or input_shape))
    return kept_outputs(module, groups, {name: group.removed for name, group in plan.groups.items()})


def same_sizes(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    """Whether two models' weights have the same shapes, as of a model that was trained and not pruned."""
    shapes = [sorted(tuple(value.dims) for value in model.graph.initializer) for model in (one, other)]
    return shapes[0] == shapes[1]


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
    """Raise DataError where the model's input or output does not fit the task."""
    session = Session(model)
    given, channels = session.input_shape, task.input_shape[0]
    if len(given) != 4 or given[1] not in (None, channels):
        raise DataError(
            f"model: input shape {list(given)} does not fit {task.kind}. Expected [N, {channels}, H, W]: images of "
            f"{channels} channels. Check task.input, or use another model."
        )
    task.check_model(session.output_shape)
