"""Images without labels, of any kind: what a network can learn from its teacher alone."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from compress.data.file_names import FOREIGN_SUFFIXES, IMAGE_SUFFIXES, is_sharded, refuse_shards
from compress.data.headers import TOO_LARGE, read_header, reduction
from compress.data.images import LoadedList, load_images, read_image
from compress.data.labels import (
    DEFAULT_RULES,
    UNLISTABLE,
    Entry,
    LabelList,
    ListRules,
    check_skipped,
    read_labels,
    shown,
    skipped_warning,
)
from compress.data.lmdb_folder import FILE, load_list
from compress.data.overlap import file_contents
from compress.data.scene_augment import GEOMETRIES, change_light, random_crop
from compress.data.shards import load_shards
from compress.errors import DataError
from compress.progress import Progress

TILE_HEIGHTS = (12.0, 110.0)
"""Heights that small images are tiled with, in pixels, drawn evenly on a logarithmic scale: those of text in scenes."""
UNREADABLE = "unreadable"
MOST_GAP = 30
"""Largest gap between tiles, in pixels."""


@dataclass(frozen=True)
class ImageFiles:
    """The usable images of a folder or list, and what was wrong with others."""

    files: tuple[Path, ...]
    warnings: tuple[str, ...] = ()


def find_images(path: Path, rules: ListRules = DEFAULT_RULES) -> LabelList:
    """The images of a folder and its subfolders, or of a label list, whose texts are not looked at: all are empty.

    Raises:
        DataError: there are none, or more of them are missing than the rules allow.
    """
    refuse_shards(path)
    if not path.is_dir():
        labels = read_labels(path, rules)
        return replace(labels, entries=tuple(replace(entry, text="") for entry in labels.entries))
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    if not found:
        raise DataError(f"{path}: no images. Expected {', '.join(IMAGE_SUFFIXES)} in it, or a label list.")
    return LabelList(path, tuple(Entry(file, "", number) for number, file in enumerate(found, start=1)))


def list_images(
    path: Path,
    rules: ListRules = DEFAULT_RULES,
    problem_of: Callable[[Path], str] = lambda _: "",
    on_progress: Progress | None = None,
) -> ImageFiles:
    """The images that `find_images` finds and that can be used.

    Args:
        path: a folder or label list.
        rules: how many images may be unusable.
        problem_of: called with each image that has a header: why it cannot be used all the same (a key of `ADVICE` in
            `compress.data.labels`), or nothing. By default no pixel is decoded.
        on_progress: called as (done, total, message).

    Raises:
        DataError: there are none, or more of them than the rules allow cannot be used.
    """
    listed = find_images(path, rules)
    problems: dict[Path, str] = {}
    for done, entry in enumerate(listed.entries, start=1):
        problems[entry.image] = _problem(entry.image, problem_of)
        if on_progress is not None:
            on_progress(done, len(listed.entries), "looking at the images")
    skipped = {"missing": [entry.image for entry in listed.missing]}
    for kind in (UNREADABLE, TOO_LARGE, UNLISTABLE):
        skipped[kind] = [file for file, problem in problems.items() if problem == kind]
    total = len(problems) + len(listed.missing)
    check_skipped(path, {why: [str(file) for file in files] for why, files in skipped.items()}, total, rules)
    folder = path if path.is_dir() else path.parent
    lines = [
        line
        for why, files in skipped.items()
        for line in skipped_warning(path, why, [os.path.relpath(file, folder) for file in files], total)
    ]
    files = [entry.image for entry in listed.entries if not problems[entry.image]]
    if not files:
        raise DataError(f"{path}: none of {total} images can be used.")
    return ImageFiles(tuple(files), tuple(lines))


def _problem(file: Path, problem_of: Callable[[Path], str]) -> str:
    """Why a file cannot be used, or nothing."""
    header = read_header(file)
    if header is None:
        return UNREADABLE
    return TOO_LARGE if reduction(header) is None else problem_of(file)


def unlistable(file: Path) -> str:
    """Why a label list cannot hold an image's whole name, or nothing."""
    name = str(file.absolute())
    try:
        return UNLISTABLE if set(name) & set("\t\n\r") or not name.encode() else ""
    except UnicodeEncodeError:
        return UNLISTABLE


