"""A whole recipe, as one story: scan -> plan -> prune -> fine-tune -> quantise -> measure -> report.

Every stage leaves its file and a record of what it was computed from in the output folder, so a run that was stopped
anywhere, even killed, goes on where it was, and ends with the same files as a run in one go.
"""

import dataclasses
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import Cost, Gate, Latency, Parity, PruningPlan, Report, Score, Sensitivity, StageResult
from compress.errors import OutputError
from compress.graph import read_model, save_model
from compress.measure.cost import model_cost
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.runtime import quantize_static_minmax
from compress.pipeline import stages
from compress.pipeline.inputs import default_threads, make_task, open_model, score_model
from compress.recipe import FinetuneStep, PruneStep, QuantizeStep, Recipe, SensitivityStep
from compress.report import write_report
from compress.tasks.base import Task

Progress = Callable[[int, int, str], None]
PEER = "onnxruntime int8"


@dataclass(frozen=True)
class Record:
    """What a finished stage left: the identity of its input and of its file, and what cannot be measured again."""

    fingerprint: str
    content: str
    seconds: float
    parity: Parity | None = None
    version: int = artifacts.VERSION


@dataclass
class Run:
    """One run of a recipe: what stays the same from stage to stage."""

    recipe: Recipe
    task: Task
    original: onnx.ModelProto
    threads: int
    on_progress: Progress | None
    records: dict[str, Record] = dataclasses.field(default_factory=dict)

    def stage(self, name: str, identity: str, compute: Callable[[Path], Parity | None]) -> onnx.ModelProto:
        """Compute a stage's file, or take it as it is if it was finished before from the same things."""
        file, record_file = self.recipe.out / f"{name}.onnx", self.recipe.out / f"{name}.json"
        if record_file.exists() and file.exists():
            record = artifacts.load(Record, record_file)
            artifacts.check_fresh(record_file, record.fingerprint, identity)
            artifacts.check_fresh(file, _content(file), record.content)
        else:
            started = time.monotonic()
            parity = compute(file)
            record = Record(identity, _content(file), round(time.monotonic() - started, 1), parity)
            artifacts.save(record, record_file)
        self.records[name] = record
        return read_model(file)


def run_recipe(recipe: Recipe, command: str, on_progress: Progress | None = None) -> Report:
    """Do what the recipe says and report it; see the module's text for resuming.

    Raises:
        CompressError: anything a user can mend; what was finished before stays.
    """
    _check_writable(recipe.out)
    shape = _shape(recipe)
    original = open_model(recipe.model, recipe.weights, shape)
    data = recipe.data
    task = make_task(
        recipe.task.kind,
        train=data.train,
        val=data.val,
        input_shape=shape,
        directions=recipe.task.directions,
        labels=recipe.task.labels,
    )
    run = Run(recipe, task, original, recipe.threads or default_threads(), on_progress)
    files = {"baseline": _baseline_file(run)}
    model = original
    scan = _scan(run)
    plan: PruningPlan | None = None
    if (prune := recipe.find_step(PruneStep)) is not None:
        model = _prune(run, model, prune, scan)
        plan = artifacts.load(PruningPlan, recipe.out / "plan.json")
        files["pruned"] = recipe.out / "pruned.onnx"
    if (finetune := recipe.find_step(FinetuneStep)) is not None:
        model = _finetune(run, model, finetune)
        files["finetuned"] = recipe.out / "finetuned.onnx"
    if (quantize := recipe.find_step(QuantizeStep)) is not None:
        _quantize(run, model, quantize)
        files["int8"] = recipe.out / "int8.onnx"
    results, notes = _measure(run, files)
    report = _report(run, command, results, plan, notes)
    write_report(report, recipe.out, scan)
    return report


def _scan(run: Run) -> Sensitivity | None:
    step = run.recipe.find_step(SensitivityStep)
    if step is None:
        return None
    prune = run.recipe.find_step(PruneStep)
    return stages.run_sensitivity(
        run.original,
        run.task,
        run.recipe.out,
        criterion=step.criterion,
        ratios=step.ratios,
        images=step.images,
        protect=prune.protect if prune else (),
        seed=run.recipe.seed,
        threads=run.threads,
        on_progress=run.on_progress,
    )


def _prune(run: Run, model: onnx.ModelProto, step: PruneStep, scan: Sensitivity | None) -> onnx.ModelProto:
    criterion = step.criterion or (scan.criterion if scan else "fpgm")

    def compute(file: Path) -> None:
        stages.run_prune(
            model,
            file,
            target=step.target.as_dict(),
            align=step.align,
            criterion=criterion,
            sensitivity=scan,
            input_shape=run.task.input_shape,
            protect=step.protect,
        )

    identity = artifacts.fingerprint(
        stages.model_identity(model), step.model_dump(), criterion, scan.curves if scan else ""
    )
    return run.stage("pruned", identity, compute)


