"""What stands first in a report: the verdict, the four figures that matter, and how much of each layer is left."""

from dataclasses import dataclass

from compress.artifacts import VAL, Figure, Report, StageResult
from compress.report import formats, tables


@dataclass(frozen=True)
class Card:
    """One figure: its name, before and after, and what to know of it."""

    name: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Bar:
    """A group of channels, and how many of them the plan keeps."""

    name: str
    kept: int
    channels: int

    @property
    def share(self) -> float:
        """Of the channels that are kept, in percent."""
        return 100.0 * self.kept / self.channels


def verdict(report: Report) -> str:
    """Whether the run did what was required of it."""
    missed = [gate.name for gate in report.gates if not gate.passed]
    if missed:
        return f"{len(missed)} of {len(report.gates)} gates missed ({', '.join(missed)})"
    return f"{len(report.gates)} of {len(report.gates)} gates met" if report.gates else "done, no gates"


def cards(report: Report) -> tuple[Card, ...]:
    """Metric where the result is worst, size, multiply-adds and latency, of the first file and of the last."""
    if len(report.stages) < 2:
        return ()
    first, last = report.stages[0], report.stages[-1]
    found = [
        _metric(report, first, last),
        Card(
            "size",
            f"{formats.kilobytes(first.cost.size_bytes)} KB",
            f"{formats.kilobytes(last.cost.size_bytes)} KB",
            formats.ratio(last.cost.size_bytes, first.cost.size_bytes),
        ),
        Card(
            "multiply-adds",
            formats.count(first.cost.macs),
            formats.count(last.cost.macs),
            formats.ratio(last.cost.macs, first.cost.macs),
        ),
    ]
    if first.latency and last.latency:
        times = first.latency.median_ms, last.latency.median_ms
        note = f"{times[0] / times[1]:.2f}x as fast, {last.latency.threads} thread(s)"
        found.append(Card("latency", f"{times[0]:.2f} ms", f"{times[1]:.2f} ms", note))
    return tuple(found)


def _metric(report: Report, first: StageResult, last: StageResult) -> Card:
    """On the test set with the largest drop; without test sets on the validation data."""
    sets = tables.test_sets(report) or tuple(one for one in report.sets if one.name == VAL)
    if not sets:
        drop = Figure(last.score.metric, first.score.metric - last.score.metric)
        return _metric_card(last.score.name, first.score.metric, drop)
    worst = sets[0]
    figures = worst.stages[first.stage][worst.metric], worst.stages[last.stage][worst.metric]
    where = "validation" if worst.name == VAL else worst.name
    return _metric_card(f"{worst.metric} on {where}", figures[0].value, figures[1])


def _metric_card(name: str, before: float, after: Figure) -> Card:
    return Card(name, f"{before:.4f}", f"{after.value:.4f}", f"drop {formats.drop_with_interval(after)}")


def bars(report: Report) -> tuple[tuple[Bar, ...], tuple[str, ...]]:
    """Groups that lose channels, the one that loses the largest share first; and the names of those that lose none."""
    found = [Bar(name, int(group["kept"]), int(group["channels"])) for name, group in report.plan.items()]
    cut = sorted((bar for bar in found if bar.kept < bar.channels), key=lambda bar: bar.share)
    return tuple(cut), tuple(bar.name for bar in found if bar.kept == bar.channels)
