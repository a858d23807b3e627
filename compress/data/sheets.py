"""Flat things with text on them, for rendered scenes: receipts, signs, and words without any ground.

A sheet is drawn straight and at its own size; `compress.data.synthetic_scenes` puts it into a scene.
"""

import string
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from compress.data.drawing import choose_face, colours, cover, ground, load_font, tint, write_line
from compress.data.regions import IGNORED, Region
from compress.data.texts import random_text

ILLEGIBLE = "###"
ILLEGIBLE_EM = 8
"""Pixels per em at which print is so small that its regions are labelled as not to be counted."""
WORD_GAP = (0.25, 0.4)
"""Words of one region are this far apart, in em; columns at least COLUMN_GAP."""
COLUMN_GAP = 1.5

LEAST_CONTRAST = 60
"""Between letters and board, in grey levels."""


@dataclass(frozen=True)
class Sheet:
    """Colours float32 BGR [H, W, 3], how far they cover the scene uint8 [H, W], and regions in these pixels."""

    picture: np.ndarray
    coverage: np.ndarray
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class Style:
    """How a sheet's lines are written: font's name, letter spacing and word gap in em, stroke in pixels."""

    face: str
    spacing: float
    gap: float
    stroke: int


def draw_receipt(height: int, width: int, rng: np.random.Generator) -> Sheet:
    """Rows of small print on paper, [H, W] at most of the size given: names, prices in columns, ruled lines."""
    style = choose_style(rng)
    em = int(rng.integers(14, 25))
    ink = np.zeros((height, width), np.uint8)
    regions: list[Region] = []
    margin = int(em * rng.uniform(0.5, 1.5))
    top = margin
    while top < height - 2.5 * em - margin:
        kind = rng.random()
        if kind < 0.08:
            _rule(ink, top, margin, rng)
            top += int(em * 0.6)
            continue
        low = _write_row(ink, regions, top, margin, em, style, rng)
        top = low + int(em * rng.uniform(0.3, 1.6 if kind < 0.25 else 0.8))
    paper, print_colour = tint(rng.uniform(170, 255), rng), tint(rng.uniform(0, 110), rng)
    picture = cover(ground(ink.shape, 0.6 * paper + 0.4 * paper.mean(), rng), ink, print_colour)
    return _cut(Sheet(picture, np.full_like(ink, 255), tuple(regions)), min(top + margin, height), width)


