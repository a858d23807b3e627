"""Text regions of a scene: polygons with their texts, checked and repaired where that can be done without guessing."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from compress.errors import DataError

IGNORED = frozenset({"###", "*"})
"""Transcriptions that mean "text, but do not count it": ICDAR's and PaddleOCR's."""
ICDAR_COORDINATES = (8, 4)
"""Numbers before the text in ICDAR's files: four corners (2015), or left, top, right, bottom (2013)."""
MAX_COORDINATE = 1e7
"""No image is larger."""
MIN_AREA = 1.0
"""In square pixels; a smaller region holds no text, as in PaddleOCR."""
PROBLEMS = {
    "few": "with fewer than 3 points, left out",
    "empty": "of zero area, left out",
    "outside": "outside the image, left out",
    "crossed": "self-crossing, replaced by the hull of the points",
}
"""What can be wrong with a region -> what is done about it."""


@dataclass(frozen=True)
class Region:
    """One piece of text: corners [P, 2] float32 (x, y) in pixels, what it says, and whether it must not be counted."""

    points: np.ndarray
    text: str
    ignore: bool = False


def parse_regions(path: Path, line: int, text: str) -> tuple[Region, ...]:
    """Read PaddleOCR's `[{"transcription": ..., "points": [[x, y], ...]}, ...]`.

    Raises:
        DataError: it is not that.
    """
    expected = 'Expected [{"transcription": "text", "points": [[x, y], [x, y], [x, y], [x, y]]}, ...].'
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: line {line}: the label is not JSON ({text[:40]!r}). {expected}") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: line {line}: the label is no list ({text[:40]!r}). {expected}")
    return tuple(_region(path, line, entry, expected) for entry in entries)


def _region(path: Path, line: int, entry: Any, expected: str) -> Region:
    try:
        points, words = np.array(entry["points"], np.float64), entry["transcription"]
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise DataError(f"{path}: line {line}: got {str(entry)[:60]!r}. {expected}") from error
    if not isinstance(words, str) or (points.size and points.shape[1:] != (2,)) or not _are_pixels(points):
        raise DataError(f"{path}: line {line}: got {str(entry)[:60]!r}. {expected}")
    return Region(points.astype(np.float32).reshape(-1, 2), words, words in IGNORED)


def _are_pixels(values: Sequence[float] | np.ndarray) -> bool:
    """Whether all are numbers that a point of an image can have; NaN is none."""
    return bool((np.abs(values) <= MAX_COORDINATE).all())


def parse_icdar(path: Path, content: str) -> tuple[Region, ...]:
    """Read ICDAR's text file: `x1,y1,x2,y2,x3,y3,x4,y4,text` a line, or `left,top,right,bottom,text`, or with spaces.

    All lines of a file have the form that most of them have: a text may begin with numbers, too.

    Raises:
        DataError: a line does not start with such numbers.
    """
    found = content.replace("\r\n", "\n").split("\n")
    lines = [(number, line) for number, line in enumerate(found, start=1) if line.strip()]
    many, few = ICDAR_COORDINATES
    fitting = sum(_split_icdar(line, many) is not None for _, line in lines)
    count = many if 2 * fitting >= len(lines) else few
    return tuple(_icdar_region(path, number, line, count) for number, line in lines)


def _icdar_region(path: Path, number: int, line: str, count: int) -> Region:
    parts = _split_icdar(line, count)
    if parts is None:
        form = "x1,y1,x2,y2,x3,y3,x4,y4,text" if count == 8 else "left,top,right,bottom,text"
        raise DataError(f"{path}: line {number}: got {line[:60]!r}. Expected {form}.")
    values, text = parts
    return Region(_corners(values), text, text in IGNORED)


def _split_icdar(line: str, count: int) -> tuple[list[float], str] | None:
    """The numbers and the text of a line, None where it does not start with `count` numbers.

    >>> _split_icdar('38 43 920 215 "Way out"', 4)
    ([38.0, 43.0, 920.0, 215.0], 'Way out')
    """
    parts = re.split(r"\s*,\s*|\s+", line.strip(), maxsplit=count)
    try:
        values = [float(part) for part in parts[:count]]
    except ValueError:
        return None
    if len(values) < count or not _are_pixels(values):
        return None
    return values, parts[count].strip('"') if len(parts) > count else ""


def _corners(values: Sequence[float]) -> np.ndarray:
    if len(values) == 4:
        left, top, right, bottom = values
        values = (left, top, right, top, right, bottom, left, bottom)
    return np.array(values, np.float32).reshape(-1, 2)


def repair_regions(regions: Sequence[Region], height: int, width: int) -> tuple[tuple[Region, ...], dict[str, int]]:
    """Leave out what cannot be a region of an image of that size, uncross what crosses itself.

    Returns:
        The usable regions, and how many had which of `PROBLEMS`.

    A quadrilateral crosses itself when its corners are listed in a wrong order; their hull is what was meant.

    >>> bow_tie = Region(np.array([[0, 0], [8, 4], [8, 0], [0, 4]], np.float32), "tie")
    >>> regions, found = repair_regions([bow_tie], 10, 10)
    >>> shapely.Polygon(regions[0].points).area, found
    (32.0, {'crossed': 1})
    """
    usable: list[Region] = []
    found: dict[str, int] = {}
    for region in regions:
        problem, fixed = _check_region(region, height, width)
        if problem:
            found[problem] = found.get(problem, 0) + 1
        if fixed is not None:
            usable.append(fixed)
    return tuple(usable), found


def _check_region(region: Region, height: int, width: int) -> tuple[str, Region | None]:
    """The region's problem or "", and what to use of it."""
    if len(region.points) < 3:
        return "few", None
    shape = shapely.Polygon(region.points)
    problem, fixed = "", region
    if not shape.is_valid:
        shape = shapely.MultiPoint(region.points).convex_hull
        if isinstance(shape, shapely.Polygon):
            corners = np.asarray(shape.exterior.coords, np.float32)[:-1]
            problem, fixed = "crossed", Region(corners, region.text, region.ignore)
    if not isinstance(shape, shapely.Polygon) or shape.area < MIN_AREA:
        return "empty", None
    if not shape.intersection(shapely.box(0, 0, width, height)).area:  # it may touch the border
        return "outside", None
    return problem, fixed
