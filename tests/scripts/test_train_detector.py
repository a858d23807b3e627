"""`scripts/train_detector.py`: trains, can be stopped and started, and writes a model that runs at any size."""

import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from compress.artifacts import Score
from compress.graph import load_model
from compress.measure.session import Session
from compress.zoo.detector import build_detector
from tests.scripts.running import run_script

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module; it imports another one from its own folder."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location("train_detector", ROOT / "scripts" / "train_detector.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "train_detector.py")]
    options = ["--out", str(folder / "model.onnx"), "--work", str(folder), "--threads", "1"]
    sizes = ["--scenes", "8", "--val-scenes", "2", "--epochs", "1", "1", "--batch-size", "4"]
    return subprocess.run([*command, *options, *sizes, *arguments], capture_output=True, text=True, cwd=ROOT)


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
    result = run_script("train_detector", "--help")
    assert result.returncode == 0, result.stderr
    assert "python scripts/train_detector.py --out runs/detector.onnx" in result.stdout
    assert "--val-scenes" in result.stdout


def test_channels_that_cannot_be_divided_are_one_line(tmp_path):
    options = ("--out", str(tmp_path / "model.onnx"), "--work", str(tmp_path), "--inner-channels", "30")
    result = run_script("train_detector", *options)
    assert result.returncode != 0
    assert result.stderr.strip() == "Error: inner_channels: got 30. Must be a positive multiple of 4."


def test_moving_a_probability_moves_its_logit(script):
    """Logits -1, 0, 2 become 3 * (logit + 1): 0, 3, 9."""
    probability = np.array([1 / (1 + math.exp(-logit)) for logit in (-1.0, 0.0, 2.0)], np.float32)
    found = script.moved(probability, 3.0, 1.0)
    np.testing.assert_allclose(found, [1 / (1 + math.exp(-logit)) for logit in (0.0, 3.0, 9.0)], rtol=1e-5)
    np.testing.assert_allclose(script.moved(probability, 1.0, 0.0), probability, rtol=1e-6)


class Flat:
    """A task whose metric is highest where the map's middle is .9."""

    metric_name = "nearness"

    def evaluate(self, predict, limit):
        score = float(predict(np.zeros((1, 3, 64, 64), np.float32)).mean())
        return Score(name="nearness", metric=1 - abs(score - 0.9), count=1, details={})


def test_sharpening_changes_the_network_by_what_scored_best(script):
    """A network that says .5 everywhere: of logits g * (0 + s), 2.25 (gain 1.5, shift 1.5) is nearest to .9's 2.197."""
    model = build_detector(scale=0.35, inner_channels=16).eval()
    torch.nn.init.zeros_(model.probability[-2].weight)
    script.sharpen(model, Flat(), lambda *call: None)
    with torch.no_grad():
        found = model(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(found, torch.full_like(found, 1 / (1 + math.exp(-2.25))))
