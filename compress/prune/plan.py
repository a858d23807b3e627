"""Decide which channels go: from one ratio, from a tolerated metric drop, or from a share of multiply-adds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from compress.artifacts import Curve, GroupPlan, PruningPlan, Sensitivity
from compress.errors import ArtifactError, PlanError
from compress.measure.cost import layer_positions, macs_at, module_cost, parameter_count
from compress.prune.allocation import Allocation, Choice, cheapest, choices, highest_price, largest_ratio
from compress.prune.channels import ChannelGroup, remove_channels
from compress.prune.importance import CRITERIA
from compress.prune.scoring import group_removal_count, lowest_channels, removal_count, score_group

_STEPS = 50
"""Of a bisection: enough to tell apart neighbouring float64 thresholds that matter."""
_LARGEST_UNIFORM_RATIO = 0.95
JUMP = 0.05
"""A plan this far below its target has jumped over it: smaller steps are tried."""


@dataclass(frozen=True)
class Network:
    """What every plan needs to know: the network, its groups, and how channels are ranked and rounded.

    `align`: kept channels (of a recurrent layer: units per direction) are a multiple of it, rounded up, so that never
    more is removed than was asked for.
    """

    module: nn.Module
    groups: Sequence[ChannelGroup]
    input_shape: tuple[int, int, int]
    criterion: str = "fpgm"
    align: int = 1
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Check what users set.

        Raises:
            PlanError: unknown criterion, or an align below 1.
        """
        if self.criterion not in CRITERIA:
            raise PlanError(f"prune.criterion: got {self.criterion!r}. Must be one of {', '.join(CRITERIA)}.")
        if self.align < 1:
            raise PlanError(f"prune.align: got {self.align}. Must be 1 or more; 8 or 16 suits most CPUs.")


def plan_ratio(network: Network, ratio: float) -> PruningPlan:
    """Remove the same share of every group.

    Raises:
        PlanError: the ratio is out of range, or `align` leaves every group whole.
    """
    if not 0.0 <= ratio < 1.0:
        raise PlanError(f"prune.ratio: got {ratio:g}. Must lie in [0, 1): the share of channels to remove.")
    return plan_ratios(network, _uniform(network, ratio), target={"ratio": ratio})


def plan_metric_drop(network: Network, sensitivity: Sensitivity, metric_drop: float) -> PruningPlan:
    """Remove from each group what costs at most `metric_drop` of the metric when it is pruned alone.

    Raises:
        PlanError: the drop is not a number, or `align` leaves every group whole.
        ArtifactError: the scan is of other groups, or not finished.
    """
    if not math.isfinite(metric_drop):
        raise PlanError(f"prune.metric_drop: got {metric_drop}. Must be a number, e.g. 0.01 for one point.")
    ratios = _tolerated(_drops(network, sensitivity), metric_drop)
    notes = (
        () if any(ratios.values()) else (f"metric_drop {metric_drop:g}: no group stays below it, nothing is removed",)
    )
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
    if not 0.0 < macs <= 1.0:
        raise PlanError(f"prune.target.macs: got {macs:g}. Must lie in (0, 1]: the share of multiply-adds to keep.")
    ratios_at, low, high = _ratio_family(network, sensitivity, allocation)
    ranking = _Ranking(network)
    wanted = macs * ranking.macs({})
    least = ranking.macs(ratios_at(high))
    if least > wanted:
        share = least / ranking.macs({})
        note = f"macs {macs:g} cannot be reached: {share:.3f} is the least that the ratios and align allow"
        return plan_ratios(network, ratios_at(high), target={"macs": macs}, notes=(note,))

    def fits(ratios: Mapping[str, float]) -> bool:
        return ranking.macs(ratios) <= wanted

    below, above = _bisect(lambda at: fits(ratios_at(at)), low, high)
    chosen = _give_back(ratios_at(above), ratios_at(below), fits)
    if sensitivity is not None and allocation == "price" and ranking.macs(chosen) < (1 - JUMP) * wanted:
        options = _choices(network, sensitivity, _drops(network, sensitivity))
        chosen = min((chosen, _step_by_step(options, ratios_at(below), fits)), key=lambda each: _cost(options, each))
    return plan_ratios(network, chosen, target={"macs": macs})


