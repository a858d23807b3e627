"""What `compress shrink` decides: a recipe for a model of a known kind and a folder of images without labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compress.data.labels import DEFAULT_RULES, ListRules
from compress.data.unlabelled import ImageFiles, list_images
from compress.errors import CompressError
from compress.pipeline.facts import ModelFacts, image_shape
from compress.pipeline.guessing import processing_of
from compress.pipeline.labelling import labelled_names, usable_images
from compress.pipeline.preparing.families import FAMILIES, default_epochs, held_back_share
from compress.pipeline.preparing.made_crops import made_folders
from compress.pipeline.preparing.recipe_parts import Wishes, check_sizes, default_steps, task_keys
from compress.pipeline.stage_progress import BEFORE, TimeLeft, staged
from compress.pipeline.state import finished_stages
from compress.progress import Progress
from compress.recipe import Recipe


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


STAGES = ("label", "scan", "prune", "reconstruct", "fine-tune", "quantise", "report")
"""What the stages of such a recipe are called, in their order (see `compress.pipeline.state.stage_marks`)."""


def with_stages(on_progress: Progress, recipe: Recipe, expected: Sequence[float] = ()) -> Progress:
    """Progress that also says which stage of how many it is of, and the time left of the run where the seconds of each
    of `STAGES` are given."""

    def now(message: str) -> int:
        # A classifier's targets are made anew each time, after the lists.
        return 0 if message.endswith(BEFORE) else finished_stages(recipe)

    return staged(on_progress, STAGES, now, TimeLeft(expected) if expected else None)
