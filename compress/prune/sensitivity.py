"""How much the metric drops when one group of channels is thinned out and nothing is retrained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compress.artifacts import Curve, Sensitivity
from compress.errors import ArtifactError, PlanError
from compress.measure.cost import layer_positions, weight_count
from compress.progress import Progress
from compress.prune.channel_scores import channel_scores, group_removal_count, lowest_channels
from compress.prune.channels import ChannelGroup, Member, remove_channels
from compress.prune.importance import CRITERION_NAMES

_WEIGHTED = (_ConvNd, nn.Linear, nn.RNNBase)
Compensate = Callable[[nn.Module, ChannelGroup, Sequence[int]], None]
"""(the network without these channels, their group, the channels)"""
Evaluate = Callable[[ChannelGroup | None, Sequence[int]], float]
"""Metric of the network without these channels of a group, higher is better; of no group, as it is."""


@dataclass(frozen=True)
class ScanRequest:
    """What a scan is of. Cells of equal requests are equal."""

    ratios: Sequence[float]
    """Shares of a group's channels to remove, each in (0, 1)."""
    criterion: str
    """One of `CRITERION_NAMES`: which channels go first."""
    fingerprint: str
    """Of model, data, metric and settings."""
    metric_name: str
    """Of what is measured."""
    input_shape: tuple[int, int, int]
    """(C, H, W) that MACs refer to."""
    model: str = ""
    """Fingerprint of the model alone, for `check_scan`."""
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Group -> score of each channel, where the criterion is not one of weights alone."""

    def __post_init__(self) -> None:
        if self.criterion not in CRITERION_NAMES:
            names = ", ".join(CRITERION_NAMES)
            raise PlanError(f"sensitivity.criterion: got {self.criterion!r}. Must be one of {names}.")
        wrong = [ratio for ratio in self.ratios if not 0.0 < ratio < 1.0]
        if wrong or not self.ratios:
            got = wrong[0] if wrong else list(self.ratios)
            raise PlanError(f"sensitivity.ratios: got {got}. Each must lie in (0, 1).")

    @property
    def grid(self) -> tuple[float, ...]:
        """The ratios as they are spelled, each once, rising."""
        return tuple(sorted({float(ratio_key(ratio)) for ratio in self.ratios}))


def scan_sensitivity(
    module: nn.Module,
    groups: Sequence[ChannelGroup],
    request: ScanRequest,
    evaluate: Evaluate,
    *,
    previous: Sensitivity | None = None,
    on_cell: Callable[[Sensitivity], None] | None = None,
    on_progress: Progress | None = None,
    is_mine: Callable[[int], bool] | None = None,
) -> Sensitivity:
    """Measure the metric with one group pruned at a time, at each ratio; the module is left as it was.

    The same cells come out in whatever pieces the scan is done, so a stopped scan that goes on from its last
    `on_cell` value ends with the same result. Ratios that remove the same number of channels share a measurement.

    Args:
        module: the network, in eval mode.
        groups: from `find_groups`.
        request: ratios, criterion and what else the scan is of.
        evaluate: what a cell's figure is; see `by_pruned_copies`.
        previous: the cells of a stopped scan.
        on_cell: called with the scan so far after each new cell; the caller stores it.
        on_progress: called as (cells done, cells, message).
        is_mine: place of a group in `groups` -> whether its cells are measured here, asked in order; default all are.

    Raises:
        ArtifactError: `previous` belongs to another model, data or criterion.

    Source: Li et al. 2016, "Pruning Filters for Efficient ConvNets" (arXiv 1608.08710), section 3.2; groups instead of
    single layers, as coupled layers cannot be pruned alone.
    """
    scan = _start(module, groups, request, previous)
    if previous is None:
        scan = dataclasses.replace(scan, baseline=evaluate(None, ()))
    total = len(groups) * len(scan.ratios)
    done = sum(len(curve.metric) for curve in scan.curves.values())
    for place, group in enumerate(groups):
        if is_mine is not None and not is_mine(place):
            continue
        missing = [ratio for ratio in scan.ratios if ratio_key(ratio) not in scan.curves[group.name].metric]
        scores = channel_scores(module, group, request.criterion, request.scores) if missing else None
        for ratio in missing:
            assert scores is not None
            metric = _cell(group, ratio, scores, scan, evaluate)
            scan = _with_cell(scan, group.name, ratio, metric)
            done += 1
            if on_cell is not None:
                on_cell(scan)
            if on_progress is not None:
                on_progress(done, total, f"{group.name} at {ratio:g}: {request.metric_name} {metric:.4f}")
    return scan


def by_pruned_copies(
    module: nn.Module, evaluate: Callable[[nn.Module], float], compensate: Compensate | None = None
) -> Evaluate:
    """Evaluate a pruned copy of the whole network for each cell: slow and plain, the reference of quicker ways.

    Args:
        module: the network.
        evaluate: metric of a network.
        compensate: what readers of a pruned group do before it is measured (see `compress.prune.compensation`).
    """

    def evaluate_group(group: ChannelGroup | None, removed: Sequence[int]) -> float:
        if group is None:
            return float(evaluate(module))
        pruned = remove_channels(module, [group], {group.name: removed})
        if compensate is not None:
            compensate(pruned, group, removed)
        return float(evaluate(pruned))

    return evaluate_group


def join_scans(scan: Sensitivity, others: Sequence[Sensitivity]) -> Sensitivity:
    """A scan with the cells that others measured of the same things; as if it had been made in one go."""
    curves = {}
    for name, curve in scan.curves.items():
        cells = dict(curve.metric)
        for other in others:
            cells.update(other.curves[name].metric if name in other.curves else {})
        keys = [ratio_key(ratio) for ratio in scan.ratios]
        curves[name] = dataclasses.replace(curve, metric={key: cells[key] for key in keys if key in cells})
    return dataclasses.replace(scan, curves=curves)


def empty_scan(module: nn.Module, groups: Sequence[ChannelGroup], request: ScanRequest, baseline: float) -> Sensitivity:
    """A scan without a cell; `baseline` is the metric of the network as it is."""
    return dataclasses.replace(_start(module, groups, request, None), baseline=baseline)


def check_scan(scan: Sensitivity, model: str, input_shape: Sequence[int] | None = None) -> None:
    """Refuse a scan that is of another model, or whose multiply-adds are of another input.

    Args:
        scan: whatever was given.
        model: fingerprint of the model that it must be of.
        input_shape: (C, H, W) that is requested; None where the scan's is as good as any.

    Raises:
        ArtifactError: it is, or it is of an earlier version and does not say.
    """
    if not scan.model:
        raise ArtifactError(
            "sensitivity: the scan does not say of which model it is: an earlier version wrote it. Give the command or "
            "recipe that made it again: it keeps every figure, and adds that."
        )
    if scan.model != model:
        raise ArtifactError(
            f"sensitivity: stale: the scan is of another model (fingerprint {scan.model}, now {model}). "
            "Scan this model; if it comes from `compress replace`, name the scanned one with --scanned."
        )
    if input_shape is not None and tuple(input_shape) != scan.input_shape:
        shapes = [",".join(map(str, shape)) for shape in (scan.input_shape, input_shape)]
        raise ArtifactError(
            f"sensitivity: stale: the scan is of images of {shapes[0]}, now {shapes[1]}. Use --input {shapes[0]}."
        )


def count_cells(groups: Sequence[ChannelGroup], ratios: Sequence[float], previous: Sensitivity | None = None) -> int:
    """How many networks a scan will evaluate, beside the unpruned one and what `previous` holds.

    Fewer than groups times ratios: ratios that remove the same number of channels share a measurement, and those that
    remove none need none.
    """
    cells = 0
    for group in groups:
        curve = previous.curves.get(group.name) if previous else None
        keys = {ratio_key(ratio) for ratio in ratios}
        done = keys & set(curve.metric) if curve else set()
        counts = [{group_removal_count(group, float(key)) for key in some} for some in (keys - done, done)]
        cells += len(counts[0] - counts[1] - {0})
    return cells


def ratio_key(ratio: float) -> str:
    """How a ratio is spelled in a stored curve.

    >>> ratio_key(0.30000000000000004)
    '0.3'
    """
    return f"{ratio:g}"


def group_macs(module: nn.Module, group: ChannelGroup, positions: Mapping[str, int]) -> int:
    """Multiply-adds that the group's channels take part in: what would go if all of them went.

    Args:
        module: the network.
        group: one of its groups.
        positions: from `compress.measure.cost.layer_positions`.
    """
    shares: dict[tuple[str, str], float] = {}
    for member in group.members:
        if member.layer in positions:
            before = shares.get((member.layer, member.side), 0.0)
            shares[member.layer, member.side] = before + _share(module, member)
    touched: dict[str, float] = {}
    for (layer, _), share in shares.items():
        untouched = 1.0 - touched.get(layer, 0.0)
        touched[layer] = 1.0 - untouched * (1.0 - min(1.0, share))
    return sum(
        round(share * positions[layer] * _weights_with_channels(module.get_submodule(layer), units=layer == group.name))
        for layer, share in touched.items()
    )


def group_params(module: nn.Module, group: ChannelGroup) -> int:
    """Weights that the group's channels take part in, of convolutions, linear and recurrent layers."""
    layers = dict(module.named_modules())
    weighted = [each.layer for each in group.members if isinstance(layers.get(each.layer), _WEIGHTED)]
    return group_macs(module, group, dict.fromkeys(weighted, 1))


