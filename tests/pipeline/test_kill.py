"""A run that is killed outright, not asked to stop, goes on and ends with the same files as one that was left alone."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.data.synthetic import write_dataset
from compress.graph import from_torch, save_model
from compress.zoo.classifier import build_classifier

SHAPE = (3, 48, 64)
FILES = ("sensitivity.json", "pruned.onnx", "finetuned.onnx", "int8.onnx")
RECIPE = """
version: 1
model: model.onnx
task: {kind: classification, input: [3, 48, 64], directions: true}
data: {train: train/labels.txt, val: val/labels.txt}
threads: 1
steps:
  - sensitivity: {ratios: [0.3, 0.6]}
  - prune: {target: {macs: 0.7}, align: 4}
  - finetune: {epochs: 3, batch_size: 16}
  - quantize: {epochs: 1, batch_size: 16, calibration: 16, optimize: size}
compare: {rounds: 3}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model, a few rendered crops and a recipe."""
    torch.manual_seed(0)
    save_model(from_torch(build_classifier(), torch.zeros(1, *SHAPE)), tmp_path / "model.onnx")
    write_dataset(tmp_path / "train", 40, 1)
    write_dataset(tmp_path / "val", 20, 2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def start(folder: Path, out: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "compress", "run", str(folder / "recipe.yaml"), "--out", str(folder / out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def finish(folder: Path, out: str) -> None:
    process = start(folder, out)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


def kill_when(folder: Path, out: str, ready: Callable[[], bool]) -> None:
    """Start the run and SIGKILL it as soon as `ready`."""
    process = start(folder, out)
    deadline = time.monotonic() + 300
    while not ready():
        assert process.poll() is None, f"ended before it could be killed: {process.communicate()[1]}"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_files(folder: Path) -> None:
    finish(folder, "whole")

    killed = folder / "killed"
    scan = killed / "sensitivity.json"
    kill_when(folder, "killed", lambda: scan.exists() and scan.read_text().count('"0.3"') >= 5)
    cells = scan.read_text()
    assert not (killed / "pruned.onnx").exists()
    kill_when(folder, "killed", (killed / "finetuned.checkpoint").exists)
    assert scan.read_text() != cells
    assert not (killed / "finetuned.onnx").exists()
    finish(folder, "killed")

    for name in FILES:
        assert (killed / name).read_bytes() == (folder / "whole" / name).read_bytes(), name
    plans = [artifacts.load(PruningPlan, part / "plan.json") for part in (killed, folder / "whole")]
    # A plan says what time it predicts; a table of times on a busy machine need not be the same twice.
    one, two = (replace(plan, latency_before=None, latency_after=None, notes=()) for plan in plans)
    assert one == two
    assert not list(killed.glob("*.checkpoint"))
