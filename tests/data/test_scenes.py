"""Scenes: label lists and ICDAR's folders, images that cannot be used, EXIF, and that memory stays bounded."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from compress.artifacts import fingerprint, fingerprint_each
from compress.data import headers
from compress.data.labels import ListRules
from compress.data.regions import parse_icdar
from compress.data.scenes import Scene, content_of, load_scenes, scale_regions
from compress.errors import DataError
from tests.data.large import claim_png

BOX = [[2, 3], [12, 3], [12, 9], [2, 9]]
ICDAR_LINE = "2,3,12,3,12,9,2,9,word\n"
HALF = ListRules(max_skipped=0.5)


def write_image(path: Path, height: int = 20, width: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    return path


def write_list(folder: Path, labels: dict[str, list]) -> Path:
    """A label list of these images and the points of their regions; writes no image."""
    lines = []
    for name, polygons in labels.items():
        regions = [{"transcription": "a", "points": points} for points in polygons]
        lines.append(f"{name}\t{json.dumps(regions)}\n")
    folder.mkdir(exist_ok=True)
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


# --- label lists --------------------------------------------------------------------------------------------------


def test_a_list_with_its_regions_in_order(tmp_path: Path):
    path = write_list(tmp_path, {"a.png": [BOX], "b.png": [], "c.png": [BOX, BOX]})
    for name, height in (("a.png", 20), ("b.png", 25), ("c.png", 35)):
        write_image(tmp_path / name, height)
    found = load_scenes(path)
    assert [(scene.image.name, scene.height, scene.width, len(scene.regions)) for scene in found.scenes] == [
        ("a.png", 20, 30, 1),
        ("b.png", 25, 30, 0),
        ("c.png", 35, 30, 2),
    ]
    assert found.warnings == ()
    image, regions = found.scenes[0].load()
    assert np.array_equal(image, cv2.imread(str(tmp_path / "a.png")))
    assert regions[0].points.tolist() == BOX


def test_an_empty_label_is_an_image_without_text(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("a.png\t\n")
    assert load_scenes(tmp_path / "labels.txt").scenes[0].regions == ()


def test_a_broken_label_names_list_and_line(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "labels.txt").write_text("a.png\t[]\n\na.png\tword\n")
    with pytest.raises(DataError, match=r"labels.txt: line 3: the label is not JSON \('word'\)"):
        load_scenes(tmp_path / "labels.txt")


def test_unusable_regions_are_counted_and_named(tmp_path: Path):
    bow_tie, outside, line = [BOX[0], BOX[2], BOX[1], BOX[3]], [[50, 0], [60, 0], [60, 9]], [[1, 1], [5, 5], [9, 9]]
    path = write_list(tmp_path, {"a.png": [BOX, bow_tie, outside], "b.png": [BOX, BOX, BOX, line, [[1, 1]], outside]})
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    found = load_scenes(path, HALF)
    assert [len(scene.regions) for scene in found.scenes] == [2, 3]
    assert (found.counts, found.region_counts) == ((0, 2), (4, 9))
    assert found.warnings == (
        f"{path}: 1 of 9 regions self-crossing, replaced by the hull of the points: in a.png",
        f"{path}: 2 of 9 regions outside the image, left out: in a.png, b.png",
        f"{path}: 1 of 9 regions of zero area, left out: in b.png",
        f"{path}: 1 of 9 regions with fewer than 3 points, left out: in b.png",
    )


def test_mostly_unusable_regions_are_refused(tmp_path: Path):
    """As with points as (y, x), or of an image that was resized since."""
    outside = [[50, 0], [60, 0], [60, 9]]
    path = write_list(tmp_path, {"a.png": [BOX], "b.png": [outside, outside]})
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    message = (
        r"labels.txt: 2 of 3 regions are outside the image: b.png. At most 50% may be. Check that the "
        r"points are \(x, y\) in the image's own pixels. To allow more: data.max_skipped"
    )
    with pytest.raises(DataError, match=message):
        load_scenes(path, HALF)


def test_missing_and_unreadable_images_are_counted_and_named(tmp_path: Path):
    path = write_list(tmp_path, {name: [BOX] for name in ("a.png", "b.png", "gone.png", "text.png", "empty.png")})
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    found = load_scenes(path, ListRules(max_skipped=0.6))
    assert [scene.image.name for scene in found.scenes] == ["a.png", "b.png"]
    assert found.counts == (3, 5)
    assert found.warnings == (
        f"{path}: 1 of 5 images skipped, missing: gone.png",
        f"{path}: 2 of 5 images skipped, unreadable: text.png, empty.png",
    )
    with pytest.raises(DataError, match=r"3 of 5 images are missing or unreadable: gone.png, .*. At most 50%"):
        load_scenes(path, HALF)


def test_mostly_unreadable_images_are_refused(tmp_path: Path):
    path = write_list(tmp_path, {"text.png": [BOX]})
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"labels.txt: 1 of 1 images is unreadable: text.png"):
        load_scenes(path)


def test_an_image_damaged_behind_its_header_is_named_when_it_is_decoded(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(claim_png(20, 30))
    (scene,) = load_scenes(write_list(tmp_path, {"a.png": [BOX]})).scenes
    with pytest.raises(DataError, match=r"a.png: cannot be decoded. Copy it again, or remove it"):
        scene.load()


def test_an_image_that_is_gone_by_then_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone.png: cannot be decoded"):
        Scene(tmp_path / "gone.png", 20, 30, ()).load()


# --- large images -------------------------------------------------------------------------------------------------


def test_images_larger_than_the_limit_are_skipped_and_named_without_being_decoded(tmp_path: Path):
    path = write_list(tmp_path, {name: [BOX] for name in ("big.png", "bomb.png", "ok.png")})
    (tmp_path / "big.png").write_bytes(claim_png(9000, 9000))
    (tmp_path / "bomb.png").write_bytes(claim_png(100_000, 100_000))
    write_image(tmp_path / "ok.png")
    found = load_scenes(path, ListRules(max_skipped=0.7))
    assert [scene.image.name for scene in found.scenes] == ["ok.png"]
    assert found.warnings == (
        f"{path}: 2 of 3 images skipped, larger than 80 megapixels (JPEG: 160): big.png, bomb.png",
    )


def test_nothing_but_large_images(tmp_path: Path):
    (tmp_path / "big.png").write_bytes(claim_png(9000, 9000))
    with pytest.raises(DataError, match=r"labels.txt: 1 of 1 images is larger than 80 megapixels.*: big.png"):
        load_scenes(write_list(tmp_path, {"big.png": [BOX]}))


def test_a_large_jpeg_is_decoded_at_half_its_size_with_its_regions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "MAX_PIXELS", 1000)
    write_image(tmp_path / "a.jpg", 40, 50)
    (scene,) = load_scenes(write_list(tmp_path, {"a.jpg": [BOX]})).scenes
    image, regions = scene.load()
    assert image.shape == (20, 25, 3)
    assert regions[0].points.tolist() == (np.array(BOX) / 2).tolist()


def test_a_jpeg_of_more_than_twice_the_limit_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(headers, "MAX_PIXELS", 1000)
    write_image(tmp_path / "a.jpg", 40, 51)
    write_image(tmp_path / "b.png", 10, 10)
    found = load_scenes(write_list(tmp_path, {"a.jpg": [BOX], "b.png": [BOX]}), HALF)
    assert [scene.image.name for scene in found.scenes] == ["b.png"]


def test_no_pixel_is_decoded_while_reading_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pillow's own way to the orientation of a PNG would decode all of it."""
    names = [f"a.{suffix}" for suffix in ("png", "jpg", "tif", "webp", "bmp")]
    for name in names:
        Image.new("RGB", (30, 20)).save(tmp_path / name)
    path = write_list(tmp_path, {name: [BOX] for name in names})

    def decode(*_: object) -> None:
        raise OSError("decoded")

    for kind in (Image.Image, ImageFile.ImageFile, PngImageFile, TiffImageFile, WebPImageFile):
        monkeypatch.setattr(kind, "load", decode)
    assert len(load_scenes(path).scenes) == len(names)


