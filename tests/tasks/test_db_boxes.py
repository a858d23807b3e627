"""From maps to boxes: shapes whose boxes are known, PaddleOCR's thresholds, and maps of a badly trained network."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from compress.data.db_targets import make_maps
from compress.data.regions import Region
from compress.errors import DataError
from compress.tasks.db_boxes import BoxSettings, box_score, find_boxes, grow, min_area_box


def rectangle(left: float, top: float, width: float, height: float) -> np.ndarray:
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def painted(*shapes: tuple[np.ndarray, float], size: tuple[int, int] = (160, 224)) -> np.ndarray:
    """A map with filled polygons of these probabilities."""
    probability = np.zeros(size, np.float32)
    for points, value in shapes:
        cv2.fillPoly(probability, [np.round(points).astype(np.int32)], value)
    return probability


def boxes_of(probability: np.ndarray, **settings: float) -> np.ndarray:
    return find_boxes(probability, *probability.shape, BoxSettings(**settings))[0]


# --- geometry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 20, 44, 46, 70, 90, 135, 170])
def test_corners_go_clockwise_from_the_top_left(angle: float):
    corners, side = min_area_box(cv2.boxPoints(((100, 100), (60, 20), angle)))
    area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)) / 2
    assert area == pytest.approx(1200, rel=1e-3)  # positive: clockwise where y points down
    assert side == pytest.approx(20, abs=1e-3)
    assert corners[[0, 3], 0].max() <= corners[[1, 2], 0].min() + 1e-3  # two left, two right
    assert corners[0, 1] <= corners[3, 1]
    assert corners[1, 1] <= corners[2, 1]


def test_the_score_is_the_mean_inside_the_box():
    probability = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    box = rectangle(10, 5, 20, 8)  # pixels on the outline belong to it
    assert box_score(probability, box) == pytest.approx(float(probability[5:14, 10:31].mean()), rel=1e-5)


def test_the_score_of_a_box_that_reaches_out_is_of_what_is_inside():
    probability = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    inside = float(probability[:11, :6].mean())
    assert box_score(probability, rectangle(-10, -10, 15, 20)) == pytest.approx(inside, rel=1e-5)


@given(st.integers(4, 200), st.integers(4, 60), st.sampled_from([1.5, 2.0]))
def test_growing_is_by_area_times_ratio_over_perimeter(width: int, height: int, ratio: float):
    grown = grow(rectangle(50, 50, width, height), ratio)
    distance = width * height * ratio / (2 * (width + height))
    assert grown.min(axis=0) == pytest.approx([50 - distance] * 2, abs=1)
    assert grown.max(axis=0) == pytest.approx([50 + width + distance, 50 + height + distance], abs=1)


# --- boxes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 20), (20, 100), (180, 12), (30, 30), (180, 100)])
def test_what_training_shrinks_is_brought_back(size: tuple[int, int]):
    """A perfect map gives the region again, words and long lines alike, within a pixel or two of rounding."""
    points = rectangle(20, 30, *size)
    probability = make_maps([Region(points, "a")], 160, 224, threshold=False).text
    (box,) = boxes_of(probability)
    assert np.abs(box - points).max() <= 2


@pytest.mark.parametrize("angle", [10, 30, 60, 85])
def test_turned_text_is_brought_back(angle: float):
    """Steps of pixels on a slope make a box a bit wider: of 24 pixels' height up to 3."""
    points = cv2.boxPoints(((110, 80), (90, 24), float(angle)))
    probability = make_maps([Region(points, "a")], 160, 224, threshold=False).text
    (box,) = boxes_of(probability)
    one, other = shapely.Polygon(box), shapely.Polygon(points)
    assert one.intersection(other).area / one.union(other).area > 0.75


def test_boxes_are_in_the_image_s_pixels_whole_and_inside():
    """The map is half as wide and a quarter as high as the image; the second box would reach out of it."""
    probability = painted((rectangle(40, 40, 60, 20), 1.0), (rectangle(180, 120, 43, 39), 1.0))
    same = {tuple(box.ravel()) for box in boxes_of(probability)}
    scaled, scores = find_boxes(probability, 640, 448)
    assert scaled.shape == (2, 4, 2)
    assert (scaled.dtype, scores.dtype) == (np.float32, np.float32)
    assert np.array_equal(scaled, np.round(scaled))
    assert (scaled >= 0).all()
    assert (scaled <= [448, 640]).all()
    for box in scaled:
        closest = min(same, key=lambda known: np.abs(np.array(known).reshape(4, 2) * [2, 4] - box).max())
        assert np.abs(np.array(closest).reshape(4, 2) * [2, 4] - box).max() <= 2


