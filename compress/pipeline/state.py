"""What a run knows while it goes on, what a stage is, and what it leaves behind when it is finished."""

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx
import torch

from compress import artifacts
from compress.artifacts import Parity, Placement, Quantized, QuantSensitivity
from compress.compute.device import CPU
from compress.compute.memory import peak_memory_bytes
from compress.compute.processes import Team
from compress.errors import ArtifactError
from compress.graph import read_model
from compress.pipeline.code import begin, stage_code, task_modules
from compress.pipeline.execution import Execution
from compress.pipeline.stage_progress import TimeLeft, staged, stages_done
from compress.pipeline.tasks import LABELS
from compress.progress import Note, Progress
from compress.recipe import Recipe
from compress.tasks.base import Task

LABELLED = f"{LABELS}/labels.json"
"""What the stage that labels images leaves."""
BEGUN, CHECKPOINT = ".code.json", ".checkpoint"
"""What a stage leaves until its record is there: the code that it was begun by, and the training so far."""

EXPORTS = ("original.onnx", "baseline.onnx")
"""Of a PyTorch module, as `compress shrink` and `compress run` write it before anything is computed."""
SETTINGS = "settings.json"
"""With which settings each stage was computed (see `compress.pipeline.stage_settings`)."""

ORDER = ("teacher", "sensitivity", "replace", "prune", "reconstruct", "finetune", "quantize")
"""The steps of a recipe as they are run."""
FILES = {
    "teacher": "teacher",
    "replace": "replaced",
    "prune": "pruned",
    "reconstruct": "reconstructed",
    "finetune": "finetuned",
    "quantize": "int8",
}
"""Step -> what its file is called."""


@dataclass(frozen=True)
class Record:
    """What a finished stage left: the identity of its input and of its file, and what cannot be measured again."""

    fingerprint: str
    content: str
    seconds: float
    parity: Parity | None = None
    notes: tuple[str, ...] = ()
    placement: Placement | None = None
    sensitivity: QuantSensitivity | None = None
    beside: dict[str, str] = dataclasses.field(default_factory=dict)
    """Further files of the stage by name -> the identity of their content."""
    code: dict[str, str] = dataclasses.field(default_factory=dict)
    """What computed it (see `compress.pipeline.code`); nothing in records of earlier versions."""
    images_per_second: float = 0.0
    """While it was trained; 0 where it was not, or an earlier version did."""
    peak_memory_bytes: int = 0
    version: int = artifacts.VERSION


class Made(Protocol):
    """What computing a stage's file tells of it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """For people: what was done, and what did not work."""


class Stage(ABC):
    """One file of a run: `identity` says what it depends on, `compute` makes it, and the run records it."""

    name: str
    """Of the file, without .onnx, and of its record."""
    beside: tuple[str, ...] = ()
    """Further files that are made with it, and belong to it."""
    takes_over: tuple[str, ...] = ()
    """What else of it, beside a checkpoint, is taken over when it goes on."""

    @abstractmethod
    def identity(self) -> str:
        """Fingerprint of everything that the file depends on, except code."""

    @abstractmethod
    def compute(self, file: Path) -> Made | None:
        """Write the file, and those beside it."""


class Job(Protocol):
    """What the first process of a run asks the others to take their share of."""

    def join(self, run: "Run", task: Task) -> None:
        """Take this process's share; `task` is as it was before images were labelled for training."""


