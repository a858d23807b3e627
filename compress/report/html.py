"""A report as one HTML file that needs nothing else."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from compress.artifacts import Report, Sensitivity
from compress.report import tables
from compress.report.plots import sensitivity_svg


def render_html(report: Report, sensitivity: Sensitivity | None = None) -> str:
    """The whole report; every text in it is escaped, the picture is drawn inside the file."""
    return _template().render(
        report=report,
        machine=tables.machine_line(report.machine),
        tables=[
            table
            for table in (
                tables.stage_table(report),
                tables.gate_table(report),
                tables.detail_table(report),
                tables.plan_table(report),
            )
            if table.rows
        ],
        curves=tables.sensitivity_table(sensitivity) if sensitivity else None,
        picture=sensitivity_svg(sensitivity) if sensitivity else "",
        notes=tables.notes(report),
    )


@cache
def _template() -> Template:
    folder = Path(__file__).parent
    return Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined).get_template(
        "report.html.j2"
    )
