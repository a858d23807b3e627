"""Carrying out a stored plan, and refusing one of another model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from compress import artifacts
from compress.artifacts import PruningPlan
from compress.errors import PlanError
from compress.prune.apply import apply_plan
from compress.prune.groups import find_groups
from compress.prune.plan import plan_ratio
from compress.prune.ranking import Network
from tests.prune import nets

SHAPE = (3, 8, 8)


@pytest.fixture
def network() -> Network:
    module = nets.initialise(nets.SqueezeExcite())
    return Network(module, find_groups(module, SHAPE), SHAPE)


def test_a_stored_plan_prunes_exactly_as_before(network: Network, tmp_path: Path) -> None:
    plan = plan_ratio(network, 0.5)
    artifacts.save(plan, tmp_path / "plan.json")
    stored = artifacts.load(PruningPlan, tmp_path / "plan.json")
    assert stored == plan
    pruned = apply_plan(network.module, stored, SHAPE)
    assert (pruned.stem.out_channels, pruned.expand.out_channels, pruned.se1.out_channels) == (4, 8, 2)


def test_ratio_zero_is_bit_exact(network: Network) -> None:
    x = torch.randn(2, *SHAPE)
    assert torch.equal(apply_plan(network.module, plan_ratio(network, 0.0), SHAPE)(x), network.module(x))


def test_a_plan_made_with_protected_layers_applies(network: Network) -> None:
    groups = find_groups(network.module, SHAPE, protect=["expand"])
    plan = plan_ratio(replace(network, groups=groups), 0.5)
    pruned = apply_plan(network.module, plan, SHAPE)
    assert (pruned.stem.out_channels, pruned.expand.out_channels) == (4, 16)


def test_a_plan_of_another_model_is_refused(network: Network) -> None:
    plan = plan_ratio(network, 0.5)
    with pytest.raises(PlanError, match=r"plan: channel group 'stem' .*Make a plan for this model"):
        apply_plan(nets.initialise(nets.Residual()), plan, SHAPE)
    with pytest.raises(PlanError, match="plan: channel group 'stem' is not in this model"):
        apply_plan(nets.initialise(nets.Plain()), plan, SHAPE)


def test_a_plan_is_not_applied_twice(network: Network) -> None:
    plan = plan_ratio(network, 0.5)
    pruned = apply_plan(network.module, plan, SHAPE)
    with pytest.raises(PlanError, match="channel group 'stem' has 4 channels in 2 layers here, 8 in 2 in the plan"):
        apply_plan(pruned, plan, SHAPE)
