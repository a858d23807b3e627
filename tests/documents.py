"""The commands that the documentation shows, and how the program reads them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from compress.cli import app

ROOT = Path(__file__).parents[1]
PROGRAM = typer.main.get_command(app)
INLINE = re.compile(r"`(compress [a-z]+ [^`]+)`")


def blocks(text: str) -> Iterator[str]:
    """The code of a Markdown page: fenced, or indented by four spaces after an empty line."""
    fenced = False
    lines: list[str] = []
    before = ""
    for line in [*text.splitlines(), ""]:
        fence = line.lstrip().startswith("```")
        inside = not fence and (fenced or (line.startswith("    ") and (bool(lines) or not before.strip())))
        if inside:
            lines.append(line.strip())
        elif lines:
            yield "\n".join(lines)
            lines = []
        fenced ^= fence
        before = line


def shown_commands(text: str) -> list[str]:
    """The `compress ...` lines of a page's code, in order, as the program reads them: without comments and redirects.

    >>> shown_commands("```text\\nls\\ncompress run a.yaml \\\\\\n  --out b   # why\\n```\\nor `compress run c`")
    ['compress run a.yaml --out b']
    """
    lines = [line for block in blocks(text) for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [_words(line) for line in lines if line.startswith("compress ")]


def inline_commands(text: str) -> list[str]:
    """The commands within a page's sentences; `...` stands for what a command lacks.

    >>> inline_commands("Try `compress run a.yaml`, `compress init --data ...` or `--out`.")
    ['compress run a.yaml']
    """
    return [_words(command) for command in INLINE.findall(text) if "..." not in command]


def _words(line: str) -> str:
    """
    >>> _words("compress check --schema  > schema.json  # for editors")
    'compress check --schema'
    """
    words = shlex.split(line, comments=True)
    return shlex.join(words[: words.index(">")] if ">" in words else words)


def parse(line: str) -> Any:
    """The options of a command, as the program reads them; nothing is run."""
    _, name, *words = shlex.split(line)
    command = PROGRAM.commands[name]  # type: ignore[attr-defined]
    return command.make_context(name, words).params
