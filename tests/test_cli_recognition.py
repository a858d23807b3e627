"""Bad input of recognition, from the command line to the end: one clear line, or counted, named, and gone on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from compress import artifacts
from compress.artifacts import Report
from compress.cli import app
from compress.graph import from_torch, save_model
from tests.quant import nets

SHAPE = (3, 16, 64)
STEPS = 16
GOOD = ["ab", "ba", "a b", "aab", "b", "abab", "ba b", "a", "bb", "abba"]


class Reader(nn.Module):
    """Too small to read anything: probabilities [N, T, 4] of blank, a, b and space, T a quarter of the width."""

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, (16, 4), (1, 4)), nn.Conv2d(8, 8, 1)
        self.rnn, self.fc, self.softmax = nn.LSTM(8, 6), nn.Linear(6, 4), softmax

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.relu(self.conv(torch.relu(self.stem(x)))).mean(2).permute(2, 0, 1)
        logits = self.fc(self.rnn(steps)[0]).permute(1, 0, 2)
        return torch.softmax(logits, 2) if self.softmax else logits


def write_list(folder: Path, texts: list[str], widths: Mapping[int, int]) -> Path:
    folder.mkdir()
    lines = []
    for index, text in enumerate(texts):
        pixels = np.random.default_rng([*folder.name.encode(), index]).integers(
            0, 255, (16, widths.get(index, 30), 3), np.uint8
        )
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        lines.append(f"{index}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


@dataclass(frozen=True)
class Inputs:
    """A folder with a model, its charset, good crops, and each kind of bad ones."""

    folder: Path

    def labels(self, name: str) -> Path:
        return self.folder / name / "labels.txt"

    def run(self, command: str, *, train: str = "taught", val: str = "good", **changes: str) -> Result:
        """The command on these crops, quickly; `changes` are options."""
        given = {"task": "recognition", "charset": str(self.folder / "charset.txt"), "input": "3,16,64", **changes}
        model = given.pop("model", "model")
        options = [word for key, value in given.items() for word in (f"--{key}", value)]
        more = {
            "evaluate": [],
            "sensitivity": ["--out", self.folder / "scan", "--ratios", "0.5"],
            "finetune": ["--train", self.labels(train), "--out", self.folder / "f.onnx", "--epochs", "1"],
            "quantize": [
                *("--train", self.labels(train), "--out", self.folder / "q.onnx"),
                *("--epochs", "0", "--optimize", "size"),
            ],
        }[command]
        arguments = [command, self.folder / f"{model}.onnx", "--data", self.labels(val), *more, *options]
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("recognition")
    for name, softmax in (("model", True), ("logits", False)):
        save_model(from_torch(nets.initialise(Reader(softmax)), torch.zeros(1, *SHAPE)), folder / f"{name}.onnx")
    (folder / "charset.txt").write_text("a\nb\n")
    (folder / "wrong.txt").write_text("a\nb\nc\nd\n")
    write_list(folder / "good", GOOD, {})
    write_list(folder / "taught", GOOD, {})
    write_list(folder / "unknown", ["bx", *GOOD[1:]], {})
    write_list(folder / "foreign", ["xb", "bx", "xay", "ab"], {})
    write_list(folder / "empty", ["ab", "", "a", "b", " ", "b"], {})
    write_list(folder / "silent", ["", ""], {})
    write_list(folder / "long", ["ab" * 12, "ba", "a", "b", "ab", "ba"], {})
    write_list(folder / "thin", ["ab", "a", "b", "ab", "ba", "bb"], {0: 1})
    return Inputs(folder)


COMMANDS = ["evaluate", "sensitivity", "finetune", "quantize"]
TRAINING = ["finetune", "quantize"]


def refused(result: Result) -> str:
    """The one line on stderr of a command that ended with 2."""
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def notes(result: Result) -> list[str]:
    """The notes of a command that went on to its end, but for the form of the LSTM."""
    assert result.exit_code == 0, result.output
    found = [line.removeprefix("Note: ") for line in result.stderr.splitlines() if line.startswith("Note: ")]
    return [line for line in found if not line.startswith("recurrent layers: ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_charset_that_does_not_match_the_logits(inputs: Inputs, command: str) -> None:
    said = refused(inputs.run(command, charset=str(inputs.folder / "wrong.txt")))
    assert said == (
        f"Error: {inputs.folder}/wrong.txt: 4 characters, a space and the blank make 6 classes, but the model's output "
        "has 4. Use the charset file that the model was trained with."
    )


@pytest.mark.parametrize("command", TRAINING)
def test_a_model_without_its_softmax(inputs: Inputs, command: str) -> None:
    seen = inputs.run(command, model="logits", epochs="1")
    assert seen.exit_code == 0, seen.output
    assert "logits.onnx: returns logits, not probabilities: taken for --outputs logits." in seen.stderr
    result = inputs.run(command, model="logits", epochs="1", outputs="probabilities")
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "softmax" in line


def test_unknown_characters_in_validation_count_as_read_wrong(inputs: Inputs) -> None:
    path = inputs.labels("unknown")
    assert notes(inputs.run("evaluate", val="unknown")) == [
        f"{path}: 1 of 10 texts hold 'x', not in the charset, counted as read wrong: 'bx'"
    ]


@pytest.mark.parametrize("command", TRAINING)
def test_unknown_characters_in_training_are_left_out(inputs: Inputs, command: str) -> None:
    path = inputs.labels("unknown")
    assert notes(inputs.run(command, train="unknown")) == [
        f"{path}: 1 of 10 texts hold 'x', not in the charset, left out of the text: 'bx'"
    ]


@pytest.mark.parametrize("command", TRAINING)
def test_training_texts_of_another_charset(inputs: Inputs, command: str) -> None:
    assert refused(inputs.run(command, train="foreign")) == (
        f"Error: {inputs.labels('foreign')}: 3 of 4 texts hold characters that the charset lacks, the first is 'xb' in "
        "line 1. At most 50% may. Check that charset and data fit."
    )


@pytest.mark.parametrize(("command", "where"), [("evaluate", "val"), ("finetune", "train"), ("quantize", "train")])
def test_empty_texts_are_skipped(inputs: Inputs, command: str, where: str) -> None:
    result = inputs.run(command, **{where: "empty", "max-skipped": "0.5"})
    assert notes(result) == [f"{inputs.labels('empty')}: 2 of 6 images skipped, without text: 1.png, 4.png"]
    if command == "evaluate":
        assert "on 4 images (2 of 6 images skipped)" in result.stdout
    line = refused(inputs.run(command, **{where: "empty"}))
    assert "2 of 6 images are without text: 1.png, 4.png. At most 1% may be." in line


@pytest.mark.parametrize(
    ("command", "where", "said"),
    [
        ("evaluate", "val", "val: no images to validate on"),
        ("finetune", "train", "train: no images to train on"),
        ("quantize", "train", "train: no images to train on"),
    ],
)
def test_nothing_but_empty_texts(inputs: Inputs, command: str, where: str, said: str) -> None:
    line = refused(inputs.run(command, **{where: "silent", "max-skipped": "1"}))
    assert line == f"Error: {said}. Name at least one label list with readable, labelled images."


@pytest.mark.parametrize("command", TRAINING)
def test_texts_longer_than_the_time_steps(inputs: Inputs, command: str) -> None:
    """Known once training has met them: a text of 24 characters has no alignment with 16 steps."""
    assert notes(inputs.run(command, train="long", epochs="1")) == [
        f"train: 1 of 6 texts are longer than the model's time steps ({STEPS}), "
        f"nothing learned from them: '{'ab' * 12}'"
    ]


@pytest.mark.parametrize(
    ("command", "where", "said"),
    [
        ("evaluate", "val", "1 of 6 images are one pixel wide: 0.png"),
        ("finetune", "train", "1 of 6 images skipped, one pixel wide: 0.png"),
        ("quantize", "train", "1 of 6 images skipped, one pixel wide: 0.png"),
    ],
)
def test_crops_one_pixel_wide(inputs: Inputs, command: str, where: str, said: str) -> None:
    result = inputs.run(command, **{where: "thin", "max-skipped": "0.5"})
    assert notes(result) == [f"{inputs.labels('thin')}: {said}"]
    if command == "evaluate":
        assert "on 6 images" in result.stdout  # they are scored


def recipe(inputs: Inputs, charset: str, train: list[str]) -> Path:
    data = {
        "version": 1,
        "model": "model.onnx",
        "task": {"kind": "recognition", "charset": charset, "input": list(SHAPE)},
        "data": {"train": [f"{name}/labels.txt" for name in train], "val": "empty/labels.txt", "max_skipped": 0.5},
        "threads": 1,
        "steps": [
            {"finetune": {"epochs": 1, "batch_size": 4}},
            {"quantize": {"epochs": 0, "calibration": 4, "optimize": "size"}},
        ],
        "compare": {"rounds": 3},
    }
    path = inputs.folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_whole_run_goes_on_and_its_report_names_everything(inputs: Inputs) -> None:
    path, out = recipe(inputs, "charset.txt", ["unknown", "long", "thin"]), inputs.folder / "out"
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    report = artifacts.load(Report, out / "report.json")
    text = (out / "report.md").read_text(encoding="utf-8")
    for said in ("left out of the text: 'bx'", "without text: 1.png, 4.png", "longer than the model's time steps (16)"):
        assert any(said in note for note in report.notes), said
        assert said in text
    assert any("one pixel wide: 0.png" in note for note in report.notes)


def test_a_run_with_the_wrong_charset_writes_nothing_and_says_one_line(inputs: Inputs) -> None:
    out = inputs.folder / "nothing"
    said = refused(CliRunner().invoke(app, ["run", str(recipe(inputs, "wrong.txt", ["good"])), "--out", str(out)]))
    assert "make 6 classes, but the model's output has 4" in said
    assert not list(out.glob("*.onnx"))
