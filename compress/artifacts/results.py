"""The values that stages hand to each other, and that a run leaves behind."""

from dataclasses import dataclass, field

from compress.artifacts.budgeted import BudgetedScan
from compress.artifacts.gallery import Gallery
from compress.artifacts.quant_sensitivity import QuantSensitivity
from compress.artifacts.store import VERSION

VAL = "val"
"""What reports call the validation data, by which epoch, pruning ratios and form of the file are chosen."""


@dataclass(frozen=True)
class Cost:
    """What a model costs. `macs`: multiply-adds (one multiply-add = 1) for one image of `input_shape`."""

    params: int
    macs: int
    size_bytes: int
    input_shape: tuple[int, ...]
    uncounted: tuple[str, ...] = ()
    """Operators with arithmetic that `macs` leaves out (pooling, activations, ...), named once each."""


@dataclass(frozen=True)
class Latency:
    """Wall time of one forward pass in milliseconds: median and the 10th and 90th percentile."""

    median_ms: float
    p10_ms: float
    p90_ms: float
    threads: int
    runs: int
    speedup: float | None = None
    """Baseline's median / this median, of the same interleaved run."""


@dataclass(frozen=True)
class Score:
    """How good a model is. `metric` is higher-is-better, in [0, 1]; `details` holds further named figures."""

    metric: float
    name: str
    count: int
    details: dict[str, float] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    """What of the validation data was not scored (`1 of 20 images skipped`)."""


@dataclass(frozen=True)
class Interval:
    """Where a figure would lie in 95 of 100 samples of as many images (bootstrap over images)."""

    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """One figure of one file on one set of images. Without judgements of single images there are no intervals."""

    value: float
    drop: float
    """The original's value less this one."""
    interval: Interval | None = None
    drop_interval: Interval | None = None
    """Of the drop, both files resampled on the same images; None for the original itself."""


@dataclass(frozen=True)
class SetResult:
    """What every file of a run makes of one set of images."""

    name: str
    """`val`, by which epoch, ratios and form were chosen, or that of a test set, by which nothing was."""
    images: int
    """Judgements that the score counts; a crop that is judged upright and turned counts as two."""
    fingerprint: str
    """Of the images, labels and settings."""
    stages: dict[str, dict[str, Figure]]
    """Stage -> figure -> what it is; `metric` is one of the figures."""
    metric: str
    """Name of the score's own figure; a run without labels validates by agreement, and may have labelled test sets."""
    skipped: tuple[str, ...] = ()
    """What of the set was not scored (`1 of 20 images skipped`)."""


@dataclass(frozen=True)
class Scored:
    """One file's score on one set, kept so that it need not be computed again."""

    fingerprint: str
    """Of the file's content and the set."""
    score: Score
    tallies: dict[str, tuple[tuple[float, ...], ...]]
    """Figure -> what each image adds to its numerator and denominator."""
    version: int = VERSION


@dataclass(frozen=True)
class Curve:
    """One group's sensitivity: the metric at each pruning ratio, others untouched, no retraining."""

    channels: int
    layers: tuple[str, ...]
    macs: int
    metric: dict[str, float]
    """Ratio (as `f"{ratio:g}"`) -> metric of the model with that share of the group removed."""


