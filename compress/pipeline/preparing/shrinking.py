"""What `compress shrink` decides: a recipe for a model of a known kind and a folder of images without labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.artifacts import lock, set_aside, write_atomic
from compress.data.charset import Charset, check_classes, read_charset
from compress.data.labels import DEFAULT_RULES, ListRules
from compress.data.splices import write_spliced
from compress.data.synthetic import write_dataset
from compress.data.unlabelled import ImageFiles, list_images, split_images
from compress.errors import CompressError, RecipeError
from compress.pipeline.code import recipe_settings
from compress.pipeline.facts import ModelFacts, Shape, image_shape, shape_text, takes_several
from compress.pipeline.guessing import processing_of
from compress.pipeline.labelling import labelled_names, usable_images
from compress.pipeline.stage_progress import BEFORE, TimeLeft, staged, stages_done
from compress.pipeline.state import holds_results
from compress.progress import Note, Progress
from compress.recipe import QuantizeStep, Recipe, load_recipe
from compress.recipe.write import recipe_text

RECIPE_FILE = "recipe.yaml"
"""In the run's folder."""


@dataclass(frozen=True)
class Family:
    """Defaults for one kind of task."""

    macs: float
    """Share of the multiply-adds that is left."""
    seen: int
    """Images that fine-tuning sees in all, each epoch counted: what decides the epochs of a folder."""
    most_held_back: int
    """Images that measure agreement, at most: all of them are scored after every epoch."""
    batch_size: int
    scan: Mapping[str, Any]
    prune: Mapping[str, Any]
    finetune: Mapping[str, Any]
    quantize: Mapping[str, Any]
    labelled: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `finetune` that differ where data have labels."""
    seen_labelled: int | None = None
    """Instead of `seen`, where data have labels, from which more is to be learned."""
    rendered: int = 0
    """Crops with other text that are drawn and learned from, as many in an epoch as images of the folder."""
    spliced: int = 0
    """The same of crops that are put together of pieces of the folder's."""


RATIOS = [0.25, 0.5, 0.75]
HELD_BACK = 0.2
EPOCHS = (2, 60)
"""The fewest and the most epochs of fine-tuning, whatever the folder."""
DETECTION_SIDE = 960
"""Longest side of scored scenes: PaddleOCR's own default in deployment."""
SCAN_SIDE = 640
CROP = 320
FAMILIES = {
    "classification": Family(
        macs=0.65,
        seen=16000,
        most_held_back=400,
        batch_size=32,
        scan={"criterion": "obs", "measure": "agreement", "images": 256},
        prune={"allocation": "spare"},
        finetune={
            "lr": 1.0e-3,
            "warmup_epochs": 1,
            "weight_decay": 1.0e-5,
            "freeze_bn": True,
            "distill": 1.0,
            "features": 3.0,
            "average": 50,
        },
        quantize={"lr": 2.0e-4, "pact": {"l2": 0.001}},
    ),
    "recognition": Family(
        macs=0.75,
        seen=8000,
        most_held_back=400,
        batch_size=8,
        scan={"criterion": "obs", "measure": "agreement", "images": 256},
        prune={"allocation": "spare"},
        finetune={
            "lr": 1.5e-3,
            "warmup_epochs": 0.5,
            "weight_decay": 1.0e-5,
            "freeze_bn": True,
            "distill": 1.0,
            "features": 80.0,
            "average": 50,
        },
        rendered=1500,
        spliced=1500,
        quantize={"lr": 2.0e-4, "weight_decay": 1.0e-5, "pact": {"l2": 0.001}},
    ),
    "detection": Family(
        macs=0.6,
        seen=1400,
        seen_labelled=2400,
        most_held_back=24,
        batch_size=8,
        scan={"criterion": "obs", "images": 12},
        prune={},
        finetune={
            "lr": 1.0e-3,
            "warmup_epochs": 1,
            "freeze_bn": True,
            "distill": 2.0,
            "features": 5.0,
            "average": 30,
        },
        labelled={"lr": 4.0e-3},
        quantize={"lr": 2.0e-4, "calibration": 80, "distill": 2.0, "average": 30, "pact": {"l2": 0.0001}},
    ),
}
"""Measured on PP-OCR's models: docs/recovery.md."""


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


def list_files(folder: Path) -> list[Path]:
    """The images of the folder that can be used, as far as their headers tell; `choose_files` says whether enough can.

    Raises:
        CompressError: there is no such folder.
        DataError: there are no images in it.
    """
    if not folder.exists():
        raise CompressError(f"--images: {folder}: no such folder. Give a folder of images like those that are read.")
    return list(list_images(folder, ListRules(max_skipped=1.0)).files)


