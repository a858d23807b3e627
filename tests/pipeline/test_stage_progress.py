"""Which stage of a run, and the seconds to its end, by hand on a clock that is set."""

from collections.abc import Sequence

import pytest

from compress.pipeline.stage_progress import VERIFYING, TimeLeft, staged


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds(
    expected: Sequence[float | None], *told: tuple[float, int, int, int], whole: bool = False
) -> tuple[float | None, bool]:
    """What the last call says, each made at its time, of (time, stage, done, total)."""
    clock = Clock()
    left = TimeLeft(expected, clock)
    for clock.now, stage, done, total in told:
        found = left.seconds(stage, done, total, whole)
    return found


def test_before_anything_is_counted_the_expected_time_is_left() -> None:
    assert seconds([10, 20, 30], (5, 0, 0, 4)) == (60, True)
    assert seconds([10, 20, 30], (5, 0, 0, 4), (8, 0, 0, 4)) == (57, True)
    assert seconds([10, 20, 30], (5, 1, 0, 4)) == (50, True)


def test_a_counter_of_the_whole_stage_says_what_is_left_of_it() -> None:
    assert seconds([10, 20], (0, 0, 0, 4), (12, 0, 2, 4)) == (12 + 20, True)
    assert seconds([10, 20], (0, 0, 3, 5), (6, 0, 4, 5)) == (6 + 20, True), "resumed at 3 of 5"


def test_a_counter_of_a_small_part_leaves_what_was_expected() -> None:
    assert seconds([100, 20], (0, 0, 0, 10), (5, 0, 5, 10)) == (95 + 20, True)
    assert seconds([100, 20], (0, 0, 0, 10), (5, 0, 5, 10), (6, 0, 0, 2), (66, 0, 1, 2)) == (60 + 20, True)


def test_a_counter_that_is_known_to_be_the_stages_is_believed() -> None:
    """However much faster than expected it goes: on a GPU, where the time was taken on a CPU."""
    assert seconds([3600, 60], (0, 0, 0, 100), (71, 0, 50, 100), whole=True) == (71 + 60, True)
    assert seconds([3600, 60], (0, 0, 0, 100), (1, 0, 1, 100), whole=True) == (3599 + 60, True), "one says little"


def test_what_is_unknown_is_said() -> None:
    assert seconds([10, None, 30], (0, 0, 0, 1)) == (40, False)
    assert seconds([10, None, 30], (0, 1, 0, 4)) == (30, False)
    assert seconds([10, None, 30], (0, 1, 0, 4), (3, 1, 1, 4)) == (9 + 30, True)
    assert seconds([None], (0, 0, 0, 1)) == (None, False)


def test_finished_stages_correct_the_rest_by_their_part_of_the_run() -> None:
    """The first stage took 20 s instead of 10 of a run of 40: the rest is taken for (40 + 20) / (40 + 10) as long."""
    assert seconds([10, 30], (0, 0, 0, 1), (20, 1, 0, 4)) == (pytest.approx(36), True)


def test_lines() -> None:
    told: list[tuple[int, int, str]] = []
    clock = Clock()
    tell = staged(
        lambda *values: told.append(values), ("scan", "report"), len, TimeLeft((60.0, 600.0), clock)
    )  # the stage is the message's length
    tell(0, 4, "")
    clock.now = 60
    tell(1, 2, "x")
    assert told == [
        (0, 4, "stage 1 of 2 (run: about 11 min left), scan: "),
        (1, 2, "stage 2 of 2 (run: about 10 min left), report: x"),
    ]
    staged(lambda *values: told.append(values), ("scan",), len)(1, 2, "")
    assert told[-1] == (1, 2, "stage 1 of 1, scan: ")


def test_verifying_is_of_no_stage_and_of_no_stages_time() -> None:
    told: list[tuple[int, int, str]] = []
    clock = Clock()
    tell = staged(lambda *values: told.append(values), ("scan", "report"), lambda _: 1, TimeLeft((60.0, 60.0), clock))
    tell(1, 2, VERIFYING)
    clock.now = 600
    tell(0, 4, "x")
    assert told == [(1, 2, "reading images in full"), (0, 4, "stage 2 of 2 (run: about 60 s left), report: x")]


@pytest.mark.parametrize(("message", "left"), [("equations of conv1", "3 min"), ("conv1 at 0.5: exact 0.4", "25 s")])
def test_what_a_scan_does_before_its_cells_is_not_all_of_it(message: str, left: str) -> None:
    """25 s for half of the counter: of the cells it says how long the stage takes on, of the ranking it does not."""
    told: list[str] = []
    clock = Clock()
    tell = staged(lambda *values: told.append(values[2]), ("scan",), lambda _: 0, TimeLeft((200.0,), clock))
    tell(0, 10, message)
    clock.now = 25
    tell(5, 10, message)
    assert f"about {left} left" in told[-1]
