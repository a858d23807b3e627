"""Scores of readings, by hand."""

import pytest

from compress.tasks.words import score_texts


def test_texts_without_letters_and_digits_are_not_in_alnum():
    """Of "EXIT", "7-11", ":" and "%" the first two have any; read are "exit", "711", "" and "1": 2 of 2, not 3 of 4."""
    score, _ = score_texts(["exit", "711", "", "1"], ["EXIT", "7-11", ":", "%"])
    assert (score.metric, score.count) == (0.0, 4)
    assert score.details["alnum"] == 1.0
    assert score.details["ned"] == pytest.approx((0 + 3 / 4 + 0 + 0) / 4)


def test_nothing_read_is_wrong_where_something_stands():
    score, _ = score_texts(["", ".", None, "a!"], ["a", "b", "c", "A"])
    assert score.details["alnum"] == 1 / 4


def test_without_any_letter_or_digit_there_is_no_alnum():
    score, _ = score_texts(["", ":"], [":", ":"])
    assert (score.metric, score.details) == (0.5, {"ned": 0.5})