# --- orientation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_images_are_turned_as_exif_says_and_points_are_in_the_turned_image(
    tmp_path: Path, suffix: str, orientation: int
):
    """9 means nothing. The size known before is that of the decoded image, so regions are not stretched."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
    (scene,) = load_scenes(write_list(tmp_path, {f"a.{suffix}": [BOX]})).scenes
    image, regions = scene.load()
    assert image.shape[:2] == (scene.height, scene.width) == ((40, 20) if 5 <= orientation <= 8 else (20, 40))
    assert regions[0].points.tolist() == BOX


# --- ICDAR's folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "texts"),
    [("img_{}.png", "gt_img_{}.txt"), ("{}.png", "{}.txt"), ("images/img_{}.png", "gt/gt_img_{}.txt")],
)
def test_the_forms_of_icdar_s_folders(tmp_path: Path, images: str, texts: str):
    for number in (1, 2, 10):
        write_image(tmp_path / images.format(number), 20 + number)
        text = tmp_path / texts.format(number)
        text.parent.mkdir(exist_ok=True)
        text.write_text(ICDAR_LINE * number)
    found = load_scenes(tmp_path)
    assert {scene.height - 20: len(scene.regions) for scene in found.scenes} == {1: 1, 2: 2, 10: 10}
    assert found.warnings == ()


def test_a_byte_order_mark_and_other_files_do_no_harm(tmp_path: Path):
    write_image(tmp_path / "img_1.JPG")
    (tmp_path / "gt_img_1.txt").write_text("\ufeff" + ICDAR_LINE, encoding="utf-8")
    (tmp_path / "notes.md").write_text("hello")
    for folder in ("empty", "one", "two"):
        (tmp_path / folder).mkdir()
    for folder in ("one", "two"):
        (tmp_path / folder / "readme.txt").write_text("hello")
    (scene,) = load_scenes(tmp_path).scenes
    assert scene.regions[0].points.tolist() == BOX


def test_images_without_text_file_and_texts_without_image_are_named(tmp_path: Path):
    for number in (1, 2, 3):
        write_image(tmp_path / f"img_{number}.png")
    for number in (1, 2, 4):
        (tmp_path / f"gt_img_{number}.txt").write_text(ICDAR_LINE)
    (tmp_path / "readme.txt").write_text("hello")
    found = load_scenes(tmp_path, HALF)
    assert [scene.image.name for scene in found.scenes] == ["img_1.png", "img_2.png"]
    assert found.warnings == (
        f"{tmp_path}: 1 of 4 images skipped, without a text file: img_3.png",
        f"{tmp_path}: 1 of 4 images skipped, missing: gt_img_4.txt",
        f"{tmp_path}: 1 text files have no image: readme.txt",
    )
    with pytest.raises(DataError, match=r"2 of 4 images are without a text file or missing: img_3.png"):
        load_scenes(tmp_path, ListRules(max_skipped=0.4))


def test_mostly_without_text_files(tmp_path: Path):
    for number in (1, 2, 3):
        write_image(tmp_path / f"img_{number}.png")
    (tmp_path / "gt_img_1.txt").write_text(ICDAR_LINE)
    with pytest.raises(DataError, match=r"2 of 3 images are without a text file: img_2.png"):
        load_scenes(tmp_path)


@pytest.mark.parametrize("twice", ["img_1.jpg", "b/img_1.png", "b/gt_img_1.txt"])
def test_one_name_for_two_files_is_refused(tmp_path: Path, twice: str):
    """As in a folder that holds training and test set: which belongs to which?"""
    write_image(tmp_path / "a" / "img_1.png")
    (tmp_path / "a" / "gt_img_1.txt").write_text(ICDAR_LINE)
    if twice.endswith("txt"):
        (tmp_path / "b").mkdir()
        (tmp_path / twice).write_text(ICDAR_LINE)
    else:
        write_image(tmp_path / twice)
    with pytest.raises(DataError, match=r"img_1.* and .*img_1.* have the same name.*Give the folder of one data set"):
        load_scenes(tmp_path)


def test_a_folder_without_pairs(tmp_path: Path):
    write_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"no image with its text file. Expected img_1.jpg with gt_img_1.txt"):
        load_scenes(tmp_path)


def test_a_text_file_that_is_not_utf_8(tmp_path: Path):
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"2,3,12,3,12,9,2,9,caf\xe9\n")
    with pytest.raises(DataError, match=r"a.txt: not UTF-8 text .*Write the labels as UTF-8"):
        load_scenes(tmp_path)


def test_no_such_list(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone.txt: no such file. Expected a label list"):
        load_scenes(tmp_path / "gone.txt")


# --- what belongs to them -----------------------------------------------------------------------------------------


def test_regions_of_a_resized_image():
    (region,) = parse_icdar(Path("a.txt"), ICDAR_LINE)
    (scaled,) = scale_regions([region], 0.5, 3)
    assert scaled.points.tolist() == [[1, 9], [6, 9], [6, 27], [1, 27]]
    assert (scaled.text, scaled.ignore) == ("word", False)


def test_content_is_files_and_regions_not_places(tmp_path: Path):
    def content(name: str, points: list = BOX, width: int = 30) -> str:
        write_image(tmp_path / name / "a.png", width=width)
        return fingerprint_each(content_of([load_scenes(write_list(tmp_path / name, {"a.png": [points]}))]))

    assert content("one") == content("two")
    assert len({content("one"), content("three", BOX[:3]), content("four", width=31)}) == 3


def test_parts_made_one_by_one_have_the_fingerprint_of_all():
    parts = [b"a", {"x": 1}, "b"]
    assert fingerprint_each(iter(parts)) == fingerprint(*parts)
