"""Ink, colour, ground and light: what rendered word crops and rendered scenes are drawn with.

All choices come from a generator; the same one gives the same pixels on the same versions of Pillow and OpenCV.
The fonts are those that come with matplotlib (DejaVu, STIX, Computer Modern).
"""

from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

SANS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique", "cmss10")
SERIF = (
    *("DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic", "cmr10", "cmb10", "cmti10"),
    *("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta"),
)
MONO = ("DejaVuSansMono", "DejaVuSansMono-Bold", "cmtt10")
Point = tuple[float, float]


@cache
def load_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of matplotlib's, `size` pixels per em."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def choose_face(text: str, rng: np.random.Generator) -> str:
    """Name of a font that has the text's characters: sans-serif, serif, or now and then typewriter."""
    names = pick((SANS, SERIF, MONO), (0.6, 0.32, 0.08), rng)
    # Computer Modern has no ordinary ASCII punctuation.
    usable = [name for name in names if text.isalnum() or not name.startswith("cm")]
    return usable[rng.integers(len(usable))]


def write_line(
    image: Image.Image, text: str, start: Point, font: ImageFont.FreeTypeFont, spacing: float, stroke: int
) -> None:
    """Write letter by letter, so that spacing can vary."""
    pen = ImageDraw.Draw(image)
    x, y = start
    for letter in text:
        pen.text((x, y), letter, fill=255, font=font, stroke_width=stroke)
        x += font.getlength(letter) + spacing


def cover(picture: np.ndarray, coverage: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Paint a colour (BGR) on a picture [H, W, 3] where the coverage [H, W] in 0..255 says."""
    share = coverage.astype(np.float32)[:, :, None] / 255
    return picture + share * (colour.astype(np.float32) - picture)


def colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ground and ink, BGR in 0..255: brightness apart by 30 (hardly readable) to 255."""
    apart = rng.uniform(30, 110) if rng.random() < 0.35 else rng.uniform(90, 255)
    low = rng.uniform(0, 255 - apart)
    levels = np.array([low, low + apart])[:: 1 if rng.random() < 0.5 else -1]
    return tint(levels[0], rng), tint(levels[1], rng)


def tint(level: float, rng: np.random.Generator) -> np.ndarray:
    """A colour of about this brightness: grey in four cases of ten."""
    weights = np.array([0.114, 0.587, 0.299])
    hue = rng.uniform(-1, 1, 3) * (rng.uniform(0, 160) if rng.random() < 0.6 else 4)
    return np.clip(level + hue - weights @ hue, 0, 255)


def ground(shape: tuple[int, ...], colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A plain ground, or one with a gradient, blotches, grain, or a second colour beyond an edge."""
    height, width = shape
    surface = np.empty((height, width, 3), np.float32)
    surface[:] = colour
    if rng.random() < 0.5:
        surface += field(2, rng.uniform(5, 60), shape, rng)
    if rng.random() < 0.35:
        surface += field(int(rng.integers(3, 9)), rng.uniform(5, 50), shape, rng)
    if rng.random() < 0.2:
        surface += field(max(height // 2, 2), rng.uniform(3, 25), shape, rng)
    if rng.random() < 0.15:
        angle, offset = rng.uniform(0, np.pi), rng.uniform(0.3, 0.5)
        x, y = np.meshgrid(np.linspace(-0.5, 0.5, width), np.linspace(-0.5, 0.5, height))
        surface[np.cos(angle) * x + np.sin(angle) * y > offset] = tint(rng.uniform(0, 255), rng)
    return surface


def field(cells: int, depth: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Smooth random brightness [H, W, 1] of ±depth, from `cells` x `cells` values."""
    values = rng.uniform(-depth, depth, (cells, cells)).astype(np.float32)
    return cv2.resize(values, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)[:, :, None]


def expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Light, noise and JPEG on float32 BGR [H, W, 3]: uint8."""
    if rng.random() < 0.3:
        picture = picture * rng.uniform(0.25, 1.3) + rng.uniform(-10, 20)
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    picture = picture + noise * np.float32(rng.uniform(0, 4) if rng.random() < 0.7 else rng.uniform(4, 18))
    image = np.clip(picture, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 95))])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return image


def pick(choices: tuple[tuple[str, ...], ...], shares: tuple[float, ...], rng: np.random.Generator) -> tuple[str, ...]:
    """One of the choices, each as often as its share says."""
    return choices[int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares)))]