def choose_files(
    folder: Path, run: Path, max_skipped: float | None = None, on_progress: Progress | None = None
) -> ImageFiles:
    """The images of the folder that a run is on: those that can be decoded.

    Args:
        folder: of images.
        run: folder of the run; images that were labelled there are not looked at again.
        max_skipped: share of the images that may not be usable; default as in a recipe.
        on_progress: called as (done, total, message).

    Raises:
        DataError: there are no images in it, or too many that cannot be used.
    """
    rules = DEFAULT_RULES if max_skipped is None else ListRules(max_skipped=max_skipped)
    return usable_images(folder, rules, labelled_names(run), on_progress)


def shrink_recipe(facts: ModelFacts, folder: Path, images: int, wishes: Wishes) -> dict[str, Any]:
    """The recipe, as plain data, for a run in the folder that it lies in.

    It depends on the folder's number of images alone, so that the same command makes the same recipe again.

    Args:
        facts: the deployed model.
        folder: of images.
        images: how many there are in it.
        wishes: what the user said.

    Raises:
        CompressError: the file fixes what must be open (the number of images, or the size of scenes), or has one class.
    """
    check_sizes(facts, wishes.kind, processing_of(wishes.kind, wishes.processing).resize)
    family, shape = FAMILIES[wishes.kind], image_shape(facts, wishes.kind, wishes.input)
    held_back = held_back_share(images, family.most_held_back)
    epochs = wishes.epochs or default_epochs(images - round(images * held_back), family)
    recipe: dict[str, Any] = {
        "version": 1,
        "name": f"{facts.path.stem}, shrunk",
        "model": str(facts.path.absolute()),
        "task": task_keys(facts, shape, wishes),
        "data": {"images": str(folder.absolute()), "held_back": held_back},
        "out": ".",
        "seed": wishes.seed,
        "steps": default_steps(epochs, wishes, shape),
    }
    if more := [f"{name}/labels.txt" for name in made_folders(wishes)]:
        recipe["data"]["unlabelled"] = more
    if wishes.max_skipped is not None:
        recipe["data"]["max_skipped"] = wishes.max_skipped
    if wishes.tests:
        recipe["data"]["test"] = {name: str(path.absolute()) for name, path in wishes.tests.items()}
    if wishes.threads is not None:
        recipe["threads"] = wishes.threads
    if wishes.max_drop is not None:
        recipe["gates"] = {"metric_drop": wishes.max_drop}
    return recipe


APART = 1_000_003
"""Added to the seed of drawn crops: those of `compress render` with the same seed may be the user's own images."""


def made_folders(wishes: Wishes) -> dict[str, int]:
    """Folders in the run's of crops that are made for it, and their numbers: another number is another recipe."""
    family = FAMILIES[wishes.kind]
    counts = {
        "rendered": family.rendered if wishes.rendered is None else wishes.rendered,
        "spliced": family.spliced if wishes.spliced is None else wishes.spliced,
    }
    return {f"{name}-{count}-{wishes.seed}": count for name, count in counts.items() if count}


def make_crops(
    folder: Path, wishes: Wishes, files: Sequence[Path], held_back: float, on_progress: Progress | None = None
) -> None:
    """Make the crops that are learned from beside the user's in a run's folder, unless they are there.

    Args:
        folder: of the run.
        wishes: how many.
        files: the user's images.
        held_back: share of them that judges: nothing is cut from it.
        on_progress: called as (done, total, message).

    Raises:
        OutputError: the folder cannot be written.
        DataError: the user's images cannot be parted or decoded.
    """
    for name, count in made_folders(wishes).items():
        made = folder / name
        if name.startswith("spliced"):
            write_spliced(made, split_images(files, held_back)[0], count, wishes.seed, on_progress=on_progress)
        elif not (made / "labels.txt").exists():
            write_dataset(made, count, wishes.seed + APART, on_progress=on_progress)


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


def held_back_share(images: int, most: int) -> float:
    """A fifth, or less where that were more than `most` images.

    >>> held_back_share(100, 400), held_back_share(10000, 400)
    (0.2, 0.04)
    """
    return min(HELD_BACK, max(1e-6, round(most / images, 6)))


def default_epochs(train: int, family: Family, *, labelled: bool = False) -> int:
    """As many as show the network about as many images as its family needs, within `EPOCHS`.

    >>> [default_epochs(train, FAMILIES["recognition"]) for train in (400, 20, 50_000)]
    [20, 60, 2]
    """
    seen = family.seen_labelled if labelled and family.seen_labelled else family.seen
    return min(EPOCHS[1], max(EPOCHS[0], round(seen / max(1, train))))


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


