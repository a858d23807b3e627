"""Seeded renderer of scenes with known text regions: receipts, signs, and words on cluttered grounds, no photographs.

`render_scene` makes one; `write_scenes` writes a folder with PaddleOCR's label list for detection. The same seed gives
the same bytes on the same versions of Pillow and OpenCV. A region is a line of words an ordinary gap apart; columns
are regions of their own. Some scenes have no text, and some regions are too small to read: labelled `###`.
"""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from compress.data.drawing import expose, field, ground, tint
from compress.data.regions import Region
from compress.data.rendered import write_rendered
from compress.data.sheets import Sheet, draw_receipt, draw_sign, draw_words

SIZES = ((640, 640), (480, 640), (640, 480), (512, 640))
"""Height and width of scenes."""
EMPTY_SHARE = 0.05
"""Of scenes without text: what is found in them counts against precision."""
TRIES = 8
"""Places looked at for a sheet before it is left out."""
Box = tuple[int, int, int, int]


def render_scene(rng: np.random.Generator) -> tuple[np.ndarray, tuple[Region, ...]]:
    """Draw one scene: uint8 BGR [H, W, 3], and its regions, each of four corners clockwise from the text's top left."""
    height, width = SIZES[rng.integers(len(SIZES))]
    picture = ground((height, width), tint(rng.uniform(20, 235), rng), rng)
    _clutter(picture, rng)
    regions: list[Region] = []
    taken: list[Box] = []
    kind = rng.random()
    if kind >= EMPTY_SHARE:
        if kind < 0.4:
            tall, wide = int(height * rng.uniform(0.6, 0.95)), int(width * rng.uniform(0.5, 0.95))
            _place(picture, draw_receipt(tall, wide, rng), 3.0, regions, taken, rng)
        else:
            for _ in range(rng.integers(1, 5)):
                _place(picture, draw_sign(height * 2 // 3, width * 9 // 10, rng), 10.0, regions, taken, rng)
        for _ in range(rng.integers(0, 3) if kind < 0.7 else rng.integers(2, 8)):
            words = draw_words(width * 9 // 10, float(picture.mean()), rng)
            _place(picture, words, 12.0, regions, taken, rng)
    return _photograph(picture, rng), tuple(regions)


def write_scenes(
    folder: Path, count: int, seed: int, *, on_progress: Callable[[int, int, str], None] | None = None
) -> Path:
    """Write `count` scenes (JPEG) and `labels.txt` into a folder; return the label list's path.

    Scene i depends on (seed, i) alone. The list is written last: where it exists, the set is whole.

    Raises:
        OutputError: the folder cannot be written.
    """

    def render(rng: np.random.Generator) -> tuple[bytes, str]:
        image, regions = render_scene(rng)
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 92))])
        assert done, "OpenCV encodes any uint8 image as JPEG"
        return data.tobytes(), label_of(regions)

    return write_rendered(folder, count, seed, render=render, suffix=".jpg", on_progress=on_progress)


def label_of(regions: tuple[Region, ...]) -> str:
    """PaddleOCR's label of an image for detection.

    >>> label_of((Region(np.array([[0, 0], [9.25, 0], [9, 4], [0, 4]], np.float32), "Exit"),))
    '[{"transcription": "Exit", "points": [[0.0, 0.0], [9.2, 0.0], [9.0, 4.0], [0.0, 4.0]]}]'
    """
    entries = []
    for region in regions:
        points = [[round(float(value), 1) for value in point] for point in region.points]
        entries.append({"transcription": region.text, "points": points})
    return json.dumps(entries)


# --- sheets -> scene --------------------------------------------------------------------------------------------


