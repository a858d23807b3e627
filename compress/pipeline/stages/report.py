"""The report of a run: what was measured, the plan, the gates, the pictures, and by which code."""

import datetime
from pathlib import Path

from compress import artifacts
from compress.artifacts import (
    Candidates,
    Gallery,
    PruningPlan,
    Report,
    Sensitivity,
)
from compress.errors import ArtifactError
from compress.measure.machine import machine_info, saturates_int8
from compress.pipeline.code import differing, digest, recipe_settings, stage_code, task_modules
from compress.pipeline.diagnosis import LOW
from compress.pipeline.models import model_identity
from compress.pipeline.stages.gates import check_gates
from compress.pipeline.stages.measure import Measured
from compress.pipeline.stages.search import CANDIDATES_FILE
from compress.pipeline.state import Run
from compress.pipeline.worst_cases import NOT_SHOWN, make_gallery
from compress.recipe import PruneStep, SensitivityStep
from compress.report.budget_lines import budget_lines
from compress.tasks.base import Examiner, PostProcessing

IMAGES = "images"
"""Folder of the pictures, beside the report."""


def make_report(
    run: Run, command: str, measured: Measured, plan: PruningPlan | None, scan: Sensitivity | None = None
) -> Report:
    """The report, and the pictures that it shows."""
    machine, notes = machine_info(), list(measured.notes)
    if saturates_int8(machine):
        notes.append("this CPU has no VNNI: 8-bit weights saturate in 16-bit sums here; weight_bits: 7 does not")
    notes += budget_lines(scan) if scan else ()
    notes += list(plan.notes) if plan else []
    notes += code_notes(run)
    if (score := measured.results[0].score).metric < LOW.get(run.task.kind, 0.0):
        notes.insert(
            0, f"the model itself scores {score.metric:.4f}: how much of that is lost says little of the result"
        )
    gallery = _gallery(run, measured, notes)
    return Report(
        title=run.recipe.name,
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        stages=measured.results,
        gates=check_gates(run.recipe.gates.as_dict(), measured.results, measured.sets),
        fingerprint=artifacts.fingerprint(
            model_identity(run.original),
            [found.fingerprint for found in measured.sets],
            run.recipe.model_dump(mode="json"),
        ),
        notes=tuple(notes),
        plan=_plan_table(plan),
        candidates=_candidates(run),
        placement=run.records["int8"].placement if "int8" in run.records else None,
        quant_sensitivity=run.records["int8"].sensitivity if "int8" in run.records else None,
        gallery=gallery,
        scan=scan.fingerprint if scan else "",
        postprocessing=run.task.postprocessing() if isinstance(run.task, PostProcessing) else {},
        sets=measured.sets,
        settings=artifacts.fingerprint(recipe_settings(run.given or run.recipe)),
        code=code_digest(run),
    )


def stage_codes(run: Run) -> dict[str, dict[str, str]]:
    """Stage -> the code that computed it, in the order of the run."""
    scan = run.recipe.out / "sensitivity.json"
    scanned = {"sensitivity": artifacts.load(Sensitivity, scan).code} if run.recipe.find_step(SensitivityStep) else {}
    return {**scanned, **{name: record.code for name, record in run.records.items()}}


def code_digest(run: Run) -> str:
    """One hash of the code of all stages; "" where one does not say."""
    codes = stage_codes(run)
    return (
        digest({f"{stage} {name}": found for stage, code in codes.items() for name, found in code.items()})
        if all(codes.values())
        else ""
    )


def code_notes(run: Run) -> list[str]:
    """Which stages other code computed than this program has: together they are no run of any one version."""
    notes = []
    for stage, code in stage_codes(run).items():
        now = stage_code(stage, task_modules(run.task))
        changed = differing(now, code)
        if not code:
            notes.append(f"{stage}: computed by an earlier version of this program, which did not say by what code")
        elif changed:
            notes.append(f"{stage}: computed by other code than this program has now: {', '.join(changed)} changed")
    return notes


def _gallery(run: Run, measured: Measured, notes: list[str]) -> Gallery | None:
    """The result's worst cases beside the original's; None where the recipe requests none, or the task tells none."""
    task, count = run.task, run.recipe.compare.images
    if count and not isinstance(task, Examiner):
        notes.append(NOT_SHOWN)
    if not count or not isinstance(task, Examiner):
        return None
    previous = _earlier_gallery(run.recipe.out / "report.json")
    return make_gallery(task, measured.examined, run.recipe.out, count, subfolder=IMAGES, previous=previous)


def _earlier_gallery(report: Path) -> Gallery | None:
    """The pictures that an earlier run left; a report that cannot be read is no reason to lose this one's."""
    try:
        return artifacts.load(Report, report).gallery if report.is_file() else None
    except ArtifactError:
        return None


def _plan_table(plan: PruningPlan | None) -> dict[str, dict[str, float]]:
    groups = plan.groups if plan else {}
    return {
        name: {
            "channels": group.channels,
            "kept": group.channels - len(group.removed),
            "pruning_ratio": group.pruning_ratio,
        }
        for name, group in groups.items()
    }


def _candidates(run: Run) -> Candidates | None:
    """The plans that this run tried."""
    prune = run.recipe.find_step(PruneStep)
    searched = prune is not None and prune.search is not None
    return artifacts.load(Candidates, run.recipe.out / CANDIDATES_FILE) if searched else None
