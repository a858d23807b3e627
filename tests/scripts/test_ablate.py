"""`scripts/ablate.py`: rows share what they have in common, can be stopped, and end in one table."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import artifacts
from compress.artifacts import Cost, Latency, Machine, PruningPlan, Score, StageResult
from compress.errors import ArtifactError, CompressError, TrainingError
from compress.graph import from_torch, save_model
from compress.recipe import TeacherStep, load_recipe
from tests.pipeline import tiny

SCRIPTS = Path(__file__).parents[2] / "scripts"
FILES = ("plan.json", "pruned.onnx", "finetuned.onnx", "int8.onnx")


class Columns(nn.Module):
    """An LSTM over the columns of an image, and a class for its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(3, 8, (16, 4), (1, 4)), nn.LSTM(8, 32, bidirectional=True)
        self.fc = nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        columns, _ = self.rnn(nn.functional.relu(self.conv(x)).mean(2).permute(2, 0, 1))
        return torch.softmax(self.fc(columns[-1]), 1)


@pytest.fixture(scope="module")
def ablate() -> Any:
    """The script, imported as it imports its own parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import ablate

        yield ablate


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("ablate"))
    tiny.recipe(folder)
    return folder


@pytest.fixture(scope="module")
def whole(ablate: ModuleType, inputs: Path) -> Path:
    """Some rows, run in one go."""
    return run(ablate, inputs, "whole", "--rows", "fp32,control,base,uniform,plain-qat,pact-l2-1e-3,no-distill")


def run(ablate: ModuleType, inputs: Path, out: str, *options: str, code: int = 0) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ablate.py", str(inputs / "recipe.yaml"), "--out", str(inputs / out), *options])
        assert ablate.main() == code
    return inputs / out


def ablation(ablate: ModuleType, inputs: Path, out: str, on_progress: Any = lambda *_: None) -> Any:
    base = load_recipe(inputs / "recipe.yaml", [f"out={inputs / out / 'base'}"])
    return ablate.Ablation(inputs / "recipe.yaml", (), inputs / out, base, on_progress)


def row(ablate: ModuleType, folder: Path, name: str) -> Any:
    return artifacts.load(ablate.Result, folder / "rows" / f"{name}.json")


def same(one: Path, other: Path, *names: str) -> list[bool]:
    return [(one / name).read_bytes() == (other / name).read_bytes() for name in names]


# --- rows -------------------------------------------------------------------------------------------------------


def test_what_a_row_has_in_common_with_the_recipe_is_the_recipes_own_file(whole: Path) -> None:
    assert same(whole / "plain-qat", whole / "base", *FILES[:3]) == [True] * 3
    assert same(whole / "no-distill", whole / "base", *FILES[:3]) == [True] * 3  # the tiny recipe fine-tunes without
    records = [json.loads((whole / name / "int8.json").read_text()) for name in ("base", "plain-qat", "no-distill")]
    assert len({record["fingerprint"] for record in records}) == 3
    assert same(whole / "pact-l2-1e-3", whole / "base", *FILES) == [True] * 4  # the recipe's own l2


def test_the_table_has_every_row_in_order_and_how_it_was_measured(ablate: ModuleType, whole: Path) -> None:
    data = json.loads((whole / "ablation.json").read_text())
    names = [each["name"] for each in data["rows"]]
    assert names == ["fp32", "control", "base", "uniform", "no-distill", "plain-qat", "pact-l2-1e-3"]
    table = (whole / "ablation.md").read_text()
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(names)
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines[2:])
    assert f"{row(ablate, whole, 'base').int8.score.metric:.4f}" in lines[2 + names.index("base")]
    assert "on 24 validation images" in table
    assert "onnxruntime 1." in table


def test_the_deployed_row_is_the_models_own_score(ablate: ModuleType, whole: Path) -> None:
    report = json.loads((whole / "base" / "report.json").read_text())
    deployed = row(ablate, whole, "fp32").fp32
    assert deployed.score.metric == report["stages"][0]["score"]["metric"]
    assert deployed.cost.size_bytes == report["stages"][0]["cost"]["size_bytes"]


def test_the_control_is_trained_as_long_as_the_recipe_and_keeps_every_channel(ablate: ModuleType, whole: Path) -> None:
    control = row(ablate, whole, "control")
    assert control.settings == ("finetune.epochs=5",)  # 3 + 2
    assert control.fp32.cost.macs == row(ablate, whole, "fp32").fp32.cost.macs
    assert control.int8 is None


def test_uniform_has_one_ratio_and_needs_no_scan(whole: Path) -> None:
    plan = artifacts.load(PruningPlan, whole / "uniform" / "plan.json")
    asked = [group.pruning_ratio_asked for group in plan.groups.values()]
    assert max(asked) - min(asked) < 1e-6
    assert not (whole / "uniform" / "sensitivity.json").exists()


def test_what_builds_on_another_step_is_not_shared(ablate: ModuleType, inputs: Path) -> None:
    """Leaving the teacher out changes training, not the scan; another scan changes all that follows."""
    given = ablation(ablate, inputs, "shared")
    lesson = TeacherStep(epochs=1)
    base = given.base.model_copy(update={"steps": (lesson, *given.base.steps)})
    assert ablate.shared_steps(base, base) == ["teacher", "sensitivity", "prune", "finetune", "quantize"]
    assert ablate.shared_steps(base, given.base) == ["sensitivity", "prune"]
    assert ablate.shared_steps(given.base, given.base) == ["sensitivity", "prune", "finetune", "quantize"]
    no_scan = base.model_copy(update={"steps": (lesson, *given.base.steps[1:])})
    assert ablate.shared_steps(base, no_scan) == ["teacher"]


@pytest.mark.parametrize("macs", [0.5, 0.6, 0.7, 0.8])
def test_the_uniform_share_is_never_more_than_a_hundredth_above_the_plan(
    ablate: ModuleType, inputs: Path, macs
) -> None:
    recipe = tiny.recipe(inputs, steps={**tiny.STEPS, "prune": {"target": {"macs": macs}, "align": 1}})
    tiny.recipe(inputs)  # the file as it was
    plan = PruningPlan("", "fpgm", 1, {}, 208_128, round(macs * 208_128), 0, 0, {})
    share, left = ablate.uniform_share(recipe, plan)
    assert 0.9 * plan.macs_after <= left <= 1.01 * plan.macs_after
    assert macs <= share + 1e-5 <= 1.0101 * macs


def test_rows_for_what_only_some_recipes_have(ablate: ModuleType, inputs: Path) -> None:
    plain = tiny.recipe(inputs)
    names = {each.name for each in ablate.all_rows(plain)}
    assert not names & {"lstm-float", "first-teacher", "control-alone"}
    richer = plain.model_copy(
        update={
            "task": plain.task.model_copy(update={"kind": "recognition"}),
            "steps": tuple(step.model_copy(update={"distill": 1.0}) for step in plain.steps),
        }
    )
    more = {each.name for each in ablate.all_rows(richer)} - names
    assert more == {"lstm-float", "lstm-weights", "lstm-dynamic", "control-alone"}


def test_detectors_have_rows_by_macs_and_one_that_is_not_pruned(ablate: ModuleType, inputs: Path) -> None:
    """The published table: -20, -35, -46 and -60 % MACs, by sensitivity and with one ratio, in float; PACT alone."""
    plain = tiny.recipe(inputs)
    detection = plain.model_copy(update={"task": plain.task.model_copy(update={"kind": "detection"})})
    rows = {each.name: each for each in ablate.all_rows(detection)}
    shares = {name: each for name, each in rows.items() if name.startswith("macs-")}
    assert [each.title.split(", ratios")[0] for each in shares.values()][::2] == [
        f"FPGM, -{percent}% MACs" for percent in (20, 35, 46, 60)
    ]
    assert shares["macs-54"].settings == shares["macs-54-uniform"].settings == ("prune.target={macs: 0.54}",)
    assert all("quantize" in each.without for each in shares.values())
    assert [("sensitivity" in each.without) for each in shares.values()] == [False, True] * 4
    assert rows["unpruned-int8"].without == ("sensitivity", "prune")


@pytest.mark.slow
def test_a_teacher_is_trained_once(ablate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows that learn from it take the base's; the one that does not, and those without distillation, have none."""
    tiny.write_inputs(tmp_path, 6)
    lesson = {"epochs": 1, "batch_size": 6, "lr": 0.01}
    tiny.recipe(tmp_path, steps={"teacher": lesson, **tiny.STEPS})
    folder = run(ablate, tmp_path, "out", "--rows", "teacher,control,first-teacher,uniform")
    lesson_only = row(ablate, folder, "teacher")
    assert lesson_only.fp32.file == "teacher.onnx"
    assert lesson_only.int8 is None
    assert same(folder / "control", folder / "base", "teacher.onnx") == [True]
    assert same(folder / "uniform", folder / "base", "teacher.onnx") == [True]
    assert not (folder / "first-teacher" / "teacher.onnx").exists()
    assert same(folder / "first-teacher", folder / "base", *FILES[:2]) == [True] * 2  # pruning asks for no teacher
    assert "no `teacher`" in (folder / "ablation.md").read_text()


