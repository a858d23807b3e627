"""The keys of a recipe, their types, limits, defaults and meaning; docs/recipes.md is written from here."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from compress.compute.names import Precision
from compress.recipe.reconstruct_step import ReconstructStep
from compress.recipe.replace_step import ReplaceStep
from compress.recipe.search_settings import SearchSettings
from compress.recipe.task_settings import TaskSettings
from compress.recipe.values import (
    ByName,
    Device,
    Duration,
    Flag,
    Float,
    Int,
    Names,
    NotNegative,
    NotNegativeFloat,
    Paths,
    PathsByName,
    Positive,
    PositiveFloat,
    PruningRatio,
    Share,
    Side,
    Step,
    Text,
    Threads,
)
from compress.recipe.values import Settings as _Settings
from compress.recipe.values import one_or_many as _one_or_many
from compress.recipe.values import problem as _problem
from compress.recipe.values import rule as _rule

Criterion = Literal["fpgm", "l1", "l2", "obs"]
S = TypeVar("S", bound="Step")


def _check_align(value: int) -> bool:
    return value in (1, 2, 4) or (value > 0 and value % 8 == 0)


class SensitivityStep(Step):
    """Measure how much the metric drops when one group of channels is pruned, others untouched."""

    name: ClassVar[str] = "sensitivity"
    criterion: Criterion = Field(
        "fpgm",
        description="how channels are ranked: by their filters (`fpgm`, `l1`, `l2`), or by what the layers that read "
        "them cannot make up for without them, on training images, no label looked at (`obs`, optimal brain surgeon)",
    )
    ratios: Annotated[
        tuple[PruningRatio, ...],
        BeforeValidator(_one_or_many, json_schema_input_type=PruningRatio | tuple[PruningRatio, ...]),
        _rule(lambda v: len(v) > 0 and list(v) == sorted(set(v)), "Must be rising, each ratio once."),
    ] = Field((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), description="shares of each group to try")
    images: Positive | None = Field(
        None, description="score each cell on this many images; default all validation images (see `measure`)"
    )
    side: Side | None = Field(
        None, description="for detection: score each cell at this smaller side, which is quicker; default `task.side`"
    )
    measure: Literal["metric", "divergence", "agreement"] = Field(
        "metric",
        description="figure of a cell: the `metric` on validation images; or on a few training images (`images`; "
        "default 64 for classification, 48 for recognition, 8 for detection), whose labels are not looked at: "
        "`divergence`, exp(-distance of the outputs from the original's), or `agreement`, the metric with the "
        "original's answers for labels",
    )
    budget: Duration | None = Field(
        None,
        description="time to spend, as `5m`, `90s`, `1h` or seconds: instead of every cell on every validation image, "
        "those cells are measured, on as many images, that decide what a plan takes; default no limit",
    )
    recover: Literal["none", "reconstruct"] = Field(
        "none",
        description="`reconstruct`: the layers that read a pruned group compensate for it by least squares before its "
        "cell is scored, on training images without labels; for plans that a `reconstruct` step follows",
    )

    @property
    def sees_training_images(self) -> bool:
        """Whether cells or channels are scored on training images, whose labels are not looked at."""
        return self.measure != "metric" or self.criterion == "obs" or self.recover == "reconstruct"


class PruneTarget(_Settings):
    """How much is removed: `ratio` alone, or one or several of the others, which are all met."""

    ratio: PruningRatio | None = Field(None, description="the same share of every group")
    metric_drop: NotNegativeFloat | None = Field(
        None, description="per group the largest ratio whose metric drop alone stays within this"
    )
    macs: Share | None = Field(None, description="per group by sensitivity, so that this share of the MACs is left")
    params: Share | None = Field(None, description="the same of the parameters, which decide the size of the file")
    latency: Share | None = Field(
        None,
        description="per group by sensitivity, so that this share of the time is left, as predicted from the times of "
        "its operators on this machine",
    )

    @model_validator(mode="after")
    def _which(self) -> Self:
        given = self.as_dict()
        if not given or ("ratio" in given and len(given) > 1):
            raise _problem(
                "Must hold ratio alone, or one or several of metric_drop, macs, params, latency. Use e.g. {macs: 0.6}."
            )
        return self

    def as_dict(self) -> dict[str, float]:
        """The targets as plain data.

        >>> PruneTarget(macs=0.6).as_dict()
        {'macs': 0.6}
        """
        return {key: value for key, value in self.model_dump().items() if value is not None}


class PruneStep(Step):
    """Remove whole channels; what is left is an ordinary smaller network."""

    name: ClassVar[str] = "prune"
    target: PruneTarget = Field(
        description="how much to remove: the keys below; several are all met, and the one that binds is named"
    )
    align: Annotated[Int, _rule(_check_align, "Must be 1, 2, 4 or a multiple of 8. Use 8 or 16.")] = Field(
        8, description="keep channel counts at multiples of this (16 is fastest in int8); 1 for no alignment"
    )
    criterion: Criterion | None = Field(
        None, description="as for `sensitivity`; default that of the recipe's `sensitivity`, else `fpgm`"
    )
    allocation: Literal["price", "threshold", "product", "spare"] = Field(
        "price",
        description="with `macs` or `latency` and a scan: `price` spends the least metric for what is saved, drops of "
        "groups added; `product` the same, shares of the metric that groups leave multiplied, for large drops; "
        "`threshold` lets every group drop as much, as PaddleSlim does; `spare` is `price` that spares groups which "
        "would lose most of the metric alone, for small shares",
    )
    pessimistic: Flag = Field(
        False,
        description="plan by the upper end of each drop's interval; needs a scan with a `budget`, which alone has them",
    )
    precision: Literal["float32", "int8", "mixed"] | None = Field(
        None,
        description="kernels whose times predict the latency; `mixed`: of each operator the faster ones; default what "
        "the recipe's `quantize` step will use, `float32` if it has none",
    )
    search: SearchSettings | None = Field(
        None, description="try several plans at the `macs` or `latency` target, and keep the best; default no"
    )
    protect: Names = Field((), description="layers never to prune, beside the outputs; `*` matches any text")
    recurrent: Flag = Field(True, description="prune the hidden units of LSTM and GRU layers as well")
    layer_norms: Flag = Field(
        False,
        description="prune channels that LayerNorms normalise as well (a transformer's width): their mean and variance "
        "are then those of the channels that are left, which is not the same as silencing the others",
    )


class _TrainStep(Step):
    """What fine-tuning and quantisation-aware training have in common."""

    epochs: NotNegative = Field(0, description="passes over the training data")
    lr: PositiveFloat = Field(1e-3, description="highest learning rate")
    batch_size: Positive = Field(64, description="images per training step")
    optimizer: Literal["adam", "sgd"] = Field("adam", description="`adam` or `sgd`")
    momentum: Annotated[Float, _rule(lambda v: 0 <= v < 1, "Must be in [0, 1). Use e.g. 0.9.")] = Field(
        0.9, description="for `sgd`"
    )
    weight_decay: NotNegativeFloat = Field(0.0, description="L2 on the weights")
    warmup_epochs: NotNegativeFloat = Field(0.0, description="epochs over which the rate rises to `lr`")
    average: NotNegative = Field(
        0, description="score and keep weights averaged over about this many training steps; 0 for none"
    )
    distill: NotNegativeFloat = Field(
        1.0, description="weight of the loss that keeps the outputs near the original model's; 0 for none"
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if 0 < self.epochs <= self.warmup_epochs:
            raise _problem(
                f"warmup_epochs is {self.warmup_epochs:g} of {self.epochs} epoch{'s' if self.epochs > 1 else ''}. "
                "Must be fewer than epochs. Use 0."
            )
        return self


class FinetuneStep(_TrainStep):
    """Train the pruned network back to its metric; cosine rate, the best epoch on the validation data is kept."""

    name: ClassVar[str] = "finetune"
    epochs: Positive = Field(10, description="passes over the training data")
    lr: PositiveFloat = Field(1e-3, description="highest learning rate")
    freeze_bn: Flag = Field(False, description="keep BatchNorm's running statistics as they are")
    precision: Precision = Field(
        "float32",
        description="of the layers in the forward pass: `bf16` or `fp16` (CUDA alone) for mixed precision; weights and "
        "losses stay in `float32`",
    )
    features: NotNegativeFloat = Field(
        0.0, description="weight of the loss that keeps the layers inside near the teacher's; 0 for none"
    )
    mutual: NotNegativeFloat = Field(
        0.0,
        description="train two students that learn from each other, and keep the better one: weight of the distance "
        "between their outputs; 0 for one student",
    )


class TeacherStep(_TrainStep):
    """Fine-tune the original model first: a teacher that knows the data, and a row for what that alone gains."""

    name: ClassVar[str] = "teacher"
    epochs: Positive = Field(4, description="passes over the training data")
    lr: PositiveFloat = Field(1e-3, description="highest learning rate")
    freeze_bn: Flag = Field(False, description="keep BatchNorm's running statistics as they are")
    precision: Precision = Field(
        "float32",
        description="of the layers in the forward pass: `bf16` or `fp16` (CUDA alone) for mixed precision; weights and "
        "losses stay in `float32`",
    )

    def as_finetune(self) -> FinetuneStep:
        """The same settings for the training loop."""
        return FinetuneStep(**self.model_dump())


class PactSettings(_Settings):
    """Learned activation ranges: y = clip(x, -alpha, alpha), alpha is trained and is the range at export."""

    enabled: Flag = Field(True, description="learn the ranges; `false` keeps the calibrated ones")
    l2: NotNegativeFloat = Field(0.001, description="L2 on alpha")
    lr_multiplier: PositiveFloat = Field(1.0, description="learning rate of alpha over that of the weights")
    percentile: Annotated[Float, _rule(lambda v: 50 < v <= 100, "Must be in (50, 100]. Use e.g. 99.99.")] | None = (
        Field(
            None,
            description="start alpha at this percentile of |x|; default the one of least squared error, or what "
            "`optimize: accuracy` finds best",
        )
    )
    asymmetric_hardswish: Flag = Field(
        True, description="use the range [-0.375, alpha] after hard-swish; `false`: as `symmetric` says"
    )
    symmetric: Flag = Field(
        False,
        description="use the range [-alpha, alpha] where how a tensor is computed does not bound it below; `false` "
        "takes the lower end from calibration, and leaves out what its readers cannot tell apart (hard-swish: below "
        "-3)",
    )


class QuantizeStep(_TrainStep):
    """Make an int8 model: calibrate the ranges, train with them (PACT), export and check the file."""

    name: ClassVar[str] = "quantize"
    epochs: NotNegative = Field(5, description="epochs of quantisation-aware training; 0 for calibration only")
    lr: PositiveFloat = Field(1e-4, description="highest learning rate")
    calibration: Positive = Field(256, description="training images that the ranges start from")
    pact: PactSettings = Field(default_factory=PactSettings, description="how ranges are learned; keys below")
    float_layers: Names = Field((), description="layers to leave in float; `*` matches any text")
    float_budget: Share | None = Field(
        None,
        description="share of the network's multiply-adds, as 0.05, that may stay in float beside `float_layers`: the "
        "layers that cost most in integers for each multiply-add, each measured alone on unlabelled training images",
    )
    recurrent: Literal["auto", "float", "weights", "dynamic"] = Field(
        "auto",
        description="LSTM and GRU layers in the file: `float`; `weights`: int8 weights, computed in float; `dynamic`: "
        "LSTM in integers; `auto`: the smallest file that scores as well as the best",
    )
    optimize: Literal["latency", "balanced", "accuracy", "size"] = Field(
        "accuracy",
        description="what of the network runs in integers: `latency`: what is fastest so on this machine, measured; "
        "`accuracy`: of those at most 15 % slower the one that is nearest to the float network when calibrated, with "
        "ranges from where it is nearest, too; `balanced`: the smallest file of those nearly as fast; `size`: all that "
        "can, without measuring",
    )
    weight_bits: Literal[7, 8] = Field(
        7, description="7 computes the same on every CPU; 8 is finer, but saturates on x86 CPUs without VNNI"
    )


def _step_name(value: Any) -> str | None:
    """The key of `{prune: {...}}`, which says what kind of step it is."""
    if isinstance(value, Step):
        return value.name
    return str(next(iter(value))) if isinstance(value, dict) and len(value) == 1 else None


def _step_settings(value: Any) -> Any:
    """What stands under that key; nothing (`- quantize:`) is all defaults."""
    if isinstance(value, Step):
        return value
    settings = next(iter(value.values()))
    return {} if settings is None else settings


AnyStep = Annotated[
    Annotated[TeacherStep, BeforeValidator(_step_settings), Tag("teacher")]
    | Annotated[SensitivityStep, BeforeValidator(_step_settings), Tag("sensitivity")]
    | Annotated[ReplaceStep, BeforeValidator(_step_settings), Tag("replace")]
    | Annotated[PruneStep, BeforeValidator(_step_settings), Tag("prune")]
    | Annotated[ReconstructStep, BeforeValidator(_step_settings), Tag("reconstruct")]
    | Annotated[FinetuneStep, BeforeValidator(_step_settings), Tag("finetune")]
    | Annotated[QuantizeStep, BeforeValidator(_step_settings), Tag("quantize")],
    Discriminator(_step_name),
]
STEPS: dict[str, type[Step]] = {
    kind.name: kind
    for kind in (
        TeacherStep,
        SensitivityStep,
        ReplaceStep,
        PruneStep,
        ReconstructStep,
        FinetuneStep,
        QuantizeStep,
    )
}
"""The steps by name, in the order they must come in."""


class DataSettings(_Settings):
    """Label lists in PaddleOCR's form, `path<TAB>label`, LMDB or ICDAR folders, or tar archives of crops.

    Archives are tar files of crops: `shards/train-{000..099}.tar`, `shards/*.tar`, or their folder."""

    train: Paths = Field((), description="label list or lists to train and calibrate with")
    val: Paths = Field(
        (),
        description="label list or lists that choose the epoch, the pruning ratios and the form of the file; without "
        "`test` the gates look at them, too; required without `images`",
    )
    test: PathsByName = Field(
        default_factory=dict,
        description="label lists that nothing is chosen by, which judge the result: `name: list` of each set, or one "
        "list, whose set is called `test`",
    )
    images: Paths = Field(
        (),
        description="instead of `train` and `val`: folders of images without labels, which the original model labels; "
        "the metric is agreement with it on images that are held back",
    )
    held_back: Annotated[Float, _rule(lambda v: 0 < v < 1, "Must be a share in (0, 1). Use e.g. 0.2.")] = Field(
        0.2, description="with `images`: share of them that is not trained on and measures the metric, at least one"
    )
    unlabelled: Paths = Field(
        (),
        description="folders of images, or label lists, of any other kind, whose labels are not looked at: training "
        "keeps what the original model says of them, beside what it learns from `train`",
    )
    max_skipped: Annotated[Float, _rule(lambda v: 0 <= v <= 1, "Must be a share in [0, 1]. Use e.g. 0.01.")] = Field(
        0.01,
        description="largest share of a list's images, and of its regions, that may be skipped as they are missing or "
        "cannot be used",
    )
    root: Path | None = Field(
        None, description="folder that paths in label lists may lead into; default each list's own folder alone"
    )
    allow_overlap: Flag = Field(
        False,
        description="let `val` share images with `train` or `unlabelled`, and test sets with any of these three, which "
        "is an error otherwise; a warning counts them",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        lists = [key for key in ("train", "val") if getattr(self, key)]
        if self.images and lists:
            raise _problem(f"got images and {' and '.join(lists)}. Must hold images, or train and val. Remove one.")
        if not self.images and not self.val:
            raise _problem("val is missing. Name a label list, or `images`: a folder of images without labels.")
        return self


class CompareSettings(_Settings):
    """What the report measures beside the run's own files."""

    onnxruntime: Flag = Field(False, description="also make onnxruntime's own int8 of the original, and measure it")
    threads: Threads = Field(1, description="threads for latency; 1 is comparable between machines")
    rounds: Positive = Field(50, description="timed rounds; each round times every file once")
    images: NotNegative = Field(
        8, description="pictures in the report: the worst cases of the last file beside the original; 0 for none"
    )


