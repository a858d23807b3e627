"""Images and maps are [N, C, H, W] throughout; a file that takes [N, H, W, C] is fed and read in its own order."""

from collections.abc import Sequence

import numpy as np

COLOURS = (1, 3)
LEAST = 16
"""Height and width of an image, at least: what is smaller are features, whose last axis may be 1 or 3 as well."""
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Permutations of [N, H, W, C] to [N, C, H, W], and back."""


def is_channels_last(sizes: Sequence[int | None]) -> bool:
    """Whether an input's shape is that of images [N, H, W, C].

    >>> is_channels_last((None, 48, 192, 3)), is_channels_last((1, 3, 48, 3)), is_channels_last((1, 96, 1, 1))
    (True, False, False)
    """
    if len(sizes) != 4 or sizes[3] not in COLOURS or sizes[1] in COLOURS:
        return False
    return all(size is None or size >= LEAST for size in sizes[1:3])


def has_channels_last(sizes: Sequence[int | None]) -> bool:
    """Whether an output of a model of images [N, H, W, C] has that order, too: its last axis is fixed, and the smaller.

    >>> has_channels_last((None, None, None, 1)), has_channels_last((1, 64, 96, 5)), has_channels_last((1, 1, 64, 96))
    (True, True, False)
    """
    if len(sizes) != 4 or sizes[3] is None:
        return False
    return sizes[1] is None or sizes[3] < sizes[1]


def channels_first(sizes: Sequence[int | None]) -> tuple[int | None, ...]:
    """The shape of images as [N, C, H, W].

    >>> channels_first((None, 48, 192, 3)), channels_first((None, 3, 48, 192))
    ((None, 3, 48, 192), (None, 3, 48, 192))
    """
    if not is_channels_last(sizes):
        return tuple(sizes)
    return tuple(sizes[axis] for axis in TO_FIRST)


def in_order_of(sizes: Sequence[int | None], images: np.ndarray) -> np.ndarray:
    """Images [N, C, H, W] as an input of that shape takes them; as they are where they fit it.

    >>> black = np.zeros((1, 3, 48, 192))
    >>> in_order_of((None, None, None, 3), black).shape, in_order_of((1, 3, None, None), black).shape
    ((1, 48, 192, 3), (1, 3, 48, 192))
    """
    fits = all(size in (None, given) for size, given in zip(sizes, images.shape, strict=False))
    return images if fits or not is_channels_last(sizes) else np.ascontiguousarray(images.transpose(TO_LAST))
