"""The rows of `benchmarks.bench_models`: a model's files, how those that are not there are made, what was measured.

What is finished is kept in the output folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import compress
from benchmarks.bench_results import (
    IN_OPENVINO,
    NNCF,
    ONNXRUNTIME,
    OURS,
    PRUNED,
    TITLES,
    Entry,
    ModelBench,
    Row,
    row_names,
    title,
)
from benchmarks.peers import CANONICAL, DEPLOYED, ROOT, input_files, quantize_nncf_in
from compress import artifacts
from compress.artifacts import Latency, Score
from compress.errors import CompressError, ModelError
from compress.graph import deployed_bytes, deployed_files, read_model
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.runtimes import OPENVINO, Runner, open_runner
from compress.measure.session import quantize_static_minmax
from compress.pipeline import run_quantize, run_recipe, score_in, score_model
from compress.pipeline.evaluation import default_threads
from compress.pipeline.execution import Execution
from compress.pipeline.tasks import recipe_task
from compress.progress import Progress
from compress.recipe import QuantizeStep
from compress.tasks.base import Task


@dataclass(frozen=True)
class _Made:
    """What a file was made from; it is made again when that changes."""

    fingerprint: str
    note: str = ""
    version: int = artifacts.VERSION


@dataclass(frozen=True)
class _Scored:
    """The score of a file on some images."""

    fingerprint: str
    score: Score
    version: int = artifacts.VERSION


@dataclass(frozen=True)
class Files:
    """A model's files, why others are missing, and what is known of the tools."""

    entry: Entry
    task: Task
    files: dict[str, Path]
    missing: dict[str, str]
    nncf: str = ""


@dataclass(frozen=True)
class Scores:
    """Row -> score, or the reason why it has none."""

    scores: dict[str, Score]
    missing: dict[str, str]


# --- files -------------------------------------------------------------------------------------------------------


def make_files(entry: Entry, folder: Path, python: Callable[[], Path], on_progress: Progress) -> Files:
    """Every file of a model; those that are there, made from the same things, are taken as they are.

    Args:
        entry: the model.
        folder: where files go.
        python: a Python that has NNCF, made or found when it is needed.
        on_progress: called as (done, in all, message).

    Raises:
        CompressError: the recipe's own files cannot be had.
    """
    step, task = entry.step(), recipe_task(entry.recipe)
    pruned = pruned_file(entry, on_progress)
    found = input_files(entry.recipe, task, folder)
    missing: dict[str, str] = {}
    notes: dict[str, str] = {}
    for done, (name, make) in enumerate(jobs(entry, step, task, found, python, on_progress).items()):
        on_progress(done, len(TITLES), f"{entry.name}: making {TITLES[name]}")
        file = folder / f"{name}.onnx"
        identity = artifacts.fingerprint(
            found[CANONICAL].read_bytes(), task.fingerprint(), step.model_dump(), tool_identity(name)
        )
        try:
            found[name], notes[name] = file, keep(file, identity, make)
        except CompressError as error:
            missing[name] = str(error)
    if entry.int8:
        found[OURS] = entry.int8
    found[PRUNED] = pruned
    return Files(entry, task, found, missing, notes.get(NNCF, ""))


def jobs(
    entry: Entry,
    step: QuantizeStep,
    task: Task,
    found: Mapping[str, Path],
    python: Callable[[], Path],
    on_progress: Progress,
) -> dict[str, Callable[[Path], str]]:
    """How each int8 file of the unpruned model is made; each takes the file to write and returns what to note.

    Every tool gets the canonical form and the same images, and weights that cannot saturate where this CPU would.
    """
    source, saturates = found[CANONICAL], saturates_int8(machine_info())

    def images() -> list[np.ndarray]:
        return list(task.calibration_batches(step.calibration, 1))

    def onnxruntime_int8(file: Path) -> str:
        quantize_static_minmax(source, images(), file, reduce_range=saturates)
        return ""

    def nncf_int8(file: Path) -> str:
        return quantize_nncf_in(python(), source, images(), file, half_range=saturates)

    def ours_int8(file: Path) -> str:
        model, threads = read_model(source), entry.recipe.threads or default_threads()
        calibrated = step.model_copy(update={"epochs": 0})
        made = run_quantize(
            model,
            model,
            task,
            file,
            calibrated,
            latency_threads=entry.recipe.compare.threads,
            execution=Execution(entry.recipe.seed, threads, on_progress=on_progress),
        )
        return "; ".join(made.notes)

    made = {ONNXRUNTIME: onnxruntime_int8, NNCF: nncf_int8, OURS: ours_int8}
    return {name: make for name, make in made.items() if not (name == OURS and entry.int8)}


