"""Large lists whose images are read when they are needed."""

import pickle
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from compress.data import streaming
from compress.data.labels import ListRules
from compress.data.lmdb_folder import load_list
from compress.data.overlap import shared_images
from compress.data.streaming import StoredList, Strings, count_images, stream_list
from compress.errors import DataError
from tests.tasks.test_recognition import write_list

TEXTS = ["ab", "", "ba b", "é", "a" * 300]


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return write_list(tmp_path / "list", TEXTS)


@pytest.fixture
def database(listed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "db"
    with lmdb.open(str(folder), map_size=1 << 24) as made, made.begin(write=True) as writer:
        writer.put(b"num-samples", str(len(TEXTS)).encode())
        for number, text in enumerate(TEXTS, start=1):
            writer.put(f"label-{number:09d}".encode(), text.encode())
            writer.put(f"image-{number:09d}".encode(), (listed.parent / f"{number - 1}.png").read_bytes())
    return folder


@pytest.mark.parametrize("kind", ["listed", "database"])
def test_the_same_as_a_list_that_is_decoded_at_once(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    whole, streamed = load_list(path, 6), stream_list(path, 6)
    assert count_images(path) == streamed.total == len(streamed) == len(TEXTS)
    assert list(streamed.texts) == [entry.text for entry in whole.entries]
    for index, image in enumerate(whole.images):
        found = streamed.image(index)
        assert found is not None
        assert np.array_equal(found, image)
        header = streamed.header(index)
        assert header is not None
        assert image.shape[0] == min(6, header.height)
    assert [stored.content() for stored in StoredList([streamed])] == [stored.digest for stored in whole.stored]
    assert [stored.size for stored in StoredList([streamed])] == [stored.size for stored in whole.stored]
    assert len(shared_images(whole.stored, StoredList([streamed]))) == len(TEXTS)
    copied = pickle.loads(pickle.dumps(streamed))
    assert np.array_equal(copied.image(2), streamed.image(2))
    with pytest.raises(IndexError):
        streamed.texts[len(TEXTS)]


def test_the_identity_is_of_names_texts_sizes_and_a_sample(listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stream_list(listed).content_parts()
    assert stream_list(listed).content_parts() == before
    text = listed.read_text()
    listed.write_text(text.replace("ba b", "ba c"))
    assert stream_list(listed).content_parts() != before
    listed.write_text(text)
    image = cv2.imread(str(listed.parent / "2.png"))
    cv2.imwrite(str(listed.parent / "2.png"), 255 - image)
    assert stream_list(listed).content_parts() != before


def test_missing_images_are_named_and_counted(listed: Path) -> None:
    (listed.parent / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 5 images is missing: 3\.png"):
        stream_list(listed)
    streamed = stream_list(listed, rules=ListRules(max_skipped=0.2))
    assert (len(streamed), streamed.total, streamed.skipped) == (4, 5, {"missing": ("3.png",)})
    assert streamed.warnings == (f"{listed}: 1 of 5 images skipped, missing: 3.png",)


def test_paths_that_lead_out_are_refused(listed: Path) -> None:
    listed.write_text("../x.png\ta\n")
    with pytest.raises(DataError, match="leads out of the list's folder"):
        stream_list(listed)


def test_damaged_images(listed: Path) -> None:
    data = (listed.parent / "0.png").read_bytes()
    (listed.parent / "0.png").write_bytes(b"no image")
    (listed.parent / "1.png").write_bytes(data[: len(data) // 2])
    streamed = stream_list(listed)
    assert streamed.header(0) is None
    assert streamed.image(0) is None
    assert streamed.header(1) is not None


def test_strings_take_little_memory() -> None:
    texts = Strings(f"images/{number:07d}.png" for number in range(10_000))
    assert len(texts.data) == 18 * 10_000
    assert texts[9_999] == "images/0009999.png"
    assert texts[1:3] == ["images/0000001.png", "images/0000002.png"]


def test_what_cannot_be_counted_is_0(tmp_path: Path) -> None:
    assert count_images(tmp_path / "none.txt") == 0
    assert count_images(tmp_path) == 0
    assert streaming.STREAMED_FROM > 10_000
