"""Images and maps are [N, C, H, W] throughout; a file that takes [N, H, W, C] is fed and read in its own order."""

from collections.abc import Sequence

import numpy as np

COLOURS = (1, 3)
TO_FIRST, TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Permutations of [N, H, W, C] to [N, C, H, W], and back."""


def is_channels_last(sizes: Sequence[int | None]) -> bool:
    """Whether an input's shape is that of images [N, H, W, C].

    >>> is_channels_last((None, 48, 192, 3)), is_channels_last((1, 3, 48, 3)), is_channels_last((None,) * 4)
    (True, False, False)
    """
    return len(sizes) == 4 and sizes[3] in COLOURS and sizes[1] not in COLOURS


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
