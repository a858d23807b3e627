"""Large lists of crops whose images are read when they are needed: only names, texts and sizes are kept in memory.

A list that is decoded at once takes 38 KB a crop. From `STREAMED_FROM` images on, training lists are streamed instead.
The same batches come out for the same seed, whatever the number of processes that make them. Images that turn out to be
damaged are left out and counted when they are met.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, overload

import numpy as np

from compress.data.file_names import is_sharded
from compress.data.headers import Header, read_header, reduction
from compress.data.images import decode_file, read_file, shrink_to_height, shrunk_size
from compress.data.labels import DEFAULT_RULES, ListRules, check_inside, check_skipped, skipped_warning, split_lines
from compress.data.lmdb_folder import FILE, Database, count_samples, opened, read_label
from compress.data.overlap import SAMPLED, Stored, digest_of
from compress.data.shards import count_crops, read_shards

STREAMED_FROM = 50_000
"""Images of all training lists together. Decoded they would take about 2 GB."""
T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence whose items are made when they are requested."""

    def _at(self, index: int) -> T:
        """The item at an index that there is."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self._at(one) for one in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._at(index)


class Strings(Lazy[str]):
    """Many short texts in one block of memory: 8 bytes each beside their UTF-8.

    >>> texts = Strings(["ab", "", "é"])
    >>> len(texts), texts[2], list(texts)
    (3, 'é', ['ab', '', 'é'])
    """

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.encode(errors="surrogateescape") for text in texts]  # names of files may be any bytes
        self.data = b"".join(parts)
        self._ends = np.cumsum([len(part) for part in parts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def _at(self, index: int) -> str:
        start = int(self._ends[index - 1]) if index else 0
        return self.data[start : int(self._ends[index])].decode(errors="surrogateescape")


class Source(Protocol):
    """Where the bytes of images are."""

    @property
    def folder(self) -> Path:
        """What the images' names start from."""

    def read(self, index: int, name: str) -> bytes | None:
        """The bytes of an encoded image, by its place in the list or its name; None where there are none."""


