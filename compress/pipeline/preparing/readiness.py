"""Whether a recipe can start: everything that it names is looked at, and every problem found at once. Nothing is run
but the model, on one black image.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from compress.data.charset import Charset, check_classes, read_charset
from compress.data.file_names import refuse_shards
from compress.data.labels import ListRules, name_some
from compress.data.overlap import Stored, check_overlap, stored_files
from compress.data.processing import find_preset
from compress.errors import CompressError, DataError, ModelError, RecipeError
from compress.measure.session import Session
from compress.pipeline.facts import guess_kind, shape_text
from compress.pipeline.models import open_model
from compress.pipeline.preparing.sources import Source, read_source
from compress.pipeline.run import recipe_device
from compress.pipeline.tasks import list_roots
from compress.recipe import Recipe
from compress.tasks.probabilities import check_probabilities
from compress.tasks.words import check_texts

QUIET_SHARE = 0.02
"""Of a list's characters: so many may be outside the charset without a warning."""


@dataclass(frozen=True)
class Images:
    """What a recipe's data holds."""

    train: tuple[Source, ...]
    val: tuple[Source, ...]
    unlabelled: tuple[Source, ...]
    tests: tuple[Source, ...]
    images: tuple[Source, ...]
    """Without labels, instead of `train` and `val`."""
    warnings: tuple[str, ...] = ()
    """One line for each thing that is allowed and most likely a mistake."""

    @property
    def learned(self) -> tuple[Source, ...]:
        """What is trained on and validated by."""
        return (*self.images, *self.train, *self.val)

    @property
    def files(self) -> tuple[Path, ...]:
        """Images of `learned` that lie in files."""
        return tuple(file for source in self.learned for file in source.files)


def find_problems(recipe: Recipe) -> Images:
    """Look at everything that a valid recipe names, without running anything; returns the data.

    Raises:
        RecipeError: there are problems; the message has one line for each.
    """
    problems: list[str] = []
    data = recipe.data
    groups = {
        "train": data.train,
        "val": data.val,
        "unlabelled": data.unlabelled,
        "test": tuple(path for paths in data.test.values() for path in paths),
        "images": data.images,
    }
    found: dict[str, tuple[Source, ...]] = {}
    try:
        rules = ListRules(data.max_skipped, list_roots(recipe))
    except CompressError as error:
        raise RecipeError(str(error)) from None
    for key, paths in groups.items():
        sources = []
        for path in paths:
            try:
                labelled = key not in ("unlabelled", "images")
                if key == "images":
                    refuse_shards(path)
                sources.append(read_source(path, recipe.task.kind, rules, labelled=labelled))
            except CompressError as error:
                problems.append(f"data.{key}: {error}")
        found[key] = tuple(sources)
    if data.images and len(found["images"]) == len(data.images) and sum(each.images for each in found["images"]) < 2:
        problems.append("data.images: got one image. Must be two or more, one of them is held back.")
    wrong, warnings = _compare_texts(recipe, {key: found[key] for key in ("train", "val", "test")})
    problems += wrong
    wrong, shared = _shared_images(recipe, found)
    problems += wrong
    warnings += shared
    problems += _model_problems(recipe)
    try:
        recipe_device(recipe)
    except CompressError as error:
        problems.append(str(error))
    if problems:
        raise RecipeError("\n".join(dict.fromkeys(line for text in problems for line in text.splitlines())))
    return Images(
        found["train"], found["val"], found["unlabelled"], found["test"], found["images"], warnings=tuple(warnings)
    )


def _shared_images(recipe: Recipe, found: Mapping[str, Sequence[Source]]) -> tuple[list[str], list[str]]:
    """Problems, or warnings where the recipe allows it: images in files that one list is learned from or chosen by and
    another scored on, as the run itself would say."""
    rules = ListRules(allow_overlap=recipe.data.allow_overlap)
    lists = {key: _stored(found[key]) for key in ("train", "unlabelled", "val")}
    compared = [lists]
    for name, paths in recipe.data.test.items():
        judging = _stored([source for source in found["test"] if source.path in paths])
        compared += [{key: lists[key], f"data.test.{name}": judging} for key in lists]
    problems: list[str] = []
    warnings: list[str] = []
    for each in compared:
        try:
            warnings += check_overlap(each, rules)
        except CompressError as error:
            problems.append(str(error))
    return problems, warnings


def _stored(sources: Sequence[Source]) -> tuple[Stored, ...]:
    return stored_files(file for source in sources for file in source.files if file.is_file())


