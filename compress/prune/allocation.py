"""From sensitivity curves to a ratio for each group: who gives up how much.

Two rules, each a family of answers in one number, which the caller turns until the network is as small as wanted:

- *threshold* (PaddleSlim): every group is pruned as far as costs the same metric drop, alone. It asks no group what
  pruning it saves: the narrow layers of squeeze-and-excite give up most of their channels for no multiply-adds at all,
  and what all groups lose together is more than needed.
- *price*: the least sum of drops for the multiply-adds saved, or the milliseconds. With a price p on each, a group
  takes the ratio of least drop - p x saved, the Lagrangian of that problem; the sum treats drops as independent.
- *product*: the same of what is left of the metric, multiplied over groups: a group's cost is -log(metric left). Where
  drops are large, sums mislead: a metric cannot fall below zero, so of a group that has lost nearly all of it the rest
  looks free, and one wide group is ruined to spare many others. Two groups that keep 0.7 and 0.6 keep 0.42 together.
- *spare*: price, but groups that would lose most of the metric alone are spared where the target can be met so
  (`compress.prune.target_ratios.RUIN`).

Measured on PP-OCR's models: docs/training.md; at a tenth of the multiply-adds: docs/sensitivity.md.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Allocation = Literal["price", "threshold", "product", "spare"]
Drops = Mapping[float, float]
"""Metric drop by ratio, of one group pruned alone."""


LEAST_LEFT = 1e-30
"""Share of the metric that is left where nothing is, so that its logarithm is finite."""


def log_costs(drops: Drops, baseline: float) -> dict[float, float]:
    """Drops as -log(what is left of the metric), which add up where the shares that are left multiply.

    >>> costs = log_costs({0.25: 0.0, 0.5: 0.4, 0.75: 0.8}, 0.8)
    >>> {ratio: round(math.exp(-cost), 3) for ratio, cost in costs.items()}
    {0.25: 1.0, 0.5: 0.5, 0.75: 0.0}
    """
    if not baseline > 0:  # a metric of nothing has no shares
        return dict(drops)
    return {ratio: -math.log(max(LEAST_LEFT, 1 - drop / baseline)) if math.isfinite(drop) else drop
            for ratio, drop in drops.items()}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """One way to prune a group: share of its channels, metric drop, multiply-adds (about) or milliseconds saved."""

    ratio: float
    drop: float
    saved: float


def largest_ratio(drops: Drops, threshold: float) -> float:
    """The largest ratio whose drop is at most the threshold, carried on linearly towards the next ratio; else 0.

    Curves need not rise: an early bump above the threshold does not count if a larger ratio is below it.

    >>> largest_ratio({0.25: 0.0, 0.5: 0.75, 0.75: 0.25, 0.875: 0.5}, 0.375)  # halfway from 0.75 to 0.875
    0.8125
    >>> largest_ratio({0.25: 0.5}, 0.375), largest_ratio({0.25: 0.0, 0.5: 0.25}, 0.375)
    (0.0, 0.5)

    Source: PaddleSlim, `get_ratios_by_loss`; there of relative losses, the rule is the same for either.
    """
    grid = sorted(drops)
    for place in reversed(range(len(grid))):
        ratio, drop = grid[place], drops[grid[place]]
        if not drop <= threshold:  # also where it is not a number
            continue
        if place == len(grid) - 1 or not math.isfinite(drops[grid[place + 1]]):
            return ratio
        next_ratio, next_drop = grid[place + 1], drops[grid[place + 1]]
        return ratio + (threshold - drop) * (next_ratio - ratio) / (next_drop - drop)
    return 0.0


def rising_drop(drops: Drops, ratio: float) -> float:
    """Drop at a ratio, between measured ones linearly; made to start at 0 and never to fall, which noise makes it do.

    Infinite beyond the last measured ratio, and from the first drop on that is not a number.

    >>> [rising_drop({0.25: 0.2, 0.5: 0.1, 0.75: 0.4}, ratio) for ratio in (0, 0.125, 0.5, 0.625, 0.8)]
    [0.0, 0.1, 0.2, 0.30000000000000004, inf]
    """
    left, cost = 0.0, 0.0
    for right in sorted(drops):
        drop = max(cost, drops[right]) if math.isfinite(drops[right]) else math.inf
        if ratio <= right:
            return drop if ratio == right else cost if ratio == left else _between(left, cost, right, drop, ratio)
        left, cost = right, drop
    return 0.0 if ratio == 0.0 else math.inf


def _between(left: float, cost: float, right: float, drop: float, ratio: float) -> float:
    return cost + (drop - cost) * (ratio - left) / (right - left)


def choices(drops: Drops, channels: int, align: int, saved: Callable[[float], float]) -> tuple[Choice, ...]:
    """Every way to prune a group that keeps a multiple of `align` of its channels, or all; the whole group first.

    Args:
        drops: the group's curve.
        channels: of the group; of a recurrent layer, units per direction.
        align: kept channels are a multiple of it.
        saved: what removing a share of the group saves (multiply-adds, milliseconds).
    """
    kept = [channels, *(count for count in range(channels - 1, 0, -1) if count % align == 0)]
    ratios = [(channels - count) / channels for count in kept]
    known = {ratio: drop for ratio in ratios if math.isfinite(drop := rising_drop(drops, ratio))}
    return tuple(Choice(ratio, drop, saved(ratio) if ratio else 0.0) for ratio, drop in known.items())


def cheapest(options: Sequence[Choice], price: float) -> Choice:
    """The choice of least drop - price x saved; the milder one of equals."""
    return min(options, key=lambda choice: (choice.drop - price * choice.saved, choice.ratio))


def highest_price(options: Mapping[str, Sequence[Choice]]) -> float:
    """A price at which every group gives up all that its curve allows, if that saves anything."""
    savings = [choice.saved for group in options.values() for choice in group if choice.saved > 0]
    steps = [
        (later.drop - earlier.drop) / (later.saved - earlier.saved)
        for group in options.values()
        for earlier in group
        for later in group
        if later.saved > earlier.saved
    ]
    return 1.0 + max(steps) if savings else 0.0
