"""The form of a recipe as JSON Schema, for editors: names, types, defaults and meanings of keys.

Limits of values and what keys ask of each other are not in it; `load_recipe` checks those.
"""

from typing import Any

from compress.recipe.schema import STEPS, Recipe

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """JSON Schema of a recipe as it is written.

    pydantic knows a step by its settings; in a recipe they stand under its name, or there is the name alone.
    """
    schema = Recipe.model_json_schema()
    choices = [_step_schema(name, kind.__name__, kind.__doc__ or "") for name, kind in STEPS.items()]
    steps = schema["properties"]["steps"]
    schema["properties"]["steps"] = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": choices},
        "title": "Steps",
        "description": steps["description"],
    }
    return {"$schema": DRAFT, **schema, "title": "A recipe of compress"}


def _step_schema(name: str, kind: str, text: str) -> dict[str, Any]:
    """`name: settings`; settings may be left out where all have defaults."""
    settings: dict[str, Any] = {"$ref": f"#/$defs/{kind}"}
    if not any(field.is_required() for field in STEPS[name].model_fields.values()):
        settings = {"anyOf": [settings, {"type": "null"}]}
    return {
        "type": "object",
        "properties": {name: settings},
        "required": [name],
        "additionalProperties": False,
        "description": text.strip().splitlines()[0],
    }
