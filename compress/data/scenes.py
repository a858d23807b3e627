"""Scenes with labelled text regions: PaddleOCR label lists and folders of ICDAR text files, decoded when needed."""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from compress.data.labels import Entry, check_bad_share, name_some, read_labels, skipped_warning
from compress.data.regions import PROBLEMS, Region, parse_icdar, parse_regions, repair_regions
from compress.errors import DataError

MAX_PIXELS = 80_000_000
"""A JPEG with more is decoded at half its size, which takes no memory for the whole; other images, and those with
twice as many, are skipped. 80 megapixels take 240 MB, and that again to turn and resize."""
REDUCTIONS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2}
ORIENTATION, SIDEWAYS = 0x0112, range(5, 9)
"""EXIF's key, and its values that swap width and height. Images are turned as it says, as in PaddleOCR."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Scene:
    """One image file, `height` x `width` once turned as EXIF says, and its regions in those pixels."""

    image: Path
    height: int
    width: int
    regions: tuple[Region, ...]
    reduction: int = 1

    def load(self) -> tuple[np.ndarray, tuple[Region, ...]]:
        """Decode to uint8 BGR [H, W, 3], with the regions in its pixels.

        Raises:
            DataError: the file, which could be read before, is gone or damaged.
        """
        image = _decode(self.image, REDUCTIONS[self.reduction])
        if image is None:
            raise DataError(f"{self.image}: cannot be decoded. Copy it again, or remove it from the list.")
        if self.reduction == 1:
            return image, self.regions
        return image, scale_regions(self.regions, image.shape[1] / self.width, image.shape[0] / self.height)


@dataclass(frozen=True)
class SceneList:
    """The readable scenes of one label list or folder, and what was wrong with others."""

    path: Path
    scenes: tuple[Scene, ...]
    warnings: tuple[str, ...] = ()


def scale_regions(regions: Sequence[Region], x: float, y: float) -> tuple[Region, ...]:
    """Regions of an image that was resized by these factors."""
    factors = np.array([x, y], np.float32)
    return tuple(Region(region.points * factors, region.text, region.ignore) for region in regions)


def load_scenes(path: Path) -> SceneList:
    """Read a PaddleOCR label list, or a folder with ICDAR's text files.

    The folder holds `<image name>.txt` or `gt_<image name>.txt`, either beside the images, or in one subfolder (`gt`,
    say) with the images in another (`images`, say). No pixel is decoded, but every file's header is read.

    Raises:
        DataError: it cannot be read, or most images are missing or unreadable, or most regions unusable.
    """
    entries, lines = _read_folder(path) if path.is_dir() else _read_list(path)
    scenes: list[Scene] = []
    unreadable: list[str] = []
    too_large: list[str] = []
    problems: dict[str, list[str]] = {}
    total = 0
    for image, regions in entries:
        header = _read_header(image)
        if header is None:
            unreadable.append(image.name)
        elif (reduction := _reduction(header)) is None:
            too_large.append(image.name)
        else:
            usable, found = repair_regions(regions, header.height, header.width)
            for problem, count in found.items():
                problems.setdefault(problem, []).extend([image.name] * count)
            scenes.append(Scene(image, header.height, header.width, usable, reduction))
            total += len(regions)
    check_bad_share(path, "unreadable", unreadable, len(entries))
    lines += skipped_warning(path, "unreadable", unreadable, len(entries))
    lines += _size_warning(path, too_large, len(entries))
    return SceneList(path, tuple(scenes), lines + _region_warnings(path, problems, total))


def content_of(lists: Sequence[SceneList]) -> Iterator[bytes]:
    """What a fingerprint of these lists depends on, part by part: bytes and regions, not where they are stored."""
    for scene in (scene for part in lists for scene in part.scenes):
        yield scene.image.read_bytes()
        labels = [(region.points.tolist(), region.text, region.ignore) for region in scene.regions]
        yield json.dumps(labels).encode()


def _read_list(path: Path) -> tuple[list[tuple[Path, tuple[Region, ...]]], tuple[str, ...]]:
    labels = read_labels(path)
    return [(entry.image, _regions_of(path, entry)) for entry in labels.entries], labels.warnings()


def _regions_of(path: Path, entry: Entry) -> tuple[Region, ...]:
    return parse_regions(path, entry.line, entry.text) if entry.text.strip() else ()


def _read_folder(path: Path) -> tuple[list[tuple[Path, tuple[Region, ...]]], tuple[str, ...]]:
    files = [file for folder in (path, *sorted(path.iterdir())) if folder.is_dir() for file in sorted(folder.iterdir())]
    images = _by_name(path, [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES])
    written = [file for file in files if file.suffix.lower() == ".txt"]
    texts = _by_name(path, [file for file in written if _pair_name(file) in images])
    both = sorted(images.keys() & texts.keys())
    if not both:
        raise DataError(
            f"{path}: no image with its text file. Expected img_1.jpg with gt_img_1.txt or img_1.txt (ICDAR), here or "
            "in subfolders. Or give a label list (path<TAB>JSON)."
        )
    bare = [images[name].name for name in sorted(images.keys() - texts.keys())]
    check_bad_share(path, "without a text file", bare, len(images))
    lines = skipped_warning(path, "without a text file", bare, len(images))
    lonely = [file.name for file in written if _pair_name(file) not in images]
    if lonely:
        lines += (f"{path}: {len(lonely)} text files have no image: {name_some(lonely)}",)
    return [(images[name], parse_icdar(texts[name], _read_text(texts[name]))) for name in both], lines


def _pair_name(file: Path) -> str:
    """What an image and its text file have in common."""
    return file.stem.removeprefix("gt_")


def _by_name(path: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Files by `_pair_name`.

    Raises:
        DataError: two files share one.
    """
    found: dict[str, Path] = {}
    for file in files:
        first = found.setdefault(_pair_name(file), file)
        if first is not file:
            raise DataError(
                f"{path}: {first.relative_to(path)} and {file.relative_to(path)} have the same name, so that an image "
                "and its text cannot be told. Give the folder of one data set."
            )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Write the labels as UTF-8.") from error


