"""Scan, plan and prune on files: resumed, refused when stale, and what patterns name."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compress import artifacts
from compress.artifacts import PruningPlan, Sensitivity
from compress.errors import ArtifactError, DataError, ModelError, PlanError
from compress.graph import from_torch, load_model, to_torch
from compress.measure.cost import model_cost
from compress.measure.latency_table import LatencyTable
from compress.measure.network_operators import places_of, predicted_ms
from compress.measure.operator_times import Operator, OperatorTime
from compress.measure.session import Session
from compress.pipeline import open_model, run_plan
from compress.pipeline.models import expand_names
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny
from tests.prune.coupled_nets import Attended

FIRST, SECOND = "first_first_0_Conv_output_0", "second_second_0_Conv_output_0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("stages"), crops=6)


class Recurrent(torch.nn.Module):
    """An LSTM over the columns of an image, and a class for its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = torch.nn.Conv2d(3, 8, (16, 4), (1, 4)), torch.nn.LSTM(8, 6, bidirectional=True)
        self.fc = torch.nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 16, 32] -> [N, 2]."""
        steps = self.rnn(torch.relu(self.conv(x)).mean(2).permute(2, 0, 1))[0]
        return torch.softmax(self.fc(steps[-1]), 1)


def scan(model: onnx.ModelProto, task: Task, out: Path, **changes: object) -> Sensitivity:
    return stepping.scan(model, task, out, **{"criterion": "l1", "ratios": [0.25, 0.5], "threads": 1, **changes})  # type: ignore[arg-type]


# --- scan -------------------------------------------------------------------------------------------------------


def test_scan_is_stored(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path)
    assert artifacts.load(Sensitivity, tmp_path / "sensitivity.json") == found
    assert [curve.channels for curve in found.curves.values()] == [8, 16, 16]
    assert all(list(curve.metric) == ["0.25", "0.5"] for curve in found.curves.values())
    assert found.baseline == task.evaluate(Session(model).run).metric


def test_stopped_inside_the_scan_it_goes_on_to_identical_json(
    model: onnx.ModelProto, task: Task, tmp_path: Path
) -> None:
    scan(model, task, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        scan(model, task, tmp_path / "stopped", on_progress=tiny.stop_when("accuracy", 3))
    path = tmp_path / "stopped" / "sensitivity.json"
    assert sum(len(curve["metric"]) for curve in json.loads(path.read_text())["curves"].values()) == 3
    messages: list[str] = []
    scan(model, task, tmp_path / "stopped", on_progress=lambda done, total, text: messages.append(text))
    assert len(messages) == 3
    assert path.read_bytes() == (tmp_path / "whole" / "sensitivity.json").read_bytes()


def test_hidden_units_are_scanned_and_pruned_unless_told_otherwise(task: Task, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = from_torch(Recurrent(), torch.zeros(1, *tiny.SHAPE))
    assert [curve.channels for curve in scan(model, task, tmp_path).curves.values()] == [8, 12]
    with pytest.raises(ArtifactError, match="stale"):
        scan(model, task, tmp_path, recurrent=False)
    assert [curve.channels for curve in scan(model, task, tmp_path / "not", recurrent=False).curves.values()] == [8]
    sizes = []
    for recurrent in (True, False):
        file = tmp_path / f"{recurrent}.onnx"
        stepping.prune(model, file, target={"ratio": 0.5}, align=1, criterion="fpgm", recurrent=recurrent)
        (layer,) = (child for child in to_torch(load_model(file)).children() if isinstance(child, torch.nn.LSTM))
        sizes.append((layer.input_size, layer.hidden_size))
    assert sizes == [(4, 3), (4, 6)]


def test_more_ratios_go_on_from_what_is_there(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    scan(model, task, tmp_path)
    messages: list[str] = []
    found = scan(model, task, tmp_path, ratios=[0.25, 0.5, 0.75], on_progress=lambda *call: messages.append(call[2]))
    assert len(messages) == 3
    assert found == scan(model, task, tmp_path / "whole", ratios=[0.25, 0.5, 0.75])


@pytest.mark.parametrize("changes", [{"criterion": "l2"}, {"images": 4}, {"protect": [FIRST]}])
def test_a_scan_of_other_settings_is_stale(
    model: onnx.ModelProto, task: Task, tmp_path: Path, changes: dict[str, object]
) -> None:
    scan(model, task, tmp_path)
    before = (tmp_path / "sensitivity.json").read_bytes()
    with pytest.raises(ArtifactError, match=r"sensitivity\.json: stale: computed from another model, data or settings"):
        scan(model, task, tmp_path, **changes)
    assert (tmp_path / "sensitivity.json").read_bytes() == before


def test_a_scan_of_another_model_is_stale(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    scan(model, task, tmp_path)
    torch.manual_seed(5)
    other = from_torch(tiny.Tiny(), torch.zeros(1, *tiny.SHAPE))
    with pytest.raises(ArtifactError, match=r"stale: .*Delete it, or choose another --out folder\."):
        scan(other, task, tmp_path)


def test_a_damaged_scan(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    (tmp_path / "sensitivity.json").write_text('{"version": 1, "curves"')
    with pytest.raises(ArtifactError, match=r"sensitivity\.json: not readable as JSON .* Delete it"):
        scan(model, task, tmp_path)


def test_a_model_of_other_classes_is_refused_before_anything_is_computed(task: Task, tmp_path: Path) -> None:
    other = open_model("tests.pipeline.tiny:three_classes", None, tiny.SHAPE)
    with pytest.raises(DataError, match=r"output shape \[None, 3\] does not fit classification"):
        scan(other, task, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_prune_is_stored_too(task: Task, tmp_path: Path) -> None:
    linear = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2), torch.nn.Softmax(1)
    )
    found = scan(from_torch(linear, torch.zeros(1, *tiny.SHAPE)), task, tmp_path)
    assert found.curves == {}
    assert artifacts.load(Sensitivity, tmp_path / "sensitivity.json") == found


def test_scanning_on_fewer_images(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path, images=4, ratios=[0.5])
    assert found.baseline == task.evaluate(Session(model).run, 4).metric


# --- prune ------------------------------------------------------------------------------------------------------


def prune(model: onnx.ModelProto, out: Path, **changes: object) -> PruningPlan:
    settings = {"target": {"ratio": 0.5}, "align": 4, "criterion": "l1", "input_shape": tiny.SHAPE, **changes}
    return stepping.prune(model, out, **settings)  # type: ignore[arg-type]


def test_pruned_file_is_what_its_plan_says(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = prune(model, tmp_path / "pruned.onnx")
    assert artifacts.load(PruningPlan, tmp_path / "plan.json") == plan
    pruned = load_model(tmp_path / "pruned.onnx")
    cost = model_cost(pruned, tiny.SHAPE, 0)
    assert (cost.params, cost.macs) == (plan.params_after, plan.macs_after)
    assert plan.macs_after < 0.5 * plan.macs_before
    assert [value.name for value in pruned.graph.output] == [value.name for value in model.graph.output]
    assert Session(pruned).run(np.zeros((3, *tiny.SHAPE), np.float32)).shape == (3, 2)


def test_pruning_again_gives_the_same_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prune(model, tmp_path / name / "pruned.onnx")
    for name in ("plan.json", "pruned.onnx"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_targets(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path)
    by_macs = prune(model, tmp_path / "m.onnx", target={"macs": 0.6}, sensitivity=found)
    assert by_macs.macs_after <= 0.6 * by_macs.macs_before
    by_drop = prune(model, tmp_path / "d.onnx", target={"metric_drop": 1.0}, sensitivity=found)
    assert all(len(group.removed) == group.channels // 2 for group in by_drop.groups.values())


def test_a_latency_target_is_met_by_the_table_it_is_given(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found, said = scan(model, task, tmp_path), list[str]()
    table = LatencyTable(tmp_path / "table.json", measure=channels_squared)
    plan = prune(
        model, tmp_path / "p.onnx", target={"latency": 0.6}, sensitivity=found, table=table, on_note=said.append
    )
    assert plan.latency_before is not None
    assert plan.latency_after is not None
    assert plan.latency_after <= 0.6 * plan.latency_before
    pruned = load_model(tmp_path / "p.onnx")
    assert plan.latency_after == pytest.approx(predicted_ms(places_of(pruned, tiny.SHAPE), table))
    assert plan.latency_precision == "float32"
    assert (tmp_path / "table.json").is_file()
    assert said == []  # no time to speak of went into measuring


def channels_squared(operator: Operator, threads: int) -> OperatorTime:
    """A time that falls with channels in and out alike."""
    return OperatorTime(1e-3 * math.prod(operator.weight[:2]) if operator.op_type == "Conv" else 0.0)


def test_long_measurements_are_reported(model: onnx.ModelProto, tmp_path: Path) -> None:
    said: list[str] = []
    table = LatencyTable(tmp_path / "table.json", measure=channels_squared)
    table.measuring_s = 12.3
    plan = prune(model, tmp_path / "p.onnx", table=table, precision="int8", on_note=said.append)
    assert plan.latency_precision == "int8"
    assert said == [f"Timed {table.measured} operators in 12 s; {tmp_path / 'table.json'} keeps them."]


def test_an_operator_that_does_not_run_alone_only_costs_the_prediction(model: onnx.ModelProto, tmp_path: Path) -> None:
    def fails(operator: Operator, threads: int) -> OperatorTime:
        raise ModelError(f"model 'one {operator.op_type}': onnxruntime cannot time it: no")

    said: list[str] = []
    table = LatencyTable(tmp_path / "table.json", measure=fails)
    plan = prune(model, tmp_path / "p.onnx", table=table, on_note=said.append)
    assert (plan.latency_before, plan.latency_after) == (None, None)
    assert said == ["The plan says nothing of latency: model 'one Conv': onnxruntime cannot time it: no"]
    with pytest.raises(ModelError, match="model 'one Conv': onnxruntime cannot time it"):
        prune(model, tmp_path / "p.onnx", target={"latency": 0.5}, table=table)


def test_a_drop_needs_a_scan(model: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"prune\.target\.metric_drop: needs a sensitivity scan\. Run `compress"):
        prune(model, tmp_path / "p.onnx", target={"metric_drop": 0.1})
    assert list(tmp_path.iterdir()) == []


def test_an_align_that_leaves_every_group_whole(model: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="align"):
        prune(model, tmp_path / "p.onnx", target={"ratio": 0.3}, align=16)
    assert list(tmp_path.iterdir()) == []


def test_a_scan_of_another_network(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path)
    other = from_torch(
        torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 1)),
        torch.zeros(1, *tiny.SHAPE),
    )
    with pytest.raises(ArtifactError, match="sensitivity"):
        prune(other, tmp_path / "p.onnx", target={"macs": 0.5}, sensitivity=found)


def test_a_scan_of_other_weights(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """The same groups with as many channels, so that only its fingerprint tells."""
    found = scan(model, task, tmp_path)
    torch.manual_seed(5)
    other = from_torch(tiny.Tiny(), torch.zeros(1, *tiny.SHAPE))
    words = r"sensitivity: stale: the scan is of another model \(fingerprint \w+, now \w+\)\. Scan this model"
    with pytest.raises(ArtifactError, match=words):
        prune(other, tmp_path / "p.onnx", target={"macs": 0.7}, sensitivity=found)
    assert not (tmp_path / "plan.json").exists()


def test_a_scan_by_another_criterion(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    found = scan(model, task, tmp_path, criterion="l2")
    with pytest.raises(PlanError, match=r"prune\.criterion: got 'l1', but the sensitivity scan ranks by 'l2'"):
        prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, sensitivity=found)
    assert prune(model, tmp_path / "p.onnx", criterion=None, sensitivity=found).criterion == "l2"
    assert prune(model, tmp_path / "q.onnx", criterion=None).criterion == "fpgm"


def test_a_scan_at_another_input(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """Multiply-adds of its curves are of its own input, which is also what a prune takes where it is told none."""
    found = scan(model, task, tmp_path)
    with pytest.raises(ArtifactError, match=r"scan is of images of 3,16,32, now 3,16,64\. Use --input 3,16,32"):
        prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, sensitivity=found, input_shape=(3, 16, 64))
    plan = prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, sensitivity=found, input_shape=None)
    assert plan.input_shape == tiny.SHAPE
    assert plan.macs_before == model_cost(model, tiny.SHAPE, 0).macs


def test_a_scan_that_does_not_say_of_which_model_it_is(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """As earlier versions wrote it; the same scan again measures nothing and adds that."""
    found = scan(model, task, tmp_path)
    old = replace(found, model="", input_shape=())
    artifacts.save(old, tmp_path / "sensitivity.json")
    with pytest.raises(ArtifactError, match="does not say of which model it is: an earlier version wrote it"):
        prune(model, tmp_path / "p.onnx", target={"macs": 0.7}, sensitivity=old)
    messages: list[str] = []
    assert scan(model, task, tmp_path, on_progress=lambda *call: messages.append(call[2])) == found
    assert messages == []
    assert artifacts.load(Sensitivity, tmp_path / "sensitivity.json") == found


# --- by a plan that is given ------------------------------------------------------------------------------------


def edit(plan_file: Path, group: str, removed: list[int]) -> None:
    """Change by hand which channels go."""
    data = json.loads(plan_file.read_text())
    data["groups"][group]["removed"] = removed
    plan_file.write_text(json.dumps(data))


def test_a_stored_plan_gives_the_same_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = prune(model, tmp_path / "p.onnx")
    assert run_plan(model, tmp_path / "again" / "p.onnx", tmp_path / "plan.json") == plan
    for name in ("p.onnx", "plan.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_an_edited_plan_is_followed_and_says_so(model: onnx.ModelProto, tmp_path: Path) -> None:
    prune(model, tmp_path / "p.onnx")
    edit(tmp_path / "plan.json", FIRST, [3, 1])
    plan = run_plan(model, tmp_path / "new" / "p.onnx", tmp_path / "plan.json")
    assert (plan.groups[FIRST].removed, plan.groups[FIRST].pruning_ratio) == ((1, 3), 2 / 16)
    assert plan.notes == ("the plan was edited by hand: what it removes was not chosen by its target",)
    cost = model_cost(load_model(tmp_path / "new" / "p.onnx"), tiny.SHAPE, 0)
    assert (cost.params, cost.macs) == (plan.params_after, plan.macs_after)
    assert artifacts.load(PruningPlan, tmp_path / "new" / "plan.json") == plan


def test_an_edited_plan_is_not_written_over(model: onnx.ModelProto, tmp_path: Path) -> None:
    prune(model, tmp_path / "p.onnx")
    edit(tmp_path / "plan.json", FIRST, [3])
    before = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(
        ArtifactError, match=r"plan\.json: edited by hand, .* Prune by it with `compress prune MODEL --pl"
    ):
        prune(model, tmp_path / "p.onnx")
    assert (tmp_path / "plan.json").read_bytes() == before


def test_a_plan_says_what_attention_multiplies(tmp_path: Path) -> None:
    """32 steps of 16 channels: each of two products takes 32 * 32 * 16, of 166,400 in all."""
    model = from_torch(Attended(), torch.zeros(1, 3, 32, 64))
    plan = prune(model, tmp_path / "p.onnx", target={"ratio": 0.25}, align=2, input_shape=(3, 32, 64))
    assert plan.notes[-1].startswith("multiply-adds are those of layers: 20% of the network's, in products of two")


def test_the_plan_of_another_model_is_not_written_over(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = prune(model, tmp_path / "p.onnx")
    other = onnx.ModelProto.FromString(model.SerializeToString())
    weights = next(tensor for tensor in other.graph.initializer if len(tensor.dims) == 4)
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weights), weights.name))
    with pytest.raises(ArtifactError, match=r"plan\.json: of another model \(fingerprint .* Give each model"):
        prune(other, tmp_path / "other.onnx")
    assert artifacts.load(PruningPlan, tmp_path / "plan.json") == plan
    assert not (tmp_path / "other.onnx").exists()


def test_another_plan_does_not_write_over_an_edited_one(model: onnx.ModelProto, tmp_path: Path) -> None:
    """plan.json beside --out is somebody's work, too; that of --plan itself may be followed in place."""
    prune(model, tmp_path / "p.onnx")
    prune(model, tmp_path / "other" / "p.onnx")
    edit(tmp_path / "plan.json", FIRST, [3])
    files = {path: path.read_bytes() for path in (tmp_path / "plan.json", tmp_path / "p.onnx")}
    with pytest.raises(ArtifactError, match=r"plan\.json: edited by hand, .* would be overwritten"):
        run_plan(model, tmp_path / "p.onnx", tmp_path / "other" / "plan.json")
    assert {path: path.read_bytes() for path in files} == files
    assert run_plan(model, tmp_path / "p.onnx", tmp_path / "plan.json").groups[FIRST].removed == (3,)


