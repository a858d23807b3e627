"""What a run tells a CI system: JUnit XML where it is requested, and a summary where the system looks for one."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from typer import Exit

from compress import artifacts
from compress.artifacts import Report
from compress.cli.progress import say
from compress.errors import CompressError, reason

SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that GitHub Actions shows on a job's page, for Markdown to be appended to."""


@contextmanager
def told(title: str, junit: Path | None) -> Iterator[Callable[[Report], None]]:
    """Tell a CI system of the run in the block, however that ends.

    The block calls what it receives with the report. An error is told, and goes on.

    Args:
        title: of a run that comes to no report.
        junit: file to write; None writes none.

    Raises:
        CompressError: `junit` cannot be written.
    """
    if junit is not None:
        _check_file(junit)
    try:
        yield lambda report: _tell_report(report, junit)
    except BaseException as error:
        with contextlib.suppress(CompressError):  # what went wrong first is what counts
            _tell_error(title, _said(error), junit)
        raise


def _check_file(junit: Path) -> None:
    if junit.is_dir():
        raise CompressError(f"--junit: {junit} is a folder. Give the name of the .xml file to write.")
    artifacts.check_writable(junit.parent, "--junit")


def _said(error: BaseException) -> str:
    if isinstance(error, CompressError):
        return str(error)
    return reason(error) if isinstance(error, Exception) and not isinstance(error, Exit) else "interrupted"


def _tell_report(report: Report, junit: Path | None) -> None:
    from compress.report.junit import junit_xml
    from compress.report.summary import render_summary

    if junit is not None:
        artifacts.write_atomic(junit, junit_xml(report))
    _append_summary(render_summary(report))


def _tell_error(title: str, error: str, junit: Path | None) -> None:
    from compress.report.junit import error_xml
    from compress.report.summary import render_error

    if junit is not None:
        artifacts.write_atomic(junit, error_xml(title, error))
    _append_summary(render_error(title, error))


def _append_summary(text: str) -> None:
    """Append to the system's summary, if there is one; that it cannot be written is no reason to lose a run."""
    if not (file := os.environ.get(SUMMARY)):
        return
    try:
        with Path(file).open("a", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        say(f"Note: {SUMMARY}: {file}: cannot be written ({error.strerror}).")
