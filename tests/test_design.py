"""The list of decisions: each has a number of its own, and whoever refers to one finds it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def decisions() -> list[int]:
    """The numbers in docs/design.md, in order."""
    section = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("\n## Decisions\n")[1].split("\n## ")[0]
    return [int(number) for number in re.findall(r"^(\d+)\. ", section, re.MULTILINE)]


def test_decisions_are_numbered_one_by_one() -> None:
    assert decisions() == list(range(1, len(decisions()) + 1))


def test_references_lead_to_decisions() -> None:
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "compress").rglob("*.py")]
    found = [
        int(number)
        for page in pages
        for group in re.findall(r"decisions? (\d+(?:(?:, | and )\d+)*)", page.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", group)
    ]
    assert found
    assert set(found) <= set(decisions())
