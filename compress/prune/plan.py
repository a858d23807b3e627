"""Decide which channels go: by one ratio, a tolerated metric drop, or shares of multiply-adds, parameters or time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from compress.artifacts import GroupPlan, PruningPlan, Sensitivity
from compress.errors import PlanError
from compress.measure.cost import module_cost, parameter_count
from compress.prune.allocation import (
    Allocation,
)
from compress.prune.channels import remove_channels
from compress.prune.norms import norm_notes
from compress.prune.ranking import Kind, Network, Ranking, uniform
from compress.prune.scan_drops import drops_by_ratio, nothing_measured, tolerated
from compress.prune.target_ratios import Ratios, least_drop, ruined_groups, sparing

WORTH_SAYING = 0.05
"""Share of the multiply-adds from which on a plan should cut time as well."""


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
    ratios = tolerated(drops_by_ratio(network, sensitivity), metric_drop)
    why = nothing_measured(sensitivity) or "no group stays below it"
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
    best = least_drop(ranking, shares, whole, sensitivity, allocation, metric_drop)
    missed = bool(best.notes)
    if (
        sensitivity is not None
        and allocation in ("price", "spare")
        and (ruined := ruined_groups(best, ranking, sensitivity))
    ):
        best = (
            sparing(best, ruined, ranking, shares, whole, sensitivity, metric_drop)
            if allocation == "spare"
            else Ratios(best.ratios, (f"guessing: {ruined}; try allocation: spare, or a search",))
        )
    target: dict[str, float] = {str(kind): share for kind, share in shares.items()}
    target |= {} if metric_drop is None else {"metric_drop": metric_drop}
    notes = best.notes
    if missed and (why := nothing_measured(sensitivity)):
        notes = (f"{' and '.join(f'{kind} {share:g}' for kind, share in shares.items())} cannot be reached: {why}",)
    if len(shares) > 1 and not missed:
        left = {kind: ranking.size(kind, best.ratios) / whole[kind] for kind in shares}
        binding = max(left, key=lambda kind: left[kind] / shares[kind])
        others = ", ".join(f"{kind} {left[kind]:.3f} of {shares[kind]:g}" for kind in shares if kind != binding)
        notes += (f"binding target: {binding} {left[binding]:.3f} of {shares[binding]:g}; left: {others}",)
    return plan_ratios(network, best.ratios, target=target, notes=notes, ranking=ranking)


NAMES: dict[Kind, str] = {"macs": "multiply-adds", "params": "parameters", "latency": "the time"}
"""What a target is a share of, in words."""


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


def _check_align(network: Network, plans: Mapping[str, GroupPlan]) -> None:
    asked = [plan for plan in plans.values() if plan.note]
    if asked and not any(plan.removed for plan in plans.values()):
        widest = max(group.channels // group.blocks for group in network.groups)
        raise PlanError(
            f"prune.align: got {network.align}. It leaves every group whole (the widest has {widest} channels). "
            "Use a smaller align, or a larger ratio."
        )
