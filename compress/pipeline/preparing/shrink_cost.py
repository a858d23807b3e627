"""How long `compress shrink` will take: seconds for one image, measured, times how often each stage looks at one.

`compress.pipeline.preparing.estimate` does the same for any recipe, with the pace and the work as they are here.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
import torch

from compress.data.headers import Header, read_header
from compress.data.images import read_image
from compress.data.transforms import place_scene, resized_width
from compress.graph import to_onnx, to_torch
from compress.measure.session import Session
from compress.pipeline.evaluation import default_threads
from compress.pipeline.labelling import TRAIN_SIDE
from compress.pipeline.models import open_model
from compress.pipeline.preparing.shrinking import STAGES
from compress.pipeline.scanning.measures import compared_images
from compress.pipeline.scanning.scan_cost import duration
from compress.pipeline.stages.fitting import first_output
from compress.pipeline.stages.nearness import CALIBRATED, COMPARED, OTHERS, STARTS
from compress.pipeline.training_images import RECONSTRUCTED
from compress.progress import count_of
from compress.prune.groups import find_groups
from compress.prune.importance import OBS
from compress.prune.sensitivity import count_cells
from compress.recipe import FinetuneStep, PruneStep, QuantizeStep, Recipe, ReconstructStep, SensitivityStep, Step

SAMPLE = 64
"""Images whose headers are read for their sizes, and a few of which are decoded."""
REPEATS = 3
BATCH = 8
"""Images of the training step that is timed: no more than any family's, so the estimate errs on the long side."""
QAT_FACTOR = 2.2
"""A step with simulated rounding, which adds elementwise work to every layer, over a step without: 2.1 and 2.4 times on
the direction classifier that ships, batches of 4, one thread of a busy machine."""
TIMING_S = 30.0
"""For timing operators and candidate files, in pruning and in quantising each: an allowance, not measured."""
CALIBRATION_FACTOR = 2.5
"""A pass of PyTorch that observes or rounds every tensor, over one of onnxruntime: 1.6 for PP-OCRv3's recogniser, 3.5
for PP-OCRv5's detector (AMD EPYC, one thread)."""
FORMS, CANDIDATES = 2, 10
"""Of a network for int8 that are calibrated and compared, about: 5 to 14 files are fast enough."""
FILES = 4
"""That the report scores: the original, pruned, fine-tuned, int8."""


@dataclass(frozen=True)
class Pace:
    """Seconds on this machine, as busy as it is."""

    load: float
    """To read and decode one image."""
    forward: float
    """Of the original on one image of the input's size, in onnxruntime."""
    train: float
    """Of one training image: the teacher's pass, the network's, its gradients, and the weights' step."""
    make: float
    """To make a pruned network ready to be scored, for each cell of the scan; 0 where there is no scan."""
    saved_bytes: int = 0
    """Memory that a training step keeps for the gradients, for each image."""


@dataclass(frozen=True)
class Counts:
    """Images as they are used: each that a direction classifier sees upright and turned counts as two."""

    train: int
    """That an epoch trains on, drawn and unlabelled ones included."""
    val: int
    """That are scored."""
    files: int
    """Files of images."""


@dataclass(frozen=True)
class Work:
    """How often each stage looks at an image; areas are of a mean image, over the input's."""

    train: int
    """Images that an epoch trains on, drawn ones included; a direction classifier's are used twice."""
    val: int
    """Images that are scored, counted so, too."""
    files: int
    """Files of images."""
    cells: int
    scan_images: int
    epochs: int
    qat_epochs: int
    reconstructed: int
    """Images that reconstruction uses, at most."""
    ranked: int
    """Images that channels are ranked on before the scan, at most."""
    area: float
    """Of a scored image."""
    scan_area: float
    """Of one that the scan scores."""
    label_area: float
    """Of one to train on, when the original labels it."""
    train_area: float
    """Of one that is trained on, over one as `Pace.train` has it."""
    loaded_each_time: bool
    """Scenes to train on are read anew in every epoch; crops are kept."""
    calibrated: int = 0
    """Passes over an image that calibrates, or that candidates for the int8 file are compared on."""


