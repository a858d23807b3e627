"""Images that are in two lists, whatever their files are called: a score on what was learned from proves nothing."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.labels import ListRules
from compress.errors import DataError
from compress.progress import be

LEARNED, CHOOSING = frozenset({"train", "unlabelled"}), "val"
"""Lists that are learned from, and the one that things are chosen by; lists of any other name judge alone."""


@dataclass(frozen=True)
class Stored:
    """An image as it is stored: its file (or LMDB folder/key), its size in bytes, and its digest where it was read."""

    path: Path
    size: int
    digest: bytes = b""
    read: Callable[[], bytes] | None = None
    """Reads the image's bytes, where `path` is no file."""

    def content(self) -> bytes:
        """The digest, read for now where it is not known."""
        return self.digest or digest_of(self.path.read_bytes() if self.read is None else self.read())


def digest_of(data: bytes) -> bytes:
    """What tells files apart."""
    return hashlib.blake2b(data, digest_size=16).digest()


READ_WHOLE = 20_000
"""Files of a list up to which all of their content becomes part of its identity."""
SAMPLED = 256
"""Files of a larger list whose content does, evenly spaced; of the others the name and the size."""


def file_contents(files: Sequence[Path]) -> Iterator[bytes]:
    """What a fingerprint of files depends on, one part for each: bytes, or of very many files name and size.

    A large set is read through in hours where its names and sizes take seconds.
    """
    step = 1 if len(files) <= READ_WHOLE else len(files) // SAMPLED
    for index, file in enumerate(files):
        yield f"{file.name} {file.stat().st_size}".encode() if index % step else file.read_bytes()


def stored_files(files: Iterable[Path]) -> tuple[Stored, ...]:
    """Files, not read before it must be."""
    return tuple(Stored(file, file.stat().st_size) for file in files)


def shared_images(one: Sequence[Stored], other: Sequence[Stored]) -> list[tuple[Stored, Stored]]:
    """Each image of `other` that `one` holds, too: (the one there, the one here). Only equal sizes are compared.

    >>> one, other = [Stored(Path("a"), 3, b"x"), Stored(Path("b"), 5, b"y")], [Stored(Path("c"), 5, b"y")]
    >>> [(there.path.name, here.path.name) for there, here in shared_images(one, other)]
    [('b', 'c')]
    """
    sizes = {image.size for image in one} & {image.size for image in other}
    known: dict[bytes, Stored] = {}
    for image in one:
        if image.size in sizes:
            known.setdefault(image.content(), image)
    pairs = [(known.get(image.content()), image) for image in other if image.size in sizes]
    return [(there, here) for there, here in pairs if there is not None]


def check_overlap(lists: Mapping[str, Sequence[Stored]], rules: ListRules) -> tuple[str, ...]:
    """Compare each two of the named lists that may not share images (see `may_share`).

    Returns:
        One line for each two that share images, where the rules allow it.

    Raises:
        DataError: two of them share images, and the rules do not allow it.
    """
    lines = []
    for one, other in itertools.combinations(lists, 2):
        shared = [] if may_share(one, other) else shared_images(lists[one], lists[other])
        if shared:
            there, here = shared[0]
            lines.append(
                f"{other}: {len(shared)} of {len(lists[other])} images {be(len(shared))} in {one}, too, the first is "
                f"{here.path} (there {there.path})"
            )
    if lines and not rules.allow_overlap:
        raise DataError(
            f"{lines[0]}. A score on images that were learned from, or that something was chosen by, proves nothing. "
            "Remove them from one of the lists, or allow it: data.allow_overlap (--allow-overlap)."
        )
    return tuple(lines)


def may_share(one: str, other: str) -> bool:
    """Whether two lists may share images: those that are learned from, and those that judge alone.

    >>> may_share("train", "unlabelled"), may_share("train", "val"), may_share("val", "test"), may_share("a", "b")
    (True, False, False, True)
    """
    return CHOOSING not in (one, other) and (one in LEARNED) == (other in LEARNED)
