"""Several plans at one target: scored, resumed, and the best kept; and what a report says of them."""

from pathlib import Path
from typing import Any

import onnx
import pytest

from compress import artifacts
from compress.artifacts import Candidates, PruningPlan, Report, Sensitivity
from compress.errors import ArtifactError, PlanError, RecipeError
from compress.graph import load_model
from compress.graph.lowering import lower_for_int8
from compress.pipeline import run_recipe
from compress.pipeline.evaluation import score_model
from compress.pipeline.stages.search import CANDIDATES_FILE, Search, check_search
from compress.recipe import SearchSettings
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny

SETTINGS = SearchSettings(candidates=4, recover="none", images=8)
STEPS: dict[str, dict[str, Any]] = {
    "sensitivity": {"ratios": [0.25, 0.5, 0.75], "measure": "divergence", "images": 12},
    "prune": {"target": {"macs": 0.6}, "align": 1, "search": {"candidates": 3, "images": 12}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("searching"))


@pytest.fixture(scope="module")
def scan(folder: Path, model: onnx.ModelProto, task: Task) -> Sensitivity:
    ratios = (0.25, 0.5, 0.75)
    return stepping.scan(model, task, folder / "scan", criterion="fpgm", ratios=ratios, measure="divergence", threads=1)


def search(
    model: onnx.ModelProto, task: Task, scan: Sensitivity, out: Path, settings: SearchSettings = SETTINGS, **more: Any
) -> tuple[PruningPlan, Candidates]:
    made = Search(model, task, task, settings, out / CANDIDATES_FILE, threads=1, **more)
    plan = stepping.prune(
        model,
        out / "pruned.onnx",
        target={"macs": 0.6},
        align=1,
        sensitivity=scan,
        input_shape=tiny.SHAPE,
        choose=made.choose,
    )
    return plan, artifacts.load(Candidates, out / CANDIDATES_FILE)


def test_the_best_of_the_tried_is_kept(model: onnx.ModelProto, task: Task, scan: Sensitivity, tmp_path: Path) -> None:
    """The first is what a plan without search is; each meets the target, and the kept one has the highest score."""
    plan, tried = search(model, task, scan, tmp_path)
    own = stepping.prune(
        model, tmp_path / "own.onnx", target={"macs": 0.6}, align=1, sensitivity=scan, input_shape=tiny.SHAPE
    )
    scores = [row.score for row in tried.rows]
    best = scores.index(max(scores))
    assert (tried.measure, tried.rows[0].macs) == ("divergence", own.macs_after)
    assert tried.rows[best].macs == plan.macs_after <= 0.6 * plan.macs_before
    assert plan.notes[-1].startswith(f"tried {len(scores)} plans (divergence, recover: none): ")
    assert (plan.groups == own.groups) == (best == 0)


def test_scores_are_those_of_the_pruned_networks(
    model: onnx.ModelProto, task: Task, scan: Sensitivity, tmp_path: Path
) -> None:
    """By the metric on validation images, where the scan is by it; the kept file scores what its row says."""
    by_metric = Sensitivity(**{**vars(scan), "metric_name": task.metric_name})
    _, tried = search(model, task, by_metric, tmp_path)
    score = score_model(load_model(tmp_path / "pruned.onnx"), task, 1).metric
    assert (tried.measure, max(row.score for row in tried.rows)) == ("metric", score)


@pytest.mark.parametrize("recover", ["reconstruct", "adaptive_bn"])
def test_a_recovered_candidate(
    model: onnx.ModelProto, task: Task, scan: Sensitivity, tmp_path: Path, recover: str
) -> None:
    """Scores differ from those of networks that are left as pruning made them; the file is not recovered."""
    settings = SearchSettings(candidates=1, recover=recover, images=12)
    for name in ("recovered", "plain"):
        (tmp_path / name).mkdir()
    plan, tried = search(model, task, scan, tmp_path / "recovered", settings)
    plain, untouched = search(model, task, scan, tmp_path / "plain", SearchSettings(candidates=1, recover="none"))
    assert tried.rows[0].score != untouched.rows[0].score
    assert plan.groups == plain.groups
    files = [(tmp_path / name / "pruned.onnx").read_bytes() for name in ("recovered", "plain")]
    assert files[0] == files[1]


@pytest.mark.slow
def test_a_stopped_search_goes_on(model: onnx.ModelProto, task: Task, scan: Sensitivity, tmp_path: Path) -> None:
    """With the rows that it has, each scored once; the same come out as in one go."""
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    expected = search(model, task, scan, tmp_path / "whole")[1]
    with pytest.raises(KeyboardInterrupt):
        search(model, task, scan, tmp_path / "stopped", on_progress=tiny.stop_when("candidate", 2))
    so_far = artifacts.load(Candidates, tmp_path / "stopped" / CANDIDATES_FILE)
    assert so_far.rows == expected.rows[:2]
    assert search(model, task, scan, tmp_path / "stopped")[1] == expected
    with pytest.raises(ArtifactError, match="stale"):
        search(model, task, scan, tmp_path / "stopped", seed=1)


def test_batch_norm_that_is_folded(model: onnx.ModelProto) -> None:
    settings = SearchSettings(recover="adaptive_bn")
    check_search(model, settings)
    with pytest.raises(PlanError, match="has no BatchNorm"):
        check_search(lower_for_int8(model), settings)


@pytest.mark.slow
def test_a_recipe_that_searches(folder: Path) -> None:
    """The table stands in the report; run again, nothing is tried again."""
    recipe = tiny.recipe(folder, "run", STEPS)
    messages: list[str] = []
    for _ in range(2):
        report = run_recipe(recipe, "test", lambda done, total, message: messages.append(message))
    assert isinstance(report, Report)
    assert report.candidates is not None
    assert sum(message.startswith("candidate ") for message in messages) == len(report.candidates.rows) == 3
    for name in ("report.md", "report.html"):
        assert "Plans that were tried" in (recipe.out / name).read_text()
    changed = {**STEPS, "prune": {**STEPS["prune"], "search": {"candidates": 2, "images": 12}}}
    with pytest.raises(ArtifactError, match="stale"):
        run_recipe(tiny.recipe(folder, "run", changed), "test")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"prune": STEPS["prune"]}, r"prune.search: needs a `sensitivity` step before it"),
        (
            {**STEPS, "prune": {"target": {"metric_drop": 0.1}, "search": {"candidates": 3}}},
            r'prune.search: not with \{"metric_drop": 0.1\}: plans are compared at targets of macs, params or latency',
        ),
        (
            {**STEPS, "prune": {**STEPS["prune"], "search": {"recover": "adapt"}}},
            r'prune.search.recover: got "adapt"',
        ),
    ],
)
def test_recipes_that_cannot_search(folder: Path, steps: dict[str, dict[str, Any]], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny.recipe(folder, "bad", steps)
