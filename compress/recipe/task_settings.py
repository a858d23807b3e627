"""The keys of a recipe's task: what the model does, how it is fed and read, and how it is scored."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from compress.data.processing import (
    DEFAULT_PRESET,
    OUTPUT_KEYS,
    PRESETS,
    Processing,
    check_channels,
    find_preset,
    make_processing,
    without_side,
)
from compress.errors import DataError
from compress.progress import them
from compress.recipe.values import (
    Flag,
    Float,
    Names,
    NotNegative,
    Positive,
    Settings,
    Side,
    one_or_many,
    problem,
    rule,
)

INPUTS = {kind: preset.input for kind, preset in PRESETS[DEFAULT_PRESET].items()}
"""(C, H, W) that PP-OCR v2's models are fed; detectors take any size."""
CHANNELS = 3
"""Of images in color."""
PROCESSING = ("preset", "preprocess", "outputs")
"""What every kind of task takes of how its model is fed and read."""
KEYS_OF = {
    "classification": (*PROCESSING, "directions", "labels"),
    "recognition": (*PROCESSING, "layout", "blank", "lowercase", "charset", "use_space", "widths", "decouple"),
    "detection": (
        *PROCESSING,
        "side",
        "crop",
        "augment",
        "dilate_teacher",
        "processes",
        "threshold",
        "box_threshold",
        "unclip_ratio",
        "max_candidates",
    ),
}


FIGURES_OF = {"classification": ("accuracy",), "recognition": ("exact", "alnum"), "detection": ("hmean",)}
"""What each kind's score says of every image, so that it has an interval; the metric first."""


PerChannel = Annotated[
    tuple[Float, ...], BeforeValidator(one_or_many, json_schema_input_type=Float | tuple[Float, ...])
]


class PreprocessSettings(Settings):
    """How an image becomes the model's input; what is not given is the preset's. A pixel p becomes
    (p / 255 - mean) / std."""

    color: Literal["bgr", "rgb", "gray"] | None = Field(None, description="order of the channels: `bgr`, `rgb`, `gray`")
    mean: PerChannel | None = Field(
        None, description="of each channel in the model's order, or one for all, of values in [0, 1]"
    )
    std: PerChannel | None = Field(None, description="of each channel, or one for all")
    resize: Literal["limit", "pad", "stretch"] | None = Field(
        None,
        description="`pad`: keep the ratio and pad to the input's size; `stretch` to it; for detection also `limit`: "
        "the longest side at most `side`, sizes of their own",
    )
    interpolation: Literal["linear", "cubic", "area", "nearest"] | None = Field(
        None, description="`linear`, `cubic`, `area` or `nearest`"
    )
    pad_side: Literal["right", "left", "center"] | None = Field(
        None, description="where the padding goes: `right` (of scenes: right and below), `left`, or `center`: both"
    )
    pad_value: Literal["mean", "edge"] | Float | None = Field(
        None,
        description="`mean`: 0 after normalisation; a gray from 0 to 255; for crops also `edge`: the last column",
    )


