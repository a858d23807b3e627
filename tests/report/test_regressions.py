"""Two runs side by side: what counts as a regression, by hand, and what only shows."""

import dataclasses

import pytest

from compress.artifacts import VAL, Figure, Gate, Machine, Report, SetResult
from compress.report.regressions import Change, change_table, compare_runs, notes, regressions
from tests.report.test_report import make_report, make_stage


def make(gates: tuple[Gate, ...] = (), size: int = 150_000, median: float = 0.5, **metrics: float) -> Report:
    """A run whose last file has these metrics: set -> value."""
    sets = tuple(
        SetResult(name, 100, "f", {"int8": {"hmean": Figure(value, 0.0)}}, "hmean") for name, value in metrics.items()
    )
    stages = (make_stage("baseline", 600_000, 0.9, 1.0, None), make_stage("int8", size, 0.89, median, 2.0))
    return make_report(stages=stages, gates=gates, sets=sets)


def states(before: Report, after: Report, tolerance: float = 0.01) -> dict[str, str]:
    return {change.name: change.state for change in compare_runs(before, after, tolerance)}


def test_metrics_are_compared_on_each_set() -> None:
    before, after = make(val=0.9, street=0.5, lines=0.7), make(val=0.88, street=0.49, lines=0.75)
    found = compare_runs(before, after, 0.01)
    assert regressions(found) == ("val: hmean",)
    assert {change.name: change.state for change in found} == {
        **{"val: hmean": "regression", "street: hmean": "same", "lines: hmean": "better"},
        **{"size": "same", "MACs": "same", "params": "same", "latency": "same"},
    }
    assert found[0] == Change("val: hmean", 0.9, 0.88, ("0.9000", "0.8800"), "regression", is_metric=True)
    assert states(before, after, 0.02)["val: hmean"] == "same", "exactly the tolerance, whatever floats make of it"
    assert states(before, after, 0.005)["street: hmean"] == "regression"


def test_a_set_that_is_gone_is_a_regression_and_a_new_one_is_not() -> None:
    assert states(make(val=0.9, street=0.5), make(val=0.9))["street: hmean"] == "regression"
    assert states(make(val=0.9), make(val=0.9, street=0.5))["street: hmean"] == "changed"


def test_reports_of_earlier_versions_know_no_sets() -> None:
    assert states(make(), make())[f"{VAL}: accuracy"] == "same"


@pytest.mark.parametrize(
    ("before", "after", "state"),
    [
        (Gate("speedup", 1.5, 2.0, True), Gate("speedup", 1.5, 1.6, True), "changed"),
        (Gate("speedup", 1.5, 1.6, True), Gate("speedup", 1.5, 1.4, False), "regression"),
        (Gate("speedup", 1.5, 1.4, False), Gate("speedup", 1.5, 1.6, True), "better"),
        (Gate("speedup", 1.5, 1.4, False), Gate("speedup", 1.5, 1.39, False), "same"),
        (Gate("speedup", 1.5, 1.4, False), Gate("speedup", 1.5, 1.3, False), "regression"),
        (Gate("size_ratio", 0.2, 0.30, False), Gate("size_ratio", 0.2, 0.25, False), "better"),
        (Gate("metric_drop", 0.01, 0.03, False), Gate("metric_drop", 0.01, 0.05, False), "regression"),
        (Gate("metric_drop.a", 0.01, 0.03, False), Gate("metric_drop.a", 0.01, 0.035, False), "same"),
        (Gate("speedup", 1.5, 1.6, True), None, "regression"),
        (None, Gate("speedup", 1.5, 1.6, True), "changed"),
        (None, Gate("speedup", 1.5, 1.4, False), "regression"),
    ],
)
def test_gates(before: Gate | None, after: Gate | None, state: str) -> None:
    reports = [make(gates=(gate,) if gate else ()) for gate in (before, after)]
    name = (before or after).name  # type: ignore[union-attr]
    assert states(reports[0], reports[1])[f"gate {name}"] == state


def test_what_grew_is_worse_but_no_regression() -> None:
    found = compare_runs(make(), make(size=300_000, median=0.25), 0.01)
    assert regressions(found) == ()
    table = change_table(found, ("a", "b"))
    assert table.rows[0] == ("size", "150.0 KB", "300.0 KB", "2.00x", "worse")
    assert ("latency", "0.500 ms", "0.250 ms", "0.50x", "better") in table.rows
    assert table.rows[-1] == ("val: accuracy", "0.8900", "0.8900", "+0.0000", "")


def test_what_moved_within_the_tolerance_stands_with_the_same() -> None:
    table = change_table(compare_runs(make(median=1.508), make(median=1.509), 0.01), ("a", "b"))
    assert table.rows[0][0] == f"{VAL}: accuracy"
    assert table.rows[-1] == ("latency", "1.508 ms", "1.509 ms", "1.00x", "")


def test_what_makes_runs_hard_to_compare_is_said() -> None:
    before = make(val=0.9)
    assert notes(before, before) == ()
    sets = (dataclasses.replace(before.sets[0], fingerprint="g"),)
    other = dataclasses.replace(before, machine=Machine("B CPU", (), 1, "os", {}), sets=sets, settings="x", code="y")
    assert notes(dataclasses.replace(before, settings="s", code="c"), other) == (
        "other machine: A CPU, B CPU: latencies do not compare",
        "val: other images, labels or settings",
        "other settings or paths in the recipe",
        "computed by other code",
    )
