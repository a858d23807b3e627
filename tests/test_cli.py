"""The command line: what it passes on, what it prints, and how it ends. The work itself is replaced by stand-ins."""

import errno
import json
import os
import re
import shlex
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner, Result

import compress
from compress import artifacts
from compress.artifacts import (
    ActivationScan,
    Cost,
    Curve,
    Gallery,
    Gate,
    GroupPlan,
    Latency,
    Parity,
    Picture,
    PruningPlan,
    Quantized,
    Reading,
    Replaced,
    Report,
    Score,
    Sensitivity,
)
from compress.cli import app
from compress.cli.app import explain
from compress.cli.progress import plain_lines
from compress.errors import CompressError, ModelError, OutputError, killed_worker
from compress.measure.intervals import share_tallies
from compress.pipeline.guessing import Guess
from compress.pipeline.scope import Scope
from compress.pipeline.stages.prune import GivenScan
from compress.recipe import FinetuneStep, PruneStep, PruneTarget, QuantizeStep, Recipe, ReplaceStep, SensitivityStep
from compress.report.inspection import GroupSummary, Inspection
from compress.tasks.base import Examination

TINY = onnx.parser.parse_model(
    '<ir_version: 8, opset_import: ["": 17]> tiny (float[N, 3, 4, 4] x) => (float[N, 3, 4, 4] y) { y = Relu(x) }'
)
COMMANDS = [
    *("inspect", "sensitivity", "replace", "prune", "reconstruct", "finetune", "quantize"),
    *("evaluate", "crop", "splice", "bench", "report", "compare", "init", "check", "run", "shrink"),
    *("render", "demo"),
]
SCAN = Sensitivity("f", "l1", "accuracy", 0.9, (0.5,), {"conv1": Curve(16, ("conv1",), 100, {"0.5": 0.8})})
GROUPS = {"a": GroupPlan(8, ("a",), 0.5, 0.0, (), "too few")}
PLAN = PruningPlan("f", "l1", 8, {"macs": 0.5}, 100, 52, 40, 20, GROUPS, (), 4.0, 3.0, "int8")
GALLERY = Gallery(("q",), "e", 20, (2,), 0, 0, 0, 0, (Picture("7.png", "EXIT", (Reading("EXlT", 0.25),), "01-7.png"),))
SCORE = Score(0.9, "accuracy", 20, {"0": 0.875, "180": 1.0})
TALLIES = {"accuracy": share_tallies([True] * 18 + [False] * 2)}


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="compress")


def fails(*args: str | Path) -> str:
    """What is said on stderr by a command that ends with 2."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


class FakeTask:
    """Stands for a task; holds what it was made from."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        self.kind, self.settings = kind, settings
        self.input_shape = settings["input_shape"] or (3, 48, 192)

    def warnings(self) -> tuple[str, ...]:
        return ("2 images skipped",)


class FakePipeline(types.ModuleType):
    """Stands for compress.pipeline: keeps each call, answers at once."""

    def __init__(self) -> None:
        super().__init__("compress.pipeline")
        self.calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.gates = (Gate("size_ratio", 0.5, 0.3, True),)
        self.gallery: Gallery | None = GALLERY
        self.fault: BaseException | None = None

    def _answer(self, name: str, value: Any) -> Callable[..., Any]:
        def call(*args: Any, **keywords: Any) -> Any:
            self.calls[name] = (args, keywords)
            if self.fault:
                raise self.fault
            return value

        return call

    def __getattr__(self, name: str) -> Any:
        cost = Cost(10, 100, 1000, (3, 48, 192))
        answers = {
            "open_model": onnx.ModelProto(),
            "with_stages": lambda *_: None,
            "announce_stages": {},
            "inspect_model": Inspection(("x",), ("y",), {"Conv": 3}, cost, (GroupSummary("conv1", 16, 0.5),)),
            "run_sensitivity": SCAN,
            "run_prune": PLAN,
            "run_plan": PLAN,
            "run_replace": Replaced(("a", "c"), ("replaced 2 of 3",)),
            "run_finetune": SCORE,
            "run_quantize": Quantized(Parity(0.1, 0.01, 0.1, 0.01, 0.99, 0.2, 64), ("recurrent layers: weights",)),
            "score_model": SCORE,
            "examine_model": Examination(SCORE, (), TALLIES),
            "examine_in": Examination(SCORE, (), TALLIES),
            "score_with_pictures": (Examination(SCORE, (), TALLIES), self.gallery),
            "open_any": b"a model",
        }
        if name == "guess_task":
            return lambda model, kind, shape, *_: Guess(kind or "classification", shape, "" if kind else "guessed")
        if name == "make_task":
            return lambda kind, **settings: FakeTask(kind, settings)
        if name == "run_recipe":
            machine = artifacts.Machine("cpu", (), 1, "os", {})
            return self._answer(name, Report("t", "c", "d", machine, (), self.gates, "f"))
        if name in answers:
            return self._answer(name, answers[name])
        raise AttributeError(name)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    """The stand-in, in an empty current directory."""
    fake = FakePipeline()
    monkeypatch.setitem(sys.modules, "compress.pipeline", fake)
    monkeypatch.setattr(compress, "pipeline", fake, raising=False)
    monkeypatch.chdir(tmp_path)
    return fake


