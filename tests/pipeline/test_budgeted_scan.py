"""A scan within a budget on files: what it stores, that it goes on, and what plans make of it."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from compress import artifacts
from compress.artifacts import Sensitivity
from compress.cli import app
from compress.errors import ArtifactError, CompressError, PlanError
from compress.pipeline import run_recipe
from compress.pipeline.scanning.judges import Judge, MetricJudge, OutputJudge
from compress.prune.plan import pessimistic
from compress.report.budget_lines import budget_lines
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny

RATIOS = (0.25, 0.5, 0.75)
CELLS, IMAGES = 9, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("budgeted"), crops=IMAGES // 2)


@pytest.fixture(autouse=True)
def _a_second_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a budget in seconds is one in images."""
    for kind in (MetricJudge, OutputJudge):
        monkeypatch.setattr(kind, "__init__", _timed(kind.__init__))


def _timed(init: Callable[..., None]) -> Callable[..., None]:
    def timed(self: Judge, *given: Any) -> None:
        init(self, *given)
        self.seconds = float(self.images)

    return timed


def scan(model: onnx.ModelProto, task: Task, out: Path, budget: float, **changes: Any) -> Sensitivity:
    options = {"criterion": "l1", "ratios": RATIOS, **changes}
    return stepping.budgeted_scan(model, task, out, budget=budget, **options)


def test_it_stays_within_its_budget_and_stores_it(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path, 200)
    assert artifacts.load(Sensitivity, tmp_path / "sensitivity.json") == found
    budgeted = found.budgeted
    assert budgeted is not None
    assert (budgeted.images, budgeted.cells_in_all, budgeted.images_in_all) == (200, CELLS, IMAGES)
    assert 0 < budgeted.spent <= 200
    assert all(1 <= len(curve.metric) <= 3 for curve in found.curves.values())
    for name, curve in found.curves.items():
        assert set(curve.metric) == set(budgeted.cells[name])
        for key, metric in curve.metric.items():
            cell = budgeted.cells[name][key]
            assert cell.low < cell.drop < cell.high
            assert metric == found.baseline - cell.drop


