"""Files that are wrong on purpose are refused, honest ones are not, and docs/parity.md says what noticed."""

import pytest

from compress.measure.machine import machine_info, saturates_int8
from tests.export import mutants

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", mutants.FAMILIES)
def test_the_honest_file_passes(family: str) -> None:
    mutants.subject(family).check()


@pytest.mark.skipif(saturates_int8(machine_info()), reason="8-bit files are wrong on this CPU: it saturates in 16 bits")
@pytest.mark.parametrize("family", ["classification", "detection"])
def test_the_honest_file_of_8_bits_passes(family: str) -> None:
    mutants.subject(family, 8).check()


def test_every_mutant_is_refused_by_the_check_that_the_page_names() -> None:
    """`caught` fails for one that nobody notices. `python -m tests.export.mutants` writes the page anew."""
    found = mutants.table({(name, family): cell for name, family, cell in mutants.cells()})
    assert mutants.checks_of(found) == mutants.checks_of(mutants.page_table())


def test_the_suite_covers_every_family_and_every_kind_of_check() -> None:
    """By the page: each limit alone catches some mutant, and no column is empty."""
    rows = mutants.checks_of(mutants.page_table())[2:]
    assert len(rows) == len(mutants.MUTANTS) >= 30
    for column, family in enumerate(mutants.FAMILIES, 1):
        assert sum(not row[column].startswith(mutants.NOTHING) for row in rows) >= 4, family
    assert {"steps", "rounding", "share", "bias", "LSTM", "output"} <= {cell for row in rows for cell in row[1:]}
