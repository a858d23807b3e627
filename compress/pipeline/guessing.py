"""What a command does with a model where the user does not say: kind of task, size of images, how it is fed and read.

What was guessed is said in one line, with the option that overrides it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from compress.data.embedded import class_names, holds_names
from compress.data.paddle_config import PaddleConfig, config_beside, read_config
from compress.data.processing import DEFAULT_PRESET, Processing, check_channels, find_preset, make_processing
from compress.errors import CompressError, DataError
from compress.graph import too_large_window
from compress.measure.session import Model, Session
from compress.pipeline.facts import ModelFacts, guess_kind, image_shape, look_at, parsed, shape_text
from compress.pipeline.heights import HEIGHTS, surest_height
from compress.pipeline.models import Shape, is_factory
from compress.pipeline.normalisation import inner_normalisation
from compress.recipe.task_settings import INPUTS
from compress.tasks.db_boxes import BoxSettings

STEPS_FIRST = "tnk"
"""`task.layout` of a recogniser that returns [T, N, K]."""


@dataclass(frozen=True)
class Guess:
    """What a command does with a model if nobody says otherwise."""

    kind: str
    input_shape: Shape | None = None
    """(C, H, W) where the file has another than the kind's own; None leaves it to the task."""
    said: tuple[str, ...] = ()
    """What was guessed, and the options that override it, a line each."""
    processing: Mapping[str, Any] = field(default_factory=dict)
    """How it is fed and read where that was guessed: keys of a recipe's task."""
    classes: int | None = field(default=None, compare=False)
    """Of a classifier or recogniser, where the file tells."""


def choose_kind(facts: ModelFacts, task: str | None, command: str = "shrink") -> tuple[str, str]:
    """The kind of task, and what to say of a guess.

    Raises:
        CompressError: `task` is no kind, or nothing is given and the shape does not tell; or the file ran on no image.
    """
    if task is not None and task not in INPUTS:
        advice = "Use --task classification, e.g."
        if is_factory(task):
            advice = (
                "A class of your own is for the commands of single steps: evaluate, sensitivity, finetune, quantize."
            )
        raise CompressError(f"--task: got {task!r}. Must be {', '.join(INPUTS)}. {advice}")
    if facts.fed is None:
        why = facts.problem.removeprefix(f"{facts.path}: ").rstrip(".")
        raise CompressError(
            f"--input: {facts.path} runs on no image of the sizes tried: {why}. Name one that it takes: --input C,H,W."
        )
    if task is not None:
        return task, ""
    kind = guess_kind(facts.output)
    if kind is None:
        raise CompressError(
            f"--task: cannot be determined from {facts.path}'s output {shape_text(facts.output)}. Must be "
            f"{', '.join(INPUTS)}. Use: compress {command} {facts.path} --task detection ..."
        )
    return kind, f"{facts.path}: output {shape_text(facts.output)}, taken for {kind}. If it is not: --task KIND."


def guess_task(
    spec: str,
    task: str | None,
    shape: Shape | None,
    command: str,
    given: Mapping[str, Any] | None = None,
    files: Callable[[], Sequence[Path]] | None = None,
) -> Guess:
    """The kind of task of a file, the size of its images, and how it is fed, where the user does not name them.

    Args:
        spec: an .onnx file; of a `package.module:factory` nothing is guessed, it is taken for a classifier.
        task: what the user said; a task of their own is left as it is.
        shape: (C, H, W) that the user said.
        command: for messages.
        given: what the user said of how it is fed and read: keys of a recipe's task; None is not said.
        files: returns images of text, for a recogniser that leaves its height open.

    Raises:
        CompressError: it cannot be determined.
        DataError: there is no such preset for this kind.
    """
    if is_factory(spec):
        return Guess(task or next(iter(INPUTS)), shape)
    if task is not None and task not in INPUTS:
        return Guess(task, shape)
    given = given or {}
    preset = given.get("preset") or DEFAULT_PRESET
    facts = look_at(Path(spec), shape, preset=preset)
    if task is not None and shape is not None and facts.fed is None:  # whoever runs it says why
        return Guess(task, shape)
    kind, said = choose_kind(facts, task, command)
    facts, changes, lines = complete(facts, kind, given, Path(spec), files if shape is None else None)
    size, usual = image_shape(facts, kind, shape), find_preset(preset, kind).input
    said_all = (said, *lines) if said else lines
    return Guess(kind, None if shape is None and size == usual else size, said_all, changes, facts.output[-1])


