"""Labels for images that have none: what the original model says of them."""

import functools
import json
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx

from compress import artifacts
from compress.artifacts import fingerprint_each, set_aside, write_atomic
from compress.data.images import read_image
from compress.data.labels import DEFAULT_RULES, UNLISTABLE, ListRules, shown
from compress.data.lmdb_folder import load_list
from compress.data.processing import DEFAULT_PRESET, find_preset
from compress.data.scenes import load_scenes
from compress.data.transforms import preprocess_crop
from compress.data.unlabelled import UNREADABLE, ImageFiles, content_of_images, list_images, split_images, unlistable
from compress.errors import DataError
from compress.measure.session import Session
from compress.pipeline.evaluation import default_threads
from compress.pipeline.models import model_identity, open_model
from compress.pipeline.state import LABELLED, holds_results
from compress.pipeline.tasks import LABELS, make_task
from compress.progress import Note, Progress
from compress.recipe import Recipe
from compress.tasks.base import Case, Examiner, Predict, Resizable, Task, Unlabelled

LISTS = ("train.txt", "val.txt")
TRAIN_SIDE = 640
"""Side at which text is looked for in scenes to train on, at most: there it only says where crops are taken."""
UNSEEN = ("charset", "processes", "augment", "crop", "dilate_teacher", "decouple")
"""Settings of a task that its labels do not depend on, and the charset's path, whose content counts."""


LATER = ("preset", "preprocess", "outputs", "layout", "blank", "lowercase")
"""Settings that earlier versions did not have: what they come to is part of an identity where it is not PP-OCR's."""


def label_unlabelled(
    task: Task, original: onnx.ModelProto, *, threads: int | None = None, on_progress: Progress | None = None
) -> Task:
    """The task with its images without labels labelled by the original model; as it is where it has none of them.

    Do so once, with the original, for all training stages: a fine-tuned teacher has forgotten what these images are to
    keep.

    Raises:
        DataError: the model does not fit the task, or says nothing of any image.
    """
    if not isinstance(task, Unlabelled):
        return task
    session = Session(original, threads=threads or default_threads(), spin=False)
    task.check_model(session.output_shape)
    return task.label_unlabelled(session.run, model_identity(original), on_progress)


@dataclass(frozen=True)
class Labels:
    """Says what a folder's label lists were made from, once all of them are there."""

    fingerprint: str
    train: int
    val: int
    version: int = artifacts.VERSION


@dataclass(frozen=True)
class Labelled:
    """A recipe on label lists instead of images, and one line for each kind of image that is in none of them."""

    recipe: Recipe
    warnings: tuple[str, ...] = ()


def usable_images(
    path: Path,
    rules: ListRules = DEFAULT_RULES,
    known: Collection[str] = (),
    on_progress: Progress | None = None,
) -> ImageFiles:
    """The images of a folder or list that can be decoded, as far as that is not `known` of their whole names.

    `on_progress` is called as (done, total, message).

    Raises:
        DataError: there are none, or more than the rules allow cannot be used.
    """

    def problem_of(file: Path) -> str:
        if str(file.absolute()) in known:
            return ""
        status = file.stat()
        return unlistable(file) or _damage(file, status.st_size, status.st_mtime_ns)

    return list_images(path, rules, problem_of, on_progress)


@functools.lru_cache(maxsize=1 << 17)
def _damage(file: Path, size: int, modified_ns: int) -> str:
    """Whether its pixels cannot be decoded; remembered while the file stays as it is: a run that begins asks twice."""
    return UNREADABLE if read_image(file) is None else ""


def labelled_names(out: Path) -> frozenset[str]:
    """Whole names of the images in the lists that a run's folder holds; none unless all lists are there."""
    if not _are_there(out):
        return frozenset()
    lines = [line for name in LISTS for line in (out / LABELS / name).read_text(encoding="utf-8").split("\n")]
    return frozenset(line.split("\t")[0] for line in lines)


def _are_there(out: Path) -> bool:
    return (out / LABELLED).exists() and all((out / LABELS / name).exists() for name in LISTS)


@dataclass(frozen=True)
class _Parts:
    """The images to label, and the identity of their labels."""

    train: list[Path]
    val: list[Path]
    identity: str
    warnings: tuple[str, ...]


def _part(
    recipe: Recipe, original: onnx.ModelProto, known: Collection[str], on_progress: Progress | None = None
) -> _Parts:
    data = recipe.data
    rules = ListRules(max_skipped=data.max_skipped, roots=() if data.root is None else (data.root,))
    found = [usable_images(path, rules, known, on_progress) for path in data.images]
    train, val = split_images([file for part in found for file in part.files], data.held_back)
    identity = _identity(recipe, original, train, val)
    return _Parts(train, val, identity, tuple(line for part in found for line in part.warnings))


