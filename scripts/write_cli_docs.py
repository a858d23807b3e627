"""Write docs/cli.md and the table of keys in docs/recipes.md from the program itself.

python scripts/write_cli_docs.py            write them
python scripts/write_cli_docs.py --check    exit with 1 if they are out of step
"""

import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from compress.cli import app
from compress.recipe import (
    CompareSettings,
    DataSettings,
    GateSettings,
    PactSettings,
    PreprocessSettings,
    PruneTarget,
    Recipe,
    SearchSettings,
    TaskSettings,
)
from compress.recipe.schema import STEPS

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- keys: written by scripts/write_cli_docs.py -->", "<!-- end of keys -->"
CLI_HEAD = """# Commands

Written by `make docs` from `compress --help`; `make check` fails when the two differ.
"""


def command_names() -> list[str]:
    """The commands in the order of `compress --help`."""
    return [str(command.name or command.callback.__name__) for command in app.registered_commands if command.callback]


def help_text(*args: str) -> str:
    """What `compress ... --help` prints at 80 columns, whatever the terminal."""
    result = CliRunner().invoke(
        app, [*args, "--help"], prog_name="compress", env={"COLUMNS": "80", "NO_COLOR": "1"}, terminal_width=80
    )
    if result.exit_code:
        raise SystemExit(f"compress {' '.join(args)} --help: {result.output}")
    return result.output.strip()


def cli_page() -> str:
    """docs/cli.md."""
    parts = [CLI_HEAD, f"```text\n{help_text()}\n```\n"]
    parts += [f"## {name}\n\n```text\n{help_text(name)}\n```\n" for name in command_names()]
    return "\n".join(parts)


def key_tables() -> str:
    """Every key of a recipe: name as `--set` takes it, type, default, meaning."""
    sections: list[tuple[str, type[BaseModel]]] = [
        ("", Recipe),
        ("task", TaskSettings),
        ("task.preprocess", PreprocessSettings),
        ("data", DataSettings),
        *((name, kind) for name, kind in STEPS.items()),
        ("prune.target", PruneTarget),
        ("prune.search", SearchSettings),
        ("quantize.pact", PactSettings),
        ("compare", CompareSettings),
        ("gates", GateSettings),
    ]
    return "\n\n".join(_table(prefix, kind) for prefix, kind in sections)


def _table(prefix: str, kind: type[BaseModel]) -> str:
    lines = [f"### {prefix or 'The recipe'}", "", (kind.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in kind.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        if "default" in re.sub(r"\([^()]*\)", "", str(field.description)):  # said there, and not a fixed value
            default = ""
        lines.append(f"| `{key}` | {type_name(field.annotation)} | {default} | {field.description} |")
    return "\n".join(lines)


def type_name(annotation: Any) -> str:
    """A type in plain words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(item) for item in arguments if item is not type(None))
    if origin is Literal:
        return " or ".join(f"`{item}`" for item in arguments)
    if origin is dict:
        return f"{type_name(arguments[1])}, or these by name"
    if origin is tuple:
        return f"list of {type_name(arguments[0])}s" if typing.get_origin(arguments[0]) is None else "list"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path"}[annotation]


def _value(value: Any) -> str:
    if value in (None, "", (), {}) or isinstance(value, BaseModel):
        return ""
    if isinstance(value, tuple):
        return f"`[{', '.join(f'{item:g}' if isinstance(item, float) else str(item) for item in value)}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def recipes_page() -> str:
    """docs/recipes.md with its tables anew; the words around them are written by hand."""
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n\n{key_tables()}\n\n{END}{rest.split(END)[1]}"


def main(check: bool) -> int:
    """Write or compare the pages; return the exit code."""
    stale = []
    for path, text in ((DOCS / "cli.md", cli_page()), (DOCS / "recipes.md", recipes_page())):
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        typer.echo(f"Out of step with the program: {', '.join(stale)}. Run: make docs", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