def stage_seconds(work: Work, pace: Pace) -> tuple[float, ...]:
    """Seconds of each of `STAGES`. Augmentation, losses, post-processing and given test sets are not counted.

    >>> work = Work(80, 20, 100, 9, 10, 5, 2, 256, 0, 1.0, 0.5, 1.0, 1.0, False)
    >>> [round(seconds, 3) for seconds in stage_seconds(work, Pace(0.01, 0.1, 0.5, 0.2))]
    [11.0, 7.0, 30.0, 40.0, 210.0, 210.0, 8.0]
    """
    score = work.val * work.area * pace.forward
    epoch = work.train * work.train_area * pace.train
    load = work.train * pace.load if work.loaded_each_time else 0.0
    return (
        work.files * pace.load + (work.train * work.label_area + work.val * work.area) * pace.forward,
        min(work.train, work.ranked) * work.train_area * pace.train
        + (work.cells + 1) * (pace.make + work.scan_images * work.scan_area * pace.forward),
        TIMING_S,
        min(work.train, work.reconstructed) * work.train_area * pace.train,
        work.epochs * (epoch + load + score),
        TIMING_S
        + work.calibrated * work.area * CALIBRATION_FACTOR * pace.forward
        + work.qat_epochs * (QAT_FACTOR * epoch + load + score),
        FILES * score,
    )


def count_work(recipe: Recipe, files: int, sizes: Sequence[Header], cells: int) -> Work:
    """How often each stage of a recipe looks at an image.

    Args:
        recipe: of `shrink_recipe`.
        files: images in the folder.
        sizes: of some of them.
        cells: of the scan.
    """
    uses = 2 if recipe.task.kind == "classification" and len(recipe.task.labels) == 2 else 1
    held = min(max(1, round(recipe.data.held_back * files)), files - 1)
    drawn = files - held if recipe.data.unlabelled else 0
    return work_of(recipe, Counts(uses * (files - held) + drawn, uses * held, files), sizes, cells)


def work_of(recipe: Recipe, counts: Counts, sizes: Sequence[Header], cells: int) -> Work:
    """How often each stage of any recipe looks at an image; 0 for steps that it does not have.

    Args:
        recipe: whose steps count.
        counts: of its images.
        sizes: of some of them.
        cells: of the scan.
    """
    scan, finetune = recipe.find_step(SensitivityStep), recipe.find_step(FinetuneStep)
    quantize, solve = recipe.find_step(QuantizeStep), recipe.find_step(ReconstructStep)
    kind, side = recipe.task.kind, recipe.task.side
    scan_side = scan.side if scan and scan.side else side
    area, scan_area, label_area = (mean_area(recipe, sizes, each) for each in (side, scan_side, min(side, TRAIN_SIDE)))
    return Work(
        train=counts.train,
        val=counts.val,
        files=counts.files,
        cells=cells,
        scan_images=scan_images(scan, kind, counts) if scan else 0,
        epochs=finetune.epochs if finetune else 0,
        qat_epochs=quantize.epochs if quantize else 0,
        reconstructed=solve.images if solve else 0,
        ranked=RECONSTRUCTED if scan and scan.criterion == OBS else 0,
        area=area,
        scan_area=scan_area,
        label_area=label_area,
        train_area=1.0 if kind == "detection" else area,  # what is timed there is a crop
        loaded_each_time=kind == "detection",
        calibrated=_calibrated(quantize, kind, counts) if quantize else 0,
    )


def _calibrated(step: QuantizeStep, kind: str, counts: Counts) -> int:
    """Passes over images to calibrate the file, and to choose its form and where its ranges start."""
    calibration = min(step.calibration, counts.train)
    if step.optimize != "accuracy":
        return calibration
    compared = min(COMPARED.get(kind, OTHERS), counts.train)
    both = 2 * min(calibration, CALIBRATED.get(kind, OTHERS))  # all in integers, and none
    return calibration + FORMS * both + (len(STARTS) + CANDIDATES) * compared


def scan_images(step: SensitivityStep, kind: str, counts: Counts) -> int:
    """How many images a cell of a scan is scored on."""
    if step.measure == "metric":
        return min(step.images or counts.val, counts.val)
    return min(compared_images(kind, step.images), counts.train)


def mean_area(recipe: Recipe, sizes: Sequence[Header], side: int) -> float:
    """Pixels of a mean image as the model sees it, over those of the input; 1 where no size is known."""
    _, height, width = recipe.task.input_shape
    if not sizes or recipe.task.kind == "classification":
        return 1.0
    if recipe.task.kind == "recognition":
        widths = recipe.task.widths or (width,)
        real = [resized_width(size.height, size.width, height, widths[-1]) for size in sizes]
        return fmean(next(each for each in widths if each >= one) for one in real) / width
    shape, processing = (3, height, width), recipe.task.processing
    areas = [np.prod(place_scene(size.height, size.width, side, shape, processing).input) for size in sizes]
    return float(fmean(map(float, areas))) / (height * width)


