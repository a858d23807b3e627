"""How a model is fed and how its output is read: what its training fixed, and a file does not say.

`Processing` holds one model's settings; `PRESETS` those of the projects whose models people deploy.

Sources: PaddleOCR, ppocr/data/imaug and configs of PP-OCR v2; docTR, `default_cfgs` of crnn_vgg16_bn, db_resnet50 and
mobilenet_v3_small_crop_orientation; EasyOCR, easyocr/recognition.py (AlignCollate, NormalizePAD; the generation of 2021
and later: height 64); MMOCR, configs/textrecog/crnn/_base_crnn_mini-vgg.py and configs/textdet/dbnet.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from compress.errors import DataError

Color = Literal["bgr", "rgb", "gray"]
Resize = Literal["limit", "pad", "stretch"]
Interpolation = Literal["linear", "cubic", "area", "nearest"]
PadSide = Literal["right", "left", "center"]
Outputs = Literal["probabilities", "logits", "log_probabilities"]
Layout = Literal["ntk", "tnk"]
Blank = Literal["first", "last"] | int
PadValue = Literal["mean", "edge"] | float
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Processing:
    """Pre- and post-processing of one model; the defaults are those of PP-OCR's crops.

    A pixel value p (0 to 255) becomes (p / 255 - mean) / std.
    """

    color: Color = "bgr"
    """Order of the channels; `gray` is one channel."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Of each channel, in the model's order, of values in [0, 1]."""
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: Resize = "pad"
    """`pad`: keep the ratio, and pad to the input's size; `stretch`: to the input's size; `limit` (scenes): the longest
    side at most so long, both sides multiples of 32."""
    interpolation: Interpolation = "linear"
    pad_side: PadSide = "right"
    """Of scenes right means right and below, left the other two sides."""
    pad_value: PadValue = "mean"
    """`mean`: 0 after normalisation; a number from 0 to 255: that gray; `edge`: the last column repeated."""
    outputs: Outputs = "probabilities"
    """What the model returns."""
    layout: Layout = "ntk"
    """Of a recogniser's output: [N, T, K] or [T, N, K]."""
    blank: Blank = "first"
    """Which class of a recogniser is CTC's blank."""
    lowercase: bool = False
    """A recogniser's labels are lowercased, as its charset holds small letters alone."""

    @property
    def channels(self) -> int:
        """Of an image."""
        return 1 if self.color == "gray" else 3


@dataclass(frozen=True)
class Preset:
    """A project's settings for one kind of task: processing, input size (C, H, W), and whether its charsets are
    followed by a space."""

    processing: Processing
    input: tuple[int, int, int]
    use_space: bool = True


_DOCTR_CROPS = Processing(
    color="rgb", mean=(0.694, 0.695, 0.693), std=(0.299, 0.296, 0.301), pad_value=0.0, outputs="logits", blank="last"
)
PRESETS: dict[str, dict[str, Preset]] = {
    "ppocr": {
        "classification": Preset(Processing(), (3, 48, 192)),
        "recognition": Preset(Processing(), (3, 32, 320)),
        # ImageNet's figures, in the order they stand in the file, though the channels are blue, green, red.
        "detection": Preset(Processing(mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="limit"), (3, 640, 640)),
    },
    "doctr": {
        "classification": Preset(dataclasses.replace(_DOCTR_CROPS, pad_side="center"), (3, 256, 256)),
        "recognition": Preset(_DOCTR_CROPS, (3, 32, 128), use_space=False),
        "detection": Preset(
            Processing(
                color="rgb",
                mean=(0.798, 0.785, 0.772),
                std=(0.264, 0.2749, 0.287),
                resize="pad",
                pad_side="center",
                pad_value=0.0,
                outputs="logits",
            ),
            (3, 1024, 1024),
        ),
    },
    "easyocr": {
        "recognition": Preset(
            Processing(
                color="gray", mean=(0.5,), std=(0.5,), interpolation="cubic", pad_value="edge", outputs="logits"
            ),
            (1, 64, 320),
            use_space=False,
        ),
    },
    "mmocr": {
        "recognition": Preset(
            Processing(
                color="gray",
                mean=(127 / 255,),
                std=(127 / 255,),
                resize="stretch",
                outputs="logits",
                blank="last",
                lowercase=True,
            ),
            (1, 32, 100),
            use_space=False,
        ),
        "detection": Preset(
            Processing(color="rgb", mean=IMAGENET_MEAN, std=IMAGENET_STD, resize="limit"), (3, 640, 640)
        ),
    },
}
"""Name -> kind of task -> settings."""
DEFAULT_PRESET: Final = "ppocr"
PREPROCESS_KEYS = ("color", "mean", "std", "resize", "interpolation", "pad_side", "pad_value")
"""Fields that stand under `task.preprocess` of a recipe."""
OUTPUT_KEYS = ("outputs", "layout", "blank", "lowercase")
"""Fields that stand under `task` itself."""
_KINDS_OF = {"layout": ("recognition",), "blank": ("recognition",), "lowercase": ("recognition",)}
"""Settings that not every kind of task has."""
_CHOICES: dict[str, Any] = {
    "color": Color,
    "resize": Resize,
    "interpolation": Interpolation,
    "pad_side": PadSide,
    "outputs": Outputs,
    "layout": Layout,
}