def write_recipe(folder: Path) -> Path:
    for name in ("m.onnx", "t.txt", "v.txt"):
        (folder / name).touch()
    data = {
        "version": 1,
        "model": "m.onnx",
        "task": {"kind": "classification"},
        "data": {"train": "t.txt", "val": "v.txt"},
        "steps": [{"quantize": {"epochs": 0}}],
    }
    path = folder / "r.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


# --- help -------------------------------------------------------------------------------------------------------


def test_commands() -> None:
    assert [command.name or command.callback.__name__ for command in app.registered_commands] == COMMANDS  # type: ignore[union-attr]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_of_known_options(command: str) -> None:
    text = run(command, "--help").output
    examples = re.findall(r"^    (compress (?:[^\\\n]|\\\n)*)", text, re.MULTILINE)
    assert examples
    for example in examples:
        words = shlex.split(example.replace("\\\n", " "))
        assert words[1] == command
        assert all(word in text.split("Options:")[1] for word in words if word.startswith("--"))


def test_every_option_is_explained() -> None:
    for command in COMMANDS:
        for line in run(command, "--help").output.split("Options:")[1].splitlines():
            assert not re.fullmatch(r"  --[\w-]+( [\w<>|]+)?\s*", line), f"{command}: {line}"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_is_cut_inside_brackets(command: str) -> None:
    for option in typer.main.get_command(app).commands[command].params:  # type: ignore[attr-defined]
        text = (getattr(option, "help", None) or "").replace("[0, 1)", "")
        assert [text.count(bracket) for bracket in "(["] == [text.count(bracket) for bracket in ")]"], text


def test_a_default_in_brackets_is_not_where_a_help_ends() -> None:
    text = " ".join(run("sensitivity", "--help").output.split())
    assert "(images; default 64 for classification, 48 for recognition, 8 for detection)" in text
    assert "or agreement, the metric with the original's answers for labels. [default: metric]" in text


def test_version_and_no_command() -> None:
    assert re.fullmatch(r"compress \d+\.\d+\.\d+\n", run("--version").output)
    assert "Commands:" in run().output