@dataclass
class Run:
    """One run of a recipe: what stays the same from stage to stage."""

    recipe: Recipe
    task: Task
    original: onnx.ModelProto
    teacher: onnx.ModelProto
    """What training distils from: the original, or the same fine-tuned."""
    threads: int
    on_progress: Progress | None
    on_note: Note | None = None
    device: torch.device = CPU
    """What trains, reconstructs and calibrates."""
    team: Team | None = None
    """The processes that share the run."""
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    speeds: dict[str, float] = dataclasses.field(default_factory=dict)
    """Stage -> images per second that it was trained at."""
    given: Recipe | None = None
    """The recipe as the user gave it, where `recipe` is on label lists that the run made itself."""
    notes: tuple[str, ...] = ()
    """What to say of the data beside the task's own warnings."""

    def execution(self, file: Path | None = None) -> Execution:
        """How a stage is run that makes this file; one that trains has its checkpoint beside it. Notes of stages
        are in their records."""
        return Execution(
            seed=self.recipe.seed,
            threads=self.threads,
            device=self.device,
            checkpoint=file.with_suffix(CHECKPOINT) if file else None,
            team=self.team,
            on_progress=self.on_progress,
            on_speed=(lambda speed: self.speeds.update({file.stem: speed})) if file else None,
        )

    def stage(self, stage: Stage) -> onnx.ModelProto:
        """Compute a stage's files, or take them as they are if the same things made them.

        Raises:
            ArtifactError: they were made of other things, or changed since.
        """
        name, identity = stage.name, stage.identity()
        file, record_file = self.recipe.out / f"{name}.onnx", self.recipe.out / f"{name}.json"
        checkpoint, begun = (self.recipe.out / f"{name}{end}" for end in (CHECKPOINT, BEGUN))
        others = [self.recipe.out / other for other in stage.beside]
        if all(path.exists() for path in (record_file, file, *others)):
            record = artifacts.load(Record, record_file)
            later = _later_records(self.recipe.out, name)
            artifacts.check_fresh(record_file, record.fingerprint, identity, later)
            artifacts.check_fresh(file, _content(file), record.content, later)
            for other in others:
                _check_beside(other, file, record, record_file)
        else:
            started = time.monotonic()
            so_far = (checkpoint, *(self.recipe.out / other for other in stage.takes_over))
            if not any(path.exists() for path in so_far):
                begun.unlink(missing_ok=True)  # nothing that it says something of is left
            code = begin(begun, stage_code(name, task_modules(self.task)))
            made = stage.compute(file)
            seconds = round(time.monotonic() - started, 1)
            contents = {other.name: _content(other) for other in others}
            notes = made.notes if made else ()
            record = Record(
                identity,
                _content(file),
                seconds,
                notes=notes,
                beside=contents,
                code=code,
                images_per_second=round(self.speeds.get(name, 0.0), 1),
                peak_memory_bytes=peak_memory_bytes(),
            )
            if isinstance(made, Quantized):
                record = dataclasses.replace(
                    record, parity=made.parity, placement=made.placement, sensitivity=made.sensitivity
                )
            artifacts.save(record, record_file)
        for leftover in (checkpoint, begun):  # now that the record vouches for the file
            leftover.unlink(missing_ok=True)
        self.records[name] = record
        return read_model(file)


def _later_records(folder: Path, name: str) -> list[Path]:
    """What a stage's result went into, of what a run's folder holds; a teacher's into training alone."""
    names = [FILES[step] for step in ORDER if step in FILES]
    behind = names[names.index("finetuned" if name == "teacher" else name) + (name != "teacher") :]
    files = [folder / f"{later}.json" for later in behind]
    return [file for file in files if file.exists()]


def _check_beside(other: Path, file: Path, record: Record, record_file: Path) -> None:
    """Refuse a file that is not the one that the stage's model was made with.

    Raises:
        ArtifactError: it was changed, or the record does not say.
    """
    if other.name not in record.beside:
        raise ArtifactError(
            f"{record_file}: an earlier version wrote it, and does not say which {other.name} it goes with. "
            f"Delete {record_file.name} and {other.name}: they and {file.name} are made again."
        )
    if _content(other) != record.beside[other.name]:
        raise ArtifactError(
            f"{other}: changed since {file.name} was made by it, and would not be followed. Undo that, or delete it to "
            f"make both again. `compress prune MODEL --plan {other} --out FILE` prunes by an edited plan."
        )


def _content(file: Path) -> str:
    return artifacts.fingerprint(file.read_bytes())


def holds_results(folder: Path) -> bool:
    """Whether anything was computed in a run's folder that takes long: not labels, made crops, exports, settings."""
    found = (file for end in (".json", ".onnx", CHECKPOINT) for file in folder.glob(f"*{end}"))
    return any(file.name not in (*EXPORTS, SETTINGS) for file in found)


def stage_marks(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The stages of a run in order, and of each the files in its folder any of which says that it is done.

    A scan leaves no record: what says so is that the next stage was begun. A scan alone, and the report, have none.
    """
    names = [*(["label"] if recipe.data.images else ()), *sorted((step.name for step in recipe.steps), key=ORDER.index)]
    marks: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        if name == "label":
            marks[name] = (LABELLED,)
        elif name in FILES:
            marks[name] = (f"{FILES[name]}.json",)
        else:
            marks[name] = tuple(f"{FILES[later]}{end}" for later in names[number + 1 :] for end in (".json", BEGUN))
    return {**marks, "report": ()}


def finished_stages(recipe: Recipe) -> int:
    """How many stages of a run are finished, by the files that they leave (see `stage_marks`)."""
    return stages_done(recipe.out, [*stage_marks(recipe).values()][:-1])


def with_stages(on_progress: Progress, recipe: Recipe, expected: Mapping[str, float | None] | None = None) -> Progress:
    """Progress that also says which stage of how many it is of, known by the files that stages leave.

    With the seconds that each stage is `expected` to take, None where they are unknown, also the time left of the run.
    """
    marks = stage_marks(recipe)
    if [*marks][-2:-1] == ["sensitivity"]:  # a scan alone leaves nothing that says that it is done
        return on_progress
    left = TimeLeft([expected.get(name) for name in marks]) if expected else None
    return staged(on_progress, [*marks], lambda _: finished_stages(recipe), left)
