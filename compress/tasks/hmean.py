"""Precision, recall and their harmonic mean of detected boxes, by the protocol of ICDAR 2015's challenge 4.

Source: Karatzas et al. 2015, "ICDAR 2015 competition on Robust Reading"; PaddleOCR's ppocr/metrics/eval_det_iou.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from compress.artifacts import Score
from compress.data.regions import Region

METRIC = "hmean"
IOU = 0.5
"""A box finds a region where they share more than this of their union."""
COVERED = 0.5
"""A box that lies by more than this share of itself in a region that is not counted is not counted either."""


@dataclass(frozen=True)
class Matches:
    """One image: which boxes and regions belong together, and which are counted at all."""

    pairs: tuple[tuple[int, int], ...]
    """(region, box)"""
    counted_regions: tuple[int, ...]
    counted_boxes: tuple[int, ...]

    @property
    def missed(self) -> tuple[int, ...]:
        """Regions that are counted and not found."""
        found = {region for region, _ in self.pairs}
        return tuple(index for index in self.counted_regions if index not in found)

    @property
    def wrong(self) -> tuple[int, ...]:
        """Boxes that are counted and find nothing."""
        used = {box for _, box in self.pairs}
        return tuple(index for index in self.counted_boxes if index not in used)


def match_boxes(regions: Sequence[Region], boxes: np.ndarray) -> Matches:
    """Match boxes [B, 4, 2] with the regions of an image, one to one, in their order.

    Boxes without area are left out. A box is compared with the regions that are not counted (###) first.
    """
    wanted = np.array([shapely.Polygon(region.points) for region in regions], dtype=object)
    found = shapely.polygons(boxes)
    region_areas, box_areas = shapely.area(wanted), shapely.area(found)
    shared = _shared_areas(wanted, found)
    ignored = np.array([region.ignore for region in regions], bool)
    covered = (shared[ignored] > COVERED * box_areas).any(axis=0)
    counted = shapely.is_valid(found) & (box_areas > 0) & ~covered
    fits = (shared > IOU * (region_areas[:, None] + box_areas - shared)) & counted
    pairs: list[tuple[int, int]] = []
    for region in np.flatnonzero(~ignored):
        free = np.flatnonzero(fits[region])
        if len(free):
            pairs.append((int(region), int(free[0])))
            fits[:, free[0]] = False
    return Matches(tuple(pairs), _numbers(~ignored), _numbers(counted))


def _numbers(mask: np.ndarray) -> tuple[int, ...]:
    """Where a mask is set."""
    return tuple(np.flatnonzero(mask).tolist())


def _shared_areas(wanted: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Area of each region's intersection with each box [R, B]; only those that may touch are computed."""
    areas = np.zeros((len(wanted), len(found)))
    valid = np.flatnonzero(shapely.is_valid(found))
    rows, columns = shapely.STRtree(found[valid]).query(wanted)
    columns = valid[columns]
    areas[rows, columns] = shapely.area(shapely.intersection(wanted[rows], found[columns]))
    return areas


def score_matches(images: Iterable[Matches]) -> Score:
    """Precision, recall and hmean over all regions and boxes of all images together.

    An image without text counts through the boxes that are found in it. No regions at all and no boxes is 1: nothing
    was to be found, and nothing was.
    """
    matches = list(images)
    found = sum(len(image.pairs) for image in matches)
    regions = sum(len(image.counted_regions) for image in matches)
    boxes = sum(len(image.counted_boxes) for image in matches)
    recall = found / regions if regions else float(not boxes)
    precision = found / boxes if boxes else float(not regions)
    hmean = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    details = {"precision": precision, "recall": recall, "regions": float(regions), "boxes": float(boxes)}
    return Score(hmean, METRIC, len(matches), details)


def tally_matches(images: Iterable[Matches]) -> np.ndarray:
    """What each image adds to hmean's numerator and denominator, [N, 2]: hmean is 2 found / (regions + boxes).

    >>> tally_matches([Matches(((0, 1),), (0, 1), (0, 1, 2))]).tolist()
    [[2.0, 5.0]]
    """
    sums = [(2 * len(image.pairs), len(image.counted_regions) + len(image.counted_boxes)) for image in images]
    return np.array(sums, np.float64).reshape(-1, 2)
