"""Crops in tar archives: read by an index as the same crops in files are, and refused with one clear line."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from compress.artifacts import cache_folder
from compress.data import tar_index
from compress.data.file_names import find_archives, is_sharded
from compress.data.images import content_parts
from compress.data.labels import ListRules
from compress.data.lmdb_folder import load_list
from compress.data.scenes import load_scenes
from compress.data.shards import count_crops, load_shards, read_shards
from compress.data.streaming import count_images, stream_list
from compress.data.tar_index import make_index, read_index
from compress.data.unlabelled import list_images, load_unlabelled
from compress.errors import DataError
from tests.tasks.test_recognition import write_list

TEXTS = ["ab", "", "ba b", "é", "a" * 300]
LOOSE = ListRules(max_skipped=0.5)


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    """An archive with these members; a name with `#` behind it stands for one that is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name.partition("#")[0])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_shards(listed: Path, folder: Path, each: int = 2, prefix: str = "train") -> Path:
    """The crops of a label list in archives of so many; returns the pattern of all of them."""
    lines = [line.split("\t") for line in listed.read_text(encoding="utf-8").splitlines()]
    starts = range(0, len(lines), each)
    for number, start in enumerate(starts):
        members: dict[str, bytes] = {}
        for place, (image, text) in enumerate(lines[start : start + each], start):
            members[f"{place:05d}.png"] = (listed.parent / image).read_bytes()
            members[f"{place:05d}.txt"] = text.encode()
        write_tar(folder / f"{prefix}-{number:03d}.tar", members)
    return folder / f"{prefix}-{{000..{len(starts) - 1:03d}}}.tar"


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return write_list(tmp_path / "list", TEXTS)


@pytest.fixture
def image(listed: Path) -> bytes:
    return (listed.parent / "0.png").read_bytes()


# --- the same as in files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["train-{000..002}.tar", "train-*.tar", "train-00[0-9].tar", "."])
def test_the_same_crops_as_in_files(listed: Path, tmp_path: Path, pattern: str) -> None:
    write_shards(listed, tmp_path / "shards")
    path = tmp_path / "shards" / pattern
    whole, files = load_list(path, 6), load_list(listed, 6)
    assert content_parts([whole]) == content_parts([files])
    assert [stored.digest for stored in whole.stored] == [stored.digest for stored in files.stored]
    assert whole.warnings == files.warnings == ()
    assert whole.entries[2].image.name == "00002.png"
    streamed = stream_list(path, 6)
    assert count_images(path) == count_crops(path) == len(streamed) == len(TEXTS)
    assert list(streamed.texts) == TEXTS
    assert list(streamed.names)[1:3] == ["train-000.tar/00001.png", "train-001.tar/00002.png"]
    assert list(streamed.sizes) == [stored.size for stored in files.stored]
    for index, image in enumerate(files.images):
        found = streamed.image(index)
        assert found is not None
        assert np.array_equal(found, image)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_forms_of_archives(tmp_path: Path, image: bytes, form: int) -> None:
    """Names too long for a header, which each form has its own way for, and folders in the archive."""
    folder = f"{'f' * 90}/{'g' * 60}"
    name = f"{folder}/{'n' * 90 if form == tarfile.USTAR_FORMAT else 'é' * 120}"
    members = {f"{name}.png": image, "a/x.txt": b"two", f"{name}.txt": b"one\n", "a/x.JPG": image}
    found = make_index(write_tar(tmp_path / "a.tar", members, form))
    assert (found.names, found.texts) == ([f"{name}.png", "a/x.JPG"], ["one", "two"])
    with tarfile.open(tmp_path / "a.tar") as archive:  # where the reference finds them
        places = {member.name: member.offset_data for member in archive}
    assert found.offsets == [places[f"{name}.png"], places["a/x.JPG"]]
    assert found.complete


def test_texts(tmp_path: Path, image: bytes) -> None:
    texts = {
        "a.txt": "\ufeffone\r\n".encode(),
        "b.json": json.dumps({"text": "two"}).encode(),
        "c.cls": b"180",
        "d.txt": b" \n",
        "e.cls": b"no",
        "e.txt": b"yes",
        "f.txt": b"\xff",
        "g.json": b"[",
        "h.json": b'{"text": 3}',
        "i.json": b"[1]",
        "j.meta.json": b"{}",
        "k.json": b'{"text": "\\ud800"}',
    }
    images = {f"{key}.png": image for key in "abcdefghijk"}
    found = make_index(write_tar(tmp_path / "a.tar", {**texts, **images}))
    assert found.texts == ["one", "two", "180", "", "yes", *[None] * 6]


# --- the index --------------------------------------------------------------------------------------------------------


