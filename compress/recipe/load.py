"""Read a recipe, apply `--set`, and check all of it at once, before a model or an image is opened."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from compress.errors import RecipeError
from compress.recipe import checks
from compress.recipe.override import apply_override
from compress.recipe.problems import describe, key_of, show
from compress.recipe.raw import resolve_paths, steps_of
from compress.recipe.schema import Recipe
from compress.recipe.yaml_core import CoreLoader, load_yaml


def load_recipe(path: Path | str, overrides: Sequence[str] = (), *, check_files: bool = True) -> Recipe:
    """Read and check a recipe.

    Paths in the file are relative to it, paths in `overrides` to the current directory. A `prune` step
    without a criterion gets that of the recipe's `sensitivity`.

    Args:
        path: the YAML file.
        overrides: `key.sub=value` as given to `--set`, the value in YAML.
        check_files: report missing inputs too.

    Raises:
        RecipeError: the file cannot be read, or holds problems; the message has one line for each.
    """
    path = Path(path)
    data = resolve_paths(_read(path), path.parent)
    applied = [apply_override(data, text) for text in overrides]
    problems = [(key, problem) for key, problem in applied if problem]
    data.setdefault("name", path.stem)
    data.setdefault("out", str(Path("runs") / path.stem))
    problems += checks.check_between_keys(data)
    _inherit_criterion(data)
    recipe = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        problems += [(key_of(detail["loc"]), describe(detail)) for detail in error.errors()]
    if check_files:
        problems += checks.check_files(data)
    if recipe is None or problems:
        changed = [key for key, _ in applied]
        raise RecipeError("\n".join(f"{_place(path, key, changed)}: {key}: {text}" for key, text in problems))
    return recipe


def _place(path: Path, key: str, changed: Sequence[str]) -> str:
    """Where a problem stands: in the file, or on the command line."""
    inside = any(re.match(rf"{re.escape(name)}($|[.\[])", key) or name.startswith(f"{key}.") for name in changed)
    return "--set" if inside else str(path)


def _read(path: Path) -> dict[str, Any]:
    """The file's mapping as YAML has it; a key given twice is an error, not a silent choice."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read: {reason}. Give the path of a recipe (YAML).") from error
    try:
        twice = sorted(_keys_given_twice(yaml.compose(text, Loader=CoreLoader)))
        data = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise RecipeError(f"{path}{line}: not valid YAML: {reason}. Fix that line.") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: not valid YAML: nested too deeply. Fix the file.") from error
    if twice:
        raise RecipeError("\n".join(f"{path}:{line}: {key}: given twice. Keep one of them." for line, key in twice))
    if not isinstance(data, dict):
        raise RecipeError(f"{path}: got {show(data)}. Must be a mapping of keys: {', '.join(Recipe.model_fields)}.")
    return {str(key): value for key, value in data.items()}


def _keys_given_twice(node: yaml.Node | None) -> Iterator[tuple[int, str]]:
    """(line, key) of every key that its mapping already has."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                yield key.start_mark.line + 1, name
            seen.add(name)
            yield from _keys_given_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _keys_given_twice(item)


def _inherit_criterion(data: Mapping[str, Any]) -> None:
    """Rank channels in `prune` as the recipe's `sensitivity` did."""
    steps = dict(steps_of(data))
    if "prune" in steps and "sensitivity" in steps and steps["prune"].get("criterion") is None:
        steps["prune"]["criterion"] = steps["sensitivity"].get("criterion") or "fpgm"
