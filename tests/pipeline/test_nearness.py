"""How near candidates are to the float network: as a network that is calibrated alone, and in order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from compress.graph import from_torch, load_model, to_torch
from compress.graph.lowering import lower_for_int8
from compress.pipeline.stages.nearness import STARTS, Candidate, Nearness, Start, start_in_words
from compress.quant import calibrate, prepare_qat
from compress.quant.nodes import integer_nodes, output_values, value_name
from compress.recipe import PactSettings, QuantizeStep
from tests.pipeline import tiny


class Enlarged(nn.Module):
    """Features, enlarged, convolved again, to two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.first = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.second, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(torch.relu(self.stem(x))))
        x = torch.relu(self.second(nn.functional.interpolate(x, scale_factor=2.0)))
        return torch.softmax(self.fc(x.mean((2, 3))), 1)


def test_scores_are_those_of_networks_calibrated_alone(tmp_path: Path) -> None:
    """Of one in integers and one of which half is in float; and all in float is nearest."""
    task = tiny.task(tiny.write_inputs(tmp_path, crops=6))
    lowered = lower_for_int8(load_model(tmp_path / "model.onnx"))
    weight = next(tensor for tensor in lowered.graph.initializer if tensor.name == "fc.weight")  # surer: it shows
    weight.CopyFrom(numpy_helper.from_array(20 * numpy_helper.to_array(weight), weight.name))
    module, outputs = to_torch(lowered), output_values(to_torch(lowered))
    names = [value_name(node) for node in module.graph.nodes if node in integer_nodes(module, ())]
    values = {"int8": outputs, "half": outputs | set(names[::2]), "float": outputs | set(names)}
    step, said = QuantizeStep(calibration=12, batch_size=4, optimize="accuracy"), []
    nearness = Nearness(task, step, lambda _: (), 1, lambda done, total, message: said.append(message))
    candidates = [Candidate(name, lowered, chosen) for name, chosen in values.items()]
    start = nearness.start(lowered)
    assert said[-1] == f"ranges at percentile 99.5: nearness {start.scores['percentile 99.5']:.4f}"
    found = nearness.scores(candidates, start.percentile)
    assert said[-1] == f"float: nearness {found['float']:.4f}"
    batches = list(task.calibration_batches(12, 4))

    def alone(name: str, percentile: float | None) -> float:
        network = prepare_qat(
            module, float_values=values[name], weight_bits=7, asymmetric_hard_swish=True, two_sided=True
        )
        calibrate(network, batches, percentile=percentile)
        near, same = [], []
        for batch in task.calibration_batches(256, 32):
            with torch.no_grad():
                first, second = (one(torch.from_numpy(batch)).numpy() for one in (network, module))
            near.append(np.exp(-task.divergence(first, second)))
            same.append(first.argmax(1) == second.argmax(1))
        return float(np.concatenate(near).mean() * np.concatenate(same).mean())

    for name in values:
        assert found[name] == pytest.approx(alone(name, start.percentile), rel=1e-4)
    assert found["int8"] == min(found.values())
    assert len(set(found.values())) == 3
    assert nearness.scores(candidates[1:2], 90.0)["half"] == pytest.approx(alone("half", 90.0), rel=1e-4)
    assert list(start.scores) == [start_in_words(percentile) for percentile in STARTS]
    for percentile in STARTS:
        assert start.scores[start_in_words(percentile)] == pytest.approx(alone("int8", percentile), rel=1e-4)
    assert start.scores[start_in_words(start.percentile)] == max(start.scores.values())


def test_a_start_that_is_given_is_taken(tmp_path: Path) -> None:
    task = tiny.task(tiny.write_inputs(tmp_path, crops=2))
    step = QuantizeStep(pact=PactSettings(percentile=90))
    assert Nearness(task, step, lambda _: ()).start(load_model(tmp_path / "model.onnx")) == Start(90)


def test_a_score_that_is_no_number_is_the_worst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny.task(tiny.write_inputs(tmp_path, crops=2))
    monkeypatch.setattr(type(task), "divergence", lambda _, first, second: np.full(len(first), np.nan))
    lowered = lower_for_int8(load_model(tmp_path / "model.onnx"))
    nearness = Nearness(task, QuantizeStep(calibration=2, batch_size=2), lambda _: ())
    assert set(nearness.scores([Candidate("int8", lowered, output_values(to_torch(lowered)))], None).values()) == {0.0}


def test_tensors_that_only_some_candidates_round(tmp_path: Path) -> None:
    """In integers throughout a tensor is rounded before it is enlarged; where that runs in float, behind it."""
    network = from_torch(Enlarged().eval(), torch.zeros(1, *tiny.SHAPE))
    task = tiny.task(tiny.write_inputs(tmp_path, crops=6))
    lowered = lower_for_int8(network, resample=False)
    resize = next(node.output[0] for node in lowered.graph.node if node.op_type == "Resize")
    outputs = output_values(to_torch(lowered))
    step = QuantizeStep(calibration=12, batch_size=4, optimize="accuracy")
    both = [Candidate("int8", lowered, outputs), Candidate("enlarged in float", lowered, outputs | {resize})]
    assert all(0 < score <= 1 for score in Nearness(task, step, lambda _: ()).scores(both, None).values())
