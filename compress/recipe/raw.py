"""A recipe as YAML gives it, before it is checked: nothing here may trust its types."""

import copy
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""`package.module:factory`"""
INPUT_KEYS = (
    ("model",),
    ("weights",),
    ("task", "charset"),
    ("data", "train"),
    ("data", "val"),
    ("data", "test"),
    ("data", "unlabelled"),
    ("data", "root"),
    ("data", "images"),
)
PATH_KEYS = (*INPUT_KEYS, ("out",))


def at(data: Any, *keys: str) -> Any:
    """What stands under these keys, or None.

    >>> at({"data": {"val": "a.txt"}}, "data", "val")
    'a.txt'
    """
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def steps_of(data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, settings) of every step that is well-formed so far.

    >>> steps_of({"steps": [{"prune": {"align": 8}}, "quantize", {"finetune": None}]})
    [('prune', {'align': 8}), ('finetune', {})]
    """
    steps = data.get("steps")
    entries = [step for step in steps if isinstance(step, dict) and len(step) == 1] if isinstance(steps, list) else []
    pairs = [next(iter(entry.items())) for entry in entries]
    return [(str(name), settings if isinstance(settings, dict) else {}) for name, settings in pairs]


def resolve_paths(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """A copy in which every path that is there starts from the current directory instead of from `base`.

    >>> resolve_paths({"model": "../a.onnx", "data": {"val": ["v.txt"]}}, Path("recipes"))
    {'model': 'a.onnx', 'data': {'val': ['recipes/v.txt']}}
    """
    data = copy.deepcopy(data)
    for *parents, last in PATH_KEYS:
        holder = at(data, *parents)
        if isinstance(holder, dict) and last in holder:
            holder[last] = _resolve(base, holder[last])
    return data


def _resolve(base: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [_resolve(base, item) for item in value]
    if isinstance(value, dict):
        return {name: _resolve(base, item) for name, item in value.items()}
    if not isinstance(value, str) or not value or FACTORY.fullmatch(value):
        return value
    return os.path.normpath(base / Path(value).expanduser())
