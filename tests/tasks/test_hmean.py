"""Cases of ICDAR 2015's protocol made by hand: what counts, what finds what, and how it adds up."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from compress.data.regions import Region
from compress.measure.intervals import ratio_of_sums
from compress.tasks.hmean import Matches, match_boxes, score_matches, tally_matches


def corners(left: float, top: float, width: float, height: float) -> np.ndarray:
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)


def text(*box: float) -> Region:
    return Region(corners(*box), "text")


def ignored(*box: float) -> Region:
    return Region(corners(*box), "###", ignore=True)


def match(regions: list[Region], *boxes: tuple[float, float, float, float]) -> Matches:
    return match_boxes(regions, np.array([corners(*box) for box in boxes], np.float32).reshape(-1, 4, 2))


def score(*images: Matches) -> tuple[float, float, float]:
    """(precision, recall, hmean)"""
    found = score_matches(images)
    return found.details["precision"], found.details["recall"], found.metric


# --- one image ----------------------------------------------------------------------------------------------------


def test_the_same_box_finds_its_region():
    found = match([text(0, 0, 100, 20)], (0, 0, 100, 20))
    assert (found.pairs, found.missed, found.wrong) == (((0, 0),), (), ())


@pytest.mark.parametrize(
    ("width", "pairs"),
    [
        (51, ((0, 0),)),  # IoU .51
        (50, ()),  # exactly .5 is not enough
        (49, ()),
        (199, ((0, 0),)),  # 100 / 199
        (200, ()),  # 100 / 200
    ],
)
def test_iou_must_be_above_a_half(width: float, pairs: tuple):
    assert match([text(0, 0, 100, 20)], (0, 0, width, 20)).pairs == pairs


def test_iou_of_shifted_boxes():
    """Shifted by a third of the width: 2/3 shared of 4/3 in all is exactly .5; a bit less far finds it."""
    assert match([text(0, 0, 30, 10)], (10, 0, 30, 10)).pairs == ()
    assert match([text(0, 0, 30, 10)], (9, 0, 30, 10)).pairs == ((0, 0),)


def test_turned_boxes_are_polygons_not_their_upright_frames():
    """A diamond of half the square's area: IoU .5; the frames would be equal."""
    diamond = np.array([[[10, 0], [20, 10], [10, 20], [0, 10]]], np.float32)
    assert match_boxes([text(0, 0, 20, 20)], diamond).pairs == ()
    assert match_boxes([Region(diamond[0], "a")], diamond).pairs == ((0, 0),)


def test_a_region_is_found_by_one_box_and_the_other_is_wrong():
    found = match([text(0, 0, 100, 20)], (0, 0, 90, 20), (0, 0, 100, 20))
    assert (found.pairs, found.wrong) == (((0, 0),), (1,))


def test_a_box_finds_one_region_and_the_other_is_missed():
    found = match([text(0, 0, 100, 20), text(0, 0, 100, 22)], (0, 0, 100, 21))
    assert (found.pairs, found.missed) == (((0, 0),), (1,))


def test_regions_take_boxes_in_their_order():
    """The protocol is greedy: the first region takes the first box that fits, though the second would fit better."""
    found = match([text(0, 0, 100, 20), text(0, 0, 100, 30)], (0, 0, 100, 30), (0, 0, 100, 14))
    assert (found.pairs, found.missed, found.wrong) == (((0, 0),), (1,), (1,))


def test_a_box_over_two_words_finds_neither():
    found = match([text(0, 0, 45, 20), text(55, 0, 45, 20)], (0, 0, 100, 20))
    assert (found.pairs, found.missed, found.wrong) == ((), (0, 1), (0,))


# --- what is not counted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "counted"),
    [
        ((0, 0, 10, 10), False),  # a small box wholly within, though its IoU is tiny
        ((0, 0, 100, 40), True),  # exactly half of the box lies within
        ((0, 0, 100, 39), False),
        ((200, 0, 10, 10), True),
    ],
)
def test_boxes_mostly_within_an_ignored_region_do_not_count(box: tuple, counted: bool):
    found = match([ignored(0, 0, 100, 20)], box)
    assert found.counted_boxes == ((0,) if counted else ())
    assert (found.counted_regions, found.pairs) == ((), ())


def test_halves_in_two_ignored_regions_do_not_add_up():
    """As in the protocol: each ignored region is looked at by itself."""
    found = match([ignored(0, 0, 50, 20), ignored(50, 0, 50, 20)], (0, 0, 100, 20))
    assert found.counted_boxes == (0,)


def test_a_box_within_an_ignored_region_cannot_find_text_there():
    found = match([text(0, 0, 100, 20), ignored(0, 0, 120, 30)], (0, 0, 100, 20))
    assert (found.pairs, found.counted_regions, found.counted_boxes, found.missed) == ((), (0,), (), (0,))