@dataclass(frozen=True)
class Sensitivity:
    """Metric per channel group and pruning ratio (Li et al. 2016). May be partial while a scan runs."""

    fingerprint: str
    criterion: str
    metric_name: str
    baseline: float
    ratios: tuple[float, ...]
    curves: dict[str, Curve]
    model: str = ""
    """Fingerprint of the scanned model alone; empty in files of earlier versions."""
    input_shape: tuple[int, ...] = ()
    """(C, H, W) that the curves' multiply-adds refer to."""
    code: dict[str, str] = field(default_factory=dict)
    """Module -> hash of what measured the curves."""
    budgeted: BudgetedScan | None = None
    """How surely each cell is known, where a budget of time chose what to measure; curves hold what was measured."""
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Group -> score of each channel, where the criterion looked at images (`obs`); those of weights are not kept."""
    version: int = VERSION


@dataclass(frozen=True)
class ActivationScan:
    """The metric with each activation alone replaced, no retraining. May be partial while a scan runs."""

    fingerprint: str
    original: str
    """What was replaced, as recipes call it (`hardswish`), and by what (`relu`)."""
    replacement: str
    metric_name: str
    baseline: float
    metric: dict[str, float]
    """Name of the value that the activation computes -> metric of the model with it replaced."""
    version: int = VERSION

    def drop(self, name: str) -> float:
        """What replacing this activation alone costs; negative where the metric rose."""
        return self.baseline - self.metric[name]


@dataclass(frozen=True)
class Replaced:
    """What replacing activations came to: which, in the order they are computed, and what to say of it."""

    names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class GroupPlan:
    """What happens to one channel group: `removed` are channel indices of its root layer."""

    channels: int
    layers: tuple[str, ...]
    pruning_ratio_asked: float
    pruning_ratio: float
    removed: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class PruningPlan:
    """The exact channels to remove, per group; stored, never recomputed."""

    fingerprint: str
    criterion: str
    align: int
    target: dict[str, float]
    """How the ratios were chosen: {"ratio": r}, {"metric_drop": t}, {"macs": share} or {"latency": share}."""
    macs_before: int
    macs_after: int
    params_before: int
    params_after: int
    groups: dict[str, GroupPlan]
    notes: tuple[str, ...] = ()
    latency_before: float | None = None
    """Predicted milliseconds of one pass; None where operators were not timed."""
    latency_after: float | None = None
    latency_precision: str = ""
    """`float32` or `int8`: the kernels that were timed."""
    model: str = ""
    """Fingerprint of the model that the plan is for; empty in files of earlier versions."""
    input_shape: tuple[int, ...] = ()
    """(C, H, W) that multiply-adds refer to."""
    version: int = VERSION


@dataclass(frozen=True)
class Candidate:
    """A plan that was tried."""

    origin: str
    """The rule from curves to ratios, and how its curves were changed."""
    macs: int
    latency: float | None
    """Predicted milliseconds; None where operators were not timed."""
    score: float
    """Of the network pruned by it and recovered; higher is better."""


@dataclass(frozen=True)
class Candidates:
    """The plans that a search tried, the scan's own first. May be partial while it runs."""

    fingerprint: str
    measure: str
    """`metric`, `divergence` or `agreement`."""
    recover: str
    images: int
    """Training images that they were recovered on."""
    rows: tuple[Candidate, ...]
    version: int = VERSION


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from the model it came from, on the same images."""

    max_abs: float
    mean_abs: float
    max_abs_optimised: float
    mean_abs_optimised: float
    agreement: float
    """Share of what the network says that the file says, too: images, steps that are not blank, or text pixels
    (optimisation on; see `compress.export.parity.agreement`)."""
    tolerance: float
    """Largest allowed difference of an integer tensor, in steps of its scale."""
    count: int
    max_steps: float = 0.0
    """Largest difference of any integer tensor, each recomputed from the file's own inputs to it; optimisation off."""
    max_steps_optimised: float = 0.0
    max_share: float | None = None
    """Largest share of an integer tensor's values that differ; None where an earlier version did not measure it."""
    max_bias: float | None = None
    """Mean difference of an integer tensor, with its sign, in steps: the one of largest size."""
    max_excess: float | None = None
    """Largest distance of an integer from the network's value before rounding, beyond half a step, in steps."""


@dataclass(frozen=True)
class Region:
    """A run of operators, in the order of the network, that compute in one type, and why."""

    first: str
    last: str
    operators: int
    precision: str
    """`int8` or `float32`."""
    float_ms: float
    """Their own kernels' time in float, each measured alone."""
    int8_ms: float | None
    """The same in integers of those that can; None where none can."""
    reason: str


