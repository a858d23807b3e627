"""Augmentation of text crops as PP-OCR trains its direction classifier.

Base augmentation (rotation, perspective, motion blur, Gaussian noise, each with a probability), then
RandAugment: `ops` operations drawn with replacement, all of one magnitude. Every function is pure: it takes
a uint8 BGR image [H, W, 3], a strength in [0, 1] and a numpy Generator, and returns a new image of the same
shape. Strength 0 is the identity, except for the operations that have no strength (`UNGRADED`).

Source: PP-OCR (arXiv 2009.09941) section 2.2; RandAugment (arXiv 1909.13719), ranges of PaddleOCR's
implementation. We differ in what a warp uncovers: the border is repeated, not filled with grey.
"""

from collections.abc import Callable

import cv2
import numpy as np

MAX_MAGNITUDE = 10.0
Operation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def augment_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    probability: float = 0.4,
    ops: int = 2,
    magnitude: float = 5.0,
) -> np.ndarray:
    """Apply each base operation with `probability`, then RandAugment with `ops` operations."""
    for operation in (rotate, perspective, motion_blur, gaussian_noise):
        if rng.random() < probability:
            image = operation(image, 0.5, rng)
    return rand_augment(image, rng, ops=ops, magnitude=magnitude)


def rand_augment(image: np.ndarray, rng: np.random.Generator, *, ops: int, magnitude: float) -> np.ndarray:
    """Apply `ops` operations drawn from `RAND_AUGMENT`, each with strength `magnitude` / 10."""
    for choice in rng.integers(len(RAND_AUGMENT), size=ops):
        image = RAND_AUGMENT[choice](image, magnitude / MAX_MAGNITUDE, rng)
    return image


# --- geometry: a 2x3 or 3x3 matrix, then one warp -------------------------------------------------------------


def rotate(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Rotate about the centre by up to 30 degrees x strength."""
    height, width = image.shape[:2]
    degrees = rng.uniform(-30, 30) * strength
    return _warp(image, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0))


def perspective(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move each corner inward by up to a quarter of the side x strength, and stretch to the full size again."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float32)
    # Sides of one pixel have no corners to move.
    side = np.array([max(width - 1, 0), max(height - 1, 0)], np.float32)
    if not side.all():
        return image.copy()
    moved = corners + inward * side * rng.uniform(0, 0.25, size=(4, 2)).astype(np.float32) * np.float32(strength)
    matrix = cv2.getPerspectiveTransform(moved, corners)
    return cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def shear_x(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Slant by up to 0.3 x strength columns per row, about the middle row."""
    slope = _sign(rng) * 0.3 * strength
    return _warp(image, np.array([[1, slope, -slope * (image.shape[0] - 1) / 2], [0, 1, 0]]))


def shear_y(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move columns by up to 0.3 x strength rows per column, about the middle column, at most half the height."""
    height, width = image.shape[:2]
    # A slope of 0.3 would push the ends of a long word out of the crop; the label would have no evidence.
    slope = _sign(rng) * min(0.3, 0.5 * height / width) * strength
    return _warp(image, np.array([[1, 0, 0], [slope, 1, -slope * (width - 1) / 2]]))


def translate_x(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move sideways by 0.3 of the width x strength."""
    return _warp(image, np.array([[1, 0, _sign(rng) * 0.3 * strength * image.shape[1]], [0, 1, 0]]))


def translate_y(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move up or down by 0.3 of the height x strength."""
    return _warp(image, np.array([[1, 0, 0], [0, 1, _sign(rng) * 0.3 * strength * image.shape[0]]]))


# --- sharpness and noise --------------------------------------------------------------------------------------


def motion_blur(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blur along a line in a random direction, up to a third of the height x strength long."""
    length = round(rng.uniform(0, image.shape[0] / 3) * strength)
    angle = rng.uniform(0, np.pi)
    if length < 2:
        return image.copy()
    kernel = np.zeros((length | 1, length | 1), np.float32)
    reach = (length - 1) / 2
    centre = kernel.shape[0] // 2
    offset = (round(float(np.cos(angle)) * reach), round(float(np.sin(angle)) * reach))
    start, end = (centre - offset[0], centre - offset[1]), (centre + offset[0], centre + offset[1])
    cv2.line(kernel, start, end, 1.0)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)


def gaussian_noise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise of a standard deviation up to 40 grey levels x strength."""
    deviation = np.float32(rng.uniform(0, 40) * strength)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return _to_uint8(image + noise * deviation)


def sharpness(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blend with a smoothed copy, by -0.9 (sharper) or 0.9 (softer) x strength."""
    return _blend(image, cv2.blur(image, (3, 3)), _sign(rng) * 0.9 * strength)


# --- colour: most are one table of 256 values -----------------------------------------------------------------


def colour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Blend with the grey image: less colour or more, by 0.9 x strength."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _blend(image, grey, _sign(rng) * 0.9 * strength)


def contrast(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Move values away from the mean or towards it by a factor of 1 ± 0.9 x strength."""
    mean = image.mean()
    return cv2.LUT(image, _to_uint8(mean + (_LEVELS - mean) * (1 + _sign(rng) * 0.9 * strength)))


def brightness(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply by 1 ± 0.9 x strength."""
    return cv2.LUT(image, _to_uint8(_LEVELS * (1 + _sign(rng) * 0.9 * strength)))


def posterise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Keep the upper 8 - 4 x strength bits of each value."""
    dropped = round(4 * strength)
    return image >> dropped << dropped


def solarise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Invert values at or above 256 - 256 x strength."""
    return cv2.LUT(image, _to_uint8(np.where(256 * (1 - strength) <= _LEVELS, 255 - _LEVELS, _LEVELS)))


def autocontrast(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Stretch the image's values to 0..255. Has no strength."""
    low, high = int(image.min()), int(image.max())
    return image.copy() if low == high else cv2.LUT(image, _to_uint8((_LEVELS - low) * (255.0 / (high - low))))


def equalise(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Equalise the histogram of each channel. Has no strength."""
    return cv2.merge([cv2.equalizeHist(channel) for channel in cv2.split(image)])


def invert(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Turn light into dark. Has no strength."""
    return cv2.bitwise_not(image)


RAND_AUGMENT: tuple[Operation, ...] = (
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    colour,
    posterise,
    solarise,
    contrast,
    sharpness,
    brightness,
    autocontrast,
    equalise,
    invert,
)
UNGRADED: tuple[Operation, ...] = (autocontrast, equalise, invert)

_LEVELS = np.arange(256, dtype=np.float64)


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Apply a 2x3 matrix; what comes into view repeats the border."""
    size = (image.shape[1], image.shape[0])
    return cv2.warpAffine(image, matrix.astype(np.float64), size, borderMode=cv2.BORDER_REPLICATE)


def _blend(image: np.ndarray, other: np.ndarray, share: float) -> np.ndarray:
    """(1 - share) x image + share x other, saturating; a negative share moves away from `other`."""
    return cv2.addWeighted(image, 1 - share, other, share, 0)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
