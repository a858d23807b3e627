"""Sheets of rendered scenes: ink lies in the regions, words of a region are near one another."""

import cv2
import numpy as np
import pytest
import shapely

from compress.data.sheets import choose_style, draw_receipt, draw_sign, draw_words, words_of, write_words


def polygons(regions):
    return [shapely.Polygon(region.points) for region in regions]


def box_of(region):
    x0, y0 = region.points.min(axis=0).astype(int)
    x1, y1 = region.points.max(axis=0).astype(int)
    return slice(y0, y1), slice(x0, x1)


@pytest.mark.parametrize("draw", ["receipt", "sign", "words"])
def test_ink_lies_in_the_regions_of_a_sheet_and_only_there(draw):
    """On the sheet itself, before it is turned: flat ground apart, edges are where the regions are."""
    seen = 0
    for seed in range(12):
        rng = np.random.default_rng([2, seed])
        makers = {
            "receipt": lambda rng=rng: draw_receipt(400, 400, rng),
            "sign": lambda rng=rng: draw_sign(400, 500, rng),
            "words": lambda rng=rng: draw_words(500, 100.0, rng),
        }
        sheet = makers[draw]()
        if sheet is None:
            continue
        seen += 1
        height, width = sheet.coverage.shape
        assert sheet.picture.shape == (height, width, 3)
        assert sheet.regions
        assert all(shape.within(shapely.box(-1, -1, width + 1, height + 1)) for shape in polygons(sheet.regions))
        ink = sheet.coverage if draw == "words" else cv2.Canny(np.clip(sheet.picture, 0, 255).astype(np.uint8), 80, 160)
        for region in sheet.regions:
            rows, columns = box_of(region)
            assert ink[max(rows.start, 0) : rows.stop, max(columns.start, 0) : columns.stop].any()
    assert seen >= 6


def test_words_of_a_line_are_nearer_than_columns():
    """The widest empty run of columns between two words is at most 0.6 em, and there is one for each gap."""
    for seed in range(10):
        rng = np.random.default_rng([3, seed])
        coverage, text = write_words(("Exit", "North"), 40, choose_style(rng))
        assert text == "Exit North"
        assert coverage[0].any() or coverage[1].any(), "cut to the ink"
        empty = ~(coverage > 40).any(axis=0)
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[0], empty.astype(int), [0]]))))[::2]
        assert 2 < runs.max() <= 0.6 * 40


def test_every_text_has_letters_or_digits():
    texts = words_of(200, np.random.default_rng(0))
    assert all(sum(letter.isalnum() for letter in text) >= 2 for text in texts)


def test_a_sign_that_does_not_fit_is_not_drawn():
    assert draw_sign(30, 30, np.random.default_rng(0)) is None
    assert draw_words(20, 100.0, np.random.default_rng(0)) is None
