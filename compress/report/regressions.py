"""Two runs side by side: what the last file of each is, and what got worse."""

from collections.abc import Iterator
from dataclasses import dataclass

from compress.artifacts import VAL, Gate, Report, SetResult, StageResult
from compress.report.formats import NONE, count, kilobytes
from compress.report.tables import AT_LEAST, BYTES, Table

REGRESSION, WORSE, CHANGED, BETTER, SAME = ORDER = ("regression", "worse", "changed", "better", "same")
"""What became of a figure, the worst first; a regression is what `--fail-on-regression` counts."""
METRIC_GATES = ("metric_drop", "metric_min", "worst_set")


@dataclass(frozen=True)
class Change:
    """One figure of two runs; None where a run does not have it."""

    name: str
    before: float | None
    after: float | None
    shown: tuple[str, str]
    """Both as text."""
    state: str
    """One of `ORDER`."""
    is_metric: bool = False
    """Then its change is a difference, else a share."""

    @property
    def difference(self) -> str:
        """After less before, or after over before, as text.

        >>> Change("a: hmean", 0.9, 0.8, ("", ""), WORSE, is_metric=True).difference
        '-0.1000'
        >>> Change("size", 200, 50, ("", ""), BETTER).difference, Change("size", None, 5, ("", ""), CHANGED).difference
        ('0.25x', '-')
        """
        if self.before is None or self.after is None:
            return NONE
        if self.is_metric or not self.before:
            return f"{self.after - self.before:+.4f}"
        return f"{self.after / self.before:.2f}x"


def compare_runs(before: Report, after: Report, tolerance: float) -> tuple[Change, ...]:
    """Every figure of two runs, regressions first.

    A metric on a set is a regression where it fell by more than the tolerance (a difference of the metric, 0.01 is a
    point), or is not there any more; a gate where it was met and is missed, is missed by more than before, or is not
    there any more. Size, multiply-adds and latency are worse where they grew by more than the tolerance (a share); what
    must not grow is what gates are for. What moved by less is the same.
    """
    changes = [*_metrics(before, after, tolerance), *_gates(before, after, tolerance)]
    if before.stages and after.stages:
        changes += _costs(before.stages[-1], after.stages[-1], tolerance)
    return tuple(sorted(changes, key=lambda change: ORDER.index(change.state)))


def regressions(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Names of what `--fail-on-regression` counts."""
    return tuple(change.name for change in changes if change.state == REGRESSION)


def _metrics(before: Report, after: Report, tolerance: float) -> Iterator[Change]:
    """Every figure of the last file on every set, test sets first."""
    old, new = _figures(before), _figures(after)
    for name in dict.fromkeys((*old, *new)):
        one, other = old.get(name), new.get(name)
        state = _state(one, other, tolerance, more_is_better=True, worst=REGRESSION)
        yield Change(name, one, other, (_metric(one), _metric(other)), state, is_metric=True)


def _figures(report: Report) -> dict[str, float]:
    """`set: figure` -> its value; of reports of earlier versions, which know no sets, the score."""
    if not report.stages:
        return {}
    last = report.stages[-1]
    if not report.sets:
        return {f"{VAL}: {last.score.name}": last.score.metric}
    sets = sorted(report.sets, key=lambda one: one.name == VAL)
    return {f"{one.name}: {key}": figure.value for one in sets for key, figure in one.stages[last.stage].items()}


def _gates(before: Report, after: Report, tolerance: float) -> Iterator[Change]:
    old, new = ({gate.name: gate for gate in report.gates} for report in (before, after))
    for name in dict.fromkeys((*old, *new)):
        one, other = old.get(name), new.get(name)
        yield Change(
            f"gate {name}",
            one.measured if one else None,
            other.measured if other else None,
            (_gate(one), _gate(other)),
            _gate_state(one, other, tolerance),
            is_metric=name.partition(".")[0] in METRIC_GATES,
        )


def _gate_state(before: Gate | None, after: Gate | None, tolerance: float) -> str:
    if after is None:
        return REGRESSION
    if before is None:
        return CHANGED if after.passed else REGRESSION
    if before.passed != after.passed:
        return BETTER if after.passed else REGRESSION
    kind = after.name.partition(".")[0]
    slack = tolerance if kind in METRIC_GATES else tolerance * abs(before.measured)
    worst = CHANGED if after.passed else REGRESSION  # within its limit a figure may move
    return _state(before.measured, after.measured, slack, more_is_better=kind in AT_LEAST, worst=worst)


def _costs(before: StageResult, after: StageResult, tolerance: float) -> Iterator[Change]:
    pairs = {
        "size": (before.cost.size_bytes, after.cost.size_bytes, lambda value: f"{kilobytes(int(value))} KB"),
        "MACs": (before.cost.macs, after.cost.macs, count),
        "params": (before.cost.params, after.cost.params, count),
    }
    for name, (one, other, text) in pairs.items():
        state = _state(one, other, tolerance * one, more_is_better=False)
        yield Change(name, one, other, (text(one), text(other)), state)
    if before.latency and after.latency:
        one_ms, other_ms = before.latency.median_ms, after.latency.median_ms
        state = _state(one_ms, other_ms, tolerance * one_ms, more_is_better=False)
        yield Change("latency", one_ms, other_ms, (f"{one_ms:.3f} ms", f"{other_ms:.3f} ms"), state)


def _state(before: float | None, after: float | None, slack: float, *, more_is_better: bool, worst: str = WORSE) -> str:
    """What became of a figure that may move by `slack`, whatever float arithmetic adds to that.

    >>> _state(0.9, 0.89, 0.01, more_is_better=True), _state(0.9, 0.88, 0.01, more_is_better=True)
    ('same', 'worse')
    """
    if before is None or after is None:
        return CHANGED if after is not None else worst
    gain = (after - before) if more_is_better else (before - after)
    limit = slack + 1e-9 * max(1.0, abs(before))
    if gain < -limit:
        return worst
    return BETTER if gain > limit else SAME


def change_table(changes: tuple[Change, ...], names: tuple[str, str]) -> Table:
    """Both runs, a row for each figure."""
    rows = tuple((change.name, *change.shown, change.difference, _shown_state(change)) for change in changes)
    return Table("Last files", ("figure", *names, "change", ""), rows)


def _shown_state(change: Change) -> str:
    return {REGRESSION: "REGRESSION", SAME: ""}.get(change.state, change.state)


def _metric(value: float | None) -> str:
    return NONE if value is None else f"{value:.4f}"


def _gate(gate: Gate | None) -> str:
    if gate is None:
        return NONE
    measured = f"{gate.measured:,.0f}" if gate.name in BYTES else f"{gate.measured:.4g}"
    return f"{measured} ({'met' if gate.passed else 'MISSED'})"


def notes(before: Report, after: Report) -> tuple[str, ...]:
    """What makes two runs hard to compare."""
    found = []
    if before.machine.cpu != after.machine.cpu or before.machine.flags != after.machine.flags:
        found.append(f"other machine: {before.machine.cpu}, {after.machine.cpu}: latencies do not compare")
    found += [f"{name}: other images, labels or settings" for name in _other_sets(before.sets, after.sets)]
    if before.settings and after.settings and before.settings != after.settings:
        found.append("other settings or paths in the recipe")
    if before.code and after.code and before.code != after.code:
        found.append("computed by other code")
    return tuple(found)


def _other_sets(before: tuple[SetResult, ...], after: tuple[SetResult, ...]) -> list[str]:
    prints = {one.name: one.fingerprint for one in before}
    return [one.name for one in after if prints.get(one.name, one.fingerprint) != one.fingerprint]