@pytest.mark.parametrize(("value", "found"), [(0.59, 0), (0.61, 1), (1.0, 1)])
def test_boxes_below_a_mean_of_point_six_are_left_out(value: float, found: int):
    assert len(boxes_of(painted((rectangle(40, 40, 60, 20), value)))) == found


def test_a_hollow_box_has_a_low_mean():
    probability = painted((rectangle(40, 40, 60, 40), 1.0), (rectangle(44, 44, 52, 32), 0.0))
    assert len(boxes_of(probability)) == 0


def test_pixels_above_point_three_hang_together():
    """Two words and a faint bridge: above the threshold they are one box."""
    words = [(rectangle(20, 40, 60, 20), 0.9), (rectangle(100, 40, 60, 20), 0.9)]
    assert len(boxes_of(painted(*words, (rectangle(81, 45, 18, 10), 0.29)))) == 2
    assert len(boxes_of(painted(*words, (rectangle(81, 45, 18, 10), 0.31)))) == 1


def test_settings_are_used():
    probability = painted((rectangle(40, 40, 60, 20), 0.5))
    assert len(boxes_of(probability, box_threshold=0.4)) == 1
    assert len(boxes_of(probability, box_threshold=0.4, threshold=0.6)) == 0
    small, large = (boxes_of(probability, box_threshold=0.4, unclip_ratio=ratio)[0] for ratio in (1.0, 2.5))
    assert shapely.Polygon(large).area > shapely.Polygon(small).area


@pytest.mark.parametrize(("height", "found"), [(1, 0), (2, 0), (4, 1)])
def test_slivers_are_noise(height: int, found: int):
    """A contour's box is one less than its pixels; below 3 it is left out."""
    assert len(boxes_of(painted((rectangle(40, 40, 60, height - 1 if height < 4 else height), 1.0)))) == found


@pytest.mark.parametrize("probability", [np.zeros((64, 96), np.float32), np.full((64, 96), 0.3, np.float32)])
def test_no_text(probability: np.ndarray):
    boxes, scores = find_boxes(probability, 640, 960)
    assert (boxes.shape, scores.shape) == ((0, 4, 2), (0,))


def test_a_map_that_is_all_text_is_one_box():
    (box,) = boxes_of(np.ones((64, 96), np.float32))
    assert box.tolist() == [[0, 0], [96, 0], [96, 64], [0, 64]]


def test_the_number_of_candidates_is_limited():
    grid = [(rectangle(x, y, 8, 8), 1.0) for x in range(4, 210, 20) for y in range(4, 150, 20)]
    assert len(boxes_of(painted(*grid))) == len(grid) == 88
    assert len(boxes_of(painted(*grid), max_candidates=20)) == 20


@pytest.mark.parametrize("smooth", [0, 5, 15])
def test_noise_has_no_more_than_the_limit_and_nothing_breaks(smooth: int):
    """As of a badly trained network: thousands of contours."""
    noise = np.random.default_rng(0).random((480, 640)).astype(np.float32)
    noise = cv2.blur(noise, (smooth, smooth)) * 2 - 0.5 if smooth else noise
    boxes, scores = find_boxes(np.clip(noise * 1.5, 0, 1), 480, 640)
    assert len(boxes) == len(scores) <= 1000
    assert np.isfinite(boxes).all()
    assert (scores >= 0.6).all()
    assert (boxes >= 0).all()
    assert (boxes <= [640, 480]).all()


# --- PaddleOCR's lines --------------------------------------------------------------------------------------------