def test_module_and_program_are_the_same() -> None:
    shown = subprocess.run([sys.executable, "-m", "compress", "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Usage: compress [OPTIONS]")


# --- what is passed on, and printed -----------------------------------------------------------------------------


def test_inspect(pipeline: FakePipeline) -> None:
    result = run("inspect", "m.onnx", "--input", "3,48,192")
    assert pipeline.calls["inspect_model"][0] == ("m.onnx", None, (3, 48, 192))
    assert "conv1" in result.output
    assert "importable: yes" in result.output


def test_sensitivity(pipeline: FakePipeline) -> None:
    result = run(
        "sensitivity",
        "m.onnx",
        "--data",
        "v.txt",
        "--out",
        "o",
        "--ratios",
        "0.25,0.5",
        "--protect",
        "fc",
        "--no-recurrent",
    )
    args, keywords = pipeline.calls["run_sensitivity"]
    assert args[2] == Path("o")
    assert args[1].settings["val"] == (Path("v.txt"),)
    execution = keywords.pop("execution")
    assert callable(execution.on_progress)
    assert callable(execution.on_note)
    assert execution.threads is None
    assert args[3] == SensitivityStep(ratios=(0.25, 0.5))
    assert keywords == {"scope": Scope(("fc",), recurrent=False, layer_norms=False)}
    assert "+0.1000" in result.output
    assert "accuracy of the model itself: 0.9000. Written: o/sensitivity.json" in result.output


def test_sensitivity_on_training_images(pipeline: FakePipeline) -> None:
    arguments = ["sensitivity", "m.onnx", "--data", "v.txt", "--out", "o", "--measure", "divergence"]
    result = run(*arguments)
    assert result.exit_code == 2
    wanted = "--train: missing. It names the training images for --measure divergence; labels are not looked at."
    assert wanted in result.stderr
    result = run("sensitivity", "m.onnx", "--data", "v.txt", "--out", "o", "--criterion", "obs")
    assert (result.exit_code, "training images for --criterion obs; labels" in result.stderr) == (2, True)
    result = run(*arguments, "--train", "t.txt", "--recover", "reconstruct")
    assert result.exit_code == 0, result.output
    args, _ = pipeline.calls["run_sensitivity"]
    assert list(args[1].settings["train"]) == [Path("t.txt")]
    assert args[3] == SensitivityStep(measure="divergence", recover="reconstruct")


def test_replace(pipeline: FakePipeline) -> None:
    result = run("replace", "m.onnx", "--activation", "hardswish=relu", "--layer", "a*", "--layer", "c", "--out", "r")
    assert result.exit_code == 0, result.output
    args, keywords = pipeline.calls["run_replace"]
    assert args[1:] == (None, Path("r"), ReplaceStep(hardswish="relu", layers=("a*", "c")))
    assert keywords["threads"] is None
    assert result.stdout == "a\nc\n2 activations replaced. Written: r\n"


def test_replace_by_drop(pipeline: FakePipeline, tmp_path: Path) -> None:
    scan = ActivationScan("f", "hardswish", "relu", "accuracy", 0.9, {"b": 0.5, "a": 0.89, "c": 0.91})
    artifacts.save(scan, tmp_path / "o" / "activations.json")
    options = ["--data", "v.txt", "--metric-drop", "0.02", "--images", "7", "--threads", "2", "--out", "o/r.onnx"]
    result = run("replace", "m.onnx", "--activation", "hardswish=relu", *options)
    assert result.exit_code == 0, result.output
    args, keywords = pipeline.calls["run_replace"]
    assert args[1].settings["val"] == (Path("v.txt"),)
    assert args[3] == ReplaceStep(hardswish="relu", metric_drop=0.02, images=7)
    assert keywords["threads"] == 2
    assert re.search(r"c +-0\.0100 +yes\s+a +\+0\.0100 +yes\s+b +\+0\.4000 +no", result.stdout)
    words = "2 activations replaced. accuracy 0.9000 on 20 images, before any training. Written: o/r.onnx"
    assert words in result.stdout


def test_prune(pipeline: FakePipeline, tmp_path: Path) -> None:
    artifacts.save(SCAN, tmp_path / "s.json")
    result = run(
        "prune", "m.onnx", "--sensitivity", "s.json", "--target", "macs=0.5", "--align", "16", "--out", "p.onnx"
    )
    assert result.exit_code == 0, result.output
    args, keywords = pipeline.calls["run_prune"]
    assert args[1:] == (Path("p.onnx"), PruneStep(target=PruneTarget(macs=0.5), align=16, precision="mixed"))
    assert keywords["given"] == GivenScan(SCAN)
    assert "0 of 1 groups pruned: MACs 100 -> 52 (0.52x)" in result.stdout
    assert "Predicted on this machine, one thread, int8 kernels: 4.00 -> 3.00 ms (0.75x)." in result.stdout
    assert "Note: a: too few" in result.stderr


def test_prune_by_ratio(pipeline: FakePipeline) -> None:
    assert run("prune", "m.onnx", "--ratio", "0.3", "--out", "p.onnx").exit_code == 0
    args, keywords = pipeline.calls["run_prune"]
    assert (args[2].target, args[2].criterion, keywords["given"]) == (PruneTarget(ratio=0.3), None, None)


def test_prune_what_was_replaced_by_a_scan_of_the_original(pipeline: FakePipeline, tmp_path: Path) -> None:
    artifacts.save(SCAN, tmp_path / "s.json")
    scan = ("--sensitivity", "s.json", "--scanned", "m.onnx")
    assert run("prune", "r.onnx", *scan, "--target", "macs=0.5", "--out", "p.onnx").exit_code == 0
    assert pipeline.calls["run_prune"][1]["given"] == GivenScan(SCAN, onnx.ModelProto())
    assert pipeline.calls["open_model"][0][0] == "m.onnx"


def test_prune_by_a_plan(pipeline: FakePipeline) -> None:
    result = run("prune", "m.onnx", "--plan", "plan.json", "--out", "p.onnx")
    assert result.exit_code == 0, result.output
    assert pipeline.calls["run_plan"] == ((onnx.ModelProto(), Path("p.onnx"), Path("plan.json")), {"input_shape": None})
    assert "0 of 1 groups pruned: MACs 100 -> 52 (0.52x)" in result.stdout


def test_prune_by_predicted_latency(pipeline: FakePipeline, tmp_path: Path) -> None:
    artifacts.save(SCAN, tmp_path / "s.json")
    given = ["prune", "m.onnx", "--sensitivity", "s.json", "--target", "latency=0.5", "--out", "p.onnx"]
    for flags, expected in (((), "mixed"), (("--precision", "float32"), "float32")):
        assert run(*given, *flags).exit_code == 0
        args, keywords = pipeline.calls["run_prune"]
        assert (args[2].target, args[2].precision) == (PruneTarget(latency=0.5), expected)
        assert keywords["table"].path.name.startswith("latency-")
        assert callable(keywords["execution"].on_progress)


def test_hidden_units_can_be_left_whole(pipeline: FakePipeline) -> None:
    for flags, expected in (((), True), (("--recurrent",), True), (("--no-recurrent",), False)):
        assert run("prune", "m.onnx", "--ratio", "0.3", *flags, "--out", "p.onnx").exit_code == 0
        assert run("sensitivity", "m.onnx", "--data", "v.txt", *flags, "--out", "o").exit_code == 0
        assert pipeline.calls["run_prune"][0][2].recurrent is expected
        assert pipeline.calls["run_sensitivity"][1]["scope"].recurrent is expected


def test_finetune(pipeline: FakePipeline) -> None:
    options = ["--teacher", "m.onnx", "--train", "a.txt", "--train", "b.txt", "--data", "v.txt", "--out", "f.onnx"]
    result = run("finetune", "p.onnx", *options, "--epochs", "3", "--freeze-bn", "--mutual", "0.5", "--directions")
    args, keywords = pipeline.calls["run_finetune"]
    assert args[2].settings["train"] == (Path("a.txt"), Path("b.txt"))
    assert args[2].settings["directions"] is True
    assert args[3:] == (Path("f.onnx"), FinetuneStep(epochs=3, freeze_bn=True, mutual=0.5))
    assert keywords["execution"].checkpoint == Path("f.checkpoint")
    assert "accuracy 0.9000 on 20 images. Written: f.onnx" in result.stdout
    assert "Note: 2 images skipped" in result.stderr


@pytest.mark.parametrize("command", ["finetune", "quantize", "reconstruct"])
def test_devices(command: str, pipeline: FakePipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    options = ["--train", "a.txt", "--data", "v.txt", "--out", "f.onnx"]
    if command == "reconstruct":
        artifacts.save(PLAN, Path("plan.json"))
        options += ["--original", "o.onnx"]
    else:
        run(command, "p.onnx", *options)
        assert pipeline.calls[f"run_{command}"][1]["execution"].device == torch.device("cpu")
    assert "device: got 'cuda:1', but PyTorch" in fails(command, "p.onnx", *options, "--device", "cuda:1")
    assert "device: got 'gpu'. Must be auto, cpu" in fails(command, "p.onnx", *options, "--device", "gpu")


def test_precision(pipeline: FakePipeline) -> None:
    options = ["p.onnx", "--train", "a.txt", "--data", "v.txt", "--out", "f.onnx", "--precision"]
    run("finetune", *options, "bf16")
    assert pipeline.calls["run_finetune"][0][4].precision == "bf16"
    assert '--precision: got "half"' in fails("finetune", *options, "half")


def test_quantize(pipeline: FakePipeline) -> None:
    options = ["--train", "a.txt", "--data", "v.txt", "--out", "q.onnx", "--float-layer", "stem", "--no-pact"]
    result = run("quantize", "f.onnx", *options, "--epochs", "0", "--pact-l2", "0.01")
    args, _ = pipeline.calls["run_quantize"]
    expected = {"epochs": 0, "distill": 0.0, "float_layers": "stem", "pact": {"enabled": False, "l2": 0.01}}
    assert args[4] == QuantizeStep.model_validate(expected)
    assert args[1] is None
    assert "0.0 / 0.0 steps" in result.stdout
    assert "Note: recurrent layers: weights\n" in result.stderr


@pytest.mark.parametrize("command", ["finetune", "quantize"])
def test_a_checkpoint_goes_once_the_file_is_there(pipeline: FakePipeline, command: str) -> None:
    """And not when the command fails: the same one goes on from it."""
    given = (command, "p.onnx", "--train", "a.txt", "--data", "v.txt", "--out", "f.onnx", "--epochs", "1")
    checkpoint = Path("f.checkpoint")
    checkpoint.write_bytes(b"so far")
    pipeline.fault = CompressError("stopped")
    assert "stopped" in fails(*given)
    assert checkpoint.exists()
    pipeline.fault = None
    assert run(*given).exit_code == 0
    assert not checkpoint.exists()


@pytest.mark.parametrize("form", ["auto", "float", "weights", "dynamic"])
def test_form_of_recurrent_layers(pipeline: FakePipeline, form: str) -> None:
    result = run("quantize", "f.onnx", "--train", "a", "--data", "v", "--out", "q.onnx", "--recurrent", form)
    assert result.exit_code == 0, result.output
    assert pipeline.calls["run_quantize"][0][4].recurrent == form


def test_evaluate(pipeline: FakePipeline) -> None:
    result = run("evaluate", "q.onnx", "--data", "v.txt", "--labels", "up,down", "--threads", "2")
    args, _ = pipeline.calls["examine_model"]
    assert (args[0], args[2]) == (b"a model", 2)
    assert args[1].settings["labels"] == ["up", "down"]
    assert result.stdout == "accuracy 0.9000 [0.7500, 1.0000] on 20 images\n  0 0.8750\n  180 1\n"


@pytest.mark.parametrize(
    ("model", "options", "folder", "name"),
    [
        ("a/q.onnx", [], "q_images", "q"),
        ("package.module:build", [], "build_images", "build"),
        ("q.onnx", ["--images-out", "b/c"], "b/c", "q"),
    ],
)
def test_evaluate_with_pictures(pipeline: FakePipeline, model: str, options: list[str], folder: str, name: str) -> None:
    result = run("evaluate", model, "--data", "v.txt", "--save-images", "3", *options)
    assert result.exit_code == 0, result.output
    args, keywords = pipeline.calls["score_with_pictures"]
    assert (args[0], args[2]) == (b"a model", Path(folder))
    assert (keywords["name"], keywords["count"]) == (name, 3)
    assert "accuracy 0.9000 [0.7500, 1.0000] on 20 images\n" in result.stdout
    assert re.search(r"7\.png +EXIT +EXlT +0\.25", result.stdout)
    assert f"Written: {Path(folder) / 'index.html'}\n" in result.stdout
    assert "examine_model" not in pipeline.calls


def test_evaluate_where_the_task_tells_nothing_of_single_images(pipeline: FakePipeline) -> None:
    pipeline.gallery = None
    result = run("evaluate", "q.onnx", "--data", "v.txt", "--save-images", "3")
    assert result.exit_code == 0
    assert result.stdout == "accuracy 0.9000 [0.7500, 1.0000] on 20 images\n  0 0.8750\n  180 1\n"
    assert "Note: no pictures: the task does not tell what it makes of single images." in result.stderr


def test_evaluate_in_another_runtime(pipeline: FakePipeline) -> None:
    result = run("evaluate", "m.onnx", "--data", "v.txt", "--runtime", "openvino", "--threads", "1")
    assert result.exit_code == 0, result.output
    (runtime, _, _, threads), names = pipeline.calls["examine_in"]
    assert (runtime, threads, names) == ("openvino", 1, {"name": "m.onnx"})
    assert "accuracy 0.9000 [0.7500, 1.0000] on 20 images" in result.stdout
    assert "examine_model" not in pipeline.calls
    said = fails("evaluate", "m.onnx", "--data", "v.txt", "--runtime", "openvino", "--save-images", "2")
    assert "--runtime: got 'openvino' with --save-images, whose pictures are of onnxruntime only." in said
    assert "--runtime: got 'x'. Must be of" in fails("evaluate", "m.onnx", "--data", "v.txt", "--runtime", "x")


def test_a_folder_for_pictures_but_no_pictures(pipeline: FakePipeline) -> None:
    said = fails("evaluate", "q.onnx", "--data", "v.txt", "--images-out", "f")
    assert "Error: --images-out: needs --save-images N, how many pictures to write." in said


@pytest.mark.parametrize("command", ["evaluate", "sensitivity", "finetune", "quantize"])
def test_recognition_options_reach_the_task(pipeline: FakePipeline, command: str) -> None:
    more = {"evaluate": [], "sensitivity": ["--out", "o"]}.get(command, ["--train", "t.txt", "--out", "o.onnx"])
    options = ["--task", "recognition", "--charset", "d.txt", "--no-space", "--widths", "160,320"]
    result = run(command, "m.onnx", "--data", "v.txt", *more, *options)
    assert result.exit_code == 0, result.output
    task = next(item for args, _ in pipeline.calls.values() for item in args if isinstance(item, FakeTask))
    settings = task.settings
    assert task.kind == "recognition"
    assert (settings["charset"], settings["use_space"], settings["widths"]) == (Path("d.txt"), False, [160, 320])


def test_widths_that_are_no_numbers(pipeline: FakePipeline) -> None:
    said = fails("evaluate", "m.onnx", "--data", "v.txt", "--widths", "160,wide")
    assert "--widths: got '160,wide'. Must be whole numbers with commas. Use e.g. 160,320." in said


@pytest.fixture
def bench_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """Two files here, and times that do not depend on the machine; what was requested."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}

    def measure(models: dict[tuple[str, str], Any], shape: Sequence[int], **keywords: Any) -> dict[Any, Latency]:
        seen.update(models=list(models), shape=shape, **keywords)
        return {key: Latency(2.0 / n, 1.9, 2.1, 1, 50, float(n)) for n, key in enumerate(models, 1)}

    monkeypatch.setattr("compress.measure.latency.measure_latency", measure)
    for name in ("a.onnx", "b.onnx"):
        onnx.save(TINY, name)
    return seen


def test_bench(bench_files: dict[str, Any]) -> None:
    result = run("bench", "a.onnx", "b.onnx", "--input", "3,4,4", "--rounds", "9", "--out", "b.json")
    assert result.exit_code == 0, result.output
    assert bench_files["models"] == [("a.onnx", "onnxruntime"), ("b.onnx", "onnxruntime")]
    assert (bench_files["shape"], bench_files["rounds"]) == ((3, 4, 4), 9)
    assert "2.00x" in result.output
    assert "First output" not in result.output
    figures = json.loads(Path("b.json").read_text())
    assert figures["models"]["b.onnx"]["median_ms"] == 1.0
    assert figures["models"]["b.onnx"]["size_bytes"] == TINY.ByteSize()
    assert (figures["differences"], figures["failed"]) == ([], [])
    assert {"cpu", "flags"} <= set(figures["machine"])


def test_bench_counts_weights_beside_the_model(bench_files: dict[str, Any], tmp_path: Path) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(TINY)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(99, np.float32), "w"))
    onnx.save_model(model, "b.onnx", save_as_external_data=True, location="b.data", size_threshold=0)
    assert run("bench", "b.onnx", "--input", "3,4,4", "--out", "b.json").exit_code == 0
    size = sum((tmp_path / name).stat().st_size for name in ("b.onnx", "b.data"))
    assert json.loads(Path("b.json").read_text())["models"]["b.onnx"]["size_bytes"] == size


class FakeOpenVinoSession:
    """Reads only b.onnx, and computes 0.5 more than it says."""

    def __init__(self, model: bytes, input_shape: Sequence[int], *, name: str, threads: int) -> None:
        if name != "b.onnx":
            raise ModelError(f"{name}: OpenVINO cannot load it: no such operator.")

    def run(self, images: np.ndarray) -> np.ndarray:
        return np.maximum(images, 0) + np.float32(0.5)


def test_bench_in_two_runtimes(bench_files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file in each; what one runtime cannot read costs its own row, and a line that says why."""
    monkeypatch.setattr("compress.measure.runtimes.OpenVinoSession", FakeOpenVinoSession)
    command = ("bench", "a.onnx", "b.onnx", "--input", "3,4,4", "--runtime", "onnxruntime,openvino", "--out", "b.json")
    result = run(*command)
    assert result.exit_code == 2, result.output
    assert bench_files["models"] == [("a.onnx", "onnxruntime"), ("b.onnx", "onnxruntime"), ("b.onnx", "openvino")]
    assert "Note: not timed: a.onnx: OpenVINO cannot load it: no such operator." in result.stderr
    assert "Error: not timed: a.onnx [openvino]. The notes above say why." in result.stderr
    assert "First output against onnxruntime's" in result.stdout
    figures = json.loads(Path("b.json").read_text())
    assert list(figures["models"]) == ["a.onnx", "b.onnx", "b.onnx [openvino]"]
    assert figures["models"]["b.onnx [openvino]"]["runtime"] == "openvino"
    assert figures["failed"][0]["file"] == "a.onnx"
    assert figures["differences"][0]["max_abs"] == pytest.approx(0.5)


def test_bench_in_an_unknown_runtime(bench_files: dict[str, Any]) -> None:
    said = fails("bench", "a.onnx", "--input", "3,4,4", "--runtime", "tensorrt")
    assert "Error: --runtime: got 'tensorrt'. Must be of onnxruntime, openvino, with commas." in said


def test_bench_without_the_package(bench_files: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    said = fails("bench", "a.onnx", "--input", "3,4,4", "--runtime", "openvino")
    assert said.startswith("Error: --runtime: openvino is not installed")
    assert "Use pip install 'compress[openvino]'." in said


def test_bench_of_a_missing_file() -> None:
    assert fails("bench", "none.onnx", "--input", "3,4,4").startswith("Error: none.onnx: no such file.")


def test_splice(tmp_path: Path) -> None:
    (tmp_path / "crops").mkdir()
    for name in ("a", "b"):
        cv2.imwrite(str(tmp_path / "crops" / f"{name}.png"), np.zeros((40, 60, 3), np.uint8))
    out = tmp_path / "spliced"
    result = run("splice", tmp_path / "crops", "--count", 3, "--out", out)
    assert (result.exit_code, result.stdout) == (0, f"Written: 3 crops, {out / 'labels.txt'}\n")
    assert len(list((out / "images").iterdir())) == 3
    assert "inside the crops" in fails("splice", tmp_path / "crops", "--out", tmp_path / "crops" / "more")
    assert "none: no such file." in fails("splice", tmp_path / "none", "--out", tmp_path / "other")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "notes.txt").touch()
    assert "own: holds other files." in fails("splice", tmp_path / "crops", "--out", tmp_path / "own")
    assert not (tmp_path / "other").exists()


def test_crop(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))
    regions = [{"transcription": text, "points": [[0, 0], [50, 0], [50, 12], [0, 12]]} for text in ("EXIT", "###")]
    (tmp_path / "a.txt").write_text(f"a.png\t{json.dumps(regions)}\n")
    result = run("crop", tmp_path / "a.txt", "--out", tmp_path / "lines")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Left out: 1 regions marked ### or *",
        f"Written: 1 crops, {tmp_path / 'lines' / 'labels.txt'}",
    ]
    assert (tmp_path / "lines" / "labels.txt").read_text() == "images/a_000.png\tEXIT\n"
    assert "lines: holds other files." in fails("crop", tmp_path / "a.txt", "--out", tmp_path / "lines")
    assert "no.txt: no such file." in fails("crop", tmp_path / "no.txt", "--out", tmp_path / "other")
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "b.txt"
    listed.write_text(f"../a.png\t{json.dumps(regions)}\n../none.png\t[]\n")
    given = ("crop", listed, "--out", tmp_path / "more", "--data-root", tmp_path)
    assert "1 of 2 images" in fails(*given)
    assert run(*given, "--max-skipped", "0.5").exit_code == 0
    assert fails(*given, "--max-skipped", "2").startswith("Error: --max-skipped: got 2")


