"""What DBNet is trained towards: shrunk text, where it counts, and the borders' thresholds.

Source: Liao et al. 2020 (arXiv 1911.08947), section 3.4; PaddleOCR's MakeShrinkMap and MakeBorderMap. How far text is
shrunk differs: see `offset_distance`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pyclipper

from compress.data.regions import Region

UNCLIP_RATIO = 1.5
"""Of PaddleOCR's post-processing."""
MIN_TEXT_SIDE = 8
"""Text lower or narrower than this, in pixels, is too small to learn from: it is not counted."""
THRESHOLD_RANGE = (0.3, 0.7)
"""Threshold map far from any border, and on one."""


@dataclass(frozen=True)
class DbMaps:
    """Targets of one image, each [H, W] float32."""

    text: np.ndarray
    """1 in shrunk text, 0 elsewhere."""
    counted: np.ndarray
    """0 in regions that must not be counted."""
    threshold: np.ndarray | None = None
    threshold_counted: np.ndarray | None = None
    """1 near borders, where the threshold map is learned."""


def offset_distance(points: np.ndarray, unclip_ratio: float = UNCLIP_RATIO) -> float:
    """By how many pixels a polygon [P, 2] shrinks (and its border band grows), so that post-processing brings it back.

    Boxes grow by area * unclip_ratio / perimeter of what was found. This is the distance d by which a rectangle of
    w x h has to shrink for that to be d again, the smaller solution of
    (2r + 4) d^2 - (r + 1)(w + h) d + (r / 2) w h = 0; other polygons are taken as their smallest rotated rectangle.

    A deliberate difference from DBNet, which shrinks by area * (1 - 0.4^2) / perimeter: that suits words, but of a
    line 20 times as long as high 0.2 of the height is left, and growing gives back 0.5. On the lines of the SROIE
    receipts *perfect* maps score hmean 0.93 so, and 1.0 with this (`tests/tasks/test_deployed_detector.py`).

    >>> square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], np.float32)
    >>> distance = offset_distance(square)
    >>> round(distance, 2), round((10 - 2 * distance) ** 2 * 1.5 / (4 * (10 - 2 * distance)), 2)
    (2.14, 2.14)
    """
    width, height = cv2.minAreaRect(np.asarray(points, np.float32))[1]
    half = (unclip_ratio + 1) * (width + height)
    square = 2 * unclip_ratio + 4
    return float((half - np.sqrt(half**2 - 2 * square * unclip_ratio * width * height)) / (2 * square))


def offset_polygon(points: np.ndarray, distance: float) -> np.ndarray | None:
    """Move a polygon's border outwards (inwards if negative), round corners: [P, 2] int32; None if nothing is left."""
    offset = pyclipper.PyclipperOffset()
    path = [tuple(point) for point in np.round(points).astype(int).tolist()]
    try:
        offset.AddPath(path, pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON)
    except pyclipper.ClipperException:  # all points on one line once rounded
        return None
    pieces = [np.array(piece, np.int32) for piece in offset.Execute(distance)]
    return max(pieces, key=cv2.contourArea) if pieces else None


def make_maps(regions: Sequence[Region], height: int, width: int, *, threshold: bool) -> DbMaps:
    """Targets for an image of that size; the threshold maps only where requested (they take most of the time)."""
    text = np.zeros((height, width), np.float32)
    counted = np.ones((height, width), np.float32)
    learned = []
    for region in regions:
        shrunk = None
        if not region.ignore and _shorter_side(region.points) >= MIN_TEXT_SIDE:
            shrunk = offset_polygon(region.points, -offset_distance(region.points))
        if shrunk is None:
            cv2.fillPoly(counted, [np.round(region.points).astype(np.int32)], 0.0)
        else:
            cv2.fillPoly(text, [shrunk], 1.0)
            learned.append(region)
    if not threshold:
        return DbMaps(text, counted)
    return DbMaps(text, counted, *_threshold_maps(learned, height, width))


def uncounted_maps(height: int, width: int, *, threshold: bool) -> DbMaps:
    """Targets of an image without labels: nothing of it counts."""
    nothing = np.zeros((height, width), np.float32)
    return DbMaps(nothing, nothing, nothing, nothing) if threshold else DbMaps(nothing, nothing)


def _shorter_side(points: np.ndarray) -> float:
    return float(min(cv2.minAreaRect(np.asarray(points, np.float32))[1]))


def _threshold_maps(regions: Sequence[Region], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Threshold map, which rises towards each border within its band, and the bands."""
    near = np.zeros((height, width), np.float32)
    counted = np.zeros((height, width), np.float32)
    for region in regions:
        distance = offset_distance(region.points)
        band = offset_polygon(region.points, distance)
        if band is None or distance < 1:
            continue
        left, top, right, bottom = _box_inside(band, height, width)
        if right <= left or bottom <= top:
            continue
        corner = np.array([left, top])
        shape = (bottom - top, right - left)
        inside = np.zeros(shape, np.uint8)
        cv2.fillPoly(inside, [band - corner], 1)
        outline = np.ones(shape, np.uint8)
        cv2.polylines(outline, [np.round(region.points - corner).astype(np.int32)], True, 0)
        # An outline outside the image is infinitely far away: 1e19 or more, by the CPU.
        away = np.minimum(cv2.distanceTransform(outline, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32(distance + 1))
        # Its last bits depend on where in memory the array lies; squares of these distances are whole numbers.
        away = np.sqrt(np.rint(away**2))
        part = near[top:bottom, left:right]
        np.maximum(part, np.clip(1 - away / distance, 0, 1) * inside, out=part)
        np.maximum(counted[top:bottom, left:right], inside, out=counted[top:bottom, left:right])
    low, high = THRESHOLD_RANGE
    return near * np.float32(high - low) + np.float32(low), counted


def _box_inside(points: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Bounding box (left, top, right, bottom) of points, cut to the image."""
    left, top = np.maximum(points.min(axis=0), 0)
    right, bottom = np.minimum(points.max(axis=0) + 1, (width, height))
    return int(left), int(top), int(right), int(bottom)
