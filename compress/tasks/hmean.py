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
    wanted = [shapely.Polygon(region.points) for region in regions]
    found = [shapely.Polygon(corners) for corners in boxes]
    shared = _shared_areas(wanted, found)
    usable = [index for index, shape in enumerate(found) if shape.is_valid and shape.area > 0]
    ignored = [index for index, region in enumerate(regions) if region.ignore]
    counted_boxes = [
        box for box in usable if all(shared[region, box] <= COVERED * found[box].area for region in ignored)
    ]
    counted_regions = [index for index, region in enumerate(regions) if not region.ignore]
    pairs: list[tuple[int, int]] = []
    free = set(counted_boxes)
    for region in counted_regions:
        for box in counted_boxes:
            union = wanted[region].area + found[box].area - shared[region, box]
            if box in free and shared[region, box] > IOU * union:
                pairs.append((region, box))
                free.remove(box)
                break
    return Matches(tuple(pairs), tuple(counted_regions), tuple(counted_boxes))


def _shared_areas(wanted: Sequence[shapely.Polygon], found: Sequence[shapely.Polygon]) -> np.ndarray:
    """Area of each region's intersection with each box [R, B]; only those that may touch are computed."""
    areas = np.zeros((len(wanted), len(found)))
    valid = [index for index, shape in enumerate(found) if shape.is_valid]
    if not wanted or not valid:
        return areas
    tree = shapely.STRtree([found[index] for index in valid])
    rows, columns = tree.query(np.array(wanted, dtype=object))
    for row, column in zip(rows, columns, strict=True):
        areas[row, valid[column]] = wanted[row].intersection(found[valid[column]]).area
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
