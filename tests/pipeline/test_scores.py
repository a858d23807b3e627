"""Test sets: scored at the end, with intervals, kept, and refused before anything is trained."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress import artifacts
from compress.artifacts import VAL, Report, Score
from compress.data.synthetic import write_dataset
from compress.errors import DataError
from compress.graph import read_model
from compress.measure.intervals import share_tallies
from compress.pipeline import run_recipe
from compress.pipeline.stages import scores
from compress.pipeline.stages.gates import check_gates
from compress.pipeline.stages.scores import compare_files
from compress.pipeline.state import Run
from compress.pipeline.tasks import recipe_task
from compress.report import render_html, render_markdown, tables
from compress.tasks.base import Examination
from compress.tasks.words import score_texts
from tests.pipeline import tiny
from tests.pipeline.test_gates import RESULTS
from tests.report.test_report import Page, in_terminal

STEPS = {"quantize": {**tiny.STEPS["quantize"], "epochs": 0}}
TESTS = {"far": ["far/labels.txt"], "near": "near/labels.txt"}
GATES = {"metric_drop": {"val": 1.0, "near": 1.0}, "metric_min": 0.001, "worst_set": 1.0}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.write_inputs(tmp_path_factory.mktemp("scoring"))
    write_dataset(folder / "near", 10, 3)
    write_dataset(folder / "far", 7, 4)
    return folder


def recipe(folder: Path, out: str = "out", tests: Any = TESTS, **changes: Any) -> Any:
    data = {"train": "train/labels.txt", "val": "val/labels.txt", "test": tests}
    return tiny.recipe(folder, out, STEPS, **{"data": data, "gates": GATES, **changes})


@pytest.fixture(scope="module")
def done(inputs: Path) -> Report:
    return run_recipe(recipe(inputs), "compress run recipe.yaml")


def test_every_file_is_scored_on_every_set(done: Report) -> None:
    assert [(one.name, one.images) for one in done.sets] == [(VAL, 24), ("far", 14), ("near", 20)]
    assert len({one.fingerprint for one in done.sets}) == 3
    for one in done.sets:
        assert list(one.stages) == [stage.stage for stage in done.stages] == ["baseline", "canonical", "int8"]
        first = one.stages["baseline"]["accuracy"]
        assert (first.drop, first.drop_interval) == (0.0, None)
        for figure in (figures["accuracy"] for figures in one.stages.values()):
            assert figure.drop == pytest.approx(first.value - figure.value)
            assert figure.interval is not None
            assert figure.interval.low <= figure.value <= figure.interval.high
    assert [done.sets[0].stages[stage.stage]["accuracy"].value for stage in done.stages] == [
        stage.score.metric for stage in done.stages
    ]


def test_the_score_on_a_test_set_is_that_of_evaluate(inputs: Path, done: Report) -> None:
    task = scores.open_test_set(recipe(inputs), "far")
    expected = scores.examine_model(inputs / "out" / "int8.onnx", task, 1).score.metric
    assert done.sets[1].stages["int8"]["accuracy"].value == expected


def test_gates_look_at_the_sets_they_name(done: Report) -> None:
    gates = {gate.name: gate for gate in done.gates}
    assert set(gates) == {"metric_drop.val", "metric_drop.near", "metric_min", "worst_set"}
    far, near = (one.stages["int8"]["accuracy"] for one in done.sets[1:])
    assert gates["metric_drop.near"].measured == near.drop
    assert gates["metric_min"].measured == min(near.value, far.value)
    assert gates["metric_min"].on == ("near" if near.value < far.value else "far")
    assert gates["worst_set"].measured == max(near.drop, far.drop)


def test_going_on_scores_nothing_twice(inputs: Path, done: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not(*_: object) -> None:
        raise AssertionError("scored again")

    monkeypatch.setattr(scores, "examine_model", must_not)
    again = run_recipe(recipe(inputs, compare={"rounds": 3, "images": 0}), "again")
    assert again.sets == done.sets


def test_what_changed_is_scored_again(inputs: Path, done: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    scored = []
    examine = scores.examine_model

    def counted(file: Any, task: Any, threads: int) -> Examination:
        scored.append(task.fingerprint())
        return examine(file, task, threads)

    monkeypatch.setattr(scores, "examine_model", counted)
    (inputs / "out" / "scores" / "near.int8.json").write_text("{")  # a damaged one
    changed = recipe(inputs, tests={**TESTS, "far": "near/labels.txt"}, compare={"rounds": 3, "images": 0})
    report = run_recipe(changed, "")
    near = report.sets[2].fingerprint
    assert scored == [near] * 4  # the damaged one, and the three of another list
    assert report.sets[2].stages == report.sets[1].stages


def test_weights_beside_a_model_are_part_of_what_was_scored(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = read_model(inputs / "model.onnx"), tmp_path / "model.onnx"
    onnx.save_model(model, file, save_as_external_data=True, location="weights.data", size_threshold=0)
    scored = []

    def counted(file: Any, task: Any, threads: int) -> Examination:
        scored.append(file)
        return Examination(Score(0.5, "accuracy", 2), (), {})

    monkeypatch.setattr(scores, "examine_model", counted)
    given = recipe(inputs)
    task = recipe_task(given)
    run = Run(given.model_copy(update={"out": tmp_path / "out"}), task, model, model, 1, None)
    for _ in range(2):
        scores.score_set(run, task, VAL, {"baseline": file})
    assert len(scored) == 1
    weights = tmp_path / "weights.data"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    scores.score_set(run, task, VAL, {"baseline": file})
    assert len(scored) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"near": "near/labels.txt", "bad": "bad.txt"}, "data.test.bad: .*bad.txt: line 1: "),
        ("bad.txt", "data.test.test: "),
    ],
)
def test_a_bad_test_set_is_known_before_anything_is_made(
    inputs: Path, monkeypatch: pytest.MonkeyPatch, given: Any, expected: str
) -> None:
    (inputs / "bad.txt").write_text("no tab\n")
    with pytest.raises(DataError, match=expected):
        run_recipe(recipe(inputs, "refused", given, gates={}), "")
    assert not (inputs / "refused" / "baseline.onnx").exists()
    assert not list((inputs / "refused").iterdir())


def test_the_report_shows_the_worst_set_first(done: Report) -> None:
    table = tables.set_table(done)
    worst = max(done.sets[1:], key=lambda one: one.stages["int8"]["accuracy"].drop).name
    sets = list(dict.fromkeys(row[0] for row in table.rows))
    assert (sets[0], sets[-1], len(table.rows)) == (worst, VAL, 9)
    for text in (in_terminal(done), render_markdown(done).replace("\\", ""), Page(render_html(done)).text):
        for words in (
            *table.rows[2][2:],
            *tables.headlines(done),
            "validation (chose epoch, ratios and form)",
            "val drop",
        ):
            assert words in " ".join(text.split()), words


def test_without_test_sets_the_validation_data_has_its_interval(inputs: Path) -> None:
    report = run_recipe(tiny.recipe(inputs, "plain", STEPS, gates={"metric_min": 0.001}), "")
    assert [one.name for one in report.sets] == [VAL]
    (line,) = tables.headlines(report)
    assert re.match(
        r"int8 on validation \(chose epoch, ratios and form\), 24 images: accuracy 0.\d{4} \[0.\d{4}, \d.\d{4}\]", line
    )
    assert [(gate.name, gate.on) for gate in report.gates] == [("metric_min", "")]
    assert "accuracy" in tables.stage_table(report).header


def test_a_run_without_labels_is_judged_by_labelled_test_sets(inputs: Path) -> None:
    """Validation is agreement with the original; test sets are accuracy, and gates and headlines are of them."""
    data = {"images": str(inputs / "train"), "test": TESTS}
    gates = {"metric_drop": {"val": 1.0}, "metric_min": 0.001, "worst_set": {"accuracy": 1.0}}
    report = run_recipe(recipe(inputs, "unlabelled", data=data, gates=gates), "")
    assert [one.metric for one in report.sets] == ["agreement (class)", "accuracy", "accuracy"]
    assert report.sets[0].stages["baseline"]["agreement (class)"].value == 1.0
    worst = min((one.stages["int8"]["accuracy"].value, one.name) for one in report.sets[1:])
    assert [(gate.measured, gate.on) for gate in report.gates if gate.name == "metric_min"] == [worst]
    assert all(re.search(r"images: accuracy \d", line) for line in tables.headlines(report))
    table = tables.set_table(report, metrics_alone=True)
    assert table.header[2:] == ("accuracy [95 %]", "drop [95 %]", "agreement (class) [95 %]", "drop [95 %]")
    assert [row[2] == "-" for row in table.rows] == [row[0] == VAL for row in table.rows]
    for text in (in_terminal(report), render_markdown(report), Page(render_html(report)).text):
        assert "agreement (class)" in text


# --- figures made up --------------------------------------------------------------------------------------------------


def examined(**right: list[bool]) -> Mapping[str, Examination]:
    """Examinations of files that judge these images right."""
    return {
        stage: Examination(Score(float(np.mean(flags)), "accuracy", len(flags)), (), {"accuracy": share_tallies(flags)})
        for stage, flags in right.items()
    }


def test_a_drop_that_every_image_shares_is_certain() -> None:
    """Of 4 images each 25 times, one kind is lost: a drop of .25, which lies between .17 and .34 of 100 images."""
    found = compare_files(
        "a", "f", examined(baseline=[True, True, True, False] * 25, int8=[True, True, False, False] * 25)
    )
    figure = found.stages["int8"]["accuracy"]
    assert (figure.value, figure.drop) == (0.5, 0.25)
    assert figure.drop_interval is not None
    assert (figure.drop_interval.low, figure.drop_interval.high) == pytest.approx((0.17, 0.34), abs=0.015)


def test_a_task_without_figures_of_single_images_has_no_intervals() -> None:
    bare = {
        stage: dataclasses.replace(one, tallies={}) for stage, one in examined(baseline=[True], int8=[False]).items()
    }
    figure = compare_files("a", "f", bare).stages["int8"]["accuracy"]
    assert (figure.value, figure.drop, figure.interval, figure.drop_interval) == (0.0, 1.0, None, None)


def sets() -> tuple[artifacts.SetResult, ...]:
    """Validation, and two test sets on which the last file loses .1 and gains .1."""
    half = [True, False] * 5
    return (
        compare_files(VAL, "v", examined(baseline=half, int8=half)),
        compare_files("good", "g", examined(baseline=half, int8=[True] * 6 + [False] * 4)),
        compare_files("bad", "b", examined(baseline=half, int8=[True] * 4 + [False] * 6)),
    )


@pytest.mark.parametrize(
    ("name", "limit", "measured", "on"),
    [
        ("metric_drop", 0.1, 0.1, "bad"),
        ("worst_set", 0.1, 0.1, "bad"),
        ("worst_set.accuracy", 0.1, 0.1, "bad"),
        ("metric_drop.bad", 0.1, 0.1, ""),
        ("metric_drop.good", 0.0, -0.1, ""),
        ("metric_drop.val", 0.005, 0.005, ""),  # of the stages themselves
        ("metric_min", 0.4, 0.4, "bad"),
        ("metric_min.good", 0.6, 0.6, ""),
        ("metric_min.val", 0.895, 0.895, ""),
    ],
)
def test_gates_of_sets(name: str, limit: float, measured: float, on: str) -> None:
    (gate,) = check_gates({name: limit}, RESULTS, sets())
    assert (gate.name, gate.passed, gate.on) == (name, True, on)
    assert gate.measured == pytest.approx(measured)
    tighter = limit + 0.3 if name.startswith("metric_min") else limit - 0.3
    assert not check_gates({name: tighter}, RESULTS, sets())[0].passed


def words(texts: list[str], read: list[str]) -> artifacts.SetResult:
    """What a recogniser that read everything right makes of these texts once it reads this."""
    found = {stage: score_texts(given, texts) for stage, given in (("baseline", texts), ("int8", read))}
    return compare_files(
        str(texts), "", {stage: Examination(score, (), tallies) for stage, (score, tallies) in found.items()}
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_a_figure_that_some_sets_do_not_have(swapped: bool) -> None:
    """Of signs alone there is no `alnum`, whichever set comes first."""
    sets = [words(["%", ":"], ["", ":"]), words(["A", "B", "C:", "D"], ["A", "B", "C", "x"])]
    given = sets[::-1] if swapped else sets
    gates = check_gates({"worst_set.alnum": 1.0, "worst_set.exact": 1.0, "worst_set": 1.0}, RESULTS, given)
    assert [(gate.measured, gate.on) for gate in gates] == [
        (0.25, sets[1].name),
        *[(0.5, max(one.name for one in sets))] * 2,
    ]
    with pytest.raises(DataError, match=r"gates\.worst_set\.alnum: no test set has this figure, of exact: "):
        check_gates({"worst_set.alnum": 1.0}, RESULTS, sets[:1])


@pytest.mark.parametrize(("texts", "refused"), [(["%", ":"], True), (["%", "A"], False)])
def test_a_gate_of_a_figure_that_no_set_has_is_known_before_anything_is_made(
    inputs: Path, tmp_path: Path, texts: list[str], refused: bool
) -> None:
    """Of a recogniser; the run itself would fail at its first stage, since the model is none."""
    lists = {}
    for seed, name in enumerate(("train", "val", "far"), 6):
        write_dataset(tmp_path / name, 2, seed)
        images = sorted(path.name for path in (tmp_path / name / "images").iterdir())
        lists[name] = tmp_path / name / "labels.txt"
        pairs = zip(images, texts if name == "far" else ["A", "A"], strict=True)
        lists[name].write_text("".join(f"images/{image}\t{text}\n" for image, text in pairs))
    (tmp_path / "dict.txt").write_text("A\n%\n:\n")
    task = {"kind": "recognition", "input": list(tiny.SHAPE), "charset": str(tmp_path / "dict.txt")}
    data = {name: str(lists[name]) for name in ("train", "val")} | {"test": {"far": str(lists["far"])}}
    given = recipe(inputs, "signs", task=task, data=data, gates={"worst_set": {"alnum": 0.1}})
    if refused:
        with pytest.raises(DataError, match=r"^gates\.worst_set\.alnum: no test set has this figure, of exact: "):
            run_recipe(given, "")
        assert not list(given.out.iterdir())
    else:
        scores.check_test_sets(given, recipe_task(given))


def test_the_set_of_an_open_gate_is_named_in_the_table(done: Report) -> None:
    gates = check_gates({"metric_min": 0.4, "metric_min.good": 0.4}, RESULTS, sets())
    rows = tables.gate_table(dataclasses.replace(done, gates=gates)).rows
    assert [row[:2] for row in rows] == [("metric_min (bad)", ">= 0.4"), ("metric_min.good", ">= 0.4")]


@pytest.mark.parametrize("known", ["train", "val"])
def test_images_of_a_test_set_that_something_was_learned_from_or_chosen_by(inputs: Path, known: str) -> None:
    """Found by content before anything is trained, and named; allowed, it stands in the report."""
    folder = inputs / f"like_{known}"
    write_dataset(folder, 3, 5)
    image = sorted((folder / "images").iterdir())[0]
    image.write_bytes(sorted((inputs / known / "images").iterdir())[4].read_bytes())
    tests = {"near": "near/labels.txt", "like": f"{folder.name}/labels.txt"}
    said = f"data.test.like: 1 of 3 images is in {known}, too, the first is {image} "
    given = recipe(inputs, f"out_{known}", tests)
    with pytest.raises(DataError, match=re.escape(said)):
        run_recipe(given, "")
    assert not (given.out / "int8.onnx").exists()
    data = given.data.model_copy(update={"allow_overlap": True})
    report = run_recipe(given.model_copy(update={"data": data}), "")
    assert [note for note in report.notes if note.startswith(said)]
