"""Wall time of models, measured side by side."""

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from compress.artifacts import Latency
from compress.errors import CompressError
from compress.measure.runtimes import Runner
from compress.measure.session import Session
from compress.progress import Progress

Name = TypeVar("Name", bound=Hashable)

MIN_ROUNDS = 3
WARMUP = 5
"""Passes of each model before those that count."""


def measure_latency(
    models: Mapping[Name, Path | bytes | Runner],
    input_shape: tuple[int, int, int],
    *,
    threads: int = 1,
    rounds: int = 50,
    budget_s: float | None = 60.0,
    baseline: Name | None = None,
    on_progress: Progress | None = None,
) -> dict[Name, Latency]:
    """Time one forward pass of each model, interleaved (A B C A B C ...), so that a slow spell hits them all.

    Args:
        models: name -> file or bytes, run in onnxruntime; or what runs it already, in any runtime.
        input_shape: (C, H, W) of the random image, always the same, that they are fed.
        threads: onnxruntime's threads (what runs already has its own); say so beside the figures.
        rounds: passes per model that count; `WARMUP` before them do not.
        budget_s: stop after so many seconds even if rounds are left, but not before the third; None: no limit.
        baseline: name that speedups refer to; the first one by default.
        on_progress: called as (rounds done, rounds, message).

    Returns:
        Milliseconds per pass: median, 10th and 90th percentile; `speedup` = baseline's median / own median.

    Raises:
        CompressError: no models, or the baseline is not one of them.
        ModelError: onnxruntime rejects one of the models.
    """
    if not models:
        raise CompressError("bench: no models given. Name at least one ONNX file.")
    reference = next(iter(models)) if baseline is None else baseline
    if reference not in models:
        raise CompressError(f"bench: baseline {reference!r} is not among the models. Use one of {list(models)}.")
    if rounds < 1 or threads < 1:
        raise CompressError(f"bench: rounds and threads must be 1 or more, got {rounds}, {threads}.")
    images = np.random.default_rng(0).standard_normal((1, *input_shape)).astype(np.float32)
    calls = {name: _call(_runner(model, threads), images) for name, model in models.items()}
    for call in calls.values():
        for _ in range(WARMUP):
            call()
    times = time_interleaved(calls, rounds=rounds, budget_s=budget_s, on_progress=on_progress)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    return {
        name: Latency(
            median_ms=medians[name],
            p10_ms=float(np.percentile(values, 10)),
            p90_ms=float(np.percentile(values, 90)),
            threads=threads,
            runs=len(values),
            speedup=medians[reference] / medians[name],
        )
        for name, values in times.items()
    }


def time_interleaved(
    calls: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    budget_s: float | None = None,
    on_progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Call each in turn, round after round; milliseconds of every call, as many for each."""
    times: dict[Name, list[float]] = {name: [] for name in calls}
    start = clock()
    for done in range(rounds):
        if budget_s is not None and done >= MIN_ROUNDS and clock() - start >= budget_s:
            break
        for name, call in calls.items():
            before = clock()
            call()
            times[name].append((clock() - before) * 1000.0)
        if on_progress is not None:
            on_progress(done + 1, rounds, "latency")
    return times


def _runner(model: Path | bytes | Runner, threads: int) -> Runner:
    if isinstance(model, Path | bytes):
        return Session(model, threads=threads, stop_spinning=True)
    return model


def _call(runner: Runner, images: np.ndarray) -> Callable[[], object]:
    return lambda: runner.run(images)
