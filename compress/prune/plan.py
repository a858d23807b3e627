"""Decide which channels go: by one ratio, a tolerated metric drop, or shares of multiply-adds, parameters or time."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from compress.artifacts import Curve, GroupPlan, PruningPlan, Sensitivity
from compress.errors import ArtifactError, PlanError
from compress.measure.cost import module_cost, parameter_count
from compress.prune.allocation import (
    Allocation,
    Choice,
    cheapest,
    choices,
    highest_price,
    largest_ratio,
    log_costs,
    rising_drop,
)
from compress.prune.bisection import bisect, give_back, step_by_step, total_drop
from compress.prune.cell_choice import too_short
from compress.prune.channels import group_align, remove_channels
from compress.prune.norms import norm_notes
from compress.prune.ranking import Kind, Network, Ranking, uniform
from compress.prune.sensitivity import group_params

_LARGEST_UNIFORM_RATIO = 0.95
WORTH_SAYING = 0.05
"""Share of the multiply-adds from which on a plan should cut time as well."""
JUMP = 0.02
"""A plan this far below its target has jumped over it: smaller steps are tried."""


def plan_ratio(network: Network, ratio: float) -> PruningPlan:
    """Remove the same share of every group.

    Raises:
        PlanError: the ratio is out of range, or `align` leaves every group whole.
    """
    if not 0.0 <= ratio < 1.0:
        raise PlanError(f"prune.ratio: got {ratio:g}. Must lie in [0, 1): the share of channels to remove.")
    return plan_ratios(network, uniform(network, ratio), target={"ratio": ratio})


def plan_metric_drop(network: Network, sensitivity: Sensitivity, metric_drop: float) -> PruningPlan:
    """Remove from each group what costs at most `metric_drop` of the metric when it is pruned alone.

    Raises:
        PlanError: the drop is not a number, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups, or not finished.
    """
    if not math.isfinite(metric_drop):
        raise PlanError(f"prune.metric_drop: got {metric_drop}. Must be a number, e.g. 0.01 for one point.")
    ratios = _tolerated(_drops(network, sensitivity), metric_drop)
    why = _nothing_measured(sensitivity) or "no group stays below it"
    notes = () if any(ratios.values()) else (f"metric_drop {metric_drop:g}: {why}, nothing is removed",)
    return plan_ratios(network, ratios, target={"metric_drop": metric_drop}, notes=notes)


def plan_macs(
    network: Network, macs: float, sensitivity: Sensitivity | None = None, allocation: Allocation = "price"
) -> PruningPlan:
    """Bring multiply-adds down to a share of what they are.

    With a scan, bisects the price of a multiply-add, or the metric drop that every group may cost alone (see
    `compress.prune.allocation`); without, one ratio for all. What the pruned network really costs decides. If the share
    cannot be reached, the plan goes as far as it can and a note says so.

    Args:
        network: what to prune.
        macs: wanted multiply-adds / those of the network, in (0, 1].
        sensitivity: a finished scan of the same groups.
        allocation: the rule from curves to ratios; without a scan of no effect.

    Raises:
        PlanError: the share is out of range, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups, or not finished.
    """
    return plan_shares(network, {"macs": macs}, sensitivity, allocation)


def plan_latency(
    network: Network, latency: float, sensitivity: Sensitivity | None = None, allocation: Allocation = "price"
) -> PruningPlan:
    """Bring the predicted time down to a share of what it is, as `plan_macs` does multiply-adds.

    Time falls in steps, where a kernel has one block of channels less: what each group saves at each number of kept
    channels (multiples of `align`) is looked up in the table of operators.

    Args:
        network: what to prune; it knows how its time is predicted.
        latency: wanted milliseconds / those of the network, in (0, 1].
        sensitivity: a finished scan of the same groups.
        allocation: the rule from curves to ratios; without a scan of no effect.

    Raises:
        PlanError: the share is out of range, nothing is known of times, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups, or not finished.
    """
    return plan_shares(network, {"latency": latency}, sensitivity, allocation)


def plan_shares(
    network: Network,
    shares: Mapping[Kind, float],
    sensitivity: Sensitivity | None = None,
    allocation: Allocation = "price",
    metric_drop: float | None = None,
) -> PruningPlan:
    """Meet several targets at once: shares of multiply-adds, parameters and predicted time that may be left.

    A plan is made at the marginal costs of each of them, pruned until all are met; the one whose groups' drops sum to
    the least is taken. A note names the target that binds.

    Args:
        network: what to prune.
        shares: "macs", "params" or "latency" -> what is wanted / what the network has, in (0, 1].
        sensitivity: a finished scan of the same groups.
        allocation: the rule from curves to ratios; without a scan of no effect.
        metric_drop: no group loses more of the metric than this when it is pruned alone; None for no limit.

    Raises:
        PlanError: a share is out of range, nothing is known of times, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups, or not finished.
    """
    for kind, share in shares.items():
        if not 0.0 < share <= 1.0:
            raise PlanError(
                f"prune.target.{kind}: got {share:g}. Must lie in (0, 1]: the share of {NAMES[kind]} to keep."
            )
    if "latency" in shares and network.timing is None:
        raise PlanError("prune.target.latency: there is no table of operator times. Give one, or use a macs target.")
    ranking = Ranking(network)
    whole = {kind: ranking.size(kind, {}) for kind in shares}
    best = _least_drop(ranking, shares, whole, sensitivity, allocation, metric_drop)
    missed = bool(best.notes)
    if sensitivity is not None and allocation in ("price", "spare") and (ruined := _ruined(best, ranking, sensitivity)):
        best = (
            _sparing(best, ruined, ranking, shares, whole, sensitivity, metric_drop)
            if allocation == "spare"
            else _Ratios(best.ratios, (f"guessing: {ruined}; try allocation: spare, or a search",))
        )
    target: dict[str, float] = {str(kind): share for kind, share in shares.items()}
    target |= {} if metric_drop is None else {"metric_drop": metric_drop}
    notes = best.notes
    if missed and (why := _nothing_measured(sensitivity)):
        notes = (f"{' and '.join(f'{kind} {share:g}' for kind, share in shares.items())} cannot be reached: {why}",)
    if len(shares) > 1 and not missed:
        left = {kind: ranking.size(kind, best.ratios) / whole[kind] for kind in shares}
        binding = max(left, key=lambda kind: left[kind] / shares[kind])
        others = ", ".join(f"{kind} {left[kind]:.3f} of {shares[kind]:g}" for kind in shares if kind != binding)
        notes += (f"binding target: {binding} {left[binding]:.3f} of {shares[binding]:g}; left: {others}",)
    return plan_ratios(network, best.ratios, target=target, notes=notes, ranking=ranking)


def _least_drop(
    ranking: Ranking,
    shares: Mapping[Kind, float],
    whole: Mapping[Kind, float],
    sensitivity: Sensitivity | None,
    allocation: Allocation,
    most: float | None,
) -> "_Ratios":
    """Of the plans at each target's marginal costs that meet all targets the one whose groups' drops sum to the least,
    no group's above `most`."""
    drops = None if sensitivity is None else _limited(_drops(ranking.network, sensitivity), most)
    found = [
        _ratios_for(ranking, _ratio_family(ranking, kind, sensitivity, drops, allocation), kind, shares, whole)
        for kind in shares
    ]
    reached = [each for each in found if not each.notes] or found
    return min(reached, key=lambda each: _sum_of_drops(drops or {}, each.ratios))


