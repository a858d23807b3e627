"""Which code made a figure: hashes of the modules that a stage depends on, kept with what it computed."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from compress import artifacts
from compress.artifacts import Report, Sensitivity
from compress.graph import read_model, save_model
from compress.pipeline import code, run_recipe
from compress.pipeline.code import MIXED, STAGES, begin, recipe_settings, source_hash, stage_code, task_modules
from compress.pipeline.stages.finetune import Finetuning
from compress.pipeline.stages.quantize import Quantisation
from compress.pipeline.stages.replace import Replacement
from compress.pipeline.state import BEGUN, Record, Run, Stage
from compress.pipeline.tasks import recipe_task
from compress.recipe import load_recipe
from compress.tasks.classification import DirectionTask
from tests.pipeline import tiny

DETECTION = ("compress.tasks.detection",)
ROOT = Path(code.__file__).parents[2]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('"""Module."""\nx = 1\n"""What x is."""\n', "x = (1)  # a number\n"),
        ("def f(a: int) -> int:\n    '''Add.'''\n    return a + 1\n", "def f(a: int) -> int:\n  return a+1"),
        ("class A:\n    '''A.'''\n\n    b: int\n    '''B.'''\n", "class A:\n    b: int\n"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(one: str, other: str) -> None:
    assert source_hash(one) == source_hash(other)


@pytest.mark.parametrize("other", ["x = 1e-30", "x = -1e-6", "y = 1e-6", "x = 1e-6\nx = 2", "def x(): return 1e-6"])
def test_any_other_change_counts(other: str) -> None:
    assert source_hash("x = 1e-6") != source_hash(other)


def test_a_text_that_is_a_value_counts() -> None:
    assert source_hash("f('a')") != source_hash("f('b')")


def test_hashes_are_the_same_in_every_version_of_python() -> None:
    """Fields that newer versions add are not set, and what is not set is not named (`ast.dump` differs)."""
    tokens = ["Module", "body", "Assign", "targets", "Name", "id", "'x'", ")", "]", "value", "Constant", "value", "1"]
    assert list(code._tokens(code.ast.parse("x = 1")))[: len(tokens)] == tokens


def test_stages_depend_on_what_they_compute_with_and_not_on_how_it_is_shown() -> None:
    teacher, int8, pruned = (stage_code(stage, DETECTION).keys() for stage in ("teacher", "int8", "pruned"))
    for stage in (teacher, int8):
        assert {"compress.tasks.db_loss", "compress.data.db_targets", "compress.train.fit"} <= stage
    assert {"compress.data.scene_augment", "compress.tasks.hmean", "compress.graph.to_torch"} <= teacher
    assert {"compress.quant.pact", "compress.export.qdq", "compress.pipeline.stages.placement"} <= int8 - teacher
    assert {"compress.prune.plan", "compress.prune.groups", "compress.prune.channel_scores"} <= pruned - int8
    for stage in (teacher, int8, pruned):
        parts = {name.split(".")[1] for name in stage}
        assert parts.isdisjoint(("report", "cli", "recipe", "errors", "artifacts", "zoo"))
        assert "compress.tasks.recognition" not in stage
        assert "compress.pipeline.stages.measure" not in stage


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_has_modules_that_exist(stage: str) -> None:
    modules = stage_code(stage, DETECTION)
    assert STAGES[stage][0] in modules
    assert len(modules) > 20
    for name in modules:
        path = ROOT.joinpath(*name.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def sources(name: str, change: Callable[[str], str]) -> code.Read:
    """The package's sources with one module changed."""

    def read(asked: str) -> str | None:
        text = code._read_installed(asked)
        return change(text) if text is not None and asked == name else text

    return read


@pytest.mark.slow
def test_a_changed_loss_changes_the_stages_that_train() -> None:
    read = sources("compress.tasks.db_loss", lambda text: f"{text}\nALPHA = 4.0\n")
    for stage in ("teacher", "finetuned", "int8"):
        assert code.differing(stage_code(stage, DETECTION), stage_code(stage, DETECTION, read)) == (
            "compress.tasks.db_loss",
        )
    rec = ("compress.tasks.recognition",)
    assert stage_code("teacher", rec) == stage_code("teacher", rec, read)


def test_a_reworded_docstring_changes_nothing() -> None:
    read = sources("compress.tasks.db_loss", lambda text: "# New.\n" + text)
    assert stage_code("int8", DETECTION, read) == stage_code("int8", DETECTION)


def test_tasks_are_known_by_what_they_build_on() -> None:
    class Own(DirectionTask):
        pass

    assert task_modules(Own.__new__(Own))[0] == "compress.tasks.classification"


