"""`compress check` and `compress init`: what is said before anything is run."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compress.cli import app
from tests.pipeline import tiny

ZOO = Path(__file__).parents[1] / "compress" / "zoo" / "models"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="compress")


def fails(*args: str | Path) -> list[str]:
    """The problems that are listed by a command that ends with 2."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert not result.stdout
    return [line.removeprefix("Error: ") for line in result.stderr.splitlines() if line.startswith("Error: ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("preparing"), crops=4)
    tiny.recipe(folder)
    return folder


# --- check ------------------------------------------------------------------------------------------------------


def test_check_shows_the_plan_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    result = run("check", folder / "recipe.yaml", "--set", f"out={folder / 'out'}", "--set", "finetune.epochs=2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{folder / 'recipe.yaml'}: no problems."
    assert [line.split(":")[0] for line in lines[1:]] == [
        *(f"stage {n} of 5, {name}" for n, name in enumerate(("sensitivity", "prune", "finetune", "quantize"), 1)),
        *("stage 5 of 5, report", "time", "memory", "disk"),
    ]
    assert "finetune: 2 epochs of 8 images, about " in lines[3]
    assert sorted(folder.rglob("*")) == before


def test_check_lists_every_problem(folder: Path) -> None:
    found = fails("check", folder / "recipe.yaml", "--set", "prune.align=5", "--set", "data.val=none.txt")
    assert [line.split(":")[1].strip() for line in found] == ["prune.align", "data.val"]
    bad = folder / "bad.txt"
    bad.write_text("one column\n")
    found = fails("check", folder / "recipe.yaml", "--set", f"data.val={bad}", "--set", f"data.train={bad}")
    assert [line.split(":")[0] for line in found] == ["data.train", "data.val"]
    assert fails("check") == ["RECIPE: missing. Give the path of a recipe, or --schema."]