class TaskSettings(Settings):
    """What the model does, and how images are fed to it."""

    kind: Literal["classification", "recognition", "detection"] = Field(
        description="`classification`, `recognition` or `detection`"
    )
    input: Annotated[
        tuple[Positive, ...] | None,
        BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v),
        rule(lambda v: v is None or len(v) == 3, "Must be [channels, height, width]. Use e.g. [3, 48, 192]."),
    ] = Field(
        None,
        description="channels, height and width that the model is fed, and measured with; default the preset's, for "
        "ppocr [3, 48, 192] for classification, [3, 32, 320] for recognition, [3, 640, 640] for detection",
    )
    preset: Literal["ppocr", "doctr", "easyocr", "mmocr"] = Field(
        DEFAULT_PRESET,
        description="whose conventions the model follows: `ppocr`, `doctr`, `easyocr` or `mmocr` (docs/presets.md); "
        "the keys of `preprocess`, `outputs`, `layout`, `blank`, `lowercase`, `input` and `use_space` override it",
    )
    preprocess: PreprocessSettings = Field(
        default_factory=PreprocessSettings, description="how an image becomes the model's input; keys below"
    )
    outputs: Literal["probabilities", "logits", "log_probabilities"] | None = Field(
        None,
        description="what the model returns: `probabilities`, `logits` (before softmax or sigmoid) or "
        "`log_probabilities`; default the preset's",
    )
    layout: Literal["ntk", "tnk"] | None = Field(
        None, description="for recognition: the output's dimensions, `ntk` (images, steps, classes) or `tnk`"
    )
    blank: Literal["first", "last"] | NotNegative | None = Field(
        None, description="for recognition: CTC's blank, `first`, `last` or the number of its class"
    )
    lowercase: Flag | None = Field(
        None, description="for recognition: labels are lowercased, as the charset holds small letters alone"
    )
    directions: Flag | None = Field(
        None,
        description="`true`: the lists name upright crops, feed each as it is and turned by 180 degrees; `false`: the "
        "lists hold the labels; default by what they hold",
    )
    labels: Names = Field(("0", "180"), description="class names in the order of the model's outputs")
    charset: Path | None = Field(
        None, description="for recognition, required there: the file of the model's characters, one a line"
    )
    use_space: Flag = Field(
        True, description="for recognition: a space follows the charset's characters; default `true` for ppocr alone"
    )
    widths: Annotated[
        tuple[Positive, ...],
        BeforeValidator(one_or_many, json_schema_input_type=Positive | tuple[Positive, ...]),
        rule(lambda v: list(v) == sorted(set(v)), "Must be rising, each width once. Use e.g. [160, 320]."),
    ] = Field(
        (),
        description="for recognition: pad each crop to the smallest of these that holds it; the last may be wider than "
        "the input, for lines; default the input's",
    )
    decouple: Annotated[Float, rule(lambda v: 0 <= v <= 1, "Must be in [0, 1]. Use e.g. 0.1.")] = Field(
        0.0,
        description="for recognition: in distillation, the least weight of the teacher's characters at each step, also "
        "where it says blank; 0 is plain KL",
    )
    side: Side = Field(1280, description="for detection: images are scored with their longest side at most this")
    crop: Annotated[
        Positive | None, rule(lambda v: v is None or v % 32 == 0, "Must be a multiple of 32. Use e.g. 320 or 640.")
    ] = Field(None, description="for detection: side of the square crops that are trained on; default the input's size")
    augment: Literal["strong", "mild", "none"] = Field(
        "strong",
        description="for detection: how far training crops are turned, scaled and mirrored; `mild` for a trained model "
        "and images like those that it will read, `none` leaves them as they are",
    )
    dilate_teacher: Flag = Field(
        False, description="for detection: learn from the teacher's map widened by a pixel, as PP-OCRv2's CML does"
    )
    processes: NotNegative = Field(
        0,
        description="for detection: processes that turn maps into boxes while the network runs on the next image; "
        "worth it where cores are idle",
    )
    threshold: Annotated[Float, rule(lambda v: 0 < v < 1, "Must be in (0, 1). Use e.g. 0.3.")] = Field(
        0.3, description="for detection: a pixel is text above this probability, in scoring and in the training loss"
    )
    box_threshold: Annotated[Float, rule(lambda v: 0 <= v <= 1, "Must be in [0, 1]. Use e.g. 0.6.")] = Field(
        0.6, description="for detection: a box is kept from this mean probability on"
    )
    unclip_ratio: Annotated[Float, rule(lambda v: 0 < v <= 10, "Must be in (0, 10]. Use e.g. 1.5.")] = Field(
        1.5, description="for detection: boxes grow by this times area over perimeter"
    )
    max_candidates: Positive = Field(1000, description="for detection: contours of an image that may become boxes")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) as given, or the preset's."""
        return self.input or find_preset(self.preset, self.kind).input

    @property
    def options(self) -> dict[str, Any]:
        """The settings that this kind of task has, by their keys; of `preprocess` what is given."""
        found = {key: getattr(self, key) for key in KEYS_OF[self.kind]}
        if "use_space" not in self.model_fields_set:  # the preset's
            found.pop("use_space", None)
        return found | {"preprocess": self.preprocess.model_dump(exclude_none=True)}

    @property
    def processing(self) -> Processing:
        """How the model is fed, and how its output is read."""
        keys = {key: getattr(self, key) for key in OUTPUT_KEYS}
        return make_processing(self.kind, self.preset, {**self.preprocess.model_dump(exclude_none=True), **keys})

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Self:
        foreign = {key: None for keys in KEYS_OF.values() for key in keys if key not in KEYS_OF[self.kind]}
        wrong = [key for key in foreign if key in self.model_fields_set]
        if wrong:
            raise problem(f"{', '.join(wrong)}: not for {self.kind}. Remove {them(len(wrong))}.")
        if self.kind == "recognition" and self.charset is None:
            raise problem("charset is missing. Recognition needs the charset file that the model was trained with.")
        try:
            channels, height, width = self.input_shape
            check_channels((channels, height, width), self.processing)
        except DataError as error:
            raise problem(str(error)) from error
        resize = self.processing.resize
        if resize == "stretch" and len(self.widths) > 1:
            raise problem(f"widths: got {list(self.widths)}, but images are stretched to one. Remove it.")
        if self.kind == "detection" and resize != "limit" and "side" in self.model_fields_set:
            raise problem(f"side: {without_side(resize, 'preprocess.resize')}")
        if self.kind == "detection" and any(size % 32 for size in self.input_shape[1:]):
            raise problem(f"input: got {list(self.input_shape)}. Height and width must be multiples of 32.")
        return self