def test_every_row_is_a_valid_recipe(ablate: ModuleType, inputs: Path) -> None:
    given = ablation(ablate, inputs, "valid")
    recipes = {each.name: given.recipe(each) for each in ablate.all_rows(given.base) if each.name != "uniform"}
    assert len(recipes) > 8
    assert len({recipe.out for recipe in recipes.values()}) == len(recipes)


@pytest.mark.slow
def test_lstm_forms_are_files_of_one_network(ablate: ModuleType, tmp_path: Path, monkeypatch) -> None:
    """Trained once; the form that the recipe itself chose gives the recipe's own bytes."""
    tiny.write_inputs(tmp_path, 6)
    save_model(from_torch(Columns().eval(), torch.zeros(1, *tiny.SHAPE)), tmp_path / "model.onnx")
    tiny.recipe(tmp_path, steps={**tiny.STEPS, "prune": {"target": {"macs": 0.7}, "align": 1}})
    given = ablation(ablate, tmp_path, "forms")
    base = ablate.run_row(given, ablate.Row("base", ""))
    rows = {
        form: ablate.Row(f"lstm-{form}", "", (f"quantize.recurrent={form}",))
        for form in ("float", "weights", "dynamic")
    }
    results = {"float": ablate.run_row(given, rows.pop("float"))}

    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("compress.tasks.classification.DirectionTask.train_batches", must_not)
    results |= {form: ablate.run_row(given, each) for form, each in rows.items()}
    assert results["weights"].int8.cost.size_bytes < results["float"].int8.cost.size_bytes
    assert results["weights"].fp32.score == results["float"].fp32.score == base.fp32.score
    (chosen,) = (note.split()[2].rstrip(",") for note in base.int8.notes)
    assert chosen in results
    assert same(given.out / f"lstm-{chosen}", given.out / "base", "int8.onnx") == [True]
    assert results["float"].int8.parity.max_steps <= 1.01


