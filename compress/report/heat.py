"""A sensitivity scan at a glance: a group to a line, a ratio to a column, the darker, the larger the drop."""

import math
from dataclasses import dataclass

from compress.artifacts import Sensitivity

LIMITS = (0.01, 0.05, 0.15, 0.4)
"""Shares of the unpruned network's figure up to which a drop is of one level; what is above is of the last."""
SHADES = ("·", "░", "▒", "▓", "█")
UNKNOWN = " "
"""A cell that was not measured."""


@dataclass(frozen=True)
class HeatRow:
    """A group, the levels of its cells by ratio (None: not measured), and the largest ratio of level 0."""

    name: str
    levels: tuple[int | None, ...]
    free: float


def heat_level(drop: float, baseline: float) -> int:
    """How large a drop is, from 0 to the number of limits; a drop that is no number is of the last level.

    >>> [heat_level(drop, 0.8) for drop in (-0.1, 0.008, 0.03, 0.1, 0.3, 0.8, float("nan"))]
    [0, 0, 1, 2, 3, 4, 4]
    """
    if not math.isfinite(drop):
        return len(LIMITS)
    return sum(drop > limit * baseline for limit in LIMITS)


def heat_rows(sensitivity: Sensitivity) -> tuple[HeatRow, ...]:
    """Every group, as the network runs them."""
    rows = []
    for name, curve in sensitivity.curves.items():
        found = {ratio: curve.metric.get(f"{ratio:g}") for ratio in sensitivity.ratios}
        levels = {
            ratio: None if metric is None else heat_level(sensitivity.baseline - metric, sensitivity.baseline)
            for ratio, metric in found.items()
        }
        free = max((ratio for ratio, level in levels.items() if level == 0), default=0.0)
        rows.append(HeatRow(name, tuple(levels.values()), free))
    return tuple(rows)


def heat_legend(sensitivity: Sensitivity) -> str:
    """What the shades mean.

    >>> heat_legend(Sensitivity("", "fpgm", "accuracy", 0.8, (0.5,), {}))
    'drop of accuracy .8000: · at most 1 %   ░ 5 %   ▒ 15 %   ▓ 40 %   █ more'
    """
    first, *others = [f"{shade} {limit:.0%}".replace("%", " %") for shade, limit in zip(SHADES, LIMITS, strict=False)]
    first = first.replace(" ", " at most ", 1)
    baseline = f"{sensitivity.baseline:.4f}".removeprefix("0")
    return f"drop of {sensitivity.metric_name} {baseline}: " + "   ".join((first, *others, f"{SHADES[-1]} more"))


def heat_text(sensitivity: Sensitivity) -> str:
    """The map as text: `name  ··░▒█`, ratios rising to the right."""
    rows = heat_rows(sensitivity)
    width = max((len(row.name) for row in rows), default=0)
    shades = [[UNKNOWN if level is None else SHADES[level] for level in row.levels] for row in rows]
    lines = [f"{row.name:<{width}}  {''.join(cells)}  {row.free:g}" for row, cells in zip(rows, shades, strict=True)]
    ratios = ", ".join(f"{ratio:g}" for ratio in sensitivity.ratios)
    head = f"{'group':<{width}}  ratios {ratios}; behind them the largest of the lightest shade"
    return "\n".join((head, *lines, heat_legend(sensitivity)))
