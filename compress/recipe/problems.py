"""Say what is wrong with a recipe: `where: key: got value. Must be ... Use ...`, one line a problem."""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from compress.recipe.schema import STEPS, Recipe

TYPES = {
    "int_type": "Must be a whole number.",
    "float_type": "Must be a number.",
    "bool_type": "Must be true or false.",
    "string_type": "Must be text.",
    "path_type": "Must be a path.",
    "tuple_type": "Must be a list.",
    "finite_number": "Must be a finite number.",
}


def key_of(location: Sequence[str | int]) -> str:
    """The dotted key of a place in a recipe, as `--set` takes it.

    >>> key_of(("steps", 1, "prune", "align"))
    'prune.align'
    >>> key_of(("data", "train", 0))
    'data.train[0]'
    """
    parts = list(location)
    if len(parts) > 2 and parts[0] == "steps" and parts[2] in STEPS:
        parts = parts[2:]
    text = ""
    for part in parts:
        if part in ("", "[key]"):  # written without a name where others have one; pydantic's mark of a name itself
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def describe(error: ErrorDetails, root: type[BaseModel] = Recipe) -> str:
    """One pydantic error in our words, without the key."""
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    location = error["loc"]
    if kind == "missing":
        return f"missing. {_hint(location, root)}"
    if kind == "extra_forbidden":
        steps = tuple(STEPS) if len(location) == 1 and root is Recipe else ()  # as --set addresses them
        return unknown_key(str(location[-1]), (*_known_at(location[:-1], root), *steps))
    if kind == "recipe" and isinstance(value, dict | BaseModel):  # a rule between keys: the text says which
        return str(context["text"])
    return f"got {show(value)}. {_allowed(kind, value, context, location, root) or error['msg'] + '.'}"


def unknown_key(key: str, known: Sequence[str]) -> str:
    """Name the nearest known key.

    >>> unknown_key("algin", ("align", "target"))
    'unknown key. Did you mean `align`? Known: align, target.'
    """
    near = get_close_matches(key, known, n=1)
    return f"unknown key.{f' Did you mean `{near[0]}`?' if near else ''} Known: {', '.join(known)}."


def show(value: Any) -> str:
    """A value as the user wrote it, or nearly, and short."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _allowed(
    kind: str, value: Any, context: dict[str, Any], location: Sequence[str | int], root: type[BaseModel]
) -> str | None:
    """What is allowed in place of `value`; None where pydantic's own words must do."""
    if kind in TYPES:
        return TYPES[kind]
    if kind == "recipe":
        return str(context["text"])
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        near = get_close_matches(str(value), expected.replace(" or ", ", ").split(", "), n=1)
        return f"Must be {expected}." + (f" Did you mean `{near[0]}`?" if near else "")
    if kind.startswith("union_tag"):
        near = get_close_matches(str(context.get("tag", "")), list(STEPS), n=1)
        hint = f" Did you mean `{near[0]}`?" if near else ""
        return f"Must be one step with its settings: {', '.join(STEPS)}.{hint} Use e.g. - quantize: {{epochs: 0}}."
    if kind.startswith(("model_", "dict_")):
        return f"Must be a mapping of keys: {', '.join(_known_at(location, root))}."
    return None


def _hint(location: Sequence[str | int], root: type[BaseModel]) -> str:
    """What a missing key is for."""
    model = _model_at(location[:-1], root)
    field = model.model_fields.get(str(location[-1])) if model else None
    description = field.description if field and field.description else "a required key"
    return f"Add it: {description}."


def _known_at(location: Sequence[str | int], root: type[BaseModel]) -> tuple[str, ...]:
    model = _model_at(location, root)
    return tuple(model.model_fields) if model else ()


def _model_at(location: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    """The settings class whose keys stand at this place."""
    model: type[BaseModel] | None = root
    inside_steps = False
    for part in location:
        if part == "steps" or isinstance(part, int):
            inside_steps = True
            continue
        if inside_steps:
            model, inside_steps = STEPS.get(part), False
            continue
        field = model.model_fields.get(part) if model else None
        annotation = field.annotation if field else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return model