@pytest.mark.usefixtures("written_plots")
def test_report(tmp_path: Path) -> None:
    machine = artifacts.Machine("cpu", (), 1, "os", {})
    artifacts.save(Report("My run", "c", "d", machine, (), (), "f", scan="f"), tmp_path / "report.json")
    artifacts.save(SCAN, tmp_path / "sensitivity.json")
    result = run("report", tmp_path)
    assert "My run" in result.output
    assert "conv1" in (tmp_path / "report.md").read_text()
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("scan", "code", "said"), [("", 0, "is left out: the report does"), ("g", 2, "json: stale: ")])
def test_report_does_not_show_the_scan_of_another_run(tmp_path: Path, scan: str, code: int, said: str) -> None:
    machine = artifacts.Machine("cpu", (), 1, "os", {})
    artifacts.save(Report("My run", "c", "d", machine, (), (), "f", scan=scan), tmp_path / "report.json")
    artifacts.save(SCAN, tmp_path / "sensitivity.json")
    result = run("report", tmp_path)
    assert result.exit_code == code
    assert said in result.stderr
    assert not (tmp_path / "report.md").exists() or "conv1" not in (tmp_path / "report.md").read_text()


def test_run(pipeline: FakePipeline, tmp_path: Path) -> None:
    result = run("run", write_recipe(tmp_path), "--set", "quantize.epochs=2", "--out", "there", "--device", "cuda:1")
    assert result.exit_code == 0, result.output
    recipe = pipeline.calls["run_recipe"][0][0]
    assert isinstance(recipe, Recipe)
    assert recipe.out == Path("there")
    assert recipe.device == "cuda:1"  # looked for when it runs
    assert recipe.steps == (QuantizeStep(epochs=2),)
    assert "Report: there/report.md" in result.stdout


