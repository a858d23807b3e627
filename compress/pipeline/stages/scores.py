"""Every file of a run on every set of images: the validation data, by which things were chosen, and the test sets.

A score is kept in the folder `scores`, with a fingerprint of the file's content and the set, so that a run that goes
on after a stop scores nothing twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from compress import artifacts
from compress.artifacts import VAL, Figure, Interval, Score, Scored, SetResult
from compress.data.labels import ListRules
from compress.data.overlap import check_overlap
from compress.errors import ArtifactError, DataError
from compress.graph import deployed_files
from compress.measure.intervals import bootstrap, interval
from compress.measure.machine import machine_info
from compress.pipeline.evaluation import examine_model
from compress.pipeline.state import Run
from compress.pipeline.tasks import held_out_task
from compress.recipe import Recipe
from compress.tasks.base import Examination, Listed, Task

FOLDER = "scores"
TALLIES = 2
"""Version of what tasks tell of single images; kept ones of another would not go together with new ones."""
WORST = "worst_set."
"""Begins the name of a gate of a single figure on the test sets."""


@runtime_checkable
class Figured(Protocol):
    """What a task offers beside `Task` if not all data give all its figures, so that a gate of none is found early."""

    def figures(self) -> tuple[str, ...]:
        """Figures that `Examination.tallies` has on the validation data, the metric first."""


def open_test_set(recipe: Recipe, name: str) -> Task:
    """The task that scores on one of the recipe's test sets.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return held_out_task(recipe, recipe.data.test[name])
    except DataError as error:
        raise DataError(f"data.test.{name}: {error}") from error


def check_test_sets(recipe: Recipe, task: Task) -> None:
    """Read every test set once, so that one that cannot be read is known before hours of training.

    They are read again when they are scored: meanwhile their memory is free for training.

    Raises:
        DataError: one cannot be read, or shares images with the lists of `task`, or none has the figure of a gate.
    """
    found: list[str] = []
    telling = bool(recipe.data.test)
    for name in recipe.data.test:
        test = open_test_set(recipe, name)
        shared_with_test_set(recipe, task, name, test)
        if isinstance(test, Figured):
            found += test.figures()
        else:
            telling = False
    if telling:
        check_figures(recipe.gates.as_dict(), found)


def check_figures(gates: Iterable[str], found: Iterable[str]) -> None:
    """Refuse gates of single figures that no test set has.

    Raises:
        DataError: there is one.
    """
    known = tuple(dict.fromkeys(found))
    for gate in gates:
        figure = gate.removeprefix(WORST)
        if gate.startswith(WORST) and figure not in known:
            raise DataError(
                f"gates.{gate}: no test set has this figure, of {', '.join(known)}: `alnum`, say, is of texts with "
                "letters or digits alone. Remove the gate, or add such a set to data.test."
            )


def shared_with_test_set(recipe: Recipe, task: Task, name: str, test: Task) -> tuple[str, ...]:
    """One line for each list of `task` that shares images with a test set, where the recipe allows it.

    Raises:
        DataError: one does, and the recipe does not allow it.
    """
    if not isinstance(task, Listed) or not isinstance(test, Listed):
        return ()
    rules = ListRules(allow_overlap=recipe.data.allow_overlap)
    judging = {f"data.test.{name}": test.stored_images()[VAL]}
    lists = task.stored_images()
    return tuple(line for known in lists for line in check_overlap({known: lists[known], **judging}, rules))


def score_set(
    run: Run, task: Task, name: str, files: Mapping[str, Path], judged: Sequence[str] = ()
) -> tuple[SetResult, dict[str, Examination]]:
    """Score each file on one set.

    Args:
        run: holds the folder, threads and progress.
        task: that scores on the set.
        name: of the set.
        files: stage -> file; the first is what others are compared with.
        judged: stages whose judgements of single images are wanted, which are not kept.

    Returns:
        What to report, and each file's examination; only those of `judged` have cases.
    """
    examined: dict[str, Examination] = {}
    for done, (stage, file) in enumerate(files.items(), 1):
        if run.on_progress:
            run.on_progress(done - 1, len(files), f"{_where(name)}scoring {stage}")
        examined[stage] = _score_file(run, task, name, stage, file, stage in judged)
        score = examined[stage].score
        if run.on_progress:
            run.on_progress(done, len(files), f"{_where(name)}{stage}: {score.name} {score.metric:.4f}")
    return compare_files(name, task.fingerprint(), examined), examined


def _where(name: str) -> str:
    return "" if name == VAL else f"{name}: "


def _score_file(run: Run, task: Task, name: str, stage: str, file: Path, judge: bool) -> Examination:
    """Score a file, or take what is kept of it."""
    kept = run.recipe.out / FOLDER / f"{name}.{stage.replace(' ', '_')}.json"
    runtime = machine_info().versions.get("onnxruntime", "")
    content = (one.read_bytes() for one in deployed_files(file))
    identity = artifacts.fingerprint_each([*content, task.fingerprint(), run.threads, runtime, TALLIES])
    if not judge and (found := _load_scored(kept)) is not None and found.fingerprint == identity:
        return Examination(found.score, (), {figure: np.array(rows) for figure, rows in found.tallies.items()})
    examination = examine_model(file, task, run.threads)
    tallies = {figure: tuple(map(tuple, rows.tolist())) for figure, rows in examination.tallies.items()}
    artifacts.save(Scored(identity, examination.score, tallies), kept)
    return examination


def _load_scored(path: Path) -> Scored | None:
    """What is kept there; what cannot be read is computed anew and written over."""
    try:
        return artifacts.load(Scored, path) if path.is_file() else None
    except ArtifactError:
        return None


def compare_files(name: str, fingerprint: str, examined: Mapping[str, Examination]) -> SetResult:
    """Every file's figures on one set, and how they differ from the first file's."""
    first = next(iter(examined.values()))
    names = (first.score.name, *(figure for figure in first.tallies if figure != first.score.name))
    columns = {figure: _compare_figure(figure, examined) for figure in names}
    stages = {stage: {figure: column[stage] for figure, column in columns.items()} for stage in examined}
    return SetResult(name, first.score.count, fingerprint, stages, first.score.name, first.score.skipped)


def _compare_figure(figure: str, examined: Mapping[str, Examination]) -> dict[str, Figure]:
    """One figure of every file; intervals where every file has tallies of it."""
    values = {stage: figure_value(one.score, figure) for stage, one in examined.items()}
    first = next(iter(values))
    drops = {stage: values[first] - value for stage, value in values.items()}
    tallies = [one.tallies[figure] for one in examined.values() if figure in one.tallies]
    if len(tallies) < len(values) or not tallies[0].size:
        return {stage: Figure(value, drops[stage]) for stage, value in values.items()}
    resampled = dict(zip(values, bootstrap(np.stack(tallies)).T, strict=True))
    return {
        stage: Figure(
            value,
            drops[stage],
            Interval(*interval(resampled[stage])),
            Interval(*interval(resampled[first] - resampled[stage])) if stage != first else None,
        )
        for stage, value in values.items()
    }


def figure_value(score: Score, figure: str) -> float:
    """A figure of a score: its metric, or one of its details."""
    return score.metric if figure == score.name else score.details[figure]
