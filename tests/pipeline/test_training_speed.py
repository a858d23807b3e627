"""Parts of training by themselves: what a step takes, what it waits for, and that nothing is trained."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compress.cli import app
from compress.errors import CompressError
from compress.pipeline import training_speed
from compress.pipeline.labelling import with_labels
from compress.pipeline.training_speed import (
    DATA,
    NETWORK,
    TEACHER,
    TOGETHER,
    PartSpeed,
    judge,
    measure_training,
    time_steps,
)
from tests.pipeline import tiny


def test_a_step_is_timed_for_some_seconds() -> None:
    """Steps of 10, 20, 30, ... ms from the first that is timed on; 8 images each."""
    now, calls = 0.0, 0

    def step() -> int:
        nonlocal now, calls
        calls += 1
        now += max(0, calls - training_speed.UNTIMED) * 0.01
        return 8

    found = time_steps(step, 0.25, lambda: now)  # 10 + 20 + ... + 70 = 280 ms
    assert found == PartSpeed(images_per_second=200.0, median_ms=40.0, p10_ms=16.0, p90_ms=64.0, steps=7)
    now = calls = 0
    assert time_steps(step, 0.0, lambda: now).steps == training_speed.FEWEST


def parts(**rates: float) -> dict[str, PartSpeed]:
    return {name: PartSpeed(rate, 1.0, 1.0, 1.0, 5) for name, rate in rates.items()}


@pytest.mark.parametrize(
    ("rates", "workers", "idle", "part", "advice"),
    [
        (
            {DATA: 100, NETWORK: 400, TEACHER: 1000, TOGETHER: 98},
            0,
            4,
            DATA,
            r"10\.00 ms .* 3\.50 .* workers: 3",
        ),
        ({DATA: 100, NETWORK: 400, TOGETHER: 98}, 0, 0, DATA, "No core is idle"),
        ({DATA: 100, NETWORK: 400, TOGETHER: 98}, 2, 16, DATA, r"workers: 8\."),
        (
            {DATA: 999, NETWORK: 400, TEACHER: 200, TOGETHER: 133},
            0,
            1,
            TEACHER,
            r"Of 7\.50 .* teacher takes 5\.00;",
        ),
        (
            {DATA: 500, NETWORK: 200, TOGETHER: 100},
            0,
            0,
            NETWORK,
            r"With data it is 10\.00 ms",
        ),
    ],
)
def test_what_training_waits_for(rates: dict[str, float], workers: int, idle: int, part: str, advice: str) -> None:
    found, said = judge(parts(**rates), workers, idle)
    assert found == part
    assert re.search(advice, said), said


def test_every_stage_that_trains(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path)
    steps = {"teacher": {"epochs": 1, "batch_size": 4}, **tiny.STEPS}
    given = tiny.recipe(folder, steps=steps)
    lines: list[tuple[int, int, str]] = []
    found = measure_training(given, 0.01, lambda *said: lines.append(said))
    assert [stage.stage for stage in found] == ["teacher", "finetuned", "int8"]
    assert [stage.batch_size for stage in found] == [4, 6, 6]
    assert not (folder / "out").exists()  # nothing is written
    assert found[0].model == "model.onnx"
    assert found[1].model == f"model.onnx (no file of an earlier step in {folder / 'out'})"
    for stage, asked in zip(found, (True, False, True), strict=True):  # `distill` of the steps
        assert set(stage.parts) == {DATA, NETWORK, TOGETHER} | ({TEACHER} if asked else set())
        assert all(part.images_per_second > 0 and part.steps >= 3 for part in stage.parts.values())
        assert stage.bottleneck in stage.parts
    assert lines[-1] == (12, 12, "done")
    (folder / "out").mkdir()
    (folder / "out" / "pruned.onnx").write_bytes((folder / "model.onnx").read_bytes())
    assert measure_training(given, 0.01)[1].model == "pruned.onnx"


def test_a_step_leaves_the_network_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[training_speed._Stage] = []
    before: list[dict[str, bytes]] = []

    def weights(stage: training_speed._Stage) -> dict[str, bytes]:
        return {name: value.detach().numpy().tobytes() for name, value in stage.module.named_parameters()}

    def time(self: training_speed._Stage, *_: object) -> dict[str, PartSpeed]:
        made.append(self)
        before.append(weights(self))
        return whole(self, 0.01, lambda *_: None)

    whole = training_speed._Stage.time
    monkeypatch.setattr(training_speed._Stage, "time", time)
    measure_training(tiny.recipe(tiny.write_inputs(tmp_path)), 0.01)
    assert [weights(stage) for stage in made] == before


def test_recipes_that_do_not_train(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path)
    with pytest.raises(
        CompressError, match=r"--train: no step of the recipe trains. Add teacher, finetune or quantize"
    ):
        measure_training(tiny.recipe(folder, steps={"quantize": {"epochs": 0}}))
    with pytest.raises(
        CompressError, match=r"--train: data\.images is labelled when the recipe is run, and .* no labels"
    ):
        measure_training(tiny.recipe(folder, data={"images": "train"}))


def test_images_that_the_run_has_labelled(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path)
    given = tiny.recipe(folder, data={"images": "train", "held_back": 0.3})
    given.out.mkdir()
    with_labels(given)
    before = sorted(given.out.rglob("*"))
    assert [stage.stage for stage in measure_training(given, 0.01)] == ["finetuned", "int8"]
    assert sorted(given.out.rglob("*")) == before


def test_the_command(tmp_path: Path) -> None:
    folder = tiny.write_inputs(tmp_path)
    tiny.recipe(folder, steps={"quantize": tiny.STEPS["quantize"]})
    command = ["bench", "--train", str(folder / "recipe.yaml"), "--seconds", "0.1"]
    shown = CliRunner().invoke(app, [*command, "--set", f"out={folder / 'run'}", "--out", str(folder / "speed.json")])
    assert shown.exit_code == 0, shown.output
    assert "int8, batches of 6" in shown.output
    assert "Timed: model.onnx (no file of an earlier step in" in shown.output
    assert "Bottleneck: " in shown.output
    stages = json.loads((folder / "speed.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["int8"]
    assert stages[0]["parts"]["network"]["images_per_second"] > 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a.onnx", "--train", "recipe.yaml"], "--train: not with MODEL or --input"),
        (["a.onnx", "--input", "3,4,4", "--set", "seed=1"], "--set: only with --train RECIPE"),
        ([], "MODEL: missing. Give .onnx files to time, or --train RECIPE"),
        (["a.onnx"], "--input: missing. Give the size of an image as channels,height,width, e.g. 3,48,192"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], line: str) -> None:
    shown = CliRunner().invoke(app, ["bench", *arguments])
    assert shown.exit_code == 2
    assert shown.output.startswith(f"Error: {line}")
