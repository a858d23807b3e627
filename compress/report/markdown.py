"""A report as Markdown."""

import re
from collections.abc import Sequence

from compress.artifacts import Gallery, Report, Sensitivity
from compress.report import formats, tables
from compress.report.quant_table import report_quant_table
from compress.report.tables import Table


def render_markdown(report: Report, sensitivity: Sensitivity | None = None) -> str:
    """The whole report, with where and how it was measured first."""
    parts = [
        f"# {escape(report.title)}",
        _facts(report),
        list_lines(tables.headlines(report)),
        table_text(tables.set_table(report)),
        escape(" ".join(tables.set_lines(report))),
        table_text(tables.stage_table(report)),
        _legend(report),
        table_text(tables.gate_table(report)),
        _gallery(report.gallery) if report.gallery else "",
        table_text(tables.detail_table(report)),
        table_text(tables.plan_table(report)),
        table_text(tables.candidate_table(report)),
        table_text(tables.placement_table(report)),
        table_text(report_quant_table(report)),
        table_text(tables.sensitivity_table(sensitivity)) if sensitivity else "",
        _notes(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _facts(report: Report) -> str:
    """How and where the figures came to be."""
    scoring = formats.postprocessing_line(report.postprocessing)
    return (
        f"- command: `{report.command}`\n- date: {report.date}\n"
        f"- machine: {escape(formats.machine_line(report.machine))}\n"
        f"- fingerprint of model, data and settings: `{report.fingerprint}`"
        + (f"\n- {escape(scoring)}" if scoring else "")
        + (f"\n- code of the stages: `{report.code}`" if report.code else "")
    )


def list_lines(lines: Sequence[str]) -> str:
    """Lines as a list."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def _legend(report: Report) -> str:
    """What the columns mean, with the conditions they were measured under."""
    if not report.stages:
        return ""
    last = report.stages[-1]
    shape = "x".join(map(str, last.cost.input_shape))
    lines = [
        f"MACs: multiply-adds of one {shape} image. KB: 1000 bytes. In brackets: share of the first stage. "
        f"drop: loss of {last.score.name} against the first stage, on {formats.scored(last.score)}"
        + (f" of the {tables.VALIDATION}." if tables.test_sets(report) else ".")
    ]
    if last.latency:
        lines.append(
            f"ms: median [10th-90th percentile] of one image over {last.latency.runs} runs, {last.latency.threads} "
            "thread(s), the files interleaved; speed: the first stage's median over this one's."
        )
    if any(stage.parity for stage in report.stages):
        lines.append(
            "parity: exported file against the network it came from, onnxruntime's optimisation off / on. Steps: "
            "largest difference of any integer tensor, each recomputed from the file's own inputs to it, in steps of "
            "its scale (1 is a tie rounded the other way); behind it the largest share of a tensor's values that "
            "differ, and the largest mean difference (bias). Outputs: mean absolute difference end to end."
        )
    return "\n".join(lines)


def _gallery(gallery: Gallery) -> str:
    """The worst cases: a row each, with one image, or with one under each model's reading."""
    header = ("image", "label", *gallery.models)
    rows = []
    for picture in gallery.pictures:
        name = _literal(picture.name)
        image = f"![{name}]({picture.file})<br>{name}" if picture.file else name
        readings = (
            (f"![{name}]({found.file})<br>" if found.file else "") + _literal(formats.reading(found))
            for found in picture.readings
        )
        rows.append((image, _literal(picture.label), *readings))
    lines = [header, ("---",) * len(header), *rows] if rows else []
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    parts = (f"## {escape(tables.gallery_title(gallery))}", " ".join(tables.gallery_lines(gallery)), table)
    return "\n\n".join(part for part in parts if part)


def _notes(report: Report) -> str:
    notes = tables.notes(report)
    return f"## Notes\n\n{list_lines(notes)}" if notes else ""


def table_text(table: Table, level: int = 2) -> str:
    """A table under its title, a heading of that level; an empty one not at all."""
    if not table.rows:
        return ""
    lines = [table.header, tuple("---" if index == 0 else "---:" for index in range(len(table.header))), *table.rows]
    rows = "\n".join("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)
    return f"{'#' * level} {escape(table.title)}\n\n{rows}"


def escape(text: str) -> str:
    """Keep text from ending a cell or starting markup.

    >>> escape("a|b_c")
    'a\\\\|b_c'
    """
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _literal(text: str) -> str:
    """Text with every character as it is, for readings: a misread word may well hold stars and brackets.

    >>> print(_literal("*a_b* & <i>"))
    \\*a\\_b\\* &amp; &lt;i\\>
    """
    text = text.replace("&", "&amp;")
    return re.sub(r"([\\`*_{}\[\]()#+.!|~>$-])", r"\\\1", text).replace("\n", " ").replace("<", "&lt;")
