"""`scripts/check_trainings.py`: the shortened trainings come to what they came to before."""

import doctest
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compress.recipe import FinetuneStep, QuantizeStep, TeacherStep, load_recipe

ROOT = Path(__file__).parents[2]
FAMILIES = {"det": "ppocr_det", "rec": "ppocr_rec_en", "cls": "ppocr_cls"}


@pytest.fixture(scope="module")
def trainings() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "scripts"))
        yield importlib.import_module("check_trainings")


def test_doctests(trainings: Any) -> None:
    assert doctest.testmod(trainings).failed == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_shortened_recipes_train_as_the_recipes_do(family: str) -> None:
    """Only length, sizes and what depends on the machine differ; who changes a rate in one changes it in both."""
    short = load_recipe(ROOT / "recipes" / f"check_{family}.yaml", check_files=False)
    full = load_recipe(ROOT / "recipes" / f"{FAMILIES[family]}.yaml", check_files=False)
    assert short.task.kind == full.task.kind
    assert short.task.augment == full.task.augment
    may_differ = {"epochs", "calibration", "optimize", "recurrent"}
    may_differ |= {"features"} if family == "det" else set()  # the classifier's has them (see recipes/check_det.yaml)
    for kind in (TeacherStep, FinetuneStep, QuantizeStep):
        one, other = short.find_step(kind), full.find_step(kind)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.model_dump(exclude=may_differ) == other.model_dump(exclude=may_differ)
    assert short.threads == 1, "figures must not depend on the number of cores"


def test_losses_are_read_from_progress(trainings: Any) -> None:
    """Several trainings in a row, among other messages; numbers from the text of the training loop."""
    losses = trainings.Losses()
    losses(3, 9, "latency")
    for done, loss in enumerate((4.0, 3.0, 2.0, 1.0), 1):
        losses(done, 4, f"epoch {(done + 1) // 2}/2 loss {loss:.4f} best 0.5000")
    losses(1, 1, "epoch 1/1 loss 7.0000 best 0.0000")
    assert [trainings.loss_figures(steps) for steps in losses.trainings] == [
        {"first_loss": 4.0, "last_loss": 1.5},
        {"first_loss": 7.0, "last_loss": 7.0},
    ]
    assert trainings.loss_figures(losses.trainings[0], quantised=True) == {"first_epoch": 3.5, "last_loss": 1.5}


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"metric": 0.90, "first_loss": 2.0, "last_loss": 1.0}, []),
        ({"metric": 0.86, "first_loss": 2.009, "last_loss": 1.03}, []),
        ({"metric": 0.84, "first_loss": 2.0, "last_loss": 1.0}, ["int8 metric: 0.84, expected 0.9 +- 0.05"]),
        ({"metric": 0.90, "first_loss": 2.02, "last_loss": 1.0}, ["int8 first_loss: 2.02, expected 2 +- 0.01"]),
        ({"metric": 0.90, "first_loss": 2.0, "last_loss": float("nan")}, ["int8 last_loss: nan, expected 1 +- 0.04"]),
        ({"metric": 0.90, "first_loss": 2.0}, ["int8 last_loss: None, expected 1.0"]),
    ],
)
def test_what_is_further_off_than_allowed_is_named(trainings: Any, found: dict[str, float], wrong: list[str]) -> None:
    expected = {"int8": {"metric": 0.90, "first_loss": 2.0, "last_loss": 1.0}}
    tolerances = {"metric": 0.05, "first_loss": 0.005, "last_loss": 0.04}
    assert trainings.differences({"int8": found}, expected, tolerances) == wrong


def test_a_stage_too_many_or_too_few_is_named(trainings: Any) -> None:
    one = {"pruned": {"metric": 0.5}}
    assert trainings.differences({}, one) == ["pruned metric: None, expected 0.5"]
    assert trainings.differences(one, {}) == ["pruned metric: 0.5, expected None"]


def test_expected_figures_are_read_as_written(trainings: Any, tmp_path: Path) -> None:
    figures = {"det": {"int8": {"metric": 0.7273, "first_loss": 2.8886, "last_loss": 3.5306}}}
    trainings.write_expected(figures, tmp_path / "t.yaml")
    assert trainings.read_expected(tmp_path / "t.yaml") == figures
    assert (tmp_path / "t.yaml").read_text().startswith("# Written by scripts/check_trainings.py --update")


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_trainings_come_to_what_they_came_to(trainings: Any, tmp_path: Path, family: str) -> None:
    """A change that is meant: `python scripts/check_trainings.py --update`, and look at the difference."""
    found = trainings.train(trainings.shortened(family, tmp_path / "data", tmp_path / "out"))
    assert trainings.differences(found, trainings.read_expected().get(family, {})) == []
