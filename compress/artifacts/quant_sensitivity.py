"""What rounding single layers to integers costs, and which of them a budget leaves in float."""

from dataclasses import dataclass, field

from compress.artifacts.store import VERSION


@dataclass(frozen=True)
class LayerRounding:
    """One layer alone in integers, everything else in float."""

    macs: int
    """Multiply-adds for one image of the scan's `input_shape`."""
    metric: float
    weights: float | None = None
    """The same with this layer's activations left in float: its weights alone have fewer bits. None: not measured."""
    activations: float | None = None
    """The same with this layer's weights left as float layers have them: its activations alone are rounded."""


@dataclass(frozen=True)
class FloatChoice:
    """Layers to leave in float that were tried."""

    origin: str
    """The rule that chose them."""
    layers: tuple[str, ...]
    macs: int
    score: float
    """Of the network with these layers in float and all others in integers."""


@dataclass(frozen=True)
class QuantSensitivity:
    """The figure of a network with each layer alone in integers, calibrated, not trained. May be partial."""

    fingerprint: str
    metric_name: str
    """`metric_name` of the task, `divergence` or `agreement` (see `compress.pipeline.scanning.measures`)."""
    weight_bits: int
    baseline: float
    """Of the network in float, its weights stored as int8."""
    integer: float
    """Of the network in integers wherever it can be."""
    macs: int
    """Multiply-adds of the whole network."""
    input_shape: tuple[int, ...]
    """(C, H, W) that multiply-adds refer to."""
    layers: dict[str, LayerRounding]
    """Layer of the lowered network -> its figures, in the order they run."""
    float_budget: float | None = None
    """Share of `macs` that may stay in float, where some was asked for."""
    choices: tuple[FloatChoice, ...] = field(default=())
    """What was tried within the budget; the first one of the best score was taken."""
    version: int = VERSION

    def drop(self, name: str) -> float:
        """What computing this layer alone in integers costs; negative where the figure rose."""
        return self.baseline - self.layers[name].metric

    @property
    def chosen(self) -> FloatChoice | None:
        """The best choice that was tried."""
        return max(self.choices, key=lambda choice: choice.score, default=None)
