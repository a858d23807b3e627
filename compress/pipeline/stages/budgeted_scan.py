"""A sensitivity scan within a budget of time: which cells are measured, on how many images, is decided on the way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from torch import Tensor

from compress import artifacts
from compress.artifacts import BudgetedScan, CellInterval, Sensitivity, fingerprint
from compress.pipeline.code import MIXED, merge, stage_code, task_modules
from compress.pipeline.evaluation import default_threads
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.scanning.cells import Cells
from compress.pipeline.scanning.earlier import earlier_scan
from compress.pipeline.scanning.inputs import ScanInputs
from compress.pipeline.scanning.judges import Judge, judge_by
from compress.pipeline.scope import EVERYTHING, Scope
from compress.prune.cell_choice import (
    TARGETS,
    Cell,
    Group,
    image_counts,
    images_spent,
    next_action,
)
from compress.prune.channel_scores import channel_scores, group_removal_count, lowest_channels
from compress.prune.channels import ChannelGroup
from compress.prune.sensitivity import ScanRequest, empty_scan, ratio_key
from compress.recipe import SensitivityStep
from compress.report.budget_lines import budget_lines
from compress.tasks.base import Task

BUDGET = "budget"
"""Marks the fingerprint of a scan that does not measure everything."""


def run_budgeted_scan(
    model: onnx.ModelProto,
    task: Task,
    out: Path,
    step: SensitivityStep,
    *,
    scope: Scope = EVERYTHING,
    training: Task | None = None,
    targets: Sequence[float] = TARGETS,
    execution: Execution = HERE,
) -> Sensitivity:
    """Scan for `step.budget` seconds; out/sensitivity.json holds what is known after every measurement.

    The best answer so far is always a whole one: groups have what was measured of their curves, and plans take what
    lies between as they do elsewhere. A stopped scan goes on; with a longer budget a finished one does, too.

    Args:
        model: in canonical form.
        task: validation images and metric; it judges single images, or compares outputs.
        out: folder of sensitivity.json.
        step: its budget; of its ratios each may be measured, on so many of its images at most.
        scope: which channels are scanned.
        training: the task that has the training images that outputs are compared on; default `task`.
        targets: shares of the multiply-adds left that plans may be for.
        execution: progress counts images; notes say what the budget is in images, and at the end what was skipped.

    Raises:
        ArtifactError: out/sensitivity.json is of another model, data or settings.
        OutputError: another process is writing it.
        CompressError: the task does not judge single images, compare outputs or have a side, and the step needs it to.
        DataError: there are no training images to compare outputs on.
    """
    assert step.budget is not None
    measure, path = step.measure, out / "sensitivity.json"
    given = ScanInputs.open(model, task, step, scope, training, execution)
    more = ["layer_norms"] if scope.layer_norms else []
    more += [] if measure == "metric" else [measure]
    more += [given.training.fingerprint()] if step.sees_training_images else []
    identity = fingerprint(
        given.model, given.task.fingerprint(), step.criterion, list(step.ratios), step.images, sorted(scope.protect),
        scope.recurrent, BUDGET, *more,
    )  # fmt: skip
    now = stage_code("sensitivity", task_modules(task))
    module, groups, task = given.module, given.groups, given.task
    cells = Cells(module, model, groups, threads=execution.threads or default_threads(), memory=0)
    with artifacts.lock(path):
        previous = earlier_scan(path, identity, given.model, task.input_shape)
        code = now if previous is None else merge(previous.code or dict.fromkeys(now, MIXED), now)
        judge = judge_by(measure, task, given.training, lambda: cells.whole(module).run, step.images)
        name = task.metric_name if measure == "metric" else measure
        # The other processes wait for the next job: they do not scan along.
        scores, _ = given.rank(step, previous.scores if previous else {}, replace(execution, team=None))
        request = ScanRequest(step.ratios, step.criterion, identity, name, task.input_shape, given.model, scores)
        scan = replace(previous, scores=scores) if previous else empty_scan(module, groups, request, judge.baseline)
        found = measure_within(
            given,
            cells,
            judge,
            scan,
            step.budget,
            targets,
            on_cell=lambda so_far: artifacts.save(replace(so_far, code=code), path),
            execution=execution,
        )
        return replace(found, code=code)


def measure_within(
    given: ScanInputs,
    cells: Cells,
    judge: Judge,
    scan: Sensitivity,
    seconds: float,
    targets: Sequence[float],
    *,
    on_cell: Callable[[Sensitivity], None],
    execution: Execution = HERE,
) -> Sensitivity:
    """Measure until the budget is spent or every decision is settled.

    The budget becomes a number of images at the pace of the network as it is, taken once and stored: a scan that goes
    on decides as one in one go.
    """
    counts = image_counts(judge.images)
    known = _read(scan, given.groups)
    pace = scan.budgeted.seconds_per_image if scan.budgeted else judge.seconds / judge.images
    whole = BudgetedScan(
        seconds_per_image=pace,
        images=int(seconds / pace),
        spent=images_spent(known, counts),
        cells_in_all=sum(len(group.ratios) for group in known.values()),
        images_in_all=judge.images,
        targets=tuple(targets),
        settled=False,
    )
    execution.note(
        f"scan: {seconds:g} s are {whole.images} images of {1000 * pace:.2g} ms, "
        f"{whole.images / max(1, whole.whole):.3f} of a whole scan: {whole.cells_in_all} cells x "
        f"{whole.images_in_all} images"
    )
    scores: dict[str, Tensor] = {}
    of = {group.name: group for group in given.groups}
    while True:
        action = next_action(known, counts, scan.baseline, targets)
        if action is None or whole.spent + action.images > whole.images:
            break
        group = of[action.group]
        if group.name not in scores:
            scores[group.name] = channel_scores(given.module, group, scan.criterion, scan.scores)
        removed = lowest_channels(group, scores[group.name], group_removal_count(group, action.ratio))
        predict = cells.predictor(group, cells.pruned_layers(group, removed))
        cell = known[group.name].cells[action.ratio] = judge.drop(predict, action.images)
        whole = replace(whole, spent=images_spent(known, counts))
        scan = _with(scan, known, whole)
        on_cell(scan)
        if execution.on_progress is not None:
            text = f"{action.group} at {action.ratio:g}: drop {cell.drop:.4f} ({cell.images} images)"
            execution.on_progress(whole.spent, whole.images, text)
    scan = _with(scan, known, replace(whole, settled=action is None))
    on_cell(scan)
    for line in budget_lines(scan):
        execution.note(line)
    return scan


def _read(scan: Sensitivity, groups: Sequence[ChannelGroup]) -> dict[str, Group]:
    """What a scan knows; of ratios that remove the same number of channels the first may be measured."""
    known = {}
    for group in groups:
        counts: dict[int, float] = {}
        for ratio in scan.ratios:
            counts.setdefault(group_removal_count(group, ratio), ratio)
        found = Group(tuple(ratio for count, ratio in counts.items() if count), scan.curves[group.name].macs)
        for key, cell in (scan.budgeted.cells.get(group.name, {}) if scan.budgeted else {}).items():
            found.cells[float(key)] = Cell(cell.images, cell.drop, cell.low, cell.high)
        known[group.name] = found
    return known


def _with(scan: Sensitivity, known: Mapping[str, Group], whole: BudgetedScan) -> Sensitivity:
    """The scan with what is known, drops as figures beside the baseline."""
    measured = {
        name: {
            ratio_key(ratio): CellInterval(cell.images, cell.drop, cell.low, cell.high)
            for ratio, cell in sorted(group.cells.items())
        }
        for name, group in known.items()
    }
    curves = {
        name: replace(
            curve,
            metric={ratio_key(ratio): scan.baseline - cell.drop for ratio, cell in sorted(known[name].cells.items())},
        )
        for name, curve in scan.curves.items()
    }
    return replace(scan, curves=curves, budgeted=replace(whole, cells=measured))
