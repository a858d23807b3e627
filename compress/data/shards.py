"""Lists of crops in tar archives (see `compress.data.tar_index`): random access by offsets, nothing is unpacked.

The images are numbered through all archives. Their order is that of the archives (see `find_archives`) and of the
images in each.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from compress.data.file_names import find_archives
from compress.data.images import LoadedList, load_images
from compress.data.labels import DEFAULT_RULES, Entry, LabelList, ListRules, check_skipped, name_some, skipped_warning
from compress.data.tar_index import read_index
from compress.errors import DataError

NO_TEXT, TWICE = "without a text member", "named twice"


@dataclass(frozen=True)
class Archives:
    """Where the bytes of images in archives are: one number for each image in each array."""

    folder: Path
    """What the archives' names start from."""
    paths: tuple[Path, ...]
    numbers: np.ndarray
    """Which archive [N]."""
    offsets: np.ndarray
    sizes: np.ndarray

    def read(self, index: int, name: str) -> bytes | None:
        """The bytes of an image; None where the archive cannot be read any more.

        An archive is opened for each, which takes microseconds: so there are neither too many open files nor any that
        worker processes share.
        """
        try:
            with self.paths[self.numbers[index]].open("rb") as file:
                file.seek(int(self.offsets[index]))
                return file.read(int(self.sizes[index]))
        except OSError:
            return None


@dataclass(frozen=True)
class ShardList:
    """The images of several archives, without their pixels."""

    path: Path
    source: Archives
    names: list[str]
    """`archive/member` of each image."""
    texts: list[str]
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Why images are not among these -> their names."""
    notes: tuple[str, ...] = ()
    """What else was found."""

    @property
    def total(self) -> int:
        """Images of the archives."""
        return len(self.names) + sum(map(len, self.skipped.values()))


def read_shards(path: Path, rules: ListRules = DEFAULT_RULES, *, labelled: bool = True) -> ShardList:
    """The images that tar archives hold.

    Args:
        path: see `find_archives`.
        rules: how many images may have no text, or be named twice.
        labelled: whether images need texts; without, all texts are empty.

    Raises:
        DataError: an archive is missing or damaged, there are no images, or more than the rules allow are skipped.
    """
    archives = find_archives(path)
    folder = path if path.is_dir() else _common_folder(path, archives)
    names: list[str] = []
    texts: list[str] = []
    places: list[tuple[int, int, int]] = []
    skipped: dict[str, list[str]] = {NO_TEXT: [], TWICE: []}
    alone: list[str] = []
    notes: list[str] = []
    for number, archive in enumerate(archives):
        index, shown = read_index(archive), archive.relative_to(folder)
        for name, text, offset, size in zip(index.names, index.texts, index.offsets, index.sizes, strict=True):
            if labelled and text is None:
                skipped[NO_TEXT].append(f"{shown}/{name}")
                continue
            names.append(f"{shown}/{name}")
            texts.append((text or "") if labelled else "")
            places.append((number, offset, size))
        skipped[TWICE] += [f"{shown}/{name}" for name in index.twice]
        alone += [f"{shown}/{key}" for key in index.alone if labelled]
        if not index.complete:
            notes.append(f"{archive}: has no end mark; it may not have been written or copied whole")
    if alone:
        notes.append(f"{path}: {len(alone)} texts without an image: {name_some(alone)}")
    reasons = {why: tuple(found) for why, found in skipped.items() if found}
    if not names and NO_TEXT not in reasons:
        raise DataError(
            f"{path}: no images in the archives. Expected members key.jpg (or .png, ...) and key.txt, .cls or .json; "
            "the key ends at the name's first dot."
        )
    columns = np.array(places, np.int64).reshape(-1, 3).T
    source = Archives(folder, archives, columns[0].astype(np.int32), columns[1], columns[2])
    made = ShardList(path, source, names, texts, reasons, tuple(notes))
    check_skipped(path, reasons, made.total, rules)
    return made


def _common_folder(path: Path, archives: Sequence[Path]) -> Path:
    try:
        return Path(os.path.commonpath([archive.parent for archive in archives]))
    except ValueError as error:
        raise DataError(f"{path}: names absolute and relative paths. Use one kind of them.") from error


def count_crops(path: Path) -> int:
    """How many images the archives of a path hold.

    Raises:
        DataError: as `read_shards`.
    """
    return sum(len(read_index(archive).names) for archive in find_archives(path))


def load_shards(
    path: Path, max_height: int | None = None, rules: ListRules = DEFAULT_RULES, *, labelled: bool = True
) -> LoadedList:
    """All images of tar archives, decoded (see `load_images`).

    Raises:
        DataError: as `read_shards`, or more images than the rules allow cannot be decoded.
    """
    listed = read_shards(path, rules, labelled=labelled)
    files = [listed.source.folder / name for name in listed.names]
    places = {file: place for place, file in enumerate(files)}
    entries = tuple(
        Entry(file, text, place + 1) for place, (file, text) in enumerate(zip(files, listed.texts, strict=True))
    )
    loaded = load_images(
        LabelList(path, entries), max_height, lambda file: listed.source.read(places[file], file.name), rules
    )
    skipped = {**loaded.skipped, **listed.skipped}
    check_skipped(path, skipped, listed.total, rules)
    lines = [line for why, names in skipped.items() for line in skipped_warning(path, why, names, listed.total)]
    return replace(loaded, skipped=skipped, warnings=(*lines, *listed.notes))
