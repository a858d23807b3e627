"""`--set key.sub=value`: change one key of a recipe from the command line."""

from pathlib import Path
from typing import Any

import yaml

from compress.recipe.problems import show
from compress.recipe.raw import resolve_paths, steps_of
from compress.recipe.schema import STEPS
from compress.recipe.yaml_core import load_yaml

YAML_SIGNS = ("*", "&", "!", "%", "@", "`")
"""What a YAML text without quotes must not start with."""


def apply_override(data: dict[str, Any], text: str) -> tuple[str, str | None]:
    """Change `data` as `text` says; a path in it starts from the current directory.

    Steps are addressed by name: `prune.align=8`, or `steps.prune.align=8`.

    Returns:
        The key, and what is wrong with the override, if anything is. Whether the key exists and the value
        fits is checked with the rest of the recipe.
    """
    key, equals, value_text = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if len(parts) > 1 and parts[0] == "steps":
        parts = parts[1:]
    try:
        value = load_yaml(value_text)
    except yaml.YAMLError:
        if equals and all(parts) and value_text.strip().startswith(YAML_SIGNS):
            quoted = f"{key}='\"{value_text.strip()}\"'"
            return ".".join(parts), f"got {show(value_text)}, which YAML takes for a sign of its own. Use {quoted}."
        equals = ""
    if not equals or not all(parts):
        return key, f"got {show(text)}. Must be key=value, the value in YAML. Use e.g. prune.align=8."
    return ".".join(parts), _put(data, parts, _resolved(parts, value))


def _resolved(parts: list[str], value: Any) -> Any:
    """The value, with paths in it resolved as those of the recipe are."""
    tree: Any = value
    for part in reversed(parts):
        tree = {part: tree}
    tree = resolve_paths(tree, Path())
    for part in parts:
        tree = tree[part]
    return tree


def _put(data: dict[str, Any], parts: list[str], value: Any) -> str | None:
    """Set the key; return what is in the way, if anything is."""
    holder: Any = data
    if parts[0] in STEPS:
        steps = data.get("steps")
        entries = [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
        holder = next((step for step in entries if list(step) == [parts[0]]), None)
        if holder is None:
            names = ", ".join(name for name, _ in steps_of(data)) or "none"
            return f"the recipe has no such step. It has: {names}. Add the step to the file."
    for part in parts[:-1]:
        if holder.get(part) is None:
            holder[part] = {}
        holder = holder[part]
        if not isinstance(holder, dict):
            return f"`{part}` is {show(holder)}, which holds no keys. Set `{part}` itself."
    holder[parts[-1]] = value
    return None