def _compare_texts(recipe: Recipe, lists: Mapping[str, Sequence[Source]]) -> tuple[list[str], list[str]]:
    """Problems: lists whose texts are mostly not of a recogniser's charset; warnings: those with many characters that
    it lacks."""
    task = recipe.task
    problems: list[str] = []
    warnings: list[str] = []
    if task.kind != "recognition" or task.charset is None:
        return problems, warnings
    preset = find_preset(task.preset, task.kind)
    lowercase = preset.processing.lowercase if task.lowercase is None else task.lowercase
    try:
        charset = read_charset(task.charset, use_space=preset.use_space if task.use_space is None else task.use_space)
    except CompressError:
        return problems, warnings  # said of the model
    for key, sources in lists.items():
        for source in sources:
            texts = [text.lower() if lowercase else text for text in source.texts]
            try:
                check_texts(source.path, texts, charset)
            except CompressError as error:
                problems.append(f"data.{key}: {error}")
            else:
                if foreign := foreign_characters(texts, charset):
                    effect = "left out of the texts" if key == "train" else "and texts with them count as read wrong"
                    warnings.append(f"data.{key}: {source.path}: {foreign} are not in {task.charset}, {effect}.")
    return problems, warnings


def foreign_characters(texts: Sequence[str], charset: Charset) -> str:
    """How many characters of texts a charset lacks, and which, the most frequent first; empty up to `QUIET_SHARE`.

    >>> foreign_characters(["ab", "a#", "#!"], Charset(("a", "b")))
    "3 of 6 characters (50.0 %: '#' 2x, '!' 1x)"
    """
    counts = Counter(character for text in texts for character in charset.split(text))
    foreign = {character: count for character, count in counts.most_common() if not charset.covers(character)}
    missing, total = sum(foreign.values()), counts.total()
    if missing <= QUIET_SHARE * total:
        return ""
    named = name_some([f"{character!r} {count}x" for character, count in foreign.items()])
    return f"{missing} of {total} characters ({100 * missing / total:.1f} %: {named})"


def _model_problems(recipe: Recipe) -> list[str]:
    """What is wrong with the model, or with the charset or the labels for it."""
    try:
        channels, height, width = recipe.task.input_shape
        session = Session(open_model(recipe.model, recipe.weights, (channels, height, width)), spin=False)
        output = session.run(np.zeros((1, channels, height, width), np.float32))
        _check_output(recipe, output.shape)
        if recipe.task.kind != "detection":
            check_probabilities(torch.from_numpy(output), recipe.task.processing.outputs)
        if recipe.task.kind == "recognition":
            _check_layout(recipe, session.run(np.zeros((2, channels, height, width), np.float32)).shape)
    except DataError as error:
        return [f"task: {error}"]
    except CompressError as error:
        return [f"model: {str(error).removeprefix('model: ')}"]
    return []


def _check_output(recipe: Recipe, output: tuple[int, ...]) -> None:
    """Compare what the model returns for one image with the task.

    Raises:
        ModelError: it is that of another kind of task.
        DataError: it has another number of classes.
    """
    task, found = recipe.task, guess_kind(output)
    if found is not None and found != task.kind:
        raise ModelError(
            f"{recipe.model}: output {shape_text(output)} is that of {found}, but task.kind is {task.kind}. Use "
            f"--set task.kind={found}, or another model."
        )
    if task.kind == "classification" and output[-1] != len(task.labels):
        raise DataError(
            f"labels: got {len(task.labels)}: {', '.join(task.labels)}. {recipe.model} has {output[-1]} classes. Name "
            "each of them, in the order of the outputs."
        )
    if task.kind == "recognition" and task.charset is not None:
        preset = find_preset(task.preset, task.kind)
        use_space = preset.use_space if task.use_space is None else task.use_space
        check_classes(read_charset(task.charset, use_space=use_space), task.charset, output[-1], use_space)


def _check_layout(recipe: Recipe, output: tuple[int, ...]) -> None:
    """Compare what a recogniser returns for two images with `task.layout`.

    Raises:
        DataError: their dimension is another one.
    """
    layout = recipe.task.processing.layout
    place = {"ntk": 0, "tnk": 1}
    if output[place[layout]] == 2:
        return
    other = next(name for name in place if name != layout)
    said = f"layout: got {layout}, but of two images {recipe.model} returns {shape_text(output)}."
    advice = f"Use --set task.layout={other}." if output[place[other]] == 2 else "Export it with a dynamic batch."
    raise DataError(f"{said} {advice}")
