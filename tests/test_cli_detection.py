"""Bad input of detection, from the command line to the end: one clear line, or counted, named, and gone on."""

import json
from collections.abc import Sequence
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
from tests.data.large import claim_png
from tests.quant import nets

SHAPE = (3, 64, 64)
BOX = [[8, 8], [56, 8], [56, 24], [8, 24]]
TIE = [BOX[0], BOX[2], BOX[1], BOX[3]]
LINE = [[1, 1], [20, 20], [40, 40]]
FEW = [[1, 1], [20, 20]]
OUTSIDE = [[200, 0], [240, 0], [240, 20], [200, 20]]


class Finder(nn.Module):
    """Too small to find anything: a map [N, 1, H, W] of probabilities, or of logits."""

    def __init__(self, sigmoid: bool = True, maps: int = 1) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.up, self.sigmoid = nn.ConvTranspose2d(8, maps, 2, 2), sigmoid

    def forward(self, x: Tensor) -> Tensor:
        maps = self.up(torch.relu(self.conv(torch.relu(self.stem(x)))))
        return torch.sigmoid(maps) if self.sigmoid else maps


class Classifier(nn.Module):
    """Two probabilities for any image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.fc(torch.relu(self.stem(x)).mean((2, 3))), 1)


def label(polygons: Sequence[list]) -> str:
    return json.dumps([{"transcription": "a", "points": points} for points in polygons])


def write_list(folder: Path, labels: Sequence[str], large: Sequence[int] = ()) -> Path:
    """Images of 64 x 64 with these labels; those in `large` only claim to be, of 10,000 x 10,000."""
    folder.mkdir()
    lines = []
    for index, text in enumerate(labels):
        pixels = np.random.default_rng(index).integers(0, 255, (64, 64, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)
        if index in large:
            (folder / f"{index}.png").write_bytes(claim_png(10_000, 10_000))
        lines.append(f"{index}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


@dataclass(frozen=True)
class Inputs:
    """A folder with models and each kind of bad data."""

    folder: Path

    def labels(self, name: str) -> Path:
        return self.folder / name / "labels.txt"

    def run(self, command: str, *, train: str = "good", val: str = "good", **changes: str) -> Result:
        """The command on these scenes, quickly; `changes` are options."""
        given = {"task": "detection", "input": "3,64,64", "side": "64", **changes}
        model = given.pop("model", "model")
        more = {
            "evaluate": [],
            "sensitivity": ["--out", self.folder / "scan", "--ratios", "0.5"],
            "finetune": ["--train", self.labels(train), "--out", self.folder / "f.onnx", "--epochs", "1"],
            "quantize": [
                *("--train", self.labels(train), "--out", self.folder / "q.onnx"),
                *("--epochs", "0", "--optimize", "size"),
            ],
        }[command]
        if command in TRAINING and given.pop("overlap", "yes") == "yes":  # the images of all lists are the same
            more.append("--allow-overlap")
        options = [word for key, value in given.items() for word in (f"--{key}", value)]
        arguments = [command, self.folder / f"{model}.onnx", "--data", self.labels(val), *more, *options]
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


GOOD = [label([BOX])] * 4


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("detection")
    made = {"model": Finder(), "logits": Finder(sigmoid=False), "three": Finder(maps=3), "classifier": Classifier()}
    for name, module in made.items():
        save_model(from_torch(nets.initialise(module), torch.zeros(1, *SHAPE)), folder / f"{name}.onnx")
    write_list(folder / "good", GOOD)
    write_list(folder / "bad", [label([BOX, TIE, LINE]), label([BOX, BOX, FEW]), label([OUTSIDE, BOX]), "[]"])
    write_list(folder / "worse", [label([BOX]), label([LINE, FEW, OUTSIDE])])
    write_list(folder / "broken", [*GOOD[:2], '[{"transcription": "a", "points": [[0, 0], [1, 0], [1]]}]'])
    write_list(folder / "words", ["hello", *GOOD])
    write_list(folder / "bare", ["[]", "", "[]", "[]"])
    write_list(folder / "large", GOOD, [1])
    write_list(folder / "huge", GOOD[:2], [0, 1])
    (folder / "empty").mkdir()
    (folder / "empty" / "labels.txt").write_text("\n")
    return Inputs(folder)


COMMANDS = ["evaluate", "sensitivity", "finetune", "quantize"]
TRAINING = ["finetune", "quantize"]
WHERE = [("evaluate", "val"), ("sensitivity", "val"), ("finetune", "train"), ("quantize", "train")]


def refused(result: Result) -> str:
    """The one error on stderr of a command that ended with 2."""
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    return line


def notes(result: Result) -> list[str]:
    """The notes of a command that went on to its end, but for what a scan costs."""
    assert result.exit_code == 0, result.output
    found = [line.removeprefix("Note: ") for line in result.stderr.splitlines() if line.startswith("Note: ")]
    return [line for line in found if not line.startswith("scan") and "images are in train, too" not in line]


# --- labels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "where"), [case for case in WHERE if case[0] != "sensitivity"])
def test_bad_regions_are_counted_named_and_gone_on(inputs: Inputs, command: str, where: str) -> None:
    path = inputs.labels("bad")
    assert notes(inputs.run(command, **{where: "bad", "max-skipped": "0.5"})) == [
        f"{path}: 1 of 8 regions self-crossing, replaced by the hull of the points: in 0.png",
        f"{path}: 1 of 8 regions of zero area, left out: in 0.png",
        f"{path}: 1 of 8 regions with fewer than 3 points, left out: in 1.png",
        f"{path}: 1 of 8 regions outside the image, left out: in 2.png",
    ]


@pytest.mark.parametrize(("command", "where"), WHERE)
def test_mostly_bad_regions(inputs: Inputs, command: str, where: str) -> None:
    assert refused(inputs.run(command, **{where: "worse"})) == (
        f"Error: {inputs.labels('worse')}: 3 of 4 regions are of zero area or with fewer than 3 points or outside the "
        "image: 1.png. At most 1% may be. Check that the points are (x, y) in the image's own pixels. To "
        "allow more: data.max_skipped (--max-skipped)."
    )


@pytest.mark.parametrize(("command", "where"), WHERE)
def test_a_label_of_other_numbers(inputs: Inputs, command: str, where: str) -> None:
    said = refused(inputs.run(command, **{where: "broken"}))
    assert said.startswith(f"Error: {inputs.labels('broken')}: line 3: got ")
    assert said.endswith("""Expected [{"transcription": "text", "points": [[x, y], [x, y], [x, y], [x, y]]}, ...].""")


@pytest.mark.parametrize(("command", "where"), WHERE)
def test_a_list_of_another_task(inputs: Inputs, command: str, where: str) -> None:
    said = refused(inputs.run(command, **{where: "words"}))
    assert said.startswith(f"Error: {inputs.labels('words')}: line 1: the label is not JSON ('hello'). Expected [")


@pytest.mark.parametrize(("command", "where"), WHERE)
def test_an_empty_list(inputs: Inputs, command: str, where: str) -> None:
    said = refused(inputs.run(command, **{where: "empty"}))
    assert said == f"Error: {inputs.labels('empty')}: no lines. Expected one image a line: path<TAB>text."


@pytest.mark.parametrize("command", TRAINING)
def test_images_without_any_text_can_be_trained_and_scored_on(inputs: Inputs, command: str) -> None:
    assert notes(inputs.run(command, train="bare", val="bare")) == []


def test_the_score_of_images_without_any_text(inputs: Inputs) -> None:
    result = inputs.run("evaluate", val="bare")
    assert notes(result) == []
    assert "on 4 images" in result.stdout
    assert "regions 0" in result.stdout


# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "where"), [case for case in WHERE if case[0] != "sensitivity"])
def test_images_larger_than_memory_allows_are_skipped_and_named(inputs: Inputs, command: str, where: str) -> None:
    path = inputs.labels("large")
    said = f"{path}: 1 of 4 images skipped, larger than 80 megapixels (JPEG: 160): 1.png"
    assert notes(inputs.run(command, **{where: "large", "max-skipped": "0.25"})) == [said]
    assert "1 of 4 images is larger than 80 megapixels" in refused(inputs.run(command, **{where: "large"}))


@pytest.mark.parametrize(("command", "where"), WHERE)
def test_nothing_but_such_images(inputs: Inputs, command: str, where: str) -> None:
    assert refused(inputs.run(command, **{where: "huge"})) == (
        f"Error: {inputs.labels('huge')}: 2 of 2 images are larger than 80 megapixels (JPEG: 160): 0.png, 1.png. "
        "At most 1% may be. Make them smaller; points are in their pixels. To allow more: data.max_skipped "
        "(--max-skipped)."
    )


# --- sizes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("option", "value", "got"), [("input", "3,64,100", 100), ("side", "65", 65)])
def test_sizes_that_are_no_multiple_of_32(inputs: Inputs, command: str, option: str, value: str, got: int) -> None:
    said = refused(inputs.run(command, **{option: value}))
    assert f": got {got}. Must be multiples of 32, e.g. {got // 32 * 32}: " in said


def test_grey_input(inputs: Inputs) -> None:
    said = refused(inputs.run("evaluate", input="1,64,64"))
    assert said.startswith(
        "Error: input: got 1 channels. Must be 3: images are fed as bgr. For such a model: preprocess.color gray."
    )


def test_less_than_no_process(inputs: Inputs) -> None:
    assert "processes: got -1. Must be 0" in refused(inputs.run("evaluate", processes="-1"))


def test_boxes_in_processes(inputs: Inputs) -> None:
    plain, beside = inputs.run("evaluate"), inputs.run("evaluate", processes="1")
    assert notes(beside) == []
    assert plain.stdout == beside.stdout


# --- models -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("model", "shape"), [("classifier", "[None, 2]"), ("three", "[None, 3, ")])
def test_a_model_whose_output_is_no_map(inputs: Inputs, command: str, model: str, shape: str) -> None:
    said = refused(inputs.run(command, model=model))
    assert said.startswith(f"Error: model: output shape {shape}")
    assert said.endswith(
        "does not fit detection. Expected [N, 1, H, W]: a probability for each pixel. Check task.kind."
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_without_its_sigmoid(inputs: Inputs, command: str) -> None:
    said = refused(inputs.run(command, model="logits", outputs="probabilities"))
    assert said.startswith("Error: model: its output is not probabilities (from ")
    assert said.endswith("Expected values in [0, 1]: set task.outputs: logits, or export the model with its sigmoid.")
    seen = inputs.run(command, model="logits")
    assert seen.exit_code == 0, seen.output
    assert "logits.onnx: returns logits, not probabilities: taken for --outputs logits." in seen.stderr


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("classifier", "Error: teacher: output shape [4, 2], the model's is [4, 1, 64, 64]. Use the detector that"),
        ("logits", "Error: teacher: its output is not probabilities"),
    ],
)
def test_a_teacher_that_is_no_detector(inputs: Inputs, teacher: str, said: str) -> None:
    line = refused(inputs.run("finetune", teacher=str(inputs.folder / f"{teacher}.onnx"), **{"batch-size": "4"}))
    assert line.startswith(said)


# --- a whole run --------------------------------------------------------------------------------------------------


def recipe(folder: Path, **task: object) -> Path:
    data = {
        "version": 1,
        "model": "model.onnx",
        "task": {"kind": "detection", "input": list(SHAPE), "side": 64, **task},
        "data": {
            "train": ["bad/labels.txt", "large/labels.txt"],
            "val": "bare/labels.txt",
            "max_skipped": 0.5,
            "allow_overlap": True,
        },
        "threads": 1,
        "steps": [
            {"finetune": {"epochs": 1, "batch_size": 2}},
            {"quantize": {"epochs": 0, "calibration": 4, "optimize": "size"}},
        ],
        "compare": {"rounds": 3, "images": 2},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_a_whole_run_goes_on_and_its_report_names_everything(inputs: Inputs) -> None:
    path, out = recipe(inputs.folder, processes=1), inputs.folder / "out"
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    report = artifacts.load(Report, out / "report.json")
    text = "\n".join(report.notes)
    for expected in ("self-crossing", "of zero area", "fewer than 3 points", "outside the image", "80 megapixels"):
        assert expected in text


def test_a_run_goes_on_with_another_number_of_processes(inputs: Inputs) -> None:
    """They change no result, so nothing is stale."""
    path, out = recipe(inputs.folder, processes=0), inputs.folder / "out"
    before = (out / "finetuned.onnx").stat().st_mtime_ns
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "finetuned.onnx").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"side": 100}, "task.side: got 100. Must be a multiple of 32"),
        ({"input": [3, 64, 100]}, "input: got [3, 64, 100]. Height and width must be multiples of 32"),
        ({"processes": -1}, "task.processes: got -1"),
        ({"kind": "classification", "processes": 2}, "processes: not for classification. Remove"),
    ],
)
def test_recipes_that_make_no_sense(inputs: Inputs, settings: dict, said: str) -> None:
    result = CliRunner().invoke(
        app, ["run", str(recipe(inputs.folder, **settings)), "--out", str(inputs.folder / "no")]
    )
    assert result.exit_code == 2, result.output
    assert said in result.stderr.replace("\n", " ")


# --- post-processing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("threshold", "1.5", "threshold: got 1.5. Must be in (0, 1). Use e.g. 0.3."),
        ("box-threshold", "2", "box_threshold: got 2. Must be in [0, 1]. Use e.g. 0.6."),
        ("unclip-ratio", "0", "unclip_ratio: got 0. Must be in (0, 10]. Use e.g. 1.5."),
        ("max-candidates", "0", "max_candidates: got 0. Must be 1 or more. Use e.g. 1000."),
    ],
)
def test_post_processing_out_of_range(inputs: Inputs, command: str, option: str, value: str, said: str) -> None:
    assert refused(inputs.run(command, **{option: value})) == f"Error: {said}"


def test_evaluate_says_the_post_processing(inputs: Inputs) -> None:
    found = inputs.run("evaluate", **{"box-threshold": "0.5", "unclip-ratio": "2"})
    assert found.exit_code == 0
    assert "post-processing: threshold 0.3, box_threshold 0.5, unclip_ratio 2, max_candidates 1000" in found.stdout


def test_a_run_s_report_says_the_post_processing(inputs: Inputs) -> None:
    path, out = recipe(inputs.folder, box_threshold=0.5, max_candidates=50), inputs.folder / "settings"
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(out)])
    assert result.exit_code == 0, result.output
    said = "post-processing: threshold 0.3, box_threshold 0.5, unclip_ratio 1.5, max_candidates 50"
    assert said in result.output
    assert said in (out / "report.md").read_text()
    assert said in (out / "report.html").read_text()
    assert artifacts.load(Report, out / "report.json").postprocessing["box_threshold"] == 0.5


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"threshold": 0}, "task.threshold: got 0"),
        ({"box_threshold": 1.01}, "task.box_threshold: got 1.01. Must be in [0, 1]. Use e.g. 0.6."),
        ({"unclip_ratio": 11}, "task.unclip_ratio: got 11"),
        ({"max_candidates": 0}, "task.max_candidates: got 0. Must be 1 or more."),
        ({"kind": "classification", "box_threshold": 0.5}, "box_threshold: not for classification. Remove"),
    ],
)
def test_recipes_whose_post_processing_makes_no_sense(inputs: Inputs, settings: dict, said: str) -> None:
    test_recipes_that_make_no_sense(inputs, settings, said)


# --- what lists may be --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", TRAINING)
def test_lists_that_share_images(inputs: Inputs, command: str) -> None:
    said = refused(inputs.run(command, overlap="no"))
    assert said.startswith(
        f"Error: val: 4 of 4 images are in train, too, the first is {inputs.folder}/good/0.png (there "
    )
    assert said.endswith("or allow it: data.allow_overlap (--allow-overlap).")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_limit_that_is_no_share(inputs: Inputs, command: str) -> None:
    said = refused(inputs.run(command, **{"max-skipped": "2"}))
    assert said == "Error: max_skipped: got 2. Must be a share in [0, 1]. Use e.g. 0.01."


def test_paths_that_lead_out_of_the_list_s_folder(inputs: Inputs) -> None:
    folder = inputs.folder / "lists"
    folder.mkdir()
    (folder / "labels.txt").write_text(f"../good/0.png\t{label([BOX])}\n")
    said = refused(inputs.run("evaluate", val="lists"))
    assert said.startswith(
        f"Error: {folder}/labels.txt: line 1: {folder}/../good/0.png leads out of the list's folder, to "
    )
    assert said.endswith("Name the folder that paths may lead into: data.root (--data-root).")
    found = inputs.run("evaluate", val="lists", **{"data-root": str(inputs.folder)})
    assert (found.exit_code, notes(found)) == (0, [])
    said = refused(inputs.run("evaluate", val="lists", **{"data-root": str(folder / "gone")}))
    assert said.startswith(f"Error: data root: {folder}/gone: no such folder.")


def test_a_recipe_names_the_folder_that_paths_lead_into(inputs: Inputs) -> None:
    folder = inputs.folder / "beside"
    folder.mkdir()
    (folder / "labels.txt").write_text("".join(f"../bare/{number}.png\t[]\n" for number in range(4)))
    path = recipe(inputs.folder)
    arguments = ["run", str(path), "--out", str(inputs.folder / "rooted"), "--set", f"data.val={folder}/labels.txt"]
    assert "leads out of the list's folder" in refused(CliRunner().invoke(app, arguments))
    path.write_text(path.read_text().replace("data:\n", "data:\n  root: .\n"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output


def test_what_was_skipped_stands_beside_the_metric(inputs: Inputs) -> None:
    found = inputs.run("evaluate", val="large", **{"max-skipped": "0.5"})
    assert "on 3 images (1 of 4 images skipped)" in found.stdout
    path, out = recipe(inputs.folder), inputs.folder / "skipping"
    settings = [f"data.val={inputs.labels('large')}", f"data.train={inputs.labels('good')}"]
    result = CliRunner().invoke(app, ["run", str(path), "--out", str(out), "--set", settings[0], "--set", settings[1]])
    assert result.exit_code == 0, result.output
    said = "on 3 images (1 of 4 images skipped)"
    assert said in result.output
    assert said in (out / "report.md").read_text()
    assert said in (out / "report.html").read_text()
    report = artifacts.load(Report, out / "report.json")
    assert {stage.score.skipped for stage in report.stages} == {("1 of 4 images skipped",)}
