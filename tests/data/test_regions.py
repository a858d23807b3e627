"""Regions: what label lists and ICDAR's files say, and what is done about polygons that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from compress.data.regions import Region, parse_icdar, parse_regions, repair_regions
from compress.errors import DataError

LIST, GT = Path("labels.txt"), Path("gt_img_1.txt")
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]


def label(*entries: tuple[str, list]) -> str:
    return json.dumps([{"transcription": text, "points": points} for text, points in entries])


# --- PaddleOCR's labels -------------------------------------------------------------------------------------------


def test_points_and_texts():
    text = label(("a, b", SQUARE), ("é", [[1.5, 2], [3, 4], [5, 6]]))
    first, second = parse_regions(LIST, 1, text)
    assert (first.points.tolist(), first.text, first.ignore) == (SQUARE, "a, b", False)
    assert (second.points.tolist(), second.points.dtype) == ([[1.5, 2], [3, 4], [5, 6]], np.float32)


@pytest.mark.parametrize(("text", "ignore"), [("###", True), ("*", True), ("", False), ("####", False), ("#", False)])
def test_what_is_not_counted(text: str, ignore: bool):
    assert parse_regions(LIST, 1, label((text, SQUARE)))[0].ignore is ignore


def test_other_keys_are_passed_over():
    (region,) = parse_regions(LIST, 1, '[{"transcription": "a", "points": [[0,0],[1,0],[1,1]], "difficult": false}]')
    assert region.text == "a"


def test_no_regions():
    assert parse_regions(LIST, 1, "[]") == ()


@pytest.mark.parametrize(
    "text",
    [
        "word",
        '[{"transcription": "a"',
        "[" * 100_000,
    ],
)
def test_what_is_not_json(text: str):
    with pytest.raises(
        DataError, match=r"labels.txt: line 7: the label is not JSON \(.*Expected \[\{\"transcription\""
    ):
        parse_regions(LIST, 7, text)


@pytest.mark.parametrize("text", ["{}", "3", "null", '"a"'])
def test_what_is_no_list(text: str):
    with pytest.raises(DataError, match=r"labels.txt: line 7: the label is no list \(.*Expected \[\{\"transcription\""):
        parse_regions(LIST, 7, text)


@pytest.mark.parametrize(
    "entry",
    [
        '{"points": [[0, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a"}',
        '{"transcription": 12, "points": [[0, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": 3}',
        '{"transcription": "a", "points": {}}',
        '{"transcription": "a", "points": [0, 0, 1, 0, 1, 1]}',
        '{"transcription": "a", "points": [[0, 0], [1], [1, 1]]}',
        '{"transcription": "a", "points": [[0, 0, 9], [1, 0, 9], [1, 1, 9]]}',
        '{"transcription": "a", "points": [["x", 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": [[null, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": [[NaN, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": [[Infinity, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": [[1e39, 0], [1, 0], [1, 1]]}',
        '{"transcription": "a", "points": [[1' + "0" * 400 + ", 0], [1, 0], [1, 1]]}",
        "[0, 1]",
        '"a"',
        "null",
    ],
)
def test_entries_that_are_no_region(entry: str):
    with pytest.raises(DataError, match=r"labels.txt: line 7: got .*Expected \[\{\"transcription\"") as caught:
        parse_regions(LIST, 7, f"[{entry}]")
    assert len(str(caught.value)) < 250


# --- ICDAR's files ------------------------------------------------------------------------------------------------

ICDAR_2015 = (
    "377,117,463,117,465,130,378,130,Genaxis Theatre\r\n493,115,519,115,519,131,493,131,[06]\r\n\r\n"
    "374,155,409,155,409,170,374,170,###\n"
)


def test_icdar_2015():
    regions = parse_icdar(GT, ICDAR_2015)
    assert [(region.text, region.ignore) for region in regions] == [
        ("Genaxis Theatre", False),
        ("[06]", False),
        ("###", True),
    ]
    assert regions[0].points.tolist() == [[377, 117], [463, 117], [465, 130], [378, 130]]


@pytest.mark.parametrize("line", ['38, 43, 920, 215, "Way, out"', '38 43 920 215 "Way, out"', "38,43,920,215,Way, out"])
def test_icdar_2013_of_the_test_and_the_training_set(line: str):
    """left, top, right, bottom; clockwise corners from them."""
    (region,) = parse_icdar(GT, line + "\n")
    assert region.points.tolist() == [[38, 43], [920, 43], [920, 215], [38, 215]]
    assert region.text == "Way, out"


def test_a_text_of_numbers_does_not_change_the_form_of_the_file():
    """The first line alone could be eight coordinates."""
    regions = parse_icdar(GT, "1,2,30,40,5,6,7,8\n1,2,30,40,EXIT\n1,50,30,90,WAY\n")
    assert [region.text for region in regions] == ["5,6,7,8", "EXIT", "WAY"]


def test_texts_may_be_missing_hold_commas_or_be_quoted():
    line = "0,0,9,0,9,9,0,9"
    texts = [region.text for region in parse_icdar(GT, f'{line}\n{line},\n{line},a,b\n{line},"q"\n')]
    assert texts == ["", "", "a,b", "q"]


def test_negative_and_fractional_coordinates():
    assert parse_icdar(GT, "-3,-2.5,9,0,9,9,0,9,a")[0].points[0].tolist() == [-3, -2.5]


def test_an_empty_file_has_no_regions():
    assert parse_icdar(GT, "") == parse_icdar(GT, "\n \r\n") == ()


@pytest.mark.parametrize(
    ("content", "line", "form"),
    [
        (ICDAR_2015 + "377,117,463,117,465,x,378,130,broken\n", 5, "x1,y1,x2,y2,x3,y3,x4,y4,text"),
        (ICDAR_2015 + "1,2,3,4,broken\n", 5, "x1,y1,x2,y2,x3,y3,x4,y4,text"),
        ("1,2,3,4,a\nno numbers\n", 2, "left,top,right,bottom,text"),
        ("1,2,3,4,a\n1,nan,3,4,a\n", 2, "left,top,right,bottom,text"),
        ("1,2,3,1e30,a\n", 1, "left,top,right,bottom,text"),
        ("hello\n", 1, "left,top,right,bottom,text"),
    ],
)
def test_lines_without_their_numbers(content: str, line: int, form: str):
    with pytest.raises(DataError, match=rf"gt_img_1.txt: line {line}: got .*\. Expected {form}\."):
        parse_icdar(GT, content)


# --- repair -------------------------------------------------------------------------------------------------------


def region(points: list, ignore: bool = False) -> Region:
    return Region(np.array(points, np.float32).reshape(-1, 2), "t", ignore)


@pytest.mark.parametrize(
    "points",
    [
        SQUARE,
        [[0, 0], [10, 0], [5, 8]],
        [[0, 0], [0, 10], [10, 10], [10, 0]],
        [*SQUARE, [0, 0]],  # closed
        [[-20, -20], [30, -20], [30, 30], [-20, 30]],  # around the whole image
        [[-5, 2], [5, 2], [5, 8], [-5, 8]],  # partly outside
        [[0, 0], [10, 0], [10, 2], [2, 2], [2, 10], [0, 10]],  # not convex
    ],
)
def test_good_regions_stay_the_same_objects(points: list):
    good = region(points)
    usable, found = repair_regions([good], 20, 20)
    assert usable[0] is good
    assert found == {}


@pytest.mark.parametrize(
    ("points", "problem"),
    [
        ([], "few"),
        ([[1, 1]], "few"),
        ([[0, 0], [10, 10]], "few"),
        ([[0, 0], [5, 5], [10, 10]], "empty"),
        ([[3, 3], [3, 3], [3, 3], [3, 3]], "empty"),
        ([[0, 0], [10, 0], [10, 0.05], [0, 0.05]], "empty"),
        ([[30, 0], [40, 0], [40, 9], [30, 9]], "outside"),
        ([[0, -9], [9, -9], [9, -1], [0, -1]], "outside"),
        ([[20, 0], [30, 0], [30, 9], [20, 9]], "outside"),  # touches the border
    ],
)
def test_what_is_left_out(points: list, problem: str):
    assert repair_regions([region(points)], 20, 20) == ((), {problem: 1})


def test_corners_in_a_wrong_order_become_their_hull():
    crossed = Region(np.array([[0, 0], [8, 4], [8, 0], [0, 4]], np.float32), "tie", ignore=True)
    (fixed,), found = repair_regions([crossed], 20, 20)
    assert found == {"crossed": 1}
    assert {tuple(point) for point in fixed.points.tolist()} == {(0, 0), (8, 4), (8, 0), (0, 4)}
    assert shapely.Polygon(fixed.points).equals(shapely.box(0, 0, 8, 4))
    assert (fixed.text, fixed.ignore) == ("tie", True)


def test_a_crossed_region_outside_counts_as_outside():
    assert repair_regions([region([[30, 0], [38, 4], [38, 0], [30, 4]])], 20, 20) == ((), {"outside": 1})


def test_counts_add_up_and_order_stays():
    regions = [region(SQUARE), region([[0, 0]]), region(SQUARE, ignore=True), region([[1, 1]])]
    usable, found = repair_regions(regions, 20, 20)
    assert (usable, found) == ((regions[0], regions[2]), {"few": 2})


@given(st.lists(st.tuples(st.integers(-5, 25), st.integers(-5, 25)), max_size=7))
def test_whatever_is_used_can_be_measured(points: list[tuple[int, int]]):
    """Every region that stays is a valid polygon with an area, partly inside the image; any other is counted."""
    usable, found = repair_regions([region(points)], 20, 20)
    if not usable:
        assert sum(found.values()) == 1
        return
    shape = shapely.Polygon(usable[0].points)
    assert shape.is_valid
    assert shape.area >= 1
    assert shape.intersection(shapely.box(0, 0, 20, 20)).area > 0
