"""What `compress run` tells CI systems, however it ends."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from compress import artifacts, pipeline
from compress.artifacts import Gate
from compress.cli import app
from compress.errors import ModelError
from tests.pipeline import tiny

MET, MISSED = Gate("size_ratio", 0.5, 0.3, True), Gate("speedup", 1.5, 1.2, False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("ci"), crops=2)
    tiny.recipe(folder)
    return folder / "recipe.yaml"


@pytest.fixture(autouse=True)
def _summary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    monkeypatch.chdir(tmp_path)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, ["run", *map(str, args)], prog_name="compress")


def answer(monkeypatch: pytest.MonkeyPatch, *gates: Gate, fault: BaseException | None = None) -> None:
    """Let every run come to a report with these gates, or fail."""

    def fake(*_: object, **__: object) -> artifacts.Report:
        if fault is not None:
            raise fault
        return artifacts.Report("Demo", "c", "d", artifacts.Machine("cpu", (), 1, "os", {}), (), gates, "f")

    monkeypatch.setattr(pipeline, "run_recipe", fake)


def counts(file: Path) -> tuple[str | None, ...]:
    """Tests, failures and errors."""
    suite = ElementTree.parse(file).getroot()[0]
    return tuple(suite.get(key) for key in ("tests", "failures", "errors"))


def test_a_missed_gate_is_a_failure(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, MET, MISSED)
    result = run(recipe, "--junit", "ci/junit.xml")
    assert result.exit_code == 1
    assert counts(tmp_path / "ci" / "junit.xml") == ("3", "1", "0")
    assert (tmp_path / "summary.md").read_text().startswith("## Demo: 1 of 2 gates missed (speedup)\n")


def test_the_summary_is_appended(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("before\n")
    answer(monkeypatch, MET)
    assert run(recipe).exit_code == 0
    assert (tmp_path / "summary.md").read_text().startswith("before\n## Demo: 1 of 1 gates met\n")
    assert not list(tmp_path.glob("*.xml"))


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (ModelError("m.onnx: broken"), 2, "m.onnx: broken"),
        (MemoryError(), 2, "MemoryError"),
        (ZeroDivisionError("ours"), 2, "ZeroDivisionError: ours"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_fails_is_an_error(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: BaseException, code: int, said: str
) -> None:
    answer(monkeypatch, fault=fault)
    assert run(recipe, "--junit", "junit.xml").exit_code == code
    assert counts(tmp_path / "junit.xml") == ("1", "0", "1")
    error = ElementTree.parse(tmp_path / "junit.xml").find(".//error")
    assert error is not None
    assert error.get("message") == said
    assert f"## recipe: failed\n\n- {said}\n" in (tmp_path / "summary.md").read_text()


def test_so_is_a_recipe_with_problems(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, "--junit", "junit.xml", "--set", "prune.align=5", "--set", "seed=-1")
    assert result.exit_code == 2
    text = ElementTree.parse(tmp_path / "junit.xml").findtext(".//error")
    assert text is not None
    assert sorted(line.split(":")[1].strip() for line in text.splitlines()) == ["prune.align", "seed"]


def test_a_file_that_cannot_be_written(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer(monkeypatch, MET)
    result = run(recipe, "--junit", tmp_path)
    assert result.exit_code == 2
    assert f"Error: --junit: {tmp_path} is a folder." in result.stderr
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path))
    result = run(recipe)
    assert result.exit_code == 0, "a summary is no reason to lose a run"
    assert f"Note: GITHUB_STEP_SUMMARY: {tmp_path}: cannot be written" in result.stderr


def test_elsewhere_there_is_no_summary(recipe: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    answer(monkeypatch, MET)
    assert run(recipe).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
