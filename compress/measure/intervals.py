"""How sure a figure is: bootstrap intervals over images, of a figure and of the difference of two files' figures.

Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13 (percentile interval). Files that are
compared are resampled together, the same images for both: most of what makes a set hard is hard for both of them, so
their difference is known better than either figure.
"""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 2000
SHARE = 0.95
SEED = 0
CELLS = 4_000_000
"""Counts that are drawn at once, at most: 32 MB."""


def share_tallies(right: Sequence[bool] | np.ndarray) -> np.ndarray:
    """The tallies [N, 2] of a share: of N images, which count.

    >>> share_tallies([True, False]).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    counted = np.asarray(right, np.float64)
    return np.stack([counted, np.ones_like(counted)], axis=-1)


def ratio_of_sums(tallies: np.ndarray) -> np.ndarray:
    """The figures that tallies [..., N, 2] make: sum of [..., 0] over sum of [..., 1]. 0 / 0 is 1.

    >>> float(ratio_of_sums(np.array([[1, 1], [0, 1], [1, 1], [1, 1]])))
    0.75
    """
    return _ratio(np.asarray(tallies, np.float64).sum(axis=-2))


def bootstrap(tallies: np.ndarray, resamples: int = RESAMPLES, seed: int = SEED) -> np.ndarray:
    """The figures [resamples, F] of F files on resampled images, the same ones for all files.

    Args:
        tallies: [F, N, 2]; of each image what it adds to a figure's numerator and denominator.
        resamples: times that N images are drawn of N, with replacement.
        seed: of the draws. Equal N and seed draw equal images.
    """
    tallies = np.asarray(tallies, np.float64)
    files, images = tallies.shape[:2]
    flat = tallies.transpose(1, 0, 2).reshape(images, 2 * files)
    rng = np.random.default_rng(seed)
    at_once = max(1, CELLS // images)
    sums = [
        rng.multinomial(images, np.full(images, 1 / images), size=min(at_once, resamples - done)) @ flat
        for done in range(0, resamples, at_once)
    ]
    return _ratio(np.concatenate(sums).reshape(resamples, files, 2))


def interval(figures: np.ndarray, share: float = SHARE) -> tuple[float, float]:
    """The middle `share` of resampled figures [resamples].

    >>> [round(end, 3) for end in interval(np.linspace(0, 1, 1001))]
    [0.025, 0.975]
    """
    low, high = np.quantile(figures, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)


def figure_interval(tallies: np.ndarray) -> tuple[float, float]:
    """The interval of one file's figure, from its tallies [N, 2]."""
    return interval(bootstrap(np.asarray(tallies)[None])[:, 0])


def _ratio(sums: np.ndarray) -> np.ndarray:
    """[..., 2] -> [...]"""
    numerator, denominator = sums[..., 0], sums[..., 1]
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), 1.0)
