"""Rendered sets on disk: each image from its own seed, the list last."""

import pytest

from compress.data.rendered import write_rendered
from compress.errors import OutputError


def render(rng):
    number = int(rng.integers(10**9))
    return str(number).encode(), f"n{number}"


def test_image_i_depends_on_seed_and_i_alone(tmp_path):
    short = write_rendered(tmp_path / "short", 2, 1, render=render, suffix=".dat")
    long = write_rendered(tmp_path / "long", 4, 1, render=render, suffix=".dat")
    assert long.read_text().startswith(short.read_text())
    for line in long.read_text().splitlines():
        name, label = line.split("\t")
        assert "n" + (tmp_path / "long" / name).read_text() == label
    assert len({line.split("\t")[1] for line in long.read_text().splitlines()}) == 4


def test_where_the_list_exists_the_set_is_whole(tmp_path):
    def stopped(rng):
        if len(list((tmp_path / "images").iterdir())) == 2:
            raise KeyboardInterrupt
        return render(rng)

    with pytest.raises(KeyboardInterrupt):
        write_rendered(tmp_path, 3, 1, render=stopped, suffix=".dat")
    assert not (tmp_path / "labels.txt").exists()


def test_progress_is_told(tmp_path):
    seen = []
    write_rendered(tmp_path, 2, 1, render=render, suffix=".dat", on_progress=lambda *call: seen.append(call))
    assert seen == [(1, 2, f"rendering into {tmp_path}"), (2, 2, f"rendering into {tmp_path}")]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/images: cannot be made .*Choose a folder you may write to"):
        write_rendered(tmp_path / "file", 1, 0, render=render, suffix=".dat")
