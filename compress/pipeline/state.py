"""What a run knows while it goes on, and what it leaves behind of each finished stage."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import Parity, Placement, Quantized, Replaced
from compress.graph import read_model
from compress.pipeline.code import begin, stage_code, task_modules
from compress.pipeline.scan_cost import Note
from compress.pipeline.stages import Progress
from compress.recipe import Recipe
from compress.tasks.base import Task

BEGUN = ".code.json"
"""What a stage leaves beside its checkpoint while it is computed: the code that it was begun by."""


@dataclass(frozen=True)
class Record:
    """What a finished stage left: the identity of its input and of its file, and what cannot be measured again."""

    fingerprint: str
    content: str
    seconds: float
    parity: Parity | None = None
    notes: tuple[str, ...] = ()
    placement: Placement | None = None
    code: dict[str, str] = dataclasses.field(default_factory=dict)
    """What computed it (see `compress.pipeline.code`); nothing in records of earlier versions."""
    version: int = artifacts.VERSION


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
    records: dict[str, Record] = dataclasses.field(default_factory=dict)

    def stage(
        self, name: str, identity: str, compute: Callable[[Path], Quantized | Replaced | None]
    ) -> onnx.ModelProto:
        """Compute a stage's file, or take it as it is if it was finished before from the same things."""
        file, record_file = self.recipe.out / f"{name}.onnx", self.recipe.out / f"{name}.json"
        if record_file.exists() and file.exists():
            record = artifacts.load(Record, record_file)
            artifacts.check_fresh(record_file, record.fingerprint, identity)
            artifacts.check_fresh(file, _content(file), record.content)
        else:
            started = time.monotonic()
            code = begin(self.recipe.out / f"{name}{BEGUN}", stage_code(name, task_modules(self.task)))
            made = compute(file)
            seconds = round(time.monotonic() - started, 1)
            record = Record(identity, _content(file), seconds, notes=made.notes if made else (), code=code)
            if isinstance(made, Quantized):
                record = dataclasses.replace(record, parity=made.parity, placement=made.placement)
            artifacts.save(record, record_file)
        (self.recipe.out / f"{name}{BEGUN}").unlink(missing_ok=True)
        self.records[name] = record
        return read_model(file)


def _content(file: Path) -> str:
    return artifacts.fingerprint(file.read_bytes())
