"""Lists that share images: found by content, named, and refused unless allowed."""

from pathlib import Path

import pytest

from compress.data import overlap
from compress.data.labels import ListRules
from compress.data.overlap import Stored, check_overlap, digest_of, shared_images, stored_files
from compress.errors import DataError

ALLOWED = ListRules(allow_overlap=True)


def write(folder: Path, **contents: bytes) -> tuple[Stored, ...]:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return stored_files(folder / name for name in contents)


def test_equal_files_are_found_whatever_their_names(tmp_path: Path) -> None:
    one = write(tmp_path / "one", a=b"same", b=b"other", c=b"long enough")
    other = write(tmp_path / "other", a=b"four", x=b"same", y=b"same", z=b"once more")
    assert [(there.path.name, here.path.name) for there, here in shared_images(one, other)] == [("a", "x"), ("a", "y")]


def test_only_files_of_equal_size_are_read(tmp_path: Path) -> None:
    one, other = write(tmp_path / "one", a=b"1", b=b"22"), write(tmp_path / "other", c=b"333", d=b"22")
    for path in (one[0].path, other[0].path):
        path.unlink()
    assert len(shared_images(one, other)) == 1


def test_a_record_that_is_no_file_is_known_by_its_digest(tmp_path: Path) -> None:
    """As of an LMDB folder."""
    record = Stored(tmp_path / "db" / "image-000000001", 4, digest_of(b"same"))
    assert shared_images([record], write(tmp_path / "one", a=b"same"))[0][0] is record


def test_training_and_validation_may_not_share_images(tmp_path: Path) -> None:
    lists = {"train": write(tmp_path / "train", a=b"same", b=b"b"), "val": write(tmp_path / "val", x=b"same", y=b"yy")}
    message = (
        r"^val: 1 of 2 images is in train, too, the first is .*val/x \(there .*train/a\). A score on images that were "
        r"learned from, or that something was chosen by, proves nothing. .*data.allow_overlap \(--allow-overlap\).$"
    )
    with pytest.raises(DataError, match=message):
        check_overlap(lists, ListRules())
    (line,) = check_overlap(lists, ALLOWED)
    assert line.startswith("val: 1 of 2 images is in train, too, the first is ")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("train", "unlabelled"), False),
        (("unlabelled", "val"), True),
        (("train", "test"), True),
        (("val", "test"), True),
    ],
)
def test_which_lists_may_share_images(tmp_path: Path, names: tuple[str, str], found: bool) -> None:
    lists = {name: write(tmp_path / name, a=b"same") for name in names}
    assert bool(check_overlap(lists, ALLOWED)) == found


def test_nothing_shared(tmp_path: Path) -> None:
    lists = {"train": write(tmp_path / "train", a=b"a"), "val": write(tmp_path / "val", a=b"b"), "unlabelled": ()}
    assert check_overlap(lists, ListRules()) == ()


def test_of_very_many_files_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / f"{number}.png" for number in range(10)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (number + 1))
    assert list(overlap.file_contents(files)) == [b"x" * (number + 1) for number in range(10)]
    monkeypatch.setattr(overlap, "READ_WHOLE", 5)
    monkeypatch.setattr(overlap, "SAMPLED", 2)
    found = list(overlap.file_contents(files))
    assert found[:6] == [b"x", b"1.png 2", b"2.png 3", b"3.png 4", b"4.png 5", b"x" * 6]
    files[3].write_bytes(b"y" * 40)
    assert list(overlap.file_contents(files)) != found