def test_an_ignored_region_is_neither_found_nor_missed():
    found = match([ignored(0, 0, 100, 20), text(0, 50, 100, 20)], (0, 50, 100, 20))
    assert (found.counted_regions, found.pairs, found.missed) == ((1,), ((1, 0),), ())


def test_boxes_without_area_are_left_out():
    found = match([text(0, 0, 10, 10)], (0, 0, 0, 10), (3, 3, 0, 0), (0, 0, 10, 10))
    assert (found.counted_boxes, found.pairs) == ((2,), ((0, 2),))


# --- all images ---------------------------------------------------------------------------------------------------


def test_counts_are_of_all_images_together_not_means_of_images():
    """2 of 3 found by 2 of 2 boxes; 0 of 1 by 0 of 2: precision 2/4, recall 2/4, hmean 1/2. Means would be 1/2, 1/3."""
    first = match([text(0, 0, 9, 9), text(20, 0, 9, 9), text(40, 0, 9, 9)], (0, 0, 9, 9), (20, 0, 9, 9))
    second = match([text(0, 0, 9, 9)], (50, 0, 9, 9), (70, 0, 9, 9))
    assert score(first, second) == (0.5, 0.5, 0.5)


def test_hmean_is_the_harmonic_mean():
    """Precision 1, recall 1/3: 2 / (1 + 3) = 1/2."""
    found = match([text(0, 0, 9, 9), text(20, 0, 9, 9), text(40, 0, 9, 9)], (0, 0, 9, 9))
    assert score(found) == (1, pytest.approx(1 / 3), pytest.approx(0.5))


def test_the_score_names_what_it_counted():
    found = score_matches([match([text(0, 0, 9, 9), ignored(20, 0, 9, 9)], (0, 0, 9, 9), (20, 0, 9, 9), (40, 0, 9, 9))])
    assert (found.name, found.count) == ("hmean", 1)
    assert found.details == {"precision": 0.5, "recall": 1.0, "regions": 1.0, "boxes": 2.0}


def test_images_without_text_count_in_precision():
    good = match([text(0, 0, 9, 9)], (0, 0, 9, 9))
    assert score(good, match([])) == (1, 1, 1)
    assert score(good, match([], (0, 0, 9, 9))) == (0.5, 1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (match([]), (1, 1, 1)),  # nothing to find, nothing found
        (match([ignored(0, 0, 9, 9)], (0, 0, 9, 9)), (1, 1, 1)),
        (match([], (0, 0, 9, 9)), (0, 0, 0)),
        (match([text(0, 0, 9, 9)]), (0, 0, 0)),
        (match([text(0, 0, 9, 9)], (30, 0, 9, 9)), (0, 0, 0)),
    ],
)
def test_nothing_at_all(image: Matches, expected: tuple):
    assert score(image) == expected


def test_no_images():
    assert score_matches([]).count == 0


# --- against the protocol spelt out --------------------------------------------------------------------------------


def protocol(regions: list[Region], boxes: np.ndarray) -> tuple[list, list, list]:
    """ICDAR's script in its own order, with nothing left out for speed: pairs, counted regions, counted boxes."""
    wanted, found = [shapely.Polygon(region.points) for region in regions], [shapely.Polygon(box) for box in boxes]
    careless = {n for n, region in enumerate(regions) if region.ignore}
    outside = set()
    for number, box in enumerate(found):
        for region in careless:
            if box.area and wanted[region].intersection(box).area / box.area > 0.5:
                outside.add(number)
                break
    pairs, used_regions, used_boxes = [], set(), set()
    for region in range(len(wanted)):
        for box in range(len(found)):
            if region in used_regions or box in used_boxes or region in careless or box in outside:
                continue
            both = wanted[region].intersection(found[box]).area
            if both / (wanted[region].area + found[box].area - both) > 0.5:
                pairs.append((region, box))
                used_regions.add(region)
                used_boxes.add(box)
    counted = [n for n in range(len(found)) if n not in outside]
    return pairs, [n for n in range(len(wanted)) if n not in careless], counted


SOME_BOX = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2)


@given(st.lists(st.tuples(SOME_BOX, st.booleans()), max_size=6), st.lists(SOME_BOX, max_size=8))
def test_matches_are_the_protocol_s(labels: list, boxes: list):
    regions = [ignored(*box) if ignore else text(*box) for box, ignore in labels]
    found = match(regions, *boxes)
    expected = protocol(regions, np.array([corners(*box) for box in boxes]).reshape(-1, 4, 2))
    assert (list(found.pairs), list(found.counted_regions), list(found.counted_boxes)) == expected


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), max_size=6))
def test_tallies_add_up_to_hmean(images: list[tuple[int, int, int]]):
    """Found, missed and wrong of each image; without any regions and boxes, too."""
    matches = [
        Matches(tuple((one, one) for one in range(found)), tuple(range(found + missed)), tuple(range(found + wrong)))
        for found, missed, wrong in images
    ]
    assert ratio_of_sums(tally_matches(matches)) == pytest.approx(score_matches(matches).metric)
