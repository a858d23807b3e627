"""`detector_forms`: a row for each form, with figures that the layers explain."""

import re

import pytest

from tests.scripts.running import run_module


@pytest.mark.slow
def test_each_form_costs_less_than_the_one_before():
    """Squeeze-and-excite has 2 c (c // 4) weights, and c // 4 + c biases, for c channels."""
    result = run_module("benchmarks.studies.detector_forms", "--side", "64", "--rounds", "2")
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if re.match(r"\| \d", line)]
    params, macs, size = ([float(row[column].replace(",", "")) for row in rows] for column in (1, 2, 3))
    assert len(rows) == 3
    assert params[0] > params[1] > params[2]
    assert macs[0] > 3 * macs[1] > 0
    assert size[0] > size[1] > size[2]
    channels = (40, 64, 64, 240, 336, 336, 480, 480)
    assert params[1] - params[2] == sum(2 * c * (c // 4) + c // 4 + c for c in channels)


def test_help_has_examples():
    result = run_module("benchmarks.studies.detector_forms", "--help")
    assert result.returncode == 0, result.stderr
    assert "python -m benchmarks.studies.detector_forms --side 960" in result.stdout
