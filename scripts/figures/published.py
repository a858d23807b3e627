"""Runs whose figures are published, and what has changed since in what they depend on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress import artifacts
from compress.errors import CompressError
from compress.pipeline.code import flat_settings, recipe_settings, stage_code
from compress.recipe import Recipe, load_recipe
from compress.recipe.schema import STEPS

ROOT = Path(__file__).parents[2]
REGISTRY = "docs/figures.json"
STAGE_OF = {"teacher": "teacher", "sensitivity": "sensitivity", "replace": "replaced", "prune": "pruned",
            "reconstruct": "reconstructed", "finetune": "finetuned", "quantize": "int8"}  # fmt: skip
"""A recipe's step -> the stage that it computes."""
FORMERLY = {"steps.quantize.pact.symmetric": "True"}
"""Settings that came with another default -> what runs without them did."""
NAMED = 4
"""So many changes are named, the rest is counted."""
Read = Callable[[str], str | None]


@dataclass(frozen=True)
class Published:
    """A run whose figures are published."""

    title: str
    command: str
    recipes: tuple[str, ...]
    """Recipe files, relative to the repository."""
    changes: tuple[str, ...]
    """`KEY=VALUE` that the command changed in them."""
    commit: str
    date: str
    machine: str
    settings: dict[str, str]
    code: dict[str, str]
    tables: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Name of a table of the report -> its lines of cells, the header first."""
    verified: str = ""
    """Where code has changed since: the commit at which a short run gave the same files as at `commit`."""
    verified_by: str = ""
    """That short run's command."""


@dataclass(frozen=True)
class Registry:
    """docs/figures.json."""

    runs: dict[str, Published]
    version: int = artifacts.VERSION


def code_of(recipe: Recipe, read: Read | None = None) -> dict[str, str]:
    """Hashes of all modules that the stages of a recipe depend on."""
    found: dict[str, str] = {}
    for step in recipe.steps:
        found |= stage_code(STAGE_OF[step.name], (f"compress.tasks.{recipe.task.kind}",), read)
    return dict(sorted(found.items()))


def changes_since(run: Published, root: Path = ROOT) -> tuple[str, ...]:
    """What a run's figures depend on and has changed: modules, and settings of its recipe."""
    try:
        recipes = [load_recipe(root / name, run.changes, check_files=False) for name in run.recipes]
    except CompressError as error:
        return (str(error).splitlines()[0],)
    now_code: dict[str, str] = {}
    now_settings: dict[str, str] = {}
    for recipe in recipes:
        now_code |= code_of(recipe)
        now_settings |= named_settings(recipe, len(recipes))
    modules = sorted(name for name in {*now_code, *run.code} if now_code.get(name) != run.code.get(name))
    settings = [key for key, value in run.settings.items() if now_settings.get(key) != value]
    added = [key for key in now_settings if key not in run.settings]
    settings += [key for key in added if not _is_new_default(key, now_settings, run)]
    return (*(f"`{name.removeprefix('compress.')}`" for name in modules), *(f"recipe's `{key}`" for key in settings))


def _is_new_default(key: str, now: Mapping[str, str], run: Published) -> bool:
    """Whether a setting that the run did not know is one that recipes have had since, at its default, or at what was
    done before there was a choice."""
    if key.split(": ")[-1] in FORMERLY:
        return now[key] == FORMERLY[key.split(": ")[-1]]
    path = key.split(": ")[-1].split(".")
    if path[0] == "steps":
        if not any(known.split(": ")[-1].startswith(f"steps.{path[1]}.") for known in run.settings):
            return False  # a step of its own
        kind: Any = STEPS[path[1]]
        path = path[2:]
    else:
        kind = Recipe
    for name in path[:-1]:
        kind = kind.model_fields[name].annotation if name in kind.model_fields else None
        if kind is None or not hasattr(kind, "model_fields"):
            return False  # an entry of a mapping, e.g. a test set
    found = kind.model_fields.get(path[-1])
    if found is None or found.is_required():
        return False
    return now[key] == dict(flat_settings("", found.get_default(call_default_factory=True))).get("")


def named_settings(recipe: Recipe, of: int) -> dict[str, str]:
    """Settings, under the recipe's name where there are several."""
    return {f"{recipe.name}: {key}" if of > 1 else key: value for key, value in recipe_settings(recipe).items()}
