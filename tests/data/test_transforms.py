"""PaddleOCR's preprocessing, against hand calculations."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.data.transforms import (
    fit_scene,
    fitted_size,
    normalise_scenes,
    place_scene,
    preprocess_crop,
    resize_crop,
    resized_width,
    stack_resized,
)

SHAPE = (3, 48, 192)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (48, 100, 100),  # same height: width stays
        (24, 25, 50),  # doubled
        (31, 80, 124),  # 48 / 31 * 80 = 123.87, rounded up
        (10, 41, 192),  # 196.8, capped
        (500, 1, 1),  # 0.096, at least one column
    ],
)
def test_width_by_hand(height, width, expected):
    assert resized_width(height, width, 48, 192) == expected


def test_values_by_hand():
    """2x2 crop at input 3x2x4: no resize, so 0 -> -1, 255 -> 1, 51 -> -0.6; channel order stays; padding is 0."""
    crop = np.array([[[0, 255, 51], [255, 0, 51]], [[102, 0, 0], [0, 0, 204]]], np.uint8)
    expected = np.array(
        [
            [[-1, 1, 0, 0], [-0.2, -1, 0, 0]],
            [[1, -1, 0, 0], [-1, -1, 0, 0]],
            [[-0.6, -0.6, 0, 0], [-1, 0.6, 0, 0]],
        ]
    )
    result = preprocess_crop(crop, (3, 2, 4))
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-7)


def test_the_formula_holds_bit_for_bit():
    """PaddleOCR computes in float32, step by step; so does this."""
    crop = np.arange(256, dtype=np.uint8).reshape(16, 16)[:, :, None].repeat(3, axis=2)
    expected = crop.astype(np.float32).transpose(2, 0, 1) / 255
    expected -= 0.5
    expected /= 0.5
    np.testing.assert_array_equal(preprocess_crop(crop, (3, 16, 16)), expected)


def test_bilinear_resize_by_hand():
    """Doubling [0, 100] bilinearly with pixel centres at halves gives 0, 25, 75, 100."""
    row = np.array([[[0] * 3, [100] * 3]], np.uint8)
    np.testing.assert_array_equal(resize_crop(row, (3, 2, 9))[:, :, 0], [[0, 25, 75, 100]] * 2)


def test_a_wide_crop_is_squeezed_not_cut():
    crop = np.zeros((48, 400, 3), np.uint8)
    crop[:, 396:] = 255
    result = preprocess_crop(crop, SHAPE)
    assert result.shape == SHAPE
    assert result[0, 0, -1] == 1


@given(st.integers(1, 120), st.integers(1, 400))
def test_shape_and_padding_for_any_size(height, width):
    result = preprocess_crop(np.full((height, width, 3), 255, np.uint8), SHAPE)
    columns = resized_width(height, width, 48, 192)
    assert (result[:, :, :columns] == 1).all()
    assert (result[:, :, columns:] == 0).all()


def test_a_batch_equals_its_images_one_by_one():
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((48, 30), (20, 90), (60, 10))]
    batch = stack_resized([resize_crop(crop, SHAPE) for crop in crops], SHAPE)
    np.testing.assert_array_equal(batch, np.stack([preprocess_crop(crop, SHAPE) for crop in crops]))


def test_turned_before_resizing_ends_up_on_the_left():
    """A turned crop is padded on the right like any other: the turn comes before the padding."""
    crop = np.full((48, 10, 3), 255, np.uint8)
    assert preprocess_crop(cv2.rotate(crop, cv2.ROTATE_180), SHAPE)[0, 0, 0] == 1


# --- scenes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((720, 1280), 1280, (704, 1280)),  # 22.5 multiples: halves go to the even one
        ((720, 1280), 960, (544, 960)),  # 540 is 16.875 multiples
        ((2560, 1440), 1280, (1280, 704)),  # 720
        ((100, 100), 1280, (96, 96)),  # never up, but to the nearest multiple
        ((48, 80), 1280, (64, 64)),  # 1.5 and 2.5
        ((1, 1), 1280, (32, 32)),
        ((10, 8_000_000), 1280, (32, 1280)),
        ((1279, 640), 1280, (1280, 640)),
        ((33, 1281), 32, (32, 32)),
    ],
)
def test_sizes_of_scenes_by_hand(size: tuple[int, int], side: int, expected: tuple[int, int]):
    assert fitted_size(*size, side) == expected


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 60))
def test_sizes_of_scenes_are_multiples_within_the_side(height: int, width: int, multiples: int):
    """Each within half a multiple of the exact size (and a pixel's cut), but for the least size."""
    side = 32 * multiples
    fitted = fitted_size(height, width, side)
    factor = min(1, side / max(height, width))
    for size, exact in zip(fitted, (height * factor, width * factor), strict=True):
        assert size % 32 == 0
        assert 32 <= size <= side
        assert size == 32 or abs(size - exact) <= 17


def test_a_scene_that_fits_is_not_changed():
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    assert np.array_equal(fit_scene(image, place_scene(64, 96, 96, (3, 640, 640))), image)
    assert fit_scene(image, place_scene(64, 96, 32, (3, 640, 640))).shape == (32, 32, 3)


def test_scenes_are_normalised_by_channel_in_the_file_s_order():
    """PaddleOCR: (x / 255 - mean) / std, channel by channel, BGR as decoded."""
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), np.uint8)
    batch = normalise_scenes(list(images))
    assert (batch.shape, batch.dtype, batch.flags.c_contiguous) == ((2, 3, 32, 64), np.float32, True)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        expected = (images[..., channel] / 255 - mean) / std
        np.testing.assert_allclose(batch[:, channel], expected, atol=1e-6)
