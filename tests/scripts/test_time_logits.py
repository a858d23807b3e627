"""`scripts/time_logits.py`: the ways that it times compute the same, by the kernels that it says."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.measure.session import Session
from tests.export import files

SCRIPT = Path(__file__).parents[2] / "scripts" / "time_logits.py"
spec = importlib.util.spec_from_file_location("time_logits", SCRIPT)
assert spec is not None
assert spec.loader is not None
time_logits = importlib.util.module_from_spec(spec)
spec.loader.exec_module(time_logits)

KERNELS = {
    "float": "MatMul",
    "int8 weights behind DequantizeLinear": "MatMulNBits",
    "int8 weights behind Cast and Mul": "MatMul",
    "integers": "MatMulIntegerToFloat",
}


@pytest.mark.parametrize("way", KERNELS)
def test_each_way_has_its_own_kernel(way: str) -> None:
    found = files.count_ops(files.optimised(time_logits.build(way, 48, 97)))
    products = {name: count for name, count in found.items() if "MatMul" in name}
    assert products == {KERNELS[way]: 1}
    assert found["Softmax"] == 1


@pytest.mark.parametrize("way", KERNELS)
def test_each_way_computes_the_same(way: str) -> None:
    """To within what rounding inputs in [-1, 1] to 256 steps can do to a sum of 48 products."""
    x = np.random.default_rng(1).uniform(-1, 1, (20, 2, 48)).astype(np.float32)
    found, expected = (Session(time_logits.build(one, 48, 97)).run(x) for one in (way, "float"))
    assert found.shape == (20, 2, 97)
    np.testing.assert_allclose(found.sum(2), 1.0, atol=1e-5)
    # Logits differ by at most 48 * 0.1 * (1 / 254) = 0.019, hence probabilities by about twice that share.
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_row_for_each_way() -> None:
    command = [sys.executable, str(SCRIPT), "--units", "8", "--classes", "5", "9", "--steps", "3", "--rounds", "3"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "onnxruntime" in shown.splitlines()[0]
    rows = [line for line in shown.splitlines() if line.startswith("| 8 |")]
    assert len(rows) == 2 * len(KERNELS)
    assert all("1.00x" in row for row in rows if "| float |" in row)
