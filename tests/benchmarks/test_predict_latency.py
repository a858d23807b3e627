"""`predict_latency`: predicted beside measured, and the slowest operators."""

import re
from pathlib import Path

import compress.zoo
from tests.scripts.running import run_module

MODEL = Path(compress.zoo.__file__).parent / "models" / "direction_classifier.onnx"


def test_it_says_what_is_predicted_and_what_is_measured(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(MODEL.read_bytes())
    options = ("--input", "3,48,192", "--rounds", "5", "--slowest", "2")
    shown = run_module("benchmarks.studies.predict_latency", str(model), *options).stdout
    row = re.search(r"\| float32 \| ([\d.]+) \| ([\d.]+) \[[\d.]+-[\d.]+\] \| ([\d.]+) \|", shown)
    assert row is not None, shown
    predicted, measured, ratio = map(float, row.groups())
    assert ratio > 0
    assert abs(predicted / measured - ratio) < 0.02 * ratio + 0.02
    operators = re.findall(r"^ +([\d.]+)  (\w+) 1x", shown, re.MULTILINE)
    assert len(operators) == 2
    assert float(operators[0][0]) >= float(operators[1][0])
    assert list(tmp_path.iterdir()) == [model]