@pytest.mark.parametrize(
    ("removed", "words"),
    [([99], "no channel 99"), (list(range(16)), "all 16 channels removed"), ([-1], "no channel -1")],
)
def test_an_edited_plan_that_cannot_be_followed(
    model: onnx.ModelProto, tmp_path: Path, removed: list[int], words: str
) -> None:
    prune(model, tmp_path / "p.onnx")
    edit(tmp_path / "plan.json", FIRST, removed)
    with pytest.raises(PlanError, match=words):
        run_plan(model, tmp_path / "new" / "p.onnx", tmp_path / "plan.json")
    assert not (tmp_path / "new").exists()


def test_a_plan_for_another_model(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = prune(model, tmp_path / "p.onnx")
    torch.manual_seed(5)
    other = from_torch(tiny.Tiny(), torch.zeros(1, *tiny.SHAPE))
    with pytest.raises(ArtifactError, match=r"plan\.json: stale: the plan is for another model"):
        run_plan(other, tmp_path / "new" / "p.onnx", tmp_path / "plan.json")
    artifacts.save(replace(plan, model=""), tmp_path / "plan.json")
    with pytest.raises(ArtifactError, match=r"plan\.json: does not say which model it is for"):
        run_plan(model, tmp_path / "new" / "p.onnx", tmp_path / "plan.json")


def test_protected_layers_stay_whole(model: onnx.ModelProto, tmp_path: Path) -> None:
    plan = prune(model, tmp_path / "p.onnx", protect=["first_*"])
    assert sorted(group.channels for group in plan.groups.values()) == [8, 16]
    assert FIRST not in plan.groups


# --- names ------------------------------------------------------------------------------------------------------


def test_patterns(model: onnx.ModelProto) -> None:
    module = to_torch(model)
    assert expand_names(module, [SECOND], "x") == (SECOND,)
    assert expand_names(module, ["first*", SECOND, "first*"], "x") == (
        FIRST,
        "first_first_1_BatchNormalization_output_0",
        SECOND,
    )
    assert expand_names(module, [], "x") == ()


def test_a_pattern_of_nothing(model: onnx.ModelProto) -> None:
    with pytest.raises(
        PlanError, match=r"protect: 'fist\*' matches no layer\. `compress inspect` lists them, e\.g\. stem_stem_0"
    ):
        expand_names(to_torch(model), ["fist*"], "protect")
