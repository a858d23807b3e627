"""What is told of a detector's single images: counts, error and marks, equal to what the score is made of."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.regions import Region
from compress.tasks.base import Examiner
from compress.tasks.detection import DetectionTask
from compress.tasks.detection_cases import judge_scene
from compress.tasks.hmean import match_boxes


def rectangle(left: float, top: float, width: float = 20, height: float = 10) -> np.ndarray:
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def judge(regions: list[Region], boxes: list[np.ndarray]):
    found = np.array(boxes, np.float32).reshape(-1, 4, 2)
    return judge_scene(3, "a.jpg", regions, found, match_boxes(regions, found))


def test_one_of_each_kind():
    """Found, missed and ignored regions; a right, a wrong, and a box on what is not counted: hmean 1/2."""
    regions = [
        Region(rectangle(0, 0), "found"),
        Region(rectangle(0, 40), "missed"),
        Region(rectangle(60, 0), "###", ignore=True),
    ]
    case = judge(regions, [rectangle(1, 0), rectangle(60, 40), rectangle(61, 0)])
    assert (case.index, case.name) == (3, "a.jpg")
    assert case.label == "2 regions, 1 not counted"
    assert case.found == "1 of 2 found, 1 wrong"
    assert case.error == pytest.approx(0.5)
    assert [mark.kind for mark in case.marks] == ["label", "missed", "ignored", "found", "wrong", "ignored"]
    assert np.array_equal(case.marks[4].points, rectangle(60, 40))


def test_an_image_without_text():
    assert judge([], []).error == 0.0
    case = judge([], [rectangle(0, 0)])
    assert (case.error, case.label, case.found) == (1.0, "0 regions", "0 of 0 found, 1 wrong")


@pytest.fixture
def task(tmp_path: Path) -> DetectionTask:
    """Two white scenes of 64 x 96 with a black rectangle each, labelled; in the second another label is bare."""
    lines = []
    for number, labels in enumerate(
        ([rectangle(10, 10, 40, 16)], [rectangle(20, 30, 50, 14), rectangle(2, 2, 30, 10)])
    ):
        image = np.full((64, 96, 3), 255, np.uint8)
        left, top = labels[0][0].astype(int)
        right, bottom = labels[0][2].astype(int)
        image[top:bottom, left:right] = 0
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        regions = ", ".join(f'{{"transcription": "a", "points": {label.tolist()}}}' for label in labels)
        lines.append(f"{number}.png\t[{regions}]\n")
    (tmp_path / "labels.txt").write_text("".join(lines))
    return DetectionTask([], [tmp_path / "labels.txt"], input_shape=(3, 64, 96), side=96)


def dark_is_text(images: np.ndarray) -> np.ndarray:
    """The middle of what is dark, as a DBNet gives it: [N, 1, H, W]."""
    dark = (images[:, :1] < 0).astype(np.uint8)
    return np.stack([cv2.erode(one[0], np.ones((9, 9)))[None] for one in dark]).astype(np.float32)


def test_evaluate_is_what_examine_scores(task):
    assert isinstance(task, Examiner)
    examination = task.examine(dark_is_text)
    assert examination.score == task.evaluate(dark_is_text)
    assert examination.score.details["recall"] == pytest.approx(2 / 3)
    assert examination.tallies["hmean"].tolist() == [[2, 2], [2, 3]]
    assert [case.name for case in examination.cases] == ["0.png", "1.png"]
    assert [case.found for case in examination.cases] == ["1 of 1 found, 0 wrong", "1 of 2 found, 0 wrong"]
    assert [case.error for case in examination.cases] == [0.0, pytest.approx(1 / 3)]
    assert task.examine(dark_is_text, 1).score.count == len(task.examine(dark_is_text, 1).cases) == 1


def test_the_counts_of_all_marks_are_the_scores(task):
    examination = task.examine(dark_is_text)
    kinds = Counter(mark.kind for case in examination.cases for mark in case.marks)
    details = examination.score.details
    assert kinds["label"] + kinds["missed"] == details["regions"]
    assert kinds["found"] + kinds["wrong"] == details["boxes"]
    assert kinds["label"] / details["regions"] == details["recall"]


def test_the_picture_is_the_image_that_the_marks_are_for(task):
    case = task.examine(dark_is_text).cases[1]
    image = task.picture(case)
    assert image.shape == (64, 96, 3)
    x, y = case.marks[0].points.mean(axis=0).astype(int)
    assert image[y, x].tolist() == [0, 0, 0]


def test_nan_is_unusable(task):
    case = task.examine(lambda images: np.full((1, 1, *images.shape[2:]), np.nan, np.float32)).cases[0]
    assert (case.found, case.error) == (None, 1.0)
