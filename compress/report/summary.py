"""A run in a few lines of Markdown, for the page that a CI system shows of a job."""

from compress.artifacts import Report
from compress.report import tables
from compress.report.markdown import escape, list_lines, table_text
from compress.report.overview import verdict


def render_summary(report: Report) -> str:
    """Verdict, what became of the metric, the stages, and the gates."""
    stages = tables.without(tables.stage_table(report), "parity", "file")
    parts = [
        f"## {escape(report.title)}: {escape(verdict(report))}",
        list_lines(tables.headlines(report)),
        table_text(stages, level=3),
        table_text(tables.gate_table(report), level=3),
    ]
    return "\n\n".join(part for part in parts if part) + "\n\n"


def render_error(title: str, error: str) -> str:
    """A run that came to no report."""
    return f"## {escape(title)}: failed\n\n{list_lines(error.splitlines())}\n\n"
