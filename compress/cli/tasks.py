"""The task that a command's options name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compress.cli import options
from compress.cli.progress import say
from compress.errors import CompressError

if TYPE_CHECKING:
    from compress.tasks.base import Task


def make_task(
    kind: str | None,
    train: Sequence[Path],
    val: Sequence[Path],
    input_size: str | None,
    *,
    model: str,
    command: str,
    directions: bool | None,
    labels: str | None,
    charset: Path | None,
    use_space: bool | None,
    widths: str | None,
    side: int | None,
    crop: int | None = None,
    augment: str | None = None,
    unlabelled: Sequence[Path] | None = None,
    dilate_teacher: bool | None = None,
    decouple: float | None = None,
    processes: int | None = None,
    threshold: float | None = None,
    box_threshold: float | None = None,
    unclip_ratio: float | None = None,
    max_candidates: int | None = None,
    max_skipped: float | None = None,
    data_root: Path | None = None,
    allow_overlap: bool | None = None,
) -> "Task":
    """Read options as values and make the task.

    Its kind and the size of its images are the model's, where they are not given; what was guessed is said.

    Raises:
        CompressError: an option cannot be read, there is no such task, or its data cannot be read.
    """
    from compress import pipeline

    guess = pipeline.guess_task(model, kind, options.parse_shape(input_size), command)
    if guess.said:
        say(guess.said)
    return pipeline.make_task(
        guess.kind,
        train=tuple(train),
        val=tuple(val),
        input_shape=guess.input_shape,
        directions=directions,
        labels=options.parse_list(labels),
        charset=charset,
        use_space=use_space,
        widths=_parse_widths(widths),
        side=side,
        crop=crop,
        augment=augment,
        unlabelled=unlabelled,
        dilate_teacher=dilate_teacher,
        decouple=decouple,
        processes=processes,
        threshold=threshold,
        box_threshold=box_threshold,
        unclip_ratio=unclip_ratio,
        max_candidates=max_candidates,
        max_skipped=max_skipped,
        data_root=None if data_root is None else (data_root,),
        allow_overlap=allow_overlap,
    )


def _parse_widths(text: str | None) -> list[int] | None:
    parts = options.parse_list(text)
    if parts is None:
        return None
    if not all(part.isdecimal() for part in parts):
        raise CompressError(f"--widths: got {text!r}. Must be whole numbers with commas. Use e.g. 160,320.")
    return [int(part) for part in parts]
