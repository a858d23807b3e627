"""Reconstruction on files and in a recipe: what is written, what is said, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import compress.prune.reconstruct as reconstruct_module
from compress import artifacts
from compress.artifacts import PruningPlan
from compress.cli import app
from compress.errors import ArtifactError, CompressError, ModelError, PlanError, RecipeError
from compress.graph import from_torch, load_model, read_model, to_torch
from compress.measure.session import Session
from compress.pipeline import make_task, run_recipe, run_reconstruct, training_images
from compress.pipeline.execution import Execution
from compress.pipeline.stages import reconstruct as stage
from compress.prune.channel_scores import lowest_channels, score_group
from compress.prune.channels import remove_channels
from compress.prune.groups import find_groups
from compress.prune.importance import CRITERIA
from compress.recipe import Recipe, ReconstructStep
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny

STEP = ReconstructStep(images=24)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model pruned by half, with its plan."""
    folder = tiny.write_inputs(tmp_path_factory.mktemp("reconstructing"))
    stepping.prune(
        load_model(folder / "model.onnx"),
        folder / "pruned.onnx",
        target={"ratio": 0.5},
        align=1,
        input_shape=tiny.SHAPE,
    )
    return folder


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    lists = [folder / name / "labels.txt" for name in ("train", "val")]
    return make_task("classification", train=lists[:1], val=lists[1:], input_shape=tiny.SHAPE)


def outputs(model: Path | onnx.ModelProto, task: Task) -> np.ndarray:
    session = Session(model)
    return np.concatenate([session.run(batch) for batch in task.calibration_batches(24, 8)])


def reconstructed(folder: Path, task: Task, out: Path, **changes: object) -> tuple[str, ...]:
    plan = artifacts.load(PruningPlan, folder / "plan.json")
    step = STEP.model_copy(update=changes)
    models = [load_model(folder / name) for name in ("model.onnx", "pruned.onnx")]
    return run_reconstruct(*models, plan, task, out, step, Execution(threads=1)).notes


def test_the_outputs_come_nearer_to_the_original(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.75])
    score = artifacts.Score(0.0, "accuracy", 24)
    monkeypatch.setattr(
        stage, "score_model", lambda *_: dataclasses.replace(score, metric=next(scores))
    )  # which this network's half of chance does not show
    (note,) = reconstructed(folder, task, tmp_path / "out.onnx")
    assert note.startswith(
        "reconstructed 4 layers on 24 images without labels: accuracy 0.5000 -> 0.7500 on the validation data; "
        "a layer's median squared error "
    )
    wanted, pruned, made = (
        outputs(file, task) for file in (folder / "model.onnx", folder / "pruned.onnx", tmp_path / "out.onnx")
    )
    assert np.square(made - wanted).mean() < 0.3 * np.square(pruned - wanted).mean()


