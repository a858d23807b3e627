"""Is a model fed and read as it was trained? Where it scores near zero, other usual settings are tried and named."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from compress.data.processing import OUTPUT_KEYS, PREPROCESS_KEYS, PRESETS, Processing
from compress.errors import CompressError
from compress.measure.session import Model, Session
from compress.pipeline.facts import noise_image
from compress.pipeline.normalisation import FINE, inner_normalisation
from compress.tasks.base import Processed, Task
from compress.tasks.probabilities import check_probabilities

IMAGES = {"detection": 8}
"""Validation images that settings are tried on; of other kinds `MOST`."""
MOST = 64
LOW = {"classification": 0.6, "recognition": 0.2, "detection": 0.2}
"""A model that scores less is suspected: of two classes by chance half are right."""
GAIN = 0.2
"""So much better must other settings score to be named: on 64 images less may be chance."""


def check_processing(model: Model, task: Task, on_note: Callable[[str], None] | None, *, threads: int = 1) -> None:
    """Say which settings fit a model better, where it scores near zero with those that it has.

    Args:
        model: the original, in any form.
        task: the validation images are scored with; one that has no such settings is left alone.
        on_note: receives the line.
        threads: of onnxruntime.
    """
    if on_note is None or not isinstance(task, Processed) or task.kind not in LOW:
        return
    session, images = Session(model, threads=threads, spin=False), IMAGES.get(task.kind, MOST)
    own = task.evaluate(session.run, images)
    if own.metric >= LOW[task.kind]:
        return
    best, found = own.metric + GAIN, None
    for processing in candidates(task.kind, task.processing):
        metric = _score(task, processing, session, images)
        if metric >= best:
            best, found = metric, processing
    if found is not None:
        line = f"the model scores {own.metric:.2f} on {own.count} validation images"
        on_note(f"{line}, and {best:.2f} with {describe(found, task.processing)}: was it trained so? Then set that.")


def check_normalisation(model: Path, task: Task, on_note: Callable[[str], None] | None) -> None:
    """Say where a model normalises its images itself, and the task does so as well.

    Args:
        model: the file as the user gave it; its canonical form may have that arithmetic folded into its first layer.
        task: how it is fed; one that has no such settings is left alone.
        on_note: receives the line.
    """
    if on_note is None or not isinstance(task, Processed):
        return
    inner, processing = inner_normalisation(model), task.processing
    brightest = max((1 - mean) / std for mean, std in zip(processing.mean, processing.std, strict=True))
    if inner is None or not inner.expects_pixels or brightest > 1 / FINE:
        return
    wanted = ", ".join(f"{key}: {value:.10g}" for key, value in inner.preprocess.items())
    on_note(
        f"Note: {model} normalises images itself ({inner.said}) and is fed values up to {brightest:.3g}. Was it "
        f"trained so? For values from 0 to 255 set task.preprocess: {{{wanted}}}."
    )


def check_outputs(model: Model, task: Task) -> None:
    """Refuse a model that is to be trained and does not return what the task takes its outputs for, on noise.

    Its training would refuse it as well, after all that comes before.

    Raises:
        ModelError: its rows are not those of classes in the form that `task.outputs` says.
    """
    if isinstance(task, Processed) and task.kind in ("classification", "recognition"):
        outputs = Session(model, spin=False).run(noise_image(task.input_shape))
        check_probabilities(torch.from_numpy(outputs), task.processing.outputs)


def candidates(kind: str, given: Processing) -> Iterator[Processing]:
    """Settings to try, those that differ in one thing first, the blank or the colors; then presets'.

    Images keep their size, so that resizing and padding stay as given.
    """
    alone: list[dict[str, object]] = []
    if kind == "recognition":
        alone += [{"blank": blank} for blank in ("first", "last")]
    if given.channels == 3:
        alone += [{"color": color} for color in ("bgr", "rgb")]
    tried = {given}
    for change in alone:
        yield from _new(tried, dataclasses.replace(given, **change))  # type: ignore[arg-type]
    for kinds in PRESETS.values():
        if kind in kinds and (other := kinds[kind].processing).channels == given.channels:
            kept = {key: getattr(given, key) for key in ("resize", "interpolation", "pad_side", "layout", "lowercase")}
            yield from _new(tried, dataclasses.replace(other, **kept))


def _new(tried: set[Processing], one: Processing) -> Iterator[Processing]:
    if one not in tried:
        tried.add(one)
        yield one


def _score(task: Processed, processing: Processing, session: Session, images: int) -> float:
    try:
        return task.with_processing(processing).evaluate(session.run, images).metric
    except CompressError:  # e.g. logits taken for probabilities
        return 0.0


def describe(found: Processing, given: Processing) -> str:
    """The settings of one that are not the other's, as a recipe has them.

    >>> describe(Processing(blank="last", color="rgb"), Processing())
    'preprocess.color: rgb, blank: last'
    """
    parts = []
    for key in (*PREPROCESS_KEYS, *OUTPUT_KEYS):
        value = getattr(found, key)
        if value != getattr(given, key):
            shown = list(value) if isinstance(value, tuple) else value
            parts.append(f"{'preprocess.' if key in PREPROCESS_KEYS else ''}{key}: {shown}")
    return ", ".join(parts)
