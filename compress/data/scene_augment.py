"""Training crops of scenes: text copied in from elsewhere, flipped, turned, scaled, cut out, lit differently.

Source: PaddleOCR's det_mv3_db configuration (Fliplr, Affine rotate ±10, Resize, EastRandomCropData) and CopyPaste
(PP-OCRv2, arXiv 2109.03144). All geometry is one affine map here, so that pixels are interpolated once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from compress.data.regions import Region


@dataclass(frozen=True)
class Geometry:
    """How far training crops may differ from what is scored."""

    degrees: float
    """Turned by at most this, either way."""
    scales: tuple[float, float]
    """Factor on the size that validation uses; drawn evenly on a logarithmic scale."""
    flip: bool
    """Mirrored half of the time."""


GEOMETRIES = {"strong": Geometry(10.0, (0.6, 1.6), True), "mild": Geometry(4.0, (0.75, 4 / 3), False)}
"""`strong` is about PaddleOCR's, for training from scratch. `mild` is for a trained network and images like those that
it will read: 12 epochs on 80 receipts brought the pruned deployed detector to .8194 so, to .7972 with `strong`."""
INSIDE = 0.9
"""A region cut by the border counts if at least this share of it is left; else it is not counted."""
PASTED_AT_MOST = 8


def copy_paste(
    image: np.ndarray,
    regions: Sequence[Region],
    source: np.ndarray,
    source_regions: Sequence[Region],
    rng: np.random.Generator,
) -> tuple[np.ndarray, tuple[Region, ...]]:
    """Paste some upright boxes of `source`'s text, none that its border cuts, where `image` has none; new values."""
    image = image.copy()
    height, width = image.shape[:2]
    taken = [_box(region) for region in regions]
    added = list(regions)
    usable = [region for region in source_regions if not region.ignore]
    for index in rng.permutation(len(usable))[:PASTED_AT_MOST]:
        left, top, right, bottom = _box(usable[index])
        wide, tall = right - left, bottom - top
        cut = left < 0 or top < 0 or right > source.shape[1] or bottom > source.shape[0]
        if cut or min(tall, wide) < 2 or tall >= height or wide >= width:
            continue
        x, y = int(rng.integers(width - wide)), int(rng.integers(height - tall))
        box = (x, y, x + wide, y + tall)
        if any(_overlap(box, other) for other in taken):
            continue
        image[y : y + tall, x : x + wide] = source[top:bottom, left:right]
        taken.append(box)
        added.append(Region(usable[index].points + np.array([x - left, y - top], np.float32), usable[index].text))
    return image, tuple(added)


def _box(region: Region) -> tuple[int, int, int, int]:
    low, high = np.floor(region.points.min(axis=0)).astype(int), np.ceil(region.points.max(axis=0)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def random_crop(
    image: np.ndarray,
    regions: Sequence[Region],
    size: tuple[int, int],
    factor: float,
    rng: np.random.Generator,
    geometry: Geometry | None = None,
) -> tuple[np.ndarray, tuple[Region, ...]]:
    """A flipped, turned and scaled crop of `size` (height, width), mostly around some text; black outside the image.

    Args:
        image: uint8 BGR [H, W, 3].
        regions: in its pixels.
        size: of the crop.
        factor: from the image's size to the one that validation uses.
        rng: of everything random here.
        geometry: how far to flip, turn and scale; None to scale by `factor` alone.
    """
    scale = factor * float(np.exp(rng.uniform(*np.log(geometry.scales)))) if geometry else factor
    angle = float(rng.uniform(-geometry.degrees, geometry.degrees)) if geometry else 0.0
    centre = _crop_centre(image, regions, rng)
    turn = cv2.getRotationMatrix2D((0, 0), angle, scale)[:, :2]
    if geometry and geometry.flip and rng.random() < 0.5:
        turn = turn @ np.diag([-1.0, 1.0])
    # The chosen point lands anywhere in the middle half of the crop.
    goal = np.array([size[1], size[0]]) * rng.uniform(0.25, 0.75, 2)
    matrix = np.concatenate([turn, (goal - turn @ centre)[:, None]], axis=1)
    crop = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return crop, cut_regions([_moved(region, matrix) for region in regions], *size)


def fixed_crop(
    image: np.ndarray, regions: Sequence[Region], size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """An unchanged crop of `size` (height, width) around some text, inside the image where that is large enough."""
    height, width = size
    centre = _crop_centre(image, regions, rng)
    left = int(np.clip(centre[0] - width / 2, 0, max(0, image.shape[1] - width)))
    top = int(np.clip(centre[1] - height / 2, 0, max(0, image.shape[0] - height)))
    part = image[top : top + height, left : left + width]
    crop = np.zeros((height, width, 3), np.uint8)
    crop[: part.shape[0], : part.shape[1]] = part
    return crop


def _crop_centre(image: np.ndarray, regions: Sequence[Region], rng: np.random.Generator) -> np.ndarray:
    """A point (x, y) to look at: some region's middle, or, one time in ten and without text, anywhere."""
    if regions and rng.random() < 0.9:
        return regions[int(rng.integers(len(regions)))].points.mean(axis=0).astype(np.float64)
    return rng.random(2) * np.array([image.shape[1], image.shape[0]])


def _moved(region: Region, matrix: np.ndarray) -> Region:
    points = region.points @ matrix[:, :2].T + matrix[:, 2]
    return Region(points.astype(np.float32), region.text, region.ignore)


def cut_regions(regions: Sequence[Region], height: int, width: int) -> tuple[Region, ...]:
    """What is left of regions in an image of that size; those of which too little is left are not to be counted."""
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    left = []
    for region in regions:
        low, high = region.points.min(axis=0), region.points.max(axis=0)
        if (low >= 0).all() and (high <= (width, height)).all():
            left.append(region)
        elif (high > 0).all() and (low < (width, height)).all():
            area, points = cv2.intersectConvexConvex(cv2.convexHull(region.points), frame)
            if area > 1:
                whole = cv2.contourArea(cv2.convexHull(region.points))
                left.append(Region(points.reshape(-1, 2), region.text, region.ignore or area < INSIDE * whole))
    return tuple(left)


def change_light(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other brightness, contrast and colour, and sometimes blur or noise, on uint8 [H, W, 3]."""
    levels = np.arange(256, dtype=np.float32) / 255
    tables = []
    gamma, contrast, light = float(np.exp(rng.uniform(-0.3, 0.3))), rng.uniform(0.7, 1.2), rng.uniform(-0.15, 0.15)
    for _ in range(3):
        table = (levels**gamma - 0.5) * contrast + 0.5 + light + rng.uniform(-0.05, 0.05)
        tables.append(np.clip(table * 255, 0, 255).astype(np.uint8))
    image = cv2.LUT(image, np.stack(tables, axis=1)[None])
    kind = rng.random()
    if kind < 0.1:
        return cv2.GaussianBlur(image, (3, 3), 0)
    if kind < 0.2:
        noise = rng.normal(0, rng.uniform(2, 10), image.shape)
        return np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
