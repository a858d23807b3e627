"""DBNet's targets against polygons computed by shapely, pixel by pixel."""

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from compress.data.db_targets import UNCLIP_RATIO, make_maps, offset_distance, offset_polygon
from compress.data.regions import Region

SIZE = (90, 120)
RECTANGLE = np.array([[20, 30], [80, 30], [80, 50], [20, 50]], np.float32)
TURNED = np.array([[15, 40], [75, 15], [84, 36], [24, 61]], np.float32)
TRAPEZOID = np.array([[20, 20], [100, 30], [90, 70], [30, 60]], np.float32)
HEXAGON = np.array([[20, 40], [50, 20], [80, 20], [110, 40], [80, 65], [50, 65]], np.float32)
SHAPES = [RECTANGLE, TURNED, TRAPEZOID, HEXAGON]


def region(points: np.ndarray, ignore: bool = False) -> Region:
    return Region(np.asarray(points, np.float32), "a", ignore)


def moved(points: np.ndarray, x: float, y: float) -> np.ndarray:
    return points + np.array([x, y], np.float32)


def pixels() -> np.ndarray:
    """Every pixel of the image as a shapely point, [H, W]."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return shapely.points(x, y)


def away_from(shape: shapely.Polygon) -> np.ndarray:
    """Distance of each pixel from a polygon, negative inside: [H, W]."""
    points = pixels()
    edge = shapely.distance(shape.exterior, points)
    return np.where(shapely.contains(shape, points), -edge, edge)


# --- distance and offset ------------------------------------------------------------------------------------------


@given(st.integers(8, 800), st.integers(8, 800), st.sampled_from([1.2, 1.5, 2.0]))
def test_a_rectangle_shrinks_by_what_its_shrunk_form_grows(width: int, height: int, ratio: float):
    """Growing is area * ratio / perimeter, of what is left."""
    points = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    distance = offset_distance(points, ratio)
    left, lower = width - 2 * distance, height - 2 * distance
    assert min(left, lower) > 0
    assert left * lower * ratio / (2 * (left + lower)) == pytest.approx(distance, rel=1e-4)


def test_the_distance_does_not_depend_on_how_a_rectangle_is_turned():
    turned = cv2.boxPoints(((50, 50), (60, 20), 30.0))
    assert offset_distance(turned) == pytest.approx(offset_distance(RECTANGLE), rel=1e-4)


def test_a_line_has_no_distance():
    assert offset_distance(np.array([[0, 0], [9, 9], [4, 4]])) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("points", SHAPES)
@pytest.mark.parametrize("distance", [-8.0, -3.5, 5.0])
def test_offset_is_shapely_s_buffer(points: np.ndarray, distance: float):
    """In whole numbers: within a pixel."""
    ours, expected = shapely.Polygon(offset_polygon(points, distance)), shapely.Polygon(points).buffer(distance)
    assert shapely.hausdorff_distance(ours, expected) < 1


def test_nothing_is_left_of_what_shrinks_too_far():
    assert offset_polygon(RECTANGLE, -11) is None


def test_a_line_cannot_be_offset():
    assert offset_polygon(np.array([[0, 0], [0.2, 0.1], [0.1, 0.3]]), 1.0) is None


def test_the_largest_piece_is_what_is_left():
    """A dumbbell falls apart; the larger end has fewer corners than the rounder, smaller one."""
    small = [[20 + 6 * np.cos(a), 20 + 6 * np.sin(a)] for a in np.linspace(0.3, 2 * np.pi - 0.3, 20)]
    points = np.array([*small[::-1], [60, 21.5], [60, 40], [100, 40], [100, 0], [60, 0], [60, 18.5]][::-1])
    left = offset_polygon(points, -3)
    assert left[:, 0].min() >= 60


# --- text and counted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", SHAPES)
def test_text_is_the_shrunk_region(points: np.ndarray):
    """Clear of rounding, each pixel by its distance from the exact polygon."""
    maps = make_maps([region(points)], *SIZE, threshold=False)
    away = away_from(shapely.Polygon(points).buffer(-offset_distance(points)))
    assert maps.text[away < -1].min() == 1
    assert maps.text[away > 1].max() == 0
    assert maps.counted.min() == 1
    assert maps.threshold is maps.threshold_counted is None
    assert (maps.text.dtype, maps.text.shape) == (np.float32, SIZE)


@pytest.mark.parametrize("points", SHAPES)
def test_what_is_not_counted_is_neither_text_nor_background(points: np.ndarray):
    maps = make_maps([region(points, ignore=True)], *SIZE, threshold=True)
    away = away_from(shapely.Polygon(points))
    assert maps.text.max() == 0
    assert maps.counted[away < -1].max() == 0
    assert maps.counted[away > 1].min() == 1
    assert maps.threshold_counted.max() == 0


@pytest.mark.parametrize(("height", "learned"), [(7, False), (8, True)])
@pytest.mark.parametrize("swap", [False, True])
def test_text_lower_or_narrower_than_8_pixels_is_not_counted(height: int, learned: bool, swap: bool):
    points = np.array([[20, 20], [60, 20], [60, 20 + height], [20, 20 + height]], np.float32)
    maps = make_maps([region(points[:, ::-1] if swap else points)], *SIZE, threshold=False)
    assert bool(maps.text.any()) is learned
    assert bool((maps.counted == 0).any()) is not learned


def test_an_ignored_region_wins_where_it_covers_text():
    maps = make_maps([region(RECTANGLE), region(RECTANGLE[[0, 1, 2, 3]], ignore=True)], *SIZE, threshold=False)
    assert maps.text[40, 50] == 1
    assert maps.counted[40, 50] == 0


def test_neighbours_stay_apart():
    """Lines that touch: that is what shrinking is for."""
    maps = make_maps([region(RECTANGLE), region(moved(RECTANGLE, 0, 20))], *SIZE, threshold=False)
    assert cv2.connectedComponents(maps.text.astype(np.uint8))[0] == 3  # with the background


@pytest.mark.parametrize("regions", [[], [region(moved(RECTANGLE, 500, 0))]])
def test_no_text(regions: list[Region]):
    maps = make_maps(regions, *SIZE, threshold=True)
    assert (maps.text.max(), maps.counted.min()) == (0, 1)
    assert np.unique(maps.threshold).tolist() == [np.float32(0.3)]
    assert maps.threshold_counted.max() == 0


# --- threshold ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("points", SHAPES)
def test_threshold_rises_towards_the_nearest_border(points: np.ndarray, several: bool):
    """0.7 on a border, 0.3 one distance away and farther; of several regions the highest. A pixel's play in drawing."""
    shapes = [points, moved(points, 8, 18)] if several else [points]
    maps = make_maps([region(shape) for shape in shapes], *SIZE, threshold=True)
    distance = offset_distance(points)
    wanted, inside = np.zeros(SIZE), np.zeros(SIZE, bool)
    for shape in map(shapely.Polygon, shapes):
        band = shapely.contains(shape.buffer(distance), pixels())
        wanted = np.maximum(wanted, np.clip(1 - np.abs(away_from(shape)) / distance, 0, 1) * band)
        inside |= band
    assert np.abs(maps.threshold - (0.3 + 0.4 * wanted)).max() < 0.4 * 1.1 / distance
    edges = [np.abs(away_from(shapely.Polygon(shape).buffer(distance))) for shape in shapes]
    clear = np.min(edges, axis=0) > 1.5
    assert np.array_equal(maps.threshold_counted[clear] > 0, inside[clear])