def complete(
    facts: ModelFacts,
    kind: str,
    given: Mapping[str, Any],
    model: Model,
    files: Callable[[], Sequence[Path]] | None,
) -> tuple[ModelFacts, dict[str, Any], tuple[str, ...]]:
    """How a model is fed and read: what the user gave, and what the file and the images tell beside.

    Args:
        facts: the model.
        kind: of task.
        given: keys of a recipe's task; None is not given.
        model: the file, for a recogniser that leaves its height open.
        files: returns images of text; None where the user gave the size.

    Returns:
        The model, fed at the height that fits; the keys of a recipe's task; and what to say of what was guessed.
    """
    found, lines = _complete_processing(facts, kind, given)
    fed, said = _fed_pixels(facts, model, found)
    found, lines = {**found, **fed}, (*lines, *said)
    form, said = _form_of_outputs(facts, kind, found)
    found, lines = {**found, **form}, (*lines, *said)
    if files is None or kind != "recognition" or facts.fed is None or facts.input[2] is not None:
        return facts, found, lines
    facts, line = _fit_height(facts, model, files(), processing_of(kind, found))
    return facts, found, (*lines, line) if line else lines


def _fed_pixels(facts: ModelFacts, model: Model, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Images are not normalised for a model that does so itself, unless the user says how."""
    preprocess = given.get("preprocess", {})
    inner = inner_normalisation(model)
    if inner is None or not inner.expects_pixels or not {"mean", "std"}.isdisjoint(preprocess):
        return {}, ()
    changes = {**inner.preprocess, **preprocess}
    options = " ".join(f"--preprocess {key}={changes[key]:.10g}" for key in ("mean", "std"))
    said = (
        f"normalises images itself ({inner.said}): fed values from 0 to 255, {options}. For others, give these options."
    )
    return {"preprocess": changes}, (f"{facts.path}: {said}",)


def _form_of_outputs(facts: ModelFacts, kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a model was seen to return, where its preset says something else; and which of its outputs is read."""
    said = []
    if len(facts.outputs) > 1:
        first, *others = facts.outputs
        said.append(
            f"{facts.path}: returns {first}, {', '.join(others)}: the first is read. For another, export it first."
        )
    usual = processing_of(kind, given).outputs
    if "outputs" in given or facts.returns in (None, usual):
        return {}, tuple(said)
    said.append(f"{facts.path}: returns {facts.returns}, not {usual}: taken for --outputs {facts.returns}.")
    return {"outputs": facts.returns}, tuple(said)


def _complete_processing(
    facts: ModelFacts, kind: str, given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A recogniser may have been seen to return its steps first; a detector of fixed size is fed scenes padded to
    it."""
    found = {key: value for key, value in given.items() if value is not None}
    if kind == "recognition" and facts.steps_first and "layout" not in found:
        said = f"output [T, N, K]: of two images the second dimension is 2, taken for --layout {STEPS_FIRST}."
        return {**found, "layout": STEPS_FIRST}, (f"{facts.path}: {said}",)
    preprocess = found.get("preprocess", {})
    one_size = kind == "detection" and all(facts.input[2:])
    if one_size and "resize" not in preprocess and processing_of(kind, found).resize == "limit":
        said = f"input {shape_text(facts.input)}: scenes are shrunk to this size, ratio kept, and padded"
        also = "To stretch them: --preprocess resize=stretch."
        return {**found, "preprocess": {**preprocess, "resize": "pad"}}, (f"{facts.path}: {said}. {also}",)
    return found, ()


def processing_of(kind: str, given: Mapping[str, Any]) -> Processing:
    """How a model is fed and read, of keys of a recipe's task.

    Raises:
        DataError: a value is not allowed.
    """
    changes = {**given, **(given.get("preprocess") or {})}
    changes.pop("preprocess", None)
    return make_processing(kind, changes.pop("preset", None) or DEFAULT_PRESET, changes)


def _fit_height(
    facts: ModelFacts, model: Model, files: Sequence[Path], processing: Processing
) -> tuple[ModelFacts, str]:
    """Look at a recogniser of open height with images: fed at the height where it is surest; then what to say of that,
    empty where it is the usual one."""
    if facts.fed is None or processing.resize == "stretch":
        return facts, ""
    channels, usual, width = facts.fed
    check_channels((channels, usual, width), processing)
    graph = parsed(model)
    shapes = {height: (1, channels, height, width) for height in HEIGHTS}
    fit = [height for height, shape in shapes.items() if graph is None or too_large_window(graph, shape) is None]
    session = Session(model, name=str(facts.path), threads=1, spin=False)
    fed = (channels, usual, width)
    found = surest_height(session, files, fed, fit, processing, one_width=facts.input[3] is not None)
    if found.height == usual:
        return facts, ""
    surer = f"is surer of what it reads at {found.height} ({found.sure[found.height]:.2f})"
    than = f"than at {usual} ({found.sure[usual]:.2f}), on {found.images} images"
    line = f"{facts.path}: leaves its height open, and {surer} {than}. For another: --input C,H,W."
    return replace(facts, fed=(channels, found.height, width)), line


def find_names(
    model: object, kind: str, charset: Path | None, labels: Sequence[str] | None, classes: int | None = None
) -> tuple[Path | None, Sequence[str] | None, str]:
    """A recogniser's charset and a classifier's labels: as the user gave them, else what the model's file holds, or
    PaddleOCR's inference.yml beside it, unless that is of a model with another number of `classes`; then what to say of
    what was found, empty where nothing was."""
    path = Path(str(model))
    if kind == "recognition" and charset is None:
        if holds_names(path):
            return path, labels, f"{model}: holds its charset. For another: --charset FILE."
        file, characters, problem = _names_beside(path, "characters", classes)
        if not characters:
            return None, labels, problem
        return file, labels, f"{file}: holds its charset. For another: --charset FILE."
    if kind != "classification" or labels is not None:
        return charset, labels, ""
    held, holder, problem = class_names(path) or (), path, ""
    if not held:
        file, held, problem = _names_beside(path, "labels", classes)
        holder = file or path
    if not held:
        return charset, None, problem
    names = ", ".join(held[:4]) + (", ..." if len(held) > 4 else "")
    return charset, held, f"{holder}: holds the names of its classes: {names}. For others: --labels NAMES."


def _names_beside(
    model: Path, key: Literal["characters", "labels"], classes: int | None
) -> tuple[Path | None, tuple[str, ...], str]:
    """inference.yml beside a model, its names of such classes, and what to say where they cannot be used."""
    file, config, problem = _config_beside(model)
    names: tuple[str, ...] = () if config is None else getattr(config, key)
    more = (1, 2) if key == "characters" else (0,)  # the blank, and perhaps a space
    if names and classes is not None and classes - len(names) not in more:
        return file, (), f"Not used: {file}: {len(names)} {key} do not make the model's {classes} classes."
    return file, names, problem


def find_boxes(model: object, kind: str, given: Mapping[str, Any] | None = None) -> tuple[dict[str, float], str]:
    """How PaddleOCR's inference.yml beside a detector reads its maps: keys of a recipe's task, without those that the
    user gave; then what to say of it, empty where nothing was found."""
    if kind != "detection":
        return {}, ""
    file, config, problem = _config_beside(Path(str(model)))
    if config is None:
        return {}, problem
    named = {key for key, value in (given or {}).items() if value is not None}
    found = {key: value for key, value in config.boxes.items() if key not in named}
    usual = asdict(BoxSettings())
    other = ", ".join(f"{key} {value:g}" for key, value in found.items() if value != usual[key])
    again = " ".join(f"--{key.replace('_', '-')} {value:g}" for key, value in found.items() if value != usual[key])
    said = f"{file}: {other}, taken for its post-processing. For files made of it elsewhere: {again}."
    return found, said if other else ""


def _config_beside(model: Path) -> tuple[Path | None, PaddleConfig | None, str]:
    """inference.yml beside a model, what it says, and what to say where it cannot be used."""
    file = config_beside(model)
    if file is None:
        return None, None, ""
    try:
        return file, read_config(file), ""
    except DataError as error:
        return file, None, f"Not used: {error}"
