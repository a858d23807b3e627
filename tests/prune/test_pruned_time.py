"""Pruning by predicted time: sizes of pruned operators, targets, and plans that save no time."""

import math
from collections.abc import Mapping
from dataclasses import replace

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compress.artifacts import Curve, Sensitivity
from compress.errors import PlanError
from compress.graph import from_torch, to_onnx, to_torch
from compress.measure.network_operators import Place, places_of
from compress.measure.operator_times import Operator, OperatorTime, Precision
from compress.prune.apply import apply_plan
from compress.prune.channels import remove_channels
from compress.prune.groups import find_groups
from compress.prune.plan import plan_latency, plan_macs, plan_ratio
from compress.prune.pruned_time import PrunedTime, Timing
from compress.prune.ranking import Network, Ranking
from tests.prune import nets

SHAPE = (3, 8, 8)


class Blocks:
    """Convolutions take a millisecond for each pair of blocks of so many channels, whatever else an operator is."""

    def __init__(self, size: int = 1) -> None:
        self.size = size
        self.asked: list[Operator] = []

    def time(self, operator: Operator) -> OperatorTime:
        self.asked.append(operator)
        if operator.op_type != "Conv":
            return OperatorTime(0.0)
        outputs, inputs = operator.weight[:2]
        return OperatorTime(float(math.ceil(outputs / self.size) * math.ceil(inputs / self.size)))

    def boundary(self, shape: tuple[int, ...], *, to: Precision) -> float:
        return 0.0


class Constant(Blocks):
    """Every operator takes a millisecond: nothing is saved by smaller ones."""

    def time(self, operator: Operator) -> OperatorTime:
        return OperatorTime(1.0)


class Recurrent(nn.Module):
    """A layer of two directions over the columns of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.rnn = nn.Conv2d(3, 6, 3, padding=1), nn.LSTM(6, 5, bidirectional=True)
        self.fc = nn.Linear(10, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 8, 8] -> [8, N, 4]."""
        return self.fc(self.rnn(torch.relu(self.conv(x)).mean(2).permute(2, 0, 1))[0])


def network(module: nn.Module, table: Blocks, align: int = 1, precision: Precision = "float32") -> Network:
    """The module as a graph that knows how its time is predicted."""
    template = from_torch(nets.initialise(module), torch.zeros(1, *SHAPE))
    graph = to_torch(template)
    timing = Timing(lambda pruned: places(pruned, template), table, precision)
    return Network(graph, find_groups(graph, SHAPE), SHAPE, align=align, timing=timing)


def places(pruned: nn.Module, template: onnx.ModelProto) -> Mapping[str, Place]:
    return places_of(to_onnx(pruned, template), SHAPE)  # type: ignore[arg-type]


def rising(network: Network) -> Sensitivity:
    """A scan in which each group costs more than the one before it."""
    ratios = tuple(ratio / 10 for ratio in range(1, 10))
    curves = {
        group.name: Curve(
            group.channels, group.layers, 1, {f"{ratio:g}": 0.9 - (place + 1) * ratio**2 / 10 for ratio in ratios}
        )
        for place, group in enumerate(network.groups)
    }
    return Sensitivity("abc", "fpgm", "accuracy", 0.9, ratios, curves)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [nets.Plain, nets.Residual, nets.SqueezeExcite, nets.Concat, nets.Flattened, Recurrent]
)
@settings(max_examples=4)
@given(data=st.data())
def test_sizes_of_a_pruned_network_follow_by_arithmetic(kind: type[nn.Module], data: st.DataObject) -> None:
    net = network(kind(), Blocks())
    assert net.timing is not None
    ratios = {group.name: data.draw(st.sampled_from([0.0, 0.3, 0.5, 0.9])) for group in net.groups}
    ranking = Ranking(net)
    trial = ranking.removed({group.name: 0.5 for group in net.groups})
    removed = ranking.removed(ratios)
    found = PrunedTime(net.module, net.groups, trial, net.timing).places(
        {name: len(channels) for name, channels in removed.items()}
    )
    really = net.timing.places(remove_channels(net.module, net.groups, removed))
    assert {name: without_group_of_one(place) for name, place in found.items()} == {
        name: without_group_of_one(place) for name, place in really.items()
    }


def without_group_of_one(place: Place) -> Place:
    """`group=1` says nothing."""
    attributes = tuple(each for each in place.operator.attributes if each != ("group", 1))
    return replace(place, operator=replace(place.operator, attributes=attributes))


