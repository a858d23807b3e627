"""Plans: the published rule on published curves, targets met, alignment, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compress.artifacts import Curve, Sensitivity
from compress.errors import ArtifactError, PlanError
from compress.measure.cost import module_cost, parameter_count
from compress.prune import target_ratios
from compress.prune.allocation import Allocation, largest_ratio
from compress.prune.apply import apply_plan
from compress.prune.channels import remove_channels
from compress.prune.groups import find_groups
from compress.prune.importance import fpgm
from compress.prune.plan import plan_macs, plan_metric_drop, plan_ratio, plan_ratios, plan_shares
from compress.prune.ranking import Kind, Network, kept_channels
from tests.prune import nets

SHAPE = (3, 8, 8)
GOLDEN = json.loads((Path(__file__).parent / "data" / "golden_sensitivity.json").read_text())
GOLDEN_KEPT = GOLDEN["expected_kept_at_0.6"]["res18_48"]


def network(kind: type[nn.Module] = nets.SqueezeExcite, align: int = 1, criterion: str = "fpgm") -> Network:
    module = nets.initialise(kind())
    return Network(module, find_groups(module, SHAPE), SHAPE, criterion, align, "abc")


def curves(network: Network, drops: dict[str, dict[float, float]], baseline: float = 0.9) -> Sensitivity:
    """A finished scan with these metric drops."""
    ratios = tuple(sorted({ratio for curve in drops.values() for ratio in curve}))
    return Sensitivity(
        "abc",
        "fpgm",
        "accuracy",
        baseline,
        ratios,
        {
            group.name: Curve(
                group.channels,
                group.layers,
                1,
                {f"{ratio:g}": baseline - drop for ratio, drop in drops[group.name].items()},
            )
            for group in network.groups
        },
    )


def rising(network: Network, slope: float = 1.0) -> Sensitivity:
    """A scan where each group costs more than the one before it."""
    return curves(
        network,
        {
            group.name: {ratio / 10: slope * (place + 1) * (ratio / 10) ** 2 for ratio in range(1, 10)}
            for place, group in enumerate(network.groups)
        },
    )


@pytest.mark.parametrize("layer", GOLDEN_KEPT)
def test_published_curves_give_the_published_widths(layer: str) -> None:
    drops = {float(ratio): loss for ratio, loss in GOLDEN["curves"]["res18_48"][layer].items()}
    kept, channels = GOLDEN_KEPT[layer]
    assert kept_channels(channels, largest_ratio(drops, 0.6)) == kept


def test_the_golden_widths_are_there() -> None:
    assert len(GOLDEN_KEPT) == 11


@pytest.mark.parametrize(
    ("drops", "threshold", "expected"),
    [
        ({0.25: 0.0, 0.5: 0.5}, 0.25, 0.375),
        ({0.25: 0.0, 0.5: 0.5}, 0.5, 0.5),
        ({0.25: 0.0, 0.5: 0.5}, 9.0, 0.5),
        ({0.25: 0.5, 0.5: 0.5}, 0.25, 0.0),
        ({0.25: 0.5, 0.5: -0.5, 0.75: 0.5}, 0.0, 0.625),
        ({0.25: -0.5, 0.5: 0.5}, -0.25, 0.3125),
        ({0.5: 0.25, 0.75: float("nan")}, 0.5, 0.5),
        ({}, 0.5, 0.0),
    ],
    ids=["between", "on a point", "beyond", "none", "not monotone", "negative", "not a number", "no points"],
)
def test_largest_ratio_by_hand(drops: dict[float, float], threshold: float, expected: float) -> None:
    assert largest_ratio(drops, threshold) == pytest.approx(expected)


@given(
    values=st.lists(st.floats(-0.5, 1.0), min_size=1, max_size=9),
    low=st.floats(-0.5, 1.0),
    high=st.floats(-0.5, 1.0),
)
def test_a_higher_threshold_never_gives_a_lower_ratio(values: list[float], low: float, high: float) -> None:
    drops = {(place + 1) / 10: value for place, value in enumerate(values)}
    low, high = sorted((low, high))
    assert 0.0 <= largest_ratio(drops, low) <= largest_ratio(drops, high) + 1e-12 <= len(values) / 10 + 2e-12


@given(channels=st.integers(1, 300), ratio=st.floats(0.0, 0.99), align=st.sampled_from([1, 2, 8, 16, 32]))
def test_kept_channels_are_aligned_or_all_and_never_fewer_than_asked(channels: int, ratio: float, align: int) -> None:
    kept = kept_channels(channels, ratio, align)
    assert 1 <= kept <= channels
    assert kept == channels or kept % align == 0
    assert kept >= channels - round(channels * ratio)


def test_a_uniform_ratio_takes_the_lowest_scores_of_every_group() -> None:
    net = network(nets.Plain)
    plan = plan_ratio(net, 0.5)
    assert {name: group.pruning_ratio for name, group in plan.groups.items()} == {"conv1": 0.5, "conv2": 0.5}
    expected = torch.argsort(fpgm(net.module.conv1.weight))[:3].tolist()
    assert sorted(expected) == list(plan.groups["conv1"].removed)
    assert plan.target == {"ratio": 0.5}
    assert (plan.criterion, plan.align, plan.fingerprint) == ("fpgm", 1, "abc")


def test_a_plan_states_the_real_costs() -> None:
    net = network()
    plan = plan_ratio(net, 0.5)
    pruned = apply_plan(net.module, plan, SHAPE)
    assert (plan.params_before, plan.macs_before) == module_cost(net.module, SHAPE)
    assert (plan.params_after, plan.macs_after) == module_cost(pruned, SHAPE)


def test_ratio_zero_removes_nothing() -> None:
    plan = plan_ratio(network(), 0.0)
    assert all(group.removed == () for group in plan.groups.values())
    assert plan.macs_after == plan.macs_before


def test_every_group_keeps_a_channel() -> None:
    net = network()
    plan = plan_ratio(net, 0.99)
    assert all(len(group.removed) == group.channels - 1 for group in plan.groups.values())
    apply_plan(net.module, plan, SHAPE)(torch.zeros(1, *SHAPE))


def test_under_a_metric_drop_each_group_gets_its_own_ratio() -> None:
    net = network()
    scan = curves(net, {"stem": {0.25: 0.0, 0.5: 0.5}, "expand": {0.25: 0.1, 0.5: 0.125}, "se1": {0.25: 0.3, 0.5: 0.4}})
    plan = plan_metric_drop(net, scan, 0.25)
    asked = {name: group.pruning_ratio_asked for name, group in plan.groups.items()}
    assert asked == pytest.approx({"stem": 0.375, "expand": 0.5, "se1": 0.0})
    assert [len(group.removed) for group in plan.groups.values()] == [3, 8, 0]
    assert plan.target == {"metric_drop": 0.25}
    assert plan.notes == ()


def test_a_drop_that_no_group_stays_below_is_said() -> None:
    net = network()
    plan = plan_metric_drop(net, rising(net), 0.0)
    assert plan.macs_after == plan.macs_before
    assert "nothing is removed" in plan.notes[0]


@pytest.mark.parametrize("macs", [0.9, 0.6, 0.3])
@pytest.mark.parametrize("rule", ["price", "threshold", None])
def test_a_macs_target_is_met_as_closely_as_the_steps_allow(macs: float, rule: Allocation | None) -> None:
    net = network()
    plan = plan_macs(net, macs, rising(net), rule) if rule else plan_macs(net, macs)
    share = plan.macs_after / plan.macs_before
    assert share <= macs
    assert share > macs - 0.12  # one channel of the widest reader costs about a tenth of this small network
    assert not [note for note in plan.notes if not note.startswith("guessing: stem alone")]
    assert plan.target == {"macs": macs}
    assert module_cost(apply_plan(net.module, plan, SHAPE), SHAPE)[1] == plan.macs_after


def test_no_group_is_ruined_where_the_target_can_be_met_without() -> None:
    """A metric cannot fall below zero: `stem` loses nearly all of it at the end, and that sum of drops is the least."""
    net = network()
    drops = {"stem": {0.25: 0.1, 0.5: 0.1, 0.75: 0.76}, "expand": {0.25: 0.7, 0.5: 0.71, 0.75: 0.715}}
    scan = curves(net, drops | {"se1": {0.25: 0.0, 0.5: 0.0, 0.75: 0.0}})
    (note,) = plan_macs(net, 0.6, scan).notes
    assert note == "guessing: stem alone would lose most of the metric; try allocation: spare, or a search"
    plan = plan_macs(net, 0.6, scan, "spare")
    assert {name: len(group.removed) for name, group in plan.groups.items()} == {"stem": 4, "expand": 4, "se1": 3}
    assert plan.macs_after <= 0.6 * plan.macs_before
    assert plan.notes == ("spared, as by the least sum of drops stem alone would lose most of the metric",)
    everything = {name: {0.25: 0.9, 0.5: 0.9} for name in ("stem", "expand", "se1")}
    (note,) = plan_macs(net, 0.6, curves(net, everything), "spare").notes
    assert note == "guessing: expand, stem alone would lose most of the metric; try a milder target, or a search"


@pytest.mark.parametrize("rule", ["price", "threshold"])
def test_a_macs_target_spares_the_sensitive_groups(rule: Allocation) -> None:
    net = network()
    scan = rising(net)
    hard = {
        **scan.curves,
        "expand": replace(scan.curves["expand"], metric=dict.fromkeys(scan.curves["stem"].metric, 0.0)),
    }
    plan = plan_macs(net, 0.8, replace(scan, curves=hard), rule)
    assert plan.groups["expand"].removed == ()
    assert plan.groups["stem"].removed


@pytest.mark.parametrize("rule", ["price", "threshold", "product", None])
def test_a_target_of_parameters(rule: Allocation | None) -> None:
    net = network()
    plan = plan_shares(net, {"params": 0.6}, rising(net) if rule else None, rule or "price")
    left = parameter_count(apply_plan(net.module, plan, SHAPE)) / parameter_count(net.module)
    assert 0.4 < left <= 0.6
    assert plan.params_after / plan.params_before == left
    assert (plan.target, plan.notes) == ({"params": 0.6}, ())


@pytest.mark.parametrize(
    ("shares", "binding"), [({"macs": 0.9, "params": 0.5}, "params"), ({"macs": 0.4, "params": 0.95}, "macs")]
)
def test_of_several_targets_all_are_met_and_the_one_that_binds_is_named(
    shares: dict[Kind, float], binding: Kind
) -> None:
    net = network()
    plan = plan_shares(net, shares, rising(net))
    assert plan.macs_after / plan.macs_before <= shares["macs"]
    assert plan.params_after / plan.params_before <= shares["params"]
    assert plan.target == shares
    assert plan.notes[0].startswith(f"binding target: {binding} 0.")
    alone = plan_shares(net, {binding: shares[binding]}, rising(net))
    assert plan.groups == alone.groups


def test_a_limit_on_the_drop_holds_beside_other_targets() -> None:
    """The groups' drops are .1, .2, .3 ... of the squared ratio times 1, 2, 3: at .05 none may lose much."""
    net = network()
    free, limited = (
        plan_shares(net, {"macs": 0.5}, rising(net)),
        plan_shares(net, {"macs": 0.5}, rising(net), metric_drop=0.02),
    )
    scan = rising(net)
    for name, group in limited.groups.items():
        drops = {float(ratio): scan.baseline - metric for ratio, metric in scan.curves[name].metric.items()}
        assert group.pruning_ratio <= max([0.0, *(ratio for ratio, drop in drops.items() if drop <= 0.02)]) + 1e-9
    assert limited.macs_after > free.macs_after
    assert "cannot be reached" in limited.notes[0]
    assert limited.target == {"macs": 0.5, "metric_drop": 0.02}


