"""Label lists: what is read, what is skipped and said, and what is refused with one clear line."""

from pathlib import Path

import pytest

from compress.data.labels import MAX_BAD_SHARE, read_labels
from compress.errors import DataError


def make_list(folder: Path, content: bytes, images: tuple[str, ...] = ("a.png", "b.png", "c.png", "d.png")) -> Path:
    """Write a label list and empty files for its images (reading a list does not decode them)."""
    for name in images:
        (folder / name).touch()
    path = folder / "labels.txt"
    path.write_bytes(content)
    return path


def test_paths_are_relative_to_the_lists_folder(tmp_path):
    (tmp_path / "images").mkdir()
    path = make_list(tmp_path, b"images/a.png\tEXIT\n", ("images/a.png",))
    entry = read_labels(path).entries[0]
    assert (entry.image, entry.text, entry.line) == (tmp_path / "images" / "a.png", "EXIT", 1)


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_tolerated(tmp_path):
    path = make_list(tmp_path, "\ufeffa.png\tCaf\u00e9\r\n\r\nb.png\t two words \r\n".encode())
    assert [(entry.text, entry.line) for entry in read_labels(path).entries] == [("Caf\u00e9", 1), (" two words ", 3)]


def test_a_last_line_without_line_end_counts(tmp_path):
    assert len(read_labels(make_list(tmp_path, b"a.png\tone\nb.png\ttwo")).entries) == 2


def test_a_few_missing_images_are_counted_named_and_skipped(tmp_path):
    path = make_list(tmp_path, b"a.png\tA\ngone.png\tB\nc.png\tC\n")
    labels = read_labels(path)
    assert [entry.text for entry in labels.entries] == ["A", "C"]
    assert [entry.line for entry in labels.missing] == [2]
    assert labels.warnings() == (f"{path}: 1 of 3 images skipped, missing: gone.png",)


def test_many_missing_images_are_named_up_to_five(tmp_path):
    lines = "".join(f"gone{i}.png\tx\n" for i in range(7)) + "a.png\tA\n" * 7
    (warning,) = read_labels(make_list(tmp_path, lines.encode())).warnings()
    assert "7 of 14" in warning
    assert warning.endswith("gone4.png and 2 more")


def test_more_than_the_allowed_share_missing_is_an_error(tmp_path):
    assert MAX_BAD_SHARE == 0.5
    half = make_list(tmp_path, b"a.png\tA\ngone.png\tB\n")
    assert len(read_labels(half).entries) == 1
    most = make_list(tmp_path, b"a.png\tA\ngone.png\tB\ngone2.png\tC\n")
    with pytest.raises(DataError, match=r"labels.txt: 2 of 3 images are missing, the first is .*gone.png. At most 50%"):
        read_labels(most)


def test_all_images_missing_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"2 of 2 images are missing.*relative to the list's folder"):
        read_labels(make_list(tmp_path, b"x.png\tA\ny.png\tB\n"))


def test_no_such_file(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.txt: no such file. Expected a label list"):
        read_labels(tmp_path / "nowhere.txt")


def test_a_folder_instead_of_a_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf"])
def test_no_lines(tmp_path, content):
    with pytest.raises(DataError, match=r"labels.txt: no lines. Expected one image a line"):
        read_labels(make_list(tmp_path, content))


@pytest.mark.parametrize("line", ["b.png EXIT", "b.png\tEXIT\t1", "b.png", "\tEXIT", "  \tEXIT"])
def test_wrong_columns_name_the_line_and_show_it(tmp_path, line):
    path = make_list(tmp_path, f"a.png\tA\n{line}\n".encode())
    with pytest.raises(DataError, match=r"labels.txt: line 2: got '.*'. Expected two columns with one tab"):
        read_labels(path)


@pytest.mark.parametrize("text", ["", " ", "  \u3000"])
def test_a_text_may_be_empty(tmp_path, text):
    """As in an LMDB folder: the task counts and names it."""
    entries = read_labels(make_list(tmp_path, f"a.png\tA\nb.png\t{text}\n".encode())).entries
    assert [entry.text for entry in entries] == ["A", ""]


def test_a_long_wrong_line_is_shown_shortened(tmp_path):
    with pytest.raises(DataError) as caught:
        read_labels(make_list(tmp_path, b"x" * 5000))
    assert "x" * 77 + "..." in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_not_utf8(tmp_path):
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 0xe9 at offset 9\)"):
        read_labels(make_list(tmp_path, "a.png\tCaf\u00e9\n".encode("latin-1")))