def _ruined(found: "_Ratios", ranking: Ranking, sensitivity: Sensitivity) -> str:
    """Which groups would lose most of the metric alone, in words; "" where there are none, or a target is missed.

    A metric cannot fall below zero, so a group that has lost it all seems to cost nothing more, and sums of drops ruin
    it further. Measured at a tenth of a ResNet18-CRNN's multiply-adds: docs/sensitivity.md.
    """
    drops = _drops(ranking.network, sensitivity)
    alone = {name: rising_drop(drops.get(name, {}), ratio) for name, ratio in found.ratios.items()}
    ruined = sorted(name for name, drop in alone.items() if drop > RUIN[0] * sensitivity.baseline)
    if not ruined or found.notes:
        return ""
    more = f" and {len(ruined) - 3} more" if len(ruined) > 3 else ""
    return f"{', '.join(ruined[:3])}{more} alone would lose most of the metric"


def _sparing(
    best: "_Ratios",
    ruined: str,
    ranking: Ranking,
    shares: Mapping[Kind, float],
    whole: Mapping[Kind, float],
    sensitivity: Sensitivity,
    most: float | None,
) -> "_Ratios":
    """Another plan, where targets can be met by drops of at most one of `RUIN`."""
    for share in RUIN:
        limit = share * sensitivity.baseline
        spared = _least_drop(ranking, shares, whole, sensitivity, "price", limit if most is None else min(limit, most))
        if not spared.notes:
            return _Ratios(spared.ratios, (f"spared, as by the least sum of drops {ruined}",))
    return _Ratios(best.ratios, (f"guessing: {ruined}; try a milder target, or a search",))


