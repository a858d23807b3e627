"""LMDB data sets of word crops: a folder with data.mdb, as text recognition papers share them.

Keys: `num-samples`, then `image-000000001` (an encoded image) and `label-000000001` (UTF-8 text), and so on.
Source: CRNN (Shi et al. 2015) and PaddleOCR's LMDBDataSet.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from compress.data.file_names import DATABASE, is_sharded
from compress.data.images import LoadedList, load_images
from compress.data.labels import DEFAULT_RULES, Entry, LabelList, ListRules, check_skipped, read_labels
from compress.data.shards import load_shards
from compress.errors import DataError

FILE = DATABASE
EXPECTED_PATH = "Give a label list (path<TAB>text), an LMDB folder, or tar archives or a folder of them."
EXPECTED = "Expected an LMDB with num-samples, image-000000001, label-000000001, ..."


def load_list(path: Path, max_height: int | None = None, rules: ListRules = DEFAULT_RULES) -> LoadedList:
    """Read a label list, an LMDB folder, or tar archives, with all images (see `load_images`).

    Raises:
        DataError: it cannot be read, or more of its images than the rules allow are missing or cannot be used.
    """
    if is_sharded(path):
        return load_shards(path, max_height, rules)
    if not path.is_dir():
        return load_images(read_labels(path, rules), max_height, rules=rules)
    if not (path / FILE).is_file():
        raise DataError(f"{path}: a folder without {FILE}. {EXPECTED_PATH}")
    with opened(path) as get:
        return load_images(_read_entries(path, get, rules), max_height, lambda key: get(key.name), rules)


def _read_entries(path: Path, get: Callable[[str], bytes | None], rules: ListRules) -> LabelList:
    """Entry of each sample; its `image` is path/key, its `line` the sample's number. Texts may be empty."""
    found: list[Entry] = []
    missing: list[Entry] = []
    for number in range(1, count_samples(path, get) + 1):
        text, image = read_label(path, get, number), get(f"image-{number:09d}")
        entry = Entry(path / f"image-{number:09d}", text, number)
        (missing if image is None else found).append(entry)
    check_skipped(path, {"missing": [str(entry.image) for entry in missing]}, len(found) + len(missing), rules)
    return LabelList(path, tuple(found), tuple(missing))


def count_samples(path: Path, get: Callable[[str], bytes | None]) -> int:
    """How many samples a database holds.

    Raises:
        DataError: it does not say.
    """
    value = get("num-samples")
    if value is None:
        raise DataError(f"{path}: no num-samples. {EXPECTED}")
    if not value.isdigit() or int(value) == 0:
        raise DataError(f"{path}: num-samples: got {value[:20]!r}. Must be a whole number above 0.")
    return int(value)


def read_label(path: Path, get: Callable[[str], bytes | None], number: int) -> str:
    """The text of a sample, counted from 1.

    Raises:
        DataError: there is none, or it is not UTF-8.
    """
    label = get(f"label-{number:09d}")
    if label is None:
        raise DataError(f"{path}: no label-{number:09d}. {EXPECTED}")
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: label-{number:09d}: not UTF-8 text. Write the labels as UTF-8.") from error


@contextmanager
def opened(path: Path) -> Iterator[Callable[[str], bytes | None]]:
    """Key -> value of a database that is only read: no lock file, so a read-only folder will do."""
    try:
        with (
            lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False) as database,
            database.begin() as reader,
        ):
            yield lambda key: reader.get(key.encode())
    except lmdb.Error as error:
        raise DataError(f"{path}: cannot be read as an LMDB ({error}). Copy {FILE} again.") from error


@dataclass(frozen=True)
class Database:
    """The images of an LMDB folder, one by one.

    It is opened for each: a process can have it open once only, and a forked one not what its parent opened. That takes
    50 microseconds.
    """

    folder: Path

    def read(self, index: int, name: str) -> bytes | None:
        """The value of a key."""
        with _LOCK, opened(self.folder) as get:
            value = get(name)
            return None if value is None else bytes(value)


_LOCK = threading.Lock()
