"""Plans around a scan's own, and the statistics that a pruned network's BatchNorm is given."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from compress.artifacts import Curve, PruningPlan, Sensitivity
from compress.errors import PlanError
from compress.prune.adaptive_bn import adapt_batch_norm
from compress.prune.allocation import Allocation
from compress.prune.candidates import drafts, scaled
from compress.prune.groups import find_groups
from compress.prune.plan import plan_macs
from compress.prune.ranking import Network, Ranking
from compress.prune.sensitivity import group_macs
from tests.prune import nets

SHAPE = (3, 16, 16)


def network() -> Network:
    module = nets.initialise(nets.SqueezeExcite())
    return Network(module, find_groups(module, SHAPE), SHAPE)


def scan_of(net: Network) -> Sensitivity:
    """Curves that rise with the ratio, each group's at its own height."""
    curves = {
        group.name: Curve(
            group.channels,
            group.layers,
            group_macs(net.module, group, Ranking(net)._positions),
            {f"{ratio:g}": 0.9 - 0.1 * place * ratio for ratio in (0.25, 0.5, 0.75)},
        )
        for place, group in enumerate(net.groups, 1)
    }
    return Sensitivity("f", "fpgm", "accuracy", 0.9, (0.25, 0.5, 0.75), curves)


def found(net: Network, count: int, seed: int) -> list[tuple[str, PruningPlan]]:
    def plan_of(scan: Sensitivity, rule: Allocation) -> PruningPlan:
        return plan_macs(net, 0.7, scan, rule)

    return [(draft.origin, draft.plan) for draft in drafts(scan_of(net), "price", plan_of, count, seed)]


def test_the_first_is_the_scans_own_and_all_meet_the_target_differently() -> None:
    net = network()
    tried = found(net, 6, seed=3)
    assert tried[0] == ("price", plan_macs(net, 0.7, scan_of(net), "price"))
    assert 2 <= len(tried) <= 6
    assert all(plan.macs_after <= 0.7 * plan.macs_before for _, plan in tried)
    sizes = [tuple(len(group.removed) for group in plan.groups.values()) for _, plan in tried]
    assert len(set(sizes)) == len(sizes)


@pytest.mark.slow
def test_plans_depend_on_the_seed_and_not_on_how_many_are_asked_for() -> None:
    net = network()
    assert found(net, 3, seed=3) == found(net, 6, seed=3)[:3]
    assert found(net, 3, seed=3) != found(net, 3, seed=4)


def test_drops_are_scaled_by_one_factor_for_each_group() -> None:
    scan = scan_of(network())
    assert scaled(scan, 0.0, 0, 5) is scan
    changed = scaled(scan, 0.5, 0, 5)
    assert dataclasses.replace(changed, curves=scan.curves) == scan
    expected = np.exp(0.5 * np.random.default_rng([0, 5]).standard_normal(len(scan.curves)))
    for factor, (name, curve) in zip(expected, changed.curves.items(), strict=True):
        drops = {ratio: 0.9 - value for ratio, value in scan.curves[name].metric.items()}
        assert {ratio: 0.9 - value for ratio, value in curve.metric.items()} == pytest.approx(
            {ratio: factor * drop for ratio, drop in drops.items()}
        )


def test_batch_norm_has_the_statistics_of_its_inputs() -> None:
    """Those of each batch, averaged, by numpy; weights and the mode stay."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    before = [parameter.clone() for parameter in module.parameters()]
    batches = [np.random.default_rng(seed).normal(seed, 1, (5, 3, 6, 6)).astype(np.float32) for seed in range(3)]
    adapt_batch_norm(module, batches)
    with torch.no_grad():
        inputs = [module[0](torch.from_numpy(batch)).numpy() for batch in batches]
    norm = module[1]
    np.testing.assert_allclose(norm.running_mean, np.mean([x.mean((0, 2, 3)) for x in inputs], 0), rtol=1e-4)
    np.testing.assert_allclose(norm.running_var, np.mean([x.var((0, 2, 3), ddof=1) for x in inputs], 0), rtol=1e-4)
    assert norm.momentum == 0.1
    assert not norm.training
    assert all(torch.equal(*pair) for pair in zip(before, module.parameters(), strict=True))


def test_without_batch_norm_there_is_nothing_to_adapt() -> None:
    with pytest.raises(PlanError, match=r"^prune.search.recover: got adaptive_bn, but the model has no BatchNorm"):
        adapt_batch_norm(nn.Conv2d(3, 4, 1), [])
