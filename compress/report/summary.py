"""A run in a few lines of Markdown, for the page that a CI system shows of a job."""

from compress.artifacts import Report
from compress.report import tables
from compress.report.markdown import escape, list_lines, table_text


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


def verdict(report: Report) -> str:
    """Whether the run did what was required of it."""
    missed = [gate.name for gate in report.gates if not gate.passed]
    if missed:
        return f"{len(missed)} of {len(report.gates)} gates missed ({', '.join(missed)})"
    return f"{len(report.gates)} of {len(report.gates)} gates met" if report.gates else "done, no gates"


def render_error(title: str, error: str) -> str:
    """A run that came to no report."""
    return f"## {escape(title)}: failed\n\n{list_lines(error.splitlines())}\n\n"
