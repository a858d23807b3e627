"""Crops of regions: against slicing, against a drawn and turned image, and what is left out."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.crops import crop_region, crop_size, text_corners, write_crops
from compress.data.labels import ListRules
from compress.data.lmdb_folder import load_list
from compress.errors import DataError, OutputError


def noise(height: int = 60, width: int = 90, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def turned(points: list[list[float]], degrees: float) -> np.ndarray:
    """The points turned clockwise, as seen, around their middle."""
    corners, angle = np.array(points, np.float64), np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return ((corners - corners.mean(0)) @ turn + corners.mean(0)).astype(np.float32)


def write_scene(folder: Path, regions: list[tuple[list[list[float]], str]], name: str = "a.png", seed: int = 0) -> Path:
    """An image of noise with these regions; returns its list."""
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), noise(seed=seed))
    label = json.dumps([{"points": points, "transcription": text} for points, text in regions])
    path = folder / f"{Path(name).stem}.txt"
    path.write_text(f"{name}\t{label}\n", encoding="utf-8")
    return path


def cut(path: Path, out: Path, **settings: int) -> dict[str, np.ndarray]:
    """Text -> crop of what is written."""
    write_crops([path], out, **settings)
    loaded = load_list(out / "labels.txt")
    return {entry.text: image for entry, image in zip(loaded.entries, loaded.images, strict=True)}


# --- one region ---------------------------------------------------------------------------------------------------


def test_a_rectangle_is_a_slice_of_the_image() -> None:
    image = noise()
    crop = crop_region(image, np.array(box(12, 5, 52, 25), np.float32))
    assert np.array_equal(crop, image[5:25, 12:52])


def test_a_line_that_runs_down_is_turned_to_the_left() -> None:
    """At least 1.5 times as high as wide: its right end, at the top of the crop, comes first."""
    image = noise()
    for height, expected in ((30, np.rot90(image[5:35, 12:32])), (29, image[5:34, 12:32])):
        assert np.array_equal(crop_region(image, np.array(box(12, 5, 32, 5 + height), np.float32)), expected)


def test_the_first_corner_is_the_texts_top_left_wherever_it_lies() -> None:
    """Text upside down, labelled from its own top left. A corner is a pixel's middle, as in PaddleOCR: one further."""
    image = noise()
    corners = text_corners(np.array(box(12, 5, 52, 25)[2:] + box(12, 5, 52, 25)[:2]))
    assert np.array_equal(crop_region(image, corners), image[6:26, 13:53][::-1, ::-1])


@pytest.mark.parametrize("degrees", [-40, -10, 10, 40])
def test_a_turned_line_is_made_upright(degrees: float) -> None:
    """A bar, dark on its left and light on its right, drawn turned by an angle."""
    left, right = box(100, 90, 150, 110), box(150, 90, 200, 110)
    image = np.full((200, 300, 3), 255, np.uint8)
    middle = np.array([150, 100])
    for part, level in ((left, 0), (right, 120)):
        whole = turned(box(100, 90, 200, 110), degrees)
        angle = np.deg2rad(degrees)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        cv2.fillPoly(image, [(((np.array(part) - middle) @ turn) + middle).round().astype(int)], (level, level, level))
    crop = crop_region(image, text_corners(whole))
    assert abs(crop.shape[0] - 20) <= 1
    assert abs(crop.shape[1] - 100) <= 1
    assert (crop[4:-4, 4:46] < 30).mean() > 0.98
    assert (abs(crop[4:-4, 54:-4].astype(int) - 120) < 30).mean() > 0.98


def test_beyond_the_border_the_border_goes_on() -> None:
    crop = crop_region(noise(), np.array(box(-10, -5, 30, 15), np.float32))
    assert crop.shape == (20, 40, 3)
    assert np.array_equal(crop[5:, 10:], noise()[:15, :30])
    assert (crop[:5, 10:] == noise()[:1, :30]).all()


@pytest.mark.parametrize(
    "points",
    [
        box(10, 10, 50, 20)[::-1],  # against the clock: as it is, it would be a mirror image
        [[10, 10], [50, 10], [50, 20], [30, 15], [10, 20]],  # a polygon
        [[10, 10], [50, 10], [50, 20], [12, 12]],  # not convex once the last corner is inside
    ],
)
def test_other_shapes_are_cut_as_the_smallest_rectangle_around_them(points: list[list[float]]) -> None:
    corners = text_corners(np.array(points))
    assert cv2.contourArea(corners, oriented=True) > 0
    assert corners[:, 0].argmin() in (0, 3)
    if len(points) != 4 or points[0] == [10, 20]:
        assert corners == pytest.approx(np.array(box(10, 10, 50, 20)), abs=1e-4)


def test_size_is_of_the_longer_sides() -> None:
    assert crop_size(np.array([[0, 0], [30, 0], [40, 12], [0, 10]], np.float32)) == (15, 40)


# --- lists --------------------------------------------------------------------------------------------------------


def test_crops_and_their_list(tmp_path: Path) -> None:
    path = write_scene(tmp_path, [(box(0, 0, 40, 10), "EXIT"), (box(50, 20, 80, 40), "zwei  \tWörter\n")])
    crops = cut(path, tmp_path / "out")
    assert set(crops) == {"EXIT", "zwei Wörter"}
    assert np.array_equal(crops["EXIT"], noise()[:10, :40])
    assert np.array_equal(crops["zwei Wörter"], noise()[20:40, 50:80])
    assert (tmp_path / "out" / "labels.txt").read_text(encoding="utf-8") == (
        "images/a_000.png\tEXIT\nimages/a_001.png\tzwei Wörter\n"
    )


