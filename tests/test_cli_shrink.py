"""`compress shrink` from a deployed file and a folder of images to a small file, on a tiny network."""

import re
import shutil
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from compress import artifacts, pipeline
from compress.cli import app
from compress.pipeline.preparing import shrink_cost
from compress.pipeline.preparing.shrink_cost import Pace
from compress.recipe import load_recipe
from tests.pipeline import tiny

ZOO = Path(__file__).parents[1] / "compress" / "zoo" / "models"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="compress")


def shrink(folder: Path, *more: str) -> Result:
    options = ["--input", "3,16,32", "--epochs", "1", "--threads", "1", *more]
    return run("shrink", folder / "model.onnx", "--images", folder / "train", "--out", folder / "small.onnx", *options)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("shrink"), crops=10)


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(inputs, tmp_path / "in"))


def test_from_a_file_and_a_folder_to_a_small_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        # Stopped in fine-tuning, the same command goes on from there.
        real = pipeline.run_recipe
        stop = tiny.stop_when("epoch 1/1")
        patch.setattr(pipeline, "run_recipe", lambda recipe, command, on_progress, on_note: real(recipe, command, stop))
        result = shrink(folder)
        assert result.exit_code == 130, result.output
        assert "small_run holds what is done; the same command goes on from there." in result.stderr
        assert not (folder / "small.onnx").exists()
    pruned = (folder / "small_run" / "pruned.onnx").stat().st_mtime_ns
    result = shrink(folder, "--max-drop", "1.0")
    assert result.exit_code == 0, result.output
    assert "model.onnx: output [?, 2], taken for classification. If it is not: --task KIND." in result.stderr
    assert "stage 1 of 7, label: 10 images by the original model, done" in result.stderr
    assert "stage 3 of 7, prune: to 0.65x of the multiply-adds, done" in result.stderr
    assert re.search(r"stage 5 of 7 \(run: about \d+ (s|min) left\), fine-tune: epoch 1/1", result.stderr)
    assert (folder / "small_run" / "pruned.onnx").stat().st_mtime_ns == pruned
    assert "agreement (class)" in result.stdout
    assert f"Written: {folder / 'small.onnx'}" in result.stdout
    small = (folder / "small.onnx").read_bytes()
    assert small == (folder / "small_run" / "int8.onnx").read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(small))
    # What was written is an ordinary recipe: a run of it finds everything done.
    recipe = load_recipe(folder / "small_run" / "recipe.yaml")
    assert pipeline.run_recipe(recipe, "").stages[-1].stage == "int8"
    assert (folder / "small_run" / "int8.onnx").read_bytes() == small
    # More in float: the int8 file alone is made again.
    finetuned = (folder / "small_run" / "finetuned.onnx").stat().st_mtime_ns
    result = shrink(folder, "--float-budget", "0.9")
    assert result.exit_code == 0, result.output
    assert (folder / "small_run" / "finetuned.onnx").stat().st_mtime_ns == finetuned
    assert (folder / "small_run" / "int8.sensitivity.json").exists()
    assert load_recipe(folder / "small_run" / "recipe.yaml").steps[-1].float_budget == 0.9


@pytest.mark.parametrize(("drop", "exit_code"), [(0.5, 0), (0.6, 1)])
def test_the_gate(folder: Path, monkeypatch: pytest.MonkeyPatch, drop: float, exit_code: int) -> None:
    machine = artifacts.Machine("cpu", (), 1, "os", {})
    gates = (artifacts.Gate("metric_drop", 0.5, drop, drop <= 0.5),)

    def fake(recipe: object, command: str, *_: object) -> artifacts.Report:
        (folder / "small_run" / "int8.onnx").write_bytes(b"small")
        return artifacts.Report("t", command, "d", machine, (), gates, "f")

    monkeypatch.setattr(pipeline, "run_recipe", fake)
    monkeypatch.setattr(shrink_cost, "measure", lambda recipe, files: (Pace(0.01, 0.01, 0.01, 0.01), 6))
    result = shrink(folder, "--max-drop", "0.5")
    assert result.exit_code == exit_code
    assert ("Gates missed: metric_drop." in result.stderr) == bool(exit_code)
    assert (folder / "small.onnx").read_bytes() == b"small"