def find_preset(name: str, kind: str) -> Preset:
    """A project's settings for a kind of task.

    Raises:
        DataError: there is no such preset, or it has none for this kind.
    """
    check_preset(name)
    if kind not in PRESETS[name]:
        having = ", ".join(each for each, kinds in PRESETS.items() if kind in kinds)
        raise DataError(f"preset: {name!r} has no settings for {kind}. Use {having}, or preprocess.")
    return PRESETS[name][kind]


def check_preset(name: str) -> None:
    """Raise DataError where there is no such preset."""
    if name not in PRESETS:
        raise DataError(f"preset: got {name!r}. Must be one of {', '.join(PRESETS)}.")


def make_processing(kind: str, preset: str = DEFAULT_PRESET, changes: Mapping[str, Any] | None = None) -> Processing:
    """A preset's settings for a kind of task, with changes.

    Args:
        kind: of task.
        preset: its name.
        changes: fields of `Processing` -> values; None leaves the preset's. One number for `mean` or `std` is that of
            every channel.

    Raises:
        DataError: a value is not allowed, or the setting is not for this kind.
    """
    base = find_preset(preset, kind).processing
    given = {key: value for key, value in (changes or {}).items() if value is not None}
    for key, value in given.items():
        _check(kind, key, value)
    if isinstance(given.get("pad_value"), int):
        given["pad_value"] = float(given["pad_value"])
    if given.get("blank") == 0:
        given["blank"] = "first"
    channels = 1 if given.get("color", base.color) == "gray" else 3
    for key in ("mean", "std"):
        values = given.get(key, getattr(base, key))
        given[key] = _per_channel(key, values, channels, changed=key in (changes or {}))
    return dataclasses.replace(base, **given)


def _check(kind: str, key: str, value: Any) -> None:
    allowed = get_args(_CHOICES[key]) if key in _CHOICES else ()
    if key == "resize":
        allowed = tuple(each for each in allowed if each != "limit" or kind == "detection")
    if kind not in _KINDS_OF.get(key, (kind,)):
        raise DataError(f"{key}: not for {kind}. Remove it.")
    if allowed and value not in allowed:
        raise DataError(f"{key}: got {value!r}. Must be one of {', '.join(map(str, allowed))}.")
    if key == "blank" and value not in ("first", "last") and not _is_index(value):
        raise DataError(f"blank: got {value!r}. Must be first, last, or the number of the class, from 0 on.")
    if key == "pad_value" and not (value in ("mean", "edge") or _is_gray(value)):
        raise DataError(f"pad_value: got {value!r}. Must be mean, edge, or a gray from 0 to 255.")
    if key == "pad_value" and value == "edge" and kind == "detection":
        raise DataError("pad_value: got 'edge'. Not for detection: must be mean, or a gray from 0 to 255.")


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_gray(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 255


def _per_channel(key: str, values: Any, channels: int, *, changed: bool) -> tuple[float, ...]:
    """One figure for each channel.

    Raises:
        DataError: there are others than one or so many, or one is of no use.
    """
    many = tuple(values) if isinstance(values, list | tuple) else (values,)
    if not changed and len(many) != channels:  # the preset's, of another number of channels
        many = (sum(many) / len(many),)
    if len(many) == 1:
        many *= channels
    low = 0.0 if key == "mean" else 1e-6
    if len(many) != channels or not all(isinstance(each, int | float) and low <= each <= 1 for each in many):
        raise DataError(
            f"{key}: got {list(many)}. Must be {channels} number{'s' if channels > 1 else ''} of values in [0, 1]"
            f"{', or one for all' if channels > 1 else ''}. Divide figures of values up to 255 by 255."
        )
    return tuple(map(float, many))


def check_channels(input_shape: tuple[int, int, int], processing: Processing) -> None:
    """Raise DataError unless an input (C, H, W) has the channels that images are fed with."""
    if input_shape[0] == processing.channels:
        return
    color = {1: "gray", 3: "bgr or rgb"}.get(input_shape[0])
    advice = f" For such a model: preprocess.color {color}." if color else ""
    raise DataError(
        f"input: got {input_shape[0]} channels. Must be {processing.channels}: images are fed as {processing.color}."
        f"{advice}"
    )


def without_side(resize: Resize, key: str = "resize") -> str:
    """Why a longest side of scenes that are brought to the input's size is refused; `key` is where that is said.

    >>> without_side("pad")
    "scenes are of the input's size (resize: pad). Remove it."
    """
    return f"scenes are of the input's size ({key}: {resize}). Remove it."


def fingerprint_parts(processing: Processing, usual: Processing) -> dict[str, object]:
    """What becomes part of a task's identity: nothing where all is as usual."""
    return {} if processing == usual else {"processing": dataclasses.asdict(processing)}
