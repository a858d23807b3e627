"""What a stage starts from: the model, however it is named, and the task with its data."""

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import onnx
import torch
from torch import nn

from compress.artifacts import Score
from compress.data.labels import ListRules
from compress.data.processing import DEFAULT_PRESET, OUTPUT_KEYS, check_channels, find_preset, make_processing
from compress.errors import CompressError, DataError, ModelError
from compress.graph import from_torch, load_model, read_model
from compress.measure.runtime import Session
from compress.measure.runtimes import open_runner
from compress.recipe import KEYS_OF, Recipe
from compress.tasks.base import Examination, Examiner, Predict, Task
from compress.tasks.classification import DirectionTask
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.detection import DetectionTask
from compress.tasks.recognition import RecognitionTask

Shape = tuple[int, int, int]
DEFAULT_SHAPE = (3, 48, 192)
"""Of the direction classifier; (C, H, W)."""
LABELS = "labels"
"""In a run's folder: the label lists that were made, in PaddleOCR's form, and turned crops."""


def open_model(
    spec: str,
    weights: Path | None = None,
    input_shape: tuple[int, int, int] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> onnx.ModelProto:
    """The canonical model that a user names: an .onnx file, or `package.module:factory` for a PyTorch module.

    Args:
        spec: path, or factory that is called without arguments.
        weights: state dict for the factory's module, .safetensors, or .pt (read without unpickling objects).
        input_shape: (C, H, W) of the example a PyTorch module is exported with.
        on_note: receives what was changed of a file so that it can be trained (see `compress.graph.load_model`).

    Raises:
        ModelError: nothing usable is there.
    """
    if not is_factory(spec):
        if weights is not None:
            raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
        return load_model(Path(spec), on_note)
    module = call_factory(spec)
    if not isinstance(module, nn.Module):
        raise ModelError(f"{spec}: returned {type(module).__name__}. Must return a torch.nn.Module.")
    if weights is not None:
        _load_weights(module, weights)
    return from_torch(module, torch.zeros(1, *(input_shape or DEFAULT_SHAPE)))


def open_any(spec: str, weights: Path | None = None, input_shape: tuple[int, int, int] | None = None) -> bytes:
    """The bytes of a model to run as it is: a file of any kind, int8 included, or a PyTorch module's export.

    Raises:
        ModelError: nothing usable is there.
    """
    if is_factory(spec):
        return open_model(spec, weights, input_shape).SerializeToString()
    if weights is not None:
        raise ModelError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
    return read_model(Path(spec)).SerializeToString()


def is_factory(spec: str) -> bool:
    """Whether a model is named as `package.module:factory`."""
    return ":" in spec and not spec.endswith(".onnx") and not Path(spec).exists()


def call_factory(spec: str, *arguments: Any, **options: Any) -> Any:
    """Import `package.module:name` (the current folder included) and call it.

    Raises:
        CompressError: it is not there, or fails.
    """
    module_name, _, name = spec.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = cast(Callable[..., Any], getattr(importlib.import_module(module_name), name))
    except Exception as error:  # the user's module may raise anything while it is imported
        raise CompressError(
            f"{spec}: cannot be imported ({_reason(error)}). Expected package.module:name, found from here."
        ) from error
    try:
        return factory(*arguments, **options)
    except CompressError:
        raise
    except Exception as error:  # so may the call
        raise CompressError(f"{spec}: failed when called ({_reason(error)}). --debug shows where.") from error


def _reason(error: Exception) -> str:
    """What an error says, on one line: its kind, then up to three lines of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join([f"{type(error).__name__}:", *lines[:3]]) if lines else type(error).__name__


def _load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict; every name must match."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file. Expected weights as .safetensors or .pt.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as error:  # torch and safetensors raise many kinds; all mean the same to the user
        raise ModelError(
            f"{path}: cannot be loaded into {type(module).__name__} ({_reason(error)}). "
            "Expected the state_dict of that module."
        ) from error


class TaskOptions(TypedDict, total=False):
    """What a task can be told beside its data and input shape (`TASK_OPTIONS` says which task what); None is the task's
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
    """The task of that kind on that data; `package.module:Class` for a user's own, which may have `labels` and
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
"""Kind of task -> what it can be told beside its data and input shape."""
BOX_OPTIONS = ("threshold", "box_threshold", "unclip_ratio", "max_candidates")
"""Options that are the post-processing's (see `BoxSettings`)."""
FLAGS = {"directions": "directions/--labelled", "use_space": "space/--no-space"}
"""Options whose flag is not their name."""


def _take_processing(kind: str, options: dict[str, Any], input_shape: Shape | None) -> Shape:
    """Put one `processing` in the place of the options that describe it; returns the input's shape.

    Raises:
        DataError: a value is not allowed, or the input's channels do not fit.
    """
    preset = options.pop("preset", DEFAULT_PRESET)
    changes = dict(options.pop("preprocess", {}))
    changes |= {key: options.pop(key) for key in OUTPUT_KEYS if key in options}
    processing, usual = make_processing(kind, preset, changes), find_preset(preset, kind)
    shape = input_shape or usual.input
    check_channels(shape, processing)
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
        raise CompressError(f"{flags}: not for {kind}. Remove {'it' if len(foreign) == 1 else 'them'}.")
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


def score_in(
    runtime: str,
    model: bytes,
    task: Task,
    threads: int | None = None,
    limit: int | None = None,
    *,
    name: str = "model",
) -> Score:
    """`score_model` in any runtime of `compress.measure.runtimes`; `name` is what messages call the model.

    Raises:
        ModelError: the runtime rejects it.
        DataError: its output does not fit the task.
        CompressError: the runtime is not installed.
    """
    runner = open_runner(runtime, model, None, name=name, threads=threads or default_threads())
    task.check_model(runner.output_shape)
    return task.evaluate(runner.run) if limit is None else task.evaluate(runner.run, limit)


def examine_in(
    runtime: str, model: bytes, task: Task, threads: int | None = None, *, name: str = "model"
) -> Examination:
    """`examine_model` in any runtime, as `score_in` is `score_model`.

    Raises:
        ModelError: the runtime rejects it.
        DataError: its output does not fit the task.
        CompressError: the runtime is not installed.
    """
    runner = open_runner(runtime, model, None, name=name, threads=threads or default_threads())
    task.check_model(runner.output_shape)
    return _examine(task, runner.run)


def score_model(
    model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None = None, limit: int | None = None
) -> Score:
    """Score a model, float or int8, in onnxruntime, on `limit` of the validation images or on all.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    session = _checked_session(model, task, threads)
    return task.evaluate(session.run) if limit is None else task.evaluate(session.run, limit)


def examine_model(model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None = None) -> Examination:
    """Score a model as `score_model` does, in one pass with its judgement of each image where the task tells it.

    Raises:
        ModelError: onnxruntime rejects it.
        DataError: its output does not fit the task.
    """
    return _examine(task, _checked_session(model, task, threads).run)


def _examine(task: Task, predict: Predict) -> Examination:
    return task.examine(predict) if isinstance(task, Examiner) else Examination(task.evaluate(predict))


def _checked_session(model: Path | bytes | onnx.ModelProto, task: Task, threads: int | None) -> Session:
    session = Session(model, threads=threads or default_threads(), spin=False)
    task.check_model(session.output_shape)
    return session


def default_threads() -> int:
    """Every core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
