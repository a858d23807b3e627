"""A whole recipe on a tiny network: in one go, stopped and gone on, stale, gated, and refused."""

import base64
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

from compress import artifacts
from compress.artifacts import PruningPlan, Report, StageResult
from compress.cli import app
from compress.errors import (
    ArtifactError,
    CompressError,
    DataError,
    ModelError,
    OutputError,
    PlanError,
    RecipeError,
    StaleError,
)
from compress.graph import is_quantised, read_model
from compress.pipeline import run_recipe
from compress.pipeline.stage_settings import StageSettings, remove_results
from compress.pipeline.state import Record, with_stages
from compress.recipe import Recipe
from tests.pipeline import tiny

FILES = ("sensitivity.json", "plan.json", "pruned.onnx", "finetuned.onnx", "int8.onnx")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def whole(inputs: Path) -> Report:
    """A run in one go, into `whole`."""
    return run_recipe(tiny.recipe(inputs, "whole", gates={"size_ratio": 0.9}), "compress run recipe.yaml")


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    """The same inputs in a folder of their own."""
    shutil.copytree(inputs, tmp_path / "inputs", ignore=shutil.ignore_patterns("whole"))
    return tmp_path / "inputs"


def lasting(stages: Sequence[StageResult]) -> list[tuple[Any, ...]]:
    """What a run gives again: all but timings."""
    return [(stage.stage, stage.file, stage.cost, stage.score, stage.parity) for stage in stages]


def test_report(inputs: Path, whole: Report) -> None:
    assert [stage.stage for stage in whole.stages] == ["baseline", "canonical", "pruned", "finetuned", "int8"]
    assert artifacts.load(Report, inputs / "whole" / "report.json") == whole
    sizes = {stage.stage: stage.cost.size_bytes for stage in whole.stages}
    assert sizes["int8"] < sizes["pruned"] < sizes["baseline"]
    macs = {stage.stage: stage.cost.macs for stage in whole.stages}
    assert macs["int8"] == macs["finetuned"] == macs["pruned"] <= 0.7 * macs["baseline"] == 0.7 * macs["canonical"]
    parity = whole.stages[-1].parity
    assert parity is not None
    assert parity.max_steps <= 1.01
    assert all(stage.latency is not None and stage.latency.runs >= 3 for stage in whole.stages)
    assert [(gate.name, gate.passed) for gate in whole.gates] == [("size_ratio", True)]
    assert whole.command == "compress run recipe.yaml"
    plan = artifacts.load(PruningPlan, inputs / "whole" / "plan.json")
    assert whole.plan == {
        name: {
            "channels": group.channels,
            "kept": group.channels - len(group.removed),
            "pruning_ratio": group.pruning_ratio,
        }
        for name, group in plan.groups.items()
    }
    assert plan.latency_precision == "int8"  # the recipe quantises
    assert plan.latency_before is not None
    assert plan.latency_after is not None
    assert 0 < plan.latency_after < plan.latency_before


def test_folder_holds_every_result_and_no_leftovers(inputs: Path, whole: Report) -> None:
    names = {path.name for path in (inputs / "whole").iterdir()}
    assert {*FILES, "canonical.onnx", "report.json", "report.md"} <= names
    assert not [name for name in names if name.endswith(".checkpoint") or name.startswith(".")]
    assert is_quantised(read_model(inputs / "whole" / "int8.onnx"))


def test_speed_and_memory_are_reported(whole: Report) -> None:
    trained = {stage.stage: stage.images_per_second > 0 for stage in whole.stages}
    assert {name for name, is_trained in trained.items() if is_trained} == {"finetuned", "int8"}
    peaks = [stage.peak_memory_bytes for stage in whole.stages if stage.stage in ("pruned", "finetuned", "int8")]
    assert peaks == sorted(peaks)
    assert peaks[0] > 50_000_000  # PyTorch alone is more


