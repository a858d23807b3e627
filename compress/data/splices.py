"""Crops put together of pieces of other crops: more text in the same hand, for a network to learn from its teacher.

A few hundred crops are a few hundred texts, and a recogniser that is trained near the original on them alone learns
them by heart. Pieces cut out at random places and put side by side have the fonts, the paper and the light of the
images that are read, in ever other texts; what the original reads in them is their label. Measured: docs/recovery.md.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from compress.artifacts import check_writable, write_atomic
from compress.data.images import read_image
from compress.data.rendered import write_rendered
from compress.errors import DataError, OutputError
from compress.progress import Progress

HEIGHT = 64
"""Of the crops made, in pixels."""
TOTAL = (2.0, 9.0)
"""Least and largest width of a crop, in its heights, before the last piece is whole."""
PIECE = (1.0, 5.0)
"""Least and largest width of a piece, in heights; a crop that is less wide is taken whole."""
MOST_PIECES = 4
SOURCES = ".sources"
"""In a folder of spliced crops: what they are made of."""


def splice(crops: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """One crop uint8 BGR [HEIGHT, W, 3] of up to four pieces of crops of that height."""
    total, width = rng.uniform(*TOTAL) * HEIGHT, 0
    pieces: list[np.ndarray] = []
    while width < total and len(pieces) < MOST_PIECES:
        crop = crops[int(rng.integers(len(crops)))]
        wide = min(crop.shape[1], int(rng.uniform(*PIECE) * HEIGHT))
        left = int(rng.integers(crop.shape[1] - wide + 1))
        pieces.append(crop[:, left : left + wide])
        width += wide
    return np.concatenate(pieces, axis=1)


def write_spliced(
    folder: Path, files: Sequence[Path], count: int, seed: int, *, on_progress: Progress | None = None
) -> Path:
    """Write `count` spliced crops and `labels.txt`, without texts, into a folder; return the list's path.

    Crop i depends on (seed, i) and the files' contents, in their order, alone. A folder that was made of the same stays
    as it is.

    Args:
        folder: made if it is not there.
        files: images of crops; those that cannot be decoded are left out.
        count: number of crops to make.
        seed: of all of them.
        on_progress: called as (done, total, message).

    Raises:
        DataError: none of the files can be decoded.
        OutputError: the folder cannot be written, or holds other files.
    """
    digest = hashlib.sha256(f"{count} {seed}".encode())
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    marker, listed = folder / SOURCES, folder / "labels.txt"
    if folder.is_dir() and any(folder.iterdir()) and not marker.is_file():
        raise OutputError(f"{folder}: holds other files. Give a new or an empty folder with --out.")
    if listed.is_file() and marker.read_text() == digest.hexdigest():
        return listed
    crops = [_at_height(image) for image in map(read_image, files) if image is not None]
    if not crops:
        raise DataError(f"{files[0].parent if files else folder}: no crops to cut pieces from. Give images of text.")

    def made(rng: np.random.Generator) -> tuple[bytes, str]:
        return cv2.imencode(".png", splice(crops, rng))[1].tobytes(), ""

    check_writable(folder)
    listed.unlink(missing_ok=True)
    if marker.is_file() and marker.read_text() != digest.hexdigest():
        for stale in (folder / "images").glob("*.png"):
            stale.unlink()
    write_atomic(marker, digest.hexdigest().encode())
    return write_rendered(folder, count, seed, render=made, suffix=".png", on_progress=on_progress, verb="splicing")


def is_spliced(path: Path) -> bool:
    """Whether a folder, or the one that a label list lies in, was made by `write_spliced`."""
    return ((path if path.is_dir() else path.parent) / SOURCES).is_file()


def _at_height(image: np.ndarray) -> np.ndarray:
    """A crop at the common height."""
    height, width = image.shape[:2]
    how = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_LINEAR
    return cv2.resize(image, (max(1, round(width * HEIGHT / height)), HEIGHT), interpolation=how)
