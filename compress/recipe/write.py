"""A recipe as text, for people to read and change and for `load_recipe` to read back."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from compress.recipe.yaml_core import CoreDumper

WIDTH = 120
"""Columns of a line."""


def _dumped(content: Any, block: bool = False, width: int = WIDTH) -> str:
    """YAML; what is innermost on one line, or, with `block`, nothing."""
    flow = False if block else None
    text: str = yaml.dump(
        content, Dumper=CoreDumper, sort_keys=False, default_flow_style=flow, allow_unicode=True, width=width
    )
    return text


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
    return "".join(f"# {line}\n" for line in comment) + _dumped(dict(content))


def annotated_text(content: Mapping[str, Any], notes: Mapping[str, str], comment: Sequence[str] = ()) -> str:
    """`recipe_text` with a comment before each key, and each step, that has a note.

    Args:
        content: plain data, as `load_recipe` reads it.
        notes: top-level key, or `steps.` and a step's name -> what to say of it.
        comment: lines that go before all.

    >>> print(annotated_text({"version": 1, "steps": [{"prune": {"align": 8}}]}, {"steps.prune": "Smaller."}).strip())
    version: 1
    steps:
      # Smaller.
      - prune: {align: 8}
    """
    parts = [_comment(comment)]
    for key, value in content.items():
        parts.append(_comment([notes[key]] if key in notes else []))
        if key != "steps":
            parts.append(_dumped({key: value}, block=not isinstance(value, Mapping | list)))
            continue
        parts.append("steps:\n")
        for step in value:
            note = notes.get(f"steps.{next(iter(step))}")
            parts.append(textwrap.indent(_comment([note] if note else []) + _dumped([step], width=WIDTH - 16), "  "))
    return "".join(parts)


def _comment(lines: Sequence[str]) -> str:
    wrapped = [part for line in lines for part in textwrap.wrap(line, WIDTH - 4)]
    return "".join(f"# {line}\n" for line in wrapped)