class GateSettings(_Settings):
    """Requirements on the last file of a run; any one missed: exit code 1, all of them listed."""

    metric_drop: ByName[NotNegativeFloat] | None = Field(
        None,
        description="largest loss of metric against the original; a number holds for every test set, or for the "
        "validation data where there are none; `{name: number}` for those sets, the validation data's name is `val`",
    )
    metric_min: ByName[Share] | None = Field(None, description="smallest metric; a number or by name, as metric_drop")
    worst_set: ByName[NotNegativeFloat] | None = Field(
        None,
        description="largest loss on any test set; `{exact: number, alnum: number}` for single figures, which are "
        "`exact` and `alnum`, `accuracy`, or `hmean`",
    )
    size_ratio: PositiveFloat | None = Field(None, description="largest file size over the original's")
    size_bytes_max: Positive | None = Field(None, description="largest file size in bytes")
    macs_ratio: Share | None = Field(None, description="largest MACs over the original's")
    speedup: PositiveFloat | None = Field(None, description="smallest speed over the original file's")
    speedup_over_onnxruntime: PositiveFloat | None = Field(
        None, description="smallest speed over onnxruntime's own int8; needs `compare.onnxruntime: true`"
    )

    def as_dict(self) -> dict[str, float]:
        """The gates that are set, as plain data.

        >>> GateSettings(metric_drop={"receipts": 0.005}, worst_set=0.01, speedup=2.0).as_dict()
        {'metric_drop.receipts': 0.005, 'worst_set': 0.01, 'speedup': 2.0}
        """
        limits = {key: value for key, value in self.model_dump().items() if value is not None}
        return {
            f"{key}.{name}" if name else key: limit
            for key, value in limits.items()
            for name, limit in (value.items() if isinstance(value, dict) else [("", value)])
        }


