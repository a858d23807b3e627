"""A recogniser that nothing here was made for, exported by PyTorch itself: the whole recipe, to an int8 file.

Plain VGG-like blocks with pooling instead of MobileNetV3, `squeeze` where ours pools, one or two recurrent layers. It
learns to read a few rendered digits first, so that there is a metric to lose.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner

from compress import artifacts
from compress.artifacts import PruningPlan, Report, Sensitivity
from compress.cli import app
from compress.data.synthetic import render_crop
from compress.graph import load_model, read_model
from compress.graph.load import is_quantised
from compress.measure.session import Session
from compress.tasks.recognition import RecognitionTask
from tests.export import files

pytestmark = pytest.mark.slow

DIGITS = "01234"
SHAPE = (3, 16, 64)
UNITS = 24
STEPS = [
    {"sensitivity": {"ratios": [0.25, 0.5]}},
    {"prune": {"target": {"macs": 0.7}, "align": 4}},
    {"finetune": {"epochs": 8, "batch_size": 32, "lr": 0.004, "distill": 1.0}},
    {"quantize": {"epochs": 2, "batch_size": 32, "calibration": 64, "lr": 0.001, "optimize": "size"}},
]
GATES = {"metric_drop": 0.15, "size_ratio": 0.35, "macs_ratio": 0.7}


class Vgg(nn.Module):
    """Convolution, BatchNorm, ReLU, pooling; columns to recurrent layers; probabilities [N, T, K]."""

    def __init__(self, kind: type[nn.LSTM | nn.GRU], layers: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self.block(3, 16, (2, 2)),
            *self.block(16, 24, (2, 2)),
            *self.block(24, 32, (2, 1)),
            nn.Conv2d(32, 32, (2, 3), padding=(0, 1)),
            nn.ReLU(inplace=True),
        )
        self.rnn = kind(32, UNITS, num_layers=layers, bidirectional=True)
        self.fc = nn.Linear(2 * UNITS, len(DIGITS) + 1)

    @staticmethod
    def block(given: int, made: int, pool: tuple[int, int]) -> list[nn.Module]:
        conv = nn.Conv2d(given, made, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(made), nn.ReLU(inplace=True), nn.MaxPool2d(pool, pool)]

    def forward(self, x: Tensor) -> Tensor:
        steps = self.features(x).squeeze(2).permute(2, 0, 1)
        return self.fc(self.rnn(steps)[0]).permute(1, 0, 2).softmax(2)


def write_crops(folder: Path, count: int, seed: int) -> Path:
    """Crops of one to three digits, and their label list."""
    folder.mkdir()
    lines = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        text = "".join(rng.choice(list(DIGITS), rng.integers(1, 4)))
        cv2.imwrite(str(folder / f"{index}.png"), render_crop(text, rng, plain=True))
        lines.append(f"{index}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


def learn(network: nn.Module, task: RecognitionTask, epochs: int) -> None:
    """Plain CTC training, with nothing of this package's but the batches and the loss."""
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    network.train()
    for epoch in range(epochs):
        for batch in task.train_batches(epoch=epoch, batch_size=32, seed=0):
            optimiser.zero_grad()
            task.loss(network(batch.images), batch).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()


def export(network: nn.Module, path: Path) -> None:
    """As users do: batch and width dynamic, the rest as PyTorch has it (BatchNorm folded)."""
    axes = {"image": {0: "batch", 3: "width"}, "text": {0: "batch", 1: "steps"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on its own deprecation and on the LSTM's batch size
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, *SHAPE),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["text"],
            dynamic_axes=axes,
        )


@dataclass(frozen=True)
class Done:
    """A recipe that was run: its folder, what the command said, and the recurrent layers that the file had."""

    folder: Path
    exit_code: int
    said: str
    recurrent: tuple[str, ...]

    @property
    def report(self) -> Report:
        return artifacts.load(Report, self.folder / "out" / "report.json")

    @property
    def int8(self) -> onnx.ModelProto:
        return read_model(self.folder / "out" / "int8.onnx")