def pruned_file(entry: Entry, on_progress: Progress) -> Path:
    """The last file of the recipe's run; where no run is named it is run now, as far as it is not done.

    Raises:
        CompressError: the run that is named is not there, or not finished.
    """
    if entry.ours is None:
        run_recipe(entry.recipe, f"compress run {entry.recipe.name}", on_progress)
        return entry.recipe.out / "int8.onnx"
    file = entry.ours / "int8.onnx"
    if not file.is_file():
        raise CompressError(
            f"--model {entry.name}: {entry.ours}: has no int8.onnx. Give the folder of a finished `compress run`."
        )
    return file


def keep(file: Path, identity: str, make: Callable[[Path], str]) -> str:
    """Make a file unless it is there, made from the same things; returns what was noted when it was made."""
    record = file.with_suffix(".made.json")
    if file.is_file() and record.is_file():
        made = artifacts.load(_Made, record)
        if made.fingerprint == identity:
            return made.note
    note = make(file)
    artifacts.save(_Made(identity, note), record)
    return note


def tool_identity(name: str) -> str:
    """Fingerprint of what makes a file: another version of the tool, or another CPU, may make another file."""
    machine = machine_info()
    if name == OURS:
        return artifacts.fingerprint_each(
            file.read_bytes() for file in sorted(Path(compress.__file__).parent.rglob("*.py"))
        )
    return artifacts.fingerprint(machine.flags, machine.versions, (ROOT / "constraints.txt").read_text())


# --- figures -----------------------------------------------------------------------------------------------------


def score_files(model: Files, folder: Path, openvino: bool, on_progress: Progress) -> Scores:
    """The score of each row, kept in the folder; an int8 file that cannot be run is a row with its reason.

    Raises:
        CompressError: the float model itself cannot be run.
    """
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    rows = row_names(openvino)
    for done, row in enumerate(rows):
        on_progress(done, len(rows), f"{model.entry.name}: scoring {title(row)}")
        name = row.removesuffix(IN_OPENVINO)
        if name in model.missing:
            missing[row] = model.missing[name]
            continue
        try:
            scores[row] = kept_score(model, row, folder / f"{row.replace(' ', '_')}.score.json")
        except ModelError as error:
            if row in (DEPLOYED, CANONICAL):
                raise
            missing[row] = str(error)
    on_progress(len(rows), len(rows), f"{model.entry.name}: scored")
    return Scores(scores, missing)


def kept_score(model: Files, row: str, record: Path) -> Score:
    """A row's score: read back if it was measured before on the same images, else measured and stored."""
    file, images = model.files[row.removesuffix(IN_OPENVINO)], model.entry.images
    content = (one.read_bytes() for one in deployed_files(file))
    identity = artifacts.fingerprint_each([*content, model.task.fingerprint(), images])
    if record.is_file():
        stored = artifacts.load(_Scored, record)
        if stored.fingerprint == identity:
            return stored.score
    threads = model.entry.recipe.threads
    if row.endswith(IN_OPENVINO):
        score = score_in(OPENVINO, file.read_bytes(), model.task, threads, images, name=file.name)
    else:
        score = score_model(file, model.task, threads, images)
    artifacts.save(_Scored(identity, score), record)
    return score


def time_rows(
    model: Files, rows: Sequence[str], threads: Sequence[int], rounds: int, on_progress: Progress
) -> dict[str, dict[str, Latency]]:
    """Row -> threads -> time of one image: all rows in turn, first with one number of threads, then the next."""
    found: dict[str, dict[str, Latency]] = {row: {} for row in rows}
    for number in threads:
        timed = measure_latency(
            {row: runner_of(model, row, number) for row in rows},
            model.task.input_shape,
            threads=number,
            rounds=rounds,
            baseline=DEPLOYED,
            on_progress=lambda done, of, _, n=number: on_progress(
                done, of, f"{model.entry.name}: timing, {n} thread{'s' if n > 1 else ''}"
            ),
        )
        for row, latency in timed.items():
            found[row][str(number)] = latency
    return found


def runner_of(model: Files, row: str, threads: int) -> Path | Runner:
    """What `measure_latency` runs."""
    file = model.files[row.removesuffix(IN_OPENVINO)]
    if not row.endswith(IN_OPENVINO):
        return file
    return open_runner(OPENVINO, file.read_bytes(), model.task.input_shape, name=file.name, threads=threads)


def model_bench(model: Files, scored: Scores, times: Mapping[str, Mapping[str, Latency]], openvino: bool) -> ModelBench:
    """A model's part of the result: every row, measured or missing."""
    entry, rows = model.entry, []
    for row in row_names(openvino):
        if row in scored.missing:
            rows.append(Row(row, missing=scored.missing[row]))
        else:
            file = model.files[row.removesuffix(IN_OPENVINO)]
            rows.append(Row(row, str(file), deployed_bytes(file), scored.scores[row], dict(times[row])))
    return ModelBench(
        name=entry.name,
        recipe=entry.recipe.name,
        input_shape=tuple(model.task.input_shape),
        calibration=entry.step().calibration,
        images=entry.images,
        trained=(PRUNED, *([OURS] if entry.int8 else [])),
        rows=tuple(rows),
    )
