"""`scripts/train_classifier.py`: trains, can be stopped and started, and writes a model that runs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.scripts.running import run_script

ROOT = Path(__file__).parents[2]


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "train_classifier.py")]
    options = ["--out", str(folder / "model.onnx"), "--work", str(folder), "--crops", "40", "--val-crops", "10"]
    return subprocess.run([*command, *options, "--threads", "1", *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_started_again_it_goes_on_and_ends_with_the_same_file(tmp_path):
    from compress.measure.session import Session

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, "--epochs", "1", "1", "1", "1").returncode == 0
    assert train(parts, "--epochs", "1", "1", "1", "1").returncode == 0
    for checkpoint in ("2-small.pt", "3-full.pt", "4-more.pt"):  # as if killed after the first stage
        (parts / checkpoint).unlink()
    again = train(parts, "--epochs", "1", "1", "1", "1")
    assert again.returncode == 0, again.stderr
    assert "accuracy" in again.stdout
    assert (whole / "model.onnx").read_bytes() == (parts / "model.onnx").read_bytes()
    outputs = Session(whole / "model.onnx").run(np.zeros((2, 3, 48, 192), np.float32))
    np.testing.assert_allclose(outputs.sum(axis=1), 1, atol=1e-6)


def test_help_has_examples():
    result = run_script("train_classifier", "--help")
    assert result.returncode == 0, result.stderr
    assert "python scripts/train_classifier.py --out runs/classifier.onnx" in result.stdout