@pytest.fixture(
    scope="module", params=[pytest.param((nn.LSTM, 1), id="one-lstm"), pytest.param((nn.GRU, 2), id="two-grus")]
)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Done:
    kind, layers = request.param
    folder = tmp_path_factory.mktemp("held_out")
    train, val = write_crops(folder / "train", 256, 1), write_crops(folder / "val", 64, 2)
    (folder / "digits.txt").write_text("\n".join(DIGITS) + "\n")
    settings = {"charset": folder / "digits.txt", "use_space": False, "input_shape": SHAPE}
    torch.manual_seed(0)
    network = Vgg(kind, layers)
    learn(network, RecognitionTask([train], [val], **settings, augment=False), epochs=40)
    export(network, folder / "crnn.onnx")
    recipe = {
        "version": 1,
        "model": "crnn.onnx",
        "task": {"kind": "recognition", "charset": "digits.txt", "use_space": False, "input": list(SHAPE)},
        "data": {"train": "train/labels.txt", "val": "val/labels.txt"},
        "threads": 1,
        "steps": STEPS,
        "compare": {"rounds": 3},
        "gates": GATES,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    result = CliRunner().invoke(app, ["run", str(folder / "recipe.yaml"), "--out", str(folder / "out")])
    names = (node.op_type for node in load_model(folder / "crnn.onnx").graph.node)
    return Done(folder, result.exit_code, result.output, tuple(name for name in names if name in ("LSTM", "GRU")))


def test_it_had_something_to_lose(done: Done) -> None:
    assert done.recurrent in (("LSTM",), ("GRU", "GRU"))
    assert done.report.stages[0].score.metric >= 0.3


def test_every_gate_is_evaluated_and_met(done: Done) -> None:
    assert done.exit_code == 0, done.said
    assert {gate.name: gate.passed for gate in done.report.gates} == dict.fromkeys(GATES, True)


def test_hidden_units_are_scanned_and_pruned_like_channels(done: Done) -> None:
    scan = artifacts.load(Sensitivity, done.folder / "out" / "sensitivity.json")
    plan = artifacts.load(PruningPlan, done.folder / "out" / "plan.json")
    kind = done.recurrent[0]
    units = [name for name, curve in scan.curves.items() if any(kind in layer for layer in curve.layers[:1])]
    assert len(units) == len(done.recurrent)
    for name in units:
        assert scan.curves[name].channels == 2 * UNITS  # of both directions
        assert set(scan.curves[name].metric) == {"0.25", "0.5"}
        assert name in plan.groups
    assert sum(len(group.removed) for group in plan.groups.values()) > 0


def test_the_file_is_int8_and_agrees_with_its_network(done: Done) -> None:
    stages = {stage.stage: stage for stage in done.report.stages}
    assert set(stages) >= {"baseline", "pruned", "finetuned", "int8"}
    parity = stages["int8"].parity
    assert parity is not None
    assert max(parity.max_steps, parity.max_steps_optimised) <= 1.01
    assert is_quantised(done.int8)
    assert any(note.startswith("recurrent layers: ") for note in stages["int8"].notes)
    found = files.count_ops(files.optimised(done.int8))
    assert (found["QLinearConv"], found["MatMulIntegerToFloat"]) == (3, 1)


def test_it_is_smaller_by_more_than_pruning(done: Done) -> None:
    sizes = {stage.stage: stage.cost.size_bytes for stage in done.report.stages}
    assert sizes["int8"] == (done.folder / "out" / "int8.onnx").stat().st_size
    assert sizes["int8"] < 0.5 * sizes["finetuned"]
    assert sizes["finetuned"] < sizes["baseline"]


@pytest.mark.parametrize(("batch", "width"), [(1, 64), (3, 32), (2, 128)])
def test_it_runs_at_other_batches_and_widths(done: Done, batch: int, width: int) -> None:
    """And still reads there: as many steps as the original has, and mostly the same classes."""
    image = cv2.imread(str(done.folder / "val" / "0.png"))
    resized = cv2.resize(image, (min(width, 32), SHAPE[1])).astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
    images = np.zeros((batch, 3, SHAPE[1], width), np.float32)
    images[..., : resized.shape[2]] = resized
    found = Session(done.int8).run(images)
    expected = Session(done.folder / "crnn.onnx").run(images)
    assert found.shape == expected.shape == (batch, width // 4, len(DIGITS) + 1)
    np.testing.assert_allclose(found.sum(2), 1.0, atol=1e-5)
    assert (found.argmax(2) == expected.argmax(2)).mean() >= 0.7
    assert [value.name for value in done.int8.graph.input] == ["image"]
    assert [value.name for value in done.int8.graph.output] == ["text"]
