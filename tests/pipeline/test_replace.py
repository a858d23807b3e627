"""Activations replaced on files and in a recipe: what is written, resumed, refused, and what later steps make of it."""

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from compress import artifacts
from compress.artifacts import ActivationScan, PruningPlan, Replaced, Report, Sensitivity
from compress.cli import app
from compress.errors import ArtifactError, CompressError, DataError, PlanError
from compress.graph import from_torch, is_quantised, load_model, read_model, save_model
from compress.graph.activations import REPLACEMENTS, activations_of, replace_activations
from compress.measure.session import Session
from compress.pipeline import run_recipe, run_replace
from compress.pipeline.tasks import recipe_task
from compress.recipe import ReplaceStep
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny


class Swishing(nn.Module):
    """Three blocks of convolution and hard-swish, one of ReLU, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        for index, (given, made) in enumerate(((3, 8), (8, 16), (16, 16))):
            setattr(self, f"block{index}", nn.Sequential(nn.Conv2d(given, made, 3, 2, 1), nn.Hardswish()))
        self.last, self.fc = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU()), nn.Linear(16 * 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        for index in range(3):
            x = getattr(self, f"block{index}")(x)
        return torch.softmax(self.fc(torch.flatten(self.last(x), 1)), 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("replacing"), crops=6)
    torch.manual_seed(0)
    save_model(from_torch(Swishing(), torch.zeros(1, *tiny.SHAPE)), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> onnx.ModelProto:
    return load_model(folder / "model.onnx")


@pytest.fixture(scope="module")
def names(model: onnx.ModelProto) -> tuple[str, ...]:
    return activations_of(model, "hardswish")


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    return tiny.task(folder)


def replace(model: onnx.ModelProto, task: Task | None, out: Path, **changes: object) -> Replaced:
    on_progress = changes.pop("on_progress", None)
    step = ReplaceStep.model_validate({"hardswish": "relu", **changes})
    return run_replace(model, task, out, step, threads=1, on_progress=on_progress)


# --- on files ---------------------------------------------------------------------------------------------------


def test_all_are_replaced_and_nothing_is_measured(
    model: onnx.ModelProto, names: tuple[str, ...], tmp_path: Path
) -> None:
    done = replace(model, None, tmp_path / "r.onnx")
    assert done == Replaced(names, ("replaced 3 of 3 hard-swishes by ReLU",))
    assert [path.name for path in tmp_path.iterdir()] == ["r.onnx"]
    expected = replace_activations(model, names, "hardswish", "relu")
    assert read_model(tmp_path / "r.onnx") == expected


def test_patterns_name_some_in_the_order_of_the_network(
    model: onnx.ModelProto, names: tuple[str, ...], tmp_path: Path
) -> None:
    done = replace(model, None, tmp_path / "r.onnx", layers=["*block2*", names[0], "*block2*"])
    assert done.names == (names[0], names[2])
    assert done.notes == (f"replaced 2 of 3 hard-swishes by ReLU: {names[0]}, {names[2]}",)
    assert activations_of(load_model(tmp_path / "r.onnx"), "hardswish") == (names[1],)


def test_each_is_measured_alone_and_the_rule_applied(
    model: onnx.ModelProto, names: tuple[str, ...], task: Task, tmp_path: Path
) -> None:
    alone = {
        name: task.evaluate(Session(replace_activations(model, [name], "hardswish", "relu")).run).metric
        for name in names
    }
    baseline = task.evaluate(Session(model).run).metric
    limit = sorted(baseline - metric for metric in alone.values())[1]  # the second least drop, hit exactly
    done = replace(model, task, tmp_path / "r.onnx", metric_drop=max(0.0, limit))
    scan = artifacts.load(ActivationScan, tmp_path / "activations.json")
    assert (scan.metric, scan.baseline, scan.metric_name) == (alone, baseline, "accuracy")
    assert done.names == tuple(name for name in names if baseline - alone[name] <= max(0.0, limit) + 1e-9)
    assert len(done.names) >= 2


def test_what_was_left_is_said_with_its_drop(
    model: onnx.ModelProto, names: tuple[str, ...], task: Task, tmp_path: Path
) -> None:
    out = tmp_path / "r.onnx"
    replace(model, task, out, metric_drop=1.0)
    path = tmp_path / "activations.json"
    found = artifacts.load(ActivationScan, path)
    artifacts.save(dataclasses.replace(found, metric={**found.metric, names[1]: found.baseline - 0.25}), path)
    done = replace(model, task, out, metric_drop=0.2)
    assert names[1] not in done.names
    assert done.notes[1].startswith("not replaced, as it alone would drop accuracy by more than 0.2: ")
    assert f"{names[1]} +0.2500" in done.notes[1]


def test_stopped_inside_the_scan_it_goes_on_to_identical_files(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    replace(model, task, tmp_path / "whole" / "r.onnx", metric_drop=1.0)
    out = tmp_path / "stopped" / "r.onnx"
    with pytest.raises(KeyboardInterrupt):
        replace(model, task, out, metric_drop=1.0, on_progress=tiny.stop_when("accuracy", 2))
    assert not out.exists()
    assert len(json.loads(out.with_name("activations.json").read_text())["metric"]) == 2
    messages: list[str] = []
    replace(model, task, out, metric_drop=1.0, on_progress=lambda done, total, text: messages.append(text))
    assert len(messages) == 1
    for name in ("activations.json", "r.onnx"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_another_limit_measures_nothing_anew(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    replace(model, task, tmp_path / "r.onnx", metric_drop=1.0)
    messages: list[str] = []
    replace(
        model, task, tmp_path / "r.onnx", metric_drop=0.9, on_progress=lambda done, total, text: messages.append(text)
    )
    assert messages == []


def test_a_scan_of_other_settings_is_stale(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    replace(model, task, tmp_path / "r.onnx", metric_drop=1.0)
    with pytest.raises(ArtifactError, match=r"activations\.json: stale: computed from another model, data or settings"):
        replace(model, task, tmp_path / "r.onnx", metric_drop=1.0, images=4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"layers": ["*blok*"]},
            r"replace\.layers: '\*blok\*' matches no hard-swish\. The model's hard-swishes: ",
        ),
        ({"layers": ["fc*"]}, r"replace\.layers: 'fc\*' matches no hard-swish"),
        ({"metric_drop": 0.1}, r"replace\.metric_drop: needs data to measure the metric on\. Give validation data\."),
    ],
)
def test_refused(model: onnx.ModelProto, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(CompressError, match=words):
        replace(model, None, tmp_path / "r.onnx", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_hard_swishes(model: onnx.ModelProto, names: tuple[str, ...], tmp_path: Path) -> None:
    plain = replace_activations(model, names, "hardswish", "relu")
    with pytest.raises(PlanError, match=r"replace\.hardswish: the model has no hard-swish\. Do without `replace`\."):
        replace(plain, None, tmp_path / "r.onnx")


def test_a_side_for_a_task_without_one(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"replace\.side: got 960, but classification has no side\. Remove it;"):
        replace(model, task, tmp_path / "r.onnx", metric_drop=0.1, side=960)


def test_a_model_of_other_classes_is_refused_before_anything_is_written(task: Task, tmp_path: Path) -> None:
    other = from_torch(tiny.three_classes(), torch.zeros(1, *tiny.SHAPE))
    with pytest.raises(DataError, match="does not fit classification"):
        replace(other, task, tmp_path / "r.onnx", metric_drop=0.1)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_of_the_original_plans_the_replaced_network(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """Groups and weights are the same in both: a scan of pruning need not be made twice."""
    found = stepping.scan(model, task, tmp_path, criterion="l1", ratios=[0.5], threads=1)
    replace(model, None, tmp_path / "r.onnx")
    plans = {}
    settings = {"target": {"macs": 0.7}, "align": 4, "criterion": "l1", "input_shape": tiny.SHAPE}
    replaced = load_model(tmp_path / "r.onnx")
    for name, network in (("model", model), ("replaced", replaced)):
        file = tmp_path / name / "pruned.onnx"
        plans[name] = stepping.prune(network, file, sensitivity=found, scanned=model, **settings)
    assert plans["model"].groups == plans["replaced"].groups
    assert plans["replaced"].macs_after < plans["replaced"].macs_before
    with pytest.raises(
        ArtifactError, match=r"stale: the scan is of another model .* name the scanned one with --scann"
    ):
        stepping.prune(replaced, tmp_path / "p.onnx", sensitivity=found, **settings)
    other = from_torch(tiny.three_classes(), torch.zeros(1, *tiny.SHAPE))
    with pytest.raises(ArtifactError, match="differ in more than replaced activations"):
        stepping.prune(other, tmp_path / "p.onnx", sensitivity=found, scanned=model, **settings)


def test_the_steps_keys_are_the_replacements_that_exist() -> None:
    swaps = {(old, new) for old, many in REPLACEMENTS.items() for new in many}
    assert {ReplaceStep.model_validate({old: new}).swap for old, new in swaps} == swaps


# --- in a recipe ------------------------------------------------------------------------------------------------

STEPS = {
    "sensitivity": {"ratios": [0.5]},
    "replace": {"hardswish": "relu", "metric_drop": 1.0},
    "prune": {"target": {"macs": 0.8}, "align": 4},
    "finetune": {"epochs": 1, "batch_size": 6},
    "quantize": {"epochs": 0, "batch_size": 6, "calibration": 4, "optimize": "size"},
}


def test_a_recipe_that_replaces_is_stopped_goes_on_and_reports_it(folder: Path, names: tuple[str, ...]) -> None:
    recipe = tiny.recipe(folder, steps=STEPS)
    out = recipe.out
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, "", tiny.stop_when(f"{names[1]}: accuracy"))
    assert len(artifacts.load(ActivationScan, out / "activations.json").metric) == 2
    report = run_recipe(recipe, "")
    assert [stage.stage for stage in report.stages] == [
        "baseline", "canonical", "replaced", "pruned", "finetuned", "int8",
    ]  # fmt: skip
    replaced = report.stages[2]
    assert replaced.notes == ("replaced 3 of 3 hard-swishes by ReLU",)
    assert replaced.cost.macs == report.stages[0].cost.macs
    assert "replaced: replaced 3 of 3 hard-swishes by ReLU" in (out / "report.md").read_text()
    for stage in ("replaced", "pruned", "finetuned"):
        assert activations_of(read_model(out / f"{stage}.onnx"), "hardswish") == ()
    assert is_quantised(read_model(out / "int8.onnx"))
    scan, plan = artifacts.load(Sensitivity, out / "sensitivity.json"), artifacts.load(PruningPlan, out / "plan.json")
    assert set(scan.curves) == set(plan.groups)
    settings = {"criterion": "fpgm", "ratios": [0.5], "threads": 1}
    original = stepping.scan(load_model(folder / "model.onnx"), recipe_task(recipe), out / "again", **settings)
    assert scan == original  # pruning's scan saw the hard-swishes
    assert report == artifacts.load(Report, out / "report.json")


def test_other_settings_of_the_step_are_stale(folder: Path) -> None:
    steps = {"replace": {"hardswish": "relu"}}
    run_recipe(tiny.recipe(folder, "stale", steps=steps), "")
    assert not (folder / "stale" / "activations.json").exists()
    changed = {"replace": {"hardswish": "relu", "layers": ["*block0*"]}}
    with pytest.raises(ArtifactError, match=r"replaced\.json: stale: computed from another model, data or settings"):
        run_recipe(tiny.recipe(folder, "stale", steps=changed), "")


# --- from the command line --------------------------------------------------------------------------------------


def test_command(folder: Path, names: tuple[str, ...], tmp_path: Path) -> None:
    """The whole command, nothing replaced by a stand-in; what it writes is what the function writes."""
    out = tmp_path / "r.onnx"
    data = ["--data", str(folder / "val" / "labels.txt"), "--directions", "--input", "3,16,32"]
    args = [
        "replace",
        str(folder / "model.onnx"),
        "--activation",
        "hardswish=relu",
        "--threads",
        "1",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, [*args, *data, "--metric-drop", "1"])
    assert result.exit_code == 0, result.output
    assert activations_of(load_model(out), "hardswish") == ()
    assert "3 activations replaced. accuracy 0." in result.stdout
    assert all(name in result.stdout for name in names)
    assert "scan: 3 cells x 12 images x " in result.stderr