@dataclass(frozen=True)
class _Header:
    """Size of an image as it will be decoded, in pixels, and its format as Pillow calls it."""

    height: int
    width: int
    kind: str


def _read_header(path: Path) -> _Header | None:
    """What an image file's header says; None where there is none. No pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS deals with it
            with Image.open(path) as image:
                # Of a PNG, its own `getexif` would decode all pixels. Of a TIFF, the size is the turned one already.
                turned = image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
                height, width = (image.width, image.height) if turned else (image.height, image.width)
                return _Header(height, width, str(image.format))
    except Image.DecompressionBombError:
        return _Header(MAX_PIXELS, MAX_PIXELS, "")
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None


def _reduction(header: _Header) -> int | None:
    """By which factor to shrink an image while decoding; None where that cannot help."""
    pixels = header.height * header.width
    if pixels <= MAX_PIXELS:
        return 1
    return 2 if header.kind == "JPEG" and pixels <= 2 * MAX_PIXELS else None


def _size_warning(path: Path, too_large: Sequence[str], total: int) -> tuple[str, ...]:
    """One line that names what is skipped.

    Raises:
        DataError: nothing would be left.
    """
    limits = f"larger than {MAX_PIXELS // 10**6} megapixels (JPEG: {2 * MAX_PIXELS // 10**6})"
    if too_large and len(too_large) == total:
        raise DataError(
            f"{path}: all images are {limits}, the first is {too_large[0]}. Make them smaller, and their points."
        )
    return skipped_warning(path, limits, too_large, total)


def _decode(path: Path, mode: int) -> np.ndarray | None:
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
        return cv2.imdecode(data, mode) if data.size else None
    except (OSError, cv2.error):
        return None


def _region_warnings(path: Path, problems: dict[str, list[str]], total: int) -> tuple[str, ...]:
    """One line for each kind of problem.

    Raises:
        DataError: most regions are unusable.
    """
    bad = [name for problem, names in problems.items() if problem != "crossed" for name in names]
    if 2 * len(bad) > total:
        raise DataError(
            f"{path}: {len(bad)} of {total} regions are unusable (outside the image, or without area), the first in "
            f"{bad[0]}. At most half may be. Check that the points are (x, y) in the image's own pixels."
        )
    return tuple(
        f"{path}: {len(names)} of {total} regions {PROBLEMS[problem]}: in {name_some(list(dict.fromkeys(names)))}"
        for problem, names in problems.items()
    )
