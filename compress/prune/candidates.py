"""Plans around a scan's own, to be tried: drops of single groups do not add up, and what groups do together is seen so.

Source: EagleEye (Li et al. 2020, arXiv 2007.02491) draws ratios at random and scores each pruned network after a cheap
recovery; here the draws are around what a scan says, by each rule from curves to ratios.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from compress.artifacts import PruningPlan, Sensitivity
from compress.prune.allocation import Allocation

SPREADS = (0.25, 0.5, 1.0)
"""Standard deviations of the logarithms that curves are multiplied by, in turn."""
DRAWS = 4
"""Plans that are made for each one wanted, at most: some come out the same."""

Planner = Callable[[Sensitivity, Allocation], PruningPlan]


@dataclass(frozen=True)
class Draft:
    """A plan to try, and where it comes from: the rule, and how far its curves were changed."""

    origin: str
    plan: PruningPlan


def drafts(scan: Sensitivity, allocation: Allocation, plan_of: Planner, count: int, seed: int) -> Iterator[Draft]:
    """Different plans at one target, each made when it is requested: the scan's own, then those of the other rules,
    then each rule's of curves that are multiplied by random factors.

    Args:
        scan: its curves.
        allocation: the rule of the first plan.
        plan_of: makes a plan of curves by a rule.
        count: how many plans, at most.
        seed: of the factors; the same seed gives the same plans, whatever their number.
    """
    rules: list[Allocation] = [allocation, *(rule for rule in get_args(Allocation) if rule != allocation)]
    seen: set[tuple[tuple[str, int], ...]] = set()
    for number in range(DRAWS * count):
        rule, turn = rules[number % len(rules)], number // len(rules)
        spread = SPREADS[(turn - 1) % len(SPREADS)] if turn else 0.0
        plan = plan_of(scaled(scan, spread, seed, number), rule)
        key = tuple((name, len(group.removed)) for name, group in plan.groups.items())
        if key not in seen:
            seen.add(key)
            yield Draft(rule if not turn else f"{rule}, curves x exp({spread:g} n)", plan)
        if len(seen) == count:
            return


def scaled(scan: Sensitivity, spread: float, seed: int, number: int) -> Sensitivity:
    """A scan whose groups' drops are multiplied by exp(spread n), n normal: larger or smaller than measured."""
    if not spread:
        return scan
    rng = np.random.default_rng([seed, number])
    curves = {}
    for name, curve in scan.curves.items():
        factor = float(np.exp(spread * rng.standard_normal()))
        metric = {ratio: scan.baseline - factor * (scan.baseline - value) for ratio, value in curve.metric.items()}
        curves[name] = dataclasses.replace(curve, metric=metric)
    return dataclasses.replace(scan, curves=curves)
