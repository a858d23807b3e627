"""Cost, score and latency of a run's files."""

from dataclasses import dataclass
from pathlib import Path

from compress.artifacts import (
    VAL,
    Cost,
    Latency,
    Score,
    SetResult,
    StageResult,
)
from compress.graph import deployed_bytes, read_model, save_model
from compress.measure.cost import model_cost
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.session import quantize_static_minmax
from compress.pipeline.stages.scores import open_test_set, score_set, shared_with_test_set
from compress.pipeline.state import Run
from compress.recipe import QuantizeStep
from compress.tasks.base import Examination

CANONICAL, PEER = "canonical", "onnxruntime int8"
"""Measured beside the run's own files."""


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
        images_per_second=record.images_per_second if record else 0.0,
        peak_memory_bytes=record.peak_memory_bytes if record else 0,
    )


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
