"""What a run of a recipe will take, told before it starts: stages in order with their time, memory and disk.

Counts come from the label lists, seconds for one image from a few timed passes (see
`compress.pipeline.preparing.shrink_cost`). What cannot be known cheaply is None, and shown as unknown.
"""

import dataclasses
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from compress import artifacts
from compress.data.headers import Header
from compress.data.streaming import STREAMED_FROM
from compress.errors import reason
from compress.graph import deployed_bytes
from compress.pipeline.models import open_model
from compress.pipeline.preparing.readiness import Images, find_problems
from compress.pipeline.preparing.shrink_cost import (
    Counts,
    Pace,
    Work,
    measure,
    milliseconds,
    sample_sizes,
    stage_seconds,
    work_of,
)
from compress.pipeline.preparing.shrinking import STAGES
from compress.pipeline.scanning.scan_cost import duration
from compress.pipeline.stage_progress import stages_done
from compress.pipeline.stages.replace import find_activations
from compress.pipeline.state import FILES, stage_marks
from compress.progress import Note, count_of
from compress.recipe import (
    FinetuneStep,
    PruneStep,
    QuantizeStep,
    Recipe,
    ReconstructStep,
    ReplaceStep,
    SensitivityStep,
    Step,
    TeacherStep,
)

MUTUAL_FACTOR = 1.9
"""An epoch of two students over one of one: measured as 1.6 to 1.9 (docs/recovery.md)."""
QAT_MEMORY = 1.8
"""What a step with simulated rounding keeps over one without: 1.3 to 1.8 times on the three models that ship."""
CHECKPOINT_COPIES = 4
"""Weights in a training's checkpoint: the network, Adam's two averages, and the best epoch so far."""


DONE = "done; kept if nothing that it depends on has changed"
"""Of a stage whose files are there."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run: what it does, and how long it takes."""

    name: str
    what: str
    seconds: float | None
    """None is unknown."""
    done: bool = False
    """Its files are there. Whether they were made of what the recipe says now is only known in a run."""


@dataclass(frozen=True)
class Estimate:
    """What a run will take."""

    stages: tuple[Stage, ...]
    pace: Pace
    images_bytes: int | None
    """Decoded images that are kept in memory; None where they lie in an LMDB, whose sizes are not looked at."""
    step_bytes: int
    """What a training step keeps for its gradients; 0 where nothing is trained."""
    program_bytes: int
    """The most that this process took so far, libraries and model included; 0 where the system does not say."""
    disk_bytes: int
    """The most that the folder holds at any time, pictures and reports aside."""


def estimate(recipe: Recipe, images: Images) -> Estimate:
    """What a run of the recipe will take on this machine, as busy as it is now.

    Raises:
        CompressError: the model does not run.
    """
    files = images.files
    sizes = sample_sizes(files)
    pace, cells = measure(recipe, files)
    work = work_of(recipe, count_images(recipe, images), sizes, cells)
    return Estimate(
        _stages(recipe, images, work, pace),
        pace,
        images_bytes=_decoded_bytes(recipe, images, sizes),
        step_bytes=_step_bytes(recipe, work, pace),
        program_bytes=_peak_memory(),
        disk_bytes=_disk_bytes(recipe),
    )


def announce_stages(recipe: Recipe, on_note: Note) -> dict[str, float | None]:
    """Say what `check` says of a recipe before it is run, and return the seconds that each stage will take, None where
    they are unknown. Nothing is timed where all stages but the report are done.

    Raises:
        CompressError: the recipe cannot start, or its folder cannot be written to.
    """
    artifacts.check_writable(recipe.out)
    images = find_problems(recipe)
    marks = [files for name, files in stage_marks(recipe).items() if name != "report"]
    if marks and stages_done(recipe.out, marks) == len(marks):
        return {}
    try:
        found = estimate(recipe, images)
    except Exception as error:  # of a training step of any network; the run may do without one, or will say the same
        on_note(f"How long the run takes is not known: {reason(error)}.")
        return {}
    on_note("\n".join(estimate_lines(recipe, found)))
    return {stage.name: stage.seconds for stage in found.stages}


def count_images(recipe: Recipe, images: Images) -> Counts:
    """The recipe's images as they are used.

    Unlabelled ones: as many in an epoch as labelled ones, or all of them where there are no labelled ones.
    """
    if images.images:
        files = sum(source.images for source in images.images)
        held = min(max(1, round(recipe.data.held_back * files)), files - 1)
        uses = 2 if _is_turned(recipe, ()) else 1
        train, val = uses * (files - held), uses * held
    else:
        train, val = (
            sum((2 if _is_turned(recipe, source.texts) else 1) * source.images for source in sources)
            for sources in (images.train, images.val)
        )
    others = sum(source.images for source in images.unlabelled)
    drawn = 0 if recipe.task.kind == "detection" or not others else train or others
    return Counts(train + drawn, val, sum(source.images for source in images.learned))


