"""LMDB folders: read like label lists, and refused with one clear line."""

from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from compress.data.images import content_parts
from compress.data.labels import ListRules
from compress.data.lmdb_folder import load_list
from compress.errors import DataError
from tests.data.large import claim_png


def crop(number: int) -> np.ndarray:
    return np.full((8, 20 + number, 3), 10 * number, np.uint8)


def write_lmdb(folder: Path, values: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 20) as database, database.begin(write=True) as writer:
        for key, value in values.items():
            writer.put(key.encode(), value)
    return folder


def samples(texts: list[str]) -> dict[str, bytes]:
    values = {"num-samples": str(len(texts)).encode()}
    for number, text in enumerate(texts, start=1):
        values[f"image-{number:09d}"] = cv2.imencode(".png", crop(number))[1].tobytes()
        values[f"label-{number:09d}"] = text.encode()
    return values


def test_the_same_content_as_a_label_list(tmp_path):
    loaded = load_list(write_lmdb(tmp_path / "db", samples(["EXIT", "Caf\u00e9"])))
    lines = []
    for number, text in enumerate(["EXIT", "Caf\u00e9"], start=1):
        cv2.imwrite(str(tmp_path / f"{number}.png"), crop(number))
        lines.append(f"{number}.png\t{text}\n")
    (tmp_path / "labels.txt").write_text("".join(lines), encoding="utf-8")
    assert content_parts([loaded]) == content_parts([load_list(tmp_path / "labels.txt")])
    assert [entry.line for entry in loaded.entries] == [1, 2]


def test_tall_images_are_shrunk(tmp_path):
    assert load_list(write_lmdb(tmp_path / "db", samples(["a"])), 4).images[0].shape[0] == 4


def test_missing_and_damaged_images_are_counted_and_named(tmp_path):
    values = samples(["a", "b", "c", "d", "e"])
    del values["image-000000002"]
    values["image-000000003"] = b"garbage"
    folder = write_lmdb(tmp_path / "db", values)
    loaded = load_list(folder, rules=ListRules(max_skipped=0.5))
    assert [entry.text for entry in loaded.entries] == ["a", "d", "e"]
    assert [line.split(": ", 1)[1] for line in loaded.warnings] == [
        "1 of 5 images skipped, missing: image-000000002",
        "1 of 5 images skipped, unreadable: image-000000003",
    ]
    with pytest.raises(DataError, match=r"1 of 5 images is missing: .*image-000000002. At most 1% may be"):
        load_list(folder)


def test_records_that_claim_to_be_too_large_are_not_decoded(tmp_path):
    values = samples(["a", "b"]) | {"image-000000002": claim_png(100_000, 100_000)}
    loaded = load_list(write_lmdb(tmp_path / "db", values), rules=ListRules(max_skipped=0.5))
    assert loaded.skipped == {"larger than 80 megapixels (JPEG: 160)": ("image-000000002",)}


def test_most_images_missing(tmp_path):
    values = {key: value for key, value in samples(["a", "b"]).items() if not key.startswith("image")}
    with pytest.raises(DataError, match="2 of 2 images are missing"):
        load_list(write_lmdb(tmp_path / "db", values))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num-samples": None}, "no num-samples. Expected an LMDB with"),
        ({"num-samples": b"many"}, "num-samples: got b'many'. Must be a whole number above 0"),
        ({"num-samples": b"0"}, "num-samples: got b'0'"),
        ({"num-samples": b"3"}, "no label-000000003. Expected an LMDB with"),
        ({"label-000000001": b"\xe9"}, "label-000000001: not UTF-8"),
    ],
)
def test_what_is_not_such_a_database(tmp_path, changes, message):
    values = {key: value for key, value in (samples(["a", "b"]) | changes).items() if value is not None}
    with pytest.raises(DataError, match=message):
        load_list(write_lmdb(tmp_path / "db", values))


def test_a_folder_without_a_database(tmp_path):
    with pytest.raises(
        DataError, match=r"a folder without data.mdb. Give a label list .*, an LMDB folder, or tar archives"
    ):
        load_list(tmp_path)


def test_a_damaged_database(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"garbage" * 2000)
    with pytest.raises(DataError, match=r"cannot be read as an LMDB \(.*\). Copy data.mdb again"):
        load_list(tmp_path)


def test_reading_writes_nothing(tmp_path):
    folder = write_lmdb(tmp_path / "db", samples(["a"]))
    (folder / "lock.mdb").unlink()
    load_list(folder)
    assert [path.name for path in folder.iterdir()] == ["data.mdb"]