def test_an_index_is_made_once_for_each_state_of_an_archive(
    tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    path = write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"one"})
    made: list[Path] = []
    monkeypatch.setattr(tar_index, "make_index", lambda path: made.append(path) or make_index(path))
    first = read_index(path)
    assert read_index(path) == first
    assert made == [path]
    (kept,) = (cache_folder() / "shards").iterdir()
    kept.write_text("[]")  # damaged
    assert read_index(path) == first
    write_tar(path, {"a.png": image, "a.txt": b"two"})
    os.utime(path, ns=(1, 1))
    assert read_index(path).texts == ["two"]
    assert len(made) == 3


def test_a_cache_that_cannot_be_written(tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "file"))
    assert read_index(write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"one"})).texts == ["one"]


# --- what is wrong with archives --------------------------------------------------------------------------------------


def test_members_in_no_order_twice_and_without_their_other_half(tmp_path: Path, image: bytes) -> None:
    other = image[:-1] + b"!"
    members = {"b.txt": b"two", "a.png": image, "c.png": image, "b.png": image, "a.txt": b"one", "x.txt": b"alone"}
    path = write_tar(tmp_path / "a.tar", {**members, "b.png#": other, "readme.md": b""})
    found = read_shards(path, LOOSE)
    assert found.names == ["a.tar/a.png", "a.tar/b.png"]
    assert found.texts == ["one", "two"]
    assert found.source.read(1, "") == other  # the last one, as if it were unpacked
    loaded = load_shards(path, rules=LOOSE)
    assert loaded.warnings == (
        f"{path}: 1 of 4 images skipped, without a text member: a.tar/c.png",
        f"{path}: 1 of 4 images skipped, named twice: a.tar/b.png",
        f"{path}: 1 texts without an image: a.tar/x",
    )
    assert loaded.warnings == stream_list(path, rules=LOOSE).warnings
    assert loaded.total == stream_list(path, rules=LOOSE).total == 4
    for read in (load_list, stream_list):
        with pytest.raises(DataError, match=r"2 of 4 images are without a text member or named twice: "):
            read(path)
    assert [entry.text for entry in load_unlabelled(path, rules=LOOSE).entries] == ["", "", ""]


def test_a_damaged_image_is_skipped_and_counted(tmp_path: Path, image: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"one", "b.png": b"no image", "b.txt": b"two"})
    assert load_shards(path, rules=LOOSE).warnings == (f"{path}: 1 of 2 images skipped, unreadable: b.png",)
    with pytest.raises(DataError, match=r"1 of 2 images is unreadable: .*b\.png"):
        load_shards(path)