# --- how it ends ------------------------------------------------------------------------------------------------


def test_a_missed_gate_ends_with_1(pipeline: FakePipeline, tmp_path: Path) -> None:
    gates = [Gate("speedup", 1.5, 1.2, False), Gate("size_ratio", 0.5, 0.3, True), Gate("metric_min", 0.9, 0.8, False)]
    pipeline.gates = tuple(gates)
    result = run("run", write_recipe(tmp_path))
    assert result.exit_code == 1
    assert "Gates missed: speedup, metric_min." in result.stderr


KILLED = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (CompressError("one\ntwo"), "Error: one\nError: two\n"),
        (PermissionError(13, "Permission denied", "/x"), "Error: /x: Permission denied.\n"),
        (KILLED, f"Error: {killed_worker(KILLED)}\n"),
        (MemoryError(), "Error: out of memory. Use a smaller batch size, or close other programs.\n"),
    ],
    ids=["ours", "file", "worker", "memory"],
)
def test_bad_input_ends_with_2(pipeline: FakePipeline, fault: BaseException, said: str) -> None:
    pipeline.fault = fault
    assert fails("inspect", "m.onnx") == said


def test_debug_shows_the_traceback(pipeline: FakePipeline) -> None:
    pipeline.fault = ModelError("broken")
    for args in (["--debug", "inspect", "m.onnx"], ["inspect", "m.onnx", "--debug"]):
        result = run(*args)
        assert result.exit_code == 2
        assert "Traceback" in result.stderr
        assert result.stderr.endswith("Error: broken\n")


