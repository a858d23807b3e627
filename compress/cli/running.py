"""The command that does it all: run."""

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from compress.artifacts import Report
from compress.cli import continuous
from compress.cli.options import setting
from compress.cli.preparing import Changes
from compress.cli.progress import progress, say
from compress.compute.launcher import process_number
from compress.errors import CompressError
from compress.recipe import Recipe, load_recipe

GATE_MISSED = 1
FIRST_ENDS_S = 5.0
"""Time for the first of several processes to say what went wrong, before the launcher ends all for one that did."""


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe; docs/recipes.md lists its keys.", metavar="RECIPE")],
    changes: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="folder for all results; default runs/<the recipe's name>.", metavar="FOLDER")
    ] = None,
    device: Annotated[str | None, setting(Recipe, "device")] = None,
    junit: Annotated[
        Path | None,
        typer.Option(
            help="write the run and its gates as JUnit XML, a test case for each gate and set; also when a gate is "
            "missed or the run fails.",
            metavar="FILE",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="read every image in full first, and compare it with what --verify noted of it in the output folder.",
        ),
    ] = False,
    redo: Annotated[
        str | None,
        typer.Option(
            help="compute this step again, and all that follows from it; what the output folder holds of them is "
            "deleted. label, or a step's name.",
            metavar="STEP",
        ),
    ] = None,
) -> None:
    """Do everything a recipe says, and report it. Stopped, even killed, the same command goes on where it was.

    Exit code 1 if a gate is missed; all gates are listed. Where GITHUB_STEP_SUMMARY names a file, as in GitHub
    Actions, a summary in Markdown is appended to it.

    \b
    Examples:
      compress run recipes/demo_cls.yaml --set finetune.epochs=2 --out runs/short
      compress run recipes/demo_cls.yaml --junit junit.xml
      compress run recipe.yaml --set finetune.lr=0.002 --redo finetune
      compress run recipe.yaml --verify
    """
    every = [*(changes or ()), *([f"device={device}"] if device else ())]
    if process_number():
        _join(recipe, every, out)
        return
    finish(recipe, every, out, junit, verify=verify, redo=redo)


def finish(
    recipe: Path,
    changes: list[str] | None,
    out: Path | None,
    junit: Path | None = None,
    *,
    verify: bool = False,
    redo: str | None = None,
) -> None:
    """Run a recipe to its end: the report printed, gates missed named.

    Raises:
        typer.Exit: with `GATE_MISSED`.
    """
    with continuous.told(recipe.stem, junit) as tell:
        report, given = _run(recipe, changes or [], out, verify, redo)
        tell(report)
    typer.echo(f"Report: {given.out / 'report.md'}")
    missed = [gate.name for gate in report.gates if not gate.passed]
    if missed:
        typer.echo(f"Gates missed: {', '.join(missed)}.", err=True)
        raise typer.Exit(GATE_MISSED)


def _join(recipe: Path, changes: list[str], out: Path | None) -> None:
    """Take a share of what the first process does; it prints and writes, also what went wrong, so it may end first."""
    try:
        given = load_recipe(recipe, [*changes, *([f"out={out}"] if out else ())])
        from compress.pipeline.together import join_run

        with progress("The first process holds what is done."):
            join_run(given)
    except CompressError:
        time.sleep(FIRST_ENDS_S)
        raise


def _run(recipe: Path, changes: list[str], out: Path | None, verify: bool, redo: str | None) -> tuple[Report, Recipe]:
    """Run the recipe and print the report."""
    given = load_recipe(recipe, [*changes, *([f"out={out}"] if out else ())])
    from compress import pipeline
    from compress.pipeline.preparing.readiness import find_problems
    from compress.pipeline.stage_settings import remove_results
    from compress.report.advice import int8_advice
    from compress.report.terminal import print_report, wide_console

    command = shlex.join(["compress", *sys.argv[1:]])
    if redo is not None:
        find_problems(given)  # nothing is deleted for a run that cannot start
        remove_results(given, redo)
    with progress(f"{given.out} holds what is done; the same command goes on from there.") as on_progress:
        staged = pipeline.with_stages(on_progress, given, pipeline.announce_stages(given, say))
        report = pipeline.run_recipe(given, command, staged, say, verify=verify)
    print_report(report, wide_console())
    if advice := int8_advice(report, "With int8.json deleted, --set quantize.float_budget=0.1"):
        typer.echo(advice)
    return report, given
