"""Results as tables in the terminal."""

import os

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from compress.artifacts import Gallery, Report, Sensitivity
from compress.data.labels import name_some
from compress.report import formats, tables
from compress.report.heat import heat_text
from compress.report.inspection import Inspection
from compress.report.tables import Table

PLAIN_WIDTH = 120
"""Columns of output that is not a terminal's."""


def print_report(report: Report, console: Console) -> None:
    """Print a run: test sets, stages, gates, notes; the plan and details stand in report.md."""
    console.print(Text(f"{report.title}, {report.date}", style="bold"))
    console.print(Text(formats.machine_line(report.machine)))
    if scoring := formats.postprocessing_line(report.postprocessing):
        console.print(Text(scoring))
    if tables.test_sets(report):
        print_table(tables.set_table(report, metrics_alone=True), console, caption=" ".join(tables.set_lines(report)))
    for line in tables.headlines(report):
        console.print(Text(line))
    threads = {stage.latency.threads for stage in report.stages if stage.latency}
    print_table(tables.without(tables.stage_table(report), "parity", "file"), console, caption=_thread_note(threads))
    if skipped := tables.scored_line(report):
        console.print(Text(skipped))
    for stage in report.stages:
        if stage.parity:
            console.print(Text(f"{stage.stage} file against its network: {formats.parity(stage.parity)}"))
    if report.gallery:
        console.print(Text(" ".join(tables.gallery_lines(report.gallery))))
    print_table(tables.gate_table(report), console)
    for note in tables.notes(report):
        console.print(Text(f"Note: {note}"))


def print_gallery(gallery: Gallery, console: Console) -> None:
    """Print the worst cases as text."""
    print_table(tables.gallery_table(gallery), console)
    for line in tables.gallery_lines(gallery):
        console.print(Text(line))


def print_inspection(inspection: Inspection, console: Console) -> None:
    """Print what a model holds, what it costs and what of it can be pruned."""
    for name, values in (("inputs", inspection.inputs), ("outputs", inspection.outputs)):
        console.print(Text(f"{name}: {', '.join(values)}"))
    for note in inspection.notes:
        console.print(Text(f"Note: {note}"))
    cost = inspection.cost
    if cost is None:
        console.print(
            Text(f"cost: {formats.kilobytes(inspection.size_bytes)} KB; MACs not known: {inspection.cost_problem}")
        )
    else:
        shape = "x".join(map(str, cost.input_shape))
        console.print(
            Text(
                f"cost: {formats.count(cost.params)} params, {formats.count(cost.macs)} MACs at {shape}, "
                f"{formats.kilobytes(cost.size_bytes)} KB"
            )
        )
    ops = ", ".join(f"{name} {number}" for name, number in sorted(inspection.ops.items(), key=lambda op: (-op[1], op)))
    console.print(Text(f"operators: {ops}"))
    if cost is not None and cost.uncounted:
        console.print(Text(f"not counted in MACs: {', '.join(cost.uncounted)}"))
    for reason in sorted(set(inspection.untrained.values())):
        names = [name for name, why in inspection.untrained.items() if why == reason]
        console.print(Text(f"constants that are not trained ({reason}): {name_some(names)}"))
    if inspection.obstacles:
        for obstacle in inspection.obstacles:
            console.print(Text(f"importable: no - {obstacle}"))
    else:
        console.print(Text("importable: yes"))
    rows = tuple((g.name, str(g.channels), f"{g.macs_share:.1%}", g.protected or "") for g in inspection.groups)
    why = "not pruned because"
    print_table(Table("Channel groups", ("group", "channels", "share of MACs", why), rows, words=(why,)), console)


def print_table(table: Table, console: Console, caption: str | None = None) -> None:
    """Print one table; an empty one not at all. Cells are text: brackets in layer names stay as they are."""
    if not table.rows:
        return
    shown = RichTable(title=table.title, caption=caption, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, name in enumerate(table.header):
        is_figure = index > 0 and name not in table.words
        shown.add_column(Text(name), justify="right" if is_figure else "left", overflow="fold")
    for row in table.rows:
        style = "red" if table.title == "Gates" and row[-1] == "NO" else None
        shown.add_row(*(Text(cell) for cell in row), style=style)
    console.print(shown)


def print_heat(sensitivity: Sensitivity, console: Console) -> None:
    """Print a scan at a glance, a line for each group."""
    if sensitivity.curves:
        console.print(Text(heat_text(sensitivity)), soft_wrap=True)


def wide_console() -> Console:
    """The terminal; where output goes to a file, as wide as COLUMNS says, else wide enough for the tables."""
    console = Console()
    if console.is_terminal:
        return console
    columns = os.environ.get("COLUMNS", "")
    return Console(width=int(columns) if columns.isdecimal() and int(columns) else PLAIN_WIDTH)


def _thread_note(threads: set[int]) -> str | None:
    if not threads:
        return None
    return f"ms: median [10th-90th percentile] of one image, {'/'.join(map(str, sorted(threads)))} thread(s)"
