"""What a tar archive of crops holds, and where: found once, kept in the cache folder, and read from there afterwards.

Members are named as WebDataset does: what stands before the first dot of a file's name is the key, what stands behind
it says what the member is. `00017.jpg` is an image, and `00017.txt` its text; `.cls` is a text, too, and so is "text"
in `.json`. Members may come in any order. Others are not looked at.
"""

import contextlib
import json
import mmap
import posixpath
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from compress.artifacts import cache_folder, fingerprint, write_atomic
from compress.data.file_names import IMAGE_SUFFIXES
from compress.errors import CompressError, DataError

VERSION = 2
BLOCK, CHUNK = 512, 1 << 20
IMAGE_KINDS = frozenset(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
TEXT_KINDS = ("txt", "json", "cls")
"""The first of these that a key has is its text."""
HAVE_NO_DATA = frozenset(
    (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
)
FILES = frozenset((tarfile.REGTYPE, tarfile.AREGTYPE))
LONG_NAME, PAX = tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE


class Member(NamedTuple):
    """A file in an archive: its name, where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarIndex:
    """The images of an archive in its order; a list has an item for each of them."""

    names: list[str]
    texts: list[str | None]
    """None where there is no member with the text, or it cannot be read."""
    offsets: list[int]
    sizes: list[int]
    twice: list[str]
    """Members whose key and kind came before; the last ones count, as if the archive were unpacked."""
    alone: list[str]
    """Keys that have a text, but no image."""
    complete: bool
    """The archive ends with an end mark."""


def read_index(path: Path) -> TarIndex:
    """The index of an archive, from the cache where it is that of the file as it is now (its size, its times of change
    and where it lies on its disk: copies may keep size and time).

    Raises:
        DataError: it cannot be read, is damaged, or is no tar archive.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Expected a tar archive.") from error
    state = {
        "version": VERSION,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "inode": found.st_ino,
    }
    kept = cache_folder() / "shards" / f"{path.name}-{fingerprint(str(path.absolute()))}.json"
    if (index := _load(kept, state)) is not None:
        return index
    if not found.st_size:
        raise DataError(f"{path}: empty. Expected a tar archive. Copy it again.")
    index = make_index(path)
    with contextlib.suppress(CompressError):  # where it cannot be kept, it is made again next time
        write_atomic(kept, json.dumps({**state, **asdict(index)}).encode())
    return index


def _load(file: Path, state: Mapping[str, int]) -> TarIndex | None:
    """A kept index; None where there is none, or not of this state of the archive."""
    try:
        data = json.loads(file.read_bytes())
        if {key: data.pop(key) for key in state} == state and _is_whole(index := TarIndex(**data)):
            return index
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return None


def _is_whole(index: TarIndex) -> bool:
    """Whether a kept index can be one: of the right types, and as many of each."""
    columns = (index.names, index.texts, index.offsets, index.sizes)
    kinds: tuple[tuple[list[Any], tuple[type, ...]], ...] = (
        (index.names, (str,)),
        (index.texts, (str, type(None))),
        (index.offsets, (int,)),
        (index.sizes, (int,)),
        (index.twice, (str,)),
        (index.alone, (str,)),
    )
    right = all(isinstance(values, list) and all(isinstance(one, kind) for one in values) for values, kind in kinds)
    return right and len({len(column) for column in columns}) == 1 and isinstance(index.complete, bool)


def make_index(path: Path) -> TarIndex:
    """Look through an archive, which must not be empty.

    Raises:
        DataError: as `read_index`.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _index(path, data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Expected a tar archive.") from error


def _index(path: Path, data: mmap.mmap) -> TarIndex:
    images: dict[str, Member] = {}
    texts: dict[str, dict[str, Member]] = {}
    twice: list[str] = []
    complete = False
    for member in _members(path, data):
        if member is None:
            complete = True
            break
        name = posixpath.normpath(member.name)  # `./a.png` is `a.png`
        key, kind = split_name(name)
        if kind in IMAGE_KINDS:
            holder, place = images, key
        elif kind in TEXT_KINDS:
            holder, place = texts.setdefault(key, {}), kind
        else:
            continue
        if place in holder:
            twice.append(member.name)
        holder[place] = member._replace(name=name)
    return TarIndex(
        [image.name for image in images.values()],
        [_text_of(data, texts.get(key, {})) for key in images],
        [image.offset for image in images.values()],
        [image.size for image in images.values()],
        twice,
        [key for key in texts if key not in images],
        complete,
    )


def split_name(name: str) -> tuple[str, str]:
    """Key and kind of a member.

    >>> split_name("a.b/0017.seg.PNG")
    ('a.b/0017', 'seg.png')
    """
    folder, slash, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _members(path: Path, data: mmap.mmap) -> Iterator[Member | None]:
    """The files of an archive, and None for its end mark.

    Raises:
        DataError: it is damaged, or no archive.
    """
    place, changes = 0, dict[str, str]()
    while place < len(data):
        try:
            header = tarfile.TarInfo.frombuf(data[place : place + BLOCK], "utf-8", "replace")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            if (behind := _first_byte(data, place)) is not None:
                raise DataError(
                    f"{path}: damaged or joined at byte {place}: there is more behind what ends an archive, at byte "
                    f"{behind}. Copy it again, or give joined archives one by one."
                ) from None
            yield None
            return
        except tarfile.HeaderError as error:
            raise DataError(_damaged(path, place, "")) from error
        if header.size < 0:
            raise DataError(_damaged(path, place, ""))
        start = place + BLOCK
        try:
            size = 0 if header.type in HAVE_NO_DATA else int(changes.get("size", header.size))
        except ValueError as error:  # more digits than Python takes for a number
            raise DataError(_damaged(path, start, header.name)) from error
        place = start + -(-size // BLOCK) * BLOCK
        if start + size > len(data):
            raise DataError(_damaged(path, start, header.name))
        if header.type == LONG_NAME:
            changes["path"] = data[start : start + size].rstrip(b"\0").decode("utf-8", "replace")
        elif header.type == PAX:
            try:
                changes |= _pax_records(data[start : start + size])
            except ValueError as error:
                raise DataError(_damaged(path, start, header.name)) from error
        else:
            if header.type in FILES:
                yield Member(changes.get("path", header.name), start, size)
            changes = {}


def _first_byte(data: mmap.mmap, place: int) -> int | None:
    """Where the first byte that is not zero is, from a place on."""
    for start in range(place, len(data), CHUNK):
        part = data[start : start + CHUNK]
        if rest := part.lstrip(b"\0"):
            return start + len(part) - len(rest)
    return None


def _damaged(path: Path, place: int, name: str) -> str:
    if place == 0:
        return f"{path}: not a tar archive. Expected one that is not compressed, with members key.jpg and key.txt."
    what = f"it ends within {name}" if name else "no member begins there"
    return f"{path}: damaged at byte {place}: {what}. Copy the archive again."


def _pax_records(data: bytes) -> dict[str, str]:
    """`path` and `size` of an extended header, whose records are `<length> <key>=<value>\\n`.

    >>> _pax_records(b"19 path=a/long.jpg\\n14 mtime=1.50\\n")
    {'path': 'a/long.jpg'}
    """
    found: dict[str, str] = {}
    while data:
        length = data.split(b" ", 1)[0]
        if not length.isdigit() or int(length) == 0:
            break
        key, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path" or (key == b"size" and value.isdigit()):
            found[key.decode()] = value.decode("utf-8", "replace")
        data = data[int(length) :]
    return found


def _text_of(data: mmap.mmap, members: Mapping[str, Member]) -> str | None:
    """The text of an image; None where it has none that can be read."""
    kind = next((kind for kind in TEXT_KINDS if kind in members), None)
    if kind is None:
        return None
    member = members[kind]
    try:
        text: Any = data[member.offset : member.offset + member.size].decode("utf-8-sig")
        if kind == "json":
            text = json.loads(text).get("text")
            str(text).encode()  # JSON may hold half a character
    except (UnicodeDecodeError, ValueError, AttributeError, RecursionError):
        return None
    if not isinstance(text, str):
        return None
    return text.rstrip("\r\n") if text.strip() else ""
