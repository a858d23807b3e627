"""Sensitivity scan: what the metric loses for each group of channels at each ratio."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import Sensitivity, fingerprint
from compress.pipeline.code import MIXED, merge, stage_code, task_modules
from compress.pipeline.evaluation import default_threads
from compress.pipeline.execution import HERE, Execution
from compress.pipeline.scanning.cells import Cells
from compress.pipeline.scanning.earlier import earlier_scan
from compress.pipeline.scanning.inputs import ScanInputs
from compress.pipeline.scanning.measures import score_by
from compress.pipeline.scanning.parts import join_parts, part_file
from compress.pipeline.scanning.scan_cost import announce_cost, side_of
from compress.pipeline.scope import EVERYTHING, Scope
from compress.pipeline.stages.budgeted_scan import run_budgeted_scan
from compress.pipeline.state import Run
from compress.prune.cell_choice import TARGETS
from compress.prune.channels import ChannelGroup
from compress.prune.compensation import Compensation
from compress.prune.sensitivity import ScanRequest, count_cells, join_scans, scan_sensitivity
from compress.recipe import PruneStep, SensitivityStep
from compress.tasks.base import Processed, Task


def run_sensitivity(
    model: onnx.ModelProto,
    task: Task,
    out: Path,
    step: SensitivityStep,
    *,
    scope: Scope = EVERYTHING,
    training: Task | None = None,
    execution: Execution = HERE,
) -> Sensitivity:
    """Scan a model group by group; out/sensitivity.json holds every finished cell, and a stopped scan goes on from it.

    `step.measure` says what a cell's figure is (see `compress.pipeline.scanning.measures`): the metric on validation
    images, or how near the outputs stay to the original's on training images. With `step.recover` "reconstruct" the
    layers that read a pruned group compensate for it before it is scored, on training images. No label of these is
    looked at; `training` is the task that has them, if not `task`. A note says what the scan will cost once one
    evaluation was timed: the original's, or, of a scan that goes on, its first cell.

    The processes of a `team` each take the next group that nobody has. All but the first one keep their cells in
    out/sensitivity.partN.json, which the first one joins to its own in the end, or when it goes on: the file is that of
    a single process.

    Raises:
        ArtifactError: out/sensitivity.json is of another model, data or settings.
        OutputError: another process is writing it.
        CompressError: `step.side` is given, but the task has none; or the task does not compare outputs, and
            `step.measure` does.
        DataError: there are no training images, and the step needs some.
    """
    measure, threads, team = step.measure, execution.threads or default_threads(), execution.team
    given = ScanInputs.open(model, task, step, scope, training, execution)
    path = out / "sensitivity.json"
    more: list[str] = [value for value in (step.recover, measure) if value not in ("none", "metric")]
    if step.sees_training_images:
        more.append(given.training.fingerprint())
    more += ["layer_norms"] if scope.layer_norms else []
    identity = fingerprint(
        given.model, given.task.fingerprint(), step.criterion, step.images, sorted(scope.protect), scope.recurrent,
        *more,
    )  # fmt: skip
    now = stage_code("sensitivity", task_modules(task))
    module, groups, task = given.module, given.groups, given.task
    cells = Cells(
        module,
        model,
        groups,
        threads=threads,
        exact=measure == "metric",
        batch_first=not (isinstance(task, Processed) and task.processing.layout == "tnk"),
    )
    score_of = score_by(measure, task, given.training, step.images, cells.original())

    is_main = team is None or team.is_main
    with artifacts.lock(path) if is_main else nullcontext():
        if is_main:
            join_parts(path, identity)  # what a stopped scan left
        if team is not None:
            team.wait()
        previous = earlier_scan(path, identity, given.model, task.input_shape)
        code = now if previous is None else merge(previous.code or dict.fromkeys(now, MIXED), now)
        left = count_cells(groups, step.ratios, previous)
        share = cells.share(task.input_shape)
        metric_of = announce_cost(
            score_of,
            left // (team.count if team else 1),
            side_of(task),
            execution.on_note,
            resumed=previous is not None,
            share=share,
        )
        compensates = bool(left) and step.recover == "reconstruct"
        scores, equations = given.rank(step, previous.scores if previous else {}, execution, compensates=compensates)
        compensate = Compensation(module, equations) if compensates else None

        def evaluate(group: ChannelGroup | None, removed: Sequence[int]) -> float:
            if group is None:
                return metric_of(cells.original())
            return metric_of(cells.predictor(group, cells.pruned_layers(group, removed, compensate)))

        scan = scan_sensitivity(
            module,
            groups,
            ScanRequest(
                step.ratios,
                step.criterion,
                identity,
                task.metric_name if measure == "metric" else measure,
                task.input_shape,
                given.model,
                scores,
            ),
            evaluate,
            previous=previous,
            on_cell=lambda scan: artifacts.save(replace(scan, code=code), part_file(path, team.rank if team else 0)),
            on_progress=execution.on_progress,
            is_mine=team.turns(f"scan {identity}").is_mine if team else None,
        )
        if team is not None:
            team.wait()
        if not is_main:
            return scan
        join_parts(path, identity)
        if not path.exists():  # a model without a single group to prune
            artifacts.save(replace(scan, code=code), path)
        stored = artifacts.load(Sensitivity, path)
        if team is not None:
            scan = join_scans(scan, [stored])
        return replace(scan, code=stored.code)


def scan_of(run: Run, task: Task) -> Sensitivity | None:
    """The scan that the run's recipe has, if any, on `task`: as it was before images were labelled for training, which
    no score depends on."""
    step, prune = run.recipe.find_step(SensitivityStep), run.recipe.find_step(PruneStep)
    if step is None:
        return None
    scope = Scope.of(prune) if prune else EVERYTHING
    execution = replace(run.execution(), on_note=run.on_note)
    if step.budget is not None:
        wanted = prune.target.macs if prune else None
        return run_budgeted_scan(
            run.original,
            task,
            run.recipe.out,
            step,
            scope=scope,
            training=run.task,
            targets=TARGETS if wanted is None else (wanted,),
            execution=execution,
        )
    if run.team is not None and run.team.is_main:
        run.team.send(ScanJob())
    return run_sensitivity(
        run.original,
        task,
        run.recipe.out,
        step,
        scope=scope,
        training=run.task,
        execution=execution,
    )


@dataclass(frozen=True)
class ScanJob:
    """The share of a scan that is another process's; the recipe says the rest."""

    def join(self, run: Run, task: Task) -> None:
        """Measure cells of groups."""
        scan_of(run, task)
