"""The stage that replaces activations: all of them, or those whose replacement costs little by a scan."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from compress import artifacts
from compress.artifacts import ActivationScan, Replaced, Score, fingerprint
from compress.errors import CompressError, PlanError
from compress.graph import save_model
from compress.graph.activations import activations_of, replace_activations
from compress.pipeline.evaluation import score_model
from compress.pipeline.models import model_identity
from compress.pipeline.scanning.scan_cost import announce_cost, at_side, side_of
from compress.pipeline.state import Run, Stage
from compress.progress import Note, Progress
from compress.prune.activation_scan import choose_activations, scan_activations
from compress.recipe import ReplaceStep
from compress.tasks.base import Task

SCAN_FILE = "activations.json"
TITLES = {"hardswish": ("hard-swish", "hard-swishes"), "relu": ("ReLU", "ReLUs")}
"""In words: one, and several."""


def run_replace(
    model: onnx.ModelProto,
    task: Task | None,
    out_file: Path,
    step: ReplaceStep,
    *,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_note: Note | None = None,
) -> Replaced:
    """Replace the activations that the step names, or those of them that its `metric_drop` allows.

    For that each is measured alone; activations.json beside the file holds every finished cell, and a stopped scan
    goes on from it.

    Args:
        model: in canonical form.
        task: what to measure with; needed with `step.metric_drop`.
        out_file: the .onnx file to write.
        step: what to replace, and by which rule.
        threads: for scoring; default every core.
        on_progress: called as (cells done, cells, message).
        on_note: receives what the scan will cost.

    Raises:
        PlanError: a pattern matches no such activation, the model has none, or `metric_drop` allows none.
        ArtifactError: activations.json is of another model, data or settings.
        OutputError: another process is writing it, or the file.
        CompressError: `metric_drop` without a task, or `side` with one that has none.
    """
    names = find_activations(model, step.swap[0], step.layers)
    chosen, scan = names, None
    with artifacts.lock(out_file):
        if step.metric_drop is not None:
            if task is None:
                raise CompressError("replace.metric_drop: needs data to measure the metric on. Give validation data.")
            path = out_file.with_name(SCAN_FILE)
            with artifacts.lock(path):
                scan = _run_scan(model, task, path, step, names, threads, on_progress, on_note)
            chosen = choose_activations(scan, names, step.metric_drop)
        save_model(replace_activations(model, chosen, *step.swap), out_file)
    return Replaced(chosen, _notes(model, step, names, chosen, scan))


@dataclass(frozen=True)
class Replacement(Stage):
    """The stage of a run: `model` with activations replaced as `step` says."""

    run: Run
    task: Task
    model: onnx.ModelProto
    step: ReplaceStep

    name = "replaced"
    takes_over = (SCAN_FILE,)

    def identity(self) -> str:
        measured = self.task.fingerprint() if self.step.metric_drop is not None else ""  # else no image is looked at
        return fingerprint(model_identity(self.model), self.step.model_dump(), measured)

    def compute(self, file: Path) -> Replaced:
        run = self.run
        return run_replace(
            self.model,
            self.task,
            file,
            self.step,
            threads=run.threads,
            on_progress=run.on_progress,
            on_note=run.on_note,
        )


def find_activations(model: onnx.ModelProto, kind: str, patterns: Sequence[str]) -> tuple[str, ...]:
    """The activations of that kind that patterns name, in the order they are computed; `*` matches any text.

    Raises:
        PlanError: a pattern matches none, or the model has none at all.
    """
    one, several = TITLES[kind]
    names = activations_of(model, kind)
    if not names:
        raise PlanError(f"replace.{kind}: the model has no {one}. Do without `replace`.")
    found: set[str] = set()
    for pattern in patterns:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise PlanError(
                f"replace.layers: {pattern!r} matches no {one}. The model's {several}: {', '.join(names[:3])}{more}."
            )
        found.update(matches)
    return tuple(name for name in names if name in found)


def _run_scan(
    model: onnx.ModelProto,
    task: Task,
    path: Path,
    step: ReplaceStep,
    names: Sequence[str],
    threads: int | None,
    on_progress: Progress | None,
    on_note: Note | None,
) -> ActivationScan:
    """The scan, from activations.json as far as that goes."""
    task = at_side(task, step.side, step.name)
    identity = fingerprint(model_identity(model), task.fingerprint(), *step.swap, step.images)
    previous = artifacts.load(ActivationScan, path) if path.exists() else None
    if previous is not None:
        artifacts.check_fresh(path, previous.fingerprint, identity)

    def score(replaced: tuple[str, ...]) -> Score:
        return score_model(replace_activations(model, replaced, *step.swap), task, threads, step.images)

    cells = sum(previous is None or name not in previous.metric for name in names)
    return scan_activations(
        names,
        step.swap,
        evaluate=announce_cost(score, cells, side_of(task), on_note, resumed=previous is not None),
        fingerprint=identity,
        metric_name=task.metric_name,
        previous=previous,
        on_cell=lambda scan: artifacts.save(scan, path),
        on_progress=on_progress,
    )


def _notes(
    model: onnx.ModelProto,
    step: ReplaceStep,
    names: Sequence[str],
    chosen: Sequence[str],
    scan: ActivationScan | None,
) -> tuple[str, ...]:
    """What was replaced; and, where each was measured, what the others would have cost."""
    one, several = TITLES[step.swap[0]]
    all_names = activations_of(model, step.swap[0])
    listed = "" if len(chosen) == len(all_names) else f": {', '.join(chosen)}"
    notes = [
        f"replaced {len(chosen)} of {len(all_names)} {one if len(all_names) == 1 else several} by "
        f"{TITLES[step.swap[1]][0]}{listed}"
    ]
    left = [name for name in names if name not in chosen]
    if scan is not None and left:
        drops = ", ".join(f"{name} {scan.drop(name):+.4f}" for name in left)
        notes.append(
            f"not replaced, as it alone would drop {scan.metric_name} by more than {step.metric_drop}: {drops}"
        )
    return tuple(notes)
