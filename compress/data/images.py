"""Decode the images of label lists, once, into memory; count and name those that cannot be decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from compress.data.labels import Entry, LabelList, check_bad_share, skipped_warning


@dataclass(frozen=True)
class LoadedList:
    """A label list with its images, uint8 BGR [H, W, 3], one for each entry."""

    path: Path
    entries: tuple[Entry, ...]
    images: tuple[np.ndarray, ...]
    warnings: tuple[str, ...] = ()


def read_image(path: Path) -> np.ndarray | None:
    """Decode an image file to uint8 BGR [H, W, 3]; None when it is empty, truncated beyond use or no image."""
    try:
        return decode_image(path.read_bytes())
    except OSError:
        return None


def decode_image(data: bytes) -> np.ndarray | None:
    """Decode an image file's bytes to uint8 BGR [H, W, 3]; None when they are none."""
    try:
        # An empty buffer and some damaged headers raise instead of returning None.
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        return None


def load_images(
    labels: LabelList, max_height: int | None = None, read: Callable[[Path], np.ndarray | None] = read_image
) -> LoadedList:
    """Decode every image of a list. `max_height`: shrink taller ones to it, to save memory and later work.

    Raises:
        DataError: more than `MAX_BAD_SHARE` of the list's images cannot be decoded.
    """
    decoded = [read(entry.image) for entry in labels.entries]
    pairs = [(entry, image) for entry, image in zip(labels.entries, decoded, strict=True) if image is not None]
    bad = [entry for entry, image in zip(labels.entries, decoded, strict=True) if image is None]
    check_bad_share(labels.path, "unreadable", [str(entry.image) for entry in bad], len(decoded))
    warnings = skipped_warning(labels.path, "unreadable", [entry.image.name for entry in bad], len(decoded))
    images = tuple(image if max_height is None else shrink_to_height(image, max_height) for _, image in pairs)
    return LoadedList(labels.path, tuple(entry for entry, _ in pairs), images, labels.warnings() + warnings)


def shrink_to_height(image: np.ndarray, height: int) -> np.ndarray:
    """Shrink an image [H, W, 3] taller than `height` to it, ratio kept; return others as they are."""
    if image.shape[0] <= height:
        return image
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def content_parts(lists: Sequence[LoadedList]) -> list[bytes]:
    """What a fingerprint of these lists depends on: texts and pixels in order, not where they are stored."""
    parts: list[bytes] = []
    for loaded in lists:
        for entry, image in zip(loaded.entries, loaded.images, strict=True):
            parts += [entry.text.encode(), str(image.shape).encode(), image.tobytes()]
    return parts
