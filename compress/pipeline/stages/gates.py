"""What a recipe requires of its result, compared with what was measured."""

from collections.abc import Sequence

from compress.artifacts import (
    VAL,
    Gate,
    SetResult,
    StageResult,
)
from compress.pipeline.stages.measure import CANONICAL, PEER
from compress.pipeline.stages.scores import WORST, check_figures

AT_LEAST = frozenset({"metric_min", "speedup", "speedup_over_onnxruntime"})
"""Gates that are lower limits; the others are upper ones."""


def check_gates(
    required: dict[str, float], results: Sequence[StageResult], sets: Sequence[SetResult] = ()
) -> tuple[Gate, ...]:
    """Compare the run's last file with what the recipe requires; every gate is listed, met or not.

    Args:
        required: gate -> limit; `metric_drop.receipts` is measured on that set, `metric_drop` on the test set where it
            is worst, or, where there are none, on the validation data.
        results: of every file, the original's first.
        sets: the metric on the validation data and the test sets.

    Raises:
        DataError: a gate is of a figure that no test set has; tasks that tell their figures are refused before.
    """
    by_name = {result.stage: result for result in results}
    first = by_name["baseline"]
    last = [result for result in results if result.stage not in (CANONICAL, PEER)][-1]
    on_sets = _metric_gates(first, last, sets)
    figures = {
        **{name: figure for name, (figure, _) in on_sets.items()},
        "size_ratio": last.cost.size_bytes / first.cost.size_bytes,
        "size_bytes_max": float(last.cost.size_bytes),
        "macs_ratio": last.cost.macs / max(1, first.cost.macs),
        "speedup": _speed(first, last),
        "speedup_over_onnxruntime": _speed(by_name[PEER], last) if PEER in by_name else 0.0,
    }
    check_figures(required, [name.removeprefix(WORST) for name in on_sets if name.startswith(WORST)])
    return tuple(
        Gate(
            name,
            value,
            figures[name],
            is_met(value, figures[name], at_least=name.partition(".")[0] in AT_LEAST),
            on_sets[name][1] if name in on_sets else "",
        )
        for name, value in required.items()
    )


def _metric_gates(first: StageResult, last: StageResult, sets: Sequence[SetResult]) -> dict[str, tuple[float, str]]:
    """Every gate that looks at a metric -> (what it measures, on which set where its name leaves that open)."""
    found = {
        "metric_drop": (first.score.metric - last.score.metric, ""),
        "metric_min": (last.score.metric, ""),
    }
    found |= {f"{gate}.{VAL}": figure for gate, figure in found.items()}
    held_out = [one for one in sets if one.name != VAL]
    tests = {one.name: one.stages[last.stage] for one in held_out}
    if not tests:
        return found
    metric = held_out[0].metric
    for name, figures in tests.items():
        found |= {
            f"metric_drop.{name}": (figures[metric].drop, ""),
            f"metric_min.{name}": (figures[metric].value, ""),
        }
    for figure in dict.fromkeys(figure for figures in tests.values() for figure in figures):
        drops = [(figures[figure].drop, name) for name, figures in tests.items() if figure in figures]
        found[f"worst_set.{figure}"] = max(drops)
    found["worst_set"] = found["metric_drop"] = found[f"worst_set.{metric}"]
    found["metric_min"] = min((figures[metric].value, name) for name, figures in tests.items())
    return found


def is_met(required: float, measured: float, *, at_least: bool) -> bool:
    """Whether a figure keeps to its limit, which it may hit exactly, whatever float arithmetic makes of that.

    >>> 0.9 - 0.895 <= 0.005, is_met(0.005, 0.9 - 0.895, at_least=False)
    (False, True)
    """
    slack = 1e-9 * max(1.0, abs(required))
    return measured >= required - slack if at_least else measured <= required + slack


def _speed(reference: StageResult, result: StageResult) -> float:
    assert reference.latency is not None
    assert result.latency is not None
    return reference.latency.median_ms / result.latency.median_ms
