"""Distances of a changed network's outputs from the original's: by the formula, and 0 or 1 for equal ones."""

import math

import numpy as np
import pytest

from compress.data.charset import Charset
from compress.data.processing import Processing
from compress.errors import ModelError
from compress.tasks.classification import DirectionTask
from compress.tasks.db_boxes import BoxSettings
from compress.tasks.divergence import (
    box_agreement,
    class_agreement,
    map_divergence,
    row_divergence,
    step_divergence,
    text_agreement,
)


def probabilities(shape: tuple[int, ...], seed: int) -> np.ndarray:
    values = np.exp(np.random.default_rng(seed).normal(size=shape))
    return (values / values.sum(axis=-1, keepdims=True)).astype(np.float32)


def text_map(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """[1, 1, 64, 96] with these (x0, y0, x1, y1) certain, and all else surely no text."""
    made = np.full((1, 1, 64, 96), 0.01, np.float32)
    for x0, y0, x1, y1 in boxes:
        made[..., y0:y1, x0:x1] = 0.99
    return made


def test_rows_by_the_formula() -> None:
    found, wanted = probabilities((5, 4), 1), probabilities((5, 4), 2)
    expected = [
        sum(q * math.log(q / p) for p, q in zip(*rows, strict=True)) for rows in zip(found, wanted, strict=True)
    ]
    assert row_divergence(found, wanted) == pytest.approx(expected, rel=1e-4)
    assert row_divergence(wanted, wanted).tolist() == [0.0] * 5
    found[3, 1] = np.nan
    assert row_divergence(found, wanted)[3] == np.inf


def test_classes() -> None:
    found, wanted = np.array([[0.9, 0.1], [0.4, 0.6], [np.nan, 0.1]]), np.array([[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]])
    assert class_agreement(found, wanted).tolist() == [[1, 1], [0, 1], [0, 1]]


def test_steps_that_are_blank_for_both_do_not_count() -> None:
    """Ten times as many of them leave the distance as it is; a character that appears anywhere counts."""
    blank, wanted, found = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]
    short = [np.array([[said, blank]]) for said in (found, wanted)]
    long = [np.array([[said, *[blank] * 10]]) for said in (found, wanted)]
    assert step_divergence(*short, 0).tolist() == pytest.approx([math.log(4)])
    assert step_divergence(*long, 0).tolist() == pytest.approx([math.log(4)])
    invented = np.array([[wanted, [0.5, 0.5, 0.0]]])  # weight 1/2 x ln 2
    assert step_divergence(invented, np.array([[wanted, blank]]), 0).tolist() == pytest.approx([math.log(2) / 2])
    assert step_divergence(np.full((1, 2, 3), np.nan), short[1], 0).tolist() == [np.inf]


def test_texts() -> None:
    charset = Charset(("a", "b"))
    one, other = probabilities((3, 7, 3), 3), probabilities((3, 7, 3), 4)
    read = [[charset.decode(list(row.argmax(axis=1))) for row in each] for each in (one, other)]
    assert text_agreement(one, other, charset)[:, 0].tolist() == [float(a == b) for a, b in zip(*read, strict=True)]
    assert text_agreement(one, one, charset).tolist() == [[1, 1]] * 3


def test_maps_by_dice() -> None:
    """Half of a text's pixels: 2 x 200 / (200 + 400) is left; what is far from the threshold does not count."""
    whole, half = text_map((10, 10, 50, 20)), text_map((10, 10, 30, 20))
    assert map_divergence(half, whole, 0.3).tolist() == pytest.approx([math.log(1.5)], rel=1e-2)
    assert map_divergence(whole, whole, 0.3).tolist() == [0.0]
    assert map_divergence(np.where(whole > 0.5, np.float32(0.8), whole), whole, 0.3)[0] < 1e-3
    assert map_divergence(np.full_like(whole, np.nan), whole, 0.3).tolist() == [np.inf]
    assert map_divergence(text_map(), text_map(), 0.3).tolist() == [0.0]


def test_boxes() -> None:
    both, first = text_map((10, 10, 50, 20), (10, 40, 50, 50)), text_map((10, 10, 50, 20))
    assert box_agreement(both, both, BoxSettings()).tolist() == [[4, 4]]
    assert box_agreement(first, both, BoxSettings()).tolist() == [[2, 3]]
    assert box_agreement(np.full_like(both, np.nan), both, BoxSettings()).tolist() == [[0, 2]]


def test_an_original_that_gives_logits_is_refused() -> None:
    """A distance of what is taken for probabilities would be a figure of nothing."""
    task = DirectionTask.__new__(DirectionTask)
    task.processing = Processing()
    logits = np.random.default_rng(0).normal(0, 5, (3, 2)).astype(np.float32)
    with pytest.raises(ModelError, match=r"output is not probabilities .*set task\.outputs"):
        task.divergence(logits, logits)