def test_what_was_begun_by_other_code_is_mixed(tmp_path: Path) -> None:
    file = tmp_path / "x.code.json"
    assert begin(file, {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}
    assert begin(file, {"a": "1", "b": "2"}) == {"a": "1", "b": "2"}
    assert begin(file, {"a": "1", "b": "3"}) == {"a": "1", "b": MIXED}
    assert begin(file, {"a": "1", "b": "2"}) == {"a": "1", "b": MIXED}, "it stays so"


def test_settings_leave_out_gates_folders_and_threads(tmp_path: Path) -> None:
    tiny.write_inputs(tmp_path)
    plain = recipe_settings(tiny.recipe(tmp_path))
    assert plain == recipe_settings(tiny.recipe(tmp_path, "other", threads=2, gates={"size_ratio": 0.5}))
    steps = {**tiny.STEPS, "prune": {"target": {"macs": 0.6}, "align": 4}}
    changed = recipe_settings(tiny.recipe(tmp_path, steps=steps))
    assert {key for key in plain if plain[key] != changed[key]} == {"steps.prune.target.macs"}
    assert plain["data.val"] == "val/labels.txt"


def test_a_run_keeps_the_code_of_its_stages(tmp_path: Path) -> None:
    """In each record and in the report; what other code computed is said there."""
    steps = {name: tiny.STEPS[name] for name in ("sensitivity", "prune", "quantize")}
    steps["quantize"] = {**steps["quantize"], "epochs": 0, "distill": 0.0}
    recipe = tiny.recipe(tiny.write_inputs(tmp_path), steps=steps)
    report = run_recipe(recipe, "compress run recipe.yaml")
    task = ("compress.tasks.classification",)
    for stage in ("pruned", "int8"):
        assert artifacts.load(Record, recipe.out / f"{stage}.json").code == stage_code(stage, task)
        assert not (recipe.out / f"{stage}{BEGUN}").exists()
    assert artifacts.load(Sensitivity, recipe.out / "sensitivity.json").code == stage_code("sensitivity", task)
    assert report.code
    assert f"code of the stages: `{report.code}`" in (recipe.out / "report.md").read_text()
    assert report.code in (recipe.out / "report.html").read_text()
    assert not any("computed by" in note for note in report.notes)
    assert report.settings == artifacts.fingerprint(recipe_settings(load_recipe(tmp_path / "recipe.yaml")))

    record = artifacts.load(Record, recipe.out / "pruned.json")
    older = {**record.code, "compress.prune.plan": "000000000000"}
    artifacts.save(dataclasses.replace(record, code=older), recipe.out / "pruned.json")
    data = json.loads((recipe.out / "int8.json").read_text())
    del data["code"], data["beside"], data["checksum"]
    (recipe.out / "int8.json").write_text(json.dumps(data))
    again = run_recipe(recipe, "compress run recipe.yaml")
    said = [note for note in again.notes if "computed by" in note]
    assert said == [
        "pruned: computed by other code than this program has now: compress.prune.plan changed",
        "int8: computed by an earlier version of this program, which did not say by what code",
    ]
    assert again.code == ""
    assert artifacts.load(Report, recipe.out / "report.json").code == ""


@pytest.mark.parametrize(
    ("kind", "name", "left", "mixed"),
    [
        (Finetuning, "finetuned", "finetuned.checkpoint", True),
        (Finetuning, "finetuned", "", False),
        (Finetuning, "finetuned", "pruned.onnx", False),
        (Quantisation, "int8", "int8.placement.json", True),
        (Replacement, "replaced", "activations.json", True),
        (Replacement, "replaced", "", False),
    ],
)
def test_what_other_code_began_counts_where_something_of_it_is_left(
    tmp_path: Path, kind: type[Stage], name: str, left: str, mixed: bool
) -> None:
    """Not where the user deleted the checkpoint to begin again."""
    recipe = tiny.recipe(tiny.write_inputs(tmp_path))
    recipe.out.mkdir()
    task, model = recipe_task(recipe), read_model(tmp_path / "model.onnx")
    now = stage_code(name, task_modules(task))
    other = next(iter(now))
    artifacts.save(code.Code({**now, other: "000000000000"}), recipe.out / f"{name}{BEGUN}")
    if left:
        (recipe.out / left).write_text("so far")
    run = Run(recipe, task, model, model, 1, None)
    stage = Mock(kind, identity=lambda: "identity", compute=lambda file: save_model(model, file))
    stage.name, stage.beside, stage.takes_over = name, kind.beside, kind.takes_over
    run.stage(stage)
    assert run.records[name].code == ({**now, other: MIXED} if mixed else now)
    assert not (recipe.out / f"{name}{BEGUN}").exists()
