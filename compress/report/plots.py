"""Sensitivity curves, and stages by size and latency, as pictures."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from compress.artifacts import Report, Sensitivity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SPAN = 0.02
"""Of the metric, at least shown: what differs by less is to look equal."""
LEGEND_MAX = 12
"""More curves than this are named in the table, not in the picture."""


def sensitivity_svg(sensitivity: Sensitivity) -> str:
    """Metric drop over pruning ratio, a line per group, as an `<svg>` element; same values, same text."""
    return as_svg(lambda: _draw(sensitivity), sensitivity.fingerprint)


def stages_svg(report: Report) -> str:
    """Metric on the validation data over latency and over size, a point for each file, as an `<svg>` element; "" with
    fewer than two files that were timed."""
    timed = [stage for stage in report.stages if stage.latency]
    return as_svg(lambda: _draw_stages(report), report.fingerprint) if len(timed) > 1 else ""


def as_svg(draw: Callable[[], "Figure"], salt: str) -> str:
    """A figure as an `<svg>` element; `salt` makes the names inside: same figure and salt, same text."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        return _written(draw())


def _written(figure: "Figure") -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
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


def _draw_stages(report: Report) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    stages = [stage for stage in report.stages if stage.latency]
    metrics = [stage.score.metric for stage in stages]
    sides = figure.subplots(1, 2, sharey=True)
    xs = [[stage.latency.median_ms if stage.latency else 0.0 for stage in stages]]
    xs.append([stage.cost.size_bytes / 1000 for stage in stages])
    for axes, values, label in zip(sides, xs, ("ms of one image", "KB"), strict=True):
        for stage, x, metric in zip(stages, values, metrics, strict=True):
            axes.plot(x, metric, "o", label=stage.stage, markersize=9 if stage is stages[-1] else 6)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    middle, span = (max(metrics) + min(metrics)) / 2, max(max(metrics) - min(metrics), SPAN)
    sides[0].set_ylim(middle - 0.6 * span, middle + 0.6 * span)
    sides[0].set_ylabel(f"{stages[-1].score.name} on validation")
    sides[1].legend(fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