def plan_ratios(
    network: Network, ratios: Mapping[str, float], *, target: Mapping[str, float], notes: Sequence[str] = ()
) -> PruningPlan:
    """Turn a ratio per group into the exact channels: the lowest-scoring ones, kept channels a multiple of `align`.

    Args:
        network: what to prune.
        ratios: group name -> share to remove; groups that are not named stay whole.
        target: how the ratios were chosen, for the record.
        notes: what to know about the plan.

    Raises:
        PlanError: a group is unknown, or `align` leaves every group whole although pruning was asked for.
    """
    unknown = sorted(set(ratios) - {group.name for group in network.groups})
    if unknown:
        raise PlanError(f"prune: channel group {unknown[0]!r} is not in this model.")
    ranking = _Ranking(network)
    plans = {group.name: ranking.group_plan(group, ratios.get(group.name, 0.0)) for group in network.groups}
    _check_align(network, plans)
    removed = {name: plan.removed for name, plan in plans.items()}
    pruned = remove_channels(network.module, network.groups, removed)
    params_after, macs_after = module_cost(pruned, network.input_shape)
    return PruningPlan(
        fingerprint=network.fingerprint,
        criterion=network.criterion,
        align=network.align,
        target=dict(target),
        macs_before=ranking.macs({}),
        macs_after=macs_after,
        params_before=parameter_count(network.module),
        params_after=params_after,
        groups=plans,
        notes=tuple(notes),
    )


def kept_channels(channels: int, ratio: float, align: int = 1) -> int:
    """How many channels a ratio keeps: a multiple of `align`, rounded up, or all of them.

    >>> kept_channels(40, 0.3), kept_channels(40, 0.3, 16), kept_channels(8, 0.5, 16), kept_channels(24, 0.3, 16)
    (28, 32, 8, 24)
    """
    kept = channels - removal_count(channels, ratio)
    return min(channels, math.ceil(kept / align) * align)


