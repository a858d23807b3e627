"""Decode the images of label lists, once, into memory; count and name those that cannot be decoded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from compress.data.headers import REDUCTIONS, TOO_LARGE, read_header, reduction
from compress.data.labels import DEFAULT_RULES, Entry, LabelList, ListRules, check_skipped, skipped_warning
from compress.data.overlap import Stored, digest_of


@dataclass(frozen=True)
class LoadedList:
    """A label list with its images, uint8 BGR [H, W, 3], one for each entry."""

    path: Path
    entries: tuple[Entry, ...]
    images: tuple[np.ndarray, ...]
    warnings: tuple[str, ...] = ()
    skipped: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Why images of the list are not among these (`missing`, ...) -> their names."""
    stored: tuple[Stored, ...] = ()

    @property
    def total(self) -> int:
        """Images that the list names."""
        return len(self.entries) + sum(len(names) for names in self.skipped.values())


def read_image(path: Path) -> np.ndarray | None:
    """Decode an image file to uint8 BGR [H, W, 3]; None where it is damaged, too large or no image."""
    data = read_file(path)
    return None if data is None else decode_file(data)[0]


def read_file(path: Path) -> bytes | None:
    """A file's bytes; None where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def decode_image(data: bytes, mode: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Decode an image file's bytes to uint8 BGR [H, W, 3]; None when they are none."""
    try:
        # An empty buffer and some damaged headers raise instead of returning None.
        return cv2.imdecode(np.frombuffer(data, np.uint8), mode) if data else None
    except cv2.error:
        return None


def load_images(
    labels: LabelList,
    max_height: int | None = None,
    read: Callable[[Path], bytes | None] = read_file,
    rules: ListRules = DEFAULT_RULES,
) -> LoadedList:
    """Decode every image of a list; its header is looked at before (see `compress.data.headers.MAX_PIXELS`).

    `max_height`: shrink taller ones to it, to save memory and later work.

    Raises:
        DataError: more of the list's images than the rules allow are missing, too large or cannot be decoded.
    """
    kept: list[tuple[Entry, np.ndarray, Stored]] = []
    skipped: dict[str, list[Path]] = {"missing": [entry.image for entry in labels.missing]}
    for entry in labels.entries:
        data = read(entry.image) or b""
        image, problem = decode_file(data)
        if image is None:
            skipped.setdefault(problem, []).append(entry.image)
        else:
            image = image if max_height is None else shrink_to_height(image, max_height)
            kept.append((entry, image, Stored(entry.image, len(data), digest_of(data))))
    total = len(labels.entries) + len(labels.missing)
    check_skipped(labels.path, {why: [str(image) for image in images] for why, images in skipped.items()}, total, rules)
    names = {why: tuple(image.name for image in images) for why, images in skipped.items()}
    warnings = [line for why, named in names.items() for line in skipped_warning(labels.path, why, named, total)]
    return LoadedList(
        labels.path,
        tuple(entry for entry, _, _ in kept),
        tuple(image for _, image, _ in kept),
        tuple(warnings),
        {why: named for why, named in names.items() if named},
        tuple(stored for _, _, stored in kept),
    )


def decode_file(data: bytes) -> tuple[np.ndarray | None, str]:
    """The image uint8 BGR [H, W, 3] of a file's bytes, or None and why there is none."""
    header = read_header(data)
    if header is None:
        return None, "unreadable"
    factor = reduction(header)
    if factor is None:
        return None, TOO_LARGE
    return decode_image(data, REDUCTIONS[factor]), "unreadable"


def shrink_to_height(image: np.ndarray, height: int) -> np.ndarray:
    """Shrink an image [H, W, 3] taller than `height` to it, ratio kept; return others as they are."""
    if image.shape[0] <= height:
        return image
    new_height, new_width = shrunk_size(image.shape[0], image.shape[1], height)
    return cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)


def shrunk_size(height: int, width: int, most: int) -> tuple[int, int]:
    """Height and width of an image that is shrunk to the height `most` if it is taller, ratio kept.

    >>> shrunk_size(100, 30, 40), shrunk_size(40, 30, 40), shrunk_size(500, 2, 40)
    ((40, 12), (40, 30), (40, 1))
    """
    return (height, width) if height <= most else (most, max(1, round(width * most / height)))


def stored_in(lists: Sequence[LoadedList]) -> list[Stored]:
    """The images of all these lists as they are stored."""
    return [stored for part in lists for stored in part.stored]


def content_parts(lists: Sequence[LoadedList]) -> list[bytes]:
    """What a fingerprint of these lists depends on: texts and pixels in order, not where they are stored."""
    parts: list[bytes] = []
    for loaded in lists:
        for entry, image in zip(loaded.entries, loaded.images, strict=True):
            parts += [entry.text.encode(), str(image.shape).encode(), image.tobytes()]
    return parts