def test_cells_on_all_images_are_those_of_a_whole_scan(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    whole = stepping.scan(model, task, tmp_path / "whole", criterion="l1", ratios=RATIOS, threads=1)
    found = scan(model, task, tmp_path / "budgeted", 10_000)
    assert found.budgeted is not None
    assert found.baseline == whole.baseline
    compared = 0
    for name, group in found.budgeted.cells.items():
        for key, cell in group.items():
            if cell.images == IMAGES:
                assert found.curves[name].metric[key] == pytest.approx(whole.curves[name].metric[key], abs=1e-9)
                compared += 1
    assert compared
    assert found.budgeted.spent < 10_000  # what is left is settled, or on all images


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_file(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    whole = scan(model, task, tmp_path / "whole", 300)
    for count in (1, 4, 7):
        out = tmp_path / str(count)
        with pytest.raises(KeyboardInterrupt):
            scan(model, task, out, 300, on_progress=tiny.stop_when("drop", count))
        cells = artifacts.load(Sensitivity, out / "sensitivity.json").budgeted
        assert cells is not None
        assert scan(model, task, out, 300) == whole
        assert (out / "sensitivity.json").read_bytes() == (tmp_path / "whole" / "sensitivity.json").read_bytes()


def test_a_scan_that_goes_on_keeps_its_pace(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is busier by now measures no fewer images: the budget was converted once."""
    whole = scan(model, task, tmp_path / "whole", 300)
    with pytest.raises(KeyboardInterrupt):
        scan(model, task, tmp_path / "s", 300, on_progress=tiny.stop_when("drop", 3))
    init = MetricJudge.__init__

    def slow(self: MetricJudge, *given: Any) -> None:
        init(self, *given)
        self.seconds *= 10

    monkeypatch.setattr(MetricJudge, "__init__", slow)
    assert scan(model, task, tmp_path / "s", 300) == whole


def test_with_more_time_it_goes_on(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    scan(model, task, tmp_path / "s", 150)
    assert scan(model, task, tmp_path / "s", 300) == scan(model, task, tmp_path / "whole", 300)


def test_it_does_not_take_over_a_whole_scan(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    stepping.scan(model, task, tmp_path, criterion="l1", ratios=RATIOS, threads=1)
    with pytest.raises(ArtifactError, match="stale"):
        scan(model, task, tmp_path, 100)


def test_what_was_skipped_is_said(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    notes: list[str] = []
    found = scan(model, task, tmp_path, 40, on_note=notes.append)
    assert notes[0] == "scan: 40 s are 40 images of 1e+03 ms, 0.093 of a whole scan: 9 cells x 48 images"
    assert tuple(notes[1:]) == budget_lines(found)
    assert (
        "budget: 24 images, 0.056 of a whole scan. Measured 1 of 9 cells on 24 to 24 images, 0 of them on all"
        in notes[1]
    )
    assert notes[2] == "Not every decision is settled: more time would help."
    assert notes[3].startswith("No cell was measured of 2 groups, which stay whole: ")


def test_a_budget_too_short_for_one_cell_says_the_least(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """And a plan made of it does not put it down to ratios or targets."""
    notes: list[str] = []
    found = scan(model, task, tmp_path, 20, on_note=notes.append)
    why = (
        "the budget of 20 images is too short for one cell, which takes 24 images (24 s); one of each group takes 72 s"
    )
    assert notes[1:] == [f"budget: {why}. Nothing was measured, and plans leave every group whole: give it more time."]
    plan = stepping.prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, align=4, sensitivity=found)
    assert plan.notes == (f"macs 0.7 cannot be reached: {why}",)
    plan = stepping.prune(model, tmp_path / "q" / "p.onnx", target={"metric_drop": 0.1}, align=4, sensitivity=found)
    assert plan.notes == (f"metric_drop 0.1: {why}, nothing is removed",)
    assert len(scan(model, task, tmp_path, 24).budgeted.cells) == 3  # type: ignore[union-attr]
    measured = scan(model, task, tmp_path, 72).budgeted
    assert measured is not None
    assert all(len(group) == 1 for group in measured.cells.values())


# --- by outputs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", ["divergence", "agreement"])
def test_outputs_are_compared_as_in_a_whole_scan(
    model: onnx.ModelProto, task: Task, tmp_path: Path, measure: Any
) -> None:
    options: dict[str, Any] = {"measure": measure, "images": 40}
    whole = stepping.scan(model, task, tmp_path / "whole", criterion="l1", ratios=RATIOS, threads=1, **options)
    found = scan(model, task, tmp_path / "budgeted", 10_000, **options)
    assert (found.metric_name, found.baseline) == (measure, whole.baseline) == (measure, 1.0)
    assert found.budgeted is not None
    assert found.budgeted.images_in_all == 40
    on_all = [
        (found.curves[name].metric[key], whole.curves[name].metric[key])
        for name, group in found.budgeted.cells.items()
        for key, cell in group.items()
        if cell.images == 40
    ]
    assert len(on_all) > 1
    for figure, wanted in on_all:
        assert figure == pytest.approx(wanted, abs=1e-5)
    plan = stepping.prune(
        model, tmp_path / "p.onnx", target={"macs": 0.7}, align=4, sensitivity=found, pessimistic=True
    )
    assert plan.macs_after <= 0.7 * plan.macs_before


def test_fewer_images_are_among_the_more_and_nothing_is_lost_on_the_original(task: Task) -> None:
    """Against divergences of single images, each predicted alone."""
    batches = list(task.calibration_batches(40, 32))
    rng = np.random.default_rng(0)
    answers = {image.tobytes(): rng.dirichlet((1.0, 1.0)) for batch in batches for image in batch}
    moved = {key: 0.5 * answer + 0.25 for key, answer in answers.items()}

    def predictor(table: dict[bytes, np.ndarray], seen: set[bytes]) -> Any:
        def predict(images: np.ndarray) -> np.ndarray:
            seen.update(image.tobytes() for image in images)
            return np.stack([table[image.tobytes()] for image in images])

        return predict

    judge = OutputJudge("divergence", task, lambda: predictor(answers, set()), 40)
    assert judge.drop(predictor(answers, set()), 20).drop == 0.0
    few, more = set[bytes](), set[bytes]()
    cell = judge.drop(predictor(moved, few), 20)
    judge.drop(predictor(moved, more), 40)
    assert few < more
    assert len(few) == 20
    found = [np.sum(answers[key] * np.log(answers[key] / moved[key])) for key in few]
    assert cell.drop == pytest.approx(1 - np.exp(-np.mean(found)))


def test_stopped_by_divergence_it_goes_on_and_not_by_another_measure(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    whole = scan(model, task, tmp_path / "whole", 200, measure="divergence")
    with pytest.raises(KeyboardInterrupt):
        scan(model, task, tmp_path / "s", 200, measure="divergence", on_progress=tiny.stop_when("drop", 3))
    assert scan(model, task, tmp_path / "s", 200, measure="divergence") == whole
    with pytest.raises(ArtifactError, match="stale"):
        scan(model, task, tmp_path / "s", 200)


def test_a_side_is_of_validation_images(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"sensitivity.side: not with measure: divergence"):
        scan(model, task, tmp_path, 100, measure="divergence", side=320)


def test_a_task_without_judgements_is_refused(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    class Bare:
        """Everything but `examine`."""

        def __getattr__(self, name: str) -> Any:
            if name in ("examine", "error_name", "picture"):
                raise AttributeError(name)
            return getattr(task, name)

    with pytest.raises(CompressError, match=r"sensitivity.budget: task Bare does not judge single images"):
        scan(model, Bare(), tmp_path, 100)  # type: ignore[arg-type]


# --- plans ------------------------------------------------------------------------------------------------------


def test_plans_are_made_of_what_was_measured(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path, 250)
    plan = stepping.prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, align=4, sensitivity=found)
    assert plan.macs_after <= 0.7 * plan.macs_before


def test_a_pessimistic_plan_takes_the_upper_ends(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path, 250)
    assert found.budgeted is not None
    upper = pessimistic(found)
    for name, curve in upper.curves.items():
        for key, metric in curve.metric.items():
            assert metric == found.baseline - found.budgeted.cells[name][key].high
    options: dict[str, Any] = {"target": {"metric_drop": 0.05}, "align": 1, "sensitivity": found}
    likely = stepping.prune(model, tmp_path / "a.onnx", **options)
    careful = stepping.prune(model, tmp_path / "b" / "b.onnx", pessimistic=True, **options)
    assert careful.macs_after > likely.macs_after


def test_a_whole_scan_has_no_upper_ends(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    whole = stepping.scan(model, task, tmp_path, criterion="l1", ratios=RATIOS, threads=1)
    with pytest.raises(PlanError, match=r"prune.pessimistic: the scan says nothing of how surely"):
        stepping.prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, align=4, sensitivity=whole, pessimistic=True)


# --- commands ---------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments], prog_name="compress")


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    data = ("--data", folder / "val/labels.txt", "--task", "classification", "--input", "3,16,32", "--directions")
    result = run("sensitivity", folder / "model.onnx", *data, "--budget", "5m", "--threads", "1", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "scan: 300 s are 300 images" in result.output
    assert "of a whole scan. Measured" in result.output
    more = ("--train", folder / "train/labels.txt", "--measure", "divergence", "--out", tmp_path / "outputs")
    result = run("sensitivity", folder / "model.onnx", *data, "--budget", "1m", "--threads", "1", *more)
    assert result.exit_code == 0, result.output
    assert "divergence of the model itself: 1.0000" in result.output
    plan = ("--sensitivity", tmp_path / "sensitivity.json", "--target", "macs=0.8", "--align", "4", "--pessimistic")
    result = run("prune", folder / "model.onnx", *plan, "--out", tmp_path / "p.onnx")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "soon"], '--budget: got "soon". Must be a time above 0. Use e.g. 5m, 90s or 1h.'),
        (["--budget", "0"], "Must be a time above 0. Use e.g. 5m, 90s or 1h."),
        (["--budget", "5m", "--recover", "reconstruct", "--train", "t"], "--budget: not with --recover reconstruct."),
    ],
)
def test_bad_budgets_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = run("sensitivity", "m.onnx", "--data", "v.txt", "--out", tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_killed_outright_it_goes_on_to_the_same_file(folder: Path, tmp_path: Path) -> None:
    """Not asked to stop: at most one measurement is lost. Both go on from one file, which holds the pace."""

    def command(out: Path, budget: str) -> list[str]:
        data = ["--data", f"{folder}/val/labels.txt", "--task", "classification", "--input", "3,16,32", "--directions"]
        scan = [sys.executable, "-m", "compress", "sensitivity", f"{folder}/model.onnx", *data, "--ratios", "0.25,0.5"]
        return [*scan, "--budget", budget, "--threads", "1", "--out", str(out)]

    subprocess.run(command(tmp_path / "whole", "0.001"), check=True, capture_output=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    subprocess.run(command(tmp_path / "whole", "10s"), check=True, capture_output=True)
    file, lengths = tmp_path / "killed" / "sensitivity.json", []
    while len(lengths) < 4:
        process = subprocess.Popen(
            command(tmp_path / "killed", "10s"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = file.stat().st_mtime_ns
        while file.stat().st_mtime_ns == before and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
        lengths.append(len(file.read_text()))
    assert len(set(lengths)) > 1
    subprocess.run(command(tmp_path / "killed", "10s"), check=True, capture_output=True)
    assert file.read_bytes() == (tmp_path / "whole" / "sensitivity.json").read_bytes()


def test_a_recipe_plans_for_its_own_target_and_reports_what_was_skipped(folder: Path) -> None:
    scanned = {"ratios": [0.25, 0.5, 0.75], "criterion": "l1", "budget": "4m"}
    steps = {"sensitivity": scanned, "prune": {"target": {"macs": 0.8}, "align": 4, "pessimistic": True}}
    recipe = tiny.recipe(folder, "budgeted", steps)
    report = run_recipe(recipe, "compress run recipe.yaml")
    found = artifacts.load(Sensitivity, folder / "budgeted" / "sensitivity.json")
    assert found.budgeted is not None
    assert (found.budgeted.images, found.budgeted.targets) == (240, (0.8,))
    assert set(budget_lines(found)) <= set(report.notes)
    again = run_recipe(recipe, "compress run recipe.yaml")
    assert [stage.score for stage in again.stages] == [stage.score for stage in report.stages]