def describe_foreign(path: Path) -> str:
    """One line on pictures of a folder that are in formats which are not read; empty where there are none."""
    if not path.is_dir():
        return ""
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in FOREIGN_SUFFIXES and file.is_file())
    if not found:
        return ""
    first = shown(os.path.relpath(found[0], path))
    what = f"1 file of another kind, {first}" if len(found) == 1 else f"{len(found)} files of other kinds, as {first}"
    return f"{path}: left out {what}. Images are read from {', '.join(IMAGE_SUFFIXES)}."


def split_images(files: Sequence[Path], held_back: float) -> tuple[list[Path], list[Path]]:
    """Part images into those to train on and those held back, at least one, by a hash of their content.

    So the parts depend neither on names nor on the order, and a copy of an image is in the part of the image.

    Args:
        files: at least two, of different content.
        held_back: share of them to hold back, in (0, 1).

    Raises:
        DataError: there is nothing to part.
    """
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    distinct = sorted(set(hashes))
    if len(distinct) < 2:
        raise DataError(f"images: got {len(files)}, {len(distinct)} of them different. Must be two or more.")
    count = min(max(1, round(held_back * len(distinct))), len(distinct) - 1)
    held = set(distinct[:count])
    train = [file for file, digest in zip(files, hashes, strict=True) if digest not in held]
    return train, [file for file, digest in zip(files, hashes, strict=True) if digest in held]


def load_unlabelled(path: Path, max_height: int | None = None, rules: ListRules = DEFAULT_RULES) -> LoadedList:
    """Decode the images of a folder and its subfolders, of a label list, an LMDB folder, or tar archives; all texts are
    empty.

    Raises:
        DataError: there are none, or more of them than the rules allow cannot be used.
    """
    if is_sharded(path):
        return load_shards(path, max_height, rules, labelled=False)
    if not path.is_dir() or not (path / FILE).is_file():
        return load_images(find_images(path, rules), max_height, rules=rules)
    loaded = load_list(path, max_height, rules)
    return replace(loaded, entries=tuple(replace(entry, text="") for entry in loaded.entries))


def content_of_images(files: Sequence[Path]) -> Iterator[bytes]:
    """What a fingerprint of these images depends on."""
    return file_contents(files)


def unlabelled_crop(files: Sequence[Path], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A crop uint8 BGR [H, W, 3] of `size` (height, width): of one image, or a mosaic where images are small.

    Raises:
        DataError: an image cannot be decoded.
    """
    image = _draw(files, rng)
    if min(image.shape[:2]) >= min(size) / 2:
        crop, _ = random_crop(image, (), size, 1.0, rng, GEOMETRIES["strong"])
    else:
        crop = _mosaic(image, files, size, rng)
    return change_light(crop, rng)


def _mosaic(first: np.ndarray, files: Sequence[Path], size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Rows of images at random heights, with gaps, on a blurred image."""
    height, width = size
    canvas = cv2.GaussianBlur(cv2.resize(first, (width, height)), (0, 0), 6)
    top = int(rng.integers(MOST_GAP))
    while top < height:
        tall = int(np.exp(rng.uniform(*np.log(TILE_HEIGHTS))))
        left = int(rng.integers(MOST_GAP))
        while left < width:
            image = _draw(files, rng)
            wide = max(4, image.shape[1] * tall // image.shape[0])
            tile = cv2.resize(image, (wide, tall), interpolation=cv2.INTER_AREA)
            part = canvas[top : top + tall, left : left + wide]
            part[:] = tile[: part.shape[0], : part.shape[1]]
            left += wide + int(rng.integers(MOST_GAP))
        top += tall + int(rng.integers(MOST_GAP))
    return canvas


def _draw(files: Sequence[Path], rng: np.random.Generator) -> np.ndarray:
    file = files[int(rng.integers(len(files)))]
    image = read_image(file)
    if image is None:
        raise DataError(f"{file}: cannot be decoded. Copy it again, or remove it.")
    return image
