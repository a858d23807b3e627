"""Show the results of a run in the terminal, as Markdown and as HTML, from artefacts only; nothing is measured here."""

from pathlib import Path

from compress import artifacts
from compress.artifacts import Report, Sensitivity
from compress.report.html import render_html
from compress.report.markdown import render_markdown

__all__ = ["render_html", "render_markdown", "write_report"]


def write_report(report: Report, folder: Path, sensitivity: Sensitivity | None = None) -> tuple[Path, ...]:
    """Write report.json, report.md and report.html; return their paths.

    Raises:
        OutputError: a file cannot be written.
    """
    texts = {
        "report.json": artifacts.to_json(report),
        "report.md": render_markdown(report, sensitivity),
        "report.html": render_html(report, sensitivity),
    }
    for name, text in texts.items():
        artifacts.write_atomic(folder / name, text.encode())
    return tuple(folder / name for name in texts)
