"""The scan of layers in int8 on files: stored, resumed, refused when stale; and the budget that it is for."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner, Result

from compress import artifacts
from compress.artifacts import Quantized, QuantSensitivity, Report, fingerprint
from compress.cli import app
from compress.errors import ArtifactError, DataError
from compress.graph import to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.cost import model_cost
from compress.pipeline import make_task, run_quantize, run_recipe, stages
from compress.pipeline.execution import Execution
from compress.pipeline.models import model_identity
from compress.pipeline.scanning.measures import Measure
from compress.pipeline.stages import int8_scan
from compress.pipeline.stages.fitting import train_identity
from compress.pipeline.stages.int8_scan import Scanned, default_measure, run_int8_scan
from compress.quant import calibrate, prepare_qat
from compress.recipe import QuantizeStep
from compress.tasks.base import Task
from tests.pipeline import tiny

FIRST, SECOND, LAST = (
    "first_first_1_BatchNormalization_output_0", "second_second_0_Conv_output_0", "fc_Gemm_output_0",
)  # fmt: skip
MACS = {FIRST: 16 * 8 * 9 * 8 * 16, SECOND: 16 * 16 * 8 * 16, LAST: 128 * 2}
"""Of images of 16 x 32; the stem halves them, and has 8 x 3 x 9 x 8 x 16 of its own."""
WHOLE = sum(MACS.values()) + 8 * 3 * 9 * 8 * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("rounding"), crops=6)


def step(**changes: object) -> QuantizeStep:
    return QuantizeStep(**{"epochs": 0, "batch_size": 6, "calibration": 8, "optimize": "size", **changes})  # type: ignore[arg-type]


def scan(
    model: onnx.ModelProto, task: Task, file: Path, measure: Measure = "divergence", **options
) -> QuantSensitivity:  # type: ignore[no-untyped-def]
    parts = options.pop("parts", False)
    progress = options.pop("on_progress", None)
    given = Scanned(model, task, step(**options), lambda _: (), measure)
    return run_int8_scan(given, file, parts=parts, threads=1, on_progress=progress)


def divergence(model: onnx.ModelProto, task: Task, float_layers: tuple[str, ...]) -> float:
    """exp(-KL(float, int8)) of the classes over all training crops, the network calibrated from scratch."""
    module = to_torch(lower_for_int8(model, resample=False))
    images = np.concatenate(list(task.calibration_batches(64, 64)))
    int8 = prepare_qat(module, float_layers=float_layers, weight_bits=7, asymmetric_hard_swish=True)
    calibrate(int8, task.calibration_batches(8, 6))
    with torch.no_grad():
        found, wanted = (net(torch.from_numpy(images)).double() for net in (int8, module))
    return float(torch.exp(-(wanted * (wanted / found).log()).sum(1).mean()))


def test_figures_are_those_of_networks_from_scratch(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path / "s.json")
    assert artifacts.load(QuantSensitivity, tmp_path / "s.json") == found
    assert {name: layer.macs for name, layer in found.layers.items()} == MACS
    assert found.macs == WHOLE == model_cost(model, tiny.SHAPE, 0).macs
    assert found.integer == pytest.approx(divergence(model, task, ()), abs=1e-6)
    assert found.baseline == pytest.approx(divergence(model, task, tuple(MACS)), abs=1e-6)
    assert found.layers[LAST].metric == pytest.approx(divergence(model, task, (FIRST, SECOND)), abs=1e-6)
    assert found.choices == ()
    assert found.metric_name == "divergence"


def test_a_budget_leaves_what_costs_most(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """The two last layers fit into a quarter, the first does not; what is tried is scored as a network from scratch."""
    found = scan(model, task, tmp_path / "s.json", float_budget=0.25)
    nothing, *others = found.choices
    assert (nothing.layers, nothing.score) == ((), found.integer)
    assert others
    for choice in others:
        assert set(choice.layers) <= {SECOND, LAST}
        assert choice.macs == sum(MACS[name] for name in choice.layers) <= 0.25 * WHOLE
        assert choice.score == pytest.approx(
            divergence(model, task, choice.layers), abs=1e-4
        )  # the gate, see Calibration
    assert found.chosen is not None
    assert found.chosen.score == max(choice.score for choice in found.choices)


def test_another_budget_measures_no_layer_anew(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scan(model, task, tmp_path / "s.json", float_budget=0.25)
    messages: list[str] = []
    again = scan(
        model, task, tmp_path / "s.json", float_budget=1.0, on_progress=lambda _, __, text: messages.append(text)
    )
    assert set(messages) == {"calibrating"}
    assert again.layers == first.layers
    assert again.float_budget == 1.0
    monkeypatch.setattr(int8_scan, "read_calibration", None)  # the same budget again computes nothing
    assert scan(model, task, tmp_path / "s.json", float_budget=1.0) == again


def test_a_stopped_scan_goes_on_to_the_same_file(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    whole = scan(model, task, tmp_path / "whole.json", float_budget=0.25, parts=True)
    with pytest.raises(KeyboardInterrupt):
        scan(model, task, tmp_path / "s.json", parts=True, on_progress=tiny.stop_when(SECOND))
    assert set(artifacts.load(QuantSensitivity, tmp_path / "s.json").layers) == {FIRST, SECOND}
    assert scan(model, task, tmp_path / "s.json", float_budget=0.25, parts=True) == whole
    assert (tmp_path / "s.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


@pytest.mark.parametrize("change", [{"weight_bits": 8}, {"calibration": 4}, {"optimize": "latency"}])
def test_a_scan_of_other_settings_is_stale(
    model: onnx.ModelProto, task: Task, tmp_path: Path, change: dict[str, object]
) -> None:
    scan(model, task, tmp_path / "s.json")
    with pytest.raises(ArtifactError, match="stale"):
        scan(model, task, tmp_path / "s.json", **change)


def test_layers_named_by_the_user_are_not_measured(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    given = Scanned(model, task, step(), lambda _: (FIRST,), "metric")
    found = run_int8_scan(given, tmp_path / "s.json", threads=1)
    assert set(found.layers) == {SECOND, LAST}
    assert found.metric_name == task.metric_name


def test_there_must_be_images(model: onnx.ModelProto, folder: Path, tmp_path: Path) -> None:
    val = [folder / "val" / "labels.txt"]
    bare = make_task("classification", train=(), val=val, input_shape=tiny.SHAPE, directions=True)
    with pytest.raises(DataError, match=r"no (training )?images"):
        scan(model, bare, tmp_path / "s.json")


def test_a_task_that_does_not_compare_outputs_is_scored_by_its_metric(task: Task) -> None:
    assert default_measure(task) == "divergence"
    assert default_measure(object()) == "metric"  # type: ignore[arg-type]


# --- the stage --------------------------------------------------------------------------------------------------


def quantize(model: onnx.ModelProto, task: Task, file: Path, **options) -> Quantized:  # type: ignore[no-untyped-def]
    return run_quantize(model, None, task, file, step(distill=0.0, **options), execution=Execution(threads=1))


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_file_is_that_of_the_chosen_layers_named_by_hand(
    model: onnx.ModelProto, task: Task, tmp_path: Path, epochs: int
) -> None:
    made = quantize(model, task, tmp_path / "a.onnx", float_budget=0.25, epochs=epochs)
    assert made.sensitivity == artifacts.load(QuantSensitivity, tmp_path / "a.sensitivity.json")
    assert made.sensitivity is not None
    assert made.sensitivity.chosen is not None
    assert made.sensitivity.chosen.layers == (SECOND, LAST)
    assert made.notes[0].startswith("float budget 0.25: divergence ")
    quantize(model, task, tmp_path / "b.onnx", float_layers=("second*", "fc*"), epochs=epochs)
    plain = quantize(model, task, tmp_path / "c.onnx", epochs=epochs)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a.onnx").read_bytes() != (tmp_path / "c.onnx").read_bytes()
    assert plain.sensitivity is None
    assert not (tmp_path / "c.sensitivity.json").exists()


def test_placement_is_sought_around_the_chosen_layers(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To what chooses by time they are layers that the user named: it cannot put them back into integers."""
    seen: list[tuple[str, ...]] = []
    place = stages.quantize.place

    def look(model, step, shape, float_layers, **options):  # type: ignore[no-untyped-def]
        seen.append(float_layers(to_torch(lower_for_int8(model))))
        return place(model, step, shape, float_layers, **options)

    monkeypatch.setattr(stages.quantize, "place", look)
    made = quantize(model, task, tmp_path / "a.onnx", float_budget=0.25, float_layers=("first*",), optimize="latency")
    assert made.placement is not None
    assert made.sensitivity is not None
    assert made.sensitivity.chosen is not None
    assert set(made.sensitivity.layers) == {SECOND, LAST}
    assert seen == [(FIRST, *made.sensitivity.chosen.layers)]


