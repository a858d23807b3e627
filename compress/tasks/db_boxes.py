"""DBNet's post-processing: from a probability map to boxes.

Source: Liao et al. 2020, "Real-time Scene Text Detection with Differentiable Binarization" (arXiv 1911.08947), and
PaddleOCR, ppocr/postprocess/db_postprocess.py, whose steps, order and rounding this follows.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import pyclipper

from compress.errors import DataError

MIN_SIDE = 3
"""Boxes narrower than this, in pixels of the map, are noise; after growing they must have 2 more."""


MAX_UNCLIP_RATIO = 10.0
"""Boxes grown by more would be larger than any text; far more leaves the range of whole pixels."""


@dataclass(frozen=True)
class BoxSettings:
    """Settings of the post-processing; the defaults are PaddleOCR's for PP-OCR.

    Raises:
        DataError: a setting is out of its range.
    """

    threshold: float = 0.3
    """A pixel is text above this probability."""
    box_threshold: float = 0.6
    """A box is kept from this mean probability on."""
    max_candidates: int = 1000
    """Contours that are looked at, at most."""
    unclip_ratio: float = 1.5
    """Boxes grow by area * this / perimeter, as the network was trained on shrunk text."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise DataError(f"threshold: got {self.threshold:g}. Must be in (0, 1). Use e.g. 0.3.")
        if not 0 <= self.box_threshold <= 1:
            raise DataError(f"box_threshold: got {self.box_threshold:g}. Must be in [0, 1]. Use e.g. 0.6.")
        if not 0 < self.unclip_ratio <= MAX_UNCLIP_RATIO:
            raise DataError(
                f"unclip_ratio: got {self.unclip_ratio:g}. Must be in (0, {MAX_UNCLIP_RATIO:g}]. Use e.g. 1.5."
            )
        if self.max_candidates < 1:
            raise DataError(f"max_candidates: got {self.max_candidates}. Must be 1 or more. Use e.g. 1000.")


def find_boxes(
    probability: np.ndarray, height: int, width: int, settings: BoxSettings | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of text in an image of `height` x `width` from its probability map [h, w], which may be of another size.

    Returns:
        Boxes [B, 4, 2] float32 (x, y), clockwise from the top left, whole pixels, and their scores [B].
    """
    settings = settings or BoxSettings()
    contours, _ = cv2.findContours(
        (probability > settings.threshold).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE
    )
    boxes, scores = [], []
    for contour in contours[: settings.max_candidates]:
        corners, side = min_area_box(contour)
        if side < MIN_SIDE:
            continue
        score = box_score(probability, corners)
        if score < settings.box_threshold:
            continue
        grown = grow(corners, settings.unclip_ratio)
        if grown is None:
            continue
        corners, side = min_area_box(grown)
        if side < MIN_SIDE + 2:
            continue
        boxes.append(_to_image(corners, probability.shape, height, width))
        scores.append(score)
    return np.array(boxes, np.float32).reshape(-1, 4, 2), np.array(scores, np.float32)


def min_area_box(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The smallest rotated rectangle around points: corners [4, 2] clockwise from the top left, its shorter side."""
    rectangle = cv2.minAreaRect(np.asarray(points).reshape(-1, 1, 2))
    corners = sorted(cv2.boxPoints(rectangle).tolist())
    left = sorted(corners[:2], key=lambda point: point[1])
    right = sorted(corners[2:], key=lambda point: point[1])
    return np.array([left[0], right[0], right[1], left[1]], np.float32), min(rectangle[1])


def box_score(probability: np.ndarray, corners: np.ndarray) -> float:
    """Mean probability inside a box [4, 2]."""
    height, width = probability.shape
    low = np.floor(corners.min(axis=0)).astype(int)
    high = np.ceil(corners.max(axis=0)).astype(int)
    left, right = np.clip((low[0], high[0]), 0, width - 1)
    top, bottom = np.clip((low[1], high[1]), 0, height - 1)
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    # To whole pixels as PaddleOCR does it: cut, not rounded.
    cv2.fillPoly(mask, [(corners - np.array([left, top])).astype(np.int32)], 1)
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def grow(corners: np.ndarray, ratio: float) -> np.ndarray | None:
    """Offset a polygon [P, 2] outwards by area * ratio / perimeter, round corners; None if that is not one piece."""
    distance = cv2.contourArea(corners) * ratio / cv2.arcLength(corners, True)
    offset = pyclipper.PyclipperOffset()
    offset.AddPath(
        [tuple(point) for point in corners.astype(int).tolist()], pyclipper.JT_ROUND, pyclipper.ET_CLOSEDPOLYGON
    )
    pieces = offset.Execute(distance)
    return np.array(pieces[0], np.float32) if len(pieces) == 1 else None


def _to_image(corners: np.ndarray, shape: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """From the map's pixels to the image's: scaled, rounded, kept inside."""
    scaled = np.round(corners * np.array([width / shape[1], height / shape[0]]))
    return np.clip(scaled, 0, [width, height])