def write_recipe(
    content: Mapping[str, Any],
    folder: Path,
    command: str,
    draw: Callable[[], None] = lambda: None,
    on_note: Note | None = None,
) -> Recipe:
    """Write the recipe into the run's folder, and read it back.

    Gates, threads, test sets and what stays in float may be others than before; the rest decides what every stage
    computes and may not, once something was computed. `draw` makes what the recipe names and is not there yet (see
    `make_crops`); it is called once the recipe is no other one. `on_note` is told where another recipe is replaced.

    Raises:
        RecipeError: a wish cannot be fulfilled, or the recipe that is there cannot be read.
        CompressError: the folder holds results of another recipe.
        OutputError: another process is at work there.
    """
    file = folder / RECIPE_FILE
    probe = folder / f"{RECIPE_FILE}.new"
    comment = [f"Written by: {command}", f"`compress run {file}` does the same, whatever is changed here."]
    text = recipe_text(content, comment).encode()
    write_atomic(probe, text)
    try:
        wanted = load_recipe(probe, check_files=False)
        if file.exists() and holds_results(folder):
            _check_same(file, wanted)
            _drop_other_int8(file, wanted)
        elif file.exists():
            _take_over(file, wanted, on_note)
        draw()
        recipe = load_recipe(probe)
    except RecipeError as error:
        raise RecipeError(str(error).replace(f"{probe}: ", "")) from None
    finally:
        probe.unlink()
    write_atomic(file, text)
    return recipe


def _drop_other_int8(file: Path, recipe: Recipe) -> None:
    """Remove the int8 file of a run where another one is wanted; what was written beside the folder stays."""
    before, now = (each.find_step(QuantizeStep) for each in (load_recipe(file, check_files=False), recipe))
    if before != now:
        for made in sorted(file.parent.glob("int8.*")):
            made.unlink()


def _take_over(file: Path, recipe: Recipe, on_note: Note | None) -> None:
    """Make a folder ready for another recipe, in which nothing was computed.

    Raises:
        OutputError: another process is at work there.
    """
    with lock(file.parent):
        try:
            others = _other_keys(load_recipe(file, check_files=False), recipe)
        except RecipeError:
            others = ["problems"]
        if others:
            kept = set_aside(file)
            if on_note:
                on_note(f"{file}: of an attempt that computed nothing; replaced, and kept as {kept.name}.")


def _other_keys(before: Recipe, now: Recipe) -> list[str]:
    """Settings that differ, but for those that only the choice of images and the last two stages depend on."""
    one, other = recipe_settings(before), recipe_settings(now)
    free = ("data.test", "data.max_skipped", "steps.quantize.float_budget", "steps.quantize.optimize")
    return sorted(
        key for key in one.keys() | other.keys() if one.get(key) != other.get(key) and not key.startswith(free)
    )


def _check_same(file: Path, recipe: Recipe) -> None:
    earlier = load_recipe(file, check_files=False)
    others = _other_keys(earlier, recipe)
    if others == ["data.unlabelled"] and len(earlier.data.unlabelled) < len(recipe.data.unlabelled):
        raise CompressError(f"{file}: of a run without spliced crops. Use --spliced 0 to go on with it.")
    if others:
        raise CompressError(
            f"{file}: of a run with another {', '.join(others)}. Use the same options to go on with it, `compress run "
            f"{file}` if you changed it, or delete {file.parent} or give another --out to start anew."
        )


STAGES = ("label", "scan", "prune", "reconstruct", "fine-tune", "quantise", "report")


def stage_now(folder: Path) -> int:
    """How many of `STAGES` are finished in a run's folder, by what each leaves there."""
    marks = (
        ("labels/labels.json",),
        ("pruned.json", "pruned.code.json"),  # the next stage was begun
        ("pruned.json",),
        ("reconstructed.json",),
        ("finetuned.json",),
        ("int8.json",),
    )
    return stages_done(folder, marks)


def with_stages(on_progress: Progress, folder: Path, expected: Sequence[float] = ()) -> Progress:
    """Progress that also says which stage of how many it is of, and the time left of the run where the seconds of each
    of `STAGES` are given."""

    def now(message: str) -> int:
        # A classifier's targets are made anew each time, after the lists.
        return 0 if message.endswith(BEFORE) else stage_now(folder)

    return staged(on_progress, STAGES, now, TimeLeft(expected) if expected else None)
