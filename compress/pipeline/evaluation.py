"""Score one model on a task."""

import os
from pathlib import Path

import onnx

from compress.artifacts import Score
from compress.compute.launcher import local_count
from compress.errors import DataError
from compress.measure.runtimes import open_runner
from compress.measure.session import Session
from compress.tasks.base import Examination, Examiner, Predict, Task


def score_in(
    runtime: str,
    model: bytes,
    task: Task,
    threads: int | None = None,
    limit: int | None = None,
    *,
    name: str = "model",
) -> Score:
    """`score_model` in any runtime of `compress.measure.runtimes`; `name` is what messages call the model.

    Raises:
        ModelError: the runtime rejects it.
        DataError: its output does not fit the task.
        CompressError: the runtime is not installed.
    """
    runner = open_runner(runtime, model, None, name=name, threads=threads or default_threads())
    task.check_model(runner.output_shape)
    return task.evaluate(runner.run) if limit is None else task.evaluate(runner.run, limit)


def examine_in(
    runtime: str, model: bytes, task: Task, threads: int | None = None, *, name: str = "model"
) -> Examination:
    """`examine_model` in any runtime, as `score_in` is `score_model`.

    Raises:
        ModelError: the runtime rejects it.
        DataError: its output does not fit the task.
        CompressError: the runtime is not installed.
    """
    runner = open_runner(runtime, model, None, name=name, threads=threads or default_threads())
    task.check_model(runner.output_shape)
    return _examine(task, runner.run)


def score_model(
    model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None = None, limit: int | None = None
) -> Score:
    """Score a model, float or int8, in onnxruntime, on `limit` of the validation images or on all.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    session = checked_session(model, task, threads)
    return task.evaluate(session.run) if limit is None else task.evaluate(session.run, limit)


def examine_model(model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None = None) -> Examination:
    """Score a model as `score_model` does, in one pass with its judgement of each image where the task tells it.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    return _examine(task, checked_session(model, task, threads).run)


def _examine(task: Task, predict: Predict) -> Examination:
    return task.examine(predict) if isinstance(task, Examiner) else Examination(task.evaluate(predict))


def checked_session(model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None) -> Session:
    """A model ready to be scored.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    session = Session(model, threads=threads or default_threads(), spin=False)
    task.check_model(session.output_shape)
    return session


def default_threads() -> int:
    """Every core this process may use, at most `OMP_NUM_THREADS`; of several that share a run on this machine, each its
    share: there that variable is the launcher's."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing, wanted = local_count(), os.environ.get("OMP_NUM_THREADS", "")
    if sharing == 1 and wanted.isdecimal() and int(wanted) > 0:
        cores = min(cores, int(wanted))
    return max(1, cores // sharing)


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
