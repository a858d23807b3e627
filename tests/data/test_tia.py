"""Text warps by their properties: identity at strength 0, shape, determinism, and where points go."""

import cv2
import numpy as np
import pytest

from compress.data.tia import MIN_SIDE, TEXT_WARPS, augment_text, follow_points, stretch_text, warp_by_points

names = [warp.__name__ for warp in TEXT_WARPS]


@pytest.fixture
def crop():
    noise = np.random.default_rng(0).integers(0, 256, (8, 20, 3), dtype=np.uint8)
    return cv2.resize(noise, (120, 32), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("warp", TEXT_WARPS, ids=names)
def test_shape_type_purity_and_seed(warp, crop):
    before = crop.copy()
    first, second = (warp(crop, 1.0, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(crop, before)
    assert (first.shape, first.dtype) == (crop.shape, np.uint8)
    assert (first != crop).any()


@pytest.mark.parametrize("warp", TEXT_WARPS, ids=names)
def test_strength_zero_is_the_identity(warp, crop):
    np.testing.assert_array_equal(warp(crop, 0.0, np.random.default_rng(2)), crop)


@pytest.mark.parametrize("warp", TEXT_WARPS, ids=names)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (30, 1), (MIN_SIDE - 1, 200)])
def test_crops_too_small_to_warp_stay(warp, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    np.testing.assert_array_equal(warp(image, 1.0, np.random.default_rng(3)), image)


def test_control_points_go_where_they_are_sent():
    rng = np.random.default_rng(0)
    points = rng.normal(size=6) + 1j * rng.normal(size=6)
    moved = points + 0.3 * (rng.normal(size=6) + 1j * rng.normal(size=6))
    np.testing.assert_allclose(follow_points(points, points, moved), moved, atol=1e-3)


def test_a_similarity_of_the_points_is_the_same_similarity_everywhere():
    rng = np.random.default_rng(1)
    points, places = rng.normal(size=(2, 8)) + 1j * rng.normal(size=(2, 8))
    turn, shift = 1.5 * np.exp(0.7j), 3 - 2j
    np.testing.assert_allclose(follow_points(places, points, turn * points + shift), turn * places + shift, atol=1e-9)


def test_the_image_goes_with_the_points():
    """All points 10 to the right and 3 down: so is a dot."""
    image = np.zeros((40, 80, 3), np.uint8)
    image[20, 30] = 255
    points = np.array([[0, 0], [79, 0], [0, 39], [79, 39]], float)
    result = warp_by_points(image, points, points + np.array([10, 3]))
    assert result[23, 40].tolist() == [255] * 3
    assert result.sum() == 255 * 3


@pytest.mark.parametrize("seed", range(5))
def test_stretching_keeps_the_order_of_the_columns_and_both_ends(seed):
    """Black to white from left to right stays rising: no letter changes its place."""
    ramp = np.linspace(0, 255, 150).astype(np.uint8)[None, :, None].repeat(32, axis=0).repeat(3, axis=2)
    row = stretch_text(ramp, 1.0, np.random.default_rng(seed))[0, :, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert (row[0], row[-1]) == (0, 255)


@pytest.mark.parametrize("shape", [(32, 320), (48, 60), (20, 400)])
def test_text_stays_in_the_crop(shape):
    """A word in the middle half of the height, a tenth away from the ends, keeps nearly all of its ink."""
    height, width = shape
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 3 : -(height // 3), width // 10 : -(width // 10) : 4] = 255
    ink = [augment_text(image, np.random.default_rng(seed)).mean() / image.mean() for seed in range(40)]
    assert min(ink) > 0.6
    assert np.mean(ink) > 0.9


def test_augment_text_is_seeded_and_varied(crop):
    results = [augment_text(crop, np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(results[7], augment_text(crop, np.random.default_rng(7)))
    assert len({result.tobytes() for result in results}) > 15
    assert all(result.shape == crop.shape for result in results)
    np.testing.assert_array_equal(augment_text(crop, np.random.default_rng(0), probability=0.0), crop)
