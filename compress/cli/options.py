"""Options that commands share, and how text becomes values. Limits, defaults and help are those of recipes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from compress.data.processing import PREPROCESS_KEYS
from compress.errors import CompressError
from compress.recipe import DataSettings, PruneStep, Recipe, TaskSettings
from compress.recipe.problems import describe, key_of
from compress.recipe.values import MAX_THREADS

M = TypeVar("M", bound=BaseModel)
Shape = tuple[int, int, int]


def setting(model: type[BaseModel], key: str, flag: str | None = None) -> Any:
    """An option for one key of a recipe: its help and default are the recipe's; not given, it is None."""
    field = model.model_fields[key]
    text = _before_default(field.description or "").replace("`", "")
    default = "" if field.default is None else f"  [default: {_shown(field.default)}]"
    return typer.Option(flag or f"--{key.replace('_', '-')}", help=f"{text}.{default}", show_default=False)


def _before_default(text: str) -> str:
    """A description less what it says of its own default; one in brackets is of something else, and stays.

    >>> _before_default("a few (`n`; default 8) or all; default all"), _before_default("side (see `a`)")
    ('a few (`n`; default 8) or all', 'side (see `a`)')
    """
    parts = text.split("; default")
    heads = ("; default".join(parts[:number]) for number in range(1, len(parts)))
    return next((head for head in heads if head.count("(") == head.count(")")), text)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def build(model: type[M], values: Mapping[str, Any]) -> M:
    """Check options as the same keys of a recipe; None is the default.

    Raises:
        CompressError: naming every option that is wrong.
    """
    try:
        return model.model_validate(given(values))
    except ValidationError as error:
        lines = [f"{_flag(key_of(detail['loc']))}{describe(detail, model)}" for detail in error.errors()]
        raise CompressError("\n".join(lines)) from error


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options without those that were left out.

    >>> given({"align": 8, "criterion": None})
    {'align': 8}
    """
    return {key: value for key, value in values.items() if value is not None}


def _flag(key: str) -> str:
    """`--batch-size: ` of `batch_size`; what holds for the whole command has none."""
    name = key.split("[")[0]
    if name.startswith("target.") and name != "target.ratio":
        return f"--target {name.removeprefix('target.')}: "
    return f"--{name.removeprefix('target.').replace('_', '-').replace('.', '-')}: " if name else ""


def parse_shape(text: str | None) -> Shape | None:
    """Read `3,48,192`.

    Raises:
        CompressError: it is not three positive whole numbers.
    """
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise CompressError(f"--input: got {text!r}. Must be channels,height,width. Use e.g. 3,48,192.")
    channels, height, width = map(int, parts)
    return channels, height, width


def parse_list(text: str | None) -> list[str] | None:
    """Read `a,b,c`."""
    return None if text is None else [part.strip() for part in text.split(",")]


def parse_preprocess(given: list[str] | None) -> dict[str, Any] | None:
    """Read `color=rgb` and `mean=0.5,0.5,0.5`; numbers become such, lists tuples.

    Raises:
        CompressError: there is no `=`, or no such key.
    """
    found: dict[str, Any] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not equals or key not in PREPROCESS_KEYS:
            raise CompressError(
                f"--preprocess: got {text!r}. Must be KEY=VALUE, the key {', '.join(PREPROCESS_KEYS)}. Use e.g. "
                "color=rgb."
            )
        values = [parse_number(part.strip()) for part in value.split(",")]
        found[key] = tuple(values) if len(values) > 1 else values[0]
    return found or None


def parse_number(text: str | None) -> float | int | str | None:
    """A number where the text is one.

    >>> parse_number("3"), parse_number("0.5"), parse_number("last")
    (3, 0.5, 'last')
    """
    for kind in (int, float):
        try:
            return None if text is None else kind(text)
        except ValueError:
            continue
    return text


def parse_target(text: str) -> dict[str, Any]:
    """Read `macs=0.5`, or several with commas.

    Raises:
        CompressError: there is no `=`.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals for _, equals, _ in pairs):
        raise CompressError(
            f"--target: got {text!r}. Must be macs=, params=, latency= or metric_drop= and a number, or several of "
            "these with commas; or ratio=."
        )
    return {key.strip(): value.strip() for key, _, value in pairs}


def check_out(out: Path, *inputs: str | Path) -> None:
    """Refuse to write over an input.

    Raises:
        CompressError: `out` is one of the inputs, or a folder.
    """
    if out.is_dir():
        raise CompressError(f"--out: {out} is a folder. Give the name of the .onnx file to write.")
    if any(out.resolve() == Path(name).resolve() for name in inputs):
        raise CompressError(f"--out: {out} is the input itself. Give another name.")


def check_apart(out: Path, images: Path, name: str) -> None:
    """Refuse a folder of results inside a folder of images, whose own pictures would be taken for some of them.

    Raises:
        CompressError: it is.
    """
    if out.resolve().is_relative_to(images.resolve()):
        raise CompressError(
            f"--out: results would go into {out}, inside {name} {images}, and be taken for images. Give --out a path "
            "outside it."
        )