def sample_sizes(files: Sequence[Path]) -> list[Header]:
    """Sizes of at most `SAMPLE` images, evenly over the folder; not of those that cannot be read."""
    found = (read_header(file) for file in files[:: max(1, len(files) // SAMPLE)])
    return [header for header in found if header is not None]


def measure(recipe: Recipe, files: Sequence[Path]) -> tuple[Pace, int]:
    """The pace on this machine, and the cells of the scan: a few passes of the network and, where a step learns, of a
    training step.

    Args:
        recipe: names the model.
        files: of images, a few of which are decoded; empty where they are in no files, and reading is not counted.

    Raises:
        CompressError: the model cannot be read or does not run.
    """
    channels, height, width = recipe.task.input_shape
    model = open_model(recipe.model, recipe.weights, (channels, height, width))
    threads = recipe.threads or default_threads()
    session = Session(model, threads=threads, spin=False)
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (1, channels, height, width)).astype(np.float32)
    forward = _timed(lambda: session.run(images))
    module = to_torch(model)
    scan = recipe.find_step(SensitivityStep)
    cells = count_cells(find_groups(module, (channels, height, width)), scan.ratios) if scan else 0

    def make() -> None:
        Session(to_onnx(copy.deepcopy(module), model), threads=threads, spin=False)

    if not any(map(_learns, recipe.steps)):
        return Pace(_load_time(files), forward, 0.0, _timed(make) if scan else 0.0), cells
    sizes = (recipe.task.crop, recipe.task.crop) if recipe.task.crop else (height, width)
    batch = rng.uniform(-1, 1, (BATCH, channels, *sizes)).astype(np.float32)
    torch.set_num_threads(threads)
    learner = to_torch(model).train()
    optimizer = torch.optim.Adam(learner.parameters(), lr=1e-6)

    def train() -> None:
        session.run(batch)
        optimizer.zero_grad()
        first_output(learner(torch.from_numpy(batch))).sum().backward()
        optimizer.step()

    per_image = _timed(train, repeats=2) / BATCH
    saved = saved_for_gradients(lambda: learner(torch.from_numpy(batch))) // BATCH
    return Pace(_load_time(files), forward, per_image, _timed(make) if scan else 0.0, saved), cells


def _learns(step: Step) -> bool:
    """Whether a step trains, or fits weights at a training image's pace."""
    return isinstance(step, ReconstructStep) or getattr(step, "epochs", 0) > 0


def saved_for_gradients(forward: Callable[[], object]) -> int:
    """Bytes that a pass keeps until its gradients are computed; a tensor that several operators keep counts once.

    >>> x = torch.ones(3, requires_grad=True)
    >>> saved_for_gradients(lambda: x.exp().exp())  # each keeps its result, three floats
    24
    """
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = forward()
    del output
    return sum(storage.nbytes() for storage in kept.values())


def _load_time(files: Sequence[Path]) -> float:
    """Median seconds to read and decode one image, of a few; 0 where there are none."""
    times = []
    for file in files[:: max(1, len(files) // REPEATS)][:REPEATS]:
        started = time.perf_counter()
        read_image(file)
        times.append(time.perf_counter() - started)
    return median(times) if times else 0.0


def _timed(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median seconds of a few calls, after one that does not count."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return median(times)


def plan_lines(recipe: Recipe, work: Work, pace: Pace, done: int = 0) -> tuple[str, ...]:
    """What will be done, stage by stage, with the time each will take; `done` stages are finished."""
    seconds = stage_seconds(work, pace)
    kept, held = work.train, work.val
    prune = recipe.find_step(PruneStep)
    assert prune
    what = (
        f"{work.files} images by the original model",
        f"{work.cells} networks on {work.scan_images} images each",
        f"to {prune.target.macs:g}x of the multiply-adds",
        f"{min(kept, work.reconstructed)} images, layer by layer, without training",
        f"{count_of(work.epochs, 'epoch')} of {kept} images, near the original's outputs",
        f"{count_of(work.qat_epochs, 'epoch')}, and a check of the file",
        f"{FILES} files on {held} images that nothing was trained on",
    )
    rows = [
        f"stage {number} of {len(STAGES)}, {name}: {text}, {'done' if number <= done else f'about {duration(each)}'}"
        for number, (name, text, each) in enumerate(zip(STAGES, what, seconds, strict=True), start=1)
    ]
    left = sum(seconds[done:])
    took = f"at {milliseconds(pace.forward)} ms an image and {milliseconds(pace.train)} ms to train on it"
    return (*rows, f"about {duration(left)} in all, {took}")


def milliseconds(seconds: float) -> str:
    """
    >>> milliseconds(0.00053), milliseconds(0.0284), milliseconds(0.1634)
    ('0.53', '28', '163')
    """
    return f"{1000 * seconds:.2g}" if seconds < 0.0995 else f"{1000 * seconds:.0f}"
