"""Crops of words and lines as a recogniser is fed them: at its height, padded to one of few widths."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.data.processing import Processing
from compress.data.transforms import resize_crop, resized_width, stack_resized
from compress.errors import DataError


def checked_widths(widths: Sequence[int], most: int, processing: Processing) -> tuple[int, ...]:
    """Raises DataError unless the widths rise to the input's, or beyond; images that are stretched have one."""
    given = tuple(widths) or (most,)
    if processing.resize == "stretch" and len(given) > 1:
        raise DataError(f"widths: got {list(given)}, but images are stretched to one (resize). Remove widths.")
    if list(given) != sorted(set(given)) or given[0] < 1 or given[-1] < most:
        raise DataError(
            f"widths: got {list(given)}. Must be rising, and the last the input's width, {most}, or more. Use e.g. "
            f"[{most // 2}, {most}]."
        )
    return given


@dataclass(frozen=True)
class PaddedCrops:
    """How crops are resized, padded and put together."""

    input_shape: tuple[int, int, int]
    widths: tuple[int, ...]
    """Rising; see `checked_widths`."""
    processing: Processing

    def bucket(self, height: int, width: int) -> int:
        """The width that a crop is padded to."""
        if self.processing.resize == "stretch":
            return self.widths[-1]
        width = resized_width(height, width, self.input_shape[1], self.widths[-1])
        return next(size for size in self.widths if width <= size)

    def buckets(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The width that each of several crops is padded to, [N]."""
        return np.array([self.bucket(*image.shape[:2]) for image in images], np.int64)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """A crop at the input's height, [H, at most the largest width, 3]."""
        return resize_crop(image, (*self.input_shape[:2], self.widths[-1]), self.processing)

    def stack(self, images: Sequence[np.ndarray], width: int) -> np.ndarray:
        """Float32 [N, C, H, width] of resized images."""
        return stack_resized(images, (*self.input_shape[:2], int(width)), self.processing)
