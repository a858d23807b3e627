"""`float_budget` and `replay_budgets`: what they draw, what a budget reads of a whole scan."""

import numpy as np
import pytest

from benchmarks.studies import float_budget, replay_budgets
from compress.artifacts import LayerRounding, QuantSensitivity
from compress.graph import to_torch
from compress.prune.groups import find_groups
from tests.pipeline import tiny

RATIOS = (0.25, 0.5, 0.75)


def test_drawn_layers_fit_and_no_other_does() -> None:
    layers = {f"layer{index}": LayerRounding(macs, 1.0) for index, macs in enumerate((5, 40, 30, 90, 10))}
    scan = QuantSensitivity("f", "divergence", 7, 1.0, 0.5, 1000, (3, 8, 8), layers, float_budget=0.1)
    drawn = {float_budget.draw(scan, seed) for seed in range(20)}
    assert len(drawn) > 3
    for names in drawn:
        used = sum(layers[name].macs for name in names)
        assert used <= 100
        assert all(used + layer.macs > 100 for name, layer in layers.items() if name not in names)


@pytest.fixture
def replay() -> replay_budgets.Replay:
    """The tiny network; each cell loses as many of 160 images as its ratio says."""
    module = to_torch(tiny_model())
    groups = find_groups(module, tiny.SHAPE, (), True)
    rng = np.random.default_rng(0)
    tallies = {"": np.ones((160, 2))}
    for group in groups:
        for ratio in RATIOS:
            right = (rng.permutation(160) >= 160 * ratio).astype(float)
            tallies[f"{group.name}|{ratio:g}"] = np.stack([right, np.ones(160)], -1)
    return replay_budgets.Replay(module, groups, tiny.SHAPE, RATIOS, tallies)


def tiny_model():  # type: ignore[no-untyped-def]
    import torch

    from compress.graph import from_torch

    return from_torch(tiny.build(), torch.zeros(1, *tiny.SHAPE))


def test_a_budget_reads_no_more_than_its_share(replay: replay_budgets.Replay) -> None:
    found, spent = replay.within(4, (0.6,))
    assert 0 < spent <= 0.25
    assert all(set(group.cells) <= set(RATIOS) for group in found.values())


def test_a_whole_scan_is_judged_by_itself(replay: replay_budgets.Replay) -> None:
    """Each group's drop is its ratio: the plan's sum is that of its ratios."""
    whole = replay.every(replay.images)
    assert {cell.drop for group in whole.values() for cell in group.cells.values()} == set(RATIOS)
    plan = replay.plan_for(whole, 0.6, "price")
    ratios = [group.pruning_ratio for group in plan.groups.values()]
    assert replay.summed_drop(plan) == pytest.approx(sum(ratios))
    assert sum(ratios) > 0
