"""Record a run as published, or show that a change of code moved nothing in it."""

import argparse
import dataclasses
import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from figures.git_history import commit_reader, git, module_source, recipe_at
from figures.published import NAMED, ROOT, STAGE_OF, Published, changes_since, code_of, named_settings
from figures.run_tables import report_tables

from compress import artifacts
from compress.artifacts import Report, Sensitivity
from compress.errors import CompressError
from compress.measure.machine import machine_info
from compress.pipeline.code import differing, recipe_settings, stage_code
from compress.pipeline.state import Record
from compress.recipe import load_recipe
from compress.report import formats


def record_run(folder: Path, title: str, root: Path = ROOT) -> Published:
    """A finished run as it is published.

    Raises:
        CompressError: it was made by other code than this, by other settings, or the code is not committed.
    """
    report = artifacts.load(Report, folder / "report.json")
    recipe_file, changes = parse_command(report.command)
    recipe = load_recipe(root / recipe_file, changes, check_files=False)
    if report.settings != artifacts.fingerprint(recipe_settings(recipe)):
        raise CompressError(f"{folder}: made with other settings than {recipe_file} has now. Run it again.")
    for step in recipe.steps:
        check_stage(folder, STAGE_OF[step.name], recipe.task.kind)
    code = code_of(recipe)
    check_committed([recipe_file], code, root)
    return Published(
        title=title or recipe.name,
        command=report.command,
        recipes=(recipe_file,),
        changes=changes,
        commit=git(root, "rev-parse", "--short", "HEAD"),
        date=report.date,
        machine=formats.machine_line(report.machine),
        settings=named_settings(recipe, 1),
        code=code,
        tables=report_tables(report, title or recipe.name),
    )


def record_command(
    command: str, recipes: Sequence[str], title: str, date: str, at: str = "", root: Path = ROOT
) -> Published:
    """Figures that a command made of recipes, at this commit or an earlier one.

    Raises:
        CompressError: the code is not committed, or there is no such commit.
    """
    read = None if not at else commit_reader(at, root)
    code: dict[str, str] = {}
    settings: dict[str, str] = {}
    for name in recipes:
        recipe = load_recipe(root / name, check_files=False) if read is None else recipe_at(read, name, root)
        code |= code_of(recipe, None if read is None else functools.partial(module_source, read))
        settings |= named_settings(recipe, len(recipes))
    if not at:
        check_committed(recipes, code, root)
    commit = git(root, "rev-parse", "--short", at or "HEAD")
    machine = "" if at else formats.machine_line(machine_info())
    return Published(title, command, tuple(recipes), (), commit, date, machine, settings, dict(sorted(code.items())))


def check_stage(folder: Path, stage: str, kind: str) -> None:
    """Raise CompressError where a stage of a run was computed by other code than there is now."""
    found = _code_of_stage(folder, stage)
    now = stage_code(stage, (f"compress.tasks.{kind}",))
    if found != now:
        changed = differing(found, now) or tuple(sorted(found.keys() ^ now.keys()))
        raise CompressError(
            f"{folder}: {stage} was computed by other code than there is now ({', '.join(changed[:NAMED])}). "
            "Run the recipe again with another --out."
        )


def verify_run(run: Published, before: Sequence[Path], after: Sequence[Path], root: Path = ROOT) -> Published:
    """A published run whose figures stand, although code has changed: two short runs of each of its recipes show that
    nothing they met did.

    Args:
        run: as it was recorded.
        before: a short run of each recipe, made by the code that made its figures.
        after: the same runs, in the same order, made by the code as it is now.
        root: the repository.

    Raises:
        CompressError: the runs are of other code or of other recipes, or any file or score differs.
    """
    if any(change.startswith("recipe's") for change in changes_since(run, root)):
        raise CompressError(f"{', '.join(run.recipes)}: settings have changed since. Run it again.")
    made = [_same_results(run, one, other, root) for one, other in zip(before, after, strict=True)]
    if sorted(recipe for recipe, _, _ in made) != sorted(run.recipes):
        raise CompressError(f"--before and --after: need one run each of {', '.join(run.recipes)}.")
    code = dict(sorted({name: hashed for _, _, one in made for name, hashed in one.items()}.items()))
    check_committed(run.recipes, code, root)
    commit = git(root, "rev-parse", "--short", "HEAD")
    return dataclasses.replace(
        run, code=code, verified=commit, verified_by="; ".join(command for _, command, _ in made)
    )


