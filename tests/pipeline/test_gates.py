"""Gates against figures made up for them."""

import pytest

from compress.artifacts import Cost, Latency, Score, StageResult
from compress.pipeline.stages.gates import check_gates
from compress.pipeline.stages.measure import PEER


def result(stage: str, *, metric: float = 0.9, size: int = 1000, macs: int = 100, ms: float = 2.0) -> StageResult:
    cost = Cost(params=10, macs=macs, size_bytes=size, input_shape=(3, 48, 192))
    latency = Latency(median_ms=ms, p10_ms=ms, p90_ms=ms, threads=1, runs=3)
    return StageResult(stage, f"{stage}.onnx", cost, Score(metric, "accuracy", 100), latency)


RESULTS = [
    result("baseline"),
    result("canonical", ms=1.5),
    result(PEER, metric=0.85, size=400, ms=4.0),
    result("pruned", metric=0.5, macs=60),
    result("int8", metric=0.895, size=250, macs=60, ms=1.6),
]


@pytest.mark.parametrize(
    ("name", "measured", "met", "missed"),
    [
        ("metric_drop", 0.005, 0.005, 0.0049),
        ("metric_min", 0.895, 0.895, 0.896),
        ("size_ratio", 0.25, 0.25, 0.249),
        ("size_bytes_max", 250, 250, 249),
        ("macs_ratio", 0.6, 0.6, 0.59),
        ("speedup", 1.25, 1.25, 1.26),
        ("speedup_over_onnxruntime", 2.5, 2.5, 2.51),
    ],
)
def test_a_limit_may_be_hit_exactly(name: str, measured: float, met: float, missed: float) -> None:
    """0.9 - 0.895 is a little above 0.005 in floats; the gate is met all the same."""
    (gate,) = check_gates({name: met}, RESULTS)
    assert (gate.name, gate.required, gate.passed) == (name, met, True)
    assert gate.measured == pytest.approx(measured)
    assert not check_gates({name: missed}, RESULTS)[0].passed


def test_every_gate_is_listed() -> None:
    gates = check_gates({"metric_min": 0.99, "size_ratio": 0.5, "speedup": 9.0}, RESULTS)
    assert [(gate.name, gate.passed) for gate in gates] == [
        ("metric_min", False),
        ("size_ratio", True),
        ("speedup", False),
    ]
    assert check_gates({}, RESULTS) == ()


def test_what_is_measured_beside_the_run_is_not_its_result() -> None:
    """A recipe that only scans ends with the original, not with onnxruntime's int8 of it."""
    gates = check_gates({"size_ratio": 0.5, "metric_min": 0.9}, RESULTS[:3])
    assert [(gate.measured, gate.passed) for gate in gates] == [(1.0, False), (0.9, True)]


def test_a_better_metric_is_no_drop() -> None:
    (gate,) = check_gates({"metric_drop": 0.0}, [result("baseline"), result("int8", metric=0.95)])
    assert gate.passed
    assert gate.measured == pytest.approx(-0.05)