def _finetune(run: Run, model: onnx.ModelProto, step: FinetuneStep) -> onnx.ModelProto:
    recipe = run.recipe

    def compute(file: Path) -> None:
        stages.run_finetune(
            model,
            run.original,
            run.task,
            file,
            step,
            seed=recipe.seed,
            threads=run.threads,
            checkpoint=recipe.out / "finetuned.checkpoint",
            on_progress=run.on_progress,
        )

    return run.stage("finetuned", stages.train_identity(model, run.original, run.task, step, recipe.seed), compute)


def _quantize(run: Run, model: onnx.ModelProto, step: QuantizeStep) -> onnx.ModelProto:
    recipe = run.recipe

    def compute(file: Path) -> Parity:
        return stages.run_quantize(
            model,
            run.original,
            run.task,
            file,
            step,
            seed=recipe.seed,
            threads=run.threads,
            checkpoint=recipe.out / "int8.checkpoint",
            on_progress=run.on_progress,
        )

    return run.stage("int8", stages.train_identity(model, run.original, run.task, step, recipe.seed), compute)


def _measure(run: Run, files: dict[str, Path]) -> tuple[list[StageResult], list[str]]:
    """Cost, score and latency of every file; all latencies interleaved in one go."""
    notes = list(run.task.warnings())
    measured = {"baseline": files["baseline"], "canonical": _canonical_file(run)}
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
    results = []
    for done, (name, file) in enumerate(measured.items(), 1):
        score = score_model(file, run.task, run.threads)
        if run.on_progress:
            run.on_progress(done, len(measured), f"{name}: {score.name} {score.metric:.4f}")
        results.append(_result(run, name, file, score, latencies[name]))
    return results, notes


def _result(run: Run, name: str, file: Path, score: Score, latency: Latency) -> StageResult:
    cost: Cost = model_cost(read_model(file), run.task.input_shape, file.stat().st_size)
    record = run.records.get(name)
    return StageResult(
        stage=name,
        file=file.name,
        cost=cost,
        score=score,
        latency=latency,
        parity=record.parity if record else None,
        seconds=record.seconds if record else 0.0,
    )


def _report(run: Run, command: str, results: list[StageResult], plan: PruningPlan | None, notes: list[str]) -> Report:
    machine = machine_info()
    if saturates_int8(machine):
        notes.append("this CPU has no VNNI: 8-bit weights saturate in 16-bit sums here; weight_bits: 7 does not")
    notes += list(plan.notes) if plan else []
    return Report(
        title=run.recipe.name,
        command=command,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=machine,
        stages=tuple(results),
        gates=check_gates(run.recipe.gates.as_dict(), results),
        fingerprint=artifacts.fingerprint(
            stages.model_identity(run.original), run.task.fingerprint(), run.recipe.model_dump(mode="json")
        ),
        notes=tuple(notes),
        plan=_plan_table(plan),
    )


def check_gates(required: dict[str, float], results: list[StageResult]) -> tuple[Gate, ...]:
    """Compare the last stage with what the recipe requires; every gate is listed, met or not."""
    by_name = {result.stage: result for result in results}
    first, last = by_name["baseline"], results[-1]
    figures = {
        "metric_drop": first.score.metric - last.score.metric,
        "metric_min": last.score.metric,
        "size_ratio": last.cost.size_bytes / first.cost.size_bytes,
        "size_bytes_max": float(last.cost.size_bytes),
        "macs_ratio": last.cost.macs / max(1, first.cost.macs),
        "speedup": _speed(first, last),
        "speedup_over_onnxruntime": _speed(by_name[PEER], last) if PEER in by_name else 0.0,
    }
    at_least = {"metric_min", "speedup", "speedup_over_onnxruntime"}
    return tuple(
        Gate(name, value, figures[name], figures[name] >= value if name in at_least else figures[name] <= value)
        for name, value in required.items()
    )


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


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    channels, height, width = recipe.task.input
    return channels, height, width


def _content(file: Path) -> str:
    return artifacts.fingerprint(file.read_bytes())


def _baseline_file(run: Run) -> Path:
    """The user's own file; a PyTorch model has none, so its export is written."""
    given = Path(run.recipe.model)
    if given.is_file():
        return given
    file = run.recipe.out / "baseline.onnx"
    save_model(run.original, file)
    return file


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


def _check_writable(out: Path) -> None:
    """Find out now, not after an hour, that results cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror}). Choose another folder with --out.") from error
