"""How far a changed network's outputs are from the original's on the same images: no label is looked at.

A divergence is 0 for equal outputs and grows without limit, infinite where the output is not finite. An agreement is
the metric with the original's answers for labels, as what each image adds to numerator and denominator.
"""

import numpy as np

from compress.data.charset import Charset
from compress.data.regions import Region
from compress.tasks.db_boxes import BoxSettings, find_boxes
from compress.tasks.hmean import match_boxes, tally_matches

LEAST = 1e-30
"""Probabilities are raised to this before the logarithm."""
STEEPNESS = 50.0
"""Of the soft cut of probability maps, as DBNet's."""


def row_divergence(outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
    """KL(original || outputs) in nats of each row of probabilities [..., K].

    >>> row_divergence(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])).round(4).tolist()  # ln 2
    [0.6931]
    """
    found, wanted = (np.maximum(each, LEAST, dtype=np.float64) for each in (outputs, original))
    divergence: np.ndarray = (wanted * (np.log(wanted) - np.log(found))).sum(axis=-1)
    return _finite(divergence, np.isfinite(outputs).all(axis=-1))


def class_agreement(outputs: np.ndarray, original: np.ndarray) -> np.ndarray:
    """[N, 2]: whether the same class leads in probabilities [N, K], and 1."""
    same = (outputs.argmax(axis=1) == original.argmax(axis=1)) & np.isfinite(outputs).all(axis=1)
    return np.stack([same.astype(np.float64), np.ones(len(same))], axis=1)


def step_divergence(outputs: np.ndarray, original: np.ndarray, blank: int) -> np.ndarray:
    """KL(original || outputs) of probabilities [N, T, K] in nats for each character that the original says, [N].

    A step counts as much as either network says that it holds a character (1 - the product of both blanks): nine steps
    in ten of a word are blank for both, and their mean says next to nothing. An image in which the original says less
    than one character counts as one.

    >>> said, blank = [0.0, 1.0], [1.0, 0.0]
    >>> step_divergence(np.array([[[0.5, 0.5], blank]]), np.array([[said, blank]]), 0).round(4).tolist()  # ln 2
    [0.6931]
    """
    weights = 1.0 - outputs[..., blank].astype(np.float64) * original[..., blank]
    characters = np.maximum((1.0 - original[..., blank].astype(np.float64)).sum(axis=1), 1.0)
    with np.errstate(invalid="ignore"):
        divergence = (weights * row_divergence(outputs, original)).sum(axis=1) / characters
    return _finite(divergence, np.isfinite(outputs).all(axis=(1, 2)))


def text_agreement(outputs: np.ndarray, original: np.ndarray, charset: Charset) -> np.ndarray:
    """[N, 2]: whether both networks' probabilities [N, T, K] read the same, and 1."""
    read = [[charset.decode(steps.argmax(axis=1).tolist()) for steps in each] for each in (outputs, original)]
    usable = np.isfinite(outputs).all(axis=(1, 2))
    same = [one == other and bool(good) for one, other, good in zip(*read, usable, strict=True)]
    return np.stack([np.array(same, np.float64), np.ones(len(same))], axis=1)


def map_divergence(outputs: np.ndarray, original: np.ndarray, threshold: float) -> np.ndarray:
    """-ln of the Dice overlap of probability maps [N, 1, H, W], cut softly where post-processing cuts them, [N].

    Squares stand in the denominator (Milletari et al. 2016, "V-Net"), so that equal maps overlap wholly. What the map
    says far from the threshold changes no box.
    """
    found, wanted = (_cut(each[:, 0], threshold) for each in (outputs, original))
    overlap = 2 * (found * wanted).sum(axis=(1, 2)) + 1.0  # an image without text is one pixel of it
    left = overlap / ((found**2).sum(axis=(1, 2)) + (wanted**2).sum(axis=(1, 2)) + 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence: np.ndarray = np.maximum(-np.log(left), 0.0)
    return _finite(divergence, np.isfinite(outputs).all(axis=(1, 2, 3)))


def box_agreement(outputs: np.ndarray, original: np.ndarray, boxes: BoxSettings) -> np.ndarray:
    """[N, 2]: what each image adds to hmean's numerator and denominator, with the original's boxes for regions."""
    matches = []
    height, width = original.shape[2:]
    for found, wanted in zip(outputs[:, 0], original[:, 0], strict=True):
        usable = np.where(np.isfinite(found), found, np.float32(0))
        regions = [Region(points, "") for points in find_boxes(wanted, height, width, boxes)[0]]
        matches.append(match_boxes(regions, find_boxes(usable, height, width, boxes)[0]))
    return tally_matches(matches)


def _cut(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Soft binary maps in float64: 1 above the threshold, 0 below."""
    cut: np.ndarray = 1.0 / (1.0 + np.exp(-STEEPNESS * (probability.astype(np.float64) - threshold)))
    return cut


def _finite(divergence: np.ndarray, usable: np.ndarray) -> np.ndarray:
    return np.where(usable & np.isfinite(divergence), divergence, np.inf)
