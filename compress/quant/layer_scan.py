"""Which layers hurt in integers, and which of them to leave in float within a budget of multiply-adds.

A layer is measured alone in integers, everything else as the file has it in float: with int8 weights. The other way
round, one layer back in float and everything else in integers, finds the first few layers as well or better, and then
ranks worse: in a network that rounding has damaged, what one layer changes is mostly chance (docs/sensitivity.md).
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, fx

from compress.artifacts import FloatChoice, LayerRounding, QuantSensitivity
from compress.progress import Progress
from compress.quant.calibrate import Observed, calibrate
from compress.quant.int8_layers import QuantLayer
from compress.quant.nodes import module_of
from compress.quant.observer import Observer
from compress.quant.prepare import STORED_BITS, pacts

Prepare = Callable[[Collection[str]], fx.GraphModule]
"""Layers to leave in float -> the network from `prepare_qat`, not calibrated."""
Evaluate = Callable[[fx.GraphModule], float]
"""A network's figure, higher is better."""
Part = Literal["both", "weights", "activations"]
"""What of a layer is rounded beyond what it is in float."""
RULES = {
    "largest drop per multiply-add": 0.0,
    "the same, of layers with at least 1 % of all drops": 0.01,
}
"""How layers are chosen -> least share of the sum of all drops. Layers of hardly any multiply-adds fit into any budget,
also where their drop is chance; but some, like squeeze-and-excite's, let operators without weights run in float."""
NOTHING = "no layer"


@dataclass(frozen=True)
class Calibration:
    """What calibrating a network sets, for every choice of layers that compute in integers.

    Ranges and corrections of biases are those of the float network, whatever else is rounded (but for the gates of
    integer hard-swishes, which round while calibrating, too), so a choice need not be calibrated anew.
    """

    observers: Mapping[str, Observer]
    """Name of a quantiser -> what its tensor was; not of those whose range is fixed."""
    ranges: Mapping[str, tuple[float | None, Tensor]]
    """Name of a quantiser -> its lower end, as `PACT` has it, and its threshold."""
    biases: Mapping[tuple[str, int], Tensor]
    """(layer, bits of its weights) -> its bias [O], corrected."""

    def covers(self, prepared: fx.GraphModule) -> bool:
        """Whether it holds all that a network needs; not where a tensor is quantised behind what only moves values,
        which is done in front of it where that runs in integers, too."""
        known = all(name in self.ranges for name, _ in pacts(prepared))
        return known and all(
            (name, layer.bit_width) in self.biases for name, layer in _quant_layers(prepared) if layer.bias is not None
        )

    def with_those_of(self, calibrated: fx.GraphModule, observed: Observed) -> "Calibration":
        """The same and what a calibrated network has beside it."""
        more = _read(calibrated, observed)
        return Calibration(
            {**more.observers, **self.observers}, {**more.ranges, **self.ranges}, {**more.biases, **self.biases}
        )

    def at(self, percentile: float | None) -> "Calibration":
        """The same observations with other ranges: at a percentile of |x|, or None for the least squared error."""
        found = {name: seen.best_range(percentile) for name, seen in self.observers.items()}
        chosen = {name: (lower, torch.tensor(alpha)) for name, (lower, alpha) in found.items()}
        return Calibration(self.observers, {**self.ranges, **chosen}, self.biases)

    def apply(self, prepared: fx.GraphModule) -> None:
        """Set ranges and biases of a network from the same `Prepare`."""
        for name, pact in pacts(prepared):
            pact.set_range(*self.ranges[name])
        for name, layer in _quant_layers(prepared):
            if layer.bias is not None:
                layer.bias.data.copy_(self.biases[name, layer.bit_width])


def read_calibration(
    prepare: Prepare,
    batches: Callable[[], Iterable[np.ndarray]],
    *,
    percentile: float | None = None,
    total: int = 0,
    on_progress: Progress | None = None,
) -> Calibration:
    """Calibrate two networks, all that can in integers and none: between them they have every tensor and every width.

    Args:
        prepare: makes the networks.
        batches: images float32 [N, C, H, W], the same ones in each call.
        percentile: see `calibrate`; so is the rest.

    Raises:
        DataError: there are no images.
        ModelError: the network computes NaN or infinity on them.
    """
    whole = prepare(())
    found = Calibration({}, {}, {})
    for module in (prepare(integer_layers(whole)), whole):
        observed = calibrate(module, batches(), percentile=percentile, total=total, on_progress=on_progress)
        found = found.with_those_of(module, observed)
    return found


def _read(calibrated: fx.GraphModule, observed: Observed) -> Calibration:
    """What calibrating a network has set."""
    return Calibration(
        observed.observers,
        {name: (pact.lower, pact.alpha.detach().clone()) for name, pact in pacts(calibrated)},
        {
            (name, layer.bit_width): layer.bias.detach().clone()
            for name, layer in _quant_layers(calibrated)
            if layer.bias is not None
        },
    )


