"""Large lists of crops whose images are read when they are needed: only names, texts and sizes are kept in memory.

A list that is decoded at once takes 38 KB a crop. From `STREAMED_FROM` images on, training lists are streamed instead.
The same batches come out for the same seed, whatever the number of processes that make them. Images that turn out to be
damaged are left out and counted when they are met.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from compress.data.headers import Header, read_header, reduction
from compress.data.images import decode_file, read_file, shrink_to_height
from compress.data.labels import DEFAULT_RULES, ListRules, check_inside, check_skipped, skipped_warning, split_lines
from compress.data.lmdb_folder import FILE, Database, count_samples, opened, read_label
from compress.data.overlap import Stored, digest_of

STREAMED_FROM = 50_000
"""Images of all training lists together. Decoded they would take about 2 GB."""
SAMPLED = 256
"""Images of a list whose content becomes part of its identity; of all others name, text and size in bytes."""


class Strings(Sequence[str]):
    """Many short texts in one block of memory: 8 bytes each beside their UTF-8.

    >>> texts = Strings(["ab", "", "é"])
    >>> len(texts), texts[2], list(texts)
    (3, 'é', ['ab', '', 'é'])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode() for text in texts]
        self.data = b"".join(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = int(self._ends[index - 1]) if index else 0
        return self.data[start : int(self._ends[index])].decode()


class Source(Protocol):
    """Where the bytes of images are."""

    def read(self, name: str) -> bytes | None:
        """The bytes of an encoded image; None where there are none."""


@dataclass(frozen=True)
class Folder:
    """Files below a folder."""

    path: Path

    def read(self, name: str) -> bytes | None:
        """A file's bytes."""
        return read_file(self.path / name)


@dataclass(frozen=True)
class StreamedList:
    """A list of crops that are read one by one.

    Raises, where it is made (see `stream_list`):
        DataError: as `compress.data.lmdb_folder.load_list`, but for images that cannot be decoded.
    """

    path: Path
    source: Source
    names: Strings
    texts: Strings
    sizes: np.ndarray
    """Bytes of each encoded image [N], int64."""
    missing: tuple[str, ...] = ()
    max_height: int | None = None
    """Taller images are shrunk to it."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def total(self) -> int:
        """Images that the list names."""
        return len(self) + len(self.missing)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line that names missing images, or nothing."""
        return skipped_warning(self.path, "missing", self.missing, self.total)

    def header(self, index: int) -> Header | None:
        """Size of an image before it is shrunk; None where it cannot be read."""
        data = self.source.read(self.names[index])
        return None if data is None else read_header(data)

    def shown_size(self, header: Header) -> tuple[int, int]:
        """Height and width of an image as `image` gives it out."""
        height, width = header.height, header.width
        if (reduction(header) or 1) > 1:
            height, width = -(-height // 2), -(-width // 2)
        if self.max_height is None or height <= self.max_height:
            return height, width
        return self.max_height, max(1, round(width * self.max_height / height))

    def image(self, index: int) -> np.ndarray | None:
        """An image, uint8 BGR [H, W, 3]; None where it cannot be decoded."""
        data = self.source.read(self.names[index])
        image = None if data is None else decode_file(data)[0]
        return image if image is None or self.max_height is None else shrink_to_height(image, self.max_height)

    def content_parts(self) -> list[bytes]:
        """What a fingerprint of the list depends on: names, texts, sizes, and the content of some images."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(SAMPLED, len(self))).astype(int))
        sampled = [digest_of(self.source.read(self.names[int(index)]) or b"") for index in chosen]
        return [self.names.data, self.texts.data, self.sizes.tobytes(), *sampled]

    def stored(self) -> "StoredList":
        """The images as they are stored, for finding those that two lists share."""
        return StoredList(self)


class StoredList(Sequence[Stored]):
    """The images of a streamed list as they are stored; each is described when it is asked for."""

    def __init__(self, listed: StreamedList) -> None:
        self._listed = listed

    def __len__(self) -> int:
        return len(self._listed)

    @overload
    def __getitem__(self, index: int) -> Stored: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Stored]: ...
    def __getitem__(self, index: int | slice) -> Stored | Sequence[Stored]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        one, name = self._listed, self._listed.names[index]
        place = one.path / name if isinstance(one.source, Database) else one.path.parent / name
        return Stored(place, int(one.sizes[index]), read=lambda: one.source.read(name) or b"")

    def __iter__(self) -> Iterator[Stored]:
        return (self[index] for index in range(len(self)))


def streamed_images(lists: Sequence[StreamedList]) -> Sequence[Stored]:
    """The images of all these lists as they are stored; described one by one where there is one list."""
    if len(lists) == 1:
        return lists[0].stored()
    return [stored for listed in lists for stored in listed.stored()]


def count_images(path: Path) -> int:
    """About how many images a list or LMDB folder names, without reading it whole; 0 where that cannot be told."""
    try:
        if path.is_dir():
            with opened(path) as get:
                return count_samples(path, get)
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except Exception:  # whatever is wrong is said when it is read
        return 0


def stream_lists(
    paths: Sequence[Path], least: int, max_height: int | None = None, rules: ListRules = DEFAULT_RULES
) -> list[StreamedList]:
    """The lists, if they name `least` images or more together; else none, and they are to be decoded at once.

    Raises:
        DataError: as `stream_list`.
    """
    if sum(count_images(Path(path)) for path in paths) < least:
        return []
    return [stream_list(Path(path), max_height, rules) for path in paths]


def stream_list(path: Path, max_height: int | None = None, rules: ListRules = DEFAULT_RULES) -> StreamedList:
    """Read a label list, or an LMDB folder, without its images.

    Raises:
        DataError: it cannot be read, or more of its images than the rules allow are missing.
    """
    if path.is_dir() and (path / FILE).is_file():
        return _stream_database(path, max_height, rules)
    lines = list(split_lines(path))
    check_inside(path, ((number, str(path.parent / name)) for number, name, _ in lines), rules)
    sizes = np.array([_size(path.parent / name) for _, name, _ in lines], np.int64)
    missing = tuple(lines[index][1] for index in np.flatnonzero(sizes < 0))
    check_skipped(path, {"missing": missing}, len(lines), rules)
    there = [line for line, size in zip(lines, sizes, strict=True) if size >= 0]
    names, texts = Strings(name for _, name, _ in there), Strings(text for _, _, text in there)
    return StreamedList(path, Folder(path.parent), names, texts, sizes[sizes >= 0], missing, max_height)


def _size(file: Path) -> int:
    try:
        return os.stat(file).st_size
    except OSError:
        return -1


def _stream_database(path: Path, max_height: int | None, rules: ListRules) -> StreamedList:
    keys, texts, sizes, missing = [], [], [], []
    with opened(path) as get:
        for number in range(1, count_samples(path, get) + 1):
            key, text = f"image-{number:09d}", read_label(path, get, number)
            image = get(key)  # a view of the page, not a copy
            if image is None:
                missing.append(key)
                continue
            keys.append(key)
            texts.append(text)
            sizes.append(len(image))
    check_skipped(path, {"missing": missing}, len(keys) + len(missing), rules)
    return StreamedList(
        path, Database(path), Strings(keys), Strings(texts), np.array(sizes, np.int64), tuple(missing), max_height
    )