class _Ranking:
    """The groups' channels by score, computed once for the many ratios that a bisection tries."""

    def __init__(self, network: Network) -> None:
        self._network = network
        criterion = CRITERIA[network.criterion]
        self._scores: dict[str, Tensor] = {
            group.name: score_group(network.module, group, criterion) for group in network.groups
        }
        self._positions = layer_positions(network.module, network.input_shape)
        self._macs: dict[frozenset[tuple[str, int]], int] = {}

    def group_plan(self, group: ChannelGroup, ratio: float) -> GroupPlan:
        align = self._network.align
        kept = group.blocks * kept_channels(group.channels // group.blocks, ratio, align)
        removed = lowest_channels(group, self._scores[group.name], group.channels - kept)
        whole = kept == group.channels and group_removal_count(group, ratio) > 0
        return GroupPlan(
            channels=group.channels,
            layers=group.layers,
            pruning_ratio_asked=ratio,
            pruning_ratio=len(removed) / group.channels,
            removed=removed,
            note=f"stays whole: the next multiple of align {align} is not below its {_width(group)}" if whole else "",
        )

    def macs(self, ratios: Mapping[str, float]) -> int:
        """Multiply-adds of the network really pruned so; ratios that remove the same channels share one answer."""
        network = self._network
        removed = {
            group.name: self.group_plan(group, ratios[group.name]).removed
            for group in network.groups
            if group.name in ratios
        }
        key = frozenset((name, len(channels)) for name, channels in removed.items() if channels)
        if key not in self._macs:
            self._macs[key] = macs_at(remove_channels(network.module, network.groups, removed), self._positions)
        return self._macs[key]


def _width(group: ChannelGroup) -> str:
    """What `align` is held against."""
    width = group.channels // group.blocks
    return f"{width} channels" if group.blocks == 1 else f"{width} units per direction"


def _ratio_family(
    network: Network, sensitivity: Sensitivity | None, allocation: Allocation
) -> tuple[Callable[[float], dict[str, float]], float, float]:
    """Ratios per group as a function of one number, which prunes nothing at the first bound and most at the second."""
    if sensitivity is None:
        return lambda ratio: _uniform(network, ratio), 0.0, _LARGEST_UNIFORM_RATIO
    drops = _drops(network, sensitivity)
    if allocation == "price":
        options = _choices(network, sensitivity, drops)
        return lambda price: _bought(options, price), 0.0, highest_price(options)
    cells = [drop for curve in drops.values() for drop in curve.values() if math.isfinite(drop)] or [0.0]
    below_all = min(cells) - 1.0
    return lambda threshold: _tolerated(drops, threshold), below_all, max(cells)


def _bought(options: Mapping[str, Sequence[Choice]], price: float) -> dict[str, float]:
    return {name: cheapest(group, price).ratio for name, group in options.items()}


def _choices(
    network: Network, sensitivity: Sensitivity, drops: Mapping[str, Mapping[float, float]]
) -> dict[str, tuple[Choice, ...]]:
    """Every way to prune each group."""
    return {
        group.name: choices(
            drops[group.name],
            group.channels // group.blocks,
            network.align,
            sensitivity.curves[group.name].macs,
        )
        for group in network.groups
    }


def _uniform(network: Network, ratio: float) -> dict[str, float]:
    return {group.name: ratio for group in network.groups}


def _tolerated(drops: Mapping[str, Mapping[float, float]], threshold: float) -> dict[str, float]:
    return {name: largest_ratio(curve, threshold) for name, curve in drops.items()}


def _drops(network: Network, sensitivity: Sensitivity) -> dict[str, dict[float, float]]:
    """Metric drop by ratio for each group of the network."""
    for group in network.groups:
        curve = sensitivity.curves.get(group.name)
        if curve is None or curve.channels != group.channels:
            found = "not in it" if curve is None else f"of {curve.channels} channels in it, now of {group.channels}"
            raise ArtifactError(f"sensitivity: channel group {group.name!r} is {found}. Scan this model again.")
        if len(curve.metric) < len(sensitivity.ratios):
            raise ArtifactError(f"sensitivity: the scan of {group.name!r} is not finished. Run the scan to its end.")
    return {group.name: metric_drops(sensitivity.curves[group.name], sensitivity.baseline) for group in network.groups}


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


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Two neighbouring numbers: the greatest that does not hold and the least that does (twice the least if all do)."""
    if holds(low):
        return low, low
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return low, high


def _give_back(
    ratios: Mapping[str, float], milder: Mapping[str, float], fits: Callable[[Mapping[str, float]], bool]
) -> dict[str, float]:
    """Prune less where the target is still met: many groups can jump at the same number, more than it takes."""
    chosen = dict(ratios)
    for name, ratio in milder.items():
        if ratio < chosen[name] and fits({**chosen, name: ratio}):
            chosen[name] = ratio
    return chosen


def _step_by_step(
    options: Mapping[str, Sequence[Choice]],
    milder: Mapping[str, float],
    fits: Callable[[Mapping[str, float]], bool],
) -> dict[str, float]:
    """Prune on from a plan that is a little too large, always the step of least drop for what it saves.

    At one price a wide group can jump over all its own smaller steps, far beyond the target: DBNet's laterals from 0.55
    of the network's multiply-adds to 0.40. What later steps made needless is given back.
    """
    chosen = dict(milder)
    while not fits(chosen):
        steps = [step for name, group in options.items() for step in _next_steps(name, group, chosen[name])]
        if not steps:
            break
        _, name, ratio = min(steps)
        chosen[name] = ratio
    return _give_back(chosen, milder, fits)


def _next_steps(name: str, group: Sequence[Choice], ratio: float) -> list[tuple[float, str, float]]:
    """The group's next larger choice as (drop for each multiply-add saved, group, ratio); none at its end."""
    now = _choice_at(group, ratio)
    further = [choice for choice in group if choice.ratio > ratio and choice.saved > now.saved]
    if not further:
        return []
    step = min(further, key=lambda choice: choice.ratio)
    return [((step.drop - now.drop) / (step.saved - now.saved), name, step.ratio)]


def _choice_at(group: Sequence[Choice], ratio: float) -> Choice:
    return min(group, key=lambda choice: abs(choice.ratio - ratio))


def _cost(options: Mapping[str, Sequence[Choice]], ratios: Mapping[str, float]) -> float:
    """Sum of the drops of a plan's choices, each group's pruned alone."""
    return sum(_choice_at(group, ratios[name]).drop for name, group in options.items())
