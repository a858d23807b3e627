"""Image files before they are decoded: how large they will be, and whether that is too much."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

MAX_PIXELS = 80_000_000
"""A JPEG with more is decoded at half its size, which takes no memory for the whole; other images, and those with
twice as many, are skipped. 80 megapixels take 240 MB, and that again to turn and resize."""
TOO_LARGE = f"larger than {MAX_PIXELS // 10**6} megapixels (JPEG: {2 * MAX_PIXELS // 10**6})"
REDUCTIONS = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2}
ORIENTATION, SIDEWAYS = 0x0112, range(5, 9)
"""EXIF's key, and its values that swap width and height. Images are turned as it says, as in PaddleOCR."""


@dataclass(frozen=True)
class Header:
    """Size of an image as it will be decoded, in pixels, and its format as Pillow calls it."""

    height: int
    width: int
    kind: str


def read_header(source: Path | bytes) -> Header | None:
    """What the header of an image file, or of a file's bytes, says; None where there is none. No pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MAX_PIXELS deals with large images, None with damaged ones
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                # Of a PNG, its own `getexif` would decode all pixels. Of a TIFF, the size is the turned one already.
                turned = image.format != "TIFF" and Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
                height, width = (image.width, image.height) if turned else (image.height, image.width)
                return Header(height, width, str(image.format))
    except Image.DecompressionBombError:
        return Header(MAX_PIXELS, MAX_PIXELS, "")  # more than the limit, whatever it is
    except Exception:  # Pillow raises many kinds for damaged headers; all mean the same
        return None


def reduction(header: Header) -> int | None:
    """By which factor to shrink an image while decoding; None where it is too large all the same."""
    pixels = header.height * header.width
    if pixels <= MAX_PIXELS:
        return 1
    return 2 if header.kind == "JPEG" and pixels <= 2 * MAX_PIXELS else None
