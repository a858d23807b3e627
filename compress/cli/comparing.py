"""The command that puts two runs side by side: compare."""

from pathlib import Path
from typing import Annotated

import typer

from compress import artifacts
from compress.artifacts import Report
from compress.cli.running import GATE_MISSED
from compress.errors import CompressError


def compare(
    before: Annotated[Path, typer.Argument(help="folder of a run, or its report.json.", metavar="BEFORE")],
    after: Annotated[Path, typer.Argument(help="the same of the run to compare with it.", metavar="AFTER")],
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="how far a figure may move: a difference of a metric (0.01 is a point), a share of any other.",
            metavar="SHARE",
        ),
    ] = 0.01,
    fail_on_regression: Annotated[
        bool,
        typer.Option(
            "--fail-on-regression", help="exit with 1 if a metric or a gate got worse by more than the tolerance."
        ),
    ] = False,
) -> None:
    """Put the last files of two runs side by side: metric per set, gates, size, MACs and latency; regressions first.

    A metric that fell by more than the tolerance is a regression, as is a gate that is missed now, or missed by more
    than before, and what is not there any more. Size, MACs and latency that grew are shown as worse; set gates on them
    if they must not. What makes the runs hard to compare (another machine, other images) is said.

    \b
    Examples:
      compress compare runs/main runs/branch
      compress compare runs/main runs/branch --fail-on-regression --tolerance 0.005
    """
    from compress.report import regressions
    from compress.report.terminal import print_table, wide_console

    reports = [_load(path) for path in (before, after)]
    changes = regressions.compare_runs(reports[0], reports[1], tolerance)
    print_table(regressions.change_table(changes, _names(before, after)), wide_console())
    for note in regressions.notes(reports[0], reports[1]):
        typer.echo(f"Note: {note}")
    found = regressions.regressions(changes)
    if found:
        typer.echo(f"Regressions: {', '.join(found)}.", err=True)
        if fail_on_regression:
            raise typer.Exit(GATE_MISSED)


def _load(path: Path) -> Report:
    """The report of a run.

    Raises:
        CompressError: there is none.
    """
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise CompressError(f"{file}: no such file. Give the folder of a finished run, or its report.json.")
    return artifacts.load(Report, file)


def _names(before: Path, after: Path) -> tuple[str, str]:
    """Short names that differ."""
    one, other = (path.parent if path.is_file() else path for path in (before, after))
    return (one.name, other.name) if one.name != other.name else (str(one), str(other))