def test_forms_of_a_network_without_lstm_are_no_result(ablate: ModuleType, inputs: Path, whole: Path) -> None:
    given = ablation(ablate, inputs, "whole")
    found = ablate.run_row(given, ablate.Row("lstm-weights", "", ("quantize.recurrent=weights",)))
    assert found.failed == "quantize.recurrent: weights: no layer of the model can have this form"


# --- again, stopped, stale --------------------------------------------------------------------------------------


def test_again_nothing_is_computed(
    ablate: ModuleType, inputs: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    before = (whole / "ablation.json").read_bytes()
    for name in ("run_recipe", "score_deployed", "uniform_share"):
        monkeypatch.setattr(ablate, name, must_not)
    run(ablate, inputs, "whole", "--rows", "fp32,control,uniform,base")
    assert (whole / "ablation.json").read_bytes() == before


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_files(ablate: ModuleType, inputs: Path, whole: Path) -> None:
    for text, count in (("accuracy", 2), ("epoch 2/3", 1), ("epoch 2/2", 2)):
        stopping = ablation(ablate, inputs, "stopped", tiny.stop_when(text, count))
        with pytest.raises(KeyboardInterrupt):
            ablate.run_row(stopping, ablate.Row("plain-qat", "", ("quantize.pact.enabled=false",)))
    folder = run(ablate, inputs, "stopped", "--rows", "plain-qat")
    assert same(folder / "plain-qat", whole / "plain-qat", *FILES) == [True] * 4
    assert not (folder / "base" / "int8.onnx").exists()  # not needed for that row


@pytest.mark.slow
def test_a_run_that_is_there_already_serves_as_base(ablate: ModuleType, inputs: Path, whole: Path, monkeypatch) -> None:
    monkeypatch.setattr("compress.pipeline.stages.finetune.run_finetune", None)
    folder = run(ablate, inputs, "given", "--rows", "plain-qat", "--base", str(whole / "base"))
    assert same(folder / "plain-qat", whole / "plain-qat", *FILES) == [True] * 4


def test_results_of_another_recipe_are_refused(ablate: ModuleType, inputs: Path, whole: Path) -> None:
    with pytest.raises(ArtifactError, match=r"fp32.json: stale"):
        run(ablate, inputs, "whole", "--rows", "fp32", "--set", "finetune.epochs=4")


def test_a_training_that_fails_is_a_result(ablate: ModuleType, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise TrainingError("loss is nan in epoch 1, step 2")

    monkeypatch.setattr(ablate, "run_recipe", fail)
    folder = run(ablate, inputs, "failing", "--rows", "fp32,control", code=1)
    assert row(ablate, folder, "control").failed == "loss is nan in epoch 1, step 2"
    assert "failed: loss is nan in epoch 1, step 2" in (folder / "ablation.md").read_text()


# --- together ---------------------------------------------------------------------------------------------------


def result(ablate: ModuleType, name: str, **changes: Any) -> Any:
    machine = Machine("A CPU", ("avx2",), 2, "Linux", {})
    return ablate.Result(
        name, f"title of {name}", (), (), "f", "abc", "2026-01-02 03:04 UTC", machine, "exact", **changes
    )


def test_rows_of_two_processes_end_in_one_table(ablate: ModuleType, tmp_path: Path) -> None:
    """Whoever merges last reads what everyone has written."""
    for name in ("second", "first"):
        artifacts.save(result(ablate, name, failed="no"), tmp_path / "rows" / f"{name}.json")
        ablate.merge(tmp_path, ["first", "second", "never run"], "command")
    assert [each["name"] for each in json.loads((tmp_path / "ablation.json").read_text())["rows"]] == [
        "first",
        "second",
    ]


def test_a_lock_is_waited_for_until_it_is_not_needed(ablate: ModuleType, tmp_path: Path, monkeypatch) -> None:
    import ablation_results

    waits: list[float] = []
    monkeypatch.setattr(ablation_results.time, "sleep", waits.append)
    lock = tmp_path / "lock"
    with ablate.locked(lock) as first, ablate.locked(lock, unless=lambda: len(waits) == 3) as second:
        assert (first, second) == (True, False)
    assert len(waits) == 3
    with ablate.locked(tmp_path / "lock") as again:
        assert again


def test_a_line_of_the_table(ablate: ModuleType) -> None:
    import ablation_results

    cost = Cost(10, 12_345_678, 1_882_000, (3, 32, 320))
    fp32 = StageResult("finetuned", "finetuned.onnx", cost, Score(0.71, "exact", 600), seconds=60.0)
    latency = Latency(2.0, 1.0, 3.0, 1, 50, speedup=1.256)
    small = dataclasses.replace(cost, size_bytes=527_000)
    int8 = StageResult("int8", "int8.onnx", small, Score(0.7, "exact", 600), seconds=30.0)
    cells = ablation_results.cells(result(ablate, "x", fp32=fp32, int8=int8), latency)
    assert cells == (
        *("title of x", "-", "0.7100", "1882.0", "0.7000", "527.0", "12.35 M", "2.00 [1.00-3.00]", "1.26x", "90"),
    )
    assert ablation_results.cells(result(ablate, "x", fp32=fp32))[4:] == ("-", "-", "12.35 M", "-", "-", "60")


def test_all_rows_are_timed_against_each_other(ablate: ModuleType, whole: Path) -> None:
    timing = artifacts.load(ablate.Timing, whole / "latency.json")
    assert set(timing.rows) == {"fp32", "control", "base", "uniform", "plain-qat", "pact-l2-1e-3", "no-distill"}
    assert len({latency.runs for latency in timing.rows.values()}) == 1
    assert timing.rows["fp32"].speedup == 1.0
    assert "all rows' files in turn" in (whole / "ablation.md").read_text()


# --- what users get wrong ---------------------------------------------------------------------------------------


def test_unknown_rows_are_named(ablate: ModuleType, inputs: Path) -> None:
    with pytest.raises(CompressError, match=r"--rows: got 'plain'. Must be names from: fp32, control, base"):
        run(ablate, inputs, "x", "--rows", "plain")


def test_a_recipe_without_the_steps_is_refused(ablate: ModuleType, inputs: Path) -> None:
    short = tiny.recipe(inputs).model_copy(update={"steps": tiny.recipe(inputs).steps[-1:]})
    with pytest.raises(CompressError, match=r"steps: got quantize. Must hold prune, finetune and quantize"):
        ablate.all_rows(short)


def test_the_list_shows_what_is_done(ablate: ModuleType, inputs: Path, whole: Path, capsys) -> None:
    run(ablate, inputs, "whole", "--list")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " done " in lines["base"]
    assert " done " not in lines["live-bn"]
    assert "quantize.pact.enabled=false" in lines["plain-qat"]


@pytest.mark.slow
def test_as_a_program_it_helps_and_fails_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "ablate.py")]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "python scripts/ablate.py recipes/ppocr_rec_en.yaml --out runs/ablation --list" in shown.stdout
    failed = subprocess.run([*command, "no.yaml", "--out", str(tmp_path)], capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("Error: no.yaml: cannot be read")
    assert "Traceback" not in failed.stderr
