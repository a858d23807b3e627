"""Images without labels: which are found, and what crops they make."""

import os
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from compress.data import headers
from compress.data.labels import ListRules
from compress.data.unlabelled import (
    content_of_images,
    describe_foreign,
    list_images,
    load_unlabelled,
    split_images,
    unlabelled_crop,
    unlistable,
)
from compress.errors import DataError
from tests.data.large import claim_png


def write(path: Path, height: int, width: int, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), value, np.uint8))
    return path


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_folder_is_searched_to_its_ends_and_holds_other_files_too(tmp_path: Path) -> None:
    found = [write(tmp_path / name, 8, 8, 9) for name in ("a.PNG", "deep/er/b.jpg")]
    (tmp_path / "labels.txt").write_text("x")
    assert list_images(tmp_path).files == tuple(found)


def test_texts_of_a_list_are_not_looked_at(tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", 8, 8, 9)
    (tmp_path / "labels.txt").write_text("a.png\tno JSON at all\n")
    assert list_images(tmp_path / "labels.txt").files == (image,)


def test_what_cannot_be_used_is_counted_named_and_limited(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.png", 8, 8, 9)
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "bomb.png").write_bytes(claim_png(100_000, 100_000))
    (tmp_path / "labels.txt").write_text("".join(f"{name}.png\t\n" for name in ("0", "1", "2", "bad", "bomb", "gone")))
    found = list_images(tmp_path / "labels.txt", ListRules(max_skipped=0.5))
    assert [file.name for file in found.files] == ["0.png", "1.png", "2.png"]
    assert [line.split(": ", 1)[1] for line in found.warnings] == [
        "1 of 6 images skipped, missing: gone.png",
        "1 of 6 images skipped, unreadable: bad.png",
        "1 of 6 images skipped, larger than 80 megapixels (JPEG: 160): bomb.png",
    ]
    with pytest.raises(
        DataError, match=r"2 of 5 images are unreadable or larger than 80 megapixels.*: .*/bad.png, .*/bomb.png\. At"
    ):
        list_images(tmp_path)


def test_a_large_jpeg_is_used_at_half_its_size_as_in_labelled_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headers, "MAX_PIXELS", 150)
    write(tmp_path / "a.jpg", 16, 16, 9)
    write(tmp_path / "b.png", 16, 16, 9)
    write(tmp_path / "c.jpg", 20, 16, 9)
    found = list_images(tmp_path, ListRules(max_skipped=0.9))
    assert (
        [file.name for file in found.files]
        == ["a.jpg"]
        == [entry.image.name for entry in load_unlabelled(tmp_path, rules=ListRules(max_skipped=0.9)).entries]
    )
    assert unlabelled_crop(found.files, (8, 8), rng()).shape == (8, 8, 3)


@pytest.mark.parametrize("name", ["a\tb.png", "a\nb.png", os.fsdecode(b"\xff.png")])
def test_names_that_no_list_can_hold_are_counted_and_escaped(tmp_path: Path, name: str) -> None:
    write(tmp_path / "good.png", 8, 8, 9).with_name(name).write_bytes((tmp_path / "good.png").read_bytes())
    with pytest.raises(DataError, match=r"1 of 2 images is named with a tab, a line break .*Rename them") as caught:
        list_images(tmp_path, problem_of=unlistable)
    assert repr(str(tmp_path / name)) in str(caught.value)
    assert str(caught.value).isprintable()
    found = list_images(tmp_path, ListRules(max_skipped=0.5), unlistable)
    assert len(list_images(tmp_path).files) == 2, "of images that no list is to hold any name will do"
    assert (found.files, len(found.warnings)) == ((tmp_path / "good.png",), 1)
    assert repr(name) in found.warnings[0]


def test_warnings_name_images_by_their_path_in_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "good.png", 8, 8, 9)
    write(tmp_path / "deep" / "bad.png", 8, 8, 9).write_bytes(b"no image")
    (line,) = list_images(tmp_path, ListRules(max_skipped=0.5)).warnings
    assert line == f"{tmp_path}: 1 of 2 images skipped, unreadable: deep/bad.png"


def test_pictures_in_other_formats_are_said(tmp_path: Path) -> None:
    write(tmp_path / "good.png", 8, 8, 9)
    (tmp_path / "notes.txt").write_text("x")
    assert describe_foreign(tmp_path) == ""
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "b.GIF").write_bytes(b"GIF89a")
    assert describe_foreign(tmp_path).startswith(f"{tmp_path}: left out 1 file of another kind, some/b.GIF. Images are")
    (tmp_path / "a.heic").touch()
    assert describe_foreign(tmp_path).startswith(f"{tmp_path}: left out 2 files of other kinds, as a.heic. Images are")


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images\. Expected \.jpg, .* in it, or a label list"):
        list_images(tmp_path)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad\.png: cannot be decoded"):
        unlabelled_crop([tmp_path / "bad.png"], (64, 64), rng())