def test_threshold_on_and_beside_a_straight_border():
    maps = make_maps([region(RECTANGLE)], *SIZE, threshold=True)
    distance = offset_distance(RECTANGLE)
    expected = [0.7 - 0.4 * min(abs(y - 30) / distance, 1) for y in range(15, 40)]
    assert maps.threshold[15:40, 50] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("points", [moved(RECTANGLE, -40, 0), moved(RECTANGLE, 0, 60), RECTANGLE * 9 - 300])
def test_regions_cut_by_the_border_or_around_the_whole_image(points: np.ndarray):
    maps = make_maps([region(points)], *SIZE, threshold=True)
    assert np.isfinite(maps.threshold).all()
    assert 0.3 - 1e-6 < maps.threshold.min() <= maps.threshold.max() < 0.7 + 1e-6
    assert maps.threshold_counted.max() == 1


def test_maps_do_not_depend_on_where_in_memory_they_are_made():
    """OpenCV's distances do, in their last bits."""
    regions = [region(TURNED), region(moved(TURNED, 20, 20)), region(HEXAGON)]
    first = make_maps(regions, *SIZE, threshold=True).threshold
    kept = []
    for size in range(1, 40):
        kept.append(np.full(size * 37, np.nan, np.float32))
        assert np.array_equal(make_maps(regions, *SIZE, threshold=True).threshold, first)


def test_the_regions_stay_as_they_are():
    before = TURNED.copy()
    make_maps([region(TURNED)], *SIZE, threshold=True)
    assert np.array_equal(TURNED, before)
    assert UNCLIP_RATIO == 1.5
