"""A report as one HTML page that needs nothing but the pictures beside it: its folder can be copied as a whole."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from compress.artifacts import Gallery, Report, Sensitivity
from compress.report import tables
from compress.report.heat import SHADES, heat_legend, heat_rows
from compress.report.pictures import COLOURS
from compress.report.plots import sensitivity_svg
from compress.report.tables import Table
from compress.tasks.base import MarkKind

MEANINGS: dict[MarkKind, str] = {
    "label": "label, found",
    "missed": "label, missed",
    "found": "model, right",
    "wrong": "model, wrong",
    "ignored": "not counted",
}
"""What the lines on a picture mean."""


def render_html(report: Report, sensitivity: Sensitivity | None = None) -> str:
    """The whole report; every text in it is escaped, the plot is drawn inside the file."""
    return _template("report.html.j2").render(
        report=report,
        machine=tables.machine_line(report.machine),
        facts=[
            line for line in (tables.postprocessing_line(report.postprocessing), tables.scored_line(report)) if line
        ],
        headlines=tables.headlines(report),
        sets=tables.set_table(report),
        set_lines=tables.set_lines(report),
        tables=_filled(tables.stage_table(report), tables.gate_table(report)),
        more_tables=_filled(
            tables.detail_table(report),
            tables.plan_table(report),
            tables.candidate_table(report),
            tables.placement_table(report),
        ),
        curves=tables.sensitivity_table(sensitivity) if sensitivity else None,
        heat=heat_rows(sensitivity) if sensitivity else (),
        shades=SHADES,
        heat_legend=heat_legend(sensitivity) if sensitivity else "",
        picture=sensitivity_svg(sensitivity) if sensitivity else "",
        notes=tables.notes(report),
        **_gallery_values(report.gallery),
    )


def render_gallery(title: str, gallery: Gallery) -> str:
    """A page of the worst cases alone."""
    return _template("pictures.html.j2").render(title=title, **_gallery_values(gallery))


def _gallery_values(gallery: Gallery | None) -> dict[str, Any]:
    """What gallery.html.j2 needs."""
    return {
        "gallery": gallery,
        "gallery_title": tables.gallery_title(gallery) if gallery else "",
        "lines": tables.gallery_lines(gallery) if gallery else (),
        "text": tables.reading,
        "legend": [(meaning, COLOURS[kind]) for kind, meaning in MEANINGS.items()],
    }


def _filled(*given: Table) -> Sequence[Table]:
    return [table for table in given if table.rows]


@cache
def _template(name: str) -> Template:
    folder = Path(__file__).parent
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined).get_template(name)
