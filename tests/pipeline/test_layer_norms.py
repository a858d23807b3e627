"""Channels that LayerNorms normalise, from the scan to the pruned file: only where they are asked for."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.cli import app
from compress.errors import ArtifactError
from compress.graph import from_torch, load_model, save_model, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session
from compress.pipeline import run_plan, run_prune, run_sensitivity
from compress.pipeline.execution import Execution
from compress.pipeline.scope import Scope
from compress.pipeline.stages.prune import GivenScan
from compress.pipeline.stages.stored_plan import kept_by_plan
from compress.prune.apply import planned_groups
from compress.prune.channels import silence_channels
from compress.prune.groups import find_groups
from compress.prune.reconstruct import reconstruct
from compress.recipe import PruneStep, SensitivityStep
from compress.tasks.base import Task
from tests.hard_cases.onnx_cases import paddle_svtr
from tests.pipeline import tiny

STEP = SensitivityStep(ratios=(0.5,), criterion="l1")
HALF = PruneStep.model_validate({"target": {"ratio": 0.5}, "align": 1, "layer_norms": True})
BY_SCAN = PruneStep.model_validate({"target": {"macs": 0.7}, "align": 1, "layer_norms": True})


class Mixer(nn.Module):
    """Patches as steps, a residual block, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 12, 8, 8), nn.LayerNorm(12)
        self.wide, self.back = nn.Linear(12, 16), nn.Linear(16, 12)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.back(torch.relu(self.wide(self.norm(x))))
        return self.head(self.last(x).mean(1)).softmax(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the crops of the tiny model, and a model with LayerNorms."""
    made = tiny.write_inputs(tmp_path_factory.mktemp("norms"))
    torch.manual_seed(0)
    save_model(from_torch(Mixer().eval(), torch.zeros(1, *tiny.SHAPE)), made / "model.onnx")
    return made


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, *tiny.SHAPE)).astype(np.float32)


def test_a_scan_and_a_plan_of_it_name_the_norms(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    notes: list[str] = []
    execution = Execution(threads=1, on_note=notes.append)
    found = run_sensitivity(model, task, tmp_path / "on", STEP, scope=Scope(layer_norms=True), execution=execution)
    (stream,) = [name for name, curve in found.curves.items() if curve.channels == 12]
    assert notes[0].startswith(f"scan: {stream}: its channels go through 2 LayerNorms (")
    plan = run_prune(model, tmp_path / "p.onnx", HALF, given=GivenScan(found), execution=execution)
    assert len(plan.groups[stream].removed) == 6
    assert plan.notes == (notes[0].removeprefix("scan: "),)
    without = run_sensitivity(model, task, tmp_path / "off", STEP, execution=Execution(threads=1))
    assert stream not in without.curves
    assert without.fingerprint != found.fingerprint
    with pytest.raises(ArtifactError, match=f"channel group '{stream}' is not in it. Scan this model again"):
        run_prune(model, tmp_path / "q" / "p.onnx", BY_SCAN, given=GivenScan(without))


def test_a_stored_plan_is_followed_again(model: onnx.ModelProto, tmp_path: Path) -> None:
    """The plan says which groups it is of; nothing else must."""
    plan = run_prune(model, tmp_path / "p.onnx", HALF, input_shape=tiny.SHAPE)
    run_plan(model, tmp_path / "again" / "p.onnx", tmp_path / "plan.json")
    assert (tmp_path / "again" / "p.onnx").read_bytes() == (tmp_path / "p.onnx").read_bytes()
    removed = {name: group.removed for name, group in plan.groups.items()}
    module = to_torch(model)
    silent = silence_channels(module, find_groups(module, tiny.SHAPE, layer_norms=True), removed)
    with torch.no_grad():
        wanted = silent(torch.from_numpy(images())).numpy()
    found = Session(load_model(tmp_path / "p.onnx")).run(images())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    kept = kept_by_plan(model, plan, tiny.SHAPE)
    assert {len(left) for left in kept.values()} == {6, 8}


def test_plans_without_them_are_of_the_same_groups_as_before(model: onnx.ModelProto, tmp_path: Path) -> None:
    step = HALF.model_copy(update={"layer_norms": False})
    plan = run_prune(model, tmp_path / "p.onnx", step, input_shape=tiny.SHAPE)
    module = to_torch(model)
    assert planned_groups(module, plan, tiny.SHAPE) == find_groups(module, tiny.SHAPE)
    assert [group.channels for group in plan.groups.values()] == [16]
    assert plan.notes == ()


def test_what_reads_a_thinner_stream_is_solved_anew(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = run_prune(model, tmp_path / "p.onnx", HALF, input_shape=tiny.SHAPE)
    module, pruned = to_torch(model), to_torch(load_model(tmp_path / "p.onnx"))
    untouched = copy.deepcopy(pruned)
    reconstruct(module, pruned, kept_by_plan(model, plan, tiny.SHAPE), [images(64)])
    x = torch.from_numpy(images(64))
    with torch.no_grad():
        before, after = (float((made(x) - module(x)).square().sum()) for made in (untouched, pruned))
    assert after < before


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    data = ["--data", f"{folder}/val/labels.txt", "--task", "classification", "--input", "3,16,32", "--directions"]
    scan = ["sensitivity", f"{folder}/model.onnx", *data, "--ratios", "0.5", "--threads", "1", "--layer-norms"]
    result = CliRunner().invoke(app, [*scan, "--out", str(tmp_path)], prog_name="compress")
    assert result.exit_code == 0, result.output
    assert "its channels go through 2 LayerNorms" in result.output
    prune = ["prune", f"{folder}/model.onnx", "--target", "macs=0.5", "--align", "1", "--layer-norms"]
    given = ["--sensitivity", f"{tmp_path}/sensitivity.json", "--out", f"{tmp_path}/p.onnx"]
    result = CliRunner().invoke(app, [*prune, *given], prog_name="compress")
    assert result.exit_code == 0, result.output
    assert len(artifacts.load(PruningPlan, tmp_path / "plan.json").groups) == 2
    by_plan = ["prune", f"{folder}/model.onnx", "--plan", f"{tmp_path}/plan.json", "--out", f"{tmp_path}/r.onnx"]
    result = CliRunner().invoke(app, [*by_plan, "--layer-norms"], prog_name="compress")
    assert result.exit_code == 2
    assert "--layer-norms: --plan has decided that. Remove it." in result.stderr


def test_inspect_says_how_to_let_them_go(folder: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", f"{folder}/model.onnx"], prog_name="compress", env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    assert "whose mean and variance would change: --layer-norms lets them go" in " ".join(result.output.split())


def test_spelled_out_they_let_channels_go_as_well() -> None:
    """As Paddle2ONNX writes a LayerNorm: eight single operators."""
    module = to_torch(canonicalise(paddle_svtr()))
    names = [{group.name for group in find_groups(module, (3, 32, 64), layer_norms=on)} for on in (False, True)]
    assert names[1] - names[0] == {"c0"}