def test_again_it_computes_nothing_and_reports_the_same(
    inputs: Path, whole: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (inputs / "whole" / name).stat().st_mtime_ns for name in FILES}

    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    for target in ("prune.run_prune", "finetune.run_finetune", "quantize.run_quantize"):
        monkeypatch.setattr(f"compress.pipeline.stages.{target}", must_not)
    again = run_recipe(tiny.recipe(inputs, "whole", gates={"size_ratio": 0.9}), "again")
    assert lasting(again.stages) == lasting(whole.stages)
    for key in ("seconds", "images_per_second", "peak_memory_bytes"):
        assert [getattr(stage, key) for stage in again.stages] == [getattr(stage, key) for stage in whole.stages]
    assert again.plan == whole.plan
    assert {name: (inputs / "whole" / name).stat().st_mtime_ns for name in FILES} == before


@pytest.mark.parametrize(
    "stops",
    [
        [("accuracy", 2), ("epoch 2/3", 1), ("calibrating", 1), ("epoch 2/2", 2)],
        pytest.param([("accuracy", 6), ("epoch 1/3", 3)], marks=pytest.mark.slow),
    ],
)
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(
    folder: Path, inputs: Path, whole: Report, stops: list[tuple[str, int]]
) -> None:
    """Inside the scan, inside fine-tuning, inside calibration and inside quantisation-aware training."""
    for text, count in stops:
        with pytest.raises(KeyboardInterrupt):
            run_recipe(tiny.recipe(folder), "", tiny.stop_when(text, count))
        assert not (folder / "out" / "int8.onnx").exists()
    report = run_recipe(tiny.recipe(folder), "")
    for name in FILES:
        assert (folder / "out" / name).read_bytes() == (inputs / "whole" / name).read_bytes(), name
    # The baseline is named as the recipe names it; all else is the same.
    assert [found[2:] for found in lasting(report.stages)] == [found[2:] for found in lasting(whole.stages)]


