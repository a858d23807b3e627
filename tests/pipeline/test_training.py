"""Fine-tuning and quantisation on files, with a handful of crops."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from compress.artifacts import Parity, Quantized, Score, fingerprint
from compress.errors import ArtifactError, DataError, DeviceError, ParityError, PlanError, RecipeError
from compress.export.parity import Reading
from compress.graph import from_torch, is_quantised, read_model, to_torch
from compress.graph.lowering import lower_for_int8
from compress.pipeline import make_task, open_model, run_finetune, run_quantize, score_model, shared_scoring
from compress.pipeline.execution import Execution
from compress.pipeline.models import model_identity
from compress.pipeline.run import run_recipe
from compress.pipeline.stages import finetune as finetune_stage
from compress.pipeline.stages import fitting, int8_file, prepared
from compress.pipeline.stages import quantize as quantize_stage
from compress.pipeline.stages.fitting import train_identity
from compress.quant import integer_nodes, prepare_qat
from compress.recipe import FinetuneStep, PactSettings, QuantizeStep
from compress.tasks.base import Task
from tests.export import files
from tests.pipeline import tiny
from tests.pretend_gpu import pretend_gpu
from tests.quant import nets


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("training"), crops=6)


def finetune(model: onnx.ModelProto, task: Task, out: Path, teacher: onnx.ModelProto | None = None, **options) -> Score:  # type: ignore[no-untyped-def]
    step = FinetuneStep(epochs=2, batch_size=6, lr=0.01, distill=0.0 if teacher is None else 1.0)
    kept = options.pop("kept", None)
    return run_finetune(model, teacher, task, out, step, kept=kept, execution=Execution(threads=1, **options))


def quantize(model: onnx.ModelProto, task: Task, out: Path, step: QuantizeStep | None = None, **options) -> Quantized:  # type: ignore[no-untyped-def]
    step = step or QuantizeStep(epochs=1, batch_size=6, calibration=8, distill=0.0, optimize="size")
    return run_quantize(model, None, task, out, step, execution=Execution(threads=1, **options))


# --- fine-tuning ------------------------------------------------------------------------------------------------


def test_finetuned_file_scores_what_is_said(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    score = finetune(model, task, tmp_path / "f.onnx", teacher=model)
    assert score == score_model(tmp_path / "f.onnx", task, 1)
    assert score.metric >= score_model(model, task, 1).metric  # the start is one of the candidates
    written = read_model(tmp_path / "f.onnx")
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in model.graph.node]
    assert not list(tmp_path.glob("*.checkpoint"))


class TwoOutputs(tiny.Tiny):
    """A network that also gives its features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(x), self.features(x)


def test_of_several_outputs_the_first_is_trained(task: Task, tmp_path: Path) -> None:
    """Fine-tuned, distilled and quantised: the other's layer keeps its weights."""
    torch.manual_seed(0)
    module = TwoOutputs()
    model = from_torch(module, torch.zeros(1, *tiny.SHAPE))
    notes: list[str] = []
    score = finetune(model, task, tmp_path / "f.onnx", teacher=model, on_note=notes.append)
    assert score.metric >= score_model(model, task, 1).metric
    assert len(notes) == 1
    assert notes[0].startswith("Note: the model has 2 outputs. The first, 'output', is trained and scored; ")
    trained = dict(to_torch(read_model(tmp_path / "f.onnx")).named_parameters())
    kept = [weight for weight in trained.values() if weight.shape == module.features.weight.shape]
    assert any(torch.equal(weight, module.features.weight) for weight in kept)
    assert quantize(model, task, tmp_path / "q.onnx").parity.agreement > 0.9


def test_a_model_of_one_channel(task: Task, tmp_path: Path) -> None:
    grey = from_torch(torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 16, 32))
    with pytest.raises(DataError, match=r"input shape \[None, 1, None, None\] does not fit classification"):
        finetune(grey, task, tmp_path / "f.onnx")


