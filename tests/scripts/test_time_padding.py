"""`scripts/time_padding.py`: it times the convolutions that it names."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from compress.measure.micro_model import random_feeds
from compress.measure.operator_times import operator_model
from compress.measure.session import Session
from tests.scripts.running import run_script

SCRIPT = Path(__file__).parents[2] / "scripts" / "time_padding.py"
spec = importlib.util.spec_from_file_location("time_padding", SCRIPT)
assert spec is not None
assert spec.loader is not None
time_padding = importlib.util.module_from_spec(spec)
sys.modules["time_padding"] = time_padding
spec.loader.exec_module(time_padding)


@pytest.mark.parametrize("convolution", time_padding.CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_each_is_timed_at_its_own_size_and_padded(convolution, precision: str) -> None:  # type: ignore[no-untyped-def]
    for form in (convolution, convolution.padded()):
        model = operator_model(form.operator(precision))
        (image,) = random_feeds(model).values()
        assert image.shape == (1, form.inputs, *form.size)
        assert Session(model).run(image).shape == (1, form.outputs, *form.size)
        weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if len(tensor.dims) == 4]
        assert [array.shape[:2] for array in weights] == [(form.outputs, 1 if form.depthwise else form.inputs)]
        assert weights[0].dtype == (np.int8 if precision == "int8" else np.float32)
    assert form.inputs % 16 == form.outputs % 16 == 0


def test_a_row_for_each() -> None:
    shown = run_script("time_padding", "--rounds", "1").stdout.splitlines()
    assert "onnxruntime" in shown[0]
    assert len([line for line in shown if line.startswith("| ")]) == 1 + len(time_padding.CONVOLUTIONS)
    assert any("| 128 |" in line for line in shown)
