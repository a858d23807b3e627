"""Ratios for each group that meet a plan's targets at the least sum of metric drops."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from compress.artifacts import Sensitivity
from compress.prune.allocation import Allocation, Choice, cheapest, choices, highest_price, log_costs, rising_drop
from compress.prune.bisection import bisect, give_back, step_by_step, total_drop
from compress.prune.channels import group_align
from compress.prune.ranking import Kind, Ranking, uniform
from compress.prune.scan_drops import drops_by_ratio, limited, sum_of_drops, tolerated
from compress.prune.sensitivity import group_params

_LARGEST_UNIFORM_RATIO = 0.95
JUMP = 0.02
"""A plan this far below its target has jumped over it: smaller steps are tried."""
RUIN = (0.8, 0.9, 0.95)
"""Shares of the metric: a group that alone loses more says nothing of what it costs to prune it further. The first one
is kept to where the targets can be met so, else the next."""


@dataclass(frozen=True)
class Ratios:
    """Ratios per group; `notes` say which targets they miss."""

    ratios: Mapping[str, float]
    notes: tuple[str, ...] = ()


def least_drop(
    ranking: Ranking,
    shares: Mapping[Kind, float],
    whole: Mapping[Kind, float],
    sensitivity: Sensitivity | None,
    allocation: Allocation,
    most: float | None,
) -> Ratios:
    """Of the plans at each target's marginal costs that meet all targets the one whose groups' drops sum to the least,
    no group's above `most`."""
    drops = None if sensitivity is None else limited(drops_by_ratio(ranking.network, sensitivity), most)
    found = [
        _ratios_for(ranking, _ratio_family(ranking, kind, sensitivity, drops, allocation), kind, shares, whole)
        for kind in shares
    ]
    reached = [each for each in found if not each.notes] or found
    return min(reached, key=lambda each: sum_of_drops(drops or {}, each.ratios))


def ruined_groups(found: Ratios, ranking: Ranking, sensitivity: Sensitivity) -> str:
    """Which groups would lose most of the metric alone, in words; "" where there are none, or a target is missed.

    A metric cannot fall below zero, so a group that has lost it all seems to cost nothing more, and sums of drops ruin
    it further. Measured at a tenth of a ResNet18-CRNN's multiply-adds: docs/sensitivity.md.
    """
    drops = drops_by_ratio(ranking.network, sensitivity)
    alone = {name: rising_drop(drops.get(name, {}), ratio) for name, ratio in found.ratios.items()}
    ruined = sorted(name for name, drop in alone.items() if drop > RUIN[0] * sensitivity.baseline)
    if not ruined or found.notes:
        return ""
    more = f" and {len(ruined) - 3} more" if len(ruined) > 3 else ""
    return f"{', '.join(ruined[:3])}{more} alone would lose most of the metric"


def sparing(
    best: Ratios,
    ruined: str,
    ranking: Ranking,
    shares: Mapping[Kind, float],
    whole: Mapping[Kind, float],
    sensitivity: Sensitivity,
    most: float | None,
) -> Ratios:
    """Another plan, where targets can be met by drops of at most one of `RUIN`."""
    for share in RUIN:
        limit = share * sensitivity.baseline
        spared = least_drop(ranking, shares, whole, sensitivity, "price", limit if most is None else min(limit, most))
        if not spared.notes:
            return Ratios(spared.ratios, (f"spared, as by the least sum of drops {ruined}",))
    return Ratios(best.ratios, (f"guessing: {ruined}; try a milder target, or a search",))


@dataclass(frozen=True)
class _Family:
    """Ratios per group as a function of one number, which prunes nothing at `low` and most at `high`."""

    ratios_at: Callable[[float], dict[str, float]]
    low: float
    high: float
    options: Mapping[str, Sequence[Choice]] = field(default_factory=dict)
    """Every way to prune each group, where the number is a price."""


def _ratios_for(
    ranking: Ranking, family: _Family, kind: Kind, shares: Mapping[Kind, float], whole: Mapping[Kind, float]
) -> Ratios:
    """The mildest of a family that meets all shares; `kind` is what its marginal costs are of."""

    def fits(ratios: Mapping[str, float]) -> bool:
        return all(ranking.size(each, ratios) <= share * whole[each] for each, share in shares.items())

    most = family.ratios_at(family.high)
    missed = [each for each, share in shares.items() if ranking.size(each, most) > share * whole[each]]
    if missed:
        return Ratios(
            most, tuple(_not_reached(each, shares[each], ranking.size(each, most) / whole[each]) for each in missed)
        )
    below, above = bisect(lambda at: fits(family.ratios_at(at)), family.low, family.high)
    chosen = give_back(family.ratios_at(above), family.ratios_at(below), fits)
    if family.options and ranking.size(kind, chosen) < (1 - JUMP) * shares[kind] * whole[kind]:
        smaller = step_by_step(family.options, family.ratios_at(below), fits)
        if fits(smaller):
            chosen = min((chosen, smaller), key=lambda each: total_drop(family.options, each))
    return Ratios(chosen)


def _not_reached(kind: Kind, share: float, least: float) -> str:
    return f"{kind} {share:g} cannot be reached: {least:.3f} is the least that the ratios and align allow"


def _ratio_family(
    ranking: Ranking,
    kind: Kind,
    sensitivity: Sensitivity | None,
    drops: Mapping[str, Mapping[float, float]] | None,
    allocation: Allocation,
) -> _Family:
    network = ranking.network
    if sensitivity is None or drops is None:
        return _Family(lambda ratio: uniform(network, ratio), 0.0, _LARGEST_UNIFORM_RATIO)
    if allocation == "product":
        drops = {name: log_costs(curve, sensitivity.baseline) for name, curve in drops.items()}
    if allocation != "threshold":
        options = _choices(ranking, kind, sensitivity, drops)
        return _Family(lambda price: _bought(options, price), 0.0, highest_price(options), options)
    cells = [drop for curve in drops.values() for drop in curve.values() if math.isfinite(drop)] or [0.0]
    return _Family(lambda threshold: tolerated(drops, threshold), min(cells) - 1.0, max(cells))


def _bought(options: Mapping[str, Sequence[Choice]], price: float) -> dict[str, float]:
    return {name: cheapest(group, price).ratio for name, group in options.items()}


def _choices(
    ranking: Ranking, kind: Kind, sensitivity: Sensitivity, drops: Mapping[str, Mapping[float, float]]
) -> dict[str, tuple[Choice, ...]]:
    """Every way to prune each group, with what it saves: multiply-adds in proportion, milliseconds as predicted."""
    network, found = ranking.network, {}
    progress = network.timing.on_progress if network.timing and kind == "latency" else None
    for place, group in enumerate(network.groups):
        name, units = group.name, group.channels // group.blocks
        saved = _time_saved(ranking, name)
        if kind == "macs":
            saved = _in_proportion(sensitivity.curves[name].macs)
        elif kind == "params":
            saved = _in_proportion(group_params(network.module, group))
        found[name] = choices(drops[name], units, group_align(group, network.align), saved)
        if progress is not None:
            progress(place + 1, len(network.groups), "timing operators")
    return found


def _in_proportion(whole: int) -> Callable[[float], float]:
    return lambda ratio: ratio * whole


def _time_saved(ranking: Ranking, name: str) -> Callable[[float], float]:
    return lambda ratio: ranking.latency({}) - ranking.latency({name: ratio})
