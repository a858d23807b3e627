"""The recipe in a run's folder: written, unless the folder holds what another one computed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress.artifacts import lock, set_aside, write_atomic
from compress.errors import CompressError, RecipeError
from compress.pipeline.code import recipe_settings
from compress.pipeline.state import holds_results
from compress.progress import Note
from compress.recipe import QuantizeStep, Recipe, load_recipe
from compress.recipe.write import recipe_text

RECIPE_FILE = "recipe.yaml"
"""In the run's folder."""


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
