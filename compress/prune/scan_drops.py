"""What a finished scan says to a plan: the metric drop of each group at each ratio."""

from collections.abc import Mapping

from compress.artifacts import Curve, Sensitivity
from compress.errors import ArtifactError
from compress.prune.allocation import largest_ratio
from compress.prune.cell_choice import too_short
from compress.prune.ranking import Network


def nothing_measured(sensitivity: Sensitivity | None) -> str:
    """Why a scan within a budget says nothing at all; empty where it does."""
    return too_short(sensitivity.budgeted) if sensitivity and sensitivity.budgeted else ""


def limited(drops: Mapping[str, Mapping[float, float]], most: float | None) -> dict[str, dict[float, float]]:
    """Drops of at most `most`."""
    return {
        name: {ratio: drop for ratio, drop in curve.items() if most is None or drop <= most}
        for name, curve in drops.items()
    }


def sum_of_drops(drops: Mapping[str, Mapping[float, float]], ratios: Mapping[str, float]) -> float:
    """Of each group's largest measured ratio that is not above its own."""
    return sum(
        max((ratio, drop) for ratio, drop in [(0.0, 0.0), *curve.items()] if ratio <= ratios.get(name, 0.0) + 1e-9)[1]
        for name, curve in drops.items()
    )


def tolerated(drops: Mapping[str, Mapping[float, float]], threshold: float) -> dict[str, float]:
    """The largest ratio of each group that costs at most `threshold`."""
    return {name: largest_ratio(curve, threshold) for name, curve in drops.items()}


def drops_by_ratio(network: Network, sensitivity: Sensitivity) -> dict[str, dict[float, float]]:
    """Metric drop by ratio for each group of the network.

    Raises:
        ArtifactError: the scan is of other groups, or not finished.
    """
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


def metric_drops(curve: Curve, baseline: float) -> dict[float, float]:
    """Absolute metric drop by ratio; below zero where pruning happened to help."""
    return {float(ratio): baseline - metric for ratio, metric in curve.metric.items()}