def _weights_with_channels(layer: nn.Module, units: bool) -> int:
    """Elements of the weights that a layer's channels index; of a recurrent layer all, if they are its `units`."""
    if isinstance(layer, nn.RNNBase) and not units:
        return sum(weight.numel() for name, weight in layer.named_parameters() if name.startswith("weight_ih_l0"))
    return weight_count(layer)


def _share(module: nn.Module, member: Member) -> float:
    """Share of a layer's channels, on the member's side, that belong to the group."""
    layer = module.get_submodule(member.layer)
    if isinstance(layer, nn.RNNBase) and member.side == "out":
        return 1.0
    names = ("out_channels", "out_features") if member.side == "out" else ("in_channels", "in_features", "input_size")
    channels = next(getattr(layer, name) for name in names if hasattr(layer, name))
    return sum(len(indices) for indices in member.indices) / int(channels)


def _cell(group: ChannelGroup, ratio: float, scores: Tensor, scan: Sensitivity, evaluate: Evaluate) -> float:
    count = group_removal_count(group, ratio)
    if count == 0:
        return scan.baseline
    for key, metric in scan.curves[group.name].metric.items():
        if group_removal_count(group, float(key)) == count:
            return metric
    return float(evaluate(group, lowest_channels(group, scores, count)))


def _with_cell(scan: Sensitivity, group: str, ratio: float, metric: float) -> Sensitivity:
    curve = scan.curves[group]
    curve = dataclasses.replace(curve, metric={**curve.metric, ratio_key(ratio): metric})
    return dataclasses.replace(scan, curves={**scan.curves, group: curve})


