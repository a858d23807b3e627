"""What a scan says it will cost: counted right, said once, before it starts, and how it could be made cheaper."""

import re
import time
from pathlib import Path

import onnx
import pytest
from torch import nn

from compress.artifacts import Score
from compress.errors import CompressError, DataError
from compress.graph import load_model
from compress.pipeline import make_task, run_recipe
from compress.pipeline.scanning.scan_cost import ScanCost, announce_cost, at_side, side_of
from compress.tasks.base import Task
from tests.pipeline import stepping, tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_inputs(tmp_path_factory.mktemp("cost"), crops=6)


@pytest.fixture(scope="module")
def model(folder: Path) -> onnx.ModelProto:
    return load_model(folder / "model.onnx")


@pytest.fixture(scope="module")
def task(folder: Path) -> Task:
    val = [folder / "val" / "labels.txt"]
    return make_task("classification", train=(), val=val, input_shape=tiny.SHAPE, directions=True)


class Sized:
    """A task whose images are scored at a side; all that is asked of it here."""

    kind = "sized"

    def __init__(self, side: int) -> None:
        self.side = side

    def with_side(self, side: int) -> "Sized":
        if side > 1000:
            raise DataError("side: too large.")
        return Sized(side)


# --- the text ---------------------------------------------------------------------------------------------------


def test_a_short_scan_is_not_to_be_shortened() -> None:
    assert ScanCost(27, 100, 0.05).text(side=1280) == "27 cells x 100 images x 0.5 ms = about 1 s"
    assert ScanCost(118, 100, 0.5).text() == "118 cells x 100 images x 5 ms = about 59 s"


def test_a_long_scan_with_what_would_shorten_it() -> None:
    """A quarter of the images, 9/16 of the area: 2 h 10 min become 33 min or 73 min."""
    text = ScanCost(261, 200, 30.0).text(side=1280)
    assert text == (
        "261 cells x 200 images x 0.15 s = about 2.2 h; images=50 would make it about 33 min, side=960 about 73 min"
    )


def test_nothing_is_proposed_that_would_not_help() -> None:
    """Already 8 images, and a side that less of would show nothing."""
    assert ScanCost(100, 8, 8.0).text(side=416) == "100 cells x 8 images x 1.00 s = about 13 min"
    assert ScanCost(100, 8, 8.0).text(side=736).endswith("13 min; side=544 would make it about 7 min")


# --- when it is said --------------------------------------------------------------------------------------------


def announced(cells: int, resumed: bool, calls: int = 3) -> list[str]:
    notes: list[str] = []

    def score(_: nn.Module) -> Score:
        time.sleep(0.02)
        return Score(0.5, "accuracy", 40)

    evaluate = announce_cost(score, cells, None, notes.append, resumed=resumed)
    assert [evaluate(nn.Identity()) for _ in range(calls)] == [0.5] * calls
    return notes


def test_the_first_evaluation_is_timed_and_the_cost_told_once() -> None:
    (note,) = announced(100, resumed=False)
    assert re.fullmatch(r"scan: 100 cells x 40 images x [\d.]+ ms = about [2-9] s", note)


def test_the_first_cell_of_a_scan_that_goes_on_is_not_counted_again() -> None:
    (note,) = announced(10, resumed=True)
    assert note.startswith("the scan goes on: 9 cells x 40 images x ")


@pytest.mark.parametrize(("cells", "resumed"), [(0, False), (1, True)])
def test_nothing_left_is_nothing_to_say(cells: int, resumed: bool) -> None:
    assert announced(cells, resumed) == []


def test_nobody_to_tell() -> None:
    evaluate = announce_cost(lambda _: Score(0.5, "accuracy", 40), 10, None, None, resumed=False)
    assert evaluate(nn.Identity()) == 0.5


def test_a_scan_tells_its_cost_before_its_first_cell(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    """Three groups of 8, 16 and 16 channels; .5 and .51 remove as many, .01 none: 2 cells a group."""
    said: list[str] = []
    ratios = [0.01, 0.25, 0.5, 0.51]
    settings = {"criterion": "l1", "ratios": ratios, "threads": 1, "images": 4}
    stepping.scan(model, task, tmp_path, **settings, on_note=said.append, on_progress=lambda *call: said.append("cell"))
    assert said[0].startswith("scan: 6 cells x 4 images x ")
    assert said[1:] == ["cell"] * 12


def test_a_resumed_scan_counts_what_is_left(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    settings = {"criterion": "l1", "ratios": [0.25, 0.5], "threads": 1}
    with pytest.raises(KeyboardInterrupt):
        stepping.scan(model, task, tmp_path, **settings, on_progress=tiny.stop_when("accuracy", 2))
    notes: list[str] = []
    stepping.scan(model, task, tmp_path, **settings, on_note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("the scan goes on: 3 cells x 12 images x ")
    stepping.scan(model, task, tmp_path, **settings, on_note=notes.append)
    assert len(notes) == 1


def test_a_run_tells_it_too(folder: Path) -> None:
    notes: list[str] = []
    run_recipe(tiny.recipe(folder, steps={"sensitivity": {"ratios": [0.5], "images": 4}}), "", None, notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("scan: 3 cells x 4 images x ")


# --- a smaller side ---------------------------------------------------------------------------------------------


def test_a_task_with_a_side_is_scored_at_another(task: Task) -> None:
    sized: Task = Sized(960)  # type: ignore[assignment]
    assert (side_of(sized), side_of(at_side(sized, 640)), side_of(at_side(sized, None))) == (960, 640, 960)
    assert side_of(task) is None
    assert at_side(task, None) is task


def test_a_side_for_a_task_that_has_none(model: onnx.ModelProto, task: Task, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"sensitivity\.side: got 640, but classification has no side\. Remove it"):
        stepping.scan(model, task, tmp_path, criterion="l1", ratios=[0.5], side=640)
    assert list(tmp_path.iterdir()) == []


def test_a_side_that_the_task_refuses() -> None:
    with pytest.raises(DataError, match="too large"):
        at_side(Sized(960), 1280)  # type: ignore[arg-type]