def test_a_target_out_of_reach_gives_the_most_there_is_and_says_so() -> None:
    net = network()
    scan = curves(net, {group.name: {0.25: 0.1} for group in net.groups})
    plan = plan_macs(net, 0.1, scan)
    assert [len(group.removed) for group in plan.groups.values()] == [2, 4, 1]
    share = plan.macs_after / plan.macs_before
    assert plan.notes == (f"macs 0.1 cannot be reached: {share:.3f} is the least that the ratios and align allow",)


def test_groups_that_jump_together_are_only_pruned_as_far_as_the_target_needs() -> None:
    # Three groups of 16 that align 8 lets shrink to 8 only, all at the same ratio: one of them is enough.
    layers = [nn.Conv2d(3, 16, 1), *(nn.Conv2d(16, 16, 1) for _ in range(3))]
    module = nets.initialise(nn.Sequential(*layers))
    net = Network(module, find_groups(module, SHAPE), SHAPE, align=8)
    plan = plan_macs(net, 0.8)
    assert sorted(len(group.removed) for group in plan.groups.values()) == [0, 0, 8]
    assert plan.macs_after <= 0.8 * plan.macs_before


def test_a_target_of_everything_removes_nothing() -> None:
    net = network()
    assert plan_macs(net, 1.0, rising(net)).macs_after == module_cost(net.module, SHAPE)[1]


