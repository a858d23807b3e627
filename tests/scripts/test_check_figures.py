"""`scripts/check_figures.py`: every published figure names its run, and says what has changed since."""

import dataclasses
import doctest
import importlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from compress import artifacts
from compress.artifacts import Cost, Figure, Interval, Machine, Report, Score, Sensitivity, SetResult, StageResult
from compress.errors import CompressError
from compress.pipeline import run_recipe
from compress.pipeline.code import stage_code
from compress.pipeline.state import Record
from tests.pipeline import tiny

ROOT = Path(__file__).parents[2]
TABLE = "| file | hmean |\n| --- | ---: |\n| a | 0.8685 |\n"


MODULES = ("figures.published", "figures.pages", "figures.run_tables", "figures.recording", "check_figures")


@pytest.fixture(scope="module")
def modules() -> Iterator[list[ModuleType]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield [importlib.import_module(name) for name in MODULES]


@pytest.fixture(scope="module")
def figures(modules: list[ModuleType]) -> Any:
    """What the script's modules hold, by name."""
    return SimpleNamespace(**{name: value for module in modules for name, value in vars(module).items()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a recipe that was run: pages, recipe.yaml, out/."""
    root = tmp_path_factory.mktemp("repository")
    steps = {name: tiny.STEPS[name] for name in ("sensitivity", "prune", "quantize")}
    steps["quantize"] = {**steps["quantize"], "epochs": 0, "distill": 0.0}
    recipe = tiny.recipe(tiny.write_inputs(root), steps=steps)
    run_recipe(recipe, "compress run recipe.yaml --set threads=1")
    (root / "docs").mkdir()
    page = f"# P\n\n<!-- figures: tiny -->\n<!-- table: summary tiny -->\n{TABLE}\nSo it is .8685.\n<!-- /figures -->\n"
    (root / "README.md").write_text(page)
    for name in ("benchmarks.md", "history.md"):
        (root / "docs" / name).write_text("# Nothing\n")
    (root / ".gitignore").write_text("out/\n")
    git(root, "init", "-q")
    commit(root)
    return root


def git(root: Path, *words: str) -> None:
    author = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(root), *author, *words], check=True, capture_output=True)


def commit(root: Path) -> None:
    git(root, "add", "-A")
    git(root, "commit", "-qm", "x")


def published(figures: Any, **changes: Any) -> Any:
    values = {
        "title": "detector",
        "command": "compress run r.yaml",
        "recipes": (),
        "changes": (),
        "commit": "abc1234",
        "date": "2026-11-21",
        "machine": "m",
        "settings": {},
        "code": {},
    }
    return figures.Published(**{**values, **changes})


def mark(figures: Any, text: str, changed: tuple[str, ...] = (), **changes: Any) -> str:
    registry = figures.Registry({"det": published(figures, **changes), "cls": published(figures)})
    return figures.marked(text, registry, lambda name: changed if name == "det" else ())


def test_doctests(modules: list[ModuleType]) -> None:
    found = [doctest.testmod(module) for module in modules]
    assert sum(each.attempted for each in found) > 0
    assert sum(each.failed for each in found) == 0


def test_each_table_says_its_run_and_a_stale_one_what_changed(figures: Any) -> None:
    page = f"<!-- figures: det -->\n{TABLE}\nText .8685.\n\n{TABLE}<!-- /figures -->\n"
    line = "- `det`: `compress run r.yaml` at commit `abc1234`, 2026-11-21"
    fresh = mark(figures, page)
    assert fresh.count(f"| a | 0.8685 |\n\n{line} <!-- status -->\n\n") == 2
    assert "stale" not in fresh
    stale = mark(figures, fresh, ("`tasks.db_loss`",))
    assert stale.count(f"{line}; **stale**, changed since: `tasks.db_loss` <!-- status -->") == 2
    assert mark(figures, stale, ("`tasks.db_loss`",)) == stale
    assert mark(figures, stale) == fresh, "and back"


def test_many_changes_are_counted(figures: Any) -> None:
    found = mark(figures, f"<!-- figures: det -->\n{TABLE}<!-- /figures -->\n", tuple("abcdef"))
    assert "changed since: a, b, c, d and 2 more <!-- status -->" in found


def test_a_table_of_several_runs_has_a_line_for_each(figures: Any) -> None:
    found = mark(figures, f"<!-- figures: det cls -->\n{TABLE}<!-- /figures -->\n", ("x",))
    lines = [line for line in found.splitlines() if line.endswith("<!-- status -->")]
    assert [line.split(":")[0] for line in lines] == ["- `det`", "- `cls`"]
    assert [("stale" in line) for line in lines] == [True, False]


def test_history_names_its_commits(figures: Any) -> None:
    found = mark(figures, f"<!-- figures: history 48d81d5 3c55df8 -->\n{TABLE}<!-- /figures -->\n")
    assert "- history: measured at commit `48d81d5`, `3c55df8`, not measured again since <!-- status -->" in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE, "a table outside of any block"),
        ("It has .8685 now.\n", "a figure outside of any block"),
        (f"<!-- figures: det -->\n{TABLE}", "has no <!-- /figures -->"),
        (f"<!-- figures: det -->\n<!-- figures: det -->\n{TABLE}", "the block before it has no"),
        (f"<!-- figures: rec -->\n{TABLE}<!-- /figures -->\n", r"rec: not recorded .* \(recorded: det, cls\)"),
        (f"<!-- figures: history -->\n{TABLE}<!-- /figures -->\n", "must name commits"),
        (f"<!-- figures: det -->\n<!-- table: stage det -->\n{TABLE}<!-- /figures -->\n", "det has no such table"),
    ],
)
def test_figures_without_a_run_are_errors(figures: Any, text: str, message: str) -> None:
    with pytest.raises(CompressError, match=message):
        mark(figures, text, tables={"stages": (("file", "hmean"),)})


def test_a_table_of_words_needs_no_block(figures: Any) -> None:
    words = "| command | what it does |\n| --- | --- |\n| `run` | writes int8 files |\n"
    assert words.strip() in mark(figures, words)


def test_a_table_that_a_command_made_stays_as_it_is(figures: Any) -> None:
    assert TABLE in mark(figures, f"<!-- figures: det -->\n<!-- table: stages det -->\n{TABLE}<!-- /figures -->\n")


def test_code_and_versions_are_no_figures(figures: Any) -> None:
    text = "Version 1.31.1, 2.0.1, 10.1234.5.\n\n    a 0.8685\n\n```\n| a | 0.8685 |\n```\n"
    assert mark(figures, text) == text


def test_a_table_is_written_from_what_was_recorded(figures: Any) -> None:
    cells = (("file", "hmean"), ("b", "0.9060"))
    page = f"<!-- figures: det -->\n<!-- table: stages det -->\n{TABLE}<!-- /figures -->\n"
    found = mark(figures, page, tables={"stages": cells})
    assert "| file | hmean |\n| --- | ---: |\n| b | 0.9060 |\n" in found
    assert "0.8685" not in found


def test_recording_writes_the_rows_and_a_change_makes_them_stale(figures: Any, finished: Path, capsys: Any) -> None:
    """The whole story: record, check, change a setting, check fails, mark, check passes."""
    assert figures.main(["--record", "tiny", "--run", str(finished / "out"), "--title", "tiny net"], finished) == 0
    page = (finished / "README.md").read_text()
    report = artifacts.load(Report, finished / "out" / "report.json")
    first, last = report.stages[0], report.stages[-1]
    row = f"{first.score.name} {first.score.metric:.4f} -> {last.score.metric:.4f}"
    assert "| tiny net | " in page
    assert row in page
    assert "`compress run recipe.yaml --set threads=1` at commit" in page
    assert "stale" not in page
    assert figures.main(["--check"], finished) == 0
    commit(finished)

    recipe = finished / "recipe.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("macs: 0.7", "macs: 0.6"))
    assert figures.main(["--check"], finished) == 1
    assert "Run: python scripts/check_figures.py" in capsys.readouterr().err
    assert figures.main([], finished) == 0
    assert (
        "**stale**, changed since: recipe's `steps.prune.target.macs` <!-- status -->"
        in (finished / "README.md").read_text()
    )
    assert figures.main(["--check"], finished) == 0
    recipe.write_text(text)
    assert figures.main([], finished) == 0
    assert (finished / "README.md").read_text() == page


def test_a_changed_module_makes_figures_stale(figures: Any, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = figures.record_run(finished / "out", "", finished)
    assert figures.changes_since(run, finished) == ()

    def changed(stage: str, tasks: tuple[str, ...], read: Any = None) -> dict[str, str]:
        return stage_code(stage, tasks, read) | {"compress.train.fit": "000000000000"}

    monkeypatch.setattr("figures.published.stage_code", changed)
    assert figures.changes_since(run, finished) == ("`train.fit`",)


@pytest.mark.parametrize("file", ["pruned.json", "int8.json", "sensitivity.json"])
def test_a_run_of_other_code_is_not_recorded(figures: Any, finished: Path, file: str) -> None:
    path = finished / "out" / file
    kept = path.read_bytes()
    kind = Sensitivity if file == "sensitivity.json" else Record
    record = artifacts.load(kind, path)
    try:
        other = {**record.code, "compress.graph.load": "000000000000"}
        artifacts.save(dataclasses.replace(record, code=other), path)
        stage = file.removesuffix(".json")
        with pytest.raises(CompressError, match=rf"{stage} was computed by other code .*\(compress.graph.load\)"):
            figures.record_run(finished / "out", "", finished)
    finally:
        path.write_bytes(kept)


def test_a_run_with_other_settings_or_of_uncommitted_files_is_not_recorded(figures: Any, finished: Path) -> None:
    recipe = finished / "recipe.yaml"
    text = recipe.read_text()
    try:
        recipe.write_text(text + "# A comment.\n")
        with pytest.raises(CompressError, match=r"not committed: recipe.yaml"):
            figures.record_run(finished / "out", "", finished)
        recipe.write_text(text.replace("macs: 0.7", "macs: 0.6"))
        with pytest.raises(CompressError, match=r"out: made with other settings than recipe.yaml has now"):
            figures.record_run(finished / "out", "", finished)
    finally:
        recipe.write_text(text)


def test_the_pages_of_this_project_are_marked(figures: Any) -> None:
    """What `make check` calls; the tables of figures are in blocks, and their marks are right."""
    assert figures.main(["--check"]) == 0


def test_the_summary_shows_test_sets_before_validation_the_largest_drop_first(figures: Any) -> None:
    def drops(value: float, drop: float) -> dict[str, Figure]:
        return {"alnum": Figure(0.9, 0.0), "exact": Figure(value, drop, None, Interval(drop - 0.01, drop + 0.02))}

    def one(name: str, drop: float) -> SetResult:
        stages = {"baseline": {"alnum": Figure(0.9, 0.0), "exact": Figure(0.5, 0.0)}, "int8": drops(0.5 - drop, drop)}
        return SetResult(name, 100, "", stages, "exact")

    stage = StageResult("baseline", "a.onnx", Cost(1, 1000, 4000, ()), Score(0.5, "exact", 100))
    last = dataclasses.replace(stage, stage="int8", cost=Cost(1, 500, 1000, ()))
    sets = (one("val", -0.02), one("street", 0.01), one("lines", 0.03))
    report = Report("r", "compress run r.yaml", "", Machine("", (), 1, "", {}), (stage, last), (), "", sets=sets)
    header, *rows = figures.summary(report, "recogniser")
    assert [row[1] for row in rows] == ["100 lines (test)", "100 street (test)", "100 (validation)"]
    assert rows[0][2:] == ("exact 0.5000 -> 0.4700, +3.0 [+2.0, +5.0]", "4 -> 1", "0.50x", "-", "-")
    assert {len(row) for row in rows} == {len(header)}


def _made_by_other_code(out: Path, to: Path) -> dict[str, str]:
    """A copy of a run that says other code made it; returns that code."""
    shutil.copytree(out, to)
    code: dict[str, str] = {}
    for name, kind in (("sensitivity", Sensitivity), ("pruned", Record), ("int8", Record)):
        found = artifacts.load(kind, to / f"{name}.json")
        older = {**found.code, "compress.graph.load": "000000000000"}
        artifacts.save(dataclasses.replace(found, code=older), to / f"{name}.json")
        code |= older
    return code


def test_figures_stand_where_short_runs_before_and_after_a_change_are_the_same(
    figures: Any, finished: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", finished / "out"
    code = _made_by_other_code(after, before)
    run = dataclasses.replace(figures.record_run(after, "", finished), code=dict(sorted(code.items())))
    assert figures.changes_since(run, finished) == ("`graph.load`",)
    verified = figures.verify_run(run, [before], [after], finished)
    assert figures.changes_since(verified, finished) == ()
    line = figures.status_line("tiny", verified, ())
    assert "; code changed since: a short run gives the same files then and at `" in line
    assert verified.verified_by == "compress run recipe.yaml --set threads=1"


def test_of_figures_of_several_recipes_each_is_run(figures: Any, finished: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", finished / "out"
    code = _made_by_other_code(after, before)
    run = dataclasses.replace(figures.record_run(after, "", finished), code=dict(sorted(code.items())))
    two = dataclasses.replace(run, recipes=("recipe.yaml", "other.yaml"), settings={})
    with pytest.raises(CompressError, match=r"need one run each of recipe\.yaml, other\.yaml"):
        figures.verify_run(two, [before], [after], finished)
    with pytest.raises(CompressError, match=r"need one run each of recipe\.yaml"):
        figures.verify_run(run, [before, before], [after, after], finished)


def test_short_runs_of_versions_with_other_keys_are_known_by_their_command(
    figures: Any, finished: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", finished / "out"
    code = _made_by_other_code(after, before)
    run = dataclasses.replace(figures.record_run(after, "", finished), code=dict(sorted(code.items())))
    report = artifacts.load(Report, before / "report.json")
    artifacts.save(dataclasses.replace(report, settings="of an earlier version"), before / "report.json")
    assert figures.changes_since(figures.verify_run(run, [before], [after], finished), finished) == ()
    other = dataclasses.replace(report, settings="other", command=f"{report.command} --set finetune.lr=0.5")
    artifacts.save(other, before / "report.json")
    with pytest.raises(CompressError, match=r"not the same run of recipe\.yaml"):
        figures.verify_run(run, [before], [after], finished)


def test_figures_do_not_stand_where_a_file_differs_or_other_code_made_the_earlier_run(
    figures: Any, finished: Path, tmp_path: Path
) -> None:
    before, after = tmp_path / "before", finished / "out"
    code = _made_by_other_code(after, before)
    recorded = figures.record_run(after, "", finished)
    with pytest.raises(CompressError, match=r"sensitivity was not computed by the code that made the figures \(compr"):
        figures.verify_run(recorded, [before], [after], finished)
    run = dataclasses.replace(recorded, code=code)
    record = artifacts.load(Record, before / "pruned.json")
    artifacts.save(dataclasses.replace(record, content="another"), before / "pruned.json")
    with pytest.raises(CompressError, match=r"pruned: .* differ. The change moves figures: run it again"):
        figures.verify_run(run, [before], [after], finished)


def test_what_a_recipe_has_now_and_had_not_then_makes_figures_stale(figures: Any, finished: Path) -> None:
    recipe = finished / "recipe.yaml"
    text = recipe.read_text()
    run = figures.record_run(finished / "out", "", finished)
    try:
        recipe.write_text(text.replace("steps:\n", "steps:\n- teacher: {epochs: 1}\n"))
        assert "recipe's `steps.teacher.epochs`" in figures.changes_since(run, finished)
        recipe.write_text(re.sub(r"( +)val: (.*)", r"\1val: \2\n\1test: {street: \2}", text))
        assert figures.changes_since(run, finished) == ("recipe's `data.test.street`",)
    finally:
        recipe.write_text(text)


def test_a_key_that_recipes_did_not_have_then_is_no_change_at_its_default(figures: Any, finished: Path) -> None:
    run = figures.record_run(finished / "out", "", finished)
    for key in ("steps.prune.align", "steps.quantize.pact.l2", "steps.quantize.weight_bits", "data.max_skipped"):
        older = {name: value for name, value in run.settings.items() if name != key}
        assert len(older) == len(run.settings) - 1
        changed = figures.changes_since(dataclasses.replace(run, settings=older), finished)
        default = key not in ("steps.prune.align",)
        assert changed == (() if default else (f"recipe's `{key}`",)), key


def test_a_block_of_prose_alone_says_when_it_is_stale(figures: Any) -> None:
    found = mark(figures, "<!-- figures: det -->\nIt reaches .9070.\n<!-- /figures -->\n", ("`train.fit`",))
    assert "It reaches .9070.\n\n- `det`: " in found
    assert "**stale**, changed since: `train.fit` <!-- status -->\n<!-- /figures -->" in found
    assert mark(figures, found, ("`train.fit`",)) == found