def test_damaged_archives_are_named_with_the_place(tmp_path: Path, image: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"one", "b.png": image, "b.txt": b"two"})
    whole = path.read_bytes()
    third = whole.index(b"b.png")
    path.write_bytes(whole[: third + 512 + 10])
    with pytest.raises(DataError, match=rf"a\.tar: damaged at byte {third + 512}: it ends within b\.png. Copy"):
        load_list(path)
    path.write_bytes(whole[:third] + b"?" * 100 + whole[third + 100 :])
    with pytest.raises(DataError, match=rf"a\.tar: damaged at byte {third}: no member begins there"):
        load_list(path)
    size = tarfile.itn(-512, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    header = whole[third : third + 124] + size + b" " * 20
    header = header[:148] + b"%06o\0 " % (sum(header) + sum(whole[third + 156 : third + 512])) + whole[third + 156 :]
    path.write_bytes(whole[:third] + header)
    with pytest.raises(DataError, match=rf"a\.tar: damaged at byte {third}"):
        load_list(path)
    path.write_bytes(whole[:third])
    assert load_list(path).warnings == (f"{path}: has no end mark; it may not have been written or copied whole",)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tar: empty. Expected a tar archive"):
        load_list(path)
    path.write_bytes(image * 3)
    with pytest.raises(DataError, match=r"a\.tar: not a tar archive"):
        load_list(path)


def test_archives_without_crops(tmp_path: Path, image: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.seg.png": image, "a.txt": b"one"})
    with pytest.raises(DataError, match=r"no images in the archives. Expected members key\.jpg .* first dot"):
        load_list(path)


def test_archives_that_are_not_there(tmp_path: Path, image: bytes) -> None:
    write_tar(tmp_path / "train-01.tar", {"a.png": image, "a.txt": b"one"})
    for name, text in {
        "train-{00..03}.tar": r"3 of 4 archives are missing, the first is .*train-00\.tar",
        "val.tar": r"no such file. Give a tar archive, a pattern as train-\{000\.\.099\}\.tar, or a folder",
        "val-*.tar": r"matches no archive",
        "a.tar.gz": r"a compressed archive, whose members cannot be read one by one",
    }.items():
        assert is_sharded(tmp_path / name)
        with pytest.raises(DataError, match=text):
            find_archives(tmp_path / name)
    assert find_archives(tmp_path / "{train,train}-01.tar") == (tmp_path / "train-01.tar",) * 2


def test_a_folder_of_images_is_one_whatever_else_lies_there(tmp_path: Path, image: bytes) -> None:
    folder = tmp_path / "folder"
    write_tar(folder / "images.tar", {"a.png": image})
    assert is_sharded(folder)
    (folder / "data.mdb").touch()
    assert not is_sharded(folder)
    (folder / "sub").mkdir()
    (folder / "sub" / "a.png").write_bytes(image)
    assert not is_sharded(folder)
    (folder / "data.mdb").unlink()
    assert not is_sharded(folder)
    assert len(load_unlabelled(folder).images) == 1


@pytest.mark.parametrize("read", [load_scenes, list_images])
def test_what_archives_are_not_read_for(tmp_path: Path, image: bytes, read: object) -> None:
    with pytest.raises(DataError, match=r"a\.tar: tar archives hold crops for recognition and classification"):
        read(write_tar(tmp_path / "a.tar", {"a.png": image}))  # type: ignore[operator]


# --- what a review found ------------------------------------------------------------------------------------------


def test_names_that_mean_the_same_member(tmp_path: Path, image: bytes) -> None:
    """`tar cf x.tar ./a.*` and `tar rf x.tar a.*` write it twice; unpacked, the last one counts."""
    other = image[:-1] + bytes([image[-1] ^ 1])
    archive = write_tar(tmp_path / "a.tar", {"./a.png": image, "a.txt": b"one", "a.png": other, ".//b.png": image})
    found = read_shards(archive, ListRules(max_skipped=1.0), labelled=False)
    assert found.names == ["a.tar/a.png", "a.tar/b.png"]
    assert found.source.read(0, "a.png") == other
    assert found.skipped == {"named twice": ("a.tar/a.png",)}
    assert read_shards(archive, ListRules(max_skipped=1.0)).texts == ["one"]


@pytest.mark.parametrize("kind", ["a header of zeros", "two joined"])
def test_what_lies_behind_the_end_is_not_dropped(kind: str, tmp_path: Path, image: bytes) -> None:
    archive = write_tar(tmp_path / "a.tar", {f"{place}.png": image for place in range(4)}, tarfile.USTAR_FORMAT)
    data = bytearray(archive.read_bytes())
    if kind == "two joined":
        data = data + data
    else:
        with tarfile.open(archive) as opened:
            start = opened.getmembers()[2].offset
        data[start : start + 512] = bytes(512)
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tar: damaged or joined at byte \d+: there is more behind"):
        read_index(archive)


def test_an_archive_replaced_by_one_of_its_size_and_time(tmp_path: Path, image: bytes) -> None:
    archive = write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"x"})
    before = archive.stat()
    assert read_index(archive).names == ["a.png"]
    write_tar(tmp_path / "b.tar", {"b.png": image, "b.txt": b"x"}).replace(archive)
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert archive.stat().st_size == before.st_size
    assert read_index(archive).names == ["b.png"]


@pytest.mark.parametrize(
    "change", [{"texts": []}, {"names": None}, {"offsets": ["x"]}, {"names": [1]}, {"complete": 1}]
)
def test_a_damaged_index_is_made_anew(
    change: dict[str, object], tmp_path: Path, image: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPRESS_CACHE", str(tmp_path / "cache"))
    archive = write_tar(tmp_path / "a.tar", {"a.png": image, "a.txt": b"x"})
    whole = read_index(archive)
    (kept,) = (cache_folder() / "shards").iterdir()
    kept.write_text(json.dumps(json.loads(kept.read_text()) | change))
    assert read_index(archive) == whole


@pytest.mark.parametrize("record", ["9" * 5000 + " path=a\n", f"5010 size={'9' * 5000}\n"])
def test_numbers_without_end(record: str, tmp_path: Path, image: bytes) -> None:
    archive = write_tar(
        tmp_path / "a.tar", {"a.png": image, "extended": record.encode(), "b.png": image}, tarfile.USTAR_FORMAT
    )
    data = bytearray(archive.read_bytes())
    with tarfile.open(archive) as opened:
        place = opened.getmembers()[1].offset
    data[place + 156 : place + 157] = tarfile.XHDTYPE
    header = data[place : place + 512]
    header[148:156] = b" " * 8
    data[place + 148 : place + 156] = b"%06o\0 " % sum(header)
    archive.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.tar: damaged at byte \d+"):
        read_index(archive)


def test_patterns_that_are_none(tmp_path: Path, image: bytes) -> None:
    write_tar(tmp_path / "a.tar", {"a.png": image})
    with pytest.raises(DataError, match=r"not a pattern \(.*Use e\.g\. train-\*\.tar"):
        find_archives(tmp_path / "a**.tar")


def test_names_of_archives_may_be_any_bytes(tmp_path: Path, image: bytes) -> None:
    archive = write_tar(tmp_path / os.fsdecode(b"n\xff.tar"), {"a.png": image, "a.txt": b"x"})
    streamed = stream_list(archive)
    assert list(streamed.names) == [f"{archive.name}/a.png"]
    assert streamed.content(0) == image


def test_without_a_home_there_is_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("COMPRESS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder().name == f"compress-{os.getuid()}"
