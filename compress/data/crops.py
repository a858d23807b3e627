"""Crops of text regions, cut from scenes: a detector's labels become a recogniser's and a direction classifier's.

Source: PaddleOCR, tools/infer/utility.py (get_rotate_crop_image, get_minarea_rect_crop).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from compress.artifacts import check_writable, lock, write_atomic
from compress.data.labels import DEFAULT_RULES, ListRules
from compress.data.regions import Region
from compress.data.scenes import Scene, load_scenes
from compress.errors import DataError, OutputError

UPRIGHT = 1.5
"""A crop at least so many times as high as wide holds a line that runs down: it is turned to the left."""
IMAGES, LABELS = "images", "labels.txt"


@dataclass(frozen=True)
class Crop:
    """A region to cut: corners [4, 2] in the pixels of `scene`, clockwise from the text's top left, and its text."""

    scene: Scene
    number: int
    """Of the region in its scene."""
    corners: np.ndarray
    text: str


@dataclass(frozen=True)
class Cropped:
    """What was cut: how many crops, how many regions were left out and why, and what was wrong with the lists."""

    written: int
    skipped: dict[str, int]
    warnings: tuple[str, ...]


def text_corners(points: np.ndarray) -> np.ndarray:
    """The corners [4, 2] of a region [P, 2], clockwise from the text's top left.

    Four corners that make a convex shape, clockwise as seen, are taken in their order: labels begin at the text's top
    left, wherever that is in the image. Of other shapes it is the smallest rectangle around them, upright.

    >>> text_corners(np.array([[9, 9], [9, 0], [5, 0], [0, 0], [0, 9]])).round().astype(int).tolist()
    [[0, 0], [9, 0], [9, 9], [0, 9]]
    """
    points = np.asarray(points, np.float32)
    # Positive for clockwise as seen, since y grows downwards.
    if len(points) == 4 and cv2.isContourConvex(points) and cv2.contourArea(points, oriented=True) > 0:
        return points
    left_first = np.array(sorted(cv2.boxPoints(cv2.minAreaRect(points)).tolist()), np.float32)
    left, right = left_first[:2], left_first[2:]
    top_left, bottom_left = left[np.argsort(left[:, 1], kind="stable")]
    top_right, bottom_right = right[np.argsort(right[:, 1], kind="stable")]
    return np.stack([top_left, top_right, bottom_right, bottom_left])


def crop_size(corners: np.ndarray) -> tuple[int, int]:
    """Height and width of a crop [4, 2] as it lies in the scene: the longer one of each two opposite sides, cut to
    whole pixels.

    >>> crop_size(np.array([[0, 0], [40, 30], [37, 34], [-3, 4]], np.float32))
    (5, 50)
    """
    top, right, bottom, left = (float(np.linalg.norm(corners[side] - corners[(side + 1) % 4])) for side in range(4))
    return int(max(left, right)), int(max(top, bottom))


