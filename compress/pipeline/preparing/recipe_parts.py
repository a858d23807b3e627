"""Parts of a recipe that is written for the user, of what the model is, the user wished, and its family takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.data.charset import Charset, check_classes, read_charset
from compress.errors import CompressError
from compress.pipeline.facts import ModelFacts, Shape, shape_text, takes_several
from compress.pipeline.guessing import processing_of
from compress.pipeline.preparing.families import CROP, DETECTION_SIDE, FAMILIES, RATIOS, SCAN_SIDE


@dataclass(frozen=True)
class Wishes:
    """What the user may say; None is the family's default."""

    kind: str
    charset: Path | None = None
    labels: Sequence[str] | None = None
    """Of a classifier, in the order of its outputs; default 0 and 180, or numbers where it has more classes."""
    use_space: bool = True
    input: Shape | None = None
    macs: float | None = None
    epochs: int | None = None
    side: int | None = None
    threads: int | None = None
    seed: int = 0
    rendered: int | None = None
    spliced: int | None = None
    max_drop: float | None = None
    float_budget: float | None = None
    max_skipped: float | None = None
    tests: Mapping[str, Path] = field(default_factory=dict)
    processing: Mapping[str, Any] = field(default_factory=dict)
    """Keys of a recipe's task that say how the model is fed and read."""
    boxes: Mapping[str, float] = field(default_factory=dict)
    """Of a detector: keys of a recipe's task that say how its maps become boxes."""


def fits_charset(facts: ModelFacts, charset: Path | None, command: str = "shrink") -> tuple[Path, bool]:
    """The charset of a recogniser, and whether a space follows its characters, which the model's classes tell.

    Args:
        facts: the model.
        charset: as the user gave it, or the model's file if that holds one.
        command: for messages.

    Raises:
        CompressError: there is none.
        DataError: it is not the model's.
    """
    if charset is None:
        raise CompressError(
            f"--charset: missing. {facts.path} is a recogniser; give the file of its characters, one a line. Use: "
            f"compress {command} {facts.path} --charset dict.txt ..."
        )
    read = read_charset(charset, use_space=True)
    classes = facts.output[-1] if len(facts.output) == 3 else None
    if classes is None:
        return charset, True
    without = Charset(read.characters[:-1])
    if without.classes == classes:
        return charset, False
    check_classes(read, charset, classes, use_space=True)
    return charset, True


def check_sizes(facts: ModelFacts, kind: str, resize: str) -> None:
    """Refuse a file that fixes what must be open.

    Raises:
        CompressError: the number of images, or the size of scenes that are not resized to it, is fixed, or there is one
            class.
    """
    where = f"{facts.path}: input {shape_text(facts.input)}"
    if facts.input[0] is not None and not (facts.input[0] == 1 and takes_several(facts.path)):
        raise CompressError(
            f"{where} has a fixed number of images, and training and scoring take several. Export it with any number."
        )
    if kind == "classification" and facts.output[-1] == 1:
        raise CompressError(
            f"{facts.path}: output {shape_text(facts.output)} is one number an image, and classification compares two "
            "or more. Export the model with a probability for each class."
        )
    if kind == "detection" and any(facts.input[2:]) and resize == "limit":
        raise CompressError(
            f"{where} has a fixed size, and scenes are scored at their own. Export the detector with any height and "
            "width, or feed it scenes of that size: --preprocess resize=pad."
        )


def task_keys(facts: ModelFacts, shape: Shape, wishes: Wishes) -> dict[str, Any]:
    """The recipe's `task`: kind and input, how the model is fed and read, and what its family needs."""
    task: dict[str, Any] = {"kind": wishes.kind, "input": list(shape), **_plain(wishes.processing), **wishes.boxes}
    if wishes.kind == "classification":
        classes = facts.output[-1] or 2
        names = wishes.labels or (() if classes == 2 else map(str, range(classes)))
        return {**task, "labels": list(names)} if names else task
    if wishes.kind == "recognition":
        task |= {"charset": str(wishes.charset.absolute()) if wishes.charset else None, "use_space": wishes.use_space}
        one_width = facts.input[3] or processing_of(wishes.kind, wishes.processing).resize == "stretch"
        return task if one_width else {**task, "widths": line_widths(shape[2])}
    if processing_of(wishes.kind, wishes.processing).resize != "limit":
        return {**task, "augment": "mild"}
    return {**task, "side": wishes.side or DETECTION_SIDE, "crop": min(CROP, *shape[1:]), "augment": "mild"}


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as YAML has them."""
    found = dict(settings)
    if "preprocess" in found:
        given = found["preprocess"].items()
        found["preprocess"] = {key: list(value) if isinstance(value, tuple) else value for key, value in given}
    return found


def line_widths(width: int) -> list[int]:
    """Widths to pad crops to: half the input's for words, up to twice for lines.

    >>> line_widths(320), line_widths(100)
    ([160, 320, 480, 640], [50, 100, 150, 200])
    """
    return sorted({max(1, width // 2), width, width * 3 // 2, width * 2})


def default_steps(epochs: int, wishes: Wishes, shape: Shape, *, labelled: bool = False) -> list[dict[str, Any]]:
    """The recipe's `steps`, with the settings of its family; shape is the input's, (C, H, W).

    Where data are `labelled`, the scan measures by the labels, which say more than the original's answers.
    """
    family = FAMILIES[wishes.kind]
    scan: dict[str, Any] = {"ratios": list(RATIOS), **family.scan}
    if labelled:
        scan.pop("measure", None)
    if wishes.kind == "detection" and processing_of(wishes.kind, wishes.processing).resize == "limit":
        scan["side"] = min(SCAN_SIDE, wishes.side or DETECTION_SIDE)
    target = {"macs": family.macs if wishes.macs is None else wishes.macs}
    finetune = {"epochs": epochs, "batch_size": family.batch_size, **family.finetune}
    finetune |= family.labelled if labelled else {}
    finetune["warmup_epochs"] = min(finetune["warmup_epochs"], epochs / 4)
    quantize = {"epochs": max(1, round(epochs / 6)), "batch_size": family.batch_size, **family.quantize}
    quantize["optimize"] = "accuracy"
    if wishes.float_budget is not None:
        quantize["float_budget"] = wishes.float_budget
    return [
        {"sensitivity": scan},
        {"prune": {"target": target, "align": 8, **family.prune}},
        {"reconstruct": {}},
        {"finetune": finetune},
        {"quantize": quantize},
    ]
