"""The options that name a task and its settings, and the task that they make."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.cli import options
from compress.cli.progress import say
from compress.errors import CompressError, DataError

if TYPE_CHECKING:
    from compress.pipeline.execution import Execution
    from compress.tasks.base import Task


@dataclass(frozen=True)
class ModelOptions:
    """What kind of task a model is for, and how it is fed and read."""

    task: options.TaskName = None
    input_size: options.Input = None
    preset: options.Preset = None
    preprocess: options.Preprocess = None
    outputs: options.Outputs = None
    layout: options.Layout = None
    blank: options.Blank = None
    lowercase: options.Lowercase = None

    def processing(self) -> dict[str, Any]:
        """The options of feeding and reading, by their keys in a recipe; None where nothing was given.

        Raises:
            CompressError: one cannot be read.
        """
        keys = ("preset", "outputs", "layout", "lowercase")
        return {
            **{key: getattr(self, key) for key in keys},
            "preprocess": options.parse_preprocess(self.preprocess),
            "blank": options.parse_number(self.blank),
        }


@dataclass(frozen=True)
class TaskOptions(ModelOptions):
    """What every command that scores a model takes of its task; named as `compress.pipeline.make_task` does."""

    task: options.OwnTaskName = None
    directions: options.Directions = None
    labels: options.Labels = None
    charset: options.Charset = None
    use_space: options.UseSpace = None
    widths: options.Widths = None
    side: options.Side = None
    processes: options.Processes = None
    threshold: options.Threshold = None
    box_threshold: options.BoxThreshold = None
    unclip_ratio: options.UnclipRatio = None
    max_candidates: options.MaxCandidates = None
    max_skipped: options.MaxSkipped = None
    data_root: options.DataRoot = None

    def values(self) -> dict[str, Any]:
        """The options that the task itself takes, by their names there; None where nothing was given."""
        given = {key: value for key, value in vars(self).items() if key not in ("task", "input_size")}
        return {
            **given,
            **self.processing(),
            "labels": options.parse_list(self.labels),
            "widths": _parse_widths(self.widths),
            "data_root": None if self.data_root is None else (self.data_root,),
        }


@dataclass(frozen=True)
class FittedTaskOptions(TaskOptions):
    """The same for commands that look at training images, too."""

    allow_overlap: options.AllowOverlap = None


@dataclass(frozen=True)
class TrainedTaskOptions(FittedTaskOptions):
    """The same for commands that train."""

    crop: options.Crop = None
    augment: options.Augment = None
    unlabelled: options.Unlabelled = None
    dilate_teacher: options.DilateTeacher = None
    decouple: options.Decouple = None
    workers: options.Workers = None


@dataclass(frozen=True)
class Source:
    """The model that a command takes."""

    model: options.Model
    weights: options.Weights = None


@dataclass(frozen=True)
class Lists:
    """The images of commands that train."""

    train: options.Train
    data: options.Val


@dataclass(frozen=True)
class TrainingOptions:
    """How commands that train are run."""

    seed: options.Seed = 0
    threads: options.Threads = None
    device: options.Device = "auto"

    def execution(self) -> "Execution":
        """The same for the pipeline; notes are printed.

        Raises:
            DeviceError: there is no such device.
        """
        from compress.compute.device import find_device
        from compress.pipeline.execution import Execution

        return Execution(self.seed, self.threads, find_device(self.device), on_note=say)


def make_task(settings: TaskOptions, train: Sequence[Path], val: Sequence[Path], *, model: str, command: str) -> "Task":
    """Read options as values and make the task.

    Its kind and the size of its images are the model's, where they are not given; what was guessed is said.

    Raises:
        CompressError: an option cannot be read, there is no such task, or its data cannot be read.
    """
    from compress import pipeline
    from compress.pipeline.guessing import find_boxes, find_names

    shape = options.parse_shape(settings.input_size)
    files = partial(_files_of, val, settings)
    guess = pipeline.guess_task(model, settings.task, shape, command, settings.processing(), files)
    for line in guess.said:
        say(line)
    values = {**settings.values(), **guess.processing}
    charset, labels, names = find_names(model, guess.kind, values["charset"], values["labels"], guess.classes)
    values |= {"charset": charset, "labels": labels}
    boxes, read = find_boxes(model, guess.kind, values)
    values |= boxes
    for line in filter(None, (names, read)):
        say(line)
    return pipeline.make_task(guess.kind, train=tuple(train), val=tuple(val), input_shape=guess.input_shape, **values)


def _files_of(lists: Sequence[Path], settings: TaskOptions) -> tuple[Path, ...]:
    """The images of label lists; none of such as hold them in archives, or cannot be read, which the task says."""
    from compress.data.labels import ListRules
    from compress.pipeline.preparing.sources import read_source

    rules = ListRules(roots=() if settings.data_root is None else (settings.data_root,))
    if settings.max_skipped is not None:
        rules = replace(rules, max_skipped=settings.max_skipped)
    found: list[Path] = []
    for path in lists:
        with contextlib.suppress(DataError):
            found += read_source(path, "recognition", rules).files
    return tuple(found)


def _parse_widths(text: str | None) -> list[int] | None:
    parts = options.parse_list(text)
    if parts is None:
        return None
    if not all(part.isdecimal() for part in parts):
        raise CompressError(f"--widths: got {text!r}. Must be whole numbers with commas. Use e.g. 160,320.")
    return [int(part) for part in parts]
