"""Seeded renderer of word crops: text as signs, packaging and screens show it, without any photograph.

`random_text` makes a word, number or code; `render_crop` draws it; `write_dataset` writes a folder of crops with
its PaddleOCR label list. The same seed gives the same pixels on the same versions of Pillow and OpenCV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from compress.data.drawing import choose_face, colours, cover, expose, ground, load_font, write_line
from compress.data.rendered import write_rendered
from compress.data.texts import random_text

FONT_SIZES = (28, 44, 68)
"""Pixels per em that text is drawn at; the crop is then brought to its own height."""


@dataclass(frozen=True)
class Drawing:
    """Coverage of the text in [0, 255], uint8 [H, W]; of its outline or shadow; the text's box x0, y0, x1, y1."""

    text: np.ndarray
    back: np.ndarray
    box: tuple[float, float, float, float]


def render_crop(text: str, rng: np.random.Generator, *, plain: bool = False) -> np.ndarray:
    """Draw one word crop: uint8 BGR [H, W, 3], H from about 12 to 120.

    `plain`: black on white or white on black, sharp: to learn letters from before learning to see them anywhere.
    """
    height = int(np.clip(rng.lognormal(np.log(34), 0.5), 12, 120))
    drawing = _cut_out(_bend(_draw(text, height, rng), rng), rng)
    if plain:
        grey = cv2.cvtColor(drawing.text if rng.random() < 0.5 else 255 - drawing.text, cv2.COLOR_GRAY2BGR)
        return _bring_to_height(grey, height)
    return _photograph(_paint(drawing, rng), height, rng)


