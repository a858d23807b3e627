"""Every augmentation by its properties: shape, type, determinism, identity at strength 0, purity."""

import cv2
import numpy as np
import pytest

from compress.data import augment
from compress.data.augment import RAND_AUGMENT, UNGRADED, augment_crop, rand_augment

BASE = (augment.perspective, augment.motion_blur, augment.gaussian_noise)
EVERY = (*RAND_AUGMENT, *BASE)
names = [operation.__name__ for operation in EVERY]


@pytest.fixture
def crop():
    """A smooth picture with structure in both directions and all three channels."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 20, 3), dtype=np.uint8)
    return cv2.resize(noise, (90, 31), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("operation", EVERY, ids=names)
def test_shape_and_type_stay_and_the_input_is_untouched(operation, crop):
    before = crop.copy()
    result = operation(crop, 0.7, np.random.default_rng(1))
    assert result.shape == crop.shape
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(crop, before)


@pytest.mark.parametrize("operation", EVERY, ids=names)
def test_same_seed_same_result(operation, crop):
    first, second = (operation(crop, 0.7, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("operation", EVERY, ids=names)
def test_full_strength_changes_something(operation, crop):
    narrow = crop // 2 + 40  # so that stretching the contrast is a change as well
    assert any((operation(narrow, 1.0, np.random.default_rng(seed)) != narrow).any() for seed in range(3))


@pytest.mark.parametrize("operation", [op for op in EVERY if op not in UNGRADED], ids=lambda op: op.__name__)
def test_strength_zero_is_the_identity(operation, crop):
    np.testing.assert_array_equal(operation(crop, 0.0, np.random.default_rng(2)), crop)


@pytest.mark.parametrize("operation", EVERY, ids=names)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (30, 1), (2, 3)])
def test_tiny_images_survive(operation, size):
    image = np.full((*size, 3), 77, np.uint8)
    assert operation(image, 1.0, np.random.default_rng(3)).shape == image.shape


def test_rotation_keeps_the_centre_and_moves_the_ends():
    image = np.zeros((31, 91, 3), np.uint8)
    image[15] = 255
    result = augment.rotate(image, 1.0, np.random.default_rng(0))
    assert result[15, 45, 0] > 150
    assert result[15, 0, 0] == 0


def test_translation_by_hand():
    """0.3 of 10 columns at full strength is 3, to one side or the other; the border is repeated."""
    image = np.arange(10, dtype=np.uint8)[None, :, None].repeat(4, axis=0).repeat(3, axis=2)
    result = augment.translate_x(image, 1.0, np.random.default_rng(0))[0, :, 0].tolist()
    assert result in ([0, 0, 0, 0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7, 8, 9, 9, 9, 9])


@pytest.mark.parametrize("seed", range(5))
def test_noise_has_the_strength_it_says(seed):
    """The deviation is the generator's first draw from 0..40, and the noise has it (rounding adds 1/12)."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    deviation = np.random.default_rng(seed).uniform(0, 40)
    variance = augment.gaussian_noise(grey, 1.0, np.random.default_rng(seed)).var()
    assert variance == pytest.approx(deviation**2 + 1 / 12, rel=0.1)


def test_motion_blur_keeps_brightness_and_smooths(crop):
    result = augment.motion_blur(crop, 1.0, np.random.default_rng(0))
    assert result.mean() == pytest.approx(crop.mean(), abs=4)
    assert result.std() < crop.std()


def test_point_operations_by_hand():
    ramp = np.array([[[0] * 3, [100] * 3, [200] * 3, [255] * 3]], np.uint8)
    rng = np.random.default_rng(0)
    assert augment.invert(ramp, 1.0, rng)[0, :, 0].tolist() == [255, 155, 55, 0]
    # From 128 up at half strength.
    assert augment.solarise(ramp, 0.5, rng)[0, :, 0].tolist() == [0, 100, 55, 0]
    # Two bits dropped at half strength.
    assert augment.posterise(ramp, 0.5, rng)[0, :, 0].tolist() == [0, 100, 200, 252]
    # 100..200 stretched to 0..255.
    assert augment.autocontrast(ramp[:, 1:3], 1.0, rng)[0, :, 0].tolist() == [0, 255]
    dimmed_or_brightened = augment.brightness(ramp, 1.0, rng)[0, :, 0].tolist()
    assert dimmed_or_brightened in ([0, 10, 20, 26], [0, 190, 255, 255], [0, 10, 20, 25])


def test_rand_augment_without_operations_is_the_identity(crop):
    np.testing.assert_array_equal(rand_augment(crop, np.random.default_rng(0), ops=0, magnitude=5), crop)


def test_augment_crop_is_seeded_and_varied(crop):
    results = [augment_crop(crop, np.random.default_rng(seed)) for seed in range(20)]
    again = augment_crop(crop, np.random.default_rng(7))
    np.testing.assert_array_equal(results[7], again)
    assert len({result.tobytes() for result in results}) > 15
    assert all(result.shape == crop.shape for result in results)


def test_augmentation_does_not_turn_the_image_over():
    """The label is the direction: no operation may change it. Dark above light stays so in the mean."""
    image = np.zeros((40, 100, 3), np.uint8)
    image[20:] = 255
    colour_flips = (augment.invert, augment.solarise)
    for operation in (op for op in EVERY if op not in colour_flips):
        for seed in range(10):
            result = operation(image, 1.0, np.random.default_rng(seed)).astype(float)
            assert result[:20].mean() <= result[20:].mean(), operation.__name__
