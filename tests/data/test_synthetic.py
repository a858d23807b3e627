"""Rendered crops: seeded, of plausible sizes, legible enough to hold ink, and written as a label list."""

import cv2
import numpy as np
import pytest

from compress.data.labels import read_labels
from compress.data.synthetic import render_crop, write_dataset
from compress.errors import OutputError


def crops(count, text="Exit"):
    return [render_crop(text, np.random.default_rng([0, seed])) for seed in range(count)]


def test_a_crop_is_uint8_bgr_and_wider_than_high_for_a_word():
    made = crops(60)
    assert all(crop.dtype == np.uint8 and crop.ndim == 3 and crop.shape[2] == 3 for crop in made)
    assert all(12 <= crop.shape[0] <= 120 for crop in made)
    assert np.median([crop.shape[1] / crop.shape[0] for crop in made]) > 1.2


def test_same_seed_same_pixels_other_seed_other_pixels():
    first, again, other = (render_crop("Exit", np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()


def test_there_is_something_to_read():
    """Ink and ground differ by 30 grey levels or more before light and blur; nearly all crops keep half of that."""
    spreads = [np.ptp(cv2.GaussianBlur(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), (3, 3), 0)) for crop in crops(60)]
    assert np.mean(np.array(spreads) > 15) > 0.95


def test_plain_crops_are_black_and_white_both_ways_round():
    made = [render_crop("Exit", np.random.default_rng([0, seed]), plain=True) for seed in range(40)]
    assert all((crop[:, :, 0] == crop[:, :, 2]).all() for crop in made)
    white = [np.median(crop) > 127 for crop in made]
    assert 0.2 < np.mean(white) < 0.8


def test_the_text_decides_the_width():
    short, long = ([crop.shape[1] / crop.shape[0] for crop in crops(40, text)] for text in ("A7", "University"))
    assert np.median(long) > 2 * np.median(short)


@pytest.mark.parametrize("text", ["|", ".", "_", "W", "~^", "I" * 20, '"\\<>'])
def test_odd_texts_are_drawn(text):
    assert all(crop.size for crop in crops(30, text))


def test_a_data_set_is_a_readable_label_list_and_the_same_again(tmp_path):
    seen = []
    path = write_dataset(tmp_path / "one", 5, seed=7, on_progress=lambda *call: seen.append(call[:2]))
    again = write_dataset(tmp_path / "two", 5, seed=7)
    other = write_dataset(tmp_path / "three", 5, seed=8)
    labels = read_labels(path)
    assert len(labels.entries) == 5
    assert all(cv2.imread(str(entry.image)) is not None for entry in labels.entries)
    assert seen == [(i, 5) for i in range(1, 6)]
    assert path.read_bytes() == again.read_bytes() != other.read_bytes()
    for entry in labels.entries:
        assert entry.image.read_bytes() == (tmp_path / "two" / "images" / entry.image.name).read_bytes()


def test_a_longer_data_set_begins_with_the_shorter(tmp_path):
    short = write_dataset(tmp_path / "short", 3, seed=1).read_text()
    assert write_dataset(tmp_path / "long", 6, seed=1).read_text().startswith(short)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*cannot be made"):
        write_dataset(tmp_path / "file", 1, seed=0)
