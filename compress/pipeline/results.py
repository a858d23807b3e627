"""The end of a run: cost, score and latency of every file, the gates, and the report."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress import artifacts
from compress.artifacts import (
    VAL,
    Candidates,
    Cost,
    Gallery,
    Gate,
    Latency,
    PruningPlan,
    Report,
    Score,
    Sensitivity,
    SetResult,
    StageResult,
)
from compress.errors import ArtifactError
from compress.graph import deployed_bytes, read_model, save_model
from compress.measure.cost import model_cost
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.runtime import quantize_static_minmax
from compress.pipeline.code import differing, digest, recipe_settings, stage_code, task_modules
from compress.pipeline.pictures import NOT_SHOWN, make_gallery
from compress.pipeline.scoring import WORST, check_figures, open_test_set, score_set, shared_with_test_set
from compress.pipeline.searching import CANDIDATES_FILE
from compress.pipeline.stages import model_identity
from compress.pipeline.state import Run
from compress.recipe import PruneStep, QuantizeStep, SensitivityStep
from compress.tasks.base import Examination, Examiner, PostProcessing

CANONICAL, PEER = "canonical", "onnxruntime int8"
"""Measured beside the run's own files."""
AT_LEAST = frozenset({"metric_min", "speedup", "speedup_over_onnxruntime"})
"""Gates that are lower limits; the others are upper ones."""


IMAGES = "images"
"""Folder of the pictures, beside the report."""


@dataclass(frozen=True)
class Measured:
    """Each file's figures, what to say of them, and what the original and the result made of single images."""

    results: tuple[StageResult, ...]
    notes: tuple[str, ...]
    examined: dict[str, Examination]
    sets: tuple[SetResult, ...] = ()


def measure_files(run: Run, files: dict[str, Path]) -> Measured:
    """Cost, scores and latency of every file; all latencies interleaved in one go."""
    notes = [*run.notes, *run.task.warnings()]
    measured = {"baseline": files["baseline"], CANONICAL: _canonical_file(run)}
    if run.recipe.compare.onnxruntime:
        measured[PEER] = _peer_file(run, files["baseline"], notes)
    measured.update(files)
    settings = run.recipe.compare
    shape = run.task.input_shape
    latencies = measure_latency(
        measured,
        shape,
        threads=settings.threads,
        rounds=settings.rounds,
        baseline="baseline",
        on_progress=run.on_progress,
    )
    shown = (next(iter(files)), list(files)[-1]) if settings.images else ()
    validation, examined = score_set(run, run.task, VAL, measured, shown)
    results = tuple(_result(run, name, file, examined[name].score, latencies[name]) for name, file in measured.items())
    sets = [validation]
    for name in run.recipe.data.test:
        task = open_test_set(run.recipe, name)
        notes += (*task.warnings(), *shared_with_test_set(run.recipe, run.task, name, task))
        sets.append(score_set(run, task, name, measured)[0])
    return Measured(results, tuple(notes), {name: examined[name] for name in shown}, tuple(sets))


def _result(run: Run, name: str, file: Path, score: Score, latency: Latency) -> StageResult:
    cost: Cost = model_cost(read_model(file), run.task.input_shape, deployed_bytes(file))
    record = run.records.get(name)
    return StageResult(
        stage=name,
        file=file.name,
        cost=cost,
        score=score,
        latency=latency,
        parity=record.parity if record else None,
        seconds=record.seconds if record else 0.0,
        notes=record.notes if record else (),
    )


def make_report(
    run: Run, command: str, measured: Measured, plan: PruningPlan | None, scan: Sensitivity | None = None
) -> Report:
    """The report, and the pictures that it shows."""
    machine, notes = machine_info(), list(measured.notes)
    if saturates_int8(machine):
        notes.append("this CPU has no VNNI: 8-bit weights saturate in 16-bit sums here; weight_bits: 7 does not")
    notes += list(plan.notes) if plan else []
    notes += code_notes(run)
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
    """The result's worst cases beside the original's; None where the recipe asks for none, or the task tells none."""
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