def test_alignment_keeps_multiples_and_says_what_stays_whole() -> None:
    plan = plan_ratio(network(align=8), 0.5)
    assert {name: group.channels - len(group.removed) for name, group in plan.groups.items()} == {
        "stem": 8,
        "expand": 8,
        "se1": 4,
    }
    assert plan.groups["expand"].note == ""
    assert plan.groups["se1"].pruning_ratio_asked == 0.5
    assert plan.groups["se1"].pruning_ratio == 0.0
    assert plan.groups["se1"].note == "stays whole: the next multiple of align 8 is not below its 4 channels"


def test_an_align_that_leaves_everything_whole_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"prune\.align: got 64\. It leaves every group whole \(the widest has 16"):
        plan_ratio(network(align=64), 0.5)


def test_an_align_below_one_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"prune\.align: got 0\. Must be 1 or more"):
        network(align=0)


def test_an_unknown_criterion_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"prune\.criterion: got 'slim'\. Must be one of fpgm, l1, l2"):
        network(criterion="slim")


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_out_of_range_is_an_error(ratio: float) -> None:
    with pytest.raises(PlanError, match=r"prune\.ratio: got .* Must lie in \[0, 1\)"):
        plan_ratio(network(), ratio)


@pytest.mark.parametrize("macs", [0.0, 1.5])
def test_a_share_out_of_range_is_an_error(macs: float) -> None:
    with pytest.raises(PlanError, match=r"prune\.target\.macs: got .* Must lie in \(0, 1\]"):
        plan_macs(network(), macs)


