"""Tables of a run's report that pages may show."""

from compress import artifacts
from compress.artifacts import Figure, Report, SetResult, StageResult
from compress.pipeline.stages.measure import PEER
from compress.report import formats, tables


def report_tables(report: Report, title: str) -> dict[str, tuple[tuple[str, ...], ...]]:
    """The tables of a report that pages may show."""
    made = {
        "sets": tables.set_table(report),
        "stages": tables.stage_table(report),
        "details": tables.detail_table(report),
        "gates": tables.gate_table(report),
    }
    found = {name: (table.header, *table.rows) for name, table in made.items() if table.rows}
    return {**found, "summary": summary(report, title)}


def summary(report: Report, title: str) -> tuple[tuple[str, ...], ...]:
    """A run from the deployed file to the last: a row for each test set, the largest drop first, then validation."""
    by_name = {stage.stage: stage for stage in report.stages}
    first, last = report.stages[0], report.stages[-1]
    header = ("model", "images", "deployed -> int8, drop in points [95 %]", "KB", "MACs", "speed", "speed to ORT int8")
    figures = (
        f"{first.cost.size_bytes / 1000:.0f} -> {last.cost.size_bytes / 1000:.0f}",
        formats.ratio(last.cost.macs, first.cost.macs),
        _speed(first, last),
        _speed(by_name[PEER], last) if PEER in by_name else formats.NONE,
    )
    sets = (*tables.test_sets(report), *(one for one in report.sets if one.name == artifacts.VAL))
    if not sets:
        metric = f"{first.score.name} {first.score.metric:.4f} -> {last.score.metric:.4f}"
        return header, (title, artifacts.VAL, metric, *figures)
    rows = ((title, _kind_of(one), _figures_of(one, first.stage, last.stage), *figures) for one in sets)
    return header, *rows


def _kind_of(one: SetResult) -> str:
    kind = "validation" if one.name == artifacts.VAL else "test"
    return f"{one.images} {'' if one.name == artifacts.VAL else one.name}".strip() + f" ({kind})"


def _figures_of(one: SetResult, first: str, last: str) -> str:
    """Every figure of a set that has a drop with an interval, or its metric alone."""
    found = one.stages[last]
    names = [name for name, figure in found.items() if figure.drop_interval is not None or name == one.metric]
    before = one.stages[first]
    return "; ".join(
        f"{name} {before[name].value:.4f} -> {found[name].value:.4f}, {_points(found[name])}"
        for name in sorted(names, key=lambda name: name != one.metric)
    )


def _points(figure: Figure) -> str:
    """A drop in points with its interval; a gain is negative."""
    found = figure.drop_interval
    ends = "" if found is None else f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * figure.drop:+.1f}{ends}"


def _speed(before: StageResult, after: StageResult) -> str:
    if before.latency is None or after.latency is None:
        return formats.NONE
    return f"{before.latency.median_ms / after.latency.median_ms:.1f}x"
