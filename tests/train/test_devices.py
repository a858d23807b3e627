"""Training, reconstruction and calibration on a GPU that is pretended: what the CPU computes, to the last bit."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from compress.data.synthetic import write_dataset
from compress.data.synthetic_scenes import write_scenes
from compress.graph import load_model, to_onnx, to_torch
from compress.graph.lowering import lower_for_int8
from compress.pipeline.tasks import make_task
from compress.prune.channels import kept_outputs, remove_channels
from compress.prune.groups import find_groups
from compress.prune.reconstruct import reconstruct
from compress.quant import calibrate, prepare_qat, qat_parameter_groups
from compress.tasks.base import Task
from compress.train import FeatureLoss, FitSettings, Objective, Pair, TrainingData, fit, pair_objective
from tests.pretend_gpu import OnGpu, pretend_gpu

ZOO = Path(__file__).parents[2] / "compress/zoo/models"
CPU = torch.device("cpu")
TASKS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("direction_classifier", {"input_shape": (3, 48, 64), "directions": True}),
    "recognition": (
        "text_recogniser",
        {"input_shape": (3, 32, 128), "charset": ZOO / "latin.txt", "widths": (64, 128), "decouple": 0.1},
    ),
    "detection": ("text_detector", {"input_shape": (3, 96, 96), "side": 96, "crop": 96, "dilate_teacher": True}),
}


@cache
def _model(kind: str) -> onnx.ModelProto:
    return load_model(ZOO / f"{TASKS[kind][0]}.onnx")


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Task]]:
    """Kind -> a task of two rendered images."""
    folder = tmp_path_factory.mktemp("rendered")
    crops, scenes = write_dataset(folder / "crops", 2, 1), write_scenes(folder / "scenes", 2, 1)

    def made(kind: str) -> Task:
        # The CPU has kernels of its own for an LSTM, which round otherwise and which the pretended GPU lacks.
        torch._C._set_mkldnn_enabled(kind != "recognition")
        lists = [scenes if kind == "detection" else crops]
        return make_task(kind, train=lists, val=lists, allow_overlap=True, **TASKS[kind][1])

    yield made
    torch._C._set_mkldnn_enabled(True)


def teacher_of(kind: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    module = to_torch(_model(kind)).to(device)
    return lambda images: module(images)


def train(
    module: nn.Module,
    task: Task,
    kind: str,
    device: torch.device,
    objective: Objective,
    groups: list[dict[str, Any]] | None = None,
    **more: Any,
) -> None:
    fit(
        module,
        TrainingData(lambda epoch: task.train_batches(epoch=epoch, batch_size=2, seed=0), task.train_steps(2)),
        replace(objective, teacher=teacher_of(kind, device), distill=0.5),
        FitSettings(epochs=1, lr=0.01, optimizer="sgd", keep_best=False, **more),
        parameter_groups=groups,
    )


def finetuned(kind: str, task: Task, device: torch.device, mutual: bool) -> dict[str, Tensor]:
    """Weights of a network after a step with all losses, averages and frozen statistics."""
    module = to_torch(_model(kind)).to(device)
    features = FeatureLoss(to_torch(_model(kind)).to(device))
    objective = Objective(task.loss, lambda trained: 0.0, task.distillation_loss, features=features)
    trained: nn.Module = module
    if mutual:
        trained = Pair(module, torch.zeros(1, *task.input_shape, device=device), 0)
        objective = pair_objective(objective, task.distillation_loss, 1.0)
    train(trained, task, kind, device, objective, average=4, freeze_batch_norm=True)
    if not mutual:
        to_onnx(module, _model(kind))  # wherever it is
    return weights(trained)


def quantized(kind: str, task: Task, device: torch.device) -> dict[str, Tensor]:
    """Weights and thresholds after calibration and a step of QAT."""
    qat = prepare_qat(to_torch(lower_for_int8(_model(kind))), weight_bits=7).to(device)
    calibrate(qat, task.calibration_batches(4, 2))
    groups = qat_parameter_groups(qat, lr=1e-3, weight_decay=0.0, l2=1e-4, lr_multiplier=1.0)
    objective = Objective(task.loss, lambda trained: 0.0, task.distillation_loss)
    train(qat, task, kind, device, objective, groups)
    return weights(qat)


def reconstructed(kind: str, task: Task, device: torch.device) -> dict[str, Tensor]:
    """Weights of a pruned network after its layers were solved for."""
    whole = to_torch(_model(kind))
    groups = find_groups(whole, task.input_shape)
    removed = {group.name: list(range(0, group.channels, 4)) for group in groups}
    pruned = remove_channels(whole, groups, removed).to(device)
    reconstruct(
        whole.to(device), pruned, kept_outputs(copy.deepcopy(whole), groups, removed), task.calibration_batches(4, 2)
    )
    return weights(pruned)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.values if isinstance(value, OnGpu) else value for name, value in module.state_dict().items()}


def check_same(found: dict[str, Tensor], wanted: dict[str, Tensor], slack: float) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=slack, atol=slack)


SLACK = {"classification": 0.0, "recognition": 1e-5, "detection": 0.0}
"""What weights may differ by: the GPU's LSTM is another kernel."""
SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize("mutual", [False, pytest.param(True, marks=SLOW)], ids=["alone", "mutual"])
@pytest.mark.parametrize(
    "kind", [pytest.param("classification", marks=SLOW), pytest.param("recognition", marks=SLOW), "detection"]
)
def test_finetuning_on_a_gpu(kind: str, mutual: bool, make: Callable[[str], Task]) -> None:
    wanted = finetuned(kind, make(kind), CPU, mutual)
    with pretend_gpu() as gpu:
        check_same(finetuned(kind, make(kind), gpu, mutual), wanted, SLACK[kind])
    before = weights(to_torch(_model(kind)))
    assert any(
        not torch.equal(value, before[name.removeprefix("first.")])
        for name, value in wanted.items()
        if name.removeprefix("first.") in before
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("stage", [quantized, reconstructed], ids=["quantized", "reconstructed"])
def test_other_stages_on_a_gpu(stage: Callable[..., dict[str, Tensor]], kind: str, make: Callable[[str], Task]) -> None:
    wanted = stage(kind, make(kind), CPU)
    with pretend_gpu() as gpu:
        found = stage(kind, make(kind), gpu)
    check_same(found, wanted, SLACK[kind] * (1000 if stage is reconstructed else 1))


def test_the_pretended_gpu_refuses_mixed_devices() -> None:
    with pretend_gpu() as gpu:
        module = nn.Linear(2, 2).to(gpu)
        assert next(module.parameters()).device == gpu
        with pytest.raises(RuntimeError, match="same device"):
            module(torch.zeros(1, 2))
        made = module(torch.zeros(1, 2, device=gpu))
        assert made.device == gpu
        with pytest.raises(TypeError, match="can't convert"):
            made.detach().numpy()
        assert made.detach().cpu().numpy().dtype == np.float32
