"""Commands in README.md and docs/: the program knows every option and key. Some are run: test_docs_first_steps.py."""

import pytest

from compress.recipe import load_recipe
from tests.documents import ROOT, inline_commands, parse, shown_commands

AT_THEIR_COMMIT = {"history.md"}
"""Pages whose commands were run at a commit that they name, which had other options."""
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.name not in AT_THEIR_COMMIT
]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [
    pytest.param(line, id=f"{name}-{line}")
    for name, text in TEXTS.items()
    for line in dict.fromkeys([*shown_commands(text), *inline_commands(text)])
]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_program_knows_the_command(line: str) -> None:
    given = parse(line)
    recipe = given.get("recipe")
    if recipe is not None and (ROOT / recipe).is_file():
        assert load_recipe(ROOT / recipe, given["changes"], check_files=False)
