"""A recogniser that returns [T, N, K], as PyTorch's CTC loss wants it: said and read so by every command.

It is a PyTorch module, so that `compress shrink` of one is tested here, too.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from compress import artifacts, pipeline
from compress.artifacts import Report
from compress.cli import app
from compress.graph import from_torch, load_model, save_model
from compress.pipeline.preparing import families, shrink_cost
from compress.pipeline.preparing.shrink_cost import Pace
from compress.recipe import Recipe, load_recipe
from tests.quant import nets
from tests.test_cli_recognition import GOOD, SHAPE, Reader, write_list

SAID = "output [T, N, K]: of two images the second dimension is 2, taken for --layout tnk."
FACTORY = "tests.test_cli_time_major:time_major"


class TimeMajor(nn.Module):
    """Probabilities [T, N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = Reader()

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(x).permute(1, 0, 2)


def time_major() -> nn.Module:
    """The factory that specs name; the same weights each time."""
    return nets.initialise(TimeMajor())


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="compress")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("time_major")
    save_model(from_torch(time_major(), torch.zeros(1, *SHAPE)), folder / "model.onnx")
    save_model(from_torch(nets.initialise(Reader()), torch.zeros(1, *SHAPE)), folder / "other.onnx")
    (folder / "charset.txt").write_text("a\nb\n")
    for part in ("train", "val"):
        write_list(folder / part, GOOD, {})
    return folder


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not taken."""
    monkeypatch.setattr(shrink_cost, "measure", lambda recipe, files: (Pace(0.01, 0.01, 0.01, 0.01), 2))


def write_recipe(folder: Path, **task: str) -> Path:
    data = {
        "version": 1,
        "model": "model.onnx",
        "task": {"kind": "recognition", "charset": "charset.txt", "input": list(SHAPE), **task},
        "data": {"train": "train/labels.txt", "val": "val/labels.txt"},
        "threads": 1,
        "steps": [
            {"sensitivity": {"ratios": [0.5], "images": 2}},
            {"prune": {"target": {"macs": 0.8}, "align": 2}},
            {"reconstruct": {}},
            {"finetune": {"epochs": 1, "batch_size": 4}},
            {"quantize": {"epochs": 1, "batch_size": 4, "calibration": 4, "optimize": "size", "recurrent": "weights"}},
        ],
        "compare": {"rounds": 3},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_evaluate_reads_it_as_the_same_network_that_returns_images_first(folder: Path) -> None:
    given = ("--data", folder / "val" / "labels.txt", "--charset", folder / "charset.txt")
    found, other = (run("evaluate", folder / f"{name}.onnx", *given) for name in ("model", "other"))
    assert (found.exit_code, found.stdout) == (0, other.stdout)
    assert SAID in found.stderr
    assert SAID not in other.stderr
    wrong = run("evaluate", folder / "model.onnx", *given, "--layout", "ntk")
    assert wrong.exit_code == 2
    assert "If its second dimension is the batch: task.layout: tnk." in wrong.stderr


@pytest.mark.parametrize(("model", "layout", "shape"), [("model", "tnk", "[16, 2, 4]"), ("other", "ntk", "[2, 16, 4]")])
def test_check_says_it_before_anything_is_run(folder: Path, model: str, layout: str, shape: str) -> None:
    wrong = {"tnk": "ntk", "ntk": "tnk"}[layout]
    result = run("check", write_recipe(folder, layout=wrong), "--set", f"model={folder / model}.onnx")
    assert result.exit_code == 2
    assert f"task: layout: got {wrong}, but of two images {folder / model}.onnx returns {shape}. " in result.stderr
    assert f"Use --set task.layout={layout}." in result.stderr


def test_check_and_run(folder: Path) -> None:
    recipe, out = write_recipe(folder, layout="tnk"), folder / "out"
    assert run("check", recipe).exit_code == 0
    result = run("run", recipe, "--out", out)
    assert result.exit_code == 0, result.output
    report = artifacts.load(Report, out / "report.json")
    assert [stage.stage for stage in report.stages][-4:] == ["pruned", "reconstructed", "finetuned", "int8"]
    assert report.stages[-1].parity is not None
    assert [len(load_model(out / "pruned.onnx").graph.output[0].type.tensor_type.shape.dim)] == [3]


@pytest.mark.usefixtures("paced")
def test_init_writes_it_into_the_recipe(folder: Path, tmp_path: Path) -> None:
    given = ("--data", folder / "train", "--charset", folder / "charset.txt", "--input", "3,16,64")
    result = run("init", FACTORY, *given, "--out", tmp_path / "r.yaml")
    assert result.exit_code == 0, result.output
    assert f"{FACTORY}: {SAID}" in result.stderr
    assert load_recipe(tmp_path / "r.yaml").task.layout == "tnk"


@pytest.mark.usefixtures("paced")
def test_shrink_takes_a_module(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is exported with its weights into the run's folder; the same command goes on there, one with others not."""
    module = time_major()
    with torch.no_grad():
        module.reader.fc.weight.mul_(2.0)  # type: ignore[union-attr, operator]
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    expected = from_torch(module, torch.zeros(1, *SHAPE)).SerializeToString()
    recipes: list[Recipe] = []

    def stop(recipe: Recipe, *_: object) -> Report:
        recipes.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run_recipe", stop)
    given = [
        "--images",
        folder / "train",
        "--charset",
        folder / "charset.txt",
        "--input",
        "3,16,64",
        "--rendered",
        "0",
        "--spliced",
        "0",
    ]
    given += ["--out", tmp_path / "small.onnx"]
    weights = ["--weights", tmp_path / "w.safetensors"]
    original = tmp_path / "small_run" / "original.onnx"
    result = run("shrink", FACTORY, *weights, *given)
    assert result.exit_code == 130, result.output
    assert original.read_bytes() == expected
    assert f"{FACTORY}: exported to {original}." in result.stderr
    assert (recipes[0].name, recipes[0].model, recipes[0].task.layout) == ("time_major, shrunk", str(original), "tnk")
    assert run("shrink", FACTORY, *weights, *given).exit_code == 130
    assert len(recipes) == 2
    (tmp_path / "small_run" / "pruned.json").write_text("{}")  # as if something had been computed
    other = run("shrink", FACTORY, *given)
    assert other.exit_code == 2
    assert "original.onnx: of another module or other weights than now." in other.stderr
    assert original.read_bytes() == expected
    (tmp_path / "small_run" / "pruned.json").unlink()
    assert run("shrink", FACTORY, *given).exit_code == 130
    assert original.read_bytes() != expected
    file = run("shrink", folder / "model.onnx", *weights, *given)
    assert "--weights: " in file.stderr
    assert "holds its own weights." in file.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("paced")
def test_shrink_of_a_module_to_the_end(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = families.FAMILIES["recognition"]
    narrow = replace(family, prune={**family.prune, "align": 2})  # the network has 8 channels
    monkeypatch.setitem(families.FAMILIES, "recognition", narrow)  # type: ignore[attr-defined]
    given = ["--images", folder / "train", "--charset", folder / "charset.txt", "--input", "3,16,64", "--epochs", "1"]
    given += ["--rendered", "0", "--spliced", "0", "--threads", "1", "--out", tmp_path / "small.onnx"]
    result = run("shrink", FACTORY, *given)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "small_run" / "original.onnx").stat().st_size
