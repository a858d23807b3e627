"""Rendered scenes: seeded, with regions that hold the ink and lie in the image, written as a detection label list."""

import json

import cv2
import numpy as np
import pytest
import shapely

from compress.data.regions import repair_regions
from compress.data.scenes import load_scenes
from compress.data.sheets import ILLEGIBLE, choose_style, draw_receipt, draw_sign, draw_words, words_of, write_words
from compress.data.synthetic_scenes import EMPTY_SHARE, SIZES, render_scene, write_scenes
from compress.errors import OutputError


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(np.random.default_rng([0, seed])) for seed in range(40)]


def polygons(regions):
    return [shapely.Polygon(region.points) for region in regions]


def box_of(region):
    x0, y0 = region.points.min(axis=0).astype(int)
    x1, y1 = region.points.max(axis=0).astype(int)
    return slice(y0, y1), slice(x0, x1)


def test_a_scene_is_uint8_bgr_of_a_few_sizes_that_are_multiples_of_32(scenes):
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image, _ in scenes)
    assert {image.shape[:2] for image, _ in scenes} == set(SIZES)
    assert all(side % 32 == 0 for size in SIZES for side in size)


def test_regions_are_whole_in_the_image_and_none_overlap(scenes):
    for image, regions in scenes:
        height, width = image.shape[:2]
        usable, problems = repair_regions(regions, height, width)
        assert len(usable) == len(regions)
        assert problems == {}
        shapes = polygons(regions)
        assert all(shape.within(shapely.box(-2, -2, width + 2, height + 2)) for shape in shapes)
        tree = shapely.STRtree(shapes)
        for index, shape in enumerate(shapes):
            others = [shapes[other] for other in tree.query(shape) if other != index]
            assert all(shape.intersection(other).area < 0.05 * shape.area for other in others)


def test_corners_go_clockwise_from_the_top_left(scenes):
    """In image coordinates (y down) the shoelace sum of clockwise corners is positive."""
    for region in (region for _, regions in scenes for region in regions):
        x, y = region.points.astype(float).T
        assert (x * np.roll(y, -1) - y * np.roll(x, -1)).sum() > 0
        assert region.points[0, 0] < region.points[1, 0]


def test_scenes_differ_in_number_size_and_slant_of_regions(scenes):
    counts = [len(regions) for _, regions in scenes]
    assert min(counts) <= 3
    assert max(counts) >= 15
    edges = [region.points[1] - region.points[0] for _, regions in scenes for region in regions]
    slants = np.abs(np.degrees([np.arctan2(y, x) for x, y in edges]))
    assert (slants > 3).mean() > 0.1
    assert slants.max() < 50
    heights = [np.linalg.norm(r.points[3] - r.points[0]) for _, regions in scenes for r in regions if not r.ignore]
    assert np.percentile(heights, 95) > 2 * np.percentile(heights, 5)


def test_some_scenes_have_no_text_and_some_text_is_not_counted():
    made = [render_scene(np.random.default_rng([1, seed]))[1] for seed in range(80)]
    empty = sum(not regions for regions in made)
    assert 1 <= empty <= 80 * EMPTY_SHARE + 8
    ignored = [region for regions in made for region in regions if region.ignore]
    assert ignored
    assert all(region.text in (ILLEGIBLE, "*") for region in ignored)


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


def test_a_folder_of_scenes_is_read_as_detection_data_and_the_same_again(tmp_path):
    seen = []
    path = write_scenes(tmp_path / "one", 4, seed=7, on_progress=lambda *call: seen.append(call[:2]))
    again = write_scenes(tmp_path / "two", 4, seed=7)
    other = write_scenes(tmp_path / "three", 4, seed=8)
    loaded = load_scenes(path)
    assert loaded.warnings == ()
    assert seen == [(i, 4) for i in range(1, 5)]
    assert path.read_bytes() == again.read_bytes() != other.read_bytes()
    for index, scene in enumerate(loaded.scenes):
        assert scene.image.read_bytes() == (tmp_path / "two" / "images" / scene.image.name).read_bytes()
        image, regions = render_scene(np.random.default_rng([7, index]))
        assert (scene.height, scene.width) == image.shape[:2]
        assert [region.text for region in scene.regions] == [region.text for region in regions]
        for stored, drawn in zip(scene.regions, regions, strict=True):
            np.testing.assert_allclose(stored.points, drawn.points, atol=0.051)
    assert all(scene.image.stat().st_size < 300_000 for scene in loaded.scenes)


def test_a_scene_without_text_is_an_empty_list(tmp_path):
    path = write_scenes(tmp_path, 30, seed=1)
    labels = [line.split("\t")[1] for line in path.read_text().splitlines()]
    assert "[]" in labels
    assert all(set(entry) == {"transcription", "points"} for label in labels for entry in json.loads(label))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*cannot be made"):
        write_scenes(tmp_path / "file", 1, seed=0)
