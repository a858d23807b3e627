"""Scenes with labelled text regions: PaddleOCR label lists and folders of ICDAR text files, decoded when needed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from compress.data.file_names import IMAGE_SUFFIXES, refuse_shards
from compress.data.headers import REDUCTIONS, TOO_LARGE, read_header, reduction
from compress.data.images import decode_image, read_file
from compress.data.labels import (
    DEFAULT_RULES,
    Entry,
    ListRules,
    check_skipped,
    name_some,
    read_labels,
    skipped_warning,
)
from compress.data.overlap import file_contents
from compress.data.regions import PROBLEMS, Region, parse_icdar, parse_regions, repair_regions
from compress.errors import DataError

POINTS_ADVICE = "Check that the points are (x, y) in the image's own pixels."


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
        image = decode_image(read_file(self.image) or b"", REDUCTIONS[self.reduction])
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
    skipped: int = 0
    """Images of the list that are not among these."""
    skipped_regions: int = 0
    """Regions of these that could not be used."""

    @property
    def counts(self) -> tuple[int, int]:
        """(images skipped, images in the list)"""
        return self.skipped, len(self.scenes) + self.skipped

    @property
    def region_counts(self) -> tuple[int, int]:
        """(regions left out, regions in the list)"""
        return self.skipped_regions, sum(len(scene.regions) for scene in self.scenes) + self.skipped_regions


@dataclass(frozen=True)
class _Listed:
    """What a list or folder names: images with their regions, what it lacks (why -> names), and what else to say."""

    entries: Sequence[tuple[Path, tuple[Region, ...]]]
    skipped: Mapping[str, Sequence[str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def scale_regions(regions: Sequence[Region], x: float, y: float) -> tuple[Region, ...]:
    """Regions of an image that was resized by these factors."""
    factors = np.array([x, y], np.float32)
    return tuple(Region(region.points * factors, region.text, region.ignore) for region in regions)


def load_scenes(path: Path, rules: ListRules = DEFAULT_RULES) -> SceneList:
    """Read a PaddleOCR label list, or a folder with ICDAR's text files.

    The folder holds `<image name>.txt` or `gt_<image name>.txt`, either beside the images, or in one subfolder (`gt`,
    say) with the images in another (`images`, say). No pixel is decoded, but every file's header is read.

    Raises:
        DataError: it cannot be read, or more of its images or regions than the rules allow cannot be used.
    """
    refuse_shards(path)
    listed = _read_folder(path, rules) if path.is_dir() else _read_list(path, rules)
    scenes: list[Scene] = []
    skipped = {why: list(names) for why, names in listed.skipped.items()}
    problems: dict[str, list[str]] = {}
    regions_in_all = 0
    for image, regions in listed.entries:
        header = read_header(image)
        factor = None if header is None else reduction(header)
        if header is None or factor is None:
            skipped.setdefault("unreadable" if header is None else TOO_LARGE, []).append(image.name)
            continue
        usable, found = repair_regions(regions, header.height, header.width)
        for problem, count in found.items():
            problems.setdefault(problem, []).extend([image.name] * count)
        scenes.append(Scene(image, header.height, header.width, usable, factor))
        regions_in_all += len(regions)
    left_out = {
        PROBLEMS[problem].removesuffix(", left out"): names
        for problem, names in problems.items()
        if problem != "crossed"
    }
    total = len(scenes) + sum(map(len, skipped.values()))
    check_skipped(path, skipped, total, rules)
    check_skipped(path, left_out, regions_in_all, rules, "regions", POINTS_ADVICE)
    lines = [line for why, names in skipped.items() for line in skipped_warning(path, why, names, total)]
    lines += [*listed.warnings, *_region_warnings(path, problems, regions_in_all)]
    return SceneList(
        path, tuple(scenes), tuple(lines), total - len(scenes), sum(len(names) for names in left_out.values())
    )


def content_of(lists: Sequence[SceneList]) -> Iterator[bytes]:
    """What a fingerprint of these lists depends on, part by part: content and regions, not where they are stored."""
    scenes = [scene for part in lists for scene in part.scenes]
    for scene, content in zip(scenes, file_contents([scene.image for scene in scenes]), strict=True):
        yield content
        labels = [(region.points.tolist(), region.text, region.ignore) for region in scene.regions]
        yield json.dumps(labels).encode()


def _read_list(path: Path, rules: ListRules) -> _Listed:
    labels = read_labels(path, rules)
    missing = [entry.image.name for entry in labels.missing]
    return _Listed([(entry.image, _regions_of(path, entry)) for entry in labels.entries], {"missing": missing})


def _regions_of(path: Path, entry: Entry) -> tuple[Region, ...]:
    return parse_regions(path, entry.line, entry.text) if entry.text.strip() else ()


def _read_folder(path: Path, rules: ListRules) -> _Listed:
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
    lonely = [file for file in written if _pair_name(file) not in images]
    missing = [file.name for file in lonely if _is_icdar(file)]
    others = [file.name for file in lonely if file.name not in missing]
    lines = (f"{path}: {len(others)} text files have no image: {name_some(others)}",) if others else ()
    check_skipped(path, {"without a text file": bare}, len(images), rules)
    entries = [(images[name], parse_icdar(texts[name], _read_text(texts[name]))) for name in both]
    return _Listed(entries, {"without a text file": bare, "missing": missing}, lines)


def _is_icdar(file: Path) -> bool:
    """Whether a text file holds regions, and not, say, a word on the data set."""
    try:
        return bool(parse_icdar(file, _read_text(file)))
    except DataError:
        return False


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
                "and its text is unknown. Give the folder of one data set."
            )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Write the labels as UTF-8.") from error


def _region_warnings(path: Path, problems: Mapping[str, Sequence[str]], total: int) -> tuple[str, ...]:
    """One line for each kind of problem."""
    return tuple(
        f"{path}: {len(names)} of {total} regions {PROBLEMS[problem]}: in {name_some(list(dict.fromkeys(names)))}"
        for problem, names in problems.items()
    )
