"""YAML as people write it today: the core schema of YAML 1.2, where PyYAML follows 1.1.

In YAML 1.1 `010` is eight, `1:30` is ninety, `1e-3` is a text, `no` is false and `2026-11-23` a date. Here they are
ten, a text, a thousandth, a text and a text.

Source: YAML 1.2.2, section 10.3.2, "Tag Resolution".
"""

import re
from typing import Any

import yaml

_TAGS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    "merge": (r"<<", ["<"]),
}
"""Tag -> what a plain scalar of it looks like, and what it may begin with; the first that fits counts."""


class CoreLoader(yaml.SafeLoader):
    """Loads what `yaml.SafeLoader` does, by the core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it


class CoreDumper(yaml.SafeDumper):
    """Dumps what `yaml.SafeDumper` does; texts that either schema takes for something else are quoted."""


def load_yaml(text: str) -> Any:
    """What a YAML text says.

    >>> load_yaml("[010, 0o10, 1:30, 1e-3, no, true, ~, 2026-11-23, -1.5, 0x1F]")
    [10, 8, '1:30', 0.001, 'no', True, None, '2026-11-23', -1.5, 31]

    Raises:
        yaml.YAMLError: it is not YAML, or holds anything but mappings, sequences and plain values.
    """
    return yaml.load(text, Loader=CoreLoader)


def _construct_int(loader: CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text, base)


for _tag, (_pattern, _first) in _TAGS.items():
    for _kind in (CoreLoader, CoreDumper):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)
CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
