"""Tables on a terminal, and where output goes to a file."""

import io

import pytest
from rich.console import Console

from compress.report import tables, terminal
from compress.report.inspection import GroupSummary, Inspection

WHY = "a layer with a long name is a LayerNorm over them, and that is said in a long sentence of many more words"


def test_why_a_group_is_not_pruned_stands_to_the_left() -> None:
    groups = (GroupSummary("a", 8, 0.5), GroupSummary("b", 16, 0.25, WHY))
    stream = io.StringIO()
    terminal.print_inspection(Inspection((), (), {}, None, groups), Console(file=stream, width=80))
    lines = stream.getvalue().splitlines()
    start = next(line for line in lines if "not pruned because" in line).index("not pruned because")
    said = [line[start:].rstrip() for line in lines[lines.index(next(line for line in lines if WHY[:9] in line)) :]]
    assert " ".join(filter(None, said)) == WHY
    assert not any(line.startswith(" ") for line in said)
    assert "  8           50.0%" in stream.getvalue(), "figures stand to the right"


def test_columns_of_words_stay_where_others_are_left_out() -> None:
    table = tables.Table("t", ("a", "b", "c"), (("1", "2", "3"),), words=("c",))
    assert tables.without(table, "b") == tables.Table("t", ("a", "c"), (("1", "3"),), words=("c",))


@pytest.mark.parametrize(
    ("columns", "width"), [(None, 120), ("200", 200), ("60", 60), ("", 120), ("0", 120), ("x", 120)]
)
def test_a_file_is_as_wide_as_columns_says(columns: str | None, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert terminal.wide_console().width == width
