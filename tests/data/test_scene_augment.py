"""Training crops: pixels and regions move together, and what is cut is not counted."""

import cv2
import numpy as np
import pytest

from compress.data.regions import Region
from compress.data.scene_augment import (
    GEOMETRIES,
    PASTED_AT_MOST,
    change_light,
    copy_paste,
    cut_regions,
    fixed_crop,
    random_crop,
)


def box(left: float, top: float, width: float, height: float, text: str = "a", ignore: bool = False) -> Region:
    right, bottom = left + width, top + height
    points = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return Region(np.array(points, np.float32), text, ignore)


def painted(height: int, width: int, regions: list[Region]) -> np.ndarray:
    """A dark image with bright regions."""
    image = np.full((height, width, 3), 40, np.uint8)
    for region in regions:
        cv2.fillPoly(image, [np.round(region.points).astype(np.int32)], (220, 220, 220))
    return image


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


REGIONS = [box(30, 40, 80, 20), box(150, 60, 60, 30), box(40, 120, 100, 24), box(180, 130, 30, 50, ignore=True)]
IMAGE = painted(200, 260, REGIONS)

# --- random crops -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_regions_lie_where_their_pixels_are(seed: int, change: bool):
    """Flipped, turned and scaled: what is bright is the regions, but for two pixels around their outlines."""
    crop, regions = random_crop(IMAGE, REGIONS, (160, 192), 1.3, rng(seed), GEOMETRIES["strong"] if change else None)
    assert (crop.shape, crop.dtype) == ((160, 192, 3), np.uint8)
    wanted = painted(160, 192, list(regions))[:, :, 0] > 130
    outline = np.pad(np.zeros((156, 188), np.uint8), 2, constant_values=1)  # slivers at the border are left out
    for region in regions:
        cv2.polylines(outline, [np.round(region.points).astype(np.int32)], True, 1, thickness=5)
    assert np.array_equal((crop[:, :, 0] > 130)[outline == 0], wanted[outline == 0])


def test_without_change_a_crop_is_the_image_scaled_and_moved():
    crop, regions = random_crop(IMAGE, REGIONS, (64, 64), 2.0, rng(3))
    whole = [region for region in regions if not region.ignore]
    assert all((region.points[2] - region.points[0]).tolist() in [[160, 40], [120, 60], [200, 48]] for region in whole)
    assert set(np.unique(crop)) - {0} <= set(range(40, 221))


def test_the_chosen_text_is_in_the_crop():
    """Its middle lies in the middle half, unless the one in ten that looks anywhere was drawn."""
    only = [REGIONS[0]]
    seen = [random_crop(IMAGE, only, (160, 192), 1.0, rng(seed))[1] for seed in range(60)]
    assert sum(bool(regions) for regions in seen) >= 50


def test_scale_and_angle_keep_to_their_ranges():
    long = [box(30, 90, 200, 20)]
    scales, angles = [], []
    for seed in range(80):
        _, regions = random_crop(painted(200, 260, long), long, (640, 640), 1.0, rng(seed), GEOMETRIES["strong"])
        if regions and regions[0].points.min() > 0 and regions[0].points.max() < 640:
            x, y = regions[0].points[1] - regions[0].points[0]
            scales.append(np.hypot(x, y) / 200)
            angles.append(np.degrees(np.arctan2(y, abs(x))))
    assert GEOMETRIES["strong"].scales[0] - 1e-3 <= min(scales) < 0.8
    assert 1.3 < max(scales) <= GEOMETRIES["strong"].scales[1] + 1e-3
    assert -10.01 <= min(angles) < -6
    assert 6 < max(angles) <= 10.01


@pytest.mark.parametrize("name", ["mild", None])
def test_only_strong_augmentation_flips(name):
    geometry = GEOMETRIES[name] if name else None
    for seed in range(30):
        _, regions = random_crop(IMAGE, [box(100, 90, 40, 20)], (300, 300), 0.7, rng(seed), geometry)
        assert not regions or regions[0].points[1, 0] > regions[0].points[0, 0]


def test_half_of_the_crops_are_flipped():
    flipped = 0
    for seed in range(60):
        _, regions = random_crop(IMAGE, [box(100, 90, 40, 20)], (300, 300), 0.7, rng(seed), GEOMETRIES["strong"])
        flipped += bool(regions) and regions[0].points[1, 0] < regions[0].points[0, 0]
    assert 18 <= flipped <= 42


