"""Latency: interleaved, with a budget, relative to a baseline."""

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from compress.errors import CompressError, ModelError
from compress.measure.latency import MIN_ROUNDS, measure_latency, time_interleaved


def relu_model() -> bytes:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, 4, 4])

    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [value("x")], [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


class FakeClock:
    """Time that passes only where the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_rounds_are_interleaved_and_times_are_milliseconds() -> None:
    clock, order = FakeClock(), []

    def call(name: str, seconds: float) -> None:
        order.append(name)
        clock.now += seconds

    calls = {"a": lambda: call("a", 0.25), "b": lambda: call("b", 0.5)}
    times = time_interleaved(calls, rounds=3, clock=clock)
    assert order == ["a", "b"] * 3
    assert times == {"a": [250.0] * 3, "b": [500.0] * 3}


def test_stops_when_the_budget_is_spent_but_not_before_three_rounds() -> None:
    clock = FakeClock()

    def call() -> None:
        clock.now += 1.0

    assert len(time_interleaved({"a": call}, rounds=100, budget_s=10.0, clock=clock)["a"]) == 10
    assert len(time_interleaved({"a": call}, rounds=100, budget_s=0.0, clock=clock)["a"]) == MIN_ROUNDS


def test_measures_each_model_against_the_baseline() -> None:
    seen: list[tuple[int, int, str]] = []
    latencies = measure_latency(
        {"first": relu_model(), "second": relu_model()},
        (3, 4, 4),
        rounds=5,
        baseline="second",
        on_progress=lambda *step: seen.append(step),
    )
    assert list(latencies) == ["first", "second"]
    assert latencies["second"].speedup == 1.0
    assert latencies["first"].speedup == latencies["second"].median_ms / latencies["first"].median_ms
    for latency in latencies.values():
        assert latency.runs == 5
        assert latency.threads == 1
        assert 0 < latency.p10_ms <= latency.median_ms <= latency.p90_ms
    assert seen[-1] == (5, 5, "latency")


def test_no_models_is_an_error() -> None:
    with pytest.raises(CompressError, match="no models given"):
        measure_latency({}, (3, 4, 4))


def test_an_unknown_baseline_is_an_error() -> None:
    with pytest.raises(CompressError, match=r"baseline 'b' is not among the models\. Use one of \['a'\]"):
        measure_latency({"a": relu_model()}, (3, 4, 4), baseline="b")


def test_no_rounds_is_an_error() -> None:
    with pytest.raises(CompressError, match="rounds and threads must be 1 or more, got 0, 1"):
        measure_latency({"a": relu_model()}, (3, 4, 4), rounds=0)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "text.onnx"
    path.write_text("hello")
    with pytest.raises(ModelError, match=r"text\.onnx"):
        measure_latency({"a": path}, (3, 4, 4))
