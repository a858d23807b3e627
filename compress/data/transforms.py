"""Preprocessing of text crops for the direction classifier and the recogniser, and of scenes for the detector.

How a model wants them, `compress.data.processing` says; the defaults are PaddleOCR's.

Source: PaddleOCR, ppocr/data/imaug. Crops (resize_norm_img): BGR, ratio kept to the input's height, width capped,
(x / 255 - 0.5) / 0.5, then zeros on the right. Scenes (DetResizeForTest, NormalizeImage): BGR, longest side limited,
both sides multiples of 32, (x / 255 - mean) / std with ImageNet's figures in the order they are in the file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from compress.data.processing import PRESETS, Processing
from compress.errors import DataError

_INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
}
PPOCR = Processing()


def resized_width(height: int, width: int, input_height: int, max_width: int) -> int:
    """Width of an image after it is brought to `input_height`, ratio kept, at most `max_width`.

    >>> resized_width(30, 50, 48, 192), resized_width(10, 100, 48, 192)
    (80, 192)
    """
    return min(math.ceil(input_height * (width / height)), max_width)


def resize_crop(image: np.ndarray, input_shape: tuple[int, int, int], processing: Processing = PPOCR) -> np.ndarray:
    """Resize uint8 [h, w, 3] to [H, at most W, 3] for `input_shape` (C, H, W), or to all of it if it is stretched."""
    _, input_height, max_width = input_shape
    width = max_width
    if processing.resize != "stretch":
        width = resized_width(image.shape[0], image.shape[1], input_height, max_width)
    return cv2.resize(image, (width, input_height), interpolation=_INTERPOLATIONS[processing.interpolation])


def stack_resized(
    images: Sequence[np.ndarray], input_shape: tuple[int, int, int], processing: Processing = PPOCR
) -> np.ndarray:
    """Normalise resized uint8 BGR [H, w, 3] images and pad them to the input's width: float32 [N, C, H, W].

    PP-OCR's padding is 0 after normalisation, which is mid-gray, not black.
    """
    tables = crop_tables(processing.mean, processing.std)
    batch = np.zeros((len(images), *input_shape), dtype=np.float32)
    for row, image in zip(batch, images, strict=True):
        left = _left(input_shape[2] - image.shape[1], processing.pad_side)
        right = left + image.shape[1]
        for plane, table, channel in zip(row, tables, channels_of(image, processing.color), strict=True):
            plane[:, left:right] = cv2.LUT(channel, table)
            _pad(plane, table, left, right, processing.pad_value)
    return batch


def _left(room: int, side: str) -> int:
    """Of `room` columns to pad, those on the left."""
    return {"right": 0, "left": room, "center": room // 2}[side]


def _pad(plane: np.ndarray, table: np.ndarray, left: int, right: int, value: str | float) -> None:
    """Fill a normalised plane [H, W] beside its columns from `left` to `right`."""
    if value == "mean":
        return
    for place, edge in ((slice(0, left), left), (slice(right, None), right - 1)):
        plane[:, place] = plane[:, edge : edge + 1] if value == "edge" else gray_value(table, value)


def gray_value(table: np.ndarray, value: str | float) -> float:
    """A gray from 0 to 255, which need not be whole, after normalisation by a table [256]; `mean` is 0."""
    return 0.0 if isinstance(value, str) else float(np.interp(value, np.arange(256), table))


def channels_of(image: np.ndarray, color: str) -> Sequence[np.ndarray]:
    """The planes [H, W] of a uint8 BGR image [H, W, 3] as a model takes them."""
    if color == "gray":
        return (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),)
    planes: Sequence[np.ndarray] = cv2.split(image)
    return planes[::-1] if color == "rgb" else planes


@lru_cache
def crop_tables(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """What each pixel value becomes: [C, 256]; looking it up is quicker than computing it.

    Float32 step by step, as PaddleOCR computes crops, so that the table equals the formula bit for bit.
    """
    values = np.arange(256, dtype=np.float32) / np.float32(255)
    return np.stack([(values - np.float32(one)) / np.float32(other) for one, other in zip(mean, std, strict=True)])


def preprocess_crop(image: np.ndarray, input_shape: tuple[int, int, int], processing: Processing = PPOCR) -> np.ndarray:
    """Prepare one uint8 BGR crop [h, w, 3] for a model: float32 [C, H, W]."""
    return stack_resized([resize_crop(image, input_shape, processing)], input_shape, processing)[0]


MULTIPLE = 32
"""Sides of a detector's input: its network halves them five times."""
PPOCR_SCENES = PRESETS["ppocr"]["detection"].processing


