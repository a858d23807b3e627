"""Where ranges start reaches what is scanned, calibrated, trained and written."""

from pathlib import Path

import pytest
import torch

from compress import artifacts
from compress.artifacts import Placement, QuantSensitivity
from compress.graph import load_model
from compress.pipeline.execution import HERE
from compress.pipeline.stages import placement
from compress.pipeline.stages.int8_scan import SENSITIVITY
from compress.pipeline.stages.nearness import Nearness, Start, start_in_words
from compress.pipeline.stages.quantize import calibrated, lower_and_place, run_quantize
from compress.quant import pacts
from compress.recipe import PactSettings, QuantizeStep
from compress.tasks.base import Task
from tests.pipeline import tiny


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setattr(placement, "ROUNDS", 3)
    return tiny.task(tiny.write_inputs(tmp_path))


def step(**settings: object) -> QuantizeStep:
    return QuantizeStep(epochs=0, batch_size=6, calibration=12, **settings)


def alphas(task: Task, folder: Path, found: QuantizeStep, name: str) -> dict[str, torch.Tensor]:
    """Of the network that starts to learn."""
    model = load_model(folder / "model.onnx")
    lowered = lower_and_place(model, task, found, folder / name)
    network = calibrated(model, lowered, task, found, HERE)
    return {quantiser: pact.alpha.detach() for quantiser, pact in pacts(network) if not pact.fixed}


def test_the_start_that_was_chosen_is_calibrated(task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SLACK", 1e9)
    monkeypatch.setattr(Nearness, "scores", lambda _, all_, __: {one.name: -len(one.float_values) for one in all_})
    monkeypatch.setattr(Nearness, "start", lambda self, _: Start(self.step.pact.percentile or 80.0, {"chosen": 1.0}))
    chosen = alphas(task, tmp_path, step(), "chosen.onnx")
    given = alphas(task, tmp_path, step(pact=PactSettings(percentile=80)), "given.onnx")
    other = alphas(task, tmp_path, step(pact=PactSettings(percentile=95)), "other.onnx")
    assert chosen == given
    assert chosen.keys() == other.keys() != set()
    assert all(chosen[name] < other[name] for name in chosen)
    assert artifacts.load(Placement, tmp_path / "chosen.placement.json").percentile == 80.0
    assert artifacts.load(Placement, tmp_path / "other.placement.json").percentile == 95.0


def test_layers_of_a_budget_are_scanned_with_the_ranges_of_the_file(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tmp_path / "model.onnx")
    start = Start(80.0, {"chosen": 1.0})
    monkeypatch.setattr(Nearness, "start", lambda self, _: Start(80.0) if self.step.pact.percentile else start)
    made = lower_and_place(model, task, step(float_budget=0.2), tmp_path / "chosen.onnx")
    assert made.placement is not None
    assert (made.percentile, made.placement.ranges) == (80.0, start.scores)
    given = step(float_budget=0.2, pact=PactSettings(percentile=80))
    assert lower_and_place(model, task, given, tmp_path / "given.onnx").sensitivity == made.sensitivity
    first, second = (
        artifacts.load(QuantSensitivity, (tmp_path / name).with_suffix(SENSITIVITY)) for name in ("chosen", "given")
    )
    assert first == second


def test_by_default_it_is_chosen_and_said(task: Task, tmp_path: Path) -> None:
    found = run_quantize(load_model(tmp_path / "model.onnx"), None, task, tmp_path / "int8.onnx", step())
    assert found.placement is not None
    assert (tmp_path / "int8.onnx").is_file()
    assert max(found.placement.ranges, key=found.placement.ranges.__getitem__) == start_in_words(
        found.placement.percentile
    )
    assert any("by where ranges start, all in integers: least squared error" in line for line in found.notes)