@pytest.mark.parametrize("stage", [pytest.param("finetuned", marks=pytest.mark.slow), "int8"])
def test_killed_before_a_record_is_written_no_training_is_lost(
    inputs: Path, whole: Report, folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    save, told = artifacts.save, list[str]()

    def killed(artefact: Any, path: Path) -> None:
        if path.name == f"{stage}.json":
            raise KeyboardInterrupt
        save(artefact, path)

    monkeypatch.setattr(artifacts, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run_recipe(tiny.recipe(folder), "")
    assert (folder / "out" / f"{stage}.checkpoint").exists()
    monkeypatch.setattr(artifacts, "save", save)
    run_recipe(tiny.recipe(folder), "", lambda done, total, text: told.append(text))
    epochs = {"finetuned": 3, "int8": 2}
    assert not [text for text in told if f"epoch 1/{epochs[stage]}" in text]
    assert not list((folder / "out").glob("*.checkpoint"))
    for name in FILES:
        assert (folder / "out" / name).read_bytes() == (inputs / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("lost", ["pruned.onnx", "plan.json", "int8.json"])
def test_a_lost_file_is_made_again(inputs: Path, whole: Report, folder: Path, lost: str) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    (folder / "out" / lost).unlink()
    run_recipe(tiny.recipe(folder, steps=tiny.STEPS), "")
    for name in FILES:
        assert (folder / "out" / name).read_bytes() == (inputs / "whole" / name).read_bytes(), name


def test_the_original_fine_tuned_first_is_the_teacher_and_a_row_of_the_report(
    folder: Path, inputs: Path, whole: Report
) -> None:
    steps = {"teacher": {"epochs": 6, "batch_size": 6, "lr": 0.01, "distill": 0.0}, **tiny.STEPS}
    report = run_recipe(tiny.recipe(folder, steps=steps), "")
    assert [stage.stage for stage in report.stages][:3] == ["baseline", "canonical", "teacher"]
    baseline, teacher = report.stages[0], report.stages[2]
    assert teacher.cost.macs == baseline.cost.macs
    assert teacher.score.metric > baseline.score.metric
    assert (folder / "out" / "pruned.onnx").read_bytes() == (inputs / "whole" / "pruned.onnx").read_bytes()
    for stage in ("finetuned", "int8"):  # they learn from it, so they are other trainings
        records = [artifacts.load(Record, out / f"{stage}.json") for out in (folder / "out", inputs / "whole")]
        assert records[0].fingerprint != records[1].fingerprint


# --- stale ------------------------------------------------------------------------------------------------------


def one_line(recipe: Recipe, kind: type[CompressError]) -> str:
    """The error, which is one line and touches nothing that was computed before."""
    before = {path: path.read_bytes() for path in recipe.out.rglob("*") if path.is_file()}
    with pytest.raises(kind) as caught:
        run_recipe(recipe, "")
    assert "\n" not in str(caught.value)
    for path, content in before.items():
        assert path.read_bytes() == content
    return str(caught.value)


@pytest.mark.parametrize(
    ("step", "changes", "file", "later"),
    [
        ("sensitivity", {"criterion": "l2"}, "sensitivity.json", ""),
        ("prune", {"align": 8}, "pruned.json", ", and what was made of it (finetuned.json, int8.json)"),
        ("finetune", {"lr": 0.1}, "finetuned.json", ", and what was made of it (int8.json)"),
        ("quantize", {"pact": {"l2": 0.5}}, "int8.json", ""),
    ],
)
def test_changed_settings_are_stale(
    inputs: Path, whole: Report, folder: Path, step: str, changes: dict[str, Any], file: str, later: str
) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    steps = {**tiny.STEPS, step: {**tiny.STEPS[step], **changes}}
    text = one_line(tiny.recipe(folder, steps=steps), ArtifactError)
    assert text.startswith(f"{folder / 'out' / file}: stale: computed from another model, data or settings")
    assert f"Delete it{later}, or choose another --out folder. Changed: steps.{step}." in text
    assert text.endswith(f"`compress run RECIPE --redo {step}` computes it again, with all that follows from it.")


def as_if_run_in(folder: Path, inputs: Path) -> None:
    """The finished run, in another folder, with its settings' paths there."""
    shutil.copytree(inputs / "whole", folder / "out")
    noted = folder / "out" / "settings.json"
    stages = artifacts.load(StageSettings, noted).stages
    moved = {
        stage: {key: value.replace(f"{inputs.name}/", f"{folder.name}/") for key, value in settings.items()}
        for stage, settings in stages.items()
    }
    artifacts.save(StageSettings(moved), noted)


def test_a_stale_result_names_the_settings_that_changed(inputs: Path, whole: Report, folder: Path) -> None:
    as_if_run_in(folder, inputs)
    steps = {**tiny.STEPS, "finetune": {**tiny.STEPS["finetune"], "lr": 0.1}, "quantize": {"epochs": 1}}
    text = one_line(tiny.recipe(folder, steps=steps), StaleError)
    lr = tiny.STEPS["finetune"]["lr"]
    assert f"Changed: steps.finetune.lr was {lr}, now 0.1. `" in text  # a later step is not its cause


def test_a_stale_result_whose_settings_are_the_same_says_so(inputs: Path, whole: Report, folder: Path) -> None:
    as_if_run_in(folder, inputs)
    labels = folder / "val" / "labels.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    assert "Its settings did not change: a file that they name did." in one_line(tiny.recipe(folder), StaleError)


def test_a_stale_result_of_an_earlier_version_says_how_to_compute_it_again(
    inputs: Path, whole: Report, folder: Path
) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    (folder / "out" / "settings.json").unlink()
    steps = {**tiny.STEPS, "quantize": {**tiny.STEPS["quantize"], "pact": {"l2": 0.5}}}
    text = one_line(tiny.recipe(folder, steps=steps), StaleError)
    assert " or choose another --out folder. `compress run RECIPE --redo quantize` computes it again" in text


@pytest.mark.parametrize(
    ("step", "gone"),
    [
        ("sensitivity", {"sensitivity", "plan", "pruned", "finetuned", "int8"}),
        ("prune", {"plan", "pruned", "finetuned", "int8"}),
        ("quantize", {"int8"}),
    ],
)
def test_results_of_a_step_and_of_those_behind_it_are_removed_and_made_again(
    inputs: Path, whole: Report, folder: Path, step: str, gone: set[str]
) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    out, recipe = folder / "out", tiny.recipe(folder)
    before = {file.name for file in out.iterdir()}
    remove_results(recipe, step)
    removed = before - {file.name for file in out.iterdir()}
    assert {name.split(".")[0] for name in removed} == gone
    run_recipe(recipe, "")
    for name in FILES:
        assert (out / name).read_bytes() == (inputs / "whole" / name).read_bytes(), name


def test_a_step_that_the_recipe_lacks_removes_nothing(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    before = sorted((folder / "out").iterdir())
    with pytest.raises(RecipeError, match=r"^--redo: the recipe has no step 'report'"):
        remove_results(tiny.recipe(folder), "report")
    assert sorted((folder / "out").iterdir()) == before


def test_a_changed_setting_and_redo_on_the_command_line(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    tiny.recipe(folder)  # writes recipe.yaml
    command = ["run", str(folder / "recipe.yaml"), "--set", f"out={folder / 'out'}", "--set", "finetune.lr=0.02"]
    refused = CliRunner().invoke(app, command)
    assert refused.exit_code == 2
    assert "steps.finetune.lr was 0.01, now 0.02" in " ".join(refused.output.split())
    again = CliRunner().invoke(app, [*command, "--redo", "finetune"])
    assert again.exit_code == 0, again.output
    settings = artifacts.load(StageSettings, folder / "out" / "settings.json").stages
    assert settings["finetune"]["steps.finetune.lr"] == "0.02" != settings["prune"]["steps.finetune.lr"]


def test_outputs_that_cannot_be_trained_are_refused_before_the_scan(folder: Path) -> None:
    task = {"kind": "classification", "input": list(tiny.SHAPE), "directions": True, "outputs": "log_probabilities"}
    assert "not log-probabilities" in one_line(tiny.recipe(folder, task=task), ModelError)
    assert not (folder / "out" / "sensitivity.json").exists()


def test_a_scan_of_another_model_is_stale(inputs: Path, whole: Report, folder: Path) -> None:
    (folder / "out").mkdir()
    shutil.copy(inputs / "whole" / "pruned.onnx", folder / "model.onnx")
    shutil.copy(inputs / "whole" / "sensitivity.json", folder / "out")
    assert "sensitivity.json: stale: " in one_line(tiny.recipe(folder), ArtifactError)


def test_other_data_are_stale(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    labels = folder / "val" / "labels.txt"
    labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    assert "sensitivity.json: stale: " in one_line(tiny.recipe(folder), ArtifactError)


def test_a_file_changed_by_hand_is_not_built_upon(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    shutil.copy(folder / "out" / "canonical.onnx", folder / "out" / "pruned.onnx")
    assert "pruned.onnx: stale" in one_line(tiny.recipe(folder), ArtifactError)


def test_a_plan_changed_by_hand_is_refused(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    file = folder / "out" / "plan.json"
    file.write_text(file.read_text().replace('"align": 4', '"align": 8'))
    text = one_line(tiny.recipe(folder), ArtifactError)
    assert text.startswith(f"{file}: changed since pruned.onnx was made by it")
    assert f"`compress prune MODEL --plan {file} --out FILE`" in text
    (folder / "out" / "pruned.json").unlink()  # as if the run had been killed before it was written
    assert f"{file}: edited by hand" in one_line(tiny.recipe(folder), ArtifactError)


def test_the_plan_of_another_run_is_refused(inputs: Path, whole: Report, folder: Path) -> None:
    """It is as this program wrote it, but this run's model was not made by it."""
    shutil.copytree(inputs / "whole", folder / "out")
    file = folder / "out" / "plan.json"
    artifacts.save(replace(artifacts.load(PruningPlan, file), macs_after=1), file)
    assert f"{file}: changed since pruned.onnx was made by it" in one_line(tiny.recipe(folder), ArtifactError)


def test_a_record_of_an_earlier_version_does_not_vouch_for_the_plan(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    out = folder / "out"
    artifacts.save(replace(artifacts.load(Record, out / "pruned.json"), beside={}), out / "pruned.json")
    assert "pruned.json: an earlier version wrote it" in one_line(tiny.recipe(folder), ArtifactError)
    for name in ("pruned.json", "plan.json"):
        (out / name).unlink()
    run_recipe(tiny.recipe(folder), "")
    for name in FILES:
        assert (out / name).read_bytes() == (inputs / "whole" / name).read_bytes(), name


def test_a_second_run_on_the_same_folder_is_refused(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    with artifacts.lock(folder / "out"):
        text = one_line(tiny.recipe(folder), OutputError)
    assert text.startswith(f"{folder / 'out'}: in use by process {os.getpid()} on ")
    assert text.endswith("Wait until that has ended, or choose another --out.")


# --- refused ----------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "out").write_text("a file")
    assert one_line(tiny.recipe(folder), OutputError) == (
        f"{folder / 'out'}: cannot be written (File exists). Choose another folder with --out."
    )
    assert "cannot be written" in one_line(tiny.recipe(folder, "out/deeper"), OutputError)


def test_validation_data_of_zero_length(folder: Path) -> None:
    (folder / "val" / "labels.txt").write_text("")
    assert f"{folder / 'val' / 'labels.txt'}" in one_line(tiny.recipe(folder), DataError)
    assert not list((folder / "out").iterdir())


def test_an_align_that_leaves_every_layer_whole(folder: Path) -> None:
    steps = {"prune": {"target": {"ratio": 0.3}, "align": 16}}
    text = one_line(tiny.recipe(folder, steps=steps), PlanError)
    assert "align" in text
    assert not (folder / "out" / "plan.json").exists()


def test_a_missing_model(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    with pytest.raises(RecipeError, match=r"model: .*model\.onnx: no such file"):
        tiny.recipe(folder)


# --- other recipes ----------------------------------------------------------------------------------------------


def test_only_quantised_from_a_factory(folder: Path) -> None:
    """A PyTorch network has no file, so its export is the baseline."""
    steps = {"quantize": {"epochs": 0, "batch_size": 6, "calibration": 4, "optimize": "size"}}
    report = run_recipe(tiny.recipe(folder, steps=steps, model="tests.pipeline.tiny:build"), "")
    assert [(stage.stage, stage.file) for stage in report.stages] == [
        ("baseline", "baseline.onnx"),
        ("canonical", "canonical.onnx"),
        ("int8", "int8.onnx"),
    ]
    assert report.stages[0].cost == report.stages[1].cost


def test_beside_onnxruntimes_own_int8(folder: Path) -> None:
    steps = {"quantize": {"epochs": 0, "batch_size": 6, "calibration": 4, "optimize": "size"}}
    compare = {"rounds": 3, "onnxruntime": True}
    gates = {"speedup_over_onnxruntime": 1e-6}
    report = run_recipe(tiny.recipe(folder, steps=steps, compare=compare, gates=gates), "")
    assert [stage.stage for stage in report.stages] == ["baseline", "canonical", "onnxruntime int8", "int8"]
    assert is_quantised(read_model(folder / "out" / "onnxruntime_int8.onnx"))
    assert any("onnxruntime int8: quantize_static" in note for note in report.notes)
    assert report.gates[0].passed


def test_weights_beside_the_model_count(folder: Path) -> None:
    """What is deployed of the original is two files; the size gate compares with both."""
    model = read_model(folder / "model.onnx")
    onnx.save_model(model, folder / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "weights.data")]
    assert sizes[1] > 1000
    steps = {"quantize": {"epochs": 0, "batch_size": 6, "calibration": 4, "optimize": "size"}}
    compare = {"rounds": 3, "onnxruntime": True}
    report = run_recipe(tiny.recipe(folder, steps=steps, compare=compare, gates={"size_ratio": 9.0}), "")
    assert report.stages[0].cost.size_bytes == sum(sizes)
    result = (folder / "out" / "int8.onnx").stat().st_size
    assert report.stages[-1].cost.size_bytes == result
    assert report.gates[0].measured == result / sum(sizes)


def test_only_scanned(folder: Path) -> None:
    report = run_recipe(tiny.recipe(folder, steps={"sensitivity": {"ratios": [0.5], "images": 4}}), "")
    assert [stage.stage for stage in report.stages] == ["baseline", "canonical"]


# --- pictures ---------------------------------------------------------------------------------------------------


def test_the_report_shows_what_the_result_got_wrong_beside_the_original(inputs: Path, whole: Report) -> None:
    out, gallery = inputs / "whole", whole.gallery
    assert gallery is not None
    assert (gallery.models, gallery.images) == (("baseline", "int8"), 24)
    metrics = {stage.stage: stage.score.metric for stage in whole.stages}
    assert [1 - wrong / 24 for wrong in gallery.wrong] == pytest.approx([metrics["baseline"], metrics["int8"]])
    assert 0 < len(gallery.pictures) <= 8
    errors = [picture.readings[-1].error for picture in gallery.pictures]
    assert errors == sorted(errors, reverse=True)
    page, text = ((out / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    for picture in gallery.pictures:
        content = (out / picture.file).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert f'src="data:image/png;base64,{base64.b64encode(content).decode()}"' in page
        assert f"({picture.file})" in text


def test_shown_again_without_the_model(inputs: Path, whole: Report, folder: Path) -> None:
    shutil.copytree(inputs / "whole", folder / "out")
    page = folder / "out" / "report.html"
    before = re.findall(r"<h2>Worst cases.*?<h2>", page.read_text(encoding="utf-8"), re.DOTALL)
    page.unlink()
    (folder / "model.onnx").unlink()
    found = CliRunner().invoke(app, ["report", str(folder / "out")])
    assert found.exit_code == 0, found.output
    assert "Against baseline, int8 loses" in found.stdout
    assert re.findall(r"<h2>Worst cases.*?<h2>", page.read_text(encoding="utf-8"), re.DOTALL) == before != []


@pytest.mark.parametrize("damaged", [False, True])
def test_fewer_pictures_or_none(inputs: Path, whole: Report, folder: Path, damaged: bool) -> None:
    """Those of an earlier run are removed, if its report still says which they are."""
    shutil.copytree(inputs / "whole", folder / "out")
    if damaged:
        (folder / "out" / "report.json").write_text("{")
    report = run_recipe(tiny.recipe(folder, compare={"rounds": 3, "images": 1}), "")
    assert report.gallery is not None
    assert len(report.gallery.pictures) == 1
    assert (len(list((folder / "out" / "images").iterdir())) == 1) is not damaged
    assert run_recipe(tiny.recipe(folder, compare={"rounds": 3, "images": 0}), "").gallery is None


# --- from the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ratio", "code"), [(0.9, 0), (0.01, 1)])
def test_gates_decide_the_exit_code(inputs: Path, whole: Report, ratio: float, code: int) -> None:
    tiny.recipe(inputs, "whole")  # writes recipe.yaml
    arguments = [
        "run",
        str(inputs / "recipe.yaml"),
        "--out",
        str(inputs / "whole"),
        "--set",
        f"gates.size_ratio={ratio}",
    ]
    found = CliRunner().invoke(app, [*arguments, "--set", "gates.metric_min=0.001"])
    assert found.exit_code == code, found.output
    assert ("Gates missed: size_ratio." in found.stderr) == (code == 1)
    gates = artifacts.load(Report, inputs / "whole" / "report.json").gates
    assert {gate.name: gate.passed for gate in gates} == {"size_ratio": code == 0, "metric_min": True}


def test_interrupted_it_says_how_to_go_on(inputs: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.pipeline.stages.finetune.run_finetune", _interrupt)
    tiny.recipe(folder)
    found = CliRunner().invoke(app, ["run", str(folder / "recipe.yaml"), "--out", str(folder / "out")])
    assert found.exit_code == 130
    assert "holds what is done; the same command goes on from there." in found.stderr
    assert (folder / "out" / "pruned.onnx").exists()


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_a_stale_folder_is_one_line_and_exit_code_2(inputs: Path, whole: Report) -> None:
    tiny.recipe(inputs, "whole")
    arguments = ["run", str(inputs / "recipe.yaml"), "--out", str(inputs / "whole"), "--set", "prune.align=8"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    assert [line for line in found.stderr.splitlines() if line.startswith("Error: ")] == [
        line for line in found.stderr.splitlines() if "stale" in line
    ]
    assert "Traceback" not in found.output


@pytest.mark.slow
def test_images_without_labels_shape_training_and_not_the_scan(folder: Path) -> None:
    """Another image makes what was trained with it stale, but not the scan, whose scores it does not touch."""
    steps = {name: tiny.STEPS[name] for name in ("sensitivity", "prune", "finetune")}
    lists = {"train": "train/labels.txt", "val": "train/labels.txt", "allow_overlap": True}
    plain = run_recipe(tiny.recipe(folder, "plain", steps, data=lists), "")
    shutil.copytree(folder / "plain", folder / "both")
    for name in ("finetuned.onnx", "finetuned.json"):
        (folder / "both" / name).unlink()
    told: list[str] = []
    given = tiny.recipe(folder, "both", steps, data={**lists, "unlabelled": "val"})
    both = run_recipe(given, "", lambda done, total, message: told.append(message))
    assert any("without labels" in message for message in told)
    assert not any("sensitivity" in message for message in told)
    trained = [(folder / out / "finetuned.onnx").read_bytes() for out in ("plain", "both")]
    assert trained[0] != trained[1]
    assert plain.stages[2].file == both.stages[2].file == "pruned.onnx"
    assert run_recipe(given, "").stages[-1].score == both.stages[-1].score
    image = next((folder / "val").rglob("*.png"))
    image.write_bytes(next((folder / "train").rglob("*.png")).read_bytes())
    with pytest.raises(ArtifactError, match=r"finetuned\.json"):
        run_recipe(given, "")


def test_progress_says_the_stage_by_what_stages_leave(folder: Path) -> None:
    told: list[str] = []
    recipe = tiny.recipe(folder)
    on_progress = with_stages(lambda done, total, message: told.append(message), recipe)
    recipe.out.mkdir()
    for name in ("", "pruned.code.json", "pruned.json", "finetuned.json", "int8.json"):
        if name:
            (recipe.out / name).touch()
        on_progress(1, 2, "x")
    names = ("sensitivity", "prune", "finetune", "quantize", "report")
    assert told == [f"stage {number} of 5, {name}: x" for number, name in enumerate(names, start=1)]


@pytest.mark.slow
def test_a_leftover_plan_of_another_model_is_made_anew(folder: Path) -> None:
    """Somebody changed the model, and deleted what was called stale."""
    recipe = tiny.recipe(folder)
    run_recipe(recipe, "")
    plan = artifacts.load(PruningPlan, recipe.out / "plan.json")
    artifacts.save(replace(plan, model="another"), recipe.out / "plan.json")
    for name in ("pruned.json", "finetuned.json", "int8.json"):
        (recipe.out / name).unlink()
    run_recipe(recipe, "")
    assert artifacts.load(PruningPlan, recipe.out / "plan.json") == plan


def test_labelling_is_a_stage_of_its_own(folder: Path) -> None:
    told: list[str] = []
    recipe = tiny.recipe(folder)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"images": (folder,)})})
    on_progress = with_stages(lambda done, total, message: told.append(message), recipe, {"label": 60.0})
    on_progress(1, 2, "labelling images with the original")
    (recipe.out / "labels").mkdir(parents=True)
    (recipe.out / "labels" / "labels.json").touch()
    on_progress(1, 2, "x")
    assert told == [
        "stage 1 of 6 (run: at least 60 s left), label: labelling images with the original",
        "stage 2 of 6, sensitivity: x",
    ]