@lru_cache
def scene_tables(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """As `crop_tables`; PaddleOCR multiplies scenes by 1/255 where it divides crops by 255, which rounds otherwise."""
    values = np.arange(256, dtype=np.float32)[:, None] * np.float32(1 / 255)
    return ((values - np.array(mean, np.float32)) / np.array(std, np.float32)).T.copy()


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Size of a scene whose longest side is brought down to `side`, never up; both sides multiples of 32.

    >>> fitted_size(720, 1280, 1280), fitted_size(2560, 1440, 1280), fitted_size(10, 500, 1280)
    ((704, 1280), (1280, 704), (32, 512))
    """
    factor = min(1.0, side / max(height, width))
    # As PaddleOCR: cut to whole pixels first, then round (halves to even) to multiples.
    new = (int(size * factor) for size in (height, width))
    fitted_height, fitted_width = (max(MULTIPLE, round(size / MULTIPLE) * MULTIPLE) for size in new)
    return fitted_height, fitted_width


@dataclass(frozen=True)
class Placed:
    """Where a scene lies in what a model is fed: the input's size, and the scene's place and size in it, in pixels."""

    input: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    def cut(self, plane: np.ndarray) -> np.ndarray:
        """The scene's part of a map [..., H, W]."""
        return plane[..., self.top : self.top + self.height, self.left : self.left + self.width]


def place_scene(
    height: int, width: int, side: int, input_shape: tuple[int, int, int], processing: Processing = PPOCR_SCENES
) -> Placed:
    """The size that a scene is brought to, and where it then lies.

    Args:
        height: of the scene.
        width: of the scene.
        side: longest side, where sizes are limited (see `fitted_size`).
        input_shape: (C, H, W) to pad or stretch to.
        processing: says which of the three.

    >>> place_scene(500, 1000, 1280, (3, 64, 64), Processing(resize="pad", pad_side="center"))
    Placed(input=(64, 64), top=16, left=0, height=32, width=64)
    """
    if processing.resize == "limit":
        fitted = fitted_size(height, width, side)
        return Placed(fitted, 0, 0, *fitted)
    size = input_shape[1:]
    if processing.resize == "stretch":
        return Placed(size, 0, 0, *size)
    factor = min(size[0] / height, size[1] / width)
    fitted = max(1, round(height * factor)), max(1, round(width * factor))
    side_ = processing.pad_side
    return Placed(size, _left(size[0] - fitted[0], side_), _left(size[1] - fitted[1], side_), *fitted)


def fit_scene(image: np.ndarray, place: Placed, processing: Processing = PPOCR_SCENES) -> np.ndarray:
    """Resize uint8 [h, w, 3] to the size of its place."""
    return cv2.resize(image, (place.width, place.height), interpolation=_INTERPOLATIONS[processing.interpolation])


def normalise_scenes(
    images: Sequence[np.ndarray], processing: Processing = PPOCR_SCENES, place: Placed | None = None
) -> np.ndarray:
    """Uint8 BGR [h, w, 3] of one size -> float32 [N, C, H, W], of another size if they have a place in it."""
    height, width = images[0].shape[:2]
    place = place or Placed((height, width), 0, 0, height, width)
    batch = np.empty((len(images), processing.channels, *place.input), np.float32)
    tables = scene_tables(processing.mean, processing.std)
    for planes, image in zip(batch, images, strict=True):
        for plane, table, channel in zip(planes, tables, channels_of(image, processing.color), strict=True):
            if place.input == (height, width):
                cv2.LUT(channel, table, dst=plane)
                continue
            plane[:] = gray_value(table, processing.pad_value)
            place.cut(plane)[:] = cv2.LUT(channel, table)
    return batch


def check_multiples(input_shape: tuple[int, int, int], side: int, crop: int | None = None) -> None:
    """Raise DataError unless all sizes that a detector is fed are multiples of 32."""
    sizes = (*input_shape[1:], side, *([] if crop is None else [crop]))
    wrong = [size for size in sizes if size % MULTIPLE or size <= 0]
    if wrong:
        raise DataError(
            f"input, side, crop: got {wrong[0]}. Must be multiples of {MULTIPLE}, e.g. "
            f"{max(MULTIPLE, round(wrong[0] / MULTIPLE) * MULTIPLE)}: a detector halves its input five times."
        )