def _same_results(run: Published, before: Path, after: Path, root: Path) -> tuple[str, str, dict[str, str]]:
    """A recipe's file, the command of its short run, and the code that it depends on; where both runs are the same."""
    earlier, now = (artifacts.load(Report, folder / "report.json") for folder in (before, after))
    recipe_file, changes = parse_command(now.command)
    if recipe_file not in run.recipes or not _same_run(earlier, now):
        raise CompressError(
            f"{before}, {after}: not the same run of {' or '.join(run.recipes)}. Use the same recipe and --set."
        )
    recipe = load_recipe(root / recipe_file, changes, check_files=False)
    for step in recipe.steps:
        stage = STAGE_OF[step.name]
        check_stage(after, stage, recipe.task.kind)
        _check_made_by(before, stage, run.code)
        if _made(before, stage) != _made(after, stage):
            raise CompressError(f"{stage}: {before} and {after} differ. The change moves figures: run it again.")
    if [one.stages for one in earlier.sets] != [one.stages for one in now.sets]:
        raise CompressError(f"{before} and {after} score differently. The change moves figures: run the recipe again.")
    return recipe_file, now.command, code_of(recipe)


def _same_run(earlier: Report, now: Report) -> bool:
    """Whether two reports are of one recipe with the same settings. Between versions keys may have come, so that the
    settings as a whole differ: then the same command tells, and what the recipe holds is compared on its own."""
    if earlier.settings == now.settings:
        return True
    return parse_command(earlier.command) == parse_command(now.command)


def _check_made_by(folder: Path, stage: str, code: Mapping[str, str]) -> None:
    """Raise CompressError where a stage was computed by other code than this."""
    found = _code_of_stage(folder, stage)
    other = differing(found, code) if found else (stage,)
    if other:
        raise CompressError(f"{folder}: {stage} was not computed by the code that made the figures ({other[0]}).")


def _code_of_stage(folder: Path, stage: str) -> dict[str, str]:
    if stage == "sensitivity":
        return artifacts.load(Sensitivity, folder / "sensitivity.json").code
    return artifacts.load(Record, folder / f"{stage}.json").code


def _made(folder: Path, stage: str) -> object:
    """What a stage computed: every cell of a scan, or the content of a file."""
    if stage == "sensitivity":
        return artifacts.load(Sensitivity, folder / "sensitivity.json").curves
    return artifacts.load(Record, folder / f"{stage}.json").content


def check_committed(recipes: Sequence[str], code: Mapping[str, str], root: Path) -> None:
    """Raise CompressError where a file that figures depend on differs from the last commit."""
    files = [*recipes]
    for name in code:
        path = Path(*name.split("."))
        is_module = (root / path.with_suffix(".py")).is_file()
        files.append(str(path.with_suffix(".py") if is_module else path / "__init__.py"))
    dirty = git(root, "status", "--porcelain", "--", *files)
    if dirty:
        raise CompressError(f"not committed: {', '.join(dirty.split()[1::2])}. Commit first; figures name a commit.")


def parse_command(command: str) -> tuple[str, tuple[str, ...]]:
    """The recipe's file and the changes of a `compress run`.

    >>> parse_command("compress run recipes/a.yaml --set threads=1 --out b")
    ('recipes/a.yaml', ('threads=1',))
    """
    parser = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_argument("recipe")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out")
    words = shlex.split(command)
    if words[1:2] != ["run"]:
        raise CompressError(f"{command}: not a `compress run`. Name a run's folder.")
    options, _ = parser.parse_known_args(words[2:])
    return options.recipe, tuple(options.set)