RUIN = (0.8, 0.9, 0.95)
"""Shares of the metric: a group that alone loses more says nothing of what it costs to prune it further. The first one
is kept to where the targets can be met so, else the next."""
NAMES: dict[Kind, str] = {"macs": "multiply-adds", "params": "parameters", "latency": "the time"}
"""What a target is a share of, in words."""


@dataclass(frozen=True)
class _Ratios:
    """Ratios per group; `notes` say which targets they miss."""

    ratios: Mapping[str, float]
    notes: tuple[str, ...] = ()


def _ratios_for(
    ranking: Ranking, family: "_Family", kind: Kind, shares: Mapping[Kind, float], whole: Mapping[Kind, float]
) -> _Ratios:
    """The mildest of a family that meets all shares; `kind` is what its marginal costs are of."""

    def fits(ratios: Mapping[str, float]) -> bool:
        return all(ranking.size(each, ratios) <= share * whole[each] for each, share in shares.items())

    most = family.ratios_at(family.high)
    missed = [each for each, share in shares.items() if ranking.size(each, most) > share * whole[each]]
    if missed:
        return _Ratios(
            most, tuple(_not_reached(each, shares[each], ranking.size(each, most) / whole[each]) for each in missed)
        )
    below, above = bisect(lambda at: fits(family.ratios_at(at)), family.low, family.high)
    chosen = give_back(family.ratios_at(above), family.ratios_at(below), fits)
    if family.options and ranking.size(kind, chosen) < (1 - JUMP) * shares[kind] * whole[kind]:
        smaller = step_by_step(family.options, family.ratios_at(below), fits)
        if fits(smaller):
            chosen = min((chosen, smaller), key=lambda each: total_drop(family.options, each))
    return _Ratios(chosen)


def _not_reached(kind: Kind, share: float, least: float) -> str:
    return f"{kind} {share:g} cannot be reached: {least:.3f} is the least that the ratios and align allow"


def _nothing_measured(sensitivity: Sensitivity | None) -> str:
    """Why a scan within a budget says nothing at all; empty where it does."""
    return too_short(sensitivity.budgeted) if sensitivity and sensitivity.budgeted else ""


def _limited(drops: Mapping[str, Mapping[float, float]], most: float | None) -> dict[str, dict[float, float]]:
    """Drops of at most `most`."""
    return {
        name: {ratio: drop for ratio, drop in curve.items() if most is None or drop <= most}
        for name, curve in drops.items()
    }


def _sum_of_drops(drops: Mapping[str, Mapping[float, float]], ratios: Mapping[str, float]) -> float:
    """Of each group's largest measured ratio that is not above its own."""
    return sum(
        max((ratio, drop) for ratio, drop in [(0.0, 0.0), *curve.items()] if ratio <= ratios.get(name, 0.0) + 1e-9)[1]
        for name, curve in drops.items()
    )


def plan_ratios(
    network: Network,
    ratios: Mapping[str, float],
    *,
    target: Mapping[str, float],
    notes: Sequence[str] = (),
    ranking: Ranking | None = None,
) -> PruningPlan:
    """Turn a ratio per group into the exact channels: the lowest-scoring ones, kept channels a multiple of `align`.

    Args:
        network: what to prune.
        ratios: group name -> share to remove; groups that are not named stay whole.
        target: how the ratios were chosen, for the record.
        notes: what to know about the plan.
        ranking: the network's, where it was made already.

    Raises:
        PlanError: a group is unknown, or `align` leaves every group whole although pruning was requested.
    """
    unknown = sorted(set(ratios) - {group.name for group in network.groups})
    if unknown:
        raise PlanError(f"prune: channel group {unknown[0]!r} is not in this model.")
    ranking = ranking or Ranking(network)
    plans = {group.name: ranking.group_plan(group, ratios.get(group.name, 0.0)) for group in network.groups}
    _check_align(network, plans)
    removed = {name: plan.removed for name, plan in plans.items()}
    pruned = remove_channels(network.module, network.groups, removed)
    params_after, macs_after = module_cost(pruned, network.input_shape)
    before, after = (ranking.latency({}), ranking.latency(ratios)) if network.timing else (None, None)
    through = {group.name: group.layers for group in network.groups if plans[group.name].removed}
    slow = _slow_notes(macs_after / max(1, ranking.macs({})), before, after)
    return PruningPlan(
        fingerprint=network.fingerprint,
        criterion=network.criterion,
        align=network.align,
        target=dict(target),
        macs_before=ranking.macs({}),
        latency_before=before,
        latency_after=after,
        latency_precision=network.timing.precision if network.timing else "",
        macs_after=macs_after,
        params_before=parameter_count(network.module),
        params_after=params_after,
        groups=plans,
        notes=(*notes, *norm_notes(network.module, through), *slow),
    )