def fails(*args: str | Path) -> str:
    """The one line that is said by a command that ends with 2."""
    result = run("shrink", *args)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_bad_images_and_another_try(folder: Path) -> None:
    """One bad image is refused by name before anything is written; removed, or allowed, the same command goes on."""
    images, bad = folder / "train", folder / "train" / "deep" / "cut\tin half.png"
    bad.parent.mkdir()
    given = [folder / "model.onnx", "--images", images, "--out", folder / "small.onnx", "--input", "3,16,32"]
    bad.write_bytes(next(images.rglob("*.png")).read_bytes())
    line = fails(*given)
    assert "train: 1 of 11 images is named with a tab" in line
    assert "deep/cut\\tin half.png'. At most 1% may be. Rename them. To allow more: data.max_skipped (--max-" in line
    bad = bad.rename(bad.with_name("half.png"))
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    assert f"1 of 11 images is unreadable: {bad}. At most 1% may be." in fails(*given)
    assert not (folder / "small_run").exists()
    assert "--max-skipped: got 2" in fails(*given, "--max-skipped", "2")
    (images / "moving.gif").touch()
    model = (folder / "model.onnx").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        real = pipeline.run_recipe
        stop = tiny.stop_when("ranking")
        patch.setattr(pipeline, "run_recipe", lambda recipe, command, on_progress, on_note: real(recipe, command, stop))
        result = shrink(folder, "--max-skipped", "0.1")
        assert result.exit_code == 130, result.output
        assert "train: 1 of 11 images skipped, unreadable: deep/half.png" in result.stderr
        assert "train: left out 1 file of another kind, moving.gif." in result.stderr
        recipe = load_recipe(folder / "small_run" / "recipe.yaml")
        assert (recipe.data.max_skipped, (recipe.out / "labels" / "labels.json").exists()) == (0.1, True)
        bad.unlink()
        result = shrink(folder)
        assert "stage 1 of 7, label: 10 images by the original model, done" in result.stderr
        next(images.rglob("*.png")).unlink()
        result = shrink(folder, "--macs", "0.5")
        assert result.exit_code == 130, result.output
        assert "small_run/recipe.yaml: of an attempt that computed nothing; replaced" in result.stderr
        assert (
            "small_run/labels: lists of other images or settings than now, of which nothing was computed"
            in result.stderr
        )
        assert re.search(r"stage 1 of 7, label: 9 images by the original model, about", result.stderr)
    assert (folder / "model.onnx").read_bytes() == model


def test_mistakes_are_told_in_a_line(folder: Path) -> None:
    model, images, out = folder / "model.onnx", folder / "train", folder / "small.onnx"
    given = ["--images", images, "--out", out, "--input", ",".join(map(str, tiny.SHAPE))]
    assert "--out: " in fails(model, "--images", images, "--out", model)
    assert "is the input itself" in fails(model, "--images", images, "--out", model)
    assert "no such file" in fails(folder / "none.onnx", *given)
    assert "no such folder" in fails(model, "--images", folder / "none", "--out", out)
    (folder / "empty").mkdir()
    assert "no images" in fails(model, "--images", folder / "empty", "--out", out)
    assert "inside --images" in fails(model, "--images", images, "--out", images / "small.onnx")
    assert "--input: " in fails(model, "--images", images, "--out", out)
    assert "--task: got 'cls'" in fails(model, *given, "--task", "cls")
    assert "--charset: missing" in fails(ZOO / "text_recogniser.onnx", *given[:4])
    assert "--charset: not for classification" in fails(model, *given, "--charset", folder / "c.txt")
    assert "--side: not for classification" in fails(model, *given, "--side", "640")
    assert "--test: 'a' is given twice" in fails(model, *given, "--test", "a=x", "--test", "a=y")
    assert "data.test.a: x: no such file" in fails(model, *given, "--test", "a=x").replace(f"{Path.cwd()}/", "")
    assert not out.exists()