def test_a_full_disk_is_told_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever noticed; where it is not the space, the advice stays."""
    codes = iter((errno.ENOSPC, errno.EDQUOT, errno.EACCES))

    def write(*_: object) -> None:
        code = next(codes)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("compress.artifacts.store.os.replace", write)
    file = tmp_path / "s.json"
    said = []
    for _ in range(3):
        with pytest.raises(OutputError) as caught:
            artifacts.write_atomic(file, b"x")
        said.append(explain(caught.value))
    advice = "Free some space there, or choose a folder on another disk."
    assert said[:2] == [
        f"{file}: cannot be written (No space left on device). {advice}",
        f"{file}: cannot be written ({os.strerror(errno.EDQUOT)}). {advice}",
    ]
    assert said[2].endswith("Choose a folder you may write to with --out.")
    assert explain(OSError(errno.ENOSPC, "No space left on device", "a")) == f"a: No space left on device. {advice}"


def test_a_bug_is_one_line_that_asks_for_a_report(pipeline: FakePipeline) -> None:
    pipeline.fault = ZeroDivisionError("ours\nand more")
    said = fails("inspect", "m.onnx")
    assert re.fullmatch(r"Error: internal error \(ZeroDivisionError: ours, test_cli.py:\d+\)\. .*report.*\n", said)
    debugged = run("inspect", "m.onnx", "--debug")
    assert "Traceback" in debugged.stderr
    assert debugged.exit_code == 2


def test_interrupted_says_what_is_saved(pipeline: FakePipeline, tmp_path: Path) -> None:
    pipeline.fault = KeyboardInterrupt()
    result = run("run", write_recipe(tmp_path))
    assert result.exit_code == 130
    assert "Interrupted. runs/r holds what is done; the same command goes on from there." in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["replace", "m.onnx", "--activation", "swish=relu", "--out", "r"],
            "--activation: got 'swish=relu'. Must be one",
        ),
        (["replace", "m.onnx", "--activation", "hardswish", "--out", "r"], "Must be one of: hardswish=relu."),
        (
            ["replace", "m.onnx", "--activation", "hardswish=relu", "--metric-drop", "0.1", "--out", "r"],
            "--metric-drop: needs --data, the validation images",
        ),
        (
            ["replace", "m.onnx", "--activation", "hardswish=relu", "--metric-drop", "-1", "--out", "r"],
            "--metric-drop: got -1.0. Must be 0 or more.",
        ),
        (
            ["replace", "m.onnx", "--activation", "hardswish=relu", "--images", "9", "--out", "r"],
            "images: needs metric_drop, without which nothing is measured.",
        ),
        (
            ["replace", "m.onnx", "--activation", "hardswish=relu", "--out", "m.onnx"],
            "--out: m.onnx is the input itself",
        ),
        (["prune", "m.onnx", "--target", "ratio=2", "--out", "p"], '--ratio: got "2". Must be a share in [0, 1)'),
        (["prune", "m.onnx", "--out", "p.onnx"], "--ratio, --target, --plan: give exactly one of them"),
        (["prune", "m.onnx", "--ratio", "1", "--out", "p"], "Error: --ratio: got 1.0. Must be a share in [0, 1)."),
        (["prune", "m.onnx", "--target", "0.5", "--out", "p"], "--target: got '0.5'. Must be macs=, params=,"),
        (["prune", "m.onnx", "--target", "mac=0.5", "--out", "p"], "unknown key. Did you mean `macs`?"),
        (["prune", "m", "--target", "latency=2", "--out", "p"], '--target latency: got "2". Must be a share in (0, 1]'),
        (["prune", "m", "--ratio", "0.5", "--precision", "int4", "--out", "p"], "Must be float32, int8 or mixed."),
        (["prune", "m.onnx", "--target", "macs=2", "--out", "p"], '--target macs: got "2". Must be a share in (0, 1]'),
        (["prune", "m.onnx", "--target", "macs=0.5", "--out", "p"], "needs --sensitivity FILE"),
        (["prune", "m", "--plan", "p.json", "--ratio", "0.5", "--out", "p"], "--plan: give exactly one of them"),
        (["prune", "m", "--plan", "p.json", "--align", "8", "--out", "p"], "--align: --plan has decided that. Remove"),
        (["prune", "m", "--ratio", "0.5", "--scanned", "m", "--out", "p"], "--scanned: needs --sensitivity"),
        (["prune", "m.onnx", "--ratio", "0.3", "--align", "12", "--out", "p"], "--align: got 12. Must be 1, 2, 4 or"),
        (["prune", "m.onnx", "--ratio", "0.3", "--out", "m.onnx"], "--out: m.onnx is the input itself."),
        (["prune", "m.onnx", "--ratio", "0.3", "--out", "."], "--out: . is a folder."),
        (["prune", "m.onnx", "--ratio", "many", "--out", "p"], "Invalid value for '--ratio'"),
        (["prune", "m.onnx", "--ratoi", "0.3"], "No such option: --ratoi"),
        (["prune"], "Missing argument 'MODEL'"),
        (["pruen"], "No such command 'pruen'"),
        (["inspect", "m.onnx", "--input", "3,48"], "--input: got '3,48'. Must be channels,height,width."),
        (["inspect", "m.onnx", "--input", "3,48,-1"], "--input: got '3,48,-1'."),
        (["bench", "a.onnx"], "--input: missing. Give the size of an image"),
        (["report", "nowhere"], "nowhere: holds no report.json."),
        (["run", "none.yaml"], "none.yaml: cannot be read: No such file"),
        (
            ["sensitivity", "m", "--data", "v", "--out", "o", "--ratios", "0.5,1.5,x"],
            'Error: --ratios: got "1.5". Must be a share in [0, 1). Use e.g. 0.3 to remove 30 %.\n'
            'Error: --ratios: got "x". Must be a number.',
        ),
        (
            ["finetune", "m", "--train", "t", "--data", "v", "--out", "o", "--mutual", "-1"],
            "--mutual: got -1.0. Must be 0 or more.",
        ),
        (
            ["finetune", "m", "--train", "t", "--data", "v", "--out", "o", "--distill", "1"],
            "--distill: got 1, but there is no --teacher.",
        ),
        (
            ["finetune", "m", "--train", "t", "--data", "v", "--out", "o", "--unlabelled", "more"],
            "--unlabelled: got more, but there is no --teacher to say what is in it. Give the original model.",
        ),
        (
            ["quantize", "m", "--train", "t", "--data", "v", "--out", "o", "--unlabelled", "more"],
            "--unlabelled: got more, but there is no --teacher to say what is in it. Give the original model.",
        ),
        (
            ["quantize", "m", "--train", "t", "--data", "v", "--out", "o", "--optimizer", "adm"],
            '--optimizer: got "adm". Must be adam or sgd. Did you mean `adam`?',
        ),
        (
            ["quantize", "m", "--train", "t", "--data", "v", "--out", "o", "--recurrent", "dynamc"],
            '--recurrent: got "dynamc". Must be auto, float, weights or dynamic. Did you mean `dynamic`?',
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments(pipeline: FakePipeline, args: list[str], said: str) -> None:
    assert said in fails(*args)
    assert not pipeline.calls, "nothing is computed before the arguments are right"


def test_a_scan_by_another_criterion(pipeline: FakePipeline, tmp_path: Path) -> None:
    artifacts.save(SCAN, tmp_path / "s.json")
    args = ["prune", "m", "--target", "macs=0.5", "--sensitivity", "s.json", "--criterion", "l2", "--out", "p"]
    assert "--criterion: got l2, but s.json ranks by l1." in fails(*args)


def test_a_damaged_scan(pipeline: FakePipeline, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text("{")
    args = ["prune", "m", "--target", "macs=0.5", "--sensitivity", "s.json", "--out", "p"]
    assert "Error: s.json: not readable as JSON" in fails(*args)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_closed_pipe_is_no_error() -> None:
    shown = subprocess.run(
        f"{shlex.quote(sys.executable)} -m compress quantize --help | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("Usage:")
    assert "Traceback" not in shown.stderr


# --- progress ---------------------------------------------------------------------------------------------------


def test_plain_progress_has_the_time_left() -> None:
    """First and last, and between them after 5, 10, 20, 40 seconds and then each minute; the pace is the stage's."""
    lines: list[str] = []
    seconds = 0.0
    on_progress = plain_lines(lines.append, lambda: seconds)
    for done in range(101):
        on_progress(done, 100, "scan")
        seconds += 2.0
    assert lines == [
        "[0/100] scan",
        "[3/100] scan, 3m14s left",
        "[8/100] scan, 3m04s left",
        "[18/100] scan, 2m44s left",
        "[38/100] scan, 2m04s left",
        "[68/100] scan, 1m04s left",
        "[98/100] scan, 4s left",
        "[100/100] scan",
    ]


def test_progress_of_a_resumed_scan() -> None:
    """What was done before does not count for the pace."""
    lines: list[str] = []
    seconds = 0.0
    on_progress = plain_lines(lines.append, lambda: seconds)
    on_progress(90, 100, "scan")
    seconds = 60.0
    on_progress(92, 100, "scan")
    assert lines == ["[90/100] scan", "[92/100] scan, 4m00s left"]


def test_each_stage_has_its_own_clock() -> None:
    lines: list[str] = []
    on_progress = plain_lines(lines.append, lambda: 0.0)
    on_progress(1, 2, "scan")
    on_progress(0, 5, "train")
    assert lines == ["[1/2] scan", "[0/5] train"]


@pytest.mark.parametrize(
    ("typed", "offered"), [("compress shr", ["shrink"]), ("compress shrink --max-", ["--max-drop", "--max-skipped"])]
)
def test_shells_complete_commands_and_options(typed: str, offered: list[str]) -> None:
    asked = {"_COMPRESS_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    result = CliRunner().invoke(app, [], prog_name="compress", env=asked)
    assert result.stdout.split() == offered
