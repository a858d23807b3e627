"""Rendered scenes: seeded, with regions that hold the ink and lie in the image, written as a detection label list."""

import json

import numpy as np
import pytest
import shapely

from compress.data.db_targets import make_maps
from compress.data.regions import repair_regions
from compress.data.scenes import load_scenes
from compress.data.sheets import ILLEGIBLE
from compress.data.synthetic_scenes import EMPTY_SHARE, SIZES, render_scene, write_scenes
from compress.errors import OutputError
from compress.tasks.db_boxes import find_boxes
from compress.tasks.hmean import match_boxes, score_matches


@pytest.fixture(scope="module")
def scenes():
    return [render_scene(np.random.default_rng([0, seed])) for seed in range(40)]


def polygons(regions):
    return [shapely.Polygon(region.points) for region in regions]


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


def test_some_scenes_have_no_text_and_some_text_is_not_counted(scenes):
    made = [regions for _, regions in scenes]
    empty = sum(not regions for regions in made)
    assert 1 <= empty <= len(made) * EMPTY_SHARE + 4
    ignored = [region for regions in made for region in regions if region.ignore]
    assert ignored
    assert all(region.text in (ILLEGIBLE, "*") for region in ignored)


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


def test_a_network_that_learned_all_finds_all(scenes):
    """The training targets themselves, read as a probability map, are boxes of every region that is to be counted."""
    matches = []
    for image, regions in scenes:
        maps = make_maps(regions, *image.shape[:2], threshold=False)
        found, _ = find_boxes(maps.text, *image.shape[:2])
        matches.append(match_boxes(regions, found))
    assert score_matches(matches).metric > 0.97


def test_a_scene_without_text_is_an_empty_list(tmp_path):
    path = write_scenes(tmp_path, 6, seed=1)
    labels = [line.split("\t")[1] for line in path.read_text().splitlines()]
    assert "[]" in labels
    assert all(set(entry) == {"transcription", "points"} for label in labels for entry in json.loads(label))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file.*cannot be made"):
        write_scenes(tmp_path / "file", 1, seed=0)
