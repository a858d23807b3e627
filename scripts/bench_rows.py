"""The rows of scripts/bench_models.py: a model's files, how those that are not there are made, and what was measured.

What is finished is kept in the output folder.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from peers import CANONICAL, DEPLOYED, ROOT, input_files, quantize_nncf_in

import compress
from compress import artifacts
from compress.artifacts import Latency, Machine, Score
from compress.cli.progress import OnProgress
from compress.errors import CompressError
from compress.graph import read_model
from compress.measure.latency import measure_latency
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.runtime import quantize_static_minmax
from compress.pipeline import run_quantize, run_recipe, score_model
from compress.pipeline.inputs import default_threads, recipe_task
from compress.recipe import QuantizeStep, Recipe
from compress.tasks.base import Task

ONNXRUNTIME, NNCF, OURS, PRUNED = "onnxruntime", "nncf", "int8", "pruned_int8"
TITLES = {
    DEPLOYED: "deployed, fp32",
    CANONICAL: "canonical, fp32",
    ONNXRUNTIME: "onnxruntime's quantizer",
    NNCF: "NNCF",
    OURS: "ours, int8",
    PRUNED: "ours, pruned + int8",
}
"""Row -> what the table calls it; in the table's order."""


@dataclass(frozen=True)
class Row:
    """A file and its figures, or the reason why there are none."""

    name: str
    file: str = ""
    size_bytes: int = 0
    score: Score | None = None
    latencies: dict[str, Latency] = field(default_factory=dict)
    """Threads -> time of one image."""
    missing: str = ""


@dataclass(frozen=True)
class ModelBench:
    """All rows of a model."""

    name: str
    recipe: str
    input_shape: tuple[int, ...]
    calibration: int
    """Training images that all int8 files were calibrated with."""
    images: int | None
    """Validation images to score on that were asked for; None: all."""
    trained: tuple[str, ...]
    """Rows that were trained, not calibrated only."""
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Bench:
    """A whole run."""

    command: str
    date: str
    commit: str
    machine: Machine
    busy_cores: float | None
    """Cores that other work kept busy just before anything was timed; None where that is not known."""
    nncf: str
    """NNCF's version; empty where it made nothing."""
    threads: tuple[int, ...]
    rounds: int
    models: tuple[ModelBench, ...]
    version: int = artifacts.VERSION


@dataclass(frozen=True)
class Entry:
    """A model to measure, as it was asked for."""

    name: str
    recipe: Recipe
    ours: Path | None = None
    """A finished run of the recipe; None: its own output folder, and run now if need be."""
    int8: Path | None = None
    """An int8 file of the unpruned model; None: calibrated now."""
    images: int | None = None
    """Validation images to score on; None: all."""

    def step(self) -> QuantizeStep:
        """How the recipe quantises.

        Raises:
            CompressError: it does not.
        """
        step = self.recipe.find_step(QuantizeStep)
        if step is None:
            raise CompressError(
                f"--model {self.name}: {self.recipe.name}: has no `quantize` step, whose file is measured."
            )
        return step


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
    """A model's files in the order of the table, why others are missing, and what is known of the tools."""

    entry: Entry
    task: Task
    files: dict[str, Path]
    missing: dict[str, str]
    nncf: str = ""


# --- files -------------------------------------------------------------------------------------------------------


def make_files(entry: Entry, folder: Path, python: Callable[[], Path], on_progress: OnProgress) -> Files:
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
    files = {name: found[name] for name in TITLES if name in found}
    return Files(entry, task, files, missing, notes.get(NNCF, ""))


def jobs(
    entry: Entry,
    step: QuantizeStep,
    task: Task,
    found: Mapping[str, Path],
    python: Callable[[], Path],
    on_progress: OnProgress,
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
            model, model, task, file, calibrated, seed=entry.recipe.seed, threads=threads, on_progress=on_progress
        )
        return "; ".join(made.notes)

    made = {ONNXRUNTIME: onnxruntime_int8, NNCF: nncf_int8, OURS: ours_int8}
    return {name: make for name, make in made.items() if not (name == OURS and entry.int8)}


def pruned_file(entry: Entry, on_progress: OnProgress) -> Path:
    """The last file of the recipe's run; where no run is named and there is none yet, it is run now.

    Raises:
        CompressError: the run that is named is not there, or not finished.
    """
    file = (entry.ours or entry.recipe.out) / "int8.onnx"
    if file.is_file():
        return file
    if entry.ours:
        raise CompressError(
            f"--model {entry.name}: {entry.ours}: has no int8.onnx. Give the folder of a finished `compress run`."
        )
    run_recipe(entry.recipe, f"compress run {entry.recipe.name}", on_progress)
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


def score_files(model: Files, folder: Path, on_progress: OnProgress) -> dict[str, Score]:
    """The score of each file, kept in the folder."""
    scores = {}
    for done, (name, file) in enumerate(model.files.items()):
        on_progress(len(TITLES) - len(model.files) + done, len(TITLES), f"{model.entry.name}: scoring {TITLES[name]}")
        scores[name] = kept_score(model, file, folder / f"{name.replace(' ', '_')}.score.json")
    on_progress(len(TITLES), len(TITLES), f"{model.entry.name}: scored")
    return scores


def kept_score(model: Files, file: Path, record: Path) -> Score:
    """A file's score: read back if it was measured before on the same images, else measured and stored."""
    images = model.entry.images
    identity = artifacts.fingerprint(file.read_bytes(), model.task.fingerprint(), images)
    if record.is_file():
        stored = artifacts.load(_Scored, record)
        if stored.fingerprint == identity:
            return stored.score
    score = score_model(file, model.task, model.entry.recipe.threads, images)
    artifacts.save(_Scored(identity, score), record)
    return score


def time_files(
    model: Files, threads: Sequence[int], rounds: int, on_progress: OnProgress
) -> dict[str, dict[str, Latency]]:
    """Row -> threads -> time of one image: all files in turn, first with one number of threads, then the next."""
    found: dict[str, dict[str, Latency]] = {name: {} for name in model.files}
    for number in threads:
        timed = measure_latency(
            model.files,
            model.task.input_shape,
            threads=number,
            rounds=rounds,
            baseline=DEPLOYED,
            on_progress=lambda done, of, _, n=number: on_progress(
                done, of, f"{model.entry.name}: timing, {n} thread{'s' if n > 1 else ''}"
            ),
        )
        for name, latency in timed.items():
            found[name][str(number)] = latency
    return found


def as_rows(model: Files, scores: Mapping[str, Score], times: Mapping[str, Mapping[str, Latency]]) -> tuple[Row, ...]:
    """Every row of the table, measured or missing."""
    rows = []
    for name in TITLES:
        if name in model.missing:
            rows.append(Row(name, missing=model.missing[name]))
        else:
            file = model.files[name]
            rows.append(Row(name, str(file), file.stat().st_size, scores[name], dict(times[name])))
    return tuple(rows)


def model_bench(model: Files, rows: tuple[Row, ...]) -> ModelBench:
    """A model's part of the result."""
    entry, step = model.entry, model.entry.step()
    return ModelBench(
        name=entry.name,
        recipe=entry.recipe.name,
        input_shape=tuple(model.task.input_shape),
        calibration=step.calibration,
        images=entry.images,
        trained=(PRUNED, *([OURS] if entry.int8 else [])),
        rows=rows,
    )