Model = Annotated[str, typer.Argument(help="an .onnx file, or package.module:factory.", metavar="MODEL")]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="with a factory: its weights, .safetensors or .pt.", show_default=False)
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="channels, height and width of an image; default the file's, or what fits its output.",
        metavar="C,H,W",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="classification, recognition or detection; default by the shape of the model's output.",
        show_default=False,
    ),
]
OwnTaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="classification, recognition, detection, or package.module:Class of your own; default by the shape of the "
        "model's output.",
        show_default=False,
    ),
]
Train = Annotated[
    list[Path],
    typer.Option(
        "--train",
        help="label list, LMDB or ICDAR folder, or tar archives of crops ('train-{000..099}.tar', quoted) to train and "
        "calibrate on; may be repeated.",
        metavar="FILE",
    ),
]
Val = Annotated[
    list[Path],
    typer.Option(
        "--data",
        "--val",
        help="label list, LMDB or ICDAR folder, or tar archives of crops to score on; may be repeated.",
        metavar="FILE",
    ),
]
Directions = Annotated[
    bool | None,
    typer.Option(
        "--directions/--labelled",
        help="the lists name upright crops, to be turned / hold labels; default by what they hold.",
    ),
]
Labels = Annotated[
    str | None, typer.Option("--labels", help="class names in the order of the model's outputs; default 0,180.")
]
Charset = Annotated[
    Path | None,
    typer.Option(
        "--charset",
        help="for recognition: the model's characters, one a line, or an .onnx file whose metadata hold them; default "
        "the model itself, if it does.",
        metavar="FILE",
        show_default=False,
    ),
]
UseSpace = Annotated[
    bool | None,
    typer.Option("--space/--no-space", help="a space follows the charset's characters, or not; default it does."),
]
Widths = Annotated[
    str | None,
    typer.Option(
        "--widths",
        help="for recognition: rising widths to pad crops to; the last may be wider than the input; default the "
        "input's.",
    ),
]
Preset = Annotated[str | None, setting(TaskSettings, "preset")]
Preprocess = Annotated[
    list[str] | None,
    typer.Option(
        "--preprocess",
        help="a setting of task.preprocess: color, mean, std, resize, interpolation, pad_side or pad_value; may be "
        "repeated. E.g. color=rgb, mean=0.694,0.695,0.693.",
        metavar="KEY=VALUE",
    ),
]
Outputs = Annotated[str | None, setting(TaskSettings, "outputs")]
Layout = Annotated[str | None, setting(TaskSettings, "layout")]
Blank = Annotated[
    str | None, typer.Option("--blank", help="for recognition: CTC's blank, first, last or the number of its class.")
]
Lowercase = Annotated[bool | None, setting(TaskSettings, "lowercase", "--lowercase/--keep-case")]
Side = Annotated[int | None, setting(TaskSettings, "side")]
Processes = Annotated[int | None, setting(TaskSettings, "processes")]
Threshold = Annotated[float | None, setting(TaskSettings, "threshold")]
BoxThreshold = Annotated[float | None, setting(TaskSettings, "box_threshold")]
UnclipRatio = Annotated[float | None, setting(TaskSettings, "unclip_ratio")]
MaxCandidates = Annotated[int | None, setting(TaskSettings, "max_candidates")]
MaxSkipped = Annotated[float | None, setting(DataSettings, "max_skipped")]
DataRoot = Annotated[Path | None, setting(DataSettings, "root", "--data-root")]
AllowOverlap = Annotated[bool | None, setting(DataSettings, "allow_overlap", "--allow-overlap/--no-overlap")]
Device = Annotated[str, setting(Recipe, "device")]
Workers = Annotated[int | None, setting(Recipe, "workers")]
Unlabelled = Annotated[
    list[Path] | None,
    typer.Option(
        "--unlabelled",
        help="folder of images, or label list, of any other kind, to keep what the --teacher says of them; may be "
        "repeated.",
        metavar="PATH",
    ),
]
Augment = Annotated[str | None, setting(TaskSettings, "augment")]
Crop = Annotated[int | None, setting(TaskSettings, "crop")]
Decouple = Annotated[float | None, setting(TaskSettings, "decouple")]
DilateTeacher = Annotated[bool | None, setting(TaskSettings, "dilate_teacher", "--dilate-teacher/--plain-teacher")]
Protect = Annotated[
    list[str] | None,
    typer.Option("--protect", help="layer never to prune; may be repeated, * matches any text.", metavar="NAME"),
]
FloatLayer = Annotated[
    list[str] | None,
    typer.Option("--float-layer", help="layer to leave in float; may be repeated, * matches any text.", metavar="NAME"),
]
LayerNorms = Annotated[bool | None, setting(PruneStep, "layer_norms", "--layer-norms")]
Recurrent = Annotated[bool | None, setting(PruneStep, "recurrent", "--recurrent/--no-recurrent")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="of everything random.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=MAX_THREADS, help="CPU threads; default OMP_NUM_THREADS, else every core."),
]
Teacher = Annotated[
    str | None,
    typer.Option("--teacher", help="model whose outputs to stay near, usually the original; default none."),
]