def test_a_drop_that_is_no_number_is_an_error() -> None:
    net = network()
    with pytest.raises(PlanError, match=r"prune\.metric_drop: got nan"):
        plan_metric_drop(net, rising(net), float("nan"))


def test_a_scan_of_other_groups_is_an_error() -> None:
    net = network()
    scan = rising(net)
    missing = {name: curve for name, curve in scan.curves.items() if name != "se1"}
    with pytest.raises(ArtifactError, match=r"channel group 'se1' is not in it\. Scan this model again"):
        plan_metric_drop(net, replace(scan, curves=missing), 0.1)
    other = scan.curves | {"se1": replace(scan.curves["se1"], channels=5)}
    with pytest.raises(ArtifactError, match="'se1' is of 5 channels in it, now of 4"):
        plan_macs(net, 0.5, replace(scan, curves=other))


def test_an_unfinished_scan_is_an_error() -> None:
    net = network()
    scan = rising(net)
    partial = scan.curves | {"se1": replace(scan.curves["se1"], metric={"0.1": 0.5})}
    with pytest.raises(ArtifactError, match="the scan of 'se1' is not finished"):
        plan_metric_drop(net, replace(scan, curves=partial), 0.1)


def test_own_ratios_per_group_and_unknown_ones() -> None:
    net = network()
    plan = plan_ratios(net, {"expand": 0.25}, target={"ratio": 0.25})
    assert [len(group.removed) for group in plan.groups.values()] == [0, 4, 0]
    with pytest.raises(PlanError, match="channel group 'exp' is not in this model"):
        plan_ratios(net, {"exp": 0.25}, target={})


def test_planning_is_repeatable_and_leaves_the_module_alone() -> None:
    net = network()
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    assert plan_macs(net, 0.5, rising(net)) == plan_macs(net, 0.5, rising(net))
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())


def test_the_pruned_module_is_what_the_plan_says() -> None:
    net = network()
    plan = plan_ratio(net, 0.5)
    by_hand = remove_channels(net.module, net.groups, {name: group.removed for name, group in plan.groups.items()})
    x = torch.randn(1, *SHAPE)
    assert torch.equal(apply_plan(net.module, plan, SHAPE)(x), by_hand(x))


def test_a_price_that_jumps_over_the_target_is_followed_by_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """By price a group whose first channels cost most gives up three quarters at once; a quarter is enough here."""
    net = network()
    bent, hopeless = {0.25: 0.2, 0.5: 0.35, 0.75: 0.4}, {0.25: 5.0, 0.5: 6.0, 0.75: 7.0}
    scan = curves(net, {group.name: bent if group.name == "expand" else hopeless for group in net.groups})
    ratios = {}
    for jump in (1.0, 0.05):  # 1: smaller steps are never tried
        monkeypatch.setattr(target_ratios, "JUMP", jump)
        made = plan_macs(net, 0.9, scan)
        assert made.macs_after <= 0.9 * made.macs_before
        ratios[jump] = {name: group.pruning_ratio for name, group in made.groups.items() if group.removed}
    assert list(ratios[1.0]) == list(ratios[0.05]) == ["expand"]
    assert ratios[0.05]["expand"] < ratios[1.0]["expand"] == 0.75


def test_alignment_counts_channels_and_not_places_in_groups() -> None:
    """A grouped convolution of 32 groups of 4: half of the places are 64 of 128 channels, a multiple of 8."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 128, 1), nn.ReLU(), nn.Conv2d(128, 128, 3, groups=32), nn.ReLU(), nn.Conv2d(128, 5, 1)
    ).eval()
    shape = (3, 8, 8)
    groups = find_groups(module, shape)
    assert [group.channels for group in groups] == [4, 4]
    plan = plan_ratio(Network(module, groups, shape, "l1", 8, ""), 0.5)
    assert [len(group.removed) for group in plan.groups.values()] == [2, 2]