@dataclass(frozen=True)
class Placement:
    """What runs in integers and what in float (see `compress.quant.min_cut`), and what it was chosen from."""

    fingerprint: str
    optimize: str
    """`latency`, `balanced` or `accuracy`."""
    chosen: str
    """Name of the assignment, one of `tried`."""
    float_values: tuple[str, ...]
    """Values that float operators compute, where integer kernels exist."""
    regions: tuple[Region, ...]
    tried: dict[str, float]
    """Assignment -> median milliseconds of its file, all in one interleaved run; `float32` is the model before."""
    sizes: dict[str, int]
    """Assignment -> bytes of its file."""
    padding: dict[str, int] = field(default_factory=dict)
    """Set of channels -> the width that zeros padded it to (see `compress.graph.padding`)."""
    scores: dict[str, float] = field(default_factory=dict)
    """Of `accuracy`: assignment -> how near its calibrated network is to the float one, of those fast enough."""
    percentile: float | None = None
    """Of |x|, where ranges start; None for the least squared error."""
    ranges: dict[str, float] = field(default_factory=dict)
    """Of `accuracy`: where ranges could start -> how near the network is so, all in integers; empty where that was
    given."""
    resampled: bool = True
    """Whether what is upsampled is computed at low resolution (see `compress.graph.resampling`)."""
    notes: tuple[str, ...] = ()
    threads: int = 1
    """onnxruntime's, when `tried` was timed."""
    machine: dict[str, str] = field(default_factory=dict)
    """What else times hold for: `cpu`, its `flags` and `onnxruntime`'s version."""
    version: int = VERSION


@dataclass(frozen=True)
class Quantized:
    """What exporting an int8 file came to: how far it is from its network, and what was chosen on the way."""

    parity: Parity
    notes: tuple[str, ...] = ()
    placement: Placement | None = None
    sensitivity: QuantSensitivity | None = None
    """What each layer costs in integers, where a budget left some in float."""


@dataclass(frozen=True)
class StageResult:
    """One stage of a run (`baseline`, `pruned`, `finetuned`, `int8`) and everything measured of its file."""

    stage: str
    file: str
    cost: Cost
    score: Score
    latency: Latency | None = None
    parity: Parity | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    images_per_second: float = 0.0
    """While it was trained, without validation; 0 of a stage that trains nothing."""
    peak_memory_bytes: int = 0
    """Most memory that the process had held when the stage was finished; stages before it count."""


@dataclass(frozen=True)
class Gate:
    """One requirement of a recipe, and whether the result meets it."""

    name: str
    required: float
    measured: float
    passed: bool
    on: str = ""
    """The set that it was measured on, where the recipe leaves that open and has test sets."""


@dataclass(frozen=True)
class Machine:
    """Where figures were measured."""

    cpu: str
    flags: tuple[str, ...]
    cores: int
    os: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Report:
    """A whole run: its stages in order, the machine, the gates, and what to know about it."""

    title: str
    command: str
    date: str
    machine: Machine
    stages: tuple[StageResult, ...]
    gates: tuple[Gate, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()
    plan: dict[str, dict[str, float]] = field(default_factory=dict)
    """Group -> {"channels", "kept", "pruning_ratio"}."""
    candidates: Candidates | None = None
    """The plans that were tried; None where none were searched for."""
    placement: Placement | None = None
    """What of the int8 file runs in integers, and why; None where it was not chosen by timing."""
    quant_sensitivity: QuantSensitivity | None = None
    """What each layer costs in integers; None where no budget left some in float."""
    gallery: Gallery | None = None
    """Single images; None where none were requested, or the task shows none."""
    scan: str = ""
    """Fingerprint of the sensitivity scan that belongs to the run; empty where it has none."""
    postprocessing: dict[str, float] = field(default_factory=dict)
    """Setting of what follows the model -> value; empty where nothing can be set."""
    sets: tuple[SetResult, ...] = ()
    """The metric on the validation data, then on each test set; empty in reports of earlier versions."""
    settings: str = ""
    """Fingerprint of the recipe's settings; "" in reports of earlier versions."""
    code: str = ""
    """Hash of the code that the stages were computed by; "" where a stage of an earlier version does not say."""
    version: int = VERSION
