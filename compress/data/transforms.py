"""PaddleOCR's preprocessing: of text crops for the direction classifier and the recogniser, of scenes for the detector.

Source: PaddleOCR, ppocr/data/imaug. Crops (resize_norm_img): BGR, ratio kept to the input's height, width capped,
(x / 255 - 0.5) / 0.5, then zeros on the right. Scenes (DetResizeForTest, NormalizeImage): BGR, longest side limited,
both sides multiples of 32, (x / 255 - mean) / std with ImageNet's figures in the order they are in the file.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

# float32 step by step, as PaddleOCR computes it, so that the table equals the formula bit for bit.
_NORMALISED = (np.arange(256, dtype=np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def resized_width(height: int, width: int, input_height: int, max_width: int) -> int:
    """Width of an image after it is brought to `input_height`, ratio kept, at most `max_width`.

    >>> resized_width(30, 50, 48, 192), resized_width(10, 100, 48, 192)
    (80, 192)
    """
    return min(math.ceil(input_height * (width / height)), max_width)


def resize_crop(image: np.ndarray, input_shape: tuple[int, int, int]) -> np.ndarray:
    """Resize uint8 [h, w, 3] to [H, at most W, 3] for `input_shape` (3, H, W), bilinear."""
    _, input_height, max_width = input_shape
    width = resized_width(image.shape[0], image.shape[1], input_height, max_width)
    return cv2.resize(image, (width, input_height), interpolation=cv2.INTER_LINEAR)


def stack_resized(images: Sequence[np.ndarray], input_shape: tuple[int, int, int]) -> np.ndarray:
    """Normalise resized uint8 [H, w, 3] images and pad them with 0 on the right: float32 [N, 3, H, W].

    The padding comes after normalisation, so it is mid-grey, not black.
    """
    batch = np.zeros((len(images), *input_shape), dtype=np.float32)
    for row, image in zip(batch, images, strict=True):
        row[:, :, : image.shape[1]] = _NORMALISED[image.transpose(2, 0, 1)]
    return batch


def preprocess_crop(image: np.ndarray, input_shape: tuple[int, int, int]) -> np.ndarray:
    """Prepare one uint8 BGR crop [h, w, 3] for a model: float32 [3, H, W]."""
    return stack_resized([resize_crop(image, input_shape)], input_shape)[0]


MULTIPLE = 32
"""Sides of a detector's input: its network halves them five times."""
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_SCENE_TABLES = ((np.arange(256, dtype=np.float32)[:, None] * np.float32(1 / 255) - _MEAN) / _STD).T.copy()
"""What each value of each channel becomes: looking it up is 2.5 times as fast as computing it, and the same."""


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


def fit_scene(image: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 [h, w, 3] to `fitted_size`, bilinear."""
    height, width = fitted_size(image.shape[0], image.shape[1], side)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def normalise_scenes(images: Sequence[np.ndarray]) -> np.ndarray:
    """Uint8 [H, W, 3] of one size -> float32 [N, 3, H, W]."""
    batch = np.empty((len(images), 3, *images[0].shape[:2]), np.float32)
    for planes, image in zip(batch, images, strict=True):
        for plane, table, channel in zip(planes, _SCENE_TABLES, cv2.split(image), strict=True):
            cv2.LUT(channel, table, dst=plane)
    return batch
