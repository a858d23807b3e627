"""Every hard case is inspected, and imported, pruned and quantised, or refused in one line, as docs/models.md says."""

from typing import Any

import pytest

from tests.hard_cases import ocr_cases
from tests.hard_cases.cases import ALL
from tests.hard_cases.judging import Case, judge
from tests.hard_cases.table import HEAD, PAGE, line
from tests.hard_cases.torch_cases import DYNAMO

LONG = ("ShuffleNetV2", "SVTR: attention", "attention: ", "attention by Einsum", "LeViT")
"""Networks that take seconds; Paddle2ONNX's SVTR, tests/graph and the networks of tests/quant hold their operators."""


def marked(case: Case) -> Any:
    """The newer exporter takes seconds for the smallest network: one stays."""
    slow = (case.exporter == DYNAMO and "MobileNet" not in case.name) or case.name.startswith(LONG)
    slow |= case in ocr_cases.CASES and "DBNet++" not in case.name
    return pytest.param(case, id=f"{case.exporter}: {case.name}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("case", [marked(case) for case in ALL])
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