def check_gates(
    required: dict[str, float], results: Sequence[StageResult], sets: Sequence[SetResult] = ()
) -> tuple[Gate, ...]:
    """Compare the run's last file with what the recipe requires; every gate is listed, met or not.

    Args:
        required: gate -> limit; `metric_drop.receipts` is measured on that set, `metric_drop` on the test set where it
            is worst, or, where there are none, on the validation data.
        results: of every file, the original's first.
        sets: the metric on the validation data and the test sets.

    Raises:
        DataError: a gate is of a figure that no test set has; tasks that tell their figures are refused before.
    """
    by_name = {result.stage: result for result in results}
    first = by_name["baseline"]
    last = [result for result in results if result.stage not in (CANONICAL, PEER)][-1]
    on_sets = _metric_gates(first, last, sets)
    figures = {
        **{name: figure for name, (figure, _) in on_sets.items()},
        "size_ratio": last.cost.size_bytes / first.cost.size_bytes,
        "size_bytes_max": float(last.cost.size_bytes),
        "macs_ratio": last.cost.macs / max(1, first.cost.macs),
        "speedup": _speed(first, last),
        "speedup_over_onnxruntime": _speed(by_name[PEER], last) if PEER in by_name else 0.0,
    }
    check_figures(required, [name.removeprefix(WORST) for name in on_sets if name.startswith(WORST)])
    return tuple(
        Gate(
            name,
            value,
            figures[name],
            is_met(value, figures[name], at_least=name.partition(".")[0] in AT_LEAST),
            on_sets[name][1] if name in on_sets else "",
        )
        for name, value in required.items()
    )


def _metric_gates(first: StageResult, last: StageResult, sets: Sequence[SetResult]) -> dict[str, tuple[float, str]]:
    """Every gate that looks at a metric -> (what it measures, on which set where its name leaves that open)."""
    found = {
        "metric_drop": (first.score.metric - last.score.metric, ""),
        "metric_min": (last.score.metric, ""),
    }
    found |= {f"{gate}.{VAL}": figure for gate, figure in found.items()}
    held_out = [one for one in sets if one.name != VAL]
    tests = {one.name: one.stages[last.stage] for one in held_out}
    if not tests:
        return found
    metric = held_out[0].metric
    for name, figures in tests.items():
        found |= {
            f"metric_drop.{name}": (figures[metric].drop, ""),
            f"metric_min.{name}": (figures[metric].value, ""),
        }
    for figure in dict.fromkeys(figure for figures in tests.values() for figure in figures):
        drops = [(figures[figure].drop, name) for name, figures in tests.items() if figure in figures]
        found[f"worst_set.{figure}"] = max(drops)
    found["worst_set"] = found["metric_drop"] = found[f"worst_set.{metric}"]
    found["metric_min"] = min((figures[metric].value, name) for name, figures in tests.items())
    return found


def is_met(required: float, measured: float, *, at_least: bool) -> bool:
    """Whether a figure keeps to its limit, which it may hit exactly, whatever float arithmetic makes of that.

    >>> 0.9 - 0.895 <= 0.005, is_met(0.005, 0.9 - 0.895, at_least=False)
    (False, True)
    """
    slack = 1e-9 * max(1.0, abs(required))
    return measured >= required - slack if at_least else measured <= required + slack


def _speed(reference: StageResult, result: StageResult) -> float:
    assert reference.latency is not None
    assert result.latency is not None
    return reference.latency.median_ms / result.latency.median_ms


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


def _canonical_file(run: Run) -> Path:
    """The original in canonical form: what the rewriting alone gains, so that no other step takes credit for it."""
    file = run.recipe.out / "canonical.onnx"
    save_model(run.original, file)
    return file


def _peer_file(run: Run, baseline: Path, notes: list[str]) -> Path:
    """onnxruntime's own int8 of the original, as its documentation recommends for this CPU."""
    file = run.recipe.out / "onnxruntime_int8.onnx"
    quantize = run.recipe.find_step(QuantizeStep)
    count = quantize.calibration if quantize else 256
    reduce_range = saturates_int8(machine_info())
    batches = run.task.calibration_batches(count, 1)
    quantize_static_minmax(baseline, batches, file, reduce_range=reduce_range)
    bits = "7-bit weights, since this CPU saturates at 8" if reduce_range else "8-bit weights"
    notes.append(f"{PEER}: quantize_static, MinMax, per channel, {bits}, {count} calibration images")
    return file
