"""What `compress init` writes: a first recipe for a model and whatever data the user has, each part with a comment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress import artifacts
from compress.data.file_names import is_sharded
from compress.data.labels import DEFAULT_RULES, Entry, ListRules, read_labels
from compress.data.unlabelled import split_images
from compress.errors import CompressError, RecipeError
from compress.graph import read_model, save_model
from compress.pipeline.facts import ModelFacts, declared_input, image_shape, shape_text
from compress.pipeline.guessing import processing_of
from compress.pipeline.models import is_factory, open_model
from compress.pipeline.preparing.families import FAMILIES, default_epochs, held_back_share
from compress.pipeline.preparing.readiness import Images, find_problems
from compress.pipeline.preparing.recipe_parts import Wishes, check_sizes, default_steps, task_keys
from compress.pipeline.preparing.sources import LIST_FILE, format_of, holds_images, read_source
from compress.progress import Note
from compress.recipe import Recipe, load_recipe
from compress.recipe.write import annotated_text

METRIC_DROP = 0.02
"""The gate that is written: a loss that most users would look into."""
NOTES = {
    "task": "What the model does, and how it is fed and read. Other projects' conventions: docs/presets.md.",
    "gates": "Requirements on the last file; exit code 1 if one is missed. Others: size_ratio, macs_ratio, speedup.",
    "steps.sensitivity": "Measure what is lost when one group of channels is pruned at these ratios; by obs those go "
    "first that the layers behind can best do without.",
    "steps.prune": "Remove channels by that, until this share of the multiply-adds is left. Lower is smaller.",
    "steps.reconstruct": "Solve the weights that are left by least squares, without training.",
    "steps.finetune": "Train near the original's outputs. More epochs recover more of the metric.",
    "steps.quantize": "Make the int8 file: calibration, training with simulated rounding, and a check of the file.",
}
IMAGES_NOTE = (
    "Images without labels: the original labels them, and the metric is agreement with it on the share that is held "
    "back. Labelled test sets, where you have some: test: {name: list}."
)
LISTS_NOTE = (
    "Label lists, LMDB or ICDAR folders: `train` is learned from, `val` chooses epochs and ratios. A set that nothing "
    "is chosen by judges the result: test: {name: list}."
)


@dataclass(frozen=True)
class Data:
    """What a recipe's `data` is made of: images without labels, or labelled parts."""

    images: Path | None = None
    train: Path | None = None
    val: Path | None = None
    """None where a part of `train` is to be split off."""
    test: Path | None = None
    max_skipped: float | None = None
    """Share of each part that may not be usable; default as in a recipe."""

    @property
    def rules(self) -> ListRules:
        """By which the parts are read."""
        return DEFAULT_RULES if self.max_skipped is None else ListRules(max_skipped=self.max_skipped)


@contextmanager
def exported(
    spec: str, weights: Path | None, shape: tuple[int, int, int] | None, out: Path, on_note: Note | None = None
) -> Iterator[Path]:
    """The file of a model: as it was named, or a PyTorch module's export beside the recipe, gone if the block fails.

    `on_note` receives which of PyTorch's exporters was needed (see `compress.graph.from_torch`).

    Raises:
        ModelError: the module cannot be exported.
        CompressError: a file is there already.
    """
    if not is_factory(spec):
        if weights is not None:
            raise CompressError(f"--weights: {weights} goes with package.module:factory; {spec} holds its own weights.")
        yield Path(spec)
        return
    file = out.with_suffix(".onnx")
    check_absent([file])
    save_model(open_model(spec, weights, shape, on_note), file)
    try:
        yield file
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def fixed_sizes(file: Path, given: tuple[int, int, int] | None) -> str:
    """What to say of an export whose size was guessed and is fixed in the file."""
    sizes = declared_input(read_model(file))[1:]
    if given is not None or not any(sizes[1:]):
        return ""
    return f", for images of {shape_text(sizes)} alone; for another size: --input C,H,W"