def _open_original(recipe: Recipe) -> onnx.ModelProto:
    shape = recipe.task.input_shape
    return open_model(recipe.model, recipe.weights, (shape[0], shape[1], shape[2]))


def forget_stale(recipe: Recipe, on_note: Note | None = None) -> None:
    """Remove the record of a run's labels where they were made from something else, so that they are made again.

    Where anything else was computed in the folder, it stays: `with_labels` refuses it.

    Raises:
        DataError: as `with_labels`.
        ArtifactError: the record cannot be read.
    """
    if _may_be_made_again(recipe.out):
        _forget_other(recipe, _part(recipe, _open_original(recipe), labelled_names(recipe.out)), on_note)


def _may_be_made_again(out: Path) -> bool:
    return _are_there(out) and not holds_results(out)


def _forget_other(recipe: Recipe, parts: _Parts, on_note: Note | None) -> bool:
    """Remove the record of labels of other parts than these; whether they are other ones."""
    record = recipe.out / LABELLED
    if artifacts.load(Labels, record).fingerprint == parts.identity:
        return False
    kept = [set_aside(record.parent / name).name for name in LISTS]
    record.unlink()
    if on_note:
        on_note(
            f"{record.parent}: lists of other images or settings than now, of which nothing was computed: made anew; "
            f"those are {' and '.join(kept)}."
        )
    return True


def with_labels(recipe: Recipe, on_progress: Progress | None = None, on_note: Note | None = None) -> Labelled:
    """A recipe on images without labels as one on label lists that the original model made, in <out>/labels.

    A part of the images is held back and makes the validation data (see `split_images`). The lists are ordinary ones:
    - recognition: what the model reads;
    - classification: the model's class, of each crop as it is and, where there are two classes, turned by 180 degrees,
      for else all labels might be the same. Images to train on have the model's probabilities (`data.unlabelled`);
    - detection: the model's boxes.
    Lists that are there already, made from the same images by the same model, are taken as they are; others are made
    again (see `forget_stale`). Images that are missing, too large or cannot be decoded are left out before, so that
    whether they are there or not makes no difference.

    Raises:
        DataError: there are no images, or too few, or more than the rules allow cannot be used, or the model does not
            fit the task.
        ArtifactError: the lists that are there were made from something else, and something was computed since.
    """
    data, folder, record = recipe.data, recipe.out / LABELS, recipe.out / LABELLED
    original = _open_original(recipe)
    known = labelled_names(recipe.out)
    parts = _part(recipe, original, known, None if known else on_progress)
    if _may_be_made_again(recipe.out) and _forget_other(recipe, parts, on_note):
        parts = _part(recipe, original, (), on_progress)
    if _are_there(recipe.out):
        artifacts.check_fresh(record, artifacts.load(Labels, record).fingerprint, parts.identity)
    else:
        _write_lists(recipe, original, parts.train, parts.val, on_progress)
        artifacts.save(Labels(parts.identity, len(parts.train), len(parts.val)), record)
    lists: dict[str, tuple[Path, ...]] = {"train": (folder / "train.txt",), "val": (folder / "val.txt",)}
    task = recipe.task
    if task.kind == "classification":
        lists["unlabelled"] = (*lists.pop("train"), *data.unlabelled)
        task = task.model_copy(update={"directions": False if task.directions is False else None})
    labelled = recipe.model_copy(update={"data": data.model_copy(update=lists), "task": task})
    return Labelled(labelled, parts.warnings)


def _identity(recipe: Recipe, original: onnx.ModelProto, train: Sequence[Path], val: Sequence[Path]) -> str:
    """Of everything that the lists depend on."""
    settings = recipe.task.model_dump(mode="json", exclude={*UNSEEN, *LATER})
    settings["use_space"] = recipe.task.use_space is not False  # as versions without presets had it
    if recipe.task.processing != find_preset(DEFAULT_PRESET, recipe.task.kind).processing:
        settings["processing"] = asdict(recipe.task.processing)
    charset = recipe.task.charset.read_bytes() if recipe.task.charset else b""
    names = [str(file.absolute()) for file in (*train, *val)]
    return fingerprint_each(
        [settings, charset, model_identity(original), len(train), names, *content_of_images((*train, *val))]
    )


