"""Spliced crops: of the given ones alone, the same for the same seed, and made again when these change."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from compress.data.splices import HEIGHT, MOST_PIECES, PIECE, TOTAL, splice, write_spliced
from compress.data.unlabelled import load_unlabelled
from compress.errors import DataError, OutputError


def crops(folder: Path, count: int = 4) -> list[Path]:
    """Crops of one shade each, wide and narrow, high and low."""
    folder.mkdir(exist_ok=True)
    files = []
    for index in range(count):
        files.append(folder / f"{index}.png")
        shape = (20 + 30 * index, 30 + 100 * index, 3)
        cv2.imwrite(str(files[-1]), np.full(shape, 40 * (index + 1), np.uint8))
    return files


def test_pieces_stand_side_by_side() -> None:
    shades = [np.full((HEIGHT, width, 3), shade, np.uint8) for shade, width in ((10, 40), (20, 200), (30, 900))]
    for seed in range(50):
        made = splice(shades, np.random.default_rng(seed))
        edges = np.flatnonzero(np.diff(made[0, :, 0].astype(int)))
        assert made.shape[0] == HEIGHT
        assert (made == made[:1]).all(), "nothing is resized or shifted upwards"
        assert set(np.unique(made)) <= {10, 20, 30}
        assert len(edges) < MOST_PIECES
        assert made.shape[1] < (TOTAL[1] + PIECE[1]) * HEIGHT


def test_a_list_without_texts_is_written(tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    out = tmp_path / "spliced"
    listed = write_spliced(out, crops(tmp_path / "in"), 5, 3, on_progress=lambda *now: seen.append(now))
    assert seen[-1] == (5, 5, f"splicing into {out}")
    loaded = load_unlabelled(listed)
    assert len(loaded.images) == 5
    assert all(image.shape[0] == HEIGHT for image in loaded.images)
    other = write_spliced(tmp_path / "again", crops(tmp_path / "in"), 5, 3)
    assert [file.read_bytes() for file in sorted(listed.parent.glob("images/*"))] == [
        file.read_bytes() for file in sorted(other.parent.glob("images/*"))
    ]


def test_made_again_only_of_other_images_or_numbers(tmp_path: Path) -> None:
    files = crops(tmp_path / "in")
    listed = write_spliced(tmp_path / "out", files, 3, 0)
    before = listed.stat().st_mtime_ns
    write_spliced(tmp_path / "out", files, 3, 0)
    assert listed.stat().st_mtime_ns == before
    write_spliced(tmp_path / "out", files[:3], 3, 0)
    assert listed.stat().st_mtime_ns > before
    assert len(write_spliced(tmp_path / "out", files, 2, 0).read_text().splitlines()) == 2
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2, "none of others is left"


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    files = crops(tmp_path / "in")
    with pytest.raises(OutputError, match="in: holds other files"):
        write_spliced(tmp_path / "in", files, 2, 0)
    assert sorted((tmp_path / "in").iterdir()) == sorted(files)


def test_a_stopped_call_goes_on(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    files = crops(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        write_spliced(tmp_path / "out", files, 3, 0, on_progress=stop)
    assert not (tmp_path / "out" / "labels.txt").exists()
    assert len(write_spliced(tmp_path / "out", files, 3, 0).read_text().splitlines()) == 3


def test_files_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    assert write_spliced(tmp_path / "out", [tmp_path / "bad.png", *crops(tmp_path / "in")], 2, 0).is_file()
    with pytest.raises(DataError, match="no crops to cut pieces from"):
        write_spliced(tmp_path / "none", [tmp_path / "bad.png"], 2, 0)