class Recipe(_Settings):
    """A whole recipe. A value: equal recipes are equal, and nobody changes one."""

    version: Literal[1] = Field(description="of the recipe's form; 1")
    name: Text = Field("", description="title of the report; default the file's name")
    model: Text = Field(description="an ONNX file, or `package.module:factory` for a PyTorch module")
    weights: Path | None = Field(None, description="with a factory: its weights, .safetensors or .pt")
    task: TaskSettings = Field(description="what the model does; keys below")
    data: DataSettings = Field(description="images and labels; keys below")
    out: Path = Field(Path("runs"), description="folder for all results; default `runs/<name>` where you are")
    seed: NotNegative = Field(0, description="of everything random")
    threads: Threads | None = Field(
        None, description="threads for training and scoring; default `OMP_NUM_THREADS`, else every core"
    )
    device: Device = Field(
        "auto",
        description="what trains, reconstructs and calibrates: `cpu`, `cuda`, `cuda:N` (GPU number N), `mps`; `auto`: "
        "a CUDA GPU if there is one, else the CPU",
    )
    workers: NotNegative = Field(
        0,
        description="processes that make training batches, the same ones whatever their number; 0 for a thread; worth "
        "it where cores are idle and images are decoded and augmented slower than the network learns",
    )
    steps: Annotated[
        tuple[AnyStep, ...],
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
        _rule(lambda v: len(v) > 0, "Must hold at least one step. Use e.g. [{quantize: {epochs: 0}}]."),
    ] = Field(
        description="what to do, in order: `teacher`, `sensitivity`, `replace`, `prune`, `reconstruct`, "
        "`finetune`, `quantize`, each at most once"
    )
    compare: CompareSettings = Field(default_factory=CompareSettings, description="further figures; keys below")
    gates: GateSettings = Field(default_factory=GateSettings, description="requirements; keys below")

    def find_step(self, kind: type[S]) -> S | None:
        """The recipe's step of this kind, or None."""
        return next((step for step in self.steps if isinstance(step, kind)), None)

    @property
    def trains(self) -> bool:
        """Whether a step trains."""
        return any(getattr(step, "epochs", 0) > 0 for step in self.steps)