def find_data(path: Path, kind: str, val: Path | None = None, max_skipped: float | None = None) -> Data:
    """What lies at a path: a label list, an LMDB or ICDAR folder, train/ and val/ with such, or images without labels.

    Args:
        path: as the user gave it.
        kind: of the task.
        val: labelled images to validate on, where the user gave some.
        max_skipped: share of the images that may not be usable, where the user said so.

    Raises:
        CompressError: nothing usable is there, or `val` does not go with it.
    """
    if not path.exists() and not is_sharded(path):
        raise CompressError(f"--data: {path}: no such file or folder. Give a folder of images, or a label list.")
    parts = {name: _labelled(path / name, kind) for name in ("train", "val", "test")} if path.is_dir() else {}
    if parts.get("train") and (val or parts["val"]):
        return Data(train=parts["train"], val=val or parts["val"], test=parts["test"], max_skipped=max_skipped)
    if (train := _labelled(path, kind)) is not None:
        if val is None and format_of(train) != "list":
            raise CompressError(f"--val: missing. {train} cannot be split here. Give labelled images to validate on.")
        return Data(train=train, val=val, max_skipped=max_skipped)
    if val is not None:
        raise CompressError(f"--val: not with images without labels, as in {path}. Remove it, or name a label list.")
    if format_of(path) == "icdar":
        raise CompressError(
            f"--data: {path} holds scenes (ICDAR), not for {kind}. Cut out lines: compress crop {path} --out lines"
        )
    if not holds_images(path):
        raise CompressError(f"--data: {path}: no images, and no {LIST_FILE}. Give a folder of images, or a label list.")
    return Data(images=path, max_skipped=max_skipped)


def image_files(data: Data, kind: str) -> tuple[Path, ...]:
    """The images that are trained on; none where they lie in an LMDB or in archives."""
    if data.images is not None:
        return read_source(data.images, kind, data.rules, labelled=False).files
    assert data.train is not None
    return read_source(data.train, kind, data.rules).files


def _labelled(path: Path, kind: str) -> Path | None:
    """The label list, LMDB, tar archives or (for detection) ICDAR folder that a path is, or holds."""
    if not path.is_dir():
        return path if path.is_file() or is_sharded(path) else None
    if (path / LIST_FILE).is_file():
        return path / LIST_FILE
    found = format_of(path)
    return path if found in ("lmdb", "shards") or (found == "icdar" and kind == "detection") else None


def draft(facts: ModelFacts, data: Data, file: Path, wishes: Wishes) -> tuple[dict[str, Any], dict[Path, str]]:
    """A recipe as plain data, with paths from its own folder, and the texts of label lists that go beside it.

    Args:
        facts: the model.
        data: see `find_data`.
        file: where the recipe will be.
        wishes: what the user said.

    Raises:
        CompressError: the model or the data do not allow one.
    """
    check_sizes(facts, wishes.kind, processing_of(wishes.kind, wishes.processing).resize)
    family, shape = FAMILIES[wishes.kind], image_shape(facts, wishes.kind, wishes.input)
    labelled = data.images is None
    keys, lists, count = _data_keys(data, file, wishes.kind)
    keys |= {} if data.max_skipped is None else {"max_skipped": data.max_skipped}
    task = task_keys(facts, shape, wishes)
    if "charset" in task:
        task["charset"] = _from(file, Path(task["charset"]))
    recipe = {
        "version": 1,
        "name": f"{facts.path.stem}, compressed",
        "model": _from(file, facts.path),
        "task": task,
        "data": keys,
        "steps": default_steps(default_epochs(count, family, labelled=labelled), wishes, shape, labelled=labelled),
        "gates": {"metric_drop": METRIC_DROP},
    }
    return recipe, lists