@dataclass(frozen=True)
class Folder:
    """Files below a folder."""

    folder: Path

    def read(self, index: int, name: str) -> bytes | None:
        """A file's bytes."""
        return read_file(self.folder / name)


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
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Why images of the list are not among these (`missing`, ...) -> their names."""
    max_height: int | None = None
    """Taller images are shrunk to it."""
    notes: tuple[str, ...] = ()
    """What else was found."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def total(self) -> int:
        """Images that the list names."""
        return len(self) + sum(map(len, self.skipped.values()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each kind of image that is skipped, and what else was found."""
        lines = [skipped_warning(self.path, why, names, self.total) for why, names in self.skipped.items()]
        return (*(line for kind in lines for line in kind), *self.notes)

    def content(self, index: int) -> bytes | None:
        """The bytes of an encoded image; None where they cannot be read."""
        return self.source.read(index, self.names[index])

    def header(self, index: int) -> Header | None:
        """Size of an image before it is shrunk; None where it cannot be read."""
        data = self.content(index)
        return None if data is None else read_header(data)

    def shown_size(self, header: Header) -> tuple[int, int]:
        """Height and width of an image as `image` gives it out."""
        factor = reduction(header) or 1
        height, width = -(-header.height // factor), -(-header.width // factor)
        return (height, width) if self.max_height is None else shrunk_size(height, width, self.max_height)

    def image(self, index: int) -> np.ndarray | None:
        """An image, uint8 BGR [H, W, 3]; None where it cannot be decoded."""
        data = self.content(index)
        image = None if data is None else decode_file(data)[0]
        return image if image is None or self.max_height is None else shrink_to_height(image, self.max_height)

    def content_parts(self) -> list[bytes]:
        """What a fingerprint of the list depends on: names, texts, sizes, and the content of some images."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(SAMPLED, len(self))).astype(int))
        sampled = [digest_of(self.content(int(index)) or b"") for index in chosen]
        return [self.names.data, self.texts.data, self.sizes.tobytes(), *sampled]


class StoredList(Lazy[Stored]):
    """The images of streamed lists as they are stored, for finding those that two lists share."""

    def __init__(self, lists: Sequence[StreamedList]) -> None:
        self._lists, self._starts = lists, starts_of(map(len, lists))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _at(self, index: int) -> Stored:
        number, place = find_part(self._starts, index)
        listed = self._lists[number]
        path = listed.source.folder / listed.names[place]
        return Stored(path, int(listed.sizes[place]), read=lambda: listed.content(place) or b"")


class Streamed:
    """Items of streamed lists, numbered through; what both kinds of them have in common.

    Args:
        lists: streamed lists.
        counts: items that each makes.
        images: of all lists, which limits on unusable ones are shares of.
    """

    def __init__(self, lists: Sequence[StreamedList], counts: Iterable[int], images: int) -> None:
        self.lists, self.images = lists, images
        self.starts = starts_of(counts)
        self.unusable: dict[str, str] = {}
        """Name of an image that was met and cannot be used -> why."""

    def name_of(self, number: int, place: int) -> str:
        """An image's name in its list; with the list's folder where there are several lists."""
        listed = self.lists[number]
        return listed.names[place] if len(self.lists) == 1 else str(listed.path.parent / listed.names[place])

    def note(self, names: Iterable[str], why: str) -> None:
        """Remember images that cannot be used; from any thread."""
        with _NOTING:
            self.unusable = {**self.unusable, **dict.fromkeys(names, why)}

    def check_met(self, rules: ListRules) -> None:
        """Raise DataError where more images than the rules allow turned out to be unusable."""
        skipped: dict[str, list[str]] = {}
        for name, why in sorted(self.unusable.items()):
            skipped.setdefault(why, []).append(name)
        check_skipped(self.lists[0].path, skipped, self.images, rules)


_NOTING = threading.Lock()


def starts_of(counts: Iterable[int]) -> np.ndarray:
    """Where each of several parts begins when their items are numbered through, and where the last ends."""
    return np.cumsum([0, *counts])


def find_part(starts: np.ndarray, index: int) -> tuple[int, int]:
    """The part that an item is in, and its place there.

    >>> find_part(starts_of([2, 0, 3]), 2)
    (2, 0)
    """
    number = int(np.searchsorted(starts, index, side="right")) - 1
    return number, index - int(starts[number])


def count_images(path: Path) -> int:
    """About how many images a list, LMDB folder or archives name, no image read; 0 where that is unknown."""
    try:
        if is_sharded(path):
            return count_crops(path)
        if path.is_dir():
            with opened(path) as get:
                return count_samples(path, get)
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except Exception:  # whatever is wrong is said when it is read
        return 0


def stream_lists(
    paths: Sequence[Path], max_height: int | None = None, rules: ListRules = DEFAULT_RULES
) -> list[StreamedList]:
    """The lists, if they name `STREAMED_FROM` images or more together; else none, and they are to be decoded at once.

    Raises:
        DataError: as `stream_list`.
    """
    if sum(count_images(Path(path)) for path in paths) < STREAMED_FROM:
        return []
    return [stream_list(Path(path), max_height, rules) for path in paths]


def stream_list(path: Path, max_height: int | None = None, rules: ListRules = DEFAULT_RULES) -> StreamedList:
    """Read a label list, an LMDB folder, or the index of tar archives, without its images.

    Raises:
        DataError: it cannot be read, or more of its images than the rules allow are missing or have no text.
    """
    if is_sharded(path):
        return _stream_shards(path, max_height, rules)
    if path.is_dir() and (path / FILE).is_file():
        return _stream_database(path, max_height, rules)
    lines = list(split_lines(path))
    check_inside(path, ((number, str(path.parent / name)) for number, name, _ in lines), rules)
    sizes = np.array([_size(path.parent / name) for _, name, _ in lines], np.int64)
    skipped = _missing(lines[index][1] for index in np.flatnonzero(sizes < 0))
    check_skipped(path, skipped, len(lines), rules)
    there = [line for line, size in zip(lines, sizes, strict=True) if size >= 0]
    names, texts = Strings(name for _, name, _ in there), Strings(text for _, _, text in there)
    return StreamedList(path, Folder(path.parent), names, texts, sizes[sizes >= 0], skipped, max_height)


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
    skipped = _missing(missing)
    check_skipped(path, skipped, len(keys) + len(missing), rules)
    return StreamedList(
        path, Database(path), Strings(keys), Strings(texts), np.array(sizes, np.int64), skipped, max_height
    )


def _missing(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found = tuple(names)
    return {"missing": found} if found else {}


def _stream_shards(path: Path, max_height: int | None, rules: ListRules) -> StreamedList:
    found = read_shards(path, rules)
    names, texts = Strings(found.names), Strings(found.texts)
    return StreamedList(path, found.source, names, texts, found.source.sizes, found.skipped, max_height, found.notes)
