"""Random texts: printable, seeded, varied, and seldom readable upside down."""

import string
from collections import Counter

import numpy as np
import pytest

from compress.data.texts import is_reversible, random_text


def texts(count=2000, **options):
    rng = np.random.default_rng(0)
    return [random_text(rng, **options) for _ in range(count)]


def test_texts_are_printable_ascii_without_spaces():
    allowed = set(string.ascii_letters + string.digits + string.punctuation)
    assert all(text and set(text) <= allowed for text in texts())


def test_every_printable_character_occurs():
    assert set("".join(texts(6000))) == set(string.ascii_letters + string.digits + string.punctuation)


def test_same_seed_same_texts():
    assert texts(50) == texts(50)


def test_lengths_are_those_of_words():
    lengths = [len(text) for text in texts()]
    assert 4 < np.mean(lengths) < 8
    assert max(lengths) <= 20


@pytest.mark.parametrize("text", ["NOON", "90", "pod", "SOS", "WOW", "8.6"])
def test_texts_that_read_upside_down(text):
    assert is_reversible(text)


@pytest.mark.parametrize("text", ["EXIT", "Noon!", "a", "9A"])
def test_texts_that_do_not(text):
    assert not is_reversible(text)


def test_reversible_texts_are_left_out_unless_asked_for():
    assert not any(map(is_reversible, texts()))
    assert any(map(is_reversible, texts(directed=False)))


def test_cases_are_mixed():
    kinds = Counter("upper" if text.isupper() else "lower" if text.islower() else "mixed" for text in texts())
    assert all(kinds[kind] > 200 for kind in ("upper", "lower", "mixed"))
