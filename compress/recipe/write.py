"""A recipe as text, for people to read and change and for `load_recipe` to read back."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

WIDTH = 120
"""Columns of a line."""


def recipe_text(content: Mapping[str, Any], comment: Sequence[str] = ()) -> str:
    """YAML of a recipe: its keys in the order given, what is innermost on one line.

    Args:
        content: plain data, as `load_recipe` reads it.
        comment: lines that go before it.

    >>> print(recipe_text({"version": 1, "task": {"kind": "detection", "side": 960}}, ["A detector."]).strip())
    # A detector.
    version: 1
    task: {kind: detection, side: 960}
    """
    text = yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None, allow_unicode=True, width=WIDTH)
    return "".join(f"# {line}\n" for line in comment) + text
