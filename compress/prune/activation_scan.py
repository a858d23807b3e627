"""How much the metric drops when one activation is replaced by a cheaper one, and which ones that leaves."""

import dataclasses
from collections.abc import Callable, Sequence

from compress.artifacts import ActivationScan
from compress.errors import ArtifactError, PlanError
from compress.progress import Progress

SLACK = 1e-9
"""A limit may be hit exactly, whatever float arithmetic makes of a difference of metrics."""


def scan_activations(
    names: Sequence[str],
    swap: tuple[str, str],
    *,
    evaluate: Callable[[tuple[str, ...]], float],
    fingerprint: str,
    metric_name: str,
    previous: ActivationScan | None = None,
    on_cell: Callable[[ActivationScan], None] | None = None,
    on_progress: Progress | None = None,
) -> ActivationScan:
    """Measure the metric with one activation replaced at a time, nothing retrained.

    A stopped scan that goes on from its last `on_cell` value ends with the same result; activations that `previous`
    holds beside these stay in it.

    Args:
        names: of the activations to measure.
        swap: what is replaced, and by what.
        evaluate: metric of the network with these activations replaced, higher is better; () is the network as it is.
        fingerprint: of model, data, metric and settings.
        metric_name: name of what `evaluate` returns.
        previous: the cells of a stopped scan.
        on_cell: called with the scan so far after each new cell; the caller stores it.
        on_progress: called as (cells done, cells, message).

    Raises:
        ArtifactError: `previous` belongs to another model, data or settings.
    """
    if previous is not None and (previous.fingerprint, previous.original, previous.replacement) != (fingerprint, *swap):
        raise ArtifactError(
            "activations: stale: the earlier scan is of another model, data or settings "
            f"(fingerprint {previous.fingerprint}, now {fingerprint}). Delete it, or choose another --out folder."
        )
    scan = previous or ActivationScan(fingerprint, *swap, metric_name, evaluate(()), {})
    for done, name in enumerate(names, 1):
        if name in scan.metric:
            continue
        metric = float(evaluate((name,)))
        scan = dataclasses.replace(scan, metric={**scan.metric, name: metric})
        if on_cell is not None:
            on_cell(scan)
        if on_progress is not None:
            on_progress(done, len(names), f"{name}: {metric_name} {metric:.4f}")
    return scan


def choose_activations(scan: ActivationScan, names: Sequence[str], metric_drop: float) -> tuple[str, ...]:
    """Those of `names` whose replacement alone costs at most this much metric.

    Args:
        scan: holds all of `names`.
        names: the activations to choose from.
        metric_drop: absolute, e.g. 0.02.

    Raises:
        PlanError: there is none.
    """
    chosen = tuple(name for name in names if scan.drop(name) <= metric_drop + SLACK)
    if not chosen:
        least = min(names, key=scan.drop)
        raise PlanError(
            f"replace.metric_drop: {metric_drop:g} leaves every {scan.original} as it is: the least drop is "
            f"{scan.drop(least):.4f}, of {least}. Use more, or do without `replace`."
        )
    return chosen
