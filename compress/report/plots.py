"""Sensitivity curves as a picture."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from compress.artifacts import Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEGEND_MAX = 12
"""More curves than this are named in the table, not in the picture."""


def sensitivity_svg(sensitivity: Sensitivity) -> str:
    """Metric drop over pruning ratio, a line per group, as an `<svg>` element; same values, same text."""
    return as_svg(lambda: _draw(sensitivity), sensitivity.fingerprint)


def as_svg(draw: Callable[[], "Figure"], salt: str) -> str:
    """A figure as an `<svg>` element; `salt` makes the names inside: same figure and salt, same text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        draw().savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw(sensitivity: Sensitivity) -> "Figure":
    from matplotlib.figure import Figure  # not pyplot: no window system, no global state

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, curve in sensitivity.curves.items():
        points = [
            (r, sensitivity.baseline - curve.metric[f"{r:g}"]) for r in sensitivity.ratios if f"{r:g}" in curve.metric
        ]
        axes.plot([0.0, *(r for r, _ in points)], [0.0, *(drop for _, drop in points)], marker=".", label=name)
    axes.set_xlabel("pruning ratio (share of the group's channels removed)")
    axes.set_ylabel(f"{sensitivity.metric_name} drop")
    axes.grid(alpha=0.3)
    if 0 < len(sensitivity.curves) <= LEGEND_MAX:
        axes.legend(fontsize="small")
    return figure