def test_an_icdar_folder_gives_the_same(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "img_1.png"), noise())
    (tmp_path / "gt_img_1.txt").write_text("0,0,40,0,40,10,0,10,EXIT\n5,5,9,5,9,9,5,9,###\n")
    made = write_crops([tmp_path], tmp_path / "out")
    assert (made.written, made.skipped) == (1, {"marked ### or *": 1})
    assert np.array_equal(load_list(tmp_path / "out" / "labels.txt").images[0], noise()[:10, :40])


def test_what_cannot_be_cut_is_counted(tmp_path: Path) -> None:
    regions = [
        (box(0, 0, 40, 10), "kept"),
        (box(0, 0, 40, 7), "low"),
        (box(0, 0, 7, 40), "runs down, 7 wide"),
        (box(0, 0, 40, 10), "###"),
        (box(0, 0, 40, 10), "*"),
        (box(0, 0, 40, 10), " "),
        (box(0, 0, 9000, 9000), "huge"),
    ]
    made = write_crops([write_scene(tmp_path, regions)], tmp_path / "out")
    assert made.written == 1
    assert made.skipped == {
        "less than 8 pixels high": 2,
        "marked ### or *": 2,
        "without text": 1,
        "larger than their image": 1,
    }
    assert set(cut(tmp_path / "a.txt", tmp_path / "all", min_height=7)) == {"kept", "low", "runs down, 7 wide"}


def test_a_limit_is_drawn_over_all_and_always_the_same(tmp_path: Path) -> None:
    path = write_scene(tmp_path, [(box(0, 10 * row, 40, 10 * row + 10), str(row)) for row in range(6)])
    some, again, more = (cut(path, tmp_path / name, limit=limit) for name, limit in (("a", 3), ("b", 3), ("c", 99)))
    assert len(some) == 3
    assert set(some) == set(again) != {"0", "1", "2"}
    assert len(more) == 6
    assert all(np.array_equal(crop, more[text]) for text, crop in some.items())


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write_scene(tmp_path, [(turned(box(20, 20, 60, 34), 15).tolist(), "a"), (box(0, 0, 40, 10), "b")])
    for name in ("first", "second"):
        write_crops([path], tmp_path / name)
    files = [
        sorted(file.relative_to(tmp_path / name) for file in (tmp_path / name).rglob("*.*"))
        for name in ("first", "second")
    ]
    assert files[0] == files[1]
    assert len(files[0]) == 3
    for file in files[0]:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_images_of_one_name_do_not_overwrite_one_another(tmp_path: Path) -> None:
    lists = [write_scene(tmp_path / part, [(box(0, 0, 40, 10), part)], seed=seed) for seed, part in enumerate("xy")]
    write_crops(lists, tmp_path / "out")
    loaded = load_list(tmp_path / "out" / "labels.txt")
    assert [entry.image.name for entry in loaded.entries] == ["a_000.png", "a-2_000.png"]
    assert np.array_equal(loaded.images[1], noise(seed=1)[:10, :40])


def test_folders_with_other_things_are_left_alone(tmp_path: Path) -> None:
    path = write_scene(tmp_path, [(box(0, 0, 40, 10), "a")])
    write_crops([path], tmp_path / "out")
    with pytest.raises(OutputError, match=r"out: holds other files. Give a new or an empty folder with --out"):
        write_crops([path], tmp_path / "out")
    (tmp_path / "out" / "labels.txt").unlink()  # as a stopped call leaves it
    assert write_crops([path], tmp_path / "out").written == 1


def test_what_is_asked_of_lists_can_be_said(tmp_path: Path) -> None:
    """As the errors advise: paths into another folder, and more bad files than usual."""
    path = write_scene(tmp_path / "images", [(box(0, 0, 40, 10), "a")])
    listed = tmp_path / "lists" / "labels.txt"
    listed.parent.mkdir()
    label = path.read_text().split("\t")[1]
    listed.write_text(f"../images/a.png\t{label}../images/none.png\t{label}")
    with pytest.raises(DataError, match=r"data\.root \(--data-root\)"):
        write_crops([listed], tmp_path / "out")
    roots = (tmp_path / "images",)
    with pytest.raises(DataError, match=r"max_skipped"):
        write_crops([listed], tmp_path / "out", rules=ListRules(roots=roots))
    made = write_crops([listed], tmp_path / "out", rules=ListRules(0.5, roots))
    assert (made.written, len(made.warnings)) == (1, 1)


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    path, out = write_scene(tmp_path, [(box(0, 0, 40, 10), "a")]), tmp_path / "out"

    def second(*_: object) -> None:
        with pytest.raises(OutputError, match="out: in use by process"):
            write_crops([path], out)

    assert write_crops([path], out, on_progress=second).written == 1
    assert {file.name for file in out.iterdir()} == {"images", "labels.txt"}


def test_nothing_to_cut(tmp_path: Path) -> None:
    path = write_scene(tmp_path, [(box(0, 0, 40, 10), "###")])
    with pytest.raises(DataError, match=r"a.txt: nothing to cut \(1 marked ### or \*\). Give labelled scenes"):
        write_crops([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()