def _place(
    picture: np.ndarray,
    sheet: Sheet | None,
    degrees: float,
    regions: list[Region],
    taken: list[Box],
    rng: np.random.Generator,
) -> None:
    """Put a sheet, turned by about so many degrees, where nothing else lies, if there is such a place."""
    if sheet is None:
        return
    height, width = picture.shape[:2]
    for _ in range(TRIES):
        matrix, (wide, tall) = _pose(sheet, degrees, rng)
        if wide >= width or tall >= height:
            degrees /= 2
            continue
        left, top = int(rng.integers(0, width - wide)), int(rng.integers(0, height - tall))
        box = (left, top, left + wide, top + tall)
        if any(_overlap(box, other) for other in taken):
            continue
        _blend(picture[top : top + tall, left : left + wide], sheet, matrix)
        taken.append(box)
        for region in sheet.regions:
            points = cv2.perspectiveTransform(region.points[None], matrix)[0] + (left, top)
            regions.append(Region(points.astype(np.float32), region.text, region.ignore))
        return


def _pose(sheet: Sheet, degrees: float, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int]]:
    """Homography of a turned, slightly tilted sheet to a box of its own, and that box's width and height."""
    height, width = sheet.coverage.shape
    angle = np.deg2rad(rng.normal(0, degrees) if rng.random() < 0.6 else 0.0)
    turned = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    tilt = np.eye(3)
    if rng.random() < 0.4:
        tilt[2, :2] = rng.uniform(-0.15, 0.15, 2) / (width, height)
    matrix = tilt @ turned @ np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    corners = np.array([[(0, 0), (width, 0), (width, height), (0, height)]], np.float64)
    corners = cv2.perspectiveTransform(corners, matrix)[0]
    low, high = corners.min(axis=0), corners.max(axis=0)
    matrix = np.array([[1, 0, 1 - low[0]], [0, 1, 1 - low[1]], [0, 0, 1]]) @ matrix
    wide, tall = np.ceil(high - low + 2).astype(int).tolist()
    return matrix, (wide, tall)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _blend(part: np.ndarray, sheet: Sheet, matrix: np.ndarray) -> None:
    """Paint the sheet over this part of the scene [h, w, 3], in place."""
    size = (part.shape[1], part.shape[0])
    colour = cv2.warpPerspective(sheet.picture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    share = cv2.warpPerspective(sheet.coverage, matrix, size).astype(np.float32)[:, :, None] / 255
    part += share * (colour - part)


def _clutter(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Shapes that are no text: blocks, discs, lines, and now and then bars or a grid."""
    height, width = picture.shape[:2]
    for _ in range(rng.integers(0, 9)):
        colour = tint(rng.uniform(10, 245), rng).tolist()
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        wide, tall = int(rng.integers(10, width // 2)), int(rng.integers(10, height // 2))
        kind = rng.random()
        if kind < 0.4:
            cv2.rectangle(picture, (x, y), (x + wide, y + tall), colour, -1 if rng.random() < 0.7 else 2)
        elif kind < 0.6:
            cv2.ellipse(picture, (x, y), (wide // 2, tall // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        elif kind < 0.8:
            cv2.line(picture, (x, y), (x + wide, y - tall), colour, int(rng.integers(1, 12)))
        else:
            _bars(picture[y : y + tall // 2, x : x + wide], colour, rng)


def _bars(part: np.ndarray, colour: list[float], rng: np.random.Generator) -> None:
    """Bars of one width (a fence), of many (a bar code), or crossing ones (tiles), in place."""
    step = int(rng.integers(4, 24))
    left = 0
    uneven = rng.random() < 0.4
    while left < part.shape[1]:
        thick = int(rng.integers(1, 6)) if uneven else max(step // 4, 1)
        part[:, left : left + thick] = colour
        left += thick + (int(rng.integers(1, 6)) if uneven else step)
    if not uneven and rng.random() < 0.5:
        for top in range(0, part.shape[0], step + max(step // 4, 1)):
            part[top : top + max(step // 4, 1)] = colour


def _photograph(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uneven light, blur, then exposure: uint8 BGR."""
    if rng.random() < 0.4:
        picture = picture + field(int(rng.integers(2, 5)), rng.uniform(5, 35), picture.shape[:2], rng)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.08:
        length = int(rng.integers(2, 6))
        picture = cv2.blur(picture, (length, 1) if rng.random() < 0.6 else (1, length))
    return expose(picture, rng)