def _is_turned(recipe: Recipe, texts: Sequence[str]) -> bool:
    """Whether a direction classifier sees each crop upright and turned (see `DirectionTask`)."""
    task = recipe.task
    if task.kind != "classification" or len(task.labels) != 2:
        return False
    if task.directions is not None:
        return task.directions
    return 2 * sum(text not in task.labels for text in texts) > len(texts) if texts else True


def _stages(recipe: Recipe, images: Images, work: Work, pace: Pace) -> tuple[Stage, ...]:
    """The recipe's stages in the order of the run."""
    seconds = dict(zip(STAGES, stage_seconds(work, pace), strict=True))
    is_done = {name: any((recipe.out / file).exists() for file in files) for name, files in stage_marks(recipe).items()}
    found: list[Stage] = []
    if recipe.data.images:
        what = f"{work.files} images by the original model"
        found.append(Stage("label", what, seconds["label"], is_done["label"]))
    for step in recipe.steps:
        done = is_done[step.name]
        if isinstance(step, TeacherStep):
            took = stage_seconds(dataclasses.replace(work, epochs=step.epochs), pace)[STAGES.index("fine-tune")]
            found.append(Stage(step.name, f"{count_of(step.epochs, 'epoch')} of {work.train} images", took, done))
        elif isinstance(step, SensitivityStep):
            found.append(dataclasses.replace(_scan_stage(step, work, pace), done=done))
        elif isinstance(step, ReplaceStep):
            found.append(dataclasses.replace(_replace_stage(step, recipe, work, pace), done=done))
        elif isinstance(step, PruneStep):
            target = ", ".join(f"{key} {value:g}" for key, value in step.target.as_dict().items())
            what = f"to {target}" + (f", the best of {step.search.candidates} plans" if step.search else "")
            found.append(Stage(step.name, what, None if step.search else seconds["prune"], done))
        elif isinstance(step, ReconstructStep):
            count = min(step.images, work.train)
            # Least squares, not training: 3 to 8 times what as many training images take, by the network.
            found.append(Stage(step.name, f"{count} images, layer by layer", None, done))
        elif isinstance(step, FinetuneStep):
            factor, two = (MUTUAL_FACTOR, ", two students") if step.mutual else (1.0, "")
            what = f"{count_of(step.epochs, 'epoch')} of {work.train} images{two}"
            found.append(Stage(step.name, what, factor * seconds["fine-tune"], done))
        elif isinstance(step, QuantizeStep):
            scanned = "each layer alone in integers, " if step.float_budget else ""
            what = f"{scanned}{count_of(step.epochs, 'epoch')}, and a check of the file"
            found.append(Stage(step.name, what, seconds["quantise"], done))
    return (*found, _report_stage(recipe, images, work, pace))


def _scan_stage(step: SensitivityStep, work: Work, pace: Pace) -> Stage:
    ranked = f"channels ranked on {min(work.ranked, work.train)} images, " if work.ranked else ""
    if step.budget is not None:
        what = f"{ranked}of {work.cells} networks those that decide, within the budget"
        return Stage(step.name, what, None if ranked else step.budget)
    if step.measure != "metric":  # cells share what lies before the pruned layer, and cost a part of a pass
        what = f"{ranked}{work.cells} networks on {work.scan_images} training images each, by {step.measure}"
        return Stage(step.name, what, None)
    took = stage_seconds(work, pace)[STAGES.index("scan")]
    what = f"{ranked}{work.cells} networks on {work.scan_images} images each"
    return Stage(step.name, what, took if step.recover == "none" else None)


def _replace_stage(step: ReplaceStep, recipe: Recipe, work: Work, pace: Pace) -> Stage:
    if step.metric_drop is None:
        return Stage(step.name, "of all that match, none measured", 1.0)
    count = len(find_activations(open_model(recipe.model, recipe.weights), step.swap[0], step.layers))
    images = min(step.images or work.val, work.val)
    took = (count + 1) * (pace.forward + images * work.area * pace.forward)
    return Stage(step.name, f"{count} networks on {images} images each", took)