@pytest.mark.parametrize(("height", "width"), [(400, 300), (20, 60), (1, 1), (9, 2000)])
@pytest.mark.parametrize("size", [(64, 96), (128, 128)])
def test_crops_have_the_size_asked_for_and_repeat(
    tmp_path: Path, height: int, width: int, size: tuple[int, int]
) -> None:
    files = [write(tmp_path / f"{value}.png", height, width, value) for value in (60, 200)]
    crop = unlabelled_crop(files, size, rng(3))
    assert (crop.shape, crop.dtype) == ((*size, 3), np.uint8)
    assert np.array_equal(crop, unlabelled_crop(files, size, rng(3)))


def test_small_images_are_tiled_and_large_ones_are_not(tmp_path: Path) -> None:
    """Of a white and a black image, a mosaic shows both; a crop of a large one only its own and the black outside."""
    small = [write(tmp_path / f"{value}.png", 20, 60, value) for value in (40, 220)]
    mosaics = [unlabelled_crop(small, (128, 128), rng(seed)) for seed in range(8)]
    assert sum(int(mosaic.max()) - int(mosaic.min()) > 90 for mosaic in mosaics) >= 6  # one tile may fill it
    large = [write(tmp_path / "large.png", 900, 900, 220)]
    inner = [unlabelled_crop(large, (64, 64), rng(seed))[28:36, 28:36] for seed in range(8)]
    assert sum(int(part.max()) - int(part.min()) < 60 for part in inner) >= 6  # noise and blur aside, one colour


def test_the_fingerprint_reads_the_pixels(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a.png", 8, 8, 1), write(tmp_path / "b.png", 8, 8, 2)
    assert list(content_of_images([one])) != list(content_of_images([other]))


def test_images_are_loaded_from_folders_lists_and_lmdb_without_texts(tmp_path: Path) -> None:
    write(tmp_path / "some" / "deeper" / "a.png", 8, 20, 9)
    (tmp_path / "some" / "labels.txt").write_text("deeper/a.png\tnever read\n")
    (tmp_path / "db").mkdir()
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 20) as database, database.begin(write=True) as writer:
        writer.put(b"num-samples", b"1")
        writer.put(b"image-000000001", (tmp_path / "some" / "deeper" / "a.png").read_bytes())
        writer.put(b"label-000000001", b"nor this")
    for path in (tmp_path / "some", tmp_path / "some" / "labels.txt", tmp_path / "db"):
        loaded = load_unlabelled(path, max_height=4)
        assert [entry.text for entry in loaded.entries] == [""]
        assert [image.shape for image in loaded.images] == [(4, 10, 3)]


def test_unreadable_images_are_counted_and_too_many_are_an_error(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.png", 8, 8, 9)
    (tmp_path / "c.png").write_bytes(b"no image")
    assert load_unlabelled(tmp_path, rules=ListRules(max_skipped=0.5)).warnings == (
        f"{tmp_path}: 1 of 3 images skipped, unreadable: c.png",
    )
    for name in "de":
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"3 of 5 images are unreadable: .*c\.png"):
        load_unlabelled(tmp_path)


def test_parts_depend_on_content_alone(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{value}.png", 8, 8, value) for value in range(20)]
    train, val = split_images(files, 0.2)
    assert (len(train), len(val), {*train, *val}) == (16, 4, set(files))
    renamed = [file.rename(tmp_path / f"{19 - number}-other.png") for number, file in enumerate(files)]
    values = {file: number for number, file in enumerate(renamed)}
    assert {values[file] for file in split_images(sorted(renamed), 0.2)[1]} == {files.index(file) for file in val}


def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}{value}.png", 8, 8, value) for value in range(6) for name in "ab"]
    train, val = split_images(files, 0.5)
    assert len(train) == len(val) == 6
    assert {file.stem[1:] for file in train}.isdisjoint(file.stem[1:] for file in val)


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.99, 2)])
def test_no_part_is_empty(tmp_path: Path, share: float, held: int) -> None:
    files = [write(tmp_path / f"{value}.png", 8, 8, value) for value in range(3)]
    assert [len(part) for part in split_images(files, share)] == [3 - held, held]


def test_two_different_images_are_the_least(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.png", 8, 8, 1) for name in "ab"]
    with pytest.raises(DataError, match=r"images: got 2, 1 of them different\. Must be two or more"):
        split_images(files, 0.2)