def test_one_seed_one_file(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """Rising metrics, so that the last epoch is kept; another seed sees other crops."""
    calls = iter(range(100))
    task.evaluate, kept = (lambda predict, limit=None: Score(next(calls) / 100, "accuracy", 12)), task.evaluate  # type: ignore[method-assign]
    try:
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            finetune(model, task, tmp_path / f"{name}.onnx", seed=seed)
    finally:
        task.evaluate = kept  # type: ignore[method-assign]
    content = {name: (tmp_path / f"{name}.onnx").read_bytes() for name in "abc"}
    assert content["a"] == content["b"]
    assert content["a"] != content["c"]


def test_stopped_inside_finetuning_it_goes_on_to_the_same_file(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    finetune(model, task, tmp_path / "whole.onnx", checkpoint=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        finetune(model, task, tmp_path / "s.onnx", checkpoint=tmp_path / "c", on_progress=tiny.stop_when("epoch 2/2"))
    assert (tmp_path / "c").exists()
    assert not (tmp_path / "s.onnx").exists()
    finetune(model, task, tmp_path / "s.onnx", checkpoint=tmp_path / "c")
    assert (tmp_path / "s.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()
    assert (tmp_path / "c").exists()  # until its caller has kept the result: the same call gives it again
    told: list[str] = []
    finetune(model, task, tmp_path / "s.onnx", checkpoint=tmp_path / "c", on_progress=lambda *now: told.append(now[2]))
    assert not [text for text in told if "epoch 1/" in text]
    assert (tmp_path / "s.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def mutually(model: onnx.ModelProto, task: Task, out: Path, **options) -> Score:  # type: ignore[no-untyped-def]
    step = FinetuneStep(epochs=2, batch_size=6, lr=0.01, mutual=1.0, features=1.0, average=4, freeze_bn=True)
    return run_finetune(model, model, task, out, step, execution=Execution(threads=1, **options))


def test_of_two_students_the_better_is_written(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores: of the start, and of each epoch, the first student's before the second's; then of the file."""
    scored: list[onnx.ModelProto] = []
    metrics = iter([0.5, 0.1, 0.4, 0.6, 0.3, 0.2, 0.6])

    def score(made: onnx.ModelProto | Path, *_: object) -> Score:
        scored.append(made if isinstance(made, onnx.ModelProto) else read_model(made))
        return Score(next(metrics), "accuracy", 12)

    for module in (shared_scoring, finetune_stage):
        monkeypatch.setattr(module, "score_model", score)
    assert mutually(model, task, tmp_path / "m.onnx").metric == 0.6
    assert [scored.index(each) for each in scored] == [0, 1, 2, 3, 4, 5, 3]


def test_two_students_that_are_stopped_go_on_to_the_same_file(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    score = mutually(model, task, tmp_path / "whole.onnx")
    assert score == score_model(tmp_path / "whole.onnx", task, 1)
    assert score.metric >= score_model(model, task, 1).metric  # the start is one of the candidates
    with pytest.raises(KeyboardInterrupt):
        mutually(model, task, tmp_path / "s.onnx", checkpoint=tmp_path / "c", on_progress=tiny.stop_when("epoch 2/2"))
    mutually(model, task, tmp_path / "s.onnx", checkpoint=tmp_path / "c")
    assert (tmp_path / "s.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_a_checkpoint_of_other_settings_is_stale(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        finetune(model, task, tmp_path / "f.onnx", checkpoint=tmp_path / "c", on_progress=tiny.stop_when("epoch 2/2"))
    with pytest.raises(ArtifactError, match="stale"):
        finetune(model, task, tmp_path / "f.onnx", checkpoint=tmp_path / "c", seed=7)


def test_identity_depends_on_everything(model: onnx.ModelProto, task: Task) -> None:
    step = FinetuneStep()
    other = open_model("tests.pipeline.tiny:three_classes", None, tiny.SHAPE)
    found = {
        train_identity(model, None, task, step, 0),
        train_identity(model, model, task, step, 0),
        train_identity(other, None, task, step, 0),
        train_identity(model, None, task, FinetuneStep(lr=0.5), 0),
        train_identity(model, None, task, step, 1),
    }
    assert len(found) == 5
    assert train_identity(model, None, task, FinetuneStep(), 0) in found


@pytest.mark.parametrize("run", [finetune, quantize])
def test_nothing_to_train_on(model: onnx.ModelProto, folder: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    val = [folder / "val" / "labels.txt"]
    bare = make_task("classification", train=(), val=val, input_shape=tiny.SHAPE, directions=True)
    with pytest.raises(DataError, match=r"no (training )?images"):
        run(model, bare, tmp_path / "f.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", [finetune, quantize])
def test_a_model_of_other_classes(task: Task, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    other = open_model("tests.pipeline.tiny:three_classes", None, tiny.SHAPE)
    with pytest.raises(DataError, match="does not fit classification"):
        run(other, task, tmp_path / "f.onnx")


# --- quantisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [0, 1])
def test_int8_file(model: onnx.ModelProto, task: Task, tmp_path: Path, epochs: int) -> None:
    step = QuantizeStep(epochs=epochs, batch_size=6, calibration=8, distill=0.0, optimize="size")
    made = quantize(model, task, tmp_path / "int8.onnx", step)
    assert made.parity.max_steps <= 1.01
    assert made.parity.count == 12  # of 32 asked for, what there is
    assert made.notes == ()  # nothing recurrent to choose a form for
    written = read_model(tmp_path / "int8.onnx")
    assert is_quantised(written)
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * len(model.SerializeToString())
    assert abs(score_model(written, task, 1).metric - score_model(model, task, 1).metric) <= 0.5


@pytest.mark.slow
def test_stopped_inside_quantisation_it_goes_on_to_the_same_file(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    step = QuantizeStep(epochs=2, batch_size=6, calibration=8, distill=0.0, optimize="size")
    quantize(model, task, tmp_path / "whole.onnx", step, checkpoint=tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        quantize(
            model, task, tmp_path / "s.onnx", step, checkpoint=tmp_path / "c", on_progress=tiny.stop_when("epoch 2/2")
        )
    quantize(model, task, tmp_path / "s.onnx", step, checkpoint=tmp_path / "c")
    assert (tmp_path / "s.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_a_file_that_differs_is_not_written(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Parity:
        raise ParityError("differs")

    monkeypatch.setattr(int8_file, "check_parity", fails)
    with pytest.raises(ParityError, match="differs"):
        quantize(model, task, tmp_path / "int8.onnx", checkpoint=tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]  # what was trained is kept


class Mapped(tiny.Tiny):
    """A network that says of each pixel whether it is text."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] -> [N, 1, H / 2, W / 2]."""
        return torch.sigmoid(self.second(self.first(self.stem(x))).mean(1, keepdim=True))


@pytest.mark.parametrize(("settings", "expected"), [({"threshold": 0.7}, 0.7), ({}, 0.3), (None, 0.3)])
def test_the_file_is_checked_at_the_threshold_of_the_task(
    task: Task, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float] | None, expected: float
) -> None:
    """Where a pixel is text is the task's to say, as when it is scored."""
    if settings is not None:
        monkeypatch.setattr(task, "postprocessing", lambda: settings, raising=False)
    seen: list[float] = []

    def look(*_: object, reading: Reading) -> Parity:
        seen.append(reading.threshold)
        return Parity(0, 0, 0, 0, 1, 1, 1)

    monkeypatch.setattr(int8_file, "check_parity", look)
    model = from_torch(Mapped().eval(), torch.zeros(1, *tiny.SHAPE))
    step = QuantizeStep(epochs=0, calibration=8, optimize="size")
    lowered = lower_for_int8(model)
    qat = prepare_qat(to_torch(lowered))
    quantize_stage.calibrate(qat, task.calibration_batches(8, 4), total=8)
    quantize_stage.export_trained(qat, lowered, task, step)
    assert seen == [expected]


def integer_convolutions(path: Path) -> int:
    return files.count_ops(files.optimised(read_model(path)))["QLinearConv"]


@pytest.mark.parametrize(
    ("patterns", "left"), [((), 2), (("first_first_0_Conv_output_0",), 1), (("second*",), 1), (("*Conv*",), 0)]
)
def test_float_layers_go_by_the_models_own_names(
    model: onnx.ModelProto,
    task: Task,
    tmp_path: Path,
    patterns: tuple[str, ...],
    left: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`first` has a BatchNorm that lowering folds: it is still called what `inspect` calls it."""
    seen: list[tuple[str, ...]] = []

    def look(module, float_layers, **options):  # type: ignore[no-untyped-def]
        seen.append(float_layers)
        found = [node for node in integer_nodes(module, float_layers) if node.meta["op_type"] == "Conv"]
        assert len(found) == left
        return prepare_qat(module, float_layers=float_layers, **options)

    monkeypatch.setattr(prepared, "prepare_qat", look)
    step = QuantizeStep(epochs=0, batch_size=6, calibration=8, distill=0.0, float_layers=patterns, optimize="size")
    quantize(model, task, tmp_path / "int8.onnx", step)
    assert len(seen) == 1


def test_float_layers_that_cannot_be_integer_anyway() -> None:
    """A pattern of everything names an LSTM, too, which is in float whatever one says."""
    model = from_torch(nets.initialise(nets.Recurrent()), nets.images(1))
    lowered = to_torch(lower_for_int8(model))
    found = quantize_stage._float_layers(model, lowered, ["*"])
    assert sorted(found) == ["conv_Conv_output_0", "fc_MatMul_output_0", "stem_stem_1_BatchNormalization_output_0"]


def test_an_unknown_float_layer(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    step = QuantizeStep(epochs=0, calibration=8, float_layers=("nope",), optimize="size")
    with pytest.raises(PlanError, match=r"float_layers: 'nope' matches no layer"):
        quantize(model, task, tmp_path / "int8.onnx", step)


def test_settings_reach_the_network(
    model: onnx.ModelProto, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {}
    groups = quantize_stage.qat_parameter_groups

    def look_at_prepare(module, **options):  # type: ignore[no-untyped-def]
        given.update(options)
        return prepare_qat(module, **options)

    def look_at_groups(module, **options):  # type: ignore[no-untyped-def]
        given.update(options)
        return groups(module, **options)

    monkeypatch.setattr(prepared, "prepare_qat", look_at_prepare)
    monkeypatch.setattr(quantize_stage, "qat_parameter_groups", look_at_groups)
    pact = PactSettings(l2=0.5, lr_multiplier=3.0, asymmetric_hardswish=False, symmetric=True)
    step = QuantizeStep(
        epochs=1,
        batch_size=12,
        calibration=4,
        lr=0.25,
        weight_decay=0.125,
        weight_bits=8,
        pact=pact,
        distill=0.0,
        optimize="size",
    )
    monkeypatch.setattr(int8_file, "check_parity", lambda *_, **__: None)  # 8 bits and such a rate: not what is tested
    quantize(model, task, tmp_path / "int8.onnx", step)
    assert given == {
        "float_layers": (),
        "float_values": (),
        "pact": True,
        "asymmetric_hard_swish": False,
        "two_sided": False,
        "weight_bits": 8,
        "lr": 0.25,
        "weight_decay": 0.125,
        "l2": 0.5,
        "lr_multiplier": 3.0,
    }


def test_the_teacher_is_the_original(model: onnx.ModelProto) -> None:
    assert fitting.teacher_outputs(None, 1, 1.0) is None
    assert fitting.teacher_outputs(model, 1, 0.0) is None
    teacher = fitting.teacher_outputs(model, 1, 0.5)
    assert teacher is not None
    images = torch.rand(2, *tiny.SHAPE).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        np.testing.assert_allclose(teacher(images), to_torch(model)(images), atol=1e-5)


def test_a_step_without_options_has_the_identity_that_it_always_had() -> None:
    """So that runs of earlier versions go on; with features the channels that are compared are part of it."""
    model, task = onnx.ModelProto(), SimpleNamespace(fingerprint=lambda: "t")
    plain, with_features = FinetuneStep(epochs=2), FinetuneStep(epochs=2, features=1.0)
    settings = plain.model_dump(mode="json")
    del settings["features"], settings["mutual"], settings["precision"]
    expected = fingerprint(model_identity(model), "", "t", settings, 0)
    assert train_identity(model, None, task, plain, 0) == expected  # type: ignore[arg-type]
    assert train_identity(model, None, task, plain, 0, {"a": [1]}) == expected  # type: ignore[arg-type]
    others = [train_identity(model, None, task, with_features, 0, kept) for kept in (None, {"a": [1]}, {"a": [2]})]  # type: ignore[arg-type]
    two_students = train_identity(model, None, task, FinetuneStep(epochs=2, mutual=1.0), 0)  # type: ignore[arg-type]
    assert len({expected, *others, two_students}) == 5


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_stages_run_on_a_gpu(tmp_path: Path) -> None:
    """Each stage moves to the device what it must, and writes what the CPU would."""
    inputs = tiny.write_inputs(tmp_path)
    steps = {
        "prune": {"target": {"ratio": 0.25}, "align": 4},
        "reconstruct": {"images": 8},
        "finetune": {"epochs": 1, "batch_size": 6, "lr": 0.01, "optimizer": "sgd", "features": 0.5, "mutual": 0.5},
        "quantize": {"epochs": 1, "batch_size": 6, "calibration": 8, "optimize": "size", "optimizer": "sgd"},
    }
    reports = [run_recipe(tiny.recipe(inputs, "cpu", steps, device="cpu"), "")]
    with pretend_gpu():
        reports.append(run_recipe(tiny.recipe(inputs, "gpu", steps), ""))
    assert [stage.score for stage in reports[1].stages] == [stage.score for stage in reports[0].stages]
    assert (inputs / "gpu/finetuned.onnx").read_bytes() == (inputs / "cpu/finetuned.onnx").read_bytes()
    assert (inputs / "gpu/int8.onnx").read_bytes() == (inputs / "cpu/int8.onnx").read_bytes()


def test_an_absent_gpu_is_one_line(tmp_path: Path) -> None:
    recipe = tiny.recipe(tiny.write_inputs(tmp_path), device="cuda:7")
    with pytest.raises(DeviceError, match=r"device: got 'cuda:7', but PyTorch .* Use cpu or auto"):
        run_recipe(recipe, "")
    steps = {"finetune": {"epochs": 1, "precision": "fp16"}}
    with pytest.raises(DeviceError, match=r"precision: got 'fp16', which is for CUDA"):
        run_recipe(tiny.recipe(tmp_path, steps=steps, device="cpu"), "")
    assert not list((tmp_path / "out").glob("*.onnx"))
    with pytest.raises(RecipeError, match=r"device: got \"gpu\". Must be auto, cpu, cuda, cuda:N"):
        tiny.recipe(tmp_path, device="gpu")