@pytest.mark.parametrize("share", [0.8, 0.5, 0.3])
def test_a_share_of_the_time_is_met_and_is_that_of_the_network_really_pruned(share: float) -> None:
    net = network(nets.SqueezeExcite(), Blocks())
    plan = plan_latency(net, share, rising(net))
    assert plan.target == {"latency": share}
    assert plan.latency_before is not None
    assert plan.latency_after is not None
    assert plan.latency_after <= share * plan.latency_before
    assert net.timing is not None
    pruned = net.timing.places(apply_plan(net.module, plan, SHAPE))
    assert plan.latency_after == sum(Blocks().time(place.operator).kernel_ms for place in pruned.values())


def test_without_a_scan_every_group_gives_the_same_share() -> None:
    net = network(nets.Residual(), Blocks())
    plan = plan_latency(net, 0.5)
    assert plan.latency_before is not None
    assert plan.latency_after is not None
    assert plan.latency_after <= 0.5 * plan.latency_before
    asked = {group.pruning_ratio_asked for group in plan.groups.values()}
    assert len(asked) <= 2  # some are given back what was not needed


def test_channels_stay_that_save_no_time() -> None:
    """In blocks of 8 channels, 12 of 16 take as long as 16: it is 8 or all."""
    module = nn.Sequential(nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 2, 1))
    net = network(module, Blocks(8), align=4)
    for share in (0.9, 0.7, 0.5):
        plan = plan_latency(net, share, rising(net))
        kept = [group.channels - len(group.removed) for group in plan.groups.values()]
        assert set(kept) <= {8, 16}
        assert 8 in kept


def test_a_group_that_takes_no_time_stays_whole() -> None:
    net = network(nets.SqueezeExcite(), Blocks(16))  # all its convolutions are one block, whatever is pruned
    plan = plan_latency(net, 1.0, rising(net))
    assert not any(group.removed for group in plan.groups.values())


def test_planning_is_repeatable() -> None:
    first, second = (plan_latency(net, 0.6, rising(net)) for net in [network(nets.Residual(), Blocks())] * 2)
    assert first == second


def test_a_share_out_of_reach_is_said() -> None:
    net = network(nets.SqueezeExcite(), Constant())
    plan = plan_latency(net, 0.5, rising(net))
    assert plan.notes == ("latency 0.5 cannot be reached: 1.000 is the least that the ratios and align allow",)


def test_every_plan_says_what_it_predicts_and_in_which_kernels() -> None:
    net = network(nets.Plain(), Blocks(), precision="int8")
    plan = plan_ratio(net, 0.5)
    # Plain has 3 -> 6 -> 8 channels, then 3 -> 3 -> 4; its linear layer costs nothing here.
    assert (plan.latency_before, plan.latency_after) == (3 * 6 + 6 * 8, 3 * 3 + 3 * 4)
    assert plan.latency_precision == "int8"
    assert net.timing is not None
    asked = net.timing.table.asked  # type: ignore[attr-defined]
    # All but the stem, which an int8 file keeps in float.
    assert {(each.weight[1], each.precision) for each in asked if each.op_type == "Conv"} == {
        (3, "float32"),
        (6, "int8"),
        (3, "int8"),
    }


def test_without_a_table_a_plan_says_nothing_of_time() -> None:
    net = replace(network(nets.Plain(), Blocks()), timing=None)
    plan = plan_ratio(net, 0.5)
    assert (plan.latency_before, plan.latency_after, plan.latency_precision) == (None, None, "")
    with pytest.raises(PlanError, match=r"prune\.target\.latency: there is no table of operator times"):
        plan_latency(net, 0.5)


def test_a_plan_that_cuts_multiply_adds_and_not_time_says_so() -> None:
    net = network(nets.Plain(), Constant())
    plan = plan_macs(net, 0.5, rising(net))
    cut = 1 - plan.macs_after / plan.macs_before
    assert plan.notes == (
        f"cuts {100 * cut:.0f} % of the multiply-adds but 0 % of the predicted time "
        f"({plan.latency_before:.2f} -> {plan.latency_before:.2f} ms): try a latency target, or a larger align",
    )
    assert plan_macs(network(nets.Plain(), Blocks()), 0.5).notes == ()


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_that_is_none_is_an_error(share: float) -> None:
    with pytest.raises(PlanError, match=r"prune\.target\.latency: got .* Must lie in \(0, 1\]"):
        plan_latency(network(nets.Plain(), Blocks()), share)


def test_how_far_the_timing_is_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    net = network(nets.Plain(), Blocks())
    assert net.timing is not None
    timing = replace(net.timing, on_progress=lambda done, total, message: told.append((done, total, message)))
    net = replace(net, timing=timing)
    plan_latency(net, 0.5, rising(net))
    assert told == [(1, 2, "timing operators"), (2, 2, "timing operators")]
