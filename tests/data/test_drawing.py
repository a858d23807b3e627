"""Ink, colour and light of rendered images: ranges and seeds."""

import matplotlib
import numpy as np
import pytest

from compress.data.drawing import MONO, SANS, SERIF, choose_face, colours, cover, expose, ground, load_font, tint


@pytest.mark.parametrize("name", [*SANS, *SERIF, *MONO])
def test_fonts_come_with_matplotlib_and_have_letters_and_digits(name):
    font = load_font(name, 28)
    shapes = {bytes(font.getmask(letter)) for letter in "ABCabc0123456789"}
    assert len(shapes) == 16, "two characters look the same: the font lacks them"
    assert matplotlib.get_data_path() in font.path


def test_punctuation_is_never_written_in_a_font_without_it():
    faces = {choose_face("a.1", np.random.default_rng(seed)) for seed in range(200)}
    assert not any(face.startswith("cm") for face in faces)
    assert any(choose_face("a1", np.random.default_rng(seed)).startswith("cm") for seed in range(200))


def test_a_tint_has_the_brightness_asked_for():
    """Weighted as the eye does; clipping at 0 and 255 may move it, in the middle little."""
    weights = np.array([0.114, 0.587, 0.299])
    found = [tint(128.0, np.random.default_rng(seed)) @ weights for seed in range(100)]
    assert np.median(np.abs(np.array(found) - 128)) < 1


def test_ground_and_ink_differ():
    for seed in range(100):
        board, ink = colours(np.random.default_rng(seed))
        assert ((board >= 0) & (board <= 255)).all()
        assert ((ink >= 0) & (ink <= 255)).all()
        assert np.abs(board - ink).max() > 10


def test_cover_mixes_by_coverage():
    picture = np.zeros((1, 3, 3), np.float32)
    mixed = cover(picture, np.array([[0, 51, 255]], np.uint8), np.array([100, 200, 50]))
    np.testing.assert_allclose(mixed[0], [[0, 0, 0], [20, 40, 10], [100, 200, 50]], rtol=1e-6)


def test_ground_and_exposure_are_seeded():
    made = [
        expose(ground((20, 30), np.array([90, 120, 150]), rng), rng)
        for rng in (np.random.default_rng(seed) for seed in (1, 1, 2))
    ]
    assert made[0].dtype == np.uint8
    assert made[0].shape == (20, 30, 3)
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()