def write_dataset(
    folder: Path,
    count: int,
    seed: int,
    *,
    plain: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Write `count` crops (PNG) and `labels.txt` into a folder; return the label list's path.

    Crop i depends on (seed, i) alone. The list is written last: where it exists, the set is whole.

    Raises:
        OutputError: the folder cannot be written.
    """

    def render(rng: np.random.Generator) -> tuple[bytes, str]:
        text = random_text(rng)
        done, data = cv2.imencode(".png", render_crop(text, rng, plain=plain), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        assert done, "OpenCV encodes any uint8 image as PNG"
        return data.tobytes(), text

    return write_rendered(folder, count, seed, render=render, suffix=".png", on_progress=on_progress)


# --- 1. text -> coverage ----------------------------------------------------------------------------------------


def _draw(text: str, height: int, rng: np.random.Generator) -> Drawing:
    """Draw the text, sometimes with an outline or shadow, and sometimes a neighbouring line or word."""
    face = choose_face(text, rng)
    font = load_font(face, next((size for size in FONT_SIZES if size >= height), FONT_SIZES[-1]))
    em = font.size
    spacing = em * (rng.uniform(-0.04, 0.02) if rng.random() < 0.7 else rng.uniform(0.02, 0.3))
    stroke = int(rng.integers(0, 1 + max(1, round(em / 22)))) if rng.random() < 0.35 else 0
    steps = [font.getlength(letter) + spacing for letter in text]
    size = (int(sum(steps)) + 2 * int(em), int(3.4 * em))
    start = (em, 1.1 * em)
    ink = Image.new("L", size)
    write_line(ink, text, start, font, spacing, stroke)
    # Where nothing is drawn (a blank glyph), take the whole line.
    box = ink.getbbox() or (em, em, size[0] - em, 2 * em)
    back = Image.new("L", size)
    style = rng.random()
    if style < 0.12:
        write_line(back, text, start, font, spacing, stroke + max(1, round(em / 16)))
    elif style < 0.25:
        shift = em * rng.uniform(0.03, 0.09, 2)
        write_line(back, text, (start[0] + shift[0], start[1] + shift[1]), font, spacing, stroke)
    if rng.random() < 0.2:
        side = -1 if rng.random() < 0.5 else 1
        above = (start[0] + em * rng.uniform(-1.5, 0.5), start[1] + side * em * rng.uniform(1.05, 1.35))
        write_line(ink, random_text(rng), above, font, spacing, stroke)
    return Drawing(np.asarray(ink), np.asarray(back), tuple(map(float, box)))  # type: ignore[arg-type]


# --- 2. coverage -> bent coverage, cut to a crop ----------------------------------------------------------------


def _bend(drawing: Drawing, rng: np.random.Generator) -> Drawing:
    """Condense or widen, slant, turn by a few degrees and tilt in space; now and then bend the line to an arc."""
    height, width = drawing.text.shape
    if rng.random() < 0.08:
        drawing = _arc(drawing, rng.uniform(-0.25, 0.25) * (drawing.box[3] - drawing.box[1]))
    x0, y0, x1, y1 = drawing.box
    narrow = rng.uniform(0.55, 1.25) if rng.random() < 0.5 else 1.0
    slant = rng.uniform(-0.25, 0.25) if rng.random() < 0.3 else 0.0
    turn = np.deg2rad(rng.normal(0, 5) if rng.random() < 0.5 else rng.normal(0, 1))
    shape = np.array([[narrow, -slant, 0], [0, 1, 0], [0, 0, 1]])
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    tilt = np.eye(3)
    if rng.random() < 0.4:
        # Size changes by up to a quarter along the word and across it.
        tilt[2, 0], tilt[2, 1] = rng.uniform(-0.25, 0.25, 2) / (width, 2 * height)
    centred = np.array([[1, 0, -(x0 + x1) / 2], [0, 1, -(y0 + y1) / 2], [0, 0, 1]])
    matrix = tilt @ turned @ shape @ centred
    corners = cv2.perspectiveTransform(np.array([[(x0, y0), (x1, y0), (x1, y1), (x0, y1)]]), matrix)[0]
    low, high = corners.min(axis=0), corners.max(axis=0)
    pad = 0.6 * (high[1] - low[1])
    matrix = np.array([[1, 0, pad - low[0]], [0, 1, pad - low[1]], [0, 0, 1]]) @ matrix
    size = np.ceil(high - low + 2 * pad).astype(int).tolist()
    box = (pad, pad, pad + high[0] - low[0], pad + high[1] - low[1])
    text, back = (cv2.warpPerspective(layer, matrix, size) for layer in (drawing.text, drawing.back))
    return Drawing(text, back, box)


def _arc(drawing: Drawing, rise: float) -> Drawing:
    """Move columns up or down along a parabola that reaches `rise` pixels in the middle of the word."""
    height, width = drawing.text.shape
    x0, y0, x1, y1 = drawing.box
    across = (np.arange(width, dtype=np.float32) - (x0 + x1) / 2) / ((x1 - x0) / 2 + 1)
    lift = rise * (1 - np.clip(across, -1, 1) ** 2)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    rows += lift.astype(np.float32)
    text, back = (cv2.remap(layer, columns, rows, cv2.INTER_LINEAR) for layer in (drawing.text, drawing.back))
    return Drawing(text, back, (x0, y0 - max(rise, 0), x1, y1 - min(rise, 0)))


def _cut_out(drawing: Drawing, rng: np.random.Generator) -> Drawing:
    """Cut the crop around the text with margins from slightly too tight to loose."""
    x0, y0, x1, y1 = drawing.box
    tall = y1 - y0
    loose = rng.random() < 0.5
    above, below = tall * rng.uniform(-0.03, 0.35 if loose else 0.12, 2)
    left, right = tall * rng.uniform(-0.05, 0.5 if loose else 0.15, 2)
    top, left = max(int(y0 - above), 0), max(int(x0 - left), 0)
    bottom, right = max(int(y1 + below), top + 4), max(int(x1 + right), left + 4)
    rows, columns = slice(top, bottom), slice(left, right)
    return Drawing(drawing.text[rows, columns], drawing.back[rows, columns], (x0 - left, y0 - top, x1 - left, y1 - top))


# --- 3. coverage -> colours -> photograph -----------------------------------------------------------------------


def _paint(drawing: Drawing, rng: np.random.Generator) -> np.ndarray:
    """Put coloured text on a coloured ground: float32 BGR [H, W, 3]."""
    ground_colour, ink_colour = colours(rng)
    picture = ground(drawing.text.shape, ground_colour, rng)
    if drawing.back.any():
        edge = ground_colour * rng.uniform(0, 0.6) if rng.random() < 0.6 else colours(rng)[0]
        picture = cover(picture, drawing.back, edge)
    return cover(picture, drawing.text, ink_colour)


def _photograph(picture: np.ndarray, height: int, rng: np.random.Generator) -> np.ndarray:
    """Blur, bring to the crop's height, then light, noise and JPEG: uint8 BGR."""
    tall = picture.shape[0]
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), max(0.1, tall * rng.uniform(0.0, 0.05)))
    if rng.random() < 0.15:
        length = max(2, round(tall * rng.uniform(0.03, 0.2)))
        picture = cv2.blur(picture, (length, 1) if rng.random() < 0.6 else (1, length))
    picture = _bring_to_height(picture, height)
    return expose(picture, rng)


def _bring_to_height(picture: np.ndarray, height: int) -> np.ndarray:
    tall, wide = picture.shape[:2]
    size = (max(4, round(wide * height / tall)), height)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if height < tall else cv2.INTER_LINEAR)
