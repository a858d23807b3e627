"""Decoding: pixels as stored; damaged files found, counted and named."""

import cv2
import numpy as np
import pytest

from compress.data import headers
from compress.data.images import content_parts, load_images, read_image, shrink_to_height
from compress.data.labels import ListRules, read_labels
from compress.errors import DataError
from tests.data.large import claim_png

HALF = ListRules(max_skipped=0.5)


@pytest.fixture
def noise():
    return np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def write_list(folder, names):
    path = folder / "labels.txt"
    path.write_text("".join(f"{name}\ttext\n" for name in names))
    return path


def test_a_png_is_read_as_bgr_bit_for_bit(tmp_path, noise):
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), noise)


def test_a_grey_image_gets_three_channels(tmp_path, noise):
    cv2.imwrite(str(tmp_path / "grey.png"), noise[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), noise[:, :, :1].repeat(3, axis=2))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
def test_damaged_files_are_none(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    assert read_image(tmp_path / "bad.png") is None


def test_unreadable_images_are_counted_named_and_skipped(tmp_path, noise):
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    (tmp_path / "bad.png").write_bytes(b"garbage")
    path = write_list(tmp_path, ["a.png", "bad.png", "gone.png", "a.png"])
    loaded = load_images(read_labels(path, HALF), rules=HALF)
    assert [entry.line for entry in loaded.entries] == [1, 4]
    assert len(loaded.images) == 2
    assert loaded.warnings == (
        f"{path}: 1 of 4 images skipped, missing: gone.png",
        f"{path}: 1 of 4 images skipped, unreadable: bad.png",
    )


def test_mostly_unreadable_is_an_error(tmp_path, noise):
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    for name in ("b.png", "c.png"):
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"2 of 3 images are unreadable: .*b.png, .*Copy the images again"):
        load_images(read_labels(write_list(tmp_path, ["a.png", "b.png", "c.png"])), rules=HALF)


def test_missing_and_unreadable_are_limited_together(tmp_path, noise):
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    (tmp_path / "bad.png").write_bytes(b"garbage")
    labels = read_labels(write_list(tmp_path, ["a.png", "bad.png", "gone.png", "a.png", "a.png"]), HALF)
    assert load_images(labels, rules=HALF).skipped == {"missing": ("gone.png",), "unreadable": ("bad.png",)}
    assert load_images(labels, rules=HALF).total == 5
    with pytest.raises(DataError, match=r"2 of 5 images are missing or unreadable: .*gone.png, .*\.png. At most 30%"):
        load_images(labels, rules=ListRules(max_skipped=0.3))


def test_images_that_claim_to_be_too_large_are_not_decoded(tmp_path, noise, monkeypatch):
    cv2.imwrite(str(tmp_path / "a.png"), noise)
    (tmp_path / "big.png").write_bytes(claim_png(9000, 9000))
    path = write_list(tmp_path, ["a.png", "big.png"])
    monkeypatch.setattr("compress.data.images.decode_image", lambda data, mode: noise if len(data) > 1000 else 1 / 0)
    loaded = load_images(read_labels(path), rules=HALF)
    assert loaded.warnings == (f"{path}: 1 of 2 images skipped, larger than 80 megapixels (JPEG: 160): big.png",)


def test_a_large_jpeg_is_decoded_at_half_its_size(tmp_path, noise, monkeypatch):
    monkeypatch.setattr(headers, "MAX_PIXELS", 500)
    cv2.imwrite(str(tmp_path / "a.jpg"), noise)
    (image,) = load_images(read_labels(write_list(tmp_path, ["a.jpg"]))).images
    assert image.shape == (10, 15, 3)


def test_shrinking_keeps_the_ratio_and_leaves_small_images_alone(noise):
    assert shrink_to_height(noise, 10).shape == (10, 15, 3)
    assert shrink_to_height(noise, 20) is noise


def test_content_is_texts_and_pixels_not_places(tmp_path, noise):
    parts = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        cv2.imwrite(str(folder / "a.png"), noise)
        parts.append(content_parts([load_images(read_labels(write_list(folder, ["a.png"])))]))
    assert parts[0] == parts[1]
    cv2.imwrite(str(tmp_path / "two" / "a.png"), noise[::-1])
    assert content_parts([load_images(read_labels(tmp_path / "two" / "labels.txt"))]) != parts[0]