def crop_region(image: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Cut the quadrilateral [4, 2] out of uint8 [h, w, 3], made a rectangle; a line that runs down is turned left."""
    height, width = crop_size(corners)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(np.asarray(corners, np.float32), target)
    crop = cv2.warpPerspective(
        image, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    return np.ascontiguousarray(np.rot90(crop)) if runs_down(height, width) else crop


def runs_down(height: int, width: int) -> bool:
    """Whether a crop of this size holds a line that runs down."""
    return height >= UPRIGHT * width


def plan_crops(scenes: Sequence[Scene], min_height: int) -> tuple[list[Crop], dict[str, int]]:
    """What can be cut, from the labels alone, and how many regions cannot, by the reason."""
    crops: list[Crop] = []
    skipped: dict[str, int] = {}
    for scene in scenes:
        for number, region in enumerate(scene.regions):
            corners = text_corners(region.points)
            reason = _why_not(region, crop_size(corners), scene, min_height)
            if reason:
                skipped[reason] = skipped.get(reason, 0) + 1
            else:
                crops.append(Crop(scene, number, corners, " ".join(region.text.split())))
    return crops, skipped


def _why_not(region: Region, size: tuple[int, int], scene: Scene, min_height: int) -> str:
    """Why a region cannot be cut, or ""."""
    height, width = size
    if region.ignore:
        return "marked ### or *"
    if not region.text.strip():
        return "without text"
    if min(height, width) < 1 or (width if runs_down(height, width) else height) < min_height:
        return f"less than {min_height} pixels high"
    if height * width > 4 * scene.height * scene.width:
        return "larger than their image"
    return ""


def write_crops(
    lists: Sequence[Path],
    out: Path,
    *,
    min_height: int = 8,
    limit: int | None = None,
    rules: ListRules = DEFAULT_RULES,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Cropped:
    """Cut the regions of detection label lists or ICDAR folders into `out`/images, and list them in `out`/labels.txt.

    The same lists give the same bytes. Line breaks and tabs in texts become spaces.

    Args:
        lists: what to cut.
        out: a new or an empty folder, or what a stopped call left.
        min_height: leave out crops lower than this, in pixels.
        limit: at most so many crops, drawn over all scenes with a fixed seed: always the same ones.
        rules: what is asked of the lists.
        on_progress: is called as (done, in all, message).

    Raises:
        DataError: a list cannot be read, or nothing in it can be cut.
        OutputError: the folder holds other things, cannot be written, or another process is writing it.
    """
    _check_empty(out)
    loaded = [load_scenes(Path(path), rules) for path in lists]
    crops, skipped = plan_crops([scene for one in loaded for scene in one.scenes], min_height)
    if not crops:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "no regions at all"
        raise DataError(f"{', '.join(map(str, lists))}: nothing to cut ({reasons}). Give labelled scenes with texts.")
    chosen = np.sort(np.random.default_rng(0).permutation(len(crops))[:limit])
    names = _scene_names([scene for one in loaded for scene in one.scenes])
    check_writable(out / IMAGES)
    with lock(out):
        _check_empty(out)  # another process may have ended meanwhile
        _write_all([crops[index] for index in chosen], names, out, on_progress)
    return Cropped(len(chosen), skipped, tuple(line for one in loaded for line in one.warnings))


def _check_empty(out: Path) -> None:
    """Refuse a folder with other things than what a stopped call left, or another process is making.

    Raises:
        OutputError: there are some.
    """
    names = {file.name for file in out.iterdir()} if out.is_dir() else set()
    if [name for name in names - {IMAGES, ".lock"} if not name.startswith(f".{LABELS}.")]:
        raise OutputError(f"{out}: holds other files. Give a new or an empty folder with --out.")


def _write_all(
    crops: Sequence[Crop], names: dict[int, str], out: Path, on_progress: Callable[[int, int, str], None] | None
) -> None:
    """Cut and write crops, then their list."""
    lines: list[str] = []
    image, opened = np.empty(0), None
    for done, crop in enumerate(crops, 1):
        if crop.scene is not opened:
            image, opened = crop.scene.load()[0], crop.scene
        name = f"{IMAGES}/{names[id(crop.scene)]}_{crop.number:03d}.png"
        _write_image(out / name, crop_region(image, crop.corners * _scale(image, crop.scene)))
        lines.append(f"{name}\t{crop.text}\n")
        if on_progress:
            on_progress(done, len(crops), "cutting")
    write_atomic(out / LABELS, "".join(lines).encode())


def _scale(image: np.ndarray, scene: Scene) -> np.ndarray:
    """From the pixels of a scene's labels to those of the image as it was decoded: very large ones are shrunk."""
    return np.array([image.shape[1] / scene.width, image.shape[0] / scene.height], np.float32)


def _scene_names(scenes: Sequence[Scene]) -> dict[int, str]:
    """A name of its own for each scene (by `id`): its file's, with a number behind it where others have the same."""
    names: dict[int, str] = {}
    taken: set[str] = set()
    for scene in scenes:
        name, number = scene.image.stem, 1
        while name in taken:
            number += 1
            name = f"{scene.image.stem}-{number}"
        taken.add(name)
        names[id(scene)] = name
    return names


def _write_image(path: Path, image: np.ndarray) -> None:
    """Write a PNG.

    Raises:
        OutputError: it cannot be written.
    """
    _, data = cv2.imencode(".png", image)
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}). Choose another folder with --out.") from error