def _start(
    module: nn.Module, groups: Sequence[ChannelGroup], request: ScanRequest, previous: Sensitivity | None
) -> Sensitivity:
    """A scan without cells, or with those of a stopped one."""
    kept = _cells_to_keep(previous, request)
    positions = layer_positions(module, request.input_shape)
    curves = {
        group.name: Curve(
            group.channels, group.layers, group_macs(module, group, positions), dict(kept.get(group.name, {}))
        )
        for group in groups
    }
    baseline = previous.baseline if previous is not None else float("nan")
    scan = Sensitivity(request.fingerprint, request.criterion, request.metric_name, baseline, request.grid, curves)
    scores = {name: tuple(values) for name, values in request.scores.items()}
    return dataclasses.replace(scan, model=request.model, input_shape=tuple(request.input_shape), scores=scores)


def _cells_to_keep(previous: Sensitivity | None, request: ScanRequest) -> dict[str, dict[str, float]]:
    if previous is None:
        return {}
    if previous.fingerprint != request.fingerprint or previous.criterion != request.criterion:
        raise ArtifactError(
            "sensitivity: stale: the earlier scan is of another model, data or settings "
            f"(fingerprint {previous.fingerprint}, now {request.fingerprint}). Delete it, or choose another --out "
            "folder."
        )
    keys = {ratio_key(ratio) for ratio in request.grid}
    return {
        name: {key: metric for key, metric in curve.metric.items() if key in keys}
        for name, curve in previous.curves.items()
    }