def _slow_notes(macs_left: float, before: float | None, after: float | None) -> tuple[str, ...]:
    """What to say of a plan that cuts multiply-adds, but less than half as much of the time.

    >>> _slow_notes(0.5, 10.0, 9.0)[0].split(":")[0]
    'cuts 50 % of the multiply-adds but 10 % of the predicted time (10.00 -> 9.00 ms)'
    >>> _slow_notes(0.5, 10.0, 6.0), _slow_notes(1.0, 10.0, 10.0), _slow_notes(0.5, None, None)
    ((), (), ())
    """
    if before is None or after is None or before <= 0:
        return ()
    macs_cut, time_cut = 1 - macs_left, 1 - after / before
    if macs_cut < WORTH_SAYING or time_cut >= macs_cut / 2:
        return ()
    return (
        f"cuts {macs_cut:.0%} of the multiply-adds but {time_cut:.0%} of the predicted time "
        f"({before:.2f} -> {after:.2f} ms): try a latency target, or a larger align".replace("%", " %"),
    )


@dataclass(frozen=True)
class _Family:
    """Ratios per group as a function of one number, which prunes nothing at `low` and most at `high`."""

    ratios_at: Callable[[float], dict[str, float]]
    low: float
    high: float
    options: Mapping[str, Sequence[Choice]] = field(default_factory=dict)
    """Every way to prune each group, where the number is a price."""


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
    return _Family(lambda threshold: _tolerated(drops, threshold), min(cells) - 1.0, max(cells))


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


def _tolerated(drops: Mapping[str, Mapping[float, float]], threshold: float) -> dict[str, float]:
    return {name: largest_ratio(curve, threshold) for name, curve in drops.items()}


def _drops(network: Network, sensitivity: Sensitivity) -> dict[str, dict[float, float]]:
    """Metric drop by ratio for each group of the network."""
    for group in network.groups:
        curve = sensitivity.curves.get(group.name)
        if curve is None or curve.channels != group.channels:
            found = "not in it" if curve is None else f"of {curve.channels} channels in it, now of {group.channels}"
            raise ArtifactError(
                f"sensitivity: channel group {group.name!r} is {found}. Scan this model again, "
                "with the same protect, recurrent and layer_norms."
            )
        if sensitivity.budgeted is None and len(curve.metric) < len(sensitivity.ratios):
            raise ArtifactError(f"sensitivity: the scan of {group.name!r} is not finished. Run the scan to its end.")
    return {group.name: metric_drops(sensitivity.curves[group.name], sensitivity.baseline) for group in network.groups}


def pessimistic(sensitivity: Sensitivity) -> Sensitivity:
    """The scan with each drop at the upper end of its interval, so that plans keep away from what is hardly known.

    Raises:
        PlanError: the scan has no intervals.
    """
    if sensitivity.budgeted is None:
        raise PlanError(
            "prune.pessimistic: the scan says nothing of how surely its figures are known. Scan with a budget "
            "(`sensitivity: {budget: 5m}`), or remove it."
        )
    cells = sensitivity.budgeted.cells
    curves = {
        name: replace(curve, metric={key: sensitivity.baseline - cells[name][key].high for key in curve.metric})
        for name, curve in sensitivity.curves.items()
    }
    return replace(sensitivity, curves=curves)


def metric_drops(curve: Curve, baseline: float) -> dict[float, float]:
    """Absolute metric drop by ratio; below zero where pruning happened to help."""
    return {float(ratio): baseline - metric for ratio, metric in curve.metric.items()}


def _check_align(network: Network, plans: Mapping[str, GroupPlan]) -> None:
    asked = [plan for plan in plans.values() if plan.note]
    if asked and not any(plan.removed for plan in plans.values()):
        widest = max(group.channels // group.blocks for group in network.groups)
        raise PlanError(
            f"prune.align: got {network.align}. It leaves every group whole (the widest has {widest} channels). "
            "Use a smaller align, or a larger ratio."
        )
