"""A report as one HTML page that needs nothing else while its pictures fit `EMBEDDED`; the others lie beside it."""

import base64
import mimetypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from compress.artifacts import Gallery, Report, Sensitivity
from compress.report import formats, overview, tables
from compress.report.heat import SHADES, heat_legend, heat_rows
from compress.report.pictures import COLOURS
from compress.report.plots import sensitivity_svg, stages_svg
from compress.report.quant_table import report_quant_table
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


EMBEDDED = 4_000_000
"""Bytes of pictures that a report holds itself."""


def render_html(report: Report, sensitivity: Sensitivity | None = None, folder: Path | None = None) -> str:
    """The whole report; every text in it is escaped, plots are drawn inside the file.

    Args:
        report: what to show.
        sensitivity: the scan that belongs to it.
        folder: where the gallery's pictures lie; they are embedded up to `EMBEDDED` bytes. None embeds none.
    """
    cut, whole = overview.bars(report)
    return _template("report.html.j2").render(
        report=report,
        verdict=overview.verdict(report),
        cards=overview.cards(report),
        chart=stages_svg(report),
        cut=cut,
        whole=whole,
        machine=formats.machine_line(report.machine),
        facts=[
            line for line in (formats.postprocessing_line(report.postprocessing), tables.scored_line(report)) if line
        ],
        headlines=tables.headlines(report),
        sets=tables.set_table(report),
        set_lines=tables.set_lines(report),
        tables=_filled(tables.gate_table(report), tables.without(tables.stage_table(report), "parity", "file")),
        more_tables=_filled(
            tables.file_table(report),
            tables.detail_table(report),
            tables.candidate_table(report),
            tables.placement_table(report),
            report_quant_table(report),
        ),
        curves=tables.sensitivity_table(sensitivity) if sensitivity else None,
        heat=heat_rows(sensitivity) if sensitivity else (),
        shades=SHADES,
        heat_legend=heat_legend(sensitivity) if sensitivity else "",
        picture=sensitivity_svg(sensitivity) if sensitivity else "",
        notes=tables.notes(report),
        **_gallery_values(report.gallery, folder),
    )


def render_gallery(title: str, gallery: Gallery) -> str:
    """A page of the worst cases alone."""
    return _template("pictures.html.j2").render(title=title, **_gallery_values(gallery))


def _gallery_values(gallery: Gallery | None, folder: Path | None = None) -> dict[str, Any]:
    """What gallery.html.j2 needs."""
    return {
        "sources": _embedded(gallery, folder) if gallery and folder else {},
        "gallery": gallery,
        "gallery_title": tables.gallery_title(gallery) if gallery else "",
        "lines": tables.gallery_lines(gallery) if gallery else (),
        "text": formats.reading,
        "legend": [(meaning, COLOURS[kind]) for kind, meaning in MEANINGS.items()],
    }


def _embedded(gallery: Gallery, folder: Path) -> dict[str, str]:
    """Picture's file -> its content as a data URI, of the first ones up to `EMBEDDED` bytes that are there."""
    found: dict[str, str] = {}
    room = EMBEDDED
    for picture in gallery.pictures:
        for name in filter(None, (picture.file, *(reading.file for reading in picture.readings))):
            file = folder / name
            if not file.is_file() or file.stat().st_size > room:
                continue
            content = file.read_bytes()
            room -= len(content)
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            found[name] = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return found


def _filled(*given: Table) -> Sequence[Table]:
    return [table for table in given if table.rows]


@cache
def _template(name: str) -> Template:
    folder = Path(__file__).parent
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined).get_template(name)
