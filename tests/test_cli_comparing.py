"""`compress compare`: what it prints, and when it ends with 1."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compress import artifacts
from compress.artifacts import Gate
from compress.cli import app
from tests.report.test_regressions import make


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """A run, and one whose metric fell by two points."""
    gate = Gate("metric_min", 0.5, 0.9, True)
    for name, metric in (("a", 0.9), ("b", 0.88)):
        artifacts.save(make(gates=(gate,), val=metric), tmp_path / name / "report.json")
    return tmp_path / "a", tmp_path / "b"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["compare", *map(str, args)], prog_name="compress")


def test_regressions_come_first(runs: tuple[Path, Path]) -> None:
    result = run(*runs)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if "hmean" in line or "size" in line]
    assert rows[0].split() == ["val:", "hmean", "0.9000", "0.8800", "-0.0200", "REGRESSION"]
    assert "Regressions: val: hmean." in result.stderr


@pytest.mark.parametrize(("tolerance", "code"), [("0.01", 1), ("0.03", 0)])
def test_exit_codes(runs: tuple[Path, Path], tolerance: str, code: int) -> None:
    assert run(*runs, "--fail-on-regression", "--tolerance", tolerance).exit_code == code
    assert run(runs[1], runs[0] / "report.json", "--fail-on-regression").exit_code == 0, "the other way it got better"


def test_no_report_there(runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = run(runs[0], tmp_path / "none")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path / 'none'}: no such file. Give the folder of a finished run")
    (tmp_path / "c.json").write_text("{}")
    assert run(runs[0], tmp_path / "c.json").exit_code == 2
