"""`criterion: obs` through the stages: channels are ranked once, by training images, and the scan's file holds it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from compress import artifacts
from compress.artifacts import Sensitivity
from compress.cli import app
from compress.errors import ArtifactError, DataError, PlanError
from compress.graph import load_model, to_torch
from compress.pipeline import make_task, run_recipe
from compress.pipeline.execution import Execution
from compress.pipeline.scanning import inputs as scan_inputs
from compress.pipeline.scanning.inputs import ScanInputs
from compress.pipeline.scope import EVERYTHING
from compress.pipeline.training_images import fitting_batches
from compress.prune.brain_surgeon import obs_scores
from compress.prune.channel_scores import lowest_channels
from compress.prune.compensation import reader_equations
from compress.prune.groups import find_groups
from compress.recipe import SensitivityStep
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny

SETTINGS = {"criterion": "obs", "ratios": (0.5,), "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("ranking"))


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    lists = [folder / name / "labels.txt" for name in ("train", "val")]
    return make_task("classification", train=lists[:1], val=lists[1:], input_shape=tiny.SHAPE)


def expected(folder: Path, task: Task) -> dict[str, tuple[float, ...]]:
    module = to_torch(load_model(folder / "model.onnx"))
    groups = find_groups(module, tiny.SHAPE)
    equations = reader_equations(module, groups, fitting_batches(module, task))
    return {name: tuple(values.tolist()) for name, values in obs_scores(module, groups, equations).items()}


def test_a_scan_holds_its_scores_and_a_plan_removes_by_them(folder: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(folder / "model.onnx")
    scan = stepping.scan(model, task, tmp_path, **SETTINGS)
    assert artifacts.load(Sensitivity, tmp_path / "sensitivity.json") == scan
    assert scan.scores.keys() == scan.curves.keys()
    for name, scores in expected(folder, task).items():
        assert scan.scores[name] == pytest.approx(scores, rel=1e-6)
    plan = stepping.prune(model, tmp_path / "pruned.onnx", sensitivity=scan, target={"ratio": 0.5}, align=1)
    groups = {group.name: group for group in find_groups(to_torch(model), tiny.SHAPE)}
    assert plan.criterion == "obs"
    for name, group in plan.groups.items():
        scores = torch.tensor(scan.scores[name], dtype=torch.float64)
        assert group.removed == lowest_channels(groups[name], scores, len(group.removed)) != ()


def test_a_scan_that_goes_on_does_not_rank_again(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(folder / "model.onnx")
    whole = stepping.scan(model, task, tmp_path / "whole", **{**SETTINGS, "ratios": (0.25, 0.5)})
    stepping.scan(model, task, tmp_path / "parts", **{**SETTINGS, "ratios": (0.25,)})

    def never(*_: object, **__: object) -> None:
        raise AssertionError("ranked again")

    monkeypatch.setattr(scan_inputs, "reader_equations", never)
    parts = stepping.scan(model, task, tmp_path / "parts", **{**SETTINGS, "ratios": (0.25, 0.5)})
    assert (parts.scores, parts.curves) == (whole.scores, whole.curves)


def test_ratios_that_remove_nothing_rank_all_the_same(folder: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(folder / "model.onnx")
    for ratios in ((0.01,), (0.01, 0.5)):
        scan = stepping.scan(model, task, tmp_path, **{**SETTINGS, "ratios": ratios})
        for name, scores in expected(folder, task).items():
            assert scan.scores[name] == pytest.approx(scores, rel=1e-6)


def test_it_is_another_scan_than_one_by_filters(folder: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(folder / "model.onnx")
    stepping.scan(model, task, tmp_path, **{**SETTINGS, "criterion": "fpgm"})
    with pytest.raises(ArtifactError, match="stale"):
        stepping.scan(model, task, tmp_path, **SETTINGS)


def test_the_first_process_ranks_for_all(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another machine a tie may fall otherwise, and cells would be of other channels."""
    step = SensitivityStep(criterion="obs", ratios=(0.5,))
    given = ScanInputs.open(load_model(folder / "model.onnx"), task, step, EVERYTHING, None, Execution())
    sent: list[object] = []

    def same(value: object) -> object:
        sent.append(value)
        return sent[0]

    first, second = (SimpleNamespace(is_main=is_main, same=same) for is_main in (True, False))
    scores, _ = given.rank(step, {}, Execution(team=first))  # type: ignore[arg-type]
    assert scores.keys() == {group.name for group in given.groups}
    monkeypatch.setattr(scan_inputs, "reader_equations", None)
    assert given.rank(step, {}, Execution(team=second)) == (scores, {})  # type: ignore[arg-type]
    assert given.rank(step, scores, Execution(team=second)) == (scores, {})  # type: ignore[arg-type]
    assert len(sent) == 3  # all of them come to every meeting, whatever they have read in the file


def test_within_a_budget(folder: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(folder / "model.onnx")
    scan = stepping.budgeted_scan(model, task, tmp_path, budget=0.5, **SETTINGS)
    for name, scores in expected(folder, task).items():
        assert scan.scores[name] == pytest.approx(scores, rel=1e-6)


def test_without_images_or_a_scan_it_is_refused(folder: Path, task: Task, tmp_path: Path) -> None:
    model = load_model(folder / "model.onnx")
    blind = make_task("classification", train=(), val=[folder / "val" / "labels.txt"], input_shape=tiny.SHAPE)
    for scan in (stepping.scan, stepping.budgeted_scan):
        budget = {"budget": 1.0} if scan is stepping.budgeted_scan else {}
        with pytest.raises(DataError, match=r"^train: no images to train on\. Name at least one label list"):
            scan(model, blind, tmp_path / "blind", **SETTINGS, **budget)
    with pytest.raises(PlanError, match=r"^prune\.criterion: obs ranks channels by images, and there is no score"):
        stepping.prune(
            model, tmp_path / "p.onnx", target={"ratio": 0.5}, align=1, criterion="obs", input_shape=tiny.SHAPE
        )
    arguments = ["prune", str(folder / "model.onnx"), "--ratio", "0.5", "--criterion", "obs", "--out", "x.onnx"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "--criterion: obs ranks by images and needs --sensitivity FILE" in result.stderr


def test_a_recipe_by_obs(folder: Path, tmp_path: Path) -> None:
    steps = {
        "sensitivity": {"criterion": "obs", "ratios": [0.5]},
        "prune": {"target": {"macs": 0.7}, "align": 1},
        "reconstruct": {"images": 24},
    }
    run_recipe(tiny.recipe(folder, out=str(tmp_path / "run"), steps=steps), "compress run")
    plan = artifacts.load(artifacts.PruningPlan, tmp_path / "run" / "plan.json")
    assert plan.criterion == "obs"