def draw_sign(height: int, width: int, rng: np.random.Generator) -> Sheet | None:
    """One to three lines on a coloured board; None where the size given holds none."""
    em = int(min(rng.lognormal(np.log(34), 0.4), 0.6 * height, 90))
    aligned = rng.choice([0.0, 0.5])
    lines = []
    for _ in range(rng.integers(1, 4)):
        size = max(int(em * rng.uniform(0.5, 1.0)), 14)
        lines.append(write_words(words_of(int(rng.integers(1, 4)), rng), size, choose_style(rng)))
    margin = int(em * rng.uniform(0.3, 0.9))
    lines = [line for line in lines if line[0].shape[1] + 2 * margin <= width]
    gaps = [int(em * rng.uniform(0.25, 0.7)) for _ in lines]
    tall = 2 * margin + sum(line[0].shape[0] for line in lines) + sum(gaps[1:])
    if not lines or tall > height:
        return None
    ink = np.zeros((tall, 2 * margin + max(line[0].shape[1] for line in lines)), np.uint8)
    regions: list[Region] = []
    top = margin
    for (coverage, text), gap in zip(lines, [*gaps[1:], 0], strict=True):
        left = margin + int(aligned * (ink.shape[1] - 2 * margin - coverage.shape[1]))
        regions.append(_put(ink, coverage, left, top, text))
        top += coverage.shape[0] + gap
    board, letters = _legible_colours(rng)
    picture = cover(ground(ink.shape, board, rng), ink, letters)
    if rng.random() < 0.4:
        inset = margin // 4
        corner = (ink.shape[1] - 1 - inset, ink.shape[0] - 1 - inset)
        cv2.rectangle(picture, (inset, inset), corner, letters.tolist(), max(1, em // 20))
    return Sheet(picture, np.full_like(ink, 255), tuple(regions))


def _legible_colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Board and letters; what can hardly be told apart is drawn again."""
    while True:
        board, letters = colours(rng)
        if abs(board.mean() - letters.mean()) > LEAST_CONTRAST:
            return board, letters


def draw_words(width: int, below: float, rng: np.random.Generator) -> Sheet | None:
    """One line with nothing behind it, of a brightness away from what will be `below` it; None where it is too wide."""
    em = int(np.clip(rng.lognormal(np.log(32), 0.45), 14, 90))
    coverage, text = write_words(words_of(int(rng.integers(1, 4)), rng), em, choose_style(rng))
    pad = max(em // 12, 1) + 1
    ink = np.pad(coverage, pad)
    if ink.shape[1] > width:
        return None
    apart = rng.uniform(70, 160)
    brighter = below < 128 if rng.random() < 0.8 or not 80 < below < 175 else below >= 128
    letters = tint(float(np.clip(below + (apart if brighter else -apart), 0, 255)), rng)
    picture = np.empty((*ink.shape, 3), np.float32)
    picture[:] = letters
    region = _region(pad, pad, coverage.shape, text)
    if rng.random() < 0.3:
        edge = tint(0.0 if brighter else 255.0, rng)
        outer = cv2.dilate(ink, np.ones((2 * pad - 1, 2 * pad - 1), np.uint8))
        picture[:] = edge
        return Sheet(cover(picture, ink, letters), outer, (region,))
    return Sheet(picture, ink, (region,))


def words_of(count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Texts with at least two letters or digits each: marks alone are too small to be found."""
    words: list[str] = []
    while len(words) < count:
        word = random_text(rng, directed=False)
        if sum(letter.isalnum() for letter in word) >= 2:
            words.append(word)
    return tuple(words)


def choose_style(rng: np.random.Generator) -> Style:
    """A font that has all characters of ASCII, and how to set it."""
    spacing = rng.uniform(-0.03, 0.03) if rng.random() < 0.8 else rng.uniform(0.03, 0.15)
    return Style(
        choose_face(string.punctuation, rng), spacing, spacing + rng.uniform(*WORD_GAP), int(rng.random() < 0.15)
    )


def write_words(words: Sequence[str], em: int, style: Style) -> tuple[np.ndarray, str]:
    """Write words in one line: coverage uint8 [H, W], cut to the ink, and the text."""
    font = load_font(style.face, em)
    spacing = em * style.spacing
    widths = [sum(font.getlength(letter) + spacing for letter in word) for word in words]
    size = (int(sum(widths) + em * style.gap * len(words)) + 2 * em, 3 * em)
    line = Image.new("L", size)
    left = float(em)
    for word, width in zip(words, widths, strict=True):
        write_line(line, word, (left, 0.8 * em), font, spacing, style.stroke)
        left += width + em * style.gap
    box = line.getbbox()
    assert box is not None, "the fonts have a glyph for every letter and digit"
    return np.asarray(line.crop(box)), " ".join(words)


def _write_row(
    ink: np.ndarray,
    regions: list[Region],
    top: int,
    margin: int,
    em: int,
    style: Style,
    rng: np.random.Generator,
) -> int:
    """Write a heading, a line, or columns at this height; returns where the row ends."""
    room = ink.shape[1] - 2 * margin
    kind = rng.random()
    if kind < 0.06:
        parts = [_fitting(int(rng.integers(2, 7)), room, ILLEGIBLE_EM, style, rng)]
    elif kind < 0.25:
        parts = [_fitting(int(rng.integers(1, 4)), room, int(em * rng.uniform(1.0, 1.7)), style, rng)]
    elif kind < 0.55:
        parts = [_fitting(int(rng.integers(1, 6)), room, em, style, rng)]
    else:
        columns = int(rng.integers(2, 4))
        share = int(room / columns - COLUMN_GAP * em)
        parts = [_fitting(int(rng.integers(1, 3)), share, em, style, rng) for _ in range(columns)]
    low = top
    for index, part in enumerate(parts):
        if part is None:
            continue
        coverage, text = part
        spare = room - coverage.shape[1]
        if len(parts) > 1:
            # The first column stands left, the last right, those between at their share.
            left = int(spare) if index == len(parts) - 1 else index * room // len(parts)
        else:
            left = spare // 2 if kind < 0.25 else 0
        regions.append(_put(ink, coverage, margin + left, top, ILLEGIBLE if kind < 0.06 else text))
        low = max(low, top + coverage.shape[0])
    return low


def _fitting(count: int, room: int, em: int, style: Style, rng: np.random.Generator) -> tuple[np.ndarray, str] | None:
    """As many of `count` words as fit, or none."""
    words = words_of(count, rng)
    for kept in range(count, 0, -1):
        coverage, text = write_words(words[:kept], em, style)
        if coverage.shape[1] <= room:
            return coverage, text
    return None


def _rule(ink: np.ndarray, top: int, margin: int, rng: np.random.Generator) -> None:
    """A ruled line, whole or dashed."""
    dash = int(rng.integers(2, 10)) if rng.random() < 0.5 else ink.shape[1]
    for left in range(margin, ink.shape[1] - margin, 2 * dash):
        ink[top : top + int(rng.integers(1, 3)), left : min(left + dash, ink.shape[1] - margin)] = 220


def _put(ink: np.ndarray, coverage: np.ndarray, left: int, top: int, text: str) -> Region:
    height, width = coverage.shape
    part = ink[top : top + height, left : left + width]
    np.maximum(part, coverage[: part.shape[0], : part.shape[1]], out=part)
    return _region(left, top, coverage.shape, text)


def _region(left: int, top: int, shape: tuple[int, ...], text: str) -> Region:
    """The ink's box and a pixel around it."""
    x0, y0, x1, y1 = left - 1, top - 1, left + shape[1] + 1, top + shape[0] + 1
    return Region(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32), text, text in IGNORED)


def _cut(sheet: Sheet, height: int, width: int) -> Sheet:
    return Sheet(sheet.picture[:height, :width], sheet.coverage[:height, :width], sheet.regions)