def test_the_same_generator_gives_the_same_crop():
    one, other = (random_crop(IMAGE, REGIONS, (96, 96), 1.0, rng(5), GEOMETRIES["strong"]) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert all(np.array_equal(a.points, b.points) for a, b in zip(one[1], other[1], strict=True))


def test_scenes_without_text_have_crops_too():
    crop, regions = random_crop(IMAGE, [], (96, 96), 1.0, rng(0))
    assert (crop.shape, regions) == ((96, 96, 3), ())


# --- cut ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("region", "left", "ignore"),
    [
        (box(10, 10, 20, 10), [10, 10, 30, 20], False),
        (box(0, 0, 100, 50), [0, 0, 100, 50], False),
        (box(-2, 10, 40, 10), [0, 10, 38, 20], False),  # 95 % left
        (box(-5, 10, 40, 10), [0, 10, 35, 20], True),  # 87.5 %
        (box(90, 45, 20, 10), [90, 45, 100, 50], True),  # a corner
        (box(-2, 10, 40, 10, ignore=True), [0, 10, 38, 20], True),
        (box(-10, -10, 200, 200), [0, 0, 100, 50], True),  # around it
    ],
)
def test_what_is_left_of_a_cut_region(region: Region, left: list, ignore: bool):
    (cut,) = cut_regions([region], 50, 100)
    assert [*cut.points.min(axis=0), *cut.points.max(axis=0)] == pytest.approx(left, abs=1e-3)
    assert (cut.text, cut.ignore) == ("a", ignore)


@pytest.mark.parametrize("region", [box(100, 0, 9, 9), box(-20, 0, 20, 9), box(0, 50, 9, 9), box(99.99, 0, 9, 9)])
def test_regions_outside_or_barely_inside_are_gone(region: Region):
    assert cut_regions([region], 50, 100) == ()


def test_a_turned_region_near_a_corner_of_the_image_can_be_outside():
    """Its upright box reaches in, it does not."""
    region = Region(np.array([[112, 42], [114, 44], [97, 61], [95, 59]], np.float32), "a")
    assert cut_regions([region], 50, 100) == ()


# --- crops for calibration ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_fixed_crop_is_a_part_of_the_image_around_text(seed: int):
    image = rng(9).integers(0, 256, (200, 260, 3), np.uint8)
    crop = fixed_crop(image, [REGIONS[1]], (64, 96), rng(seed))
    match = cv2.matchTemplate(image, crop, cv2.TM_SQDIFF)
    top, left = np.unravel_index(match.argmin(), match.shape)
    assert np.array_equal(image[top : top + 64, left : left + 96], crop)


def test_a_smaller_image_is_padded_below_and_right():
    crop = fixed_crop(np.full((20, 200, 3), 7, np.uint8), [], (64, 96), rng(0))
    assert (crop[:20] == 7).all()
    assert (crop[20:] == 0).all()


# --- copy and paste -----------------------------------------------------------------------------------------------


def overlap(one: Region, other: Region) -> bool:
    return bool(
        (one.points.min(axis=0) < other.points.max(axis=0)).all()
        and (other.points.min(axis=0) < one.points.max(axis=0)).all()
    )


@pytest.mark.parametrize("seed", range(8))
def test_pasted_text_is_the_source_s_on_free_ground(seed: int):
    source = rng(1).integers(100, 256, (120, 160, 3), np.uint8)
    texts = [box(10 * n, 8 * n, 24, 10, text=str(n)) for n in range(12)] + [box(130, 100, 20, 12, "###", ignore=True)]
    background = np.zeros((200, 260, 3), np.uint8)
    image, regions = copy_paste(background, REGIONS, source, texts, rng(seed))
    assert background.max() == 0
    assert list(regions[: len(REGIONS)]) == REGIONS
    added = regions[len(REGIONS) :]
    assert 1 <= len(added) <= PASTED_AT_MOST
    for number, region in enumerate(added):
        left, top = region.points[0].astype(int)
        x, y = texts[int(region.text)].points[0].astype(int)
        assert np.array_equal(image[top : top + 10, left : left + 24], source[y : y + 10, x : x + 24])
        assert not any(overlap(region, other) for other in (*REGIONS, *added[:number]))
        assert (region.ignore, region.points.shape) == (False, (4, 2))
    assert np.count_nonzero(image[:, :, 0]) == 240 * len(added)


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [box(0, 0, 20, 10, "###", ignore=True)],
        [box(0, 0, 20, 1)],  # one pixel high
        [box(-5, 20, 20, 10)],  # cut by the source's border: its other part is nowhere to be had
        [box(150, 20, 20, 10)],
    ],
)
def test_what_is_not_pasted(texts: list[Region]):
    source = np.full((120, 160, 3), 200, np.uint8)
    image, regions = copy_paste(np.zeros((200, 260, 3), np.uint8), [], source, texts, rng(0))
    assert (image.max(), regions) == (0, ())


def test_text_larger_than_the_image_is_not_pasted():
    image, regions = copy_paste(
        np.zeros((20, 30, 3), np.uint8), [], np.full((120, 160, 3), 9, np.uint8), [box(0, 0, 30, 10)], rng(0)
    )
    assert (image.max(), regions) == (0, ())


# --- light --------------------------------------------------------------------------------------------------------


def test_light_changes_values_only_and_the_same_way_for_the_same_generator():
    before = IMAGE.copy()
    for seed in range(20):
        one, other = change_light(IMAGE, rng(seed)), change_light(IMAGE, rng(seed))
        assert (one.shape, one.dtype) == (IMAGE.shape, np.uint8)
        assert np.array_equal(one, other)
        assert one[50, 60].mean() > one[5, 5].mean()  # bright stays brighter
    assert np.array_equal(IMAGE, before)
