"""Single images that went worst, drawn and written as files that the report's pages show."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import cv2
import numpy as np

from compress import artifacts
from compress.artifacts import Gallery, Picture, Reading
from compress.tasks.base import Case, Mark, MarkKind

MAX_SIDE = 1000
"""Pictures are shrunk to this many pixels, so that a report stays a few megabytes."""
JPEG_QUALITY = 80
NAME_CHARACTERS = 40
COLOURS: dict[MarkKind, str] = {
    "ignored": "#999999",
    "label": "#009e73",
    "found": "#0072b2",
    "missed": "#d55e00",
    "wrong": "#cc00aa",
}
"""In the order they are drawn: what went wrong lies on top. Told apart by the colour-blind, too (Okabe and Ito)."""


def worst_cases(examined: Sequence[Sequence[Case]], count: int) -> list[tuple[Case, ...]]:
    """The images that the last model did worst on: by its error, then by how much worse it did than the first one.

    Args:
        examined: each model's cases, all of the same images in the same order.
        count: at most so many; images that every model got right are none of them.

    Returns:
        For each image its case by each model.
    """
    faulty = [cases for cases in zip(*examined, strict=True) if any(case.error > 0 for case in cases)]
    return sorted(faulty, key=lambda cases: (-cases[-1].error, cases[0].error - cases[-1].error))[:count]


def write_gallery(
    page_folder: Path,
    examined: Mapping[str, Sequence[Case]],
    picture: Callable[[Case], np.ndarray],
    *,
    count: int,
    error_name: str,
    subfolder: str = "",
    previous: Gallery | None = None,
) -> Gallery:
    """Write the pictures of the worst cases, and say what is on them.

    Args:
        page_folder: where the page lies that will show them.
        examined: model -> its cases (see `worst_cases`); the model in question is the last.
        picture: the image of a case, uint8 BGR [h, w, 3].
        count: at most so many images.
        error_name: what errors measure.
        subfolder: where in `page_folder` the files go.
        previous: the gallery that lies there from earlier; its files are removed.

    Raises:
        OutputError: a file cannot be written.
    """
    _remove(page_folder, previous)
    cases = list(examined.values())
    pictures = tuple(
        _write_picture(
            page_folder, subfolder, f"{rank:0{max(2, len(str(count)))}}", tuple(examined), chosen, picture(chosen[0])
        )
        for rank, chosen in enumerate(worst_cases(cases, count), start=1)
    )
    differences = [last.error - first.error for first, last in zip(cases[0], cases[-1], strict=True)]
    return Gallery(
        models=tuple(examined),
        error_name=error_name,
        images=len(cases[0]),
        wrong=tuple(sum(case.error > 0 for case in of_model) for of_model in cases),
        lost=sum(first.error == 0 < last.error for first, last in zip(cases[0], cases[-1], strict=True)),
        mended=sum(last.error == 0 < first.error for first, last in zip(cases[0], cases[-1], strict=True)),
        worse=sum(difference > 0 for difference in differences),
        better=sum(difference < 0 for difference in differences),
        pictures=pictures,
    )


def _write_picture(
    page_folder: Path, subfolder: str, rank: str, models: Sequence[str], cases: Sequence[Case], image: np.ndarray
) -> Picture:
    """One image for all models, or one for each where there is something to draw."""
    stem = f"{rank}-{_plain(Path(cases[0].name).stem)}"
    drawn = any(case.marks is not None for case in cases)
    files = []
    for model, case in zip(models, cases, strict=True) if drawn else ():
        files.append(str(PurePosixPath(subfolder) / f"{stem}-{_plain(model)}.jpg"))
        artifacts.write_atomic(page_folder / files[-1], _encode(draw_marks(image, case.marks or ()), ".jpg"))
    whole = "" if drawn else str(PurePosixPath(subfolder) / f"{stem}.png")
    if whole:
        artifacts.write_atomic(page_folder / whole, _encode(shrink(image), ".png"))
    readings = tuple(
        Reading(case.found, case.error, file) for case, file in zip(cases, files or [""] * len(cases), strict=True)
    )
    return Picture(cases[0].name, cases[0].label, readings, whole)


def _remove(page_folder: Path, previous: Gallery | None) -> None:
    """Files of an earlier gallery, which a shorter one would leave behind."""
    for picture in previous.pictures if previous else ():
        for file in (picture.file, *(reading.file for reading in picture.readings)):
            path = page_folder / file
            # The list comes from a file that may have been edited: nothing else is touched.
            if path.suffix in (".png", ".jpg") and path.resolve().is_relative_to(page_folder.resolve()):
                path.unlink(missing_ok=True)


def _plain(text: str) -> str:
    """
    >>> _plain("straße 7/ä"), _plain("onnxruntime int8")
    ('stra-e-7', 'onnxruntime-int8')
    """
    return re.sub(r"[^A-Za-z0-9._]+", "-", text)[:NAME_CHARACTERS].strip("-.") or "image"


def draw_marks(image: np.ndarray, marks: Sequence[Mark]) -> np.ndarray:
    """Outline regions on a copy of uint8 BGR [h, w, 3], shrunk first, so that lines are as wide on every picture."""
    canvas = np.ascontiguousarray(shrink(image)).copy()
    scale = np.array([canvas.shape[1] / image.shape[1], canvas.shape[0] / image.shape[0]])
    for kind, colour in COLOURS.items():
        red, green, blue = bytes.fromhex(colour[1:])
        corners = [np.rint(mark.points * scale).astype(np.int32) for mark in marks if mark.kind == kind]
        width = 2 if kind in ("missed", "wrong") else 1
        cv2.polylines(canvas, corners, isClosed=True, color=(blue, green, red), thickness=width, lineType=cv2.LINE_AA)
    return canvas


def shrink(image: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """Shrink [h, w, 3] so that no side is above `max_side`, ratio kept; smaller images stay as they are."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _encode(image: np.ndarray, suffix: str) -> bytes:
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix == ".jpg" else []
    _, data = cv2.imencode(suffix, image, settings)
    return data.tobytes()
