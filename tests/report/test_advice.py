"""What is said of an int8 file that loses much of what the float file has."""

import dataclasses

import pytest

from compress import artifacts
from compress.report.advice import int8_advice


def report(**metrics: float) -> artifacts.Report:
    machine, cost = artifacts.Machine("cpu", (), 1, "os", {}), artifacts.Cost(1, 1, {}, 1, (3, 8, 8))
    stages = tuple(
        artifacts.StageResult(name.replace("_", " "), f"{name}.onnx", cost, artifacts.Score(metric, "accuracy", 100))
        for name, metric in metrics.items()
    )
    return artifacts.Report("t", "c", "d", machine, stages, (), "f")


@pytest.mark.parametrize(
    ("metrics", "loss"),
    [
        ({"baseline": 0.99, "finetuned": 0.95, "int8": 0.9}, "0.0500"),
        ({"baseline": 0.99, "finetuned": 0.95, "int8": 0.94}, ""),
        ({"baseline": 0.99, "canonical": 0.99, "onnxruntime_int8": 0.5, "int8": 0.9}, "0.0900"),
        ({"baseline": 0.99, "pruned": 0.6}, ""),
    ],
)
def test_what_helps_is_said_where_int8_costs_much(metrics: dict[str, float], loss: str) -> None:
    said = f"Of accuracy, int8 alone costs {loss}. --float-budget 0.1 leaves the layers"
    advice = int8_advice(report(**metrics), "--float-budget 0.1")
    assert advice.startswith(said) if loss else advice == ""


def test_not_where_it_was_tried() -> None:
    tried = artifacts.QuantSensitivity("f", "accuracy", 8, 0.9, 0.5, 100, (3, 8, 8), {})
    made = dataclasses.replace(report(finetuned=0.9, int8=0.5), quant_sensitivity=tried)
    assert int8_advice(made, "--float-budget 0.1") == ""