def _report_stage(recipe: Recipe, images: Images, work: Work, pace: Pace) -> Stage:
    files = count_files(recipe)
    scored = work.val + sum(source.images for source in images.tests)
    took = files * pace.forward * (scored * work.area + recipe.compare.rounds)
    tests = f", {scored - work.val} of them test images" if scored > work.val else ""
    return Stage(
        "report", f"{files} files on {scored} images{tests}, and timed in {recipe.compare.rounds} rounds", took
    )


def count_files(recipe: Recipe) -> int:
    """Files that the report scores: the original, the same in canonical form, other tools', and one of each step."""
    made = sum(step.name in FILES for step in recipe.steps)
    return 2 + int(recipe.compare.onnxruntime) + made


def _decoded_bytes(recipe: Recipe, images: Images, sizes: Sequence[Header]) -> int | None:
    """Crops are decoded once and kept, unless there are very many; scenes are read when they are needed."""
    if recipe.task.kind == "detection":
        return 0
    kept = [*images.images, *images.val, *images.unlabelled]
    if sum(source.images for source in images.train) < STREAMED_FROM:
        kept += images.train
    if any(source.format in ("lmdb", "shards") for source in kept) or not sizes:
        return None
    return round(fmean(3 * size.height * size.width for size in sizes) * sum(source.images for source in kept))


def _step_bytes(recipe: Recipe, work: Work, pace: Pace) -> int:
    """Of the training step that keeps most; of the original, as nobody knows how much smaller the pruned one is."""
    kept = [
        step.batch_size * _kept_share(step)
        for step in recipe.steps
        if isinstance(step, TeacherStep | FinetuneStep | QuantizeStep) and step.epochs
    ]
    return round(max(kept, default=0.0) * pace.saved_bytes * work.train_area)


def _kept_share(step: Step) -> float:
    """What a step's training keeps of each image, over a plain pass of the original."""
    if isinstance(step, QuantizeStep):
        return QAT_MEMORY
    return 2.0 if isinstance(step, FinetuneStep) and step.mutual else 1.0


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _disk_bytes(recipe: Recipe) -> int:
    """Every file at the original's size, which none exceeds by much, and one checkpoint while something is trained."""
    given = Path(recipe.model)
    size = (
        deployed_bytes(given) if given.is_file() else len(open_model(recipe.model, recipe.weights).SerializeToString())
    )
    trains = any(isinstance(step, TeacherStep | FinetuneStep | QuantizeStep) for step in recipe.steps)
    return size * (count_files(recipe) - given.is_file() + CHECKPOINT_COPIES * trains)


def estimate_lines(recipe: Recipe, found: Estimate) -> tuple[str, ...]:
    """The estimate as text: a line for each stage, then time, memory and disk in all."""
    count = len(found.stages)
    rows = [
        f"stage {number} of {count}, {stage.name}: {stage.what}, {_time(stage)}"
        for number, stage in enumerate(found.stages, start=1)
    ]
    left = [stage.seconds for stage in found.stages if not stage.done]
    known = sum(seconds for seconds in left if seconds is not None)
    and_more = ", and what is unknown" if None in left else ""
    learning = f" and {milliseconds(found.pace.train)} ms to train on it" if found.pace.train else ""
    pace = f"at {milliseconds(found.pace.forward)} ms an image{learning}"
    return (*rows, f"time: about {duration(known)}{and_more}, {pace}", _memory_line(found), _disk_line(recipe, found))


def _time(stage: Stage) -> str:
    if stage.done:
        return DONE
    return "time unknown" if stage.seconds is None else f"about {duration(stage.seconds)}"


def _memory_line(found: Estimate) -> str:
    parts = [f"{megabytes(found.program_bytes)} of the program"] if found.program_bytes else []
    parts.append("images unknown" if found.images_bytes is None else f"{megabytes(found.images_bytes)} of images")
    if found.step_bytes:
        parts.append(f"{megabytes(found.step_bytes)} of a training step")
    whole = found.program_bytes + (found.images_bytes or 0) + found.step_bytes
    return f"memory: about {megabytes(whole)}: {', '.join(parts)}"


def _disk_line(recipe: Recipe, found: Estimate) -> str:
    return f"disk: at most about {megabytes(found.disk_bytes)} in {recipe.out}, pictures and reports aside"


def megabytes(size_bytes: float) -> str:
    """
    >>> megabytes(585_532), megabytes(31_200_000), megabytes(2_340_000_000)
    ('0.6 MB', '31 MB', '2.3 GB')
    """
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e7 else f"{size_bytes / 1e6:.1f} MB"