def _data_keys(data: Data, file: Path, kind: str) -> tuple[dict[str, Any], dict[Path, str], int]:
    """The recipe's `data`, the label lists to write, and how many images are trained on."""
    most = FAMILIES[kind].most_held_back
    if data.images is not None:
        count = read_source(data.images, kind, data.rules, labelled=False).images
        share = held_back_share(count, most)
        return {"images": _from(file, data.images), "held_back": share}, {}, count - round(share * count)
    assert data.train is not None
    if data.val is not None:
        paths = {"train": data.train, "val": data.val, "test": data.test}
        keys = {key: _from(file, path) for key, path in paths.items() if path is not None}
        return keys, {}, read_source(data.train, kind, data.rules).images
    parts = split_list(data.train, most, data.rules)
    lists = {file.with_name(f"{file.stem}_{name}.txt"): text for name, (text, _) in parts.items()}
    keys = dict(zip(parts, [path.name for path in lists], strict=True)) | {"root": _from(file, data.train.parent)}
    return keys, lists, parts["train"][1]


def split_list(path: Path, most: int, rules: ListRules = DEFAULT_RULES) -> dict[str, tuple[str, int]]:
    """Part a label list into one to train on and one to validate by, by a hash of each image's content.

    Args:
        path: the list.
        most: images to hold back, at most.
        rules: how many images may be missing.

    Returns:
        `train` and `val` -> text of the list, with absolute paths, and its number of images.

    Raises:
        DataError: it cannot be read, or holds fewer than two different images.
    """
    entries = read_labels(path, rules).entries
    files = list(dict.fromkeys(entry.image for entry in entries))
    held = set(split_images(files, held_back_share(len(files), most))[1])
    parts = {
        "train": [entry for entry in entries if entry.image not in held],
        "val": [entry for entry in entries if entry.image in held],
    }
    return {name: (_lines(part), len(part)) for name, part in parts.items()}


def _lines(entries: Sequence[Entry]) -> str:
    return "".join(f"{entry.image.absolute()}\t{entry.text}\n" for entry in entries)


def _from(file: Path, path: Path) -> str:
    """A path from the folder of a recipe, which both can be moved with; the whole one where they share no folder."""
    folder, given = file.absolute().parent, path.absolute()
    shared = os.path.commonpath([folder, given])
    return str(given) if shared == folder.anchor else os.path.relpath(given, folder)


def check_labels(data: Data, facts: ModelFacts) -> None:
    """Check that the labels of a classifier's data are those that it has where nobody names them.

    Raises:
        CompressError: they are others, and nobody but the user knows their order.
    """
    if data.train is not None:
        _check_named(read_source(data.train, "classification", data.rules).texts, facts.output[-1] or 2)


def _check_named(texts: Sequence[str], classes: int) -> None:
    """Refuse labels other than 0 and 180, unless they are words, of which hardly any two are the same."""
    found = sorted(set(texts) - {""})
    words = classes == 2 and (len(found) != 2 or len(texts) == 2)
    if words or set(found) <= {"0", "180"}:
        return
    shown = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
    raise CompressError(
        f"--labels: missing. The model has {classes} classes, and the list names {shown}. Give the labels in the order "
        "of the model's outputs, e.g. --labels 0,180."
    )


def write_draft(
    content: Mapping[str, Any], lists: Mapping[Path, str], file: Path, command: str
) -> tuple[Recipe, Images]:
    """Write the recipe and its label lists, checked as `compress check` does; returns it with its data.

    Raises:
        CompressError: a file is there already.
        RecipeError: it has problems; nothing is left then.
        OutputError: a file cannot be written.
    """
    check_absent([file, *lists])
    comment = [f"Written by: {command}", f"`compress check {file}` says what it takes, `compress run {file}` does it."]
    notes = NOTES | {"data": IMAGES_NOTE if "images" in content["data"] else LISTS_NOTE}
    texts = {**lists, file: annotated_text(content, notes, comment)}
    try:
        for path, text in texts.items():
            artifacts.write_atomic(path, text.encode())
        recipe = load_recipe(file)
        return recipe, find_problems(recipe)
    except BaseException as error:
        for path in texts:
            path.unlink(missing_ok=True)
        if isinstance(error, RecipeError):
            raise RecipeError(str(error).replace(f"{file}: ", "")) from None
        raise


def check_absent(files: Sequence[Path]) -> None:
    """Refuse to write over anything.

    Raises:
        CompressError: one of the files is there.
    """
    for path in files:
        if path.exists():
            raise CompressError(f"--out: {path}: is there already. Give another name, or delete it.")
