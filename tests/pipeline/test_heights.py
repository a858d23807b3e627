"""The height at which a recogniser is surest, on the images that it takes at every height that is compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest

from compress.data.processing import Processing
from compress.errors import ModelError
from compress.measure.session import Session
from compress.pipeline.heights import surest_height

USUAL = (3, 32, 64)


class Reader:
    """Two steps of three classes, a blank and the second class; what it is fed says how sure it is."""

    def __init__(self, sure: Callable[[int, int], float | None]) -> None:
        self.sure, self.fed = sure, []  # type: ignore[var-annotated]

    def run(self, images: np.ndarray) -> np.ndarray:
        height, width = images.shape[2:]
        self.fed.append((height, width))
        sure = self.sure(height, width)
        if sure is None:
            raise ModelError("not this size")
        rest = (1 - sure) / 2
        return np.array([[[1.0, 0.0, 0.0], [rest, sure, rest]]], np.float32)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Crops twice and eight times as wide as high."""
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    assert all(
        cv2.imwrite(str(path), np.zeros((10, wide, 3), np.uint8)) for path, wide in zip(paths, (20, 80), strict=True)
    )
    return paths


def found(reader: Reader, files: list[Path], **options: Any) -> tuple[int, dict[int, float], int]:
    result = surest_height(cast(Session, reader), files, USUAL, (32, 48), Processing(), **options)
    return result.height, {height: round(sure, 4) for height, sure in result.sure.items()}, result.images


@pytest.mark.parametrize(("sure", "height"), [(0.925, 48), (0.915, 32), (0.5, 32)])
def test_another_height_must_be_surer_by_far(files: list[Path], sure: float, height: int) -> None:
    reader = Reader(lambda rows, _: 0.9 if rows == 32 else sure)
    assert found(reader, files) == (height, {32: 0.9, 48: sure}, 2)
    assert reader.fed == [(32, 64), (32, 256), (48, 96), (48, 384)], "ratio kept"


def test_only_images_that_every_height_takes_are_compared(files: list[Path]) -> None:
    """The wide crop alone: at height 32 the other is too narrow."""
    reader = Reader(lambda rows, width: None if width < 90 else 0.7 if rows == 32 else 0.8)
    assert found(reader, files) == (48, {32: 0.7, 48: 0.8}, 1)


@pytest.mark.parametrize("fails", [{48}, {32, 48}])
def test_heights_that_it_does_not_take_are_left_out(files: list[Path], fails: set[int]) -> None:
    height, sure, _ = found(Reader(lambda rows, _: None if rows in fails else 0.5), files)
    assert height == 32
    assert sure.keys() == {32, 48} - fails


def test_where_only_another_height_runs_the_usual_one_stays(files: list[Path]) -> None:
    assert found(Reader(lambda rows, _: None if rows == 32 else 0.9), files)[0] == 32


def test_of_one_width_all_are_fed_so(files: list[Path]) -> None:
    reader = Reader(lambda rows, _: 0.2 + rows / 100)
    assert found(reader, files, one_width=True) == (48, {32: 0.52, 48: 0.68}, 2)
    assert {width for _, width in reader.fed} == {64}


@pytest.mark.parametrize("names", [[], ["none.png"]])
def test_without_images(tmp_path: Path, names: list[str]) -> None:
    assert found(Reader(lambda *_: 0.9), [tmp_path / name for name in names]) == (32, {}, 0)


def test_nothing_read_is_not_sure(files: list[Path]) -> None:
    """All blanks at 48."""
    reader = Reader(lambda rows, _: 0.6 if rows == 32 else 0.0)
    assert found(reader, files) == (32, {32: 0.6, 48: 0.0}, 2)
