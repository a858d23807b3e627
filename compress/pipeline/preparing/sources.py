"""What holds labelled images: which format a path is in, how many images it names, and what is wrong with it.

No pixel is decoded here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from compress.data.file_names import IMAGE_SUFFIXES, is_sharded
from compress.data.labels import DEFAULT_RULES, ListRules, read_labels
from compress.data.lmdb_folder import EXPECTED_PATH, count_samples, opened
from compress.data.lmdb_folder import FILE as LMDB_FILE
from compress.data.scenes import load_scenes
from compress.data.shards import read_shards
from compress.data.streaming import STREAMED_FROM, count_images
from compress.data.unlabelled import list_images, unlistable
from compress.errors import DataError

Format = Literal["list", "lmdb", "shards", "icdar", "images"]
LIST_FILE = "labels.txt"
"""A folder that holds it is taken for that list."""
ICDAR_LINE = 8
"""Numbers, at least, that a line of ICDAR's text files starts with: four corners."""


@dataclass(frozen=True)
class Source:
    """One label list or folder of images."""

    path: Path
    format: Format
    images: int
    files: tuple[Path, ...] = ()
    """The images; empty where they lie in an LMDB or in archives, or in a list too long to be read here."""
    texts: tuple[str, ...] = ()
    """Label of each of them; empty where there are none, or they are not text."""


def format_of(path: Path) -> Format:
    """The format of a label list or folder, by what lies in it.

    Raises:
        DataError: there is no such path.
    """
    if is_sharded(path):
        return "shards"
    if path.is_file():
        return "list"
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder. Give a label list (path<TAB>text), or a folder of images.")
    if (path / LMDB_FILE).is_file():
        return "lmdb"
    return "icdar" if any(_is_icdar(file) for file in sorted(path.glob("**/*.txt"))) else "images"


def _is_icdar(file: Path) -> bool:
    """Whether the first line of a text file is a region, and an image goes with the file."""
    try:
        with file.open(encoding="utf-8-sig") as opened_file:
            numbers = opened_file.readline().split(",")[:ICDAR_LINE]
    except (OSError, UnicodeDecodeError):
        return False
    return len(numbers) == ICDAR_LINE and all(number.strip().lstrip("-").isdigit() for number in numbers)


def read_source(path: Path, kind: str, rules: ListRules = DEFAULT_RULES, *, labelled: bool = True) -> Source:
    """Count the images of a path, as the task of this kind would read it.

    Args:
        path: a label list or folder.
        kind: of the task.
        rules: how many images may be missing or unusable.
        labelled: whether its labels count; of a folder of images without them only the images are looked at.

    Raises:
        DataError: it cannot be read, or more of its images than the rules allow are missing.
    """
    found = format_of(path)
    if found == "lmdb":
        with opened(path) as get:
            return Source(path, found, count_samples(path, get))
    if found == "shards" and kind != "detection":
        listed = read_shards(path, rules, labelled=labelled)
        return Source(path, found, len(listed.names), texts=tuple(listed.texts) if labelled else ())
    if not labelled:
        files = list_images(path, rules, unlistable).files  # the original labels them, in lists
        return Source(path, found, len(files), files)
    if kind == "detection":
        files = tuple(scene.image for scene in load_scenes(path, rules).scenes)
        return Source(path, found, len(files), files)
    if found != "list":
        raise DataError(f"{path}: a folder without {LMDB_FILE}. {EXPECTED_PATH}")
    if (count := count_images(path)) >= STREAMED_FROM:
        return Source(path, found, count)
    entries = read_labels(path, rules).entries
    return Source(
        path, found, len(entries), tuple(each.image for each in entries), tuple(each.text for each in entries)
    )


def holds_images(folder: Path) -> bool:
    """Whether there is an image in a folder or below it."""
    return any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.rglob("*"))
