"""`scripts/train_detector.py`: trains, can be stopped and started, and writes a model that runs at any size."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compress.graph import load_model
from compress.measure.runtime import Session

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "train_detector.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    sizes = ["--scenes", "8", "--val-scenes", "2", "--epochs", "1", "1", "--batch-size", "4", "--threads", "1"]
    return run("--out", str(folder / "model.onnx"), "--work", str(folder), *sizes, *arguments)


@pytest.mark.slow
def test_started_again_it_goes_on_and_ends_with_the_same_file(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole).returncode == 0
    assert train(parts).returncode == 0
    (parts / "2-full.pt").unlink()  # as if killed after the first stage
    again = train(parts)
    assert again.returncode == 0, again.stderr
    assert "hmean" in again.stdout
    assert (whole / "model.onnx").read_bytes() == (parts / "model.onnx").read_bytes()
    probability = Session(whole / "model.onnx").run(np.zeros((2, 3, 64, 96), np.float32))
    assert probability.shape == (2, 1, 64, 96)
    assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.slow
def test_inner_channels_and_squeeze_excite_are_options_and_checkpoints_of_another_network_are_refused(tmp_path):
    assert train(tmp_path, "--inner-channels", "32", "--se").returncode == 0
    model = load_model(tmp_path / "model.onnx")
    assert sum(node.op_type == "GlobalAveragePool" for node in model.graph.node) == 8
    other = train(tmp_path, "--inner-channels", "32")
    assert other.returncode != 0
    assert other.stderr.splitlines()[-1].startswith("Error: ")


def test_help_has_examples():
    result = run("--help")
    assert result.returncode == 0, result.stderr
    assert "python scripts/train_detector.py --out runs/detector.onnx" in result.stdout
    assert "--val-scenes" in result.stdout


def test_channels_that_cannot_be_divided_are_one_line(tmp_path):
    result = run("--out", str(tmp_path / "model.onnx"), "--work", str(tmp_path), "--inner-channels", "30")
    assert result.returncode != 0
    assert result.stderr.strip() == "Error: inner_channels: got 30. Must be a positive multiple of 4."