def test_what_does_not_help_is_left_out(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([artifacts.Score(0.5, "accuracy", 24), artifacts.Score(0.4, "accuracy", 24)])
    monkeypatch.setattr(stage, "score_model", lambda *_: next(scores))
    (note,) = reconstructed(folder, task, tmp_path / "out.onnx")
    assert note == "reconstruction did not help (accuracy 0.5000 -> 0.4000 on the validation data) and was left out"
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx", task), outputs(folder / "pruned.onnx", task))


def test_memory_decides_how_many_images_are_used(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_images, "MEMORY", 1)
    notes = reconstructed(folder, task, tmp_path / "out.onnx")
    assert "1 images" in notes[0] or "did not help" in notes[0]
    count = [
        len(batch) for batch in training_images.fitting_batches(to_torch(load_model(folder / "model.onnx")), task, 24)
    ]
    assert count == [1]


def made_recipe(folder: Path, out: Path, *steps: str, images: int = 24) -> Recipe:
    """The tiny recipe with some of its steps."""
    settings = {**tiny.STEPS, "reconstruct": {"images": images}}
    return tiny.recipe(folder, str(out / "out"), {name: settings[name] for name in steps})


@pytest.mark.slow
def test_in_a_recipe(folder: Path, tmp_path: Path) -> None:
    recipe = made_recipe(folder, tmp_path, "sensitivity", "prune", "reconstruct", "quantize")
    report = run_recipe(recipe, "")
    assert [stage.stage for stage in report.stages][-3:] == ["pruned", "reconstructed", "int8"]
    file = tmp_path / "out" / "reconstructed.onnx"
    before = file.stat().st_mtime_ns
    run_recipe(recipe, "")
    assert file.stat().st_mtime_ns == before
    shapes = [
        [list(value.dims) for value in read_model(tmp_path / "out" / name).graph.initializer]
        for name in ("pruned.onnx", "reconstructed.onnx")
    ]
    assert shapes[0] == shapes[1]


def test_it_needs_pruning(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"reconstruct: needs a `prune` step before it"):
        made_recipe(folder, tmp_path, "reconstruct", "quantize")


def test_other_settings_are_stale(folder: Path, tmp_path: Path) -> None:
    steps = ("sensitivity", "prune", "reconstruct")
    run_recipe(made_recipe(folder, tmp_path, *steps), "")
    with pytest.raises(ArtifactError, match=r"reconstructed\.json: stale"):
        run_recipe(made_recipe(folder, tmp_path, *steps, images=20), "")


def test_the_command(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    arguments = [
        "reconstruct",
        str(folder / "pruned.onnx"),
        "--original",
        str(folder / "model.onnx"),
        "--train",
        str(folder / "train" / "labels.txt"),
        "--data",
        str(folder / "val" / "labels.txt"),
        "--out",
        str(out),
        "--input",
        "3,16,32",
        "--images",
        "24",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"Written: {out}" in result.stdout
    onnx.checker.check_model(onnx.load(out))
    result = CliRunner().invoke(app, [*arguments, "--plan", str(tmp_path / "no.json")])
    assert result.exit_code == 2
    assert "no.json" in result.stderr


def test_models_that_do_not_belong_together(folder: Path, task: Task, tmp_path: Path) -> None:
    plan = artifacts.load(PruningPlan, folder / "plan.json")
    plain = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 32, 2), nn.Softmax(1))
    other = from_torch(plain, torch.zeros(1, *tiny.SHAPE))
    with pytest.raises(PlanError, match=r"^channel group 'first_first_0"):
        run_reconstruct(other, load_model(folder / "pruned.onnx"), plan, task, tmp_path / "out.onnx", STEP)
    whole = load_model(folder / "model.onnx")
    with pytest.raises(ModelError, match=r"^reconstruct: the models differ in their operators"):
        run_reconstruct(whole, other, plan, task, tmp_path / "out.onnx", STEP)
    assert not (tmp_path / "out.onnx").exists()


def test_a_scan_of_what_stays_after_reconstruction(folder: Path, task: Task, tmp_path: Path) -> None:
    """Readers that make up for a group leave its cells at least as good on the whole; the two scans are not mixed."""
    model = load_model(folder / "model.onnx")
    settings = {"criterion": "fpgm", "ratios": (0.5,), "threads": 1}
    plain = stepping.scan(model, task, tmp_path / "plain", **settings)
    scan = stepping.scan(model, task, tmp_path / "made up", recover="reconstruct", **settings)
    assert scan.curves.keys() == plain.curves.keys()
    assert scan.fingerprint != plain.fingerprint
    with pytest.raises(ArtifactError, match="stale"):
        stepping.scan(model, task, tmp_path / "plain", recover="reconstruct", **settings)


def test_a_scan_by_divergence_reads_no_label(folder: Path, task: Task, tmp_path: Path) -> None:
    """exp(-KL) on training images, by the formula; the original itself has 1."""
    model = load_model(folder / "model.onnx")
    scan = stepping.scan(
        model, task, tmp_path, criterion="fpgm", ratios=(0.5,), images=24, measure="divergence", threads=1
    )
    assert (scan.metric_name, scan.baseline) == ("divergence", pytest.approx(1.0))
    module = to_torch(model)
    groups = find_groups(module, tiny.SHAPE)
    group = groups[0]
    removed = lowest_channels(group, score_group(module, group, CRITERIA["fpgm"]), group.channels // 2)
    pruned = remove_channels(module, groups, {group.name: removed})
    distances = []
    for batch in task.calibration_batches(24, 32):
        with torch.no_grad():
            wanted, found = (each(torch.from_numpy(batch)).double() for each in (module, pruned))
        distances += (wanted * (wanted / found).log()).sum(dim=1).tolist()
    assert scan.curves[group.name].metric["0.5"] == pytest.approx(np.exp(-np.mean(distances)), rel=1e-4)


def test_a_scan_by_agreement_reads_no_label(folder: Path, task: Task, tmp_path: Path) -> None:
    """The share of training images of which both say the same class; other measures do not go on with it."""
    model = load_model(folder / "model.onnx")
    settings = {"criterion": "fpgm", "ratios": (0.5,), "threads": 1, "images": 24}
    scan = stepping.scan(model, task, tmp_path, measure="agreement", **settings)
    assert (scan.metric_name, scan.baseline) == ("agreement", 1.0)
    assert {round(24 * curve.metric["0.5"], 6) % 1 for curve in scan.curves.values()} == {0.0}
    with pytest.raises(ArtifactError, match="stale"):
        stepping.scan(model, task, tmp_path, measure="divergence", **settings)
    with pytest.raises(CompressError, match=r"^sensitivity.side: not with measure: agreement"):
        stepping.scan(model, task, tmp_path, measure="agreement", side=320, **settings)


def test_a_plan_of_another_pruning(folder: Path, task: Task, tmp_path: Path) -> None:
    """The same model pruned otherwise: its plan would put targets of other channels into the layers."""
    model = load_model(folder / "model.onnx")
    stepping.prune(model, tmp_path / "pruned.onnx", target={"ratio": 0.25}, align=1, input_shape=tiny.SHAPE)
    plan = artifacts.load(PruningPlan, tmp_path / "plan.json")
    with pytest.raises(ModelError, match=r"^reconstruct: layer '\S+' of the pruned model has \d+ channels, and"):
        run_reconstruct(model, load_model(folder / "pruned.onnx"), plan, task, tmp_path / "out.onnx", STEP)


def test_layers_of_very_many_inputs_stay_and_are_named(
    folder: Path, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (reconstruct_module, stage):
        monkeypatch.setattr(place, "WIDEST", 60)
    notes = reconstructed(folder, task, tmp_path / "out.onnx")
    assert notes[-1].endswith("as their inputs are more than 60: fc_Gemm_output_0")  # first_first_0 has lost inputs
