"""The task that a stage is for: the kind, its data and its settings, from options or from a recipe."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

from compress.data.labels import ListRules
from compress.data.processing import (
    DEFAULT_PRESET,
    OUTPUT_KEYS,
    check_channels,
    find_preset,
    make_processing,
    without_side,
)
from compress.errors import CompressError, DataError
from compress.pipeline.models import Shape, call_factory
from compress.progress import them
from compress.recipe import KEYS_OF, Recipe
from compress.tasks.base import Task
from compress.tasks.classification import DirectionTask
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.detection import DetectionTask
from compress.tasks.recognition import RecognitionTask

LABELS = "labels"
"""In a run's folder: the label lists that were made, in PaddleOCR's form, and turned crops."""


class TaskOptions(TypedDict, total=False):
    """What a task takes beside its data and input shape (`TASK_OPTIONS` says which task takes what); None is the task's
    own default."""

    preset: str | None
    preprocess: Mapping[str, Any] | None
    outputs: str | None
    layout: str | None
    blank: str | int | None
    lowercase: bool | None
    directions: bool | None
    labels: Sequence[str] | None
    charset: Path | None
    use_space: bool | None
    widths: Sequence[int] | None
    side: int | None
    crop: int | None
    augment: str | None
    unlabelled: Sequence[Path] | None
    agreement: bool | None
    dilate_teacher: bool | None
    decouple: float | None
    processes: int | None
    threshold: float | None
    box_threshold: float | None
    unclip_ratio: float | None
    max_candidates: int | None
    max_skipped: float | None
    data_root: Sequence[Path] | None
    allow_overlap: bool | None
    own_lists: Sequence[Path] | None
    workers: int | None


def make_task(
    kind: str,
    *,
    train: Sequence[Path],
    val: Sequence[Path],
    input_shape: tuple[int, int, int] | None = None,
    **given: Unpack[TaskOptions],
) -> Task:
    """The task of that kind on that data; `package.module:Class` for a user's, which may have `labels` and
    `unlabelled`.

    Raises:
        DataError: the data cannot be read.
        CompressError: there is no such task, or an option is not for it.
    """
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _check_options(kind, options)
    if kind in TASKS:
        input_shape = _take_processing(kind, options, input_shape)
    if input_shape is not None:
        options["input_shape"] = input_shape
    if boxes := {name: options.pop(name) for name in BOX_OPTIONS if name in options}:
        options["boxes"] = BoxSettings(**boxes)
    if rules := {key: options.pop(name) for name, key in RULE_OPTIONS.items() if name in options}:
        options["rules"] = ListRules(**rules)
    if kind in TASKS:
        return TASKS[kind](train, val, **options)
    return cast(Task, call_factory(kind, train, val, **options))


TASKS: dict[str, Callable[..., Task]] = {
    "classification": DirectionTask,
    "recognition": RecognitionTask,
    "detection": DetectionTask,
}
RULE_OPTIONS = {
    "max_skipped": "max_skipped",
    "data_root": "roots",
    "allow_overlap": "allow_overlap",
    "own_lists": "own_lists",
}
"""Options of every task on lists of images -> what `ListRules` calls them."""
TASK_OPTIONS = {kind: (*keys, *RULE_OPTIONS, "unlabelled", "agreement", "workers") for kind, keys in KEYS_OF.items()}
"""Kind of task -> what it takes beside its data and input shape."""
BOX_OPTIONS = ("threshold", "box_threshold", "unclip_ratio", "max_candidates")
"""Options that are the post-processing's (see `BoxSettings`)."""
FLAGS = {"directions": "directions/--labelled", "use_space": "space/--no-space"}
"""Options whose flag is not their name."""


def _take_processing(kind: str, options: dict[str, Any], input_shape: Shape | None) -> Shape:
    """Put one `processing` in the place of the options that describe it; returns the input's shape.

    Raises:
        DataError: a value is not allowed, or the input's channels do not fit.
        CompressError: a side is given where scenes have one size.
    """
    preset = options.pop("preset", DEFAULT_PRESET)
    changes = dict(options.pop("preprocess", {}))
    changes |= {key: options.pop(key) for key in OUTPUT_KEYS if key in options}
    processing, usual = make_processing(kind, preset, changes), find_preset(preset, kind)
    shape = input_shape or usual.input
    check_channels(shape, processing)
    if kind == "detection" and processing.resize != "limit" and "side" in options:
        raise CompressError(f"--side: {without_side(processing.resize)}")
    options["processing"] = processing
    if kind == "recognition":
        options.setdefault("use_space", usual.use_space)
    return shape


def _check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Refuse what would be ignored.

    Raises:
        CompressError: there is no such kind of task, or an option is not for it.
    """
    if kind not in TASKS and ":" not in kind:
        raise CompressError(f"--task: got {kind!r}. Must be {', '.join(TASKS)}, or package.module:Class for your own.")
    foreign = [name for name in options if name not in TASK_OPTIONS.get(kind, ("labels", "unlabelled"))]
    if foreign:
        flags = ", ".join(f"--{FLAGS.get(name, name.replace('_', '-'))}" for name in foreign)
        raise CompressError(f"{flags}: not for {kind}. Remove {them(len(foreign))}.")
    if kind == "recognition" and "charset" not in options:
        raise CompressError("--charset: missing. Recognition needs the charset file that the model was trained with.")


def recipe_task(recipe: Recipe) -> Task:
    """The task of a recipe, on its data.

    Raises:
        DataError: the data cannot be read, or holds images only (see `compress.pipeline.labelling.with_labels`).
    """
    data = recipe.data
    if not data.val:
        raise DataError("data.images: not labelled yet. Only `compress run` takes a recipe on images without labels.")
    return _task_on(
        recipe,
        data.train,
        data.val,
        unlabelled=data.unlabelled or None,
        agreement=bool(data.images) or None,
        own_lists=own_lists(recipe),
    )


def held_out_task(recipe: Recipe, lists: Sequence[Path]) -> Task:
    """The same task, scored on other data and without any to train on.

    Raises:
        DataError: the data cannot be read.
    """
    return _task_on(recipe, (), lists)


def list_roots(recipe: Recipe) -> tuple[Path, ...]:
    """Folders that label lists may lead into: the user's, and those of images that the run itself makes lists of."""
    data = recipe.data
    named = tuple(path if path.is_dir() else path.parent for path in data.images)
    return named if data.root is None else (data.root, *named)


def own_lists(recipe: Recipe) -> tuple[Path, ...]:
    """The label lists that the run itself made of `data.images`, whose folders may well hold symbolic links."""
    data = recipe.data
    lists = (*data.train, *data.val, *data.unlabelled) if data.images else ()
    return tuple(path for path in lists if path.parent == recipe.out / LABELS)


def _task_on(recipe: Recipe, train: Sequence[Path], val: Sequence[Path], **options: Any) -> Task:
    settings = recipe.task
    channels, height, width = settings.input_shape
    return make_task(
        settings.kind,
        train=train,
        val=val,
        input_shape=(channels, height, width),
        max_skipped=recipe.data.max_skipped,
        data_root=list_roots(recipe),
        allow_overlap=recipe.data.allow_overlap,
        workers=recipe.workers,
        **settings.options,
        **options,
    )
