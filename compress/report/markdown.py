"""A report as Markdown."""

from compress.artifacts import Report, Sensitivity
from compress.report import tables
from compress.report.tables import Table


def render_markdown(report: Report, sensitivity: Sensitivity | None = None) -> str:
    """The whole report, with where and how it was measured first."""
    parts = [
        f"# {_escape(report.title)}",
        _facts(report),
        _table(tables.stage_table(report)),
        _legend(report),
        _table(tables.gate_table(report)),
        _table(tables.detail_table(report)),
        _table(tables.plan_table(report)),
        _table(tables.sensitivity_table(sensitivity)) if sensitivity else "",
        _notes(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(report: Report) -> str:
    """How and where the figures came to be."""
    return (
        f"- command: `{report.command}`\n- date: {report.date}\n"
        f"- machine: {_escape(tables.machine_line(report.machine))}\n"
        f"- fingerprint of model, data and settings: `{report.fingerprint}`"
    )


def _legend(report: Report) -> str:
    """What the columns mean, with the conditions they were measured under."""
    if not report.stages:
        return ""
    last = report.stages[-1]
    shape = "x".join(map(str, last.cost.input_shape))
    lines = [
        f"MACs: multiply-adds of one {shape} image. KB: 1000 bytes. In brackets: share of the first stage. "
        f"drop: loss of {last.score.name} against the first stage, on {last.score.count} images."
    ]
    if last.latency:
        lines.append(
            f"ms: median [10th-90th percentile] of one image over {last.latency.runs} runs, {last.latency.threads} "
            "thread(s), the files in turn; speed: the first stage's median over this one's."
        )
    if any(stage.parity for stage in report.stages):
        lines.append(
            "parity: exported file against the network it came from, onnxruntime's optimisation off / on. Steps: "
            "largest difference of any integer tensor, each recomputed from the file's own inputs to it, in steps of "
            "its scale (1 is a tie rounded the other way). Outputs: mean absolute difference end to end."
        )
    return "\n".join(lines)


def _notes(report: Report) -> str:
    notes = tables.notes(report)
    return "## Notes\n\n" + "\n".join(f"- {_escape(note)}" for note in notes) if notes else ""


def _table(table: Table) -> str:
    if not table.rows:
        return ""
    lines = [table.header, tuple("---" if index == 0 else "---:" for index in range(len(table.header))), *table.rows]
    rows = "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)
    return f"## {_escape(table.title)}\n\n{rows}"


def _escape(text: str) -> str:
    """Keep text from ending a cell or starting markup.

    >>> _escape("a|b_c")
    'a\\\\|b_c'
    """
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
