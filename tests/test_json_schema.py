"""The JSON Schema of recipes accepts what `load_recipe` accepts, and marks what it refuses by form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from compress.cli import app
from compress.recipe.json_schema import recipe_schema
from compress.recipe.schema import STEPS

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
SCHEMA = recipe_schema()
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
KNOWN = {
    *("$ref", "$defs", "$schema", "anyOf", "type", "enum", "const", "properties", "required", "additionalProperties"),
    *("items", "minItems", "minimum", "title", "description", "default", "format"),
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is as a schema says, by the keywords that ours uses."""
    assert set(schema) <= KNOWN, set(schema) - KNOWN
    if "$ref" in schema:
        return fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    if "anyOf" in schema:
        return any(fits(value, choice) for choice in schema["anyOf"])
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return False
    return _has_type(value, schema.get("type")) and _members_fit(value, schema)


def _has_type(value: Any, name: str | None) -> bool:
    if name in ("number", "integer"):
        return isinstance(value, int if name == "integer" else int | float) and not isinstance(value, bool)
    return name is None or isinstance(value, TYPES[name])


def _members_fit(value: Any, schema: Mapping[str, Any]) -> bool:
    if isinstance(value, list):
        items = schema.get("items", {})
        return len(value) >= schema.get("minItems", 0) and all(fits(each, items) for each in value)
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", ())) <= set(value) and all(
            fits(each, known[key]) if key in known else others is not False and (others is True or fits(each, others))
            for key, each in value.items()
        )
    return True


BASE: dict[str, Any] = {
    "version": 1,
    "model": "m.onnx",
    "task": {"kind": "classification", "widths": 32, "preprocess": {"mean": 0.5, "std": [0.5, 0.5, 0.5]}},
    "data": {"train": ["t.txt"], "val": "v.txt", "test": {"lines": "a.txt", "street": ["b.txt", "c.txt"]}},
    "steps": [{"prune": {"target": {"macs": 0.6}, "protect": "head*"}}, {"finetune": None}, {"quantize": {}}],
    "gates": {"metric_drop": {"lines": 0.1}, "worst_set": 0.1},
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_fit(recipe: Path) -> None:
    assert fits(yaml.safe_load(recipe.read_text()), SCHEMA)


@pytest.mark.parametrize(
    "changes", [{}, {"data": {"val": "v.txt", "test": "t.txt"}}, {"steps": [{"reconstruct": None}]}]
)
def test_short_forms_fit(changes: dict[str, Any]) -> None:
    assert fits({**BASE, **changes}, SCHEMA)


@pytest.mark.parametrize(
    "changes",
    [
        {"unknown": 1},
        {"version": 2},
        {"steps": []},
        {"steps": [{"prune": None}]},
        {"steps": [{"prune": {"target": {"macs": 0.6}, "allign": 8}}]},
        {"steps": [{"prune": {"target": {"macs": 0.6}}, "finetune": {}}]},
        {"steps": [{"distil": {}}]},
        {"steps": ["quantize"]},
        {"task": {"kind": "ocr"}},
        {"data": {"train": 3}},
        {"gates": {"speedup": "fast"}},
    ],
)
def test_other_forms_do_not(changes: dict[str, Any]) -> None:
    assert not fits({**BASE, **changes}, SCHEMA)


def test_every_step_and_key_says_what_it_is() -> None:
    items = SCHEMA["properties"]["steps"]["items"]["anyOf"]
    assert [next(iter(item["properties"])) for item in items] == list(STEPS)
    assert all(item["description"] for item in items)
    for kind in SCHEMA["$defs"].values():
        assert all(field.get("description") for field in kind["properties"].values())


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(app, ["check", "--schema"], prog_name="compress")
    assert json.loads(result.stdout) == SCHEMA