def _write_lists(
    recipe: Recipe,
    original: onnx.ModelProto,
    train: Sequence[Path],
    val: Sequence[Path],
    on_progress: Progress | None,
) -> None:
    session = Session(original, threads=recipe.threads or default_threads(), spin=False)
    done, total = 0, len(train) + len(val)

    def predict(images: np.ndarray) -> np.ndarray:
        nonlocal done
        outputs = session.run(images)
        done = min(done + len(images), total)
        if on_progress:
            on_progress(done, total, "labelling images with the original")
        return outputs

    folder = recipe.out / LABELS
    if recipe.task.kind == "classification":
        _write_list(folder / "train.txt", dict.fromkeys(train, ""))  # which are labelled with both directions later
        labels = recipe.task.labels
        turned = _turn(val, folder / "turned") if len(labels) == 2 and recipe.task.directions is not False else []
        total = len(val) + len(turned)
        _write_list(folder / "val.txt", _classes((*val, *turned), predict, recipe))
        return
    for name, files, side in (("train", train, TRAIN_SIDE), ("val", val, None)):
        readings = _readings(files, predict, recipe, side)
        if recipe.task.kind == "recognition" and not any(readings.values()):
            raise DataError(
                f"data.images: the original model reads nothing in any of {len(files)} images ({name}). Check that "
                "they are crops of text, and how the model is fed and read: task.preset, task.blank (docs/presets.md)."
            )
        _write_list(folder / f"{name}.txt", readings)


def _classes(files: Sequence[Path], predict: Predict, recipe: Recipe) -> dict[Path, str]:
    """The model's class of each crop; where it cannot be read, the first, for it is skipped and counted later."""
    channels, height, width = recipe.task.input_shape
    labels: dict[Path, str] = {}
    for file in files:
        image = read_image(file)
        if image is None:
            labels[file] = recipe.task.labels[0]
            continue
        output = predict(preprocess_crop(image, (channels, height, width), recipe.task.processing)[None])
        if output.shape != (1, len(recipe.task.labels)):
            raise DataError(
                f"model: output shape {list(output.shape)} does not fit classification. Expected [1, "
                f"{len(recipe.task.labels)}]: one probability for each of {', '.join(recipe.task.labels)}."
            )
        labels[file] = recipe.task.labels[int(output[0].argmax())]
    return labels


def _turn(files: Sequence[Path], folder: Path) -> list[Path]:
    """The crops that can be read, turned by 180 degrees, as files of their own."""
    turned = []
    for number, file in enumerate(files, start=1):
        if (image := read_image(file)) is not None:
            turned.append(folder / f"{number:06d}.png")
            write_atomic(turned[-1], cv2.imencode(".png", cv2.rotate(image, cv2.ROTATE_180))[1].tobytes())
    return turned


def _readings(files: Sequence[Path], predict: Predict, recipe: Recipe, side: int | None) -> dict[Path, str]:
    """The model's texts or boxes, by the very lines that will score other models by them; nothing for an image that
    cannot be read."""
    kind, (channels, height, width) = recipe.task.kind, recipe.task.input_shape
    settings = recipe.task.options
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "list.txt"
        _write_list(listed, dict.fromkeys(files, "" if kind == "detection" else "?"))
        # What cannot be read is counted when the list that is made here is; its paths are the user's own.
        rules = ListRules(max_skipped=1.0, roots=(Path(listed.anchor),))
        settings |= {"max_skipped": rules.max_skipped, "data_root": rules.roots}
        task = make_task(kind, train=(), val=[listed], input_shape=(channels, height, width), **settings)
        if side is not None and isinstance(task, Resizable) and recipe.task.processing.resize == "limit":
            task = task.with_side(min(side, task.side))
        assert isinstance(task, Examiner)
        cases = task.examine(predict).cases
        if kind == "detection":
            usable = [scene.image for scene in load_scenes(listed, rules).scenes]
        else:
            usable = [entry.image for entry in load_list(listed, rules=rules).entries]
    write: Callable[[Case], str] = _boxes if kind == "detection" else (lambda case: case.found or "")
    found = {usable[case.index]: write(case) for case in cases}
    return {file: found.get(file.absolute(), "") for file in files}


def _boxes(case: Case) -> str:
    """What was found in a scene without labels, as PaddleOCR's JSON."""
    corners = [mark.points.tolist() for mark in case.marks or () if mark.kind == "wrong"]
    return json.dumps([{"transcription": "text", "points": points} for points in corners])


def _write_list(path: Path, labels: dict[Path, str]) -> None:
    """A label list in PaddleOCR's form.

    Raises:
        DataError: the name of an image cannot stand in one.
    """
    lines = []
    for file, label in labels.items():
        name = str(file.absolute())
        if name != name.strip() or set(name) & set("\t\n\r"):
            raise DataError(f"{shown(str(file))}: {UNLISTABLE}, or with a space at its end. Rename it.")
        lines.append(f"{name}\t{label}\n")
    write_atomic(path, "".join(lines).encode())