@dataclass(frozen=True)
class Networks:
    """The calibrated networks of a scan."""

    prepare: Prepare
    calibration: Calibration
    layers: tuple[str, ...]
    """That may be left in float, in the order they run (see `integer_layers`)."""

    def without(self, float_layers: Collection[str]) -> fx.GraphModule:
        """In integers but for these layers."""
        made = self.prepare(tuple(float_layers))
        self.calibration.apply(made)
        return made

    def alone(self, name: str, part: Part = "both") -> fx.GraphModule:
        """In float but for one layer, or one part of what is rounded in it.

        Weights have 8 bits in float, too, so of those the part is what `weight_bits: 7` takes away.
        """
        made = self.prepare(tuple(other for other in self.layers if other != name))
        for each, layer in _quant_layers(made):
            if each != name or part == "activations":
                layer.bit_width = STORED_BITS  # also of layers that read what this one computes
        self.calibration.apply(made)
        if part == "weights":
            for _, pact in pacts(made):
                pact.enabled = False
        return made


def scan_layers(
    scan: QuantSensitivity,
    networks: Networks,
    macs: Mapping[str, int],
    evaluate: Evaluate,
    *,
    parts: bool = False,
    on_cell: Callable[[QuantSensitivity], None] | None = None,
    on_progress: Progress | None = None,
) -> QuantSensitivity:
    """Measure each layer alone in integers; what `scan` holds is not measured again.

    Args:
        scan: what was measured before, maybe no layer.
        networks: of the same model, data and settings.
        macs: layer -> its multiply-adds.
        evaluate: gives the scan's figure.
        parts: also measure weights and activations alone.
        on_cell: called with the scan so far after each layer; the caller stores it.
        on_progress: called as (layers done, layers, message).
    """
    for done, name in enumerate(networks.layers, 1):
        known = scan.layers.get(name)
        if known is not None and (known.weights is not None or not parts):
            continue
        found = known or LayerRounding(macs[name], evaluate(networks.alone(name)))
        if parts:
            found = dataclasses.replace(
                found,
                weights=evaluate(networks.alone(name, "weights")),
                activations=evaluate(networks.alone(name, "activations")),
            )
        scan = dataclasses.replace(scan, layers={**scan.layers, name: found})
        if on_cell is not None:
            on_cell(scan)
        if on_progress is not None:
            on_progress(done, len(networks.layers), f"{name}: {scan.metric_name} {found.metric:.4f}")
    return scan


def choose_float(
    drops: Mapping[str, float], macs: Mapping[str, int], most: float, least: float = 0.0
) -> tuple[str, ...]:
    """The layers to leave in float: largest drop per multiply-add first, as many as fit (the knapsack by ratio).

    Args:
        drops: layer -> what it alone in integers costs.
        macs: layer -> its multiply-adds.
        most: multiply-adds that may stay in float.
        least: a drop that is not above this is left alone.

    Returns:
        In the order of `drops`.

    >>> drops, macs = {"wide": 0.3, "narrow": 0.2, "tiny": 0.001}, {"wide": 60, "narrow": 20, "tiny": 1}
    >>> choose_float(drops, macs, most=70)  # 0.01, 0.005 and 0.001 for each; the second does not fit
    ('narrow', 'tiny')
    """
    chosen, used = set(), 0
    worth = [name for name, drop in drops.items() if drop > least]
    for name in sorted(worth, key=lambda name: -drops[name] / max(1, macs[name])):
        if used + macs[name] <= most:
            chosen.add(name)
            used += macs[name]
    return tuple(name for name in drops if name in chosen)


def spend_budget(scan: QuantSensitivity, budget: float, networks: Networks, evaluate: Evaluate) -> QuantSensitivity:
    """Try what each rule leaves in float within a budget, and nothing: drops of layers do not add up exactly.

    Args:
        scan: of all layers of these networks.
        budget: share of the network's multiply-adds that may stay in float.
        networks: of the scan.
        evaluate: gives the scan's figure.

    Returns:
        The scan with its `choices`; the first of the best score is its `chosen`.
    """
    drops = {name: scan.drop(name) for name in networks.layers}
    macs = {name: layer.macs for name, layer in scan.layers.items()}
    dear = sum(max(0.0, drop) for drop in drops.values())
    tried: dict[tuple[str, ...], FloatChoice] = {(): FloatChoice(NOTHING, (), 0, scan.integer)}
    for origin, share in RULES.items():
        layers = choose_float(drops, macs, budget * scan.macs, share * dear)
        if layers not in tried:
            score = evaluate(networks.without(layers))
            tried[layers] = FloatChoice(origin, layers, sum(macs[name] for name in layers), score)
    return dataclasses.replace(scan, float_budget=budget, choices=tuple(tried.values()))


def integer_layers(prepared: fx.GraphModule) -> tuple[str, ...]:
    """Names of the layers with weights that a prepared network computes in integers, in the order they run."""
    return tuple(
        str(node.target)
        for node in prepared.graph.nodes
        if node.meta.get("integer") and isinstance(module_of(prepared, node), QuantLayer)
    )


def _quant_layers(prepared: fx.GraphModule) -> Iterator[tuple[str, QuantLayer]]:
    return ((name, layer) for name, layer in prepared.named_modules() if isinstance(layer, QuantLayer))
