"""Augmentation of text crops as PP-OCR trains its recogniser: text warps (TIA), and gentle base operations (BDA).

A warp draws control points along the upper and lower edge, moves them, and lets the image follow smoothly (moving
least squares). Every function is pure, as in `compress.data.augment`: uint8 BGR [H, W, 3], a strength in [0, 1], a
numpy Generator -> a new image of the same shape. Strength 0 is the identity, and so are crops with a side below
`MIN_SIDE`, which have no room to warp.

Source: Luo et al. 2020, "Learn to Augment" (arXiv 2003.06606), with the reaches of PaddleOCR's text_image_aug; the
similarity form of moving least squares from Schaefer et al. 2006. We differ in what follows. Reaches up and down are
also bounded by the height (a quarter of it; PaddleOCR's perspective takes half), so that a long word stays in its
crop. The border is repeated. The map is computed for every pixel, not on a coarse grid.
"""

import cv2
import numpy as np

from compress.data.augment import Operation, gaussian_noise, motion_blur, perspective, rotate

MIN_SIDE = 20
_NEAR = 1e-6  # squared pixels: keeps the weight of a control point finite at the point itself


def augment_text(image: np.ndarray, rng: np.random.Generator, *, probability: float = 0.4) -> np.ndarray:
    """Warp the text with `probability`, then apply each base operation with `probability`.

    Rotation and perspective are gentler than the direction classifier's: there the ends of a word may leave the crop,
    here every character must stay.
    """
    if rng.random() < probability:
        image = TEXT_WARPS[rng.integers(len(TEXT_WARPS))](image, 1.0, rng)
    for operation, strength in BASE:
        if rng.random() < probability:
            image = operation(image, strength, rng)
    return image


def distort_text(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move each point of both edges by up to a sixth of a segment, in any direction; corners only inward."""
    height, width = image.shape[:2]
    segments = int(rng.integers(3, 7))
    reach = np.array([width / segments / 3, min(width / segments / 3, height / 4)]) * strength
    points = _edge_points(width, height, segments)
    moved = points + rng.uniform(-0.5, 0.5, points.shape) * reach
    inward = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])
    corners = [0, segments, segments + 1, 2 * segments + 1]
    moved[corners] = points[corners] + inward * rng.uniform(0, 1, (4, 2)) * reach
    return warp_by_points(image, points, moved)


def stretch_text(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Make parts of a word wider and others narrower: each cut moves sideways by up to 0.4 of a segment."""
    height, width = image.shape[:2]
    segments = int(rng.integers(3, 7))
    shift = rng.uniform(-0.4, 0.4, segments - 1) * (width / segments) * strength
    points = _edge_points(width, height, segments)
    moved = points.copy()
    moved[:, 0] += np.tile(np.concatenate([[0], shift, [0]]), 2)
    return warp_by_points(image, points, moved)


def perspective_text(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move each corner up or down, inward, by up to a quarter of the height x strength."""
    height, width = image.shape[:2]
    points = _edge_points(width, height, 1)
    moved = points.copy()
    moved[:, 1] += np.array([1, 1, -1, -1]) * rng.uniform(0, 0.25, 4) * height * strength
    return warp_by_points(image, points, moved)


TEXT_WARPS: tuple[Operation, ...] = (distort_text, stretch_text, perspective_text)
BASE: tuple[tuple[Operation, float], ...] = (
    (rotate, 0.15),
    (perspective, 0.3),
    (motion_blur, 0.5),
    (gaussian_noise, 0.5),
)


def warp_by_points(image: np.ndarray, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Draw the image [H, W, 3] anew so that what was at `points` [P, 2] (x, y) comes to lie at `moved` [P, 2]."""
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return image.copy()
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    source = follow_points(x + 1j * y, _as_complex(moved), _as_complex(points))
    return cv2.remap(
        image,
        source.real.astype(np.float32),
        source.imag.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def follow_points(places: np.ndarray, points: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Where `places` go when control `points` [P] go to `moved` [P]: the best similarity around each place.

    All are complex numbers x + iy, in which a similarity (turn, scale, shift) is z -> a z + b. With weights
    w = 1 / distance^2, means p*, q* and differences from them: a = sum(w conj(dp) dq) / sum(w |dp|^2).

    >>> follow_points(np.array([1 + 1j]), np.array([0, 2, 2j]), np.array([0, 4, 4j])).round(3)  # twice as large
    array([2.+2.j])
    """
    distance = np.abs(places[..., None] - points) ** 2
    weights = 1 / (distance + _NEAR)
    weights /= weights.sum(axis=-1, keepdims=True)
    mean, moved_mean = weights @ points, weights @ moved
    before, after = points - mean[..., None], moved - moved_mean[..., None]
    turn = (weights * before.conj() * after).sum(axis=-1) / (weights * np.abs(before) ** 2).sum(axis=-1)
    return (places - mean) * turn + moved_mean


def _edge_points(width: int, height: int, segments: int) -> np.ndarray:
    """Control points (x, y) along the upper edge from left to right, then along the lower: [2 x (segments + 1), 2]."""
    x = np.linspace(0, width - 1, segments + 1)
    return np.concatenate([np.stack([x, np.full_like(x, y)], axis=1) for y in (0, height - 1)])


def _as_complex(points: np.ndarray) -> np.ndarray:
    return points[:, 0] + 1j * points[:, 1]