def test_stopped_in_its_scan_the_stage_goes_on_to_the_same_file(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    quantize(model, task, tmp_path / "whole.onnx", float_budget=0.25)
    stopped = Execution(threads=1, on_progress=tiny.stop_when(SECOND))
    with pytest.raises(KeyboardInterrupt):
        run_quantize(model, None, task, tmp_path / "s.onnx", step(distill=0.0, float_budget=0.25), execution=stopped)
    assert set(artifacts.load(QuantSensitivity, tmp_path / "s.sensitivity.json").layers) == {FIRST, SECOND}
    quantize(model, task, tmp_path / "s.onnx", float_budget=0.25)
    for end in ("onnx", "sensitivity.json"):
        assert (tmp_path / f"s.{end}").read_bytes() == (tmp_path / f"whole.{end}").read_bytes()


def test_without_a_budget_the_identity_is_what_it_always_was(model: onnx.ModelProto) -> None:
    """So that runs of earlier versions go on."""
    task = SimpleNamespace(fingerprint=lambda: "t")
    settings = step().model_dump(mode="json")
    del settings["float_budget"]
    assert train_identity(model, None, task, step(), 0) == fingerprint(model_identity(model), "", "t", settings, 0)  # type: ignore[arg-type]
    assert train_identity(model, None, task, step(float_budget=0.1), 0) != train_identity(model, None, task, step(), 0)  # type: ignore[arg-type]


def test_a_recipe_reports_what_its_budget_left_in_float(folder: Path) -> None:
    steps = {"quantize": {**tiny.STEPS["quantize"], "epochs": 0, "float_budget": 0.25}}
    recipe = tiny.recipe(folder, "budget", steps)
    report = run_recipe(recipe, "compress run recipe.yaml")
    assert report.quant_sensitivity is not None
    assert set(report.quant_sensitivity.layers) == set(MACS)
    text = (folder / "budget" / "report.md").read_text()
    assert "divergence drop of one layer in integers (7-bit weights)" in text
    assert "float budget 0.25: " in text
    assert "drop of one layer in integers" in (folder / "budget" / "report.html").read_text()
    assert lasting(run_recipe(recipe, "compress run recipe.yaml")) == lasting(report)
    other = tiny.recipe(folder, "budget", {"quantize": {**steps["quantize"], "float_budget": 0.5}})
    with pytest.raises(ArtifactError, match="stale"):
        run_recipe(other, "compress run recipe.yaml")


def lasting(report: Report) -> tuple[object, ...]:
    """What a run gives again: all but timings."""
    return (report.quant_sensitivity, [(stage.stage, stage.score, stage.notes) for stage in report.stages])


# --- the command ------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> Result:
    data = ["--data", f"{folder}/val/labels.txt", "--task", "classification", "--input", "3,16,32", "--directions"]
    given = ["sensitivity", f"{folder}/model.onnx", *data, "--out", f"{folder}/scanned", *arguments]
    return CliRunner().invoke(app, given, prog_name="compress")


def test_the_command_writes_every_part_and_prints_it(folder: Path) -> None:
    train = ["--train", f"{folder}/train/labels.txt"]
    result = run(folder, "--of", "int8", *train, "--float-budget", "0.25", "--threads", "1")
    assert result.exit_code == 0, result.output
    found = artifacts.load(QuantSensitivity, folder / "scanned" / "int8_sensitivity.json")
    assert all(layer.weights is not None for layer in found.layers.values())
    assert found.chosen is not None
    assert "activations alone" in result.output
    assert "left in float: " in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--of", "int4"], "--of: got 'int4'. Must be channels or int8."),
        (["--of", "int8"], "--train: missing. --of int8 calibrates on training images."),
        (["--of", "int8", "--ratios", "0.5"], "--ratios: not with --of int8. Remove it."),
        (["--float-budget", "0.1", "--weight-bits", "8"], "--float-budget, --weight-bits: not with --of channels."),
        (["--of", "int8", "--train", "t", "--float-budget", "2"], "--float-budget: got 2"),
    ],
)
def test_bad_arguments_are_one_line(folder: Path, arguments: list[str], message: str) -> None:
    result = run(folder, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output