def paddle(probability: np.ndarray, width: int, height: int) -> list[list[list[int]]]:
    """`DBPostProcess.boxes_from_bitmap` with its helpers, as PaddleOCR has them."""
    import pyclipper

    def get_mini_boxes(contour):
        box = cv2.minAreaRect(contour)
        points = sorted(cv2.boxPoints(box), key=lambda x: x[0])
        first, fourth = (0, 1) if points[1][1] > points[0][1] else (1, 0)
        second, third = (2, 3) if points[3][1] > points[2][1] else (3, 2)
        return [points[first], points[second], points[third], points[fourth]], min(box[1])

    def box_score_fast(bitmap, given):
        h, w = bitmap.shape[:2]
        box = given.copy()
        xmin = np.clip(np.floor(box[:, 0].min()).astype("int32"), 0, w - 1)
        xmax = np.clip(np.ceil(box[:, 0].max()).astype("int32"), 0, w - 1)
        ymin = np.clip(np.floor(box[:, 1].min()).astype("int32"), 0, h - 1)
        ymax = np.clip(np.ceil(box[:, 1].max()).astype("int32"), 0, h - 1)
        mask = np.zeros((ymax - ymin + 1, xmax - xmin + 1), dtype=np.uint8)
        box[:, 0] -= xmin
        box[:, 1] -= ymin
        cv2.fillPoly(mask, box.reshape(1, -1, 2).astype("int32"), 1)
        return cv2.mean(bitmap[ymin : ymax + 1, xmin : xmax + 1], mask)[0]

    def unclip(box, ratio):
        shape = shapely.Polygon(box)
        offset = pyclipper.PyclipperOffset()
        offset.AddPath(box, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
        return np.array(offset.Execute(shape.area * ratio / shape.length))

    found = []
    contours, _ = cv2.findContours(((probability > 0.3) * 255).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours[:1000]:
        points, side = get_mini_boxes(contour)
        if side < 3:
            continue
        points = np.array(points)
        if box_score_fast(probability, points.reshape(-1, 2)) < 0.6:
            continue
        box, side = get_mini_boxes(unclip(points, 1.5).reshape(-1, 1, 2))
        if side < 5:
            continue
        box = np.array(box)
        box[:, 0] = np.clip(np.round(box[:, 0] / probability.shape[1] * width), 0, width)
        box[:, 1] = np.clip(np.round(box[:, 1] / probability.shape[0] * height), 0, height)
        found.append(box.astype("int32").tolist())
    return found


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_paddleocr_s(seed: int):
    """On blurred shapes of all kinds: the same boxes in the same order."""
    rng = np.random.default_rng(seed)
    shapes = []
    for _ in range(30):
        centre, size, angle = rng.uniform(0, 500, 2), rng.uniform(2, 60, 2), rng.uniform(0, 180)
        shapes.append((cv2.boxPoints((tuple(centre), tuple(size), angle)), rng.uniform(0.4, 1)))
    probability = cv2.GaussianBlur(painted(*shapes, size=(500, 500)), (0, 0), 0.5 + seed / 2)
    expected = paddle(probability, 900, 320)
    assert len(expected) > 2
    assert find_boxes(probability, 320, 900)[0].astype(int).tolist() == expected


# --- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": 0.0}, r"threshold: got 0\. Must be in \(0, 1\)"),
        ({"threshold": 1.0}, r"threshold: got 1\."),
        ({"threshold": float("nan")}, r"threshold: got nan\."),
        ({"box_threshold": -0.1}, r"box_threshold: got -0\.1\. Must be in \[0, 1\]"),
        ({"box_threshold": 1.5}, r"box_threshold: got 1\.5\."),
        ({"unclip_ratio": 0.0}, r"unclip_ratio: got 0\. Must be in \(0, 10\]"),
        ({"unclip_ratio": 1e12}, r"unclip_ratio: got 1e\+12\."),
        ({"max_candidates": 0}, r"max_candidates: got 0\. Must be 1 or more"),
    ],
)
def test_settings_out_of_range(settings: dict, message: str):
    with pytest.raises(DataError, match=message):
        BoxSettings(**settings)


def test_the_defaults_are_those_of_pp_ocr():
    """PaddleOCR, configs/det/ch_ppocr_v2.0/ch_det_mv3_db_v2.0.yml: thresh, box_thresh, max_candidates, unclip_ratio."""
    assert vars(BoxSettings()) == {
        "threshold": 0.3,
        "box_threshold": 0.6,
        "max_candidates": 1000,
        "unclip_ratio": 1.5,
    }
