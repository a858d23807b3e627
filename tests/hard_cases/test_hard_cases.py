"""Every hard case is inspected, and imported, pruned and quantised, or refused in one line, as docs/models.md says."""

import pytest

from tests.hard_cases.cases import ALL
from tests.hard_cases.judging import Case, judge
from tests.hard_cases.table import HEAD, PAGE, line


@pytest.mark.slow
@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.exporter}: {case.name}")
def test_a_hard_case(case: Case) -> None:
    assert line(case, judge(case)) in PAGE.read_text(encoding="utf-8").splitlines(), (
        "docs/models.md says otherwise: `python -m tests.hard_cases.table` writes it"
    )


def test_the_table_holds_every_case_and_no_other() -> None:
    assert len(ALL) >= 40
    assert len({(case.exporter, case.name) for case in ALL}) == len(ALL)
    rows = [row for row in PAGE.read_text(encoding="utf-8").splitlines() if row.startswith("| ")]
    assert rows[0] == HEAD
    assert len(rows) == 1 + len(ALL)
