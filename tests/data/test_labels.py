"""Label lists: what is read, what is skipped and said, and what is refused with one clear line."""

from pathlib import Path

import pytest

from compress.data.labels import ListRules, check_skipped, read_labels
from compress.errors import DataError

HALF = ListRules(max_skipped=0.5)


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
    labels = read_labels(path, HALF)
    assert [entry.text for entry in labels.entries] == ["A", "C"]
    assert [entry.line for entry in labels.missing] == [2]
    assert labels.warnings() == (f"{path}: 1 of 3 images skipped, missing: gone.png",)


def test_many_missing_images_are_named_up_to_five(tmp_path):
    lines = "".join(f"gone{i}.png\tx\n" for i in range(7)) + "a.png\tA\n" * 7
    (warning,) = read_labels(make_list(tmp_path, lines.encode()), HALF).warnings()
    assert "7 of 14" in warning
    assert warning.endswith("gone4.png and 2 more")


def test_more_than_the_allowed_share_missing_is_an_error(tmp_path):
    half = make_list(tmp_path, b"a.png\tA\ngone.png\tB\n")
    assert len(read_labels(half, HALF).entries) == 1
    most = make_list(tmp_path, b"a.png\tA\ngone.png\tB\ngone2.png\tC\n")
    with pytest.raises(DataError, match=r"labels.txt: 2 of 3 images are missing: .*gone.png, .*gone2.png. At most 50%"):
        read_labels(most, HALF)


def test_one_in_a_hundred_may_be_missing_unless_said_otherwise(tmp_path):
    lines = b"a.png\tA\n" * 198 + b"gone.png\tB\n" * 2
    assert len(read_labels(make_list(tmp_path, lines)).missing) == 2
    path = make_list(tmp_path, lines[len(b"a.png\tA\n") :])
    message = (
        r"labels.txt: 2 of 199 images are missing: .*gone.png. At most 1% may be. Image paths are "
        r"relative to the list's folder. To allow more: data.max_skipped \(--max-skipped\)."
    )
    with pytest.raises(DataError, match=message):
        read_labels(path)
    with pytest.raises(DataError, match="At most 0% may be"):
        read_labels(path, ListRules(max_skipped=0))


def test_reasons_are_added_up(tmp_path):
    skipped = {"missing": ["a"], "unreadable": [], "too large": ["b", "c"]}
    check_skipped(tmp_path, skipped, 6, HALF)
    with pytest.raises(DataError, match=r"3 of 5 things are missing or too large: a, b, c. At most 50% may be"):
        check_skipped(tmp_path, skipped, 5, HALF, "things")


def test_the_first_five_are_named_and_what_does_not_print_is_escaped(tmp_path):
    names = [f"some/{number}.png" for number in range(7)]
    named = r"7 of 9 images are unreadable: some/0.png, some/1.png, .*some/4.png and 2 more. At most 1%"
    with pytest.raises(DataError, match=named):
        check_skipped(tmp_path, {"unreadable": names}, 9, ListRules())
    with pytest.raises(DataError, match=r"1 of 9 images is unreadable: 'a\\n\\tb.png'. At most"):
        check_skipped(tmp_path, {"unreadable": ["a\n\tb.png"]}, 9, ListRules())


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_limit_that_is_no_share(share):
    with pytest.raises(DataError, match=r"max_skipped: got .*\. Must be a share in \[0, 1\]"):
        ListRules(max_skipped=share)


# --- paths that lead out of the list's folder ---------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path):
    """A list in data/list, and images beside its folder, in data and in another folder."""
    for name in ("data/list/in", "other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("data/list/in/a.png", "data/a.png", "other/a.png"):
        (tmp_path / name).touch()
    (tmp_path / "data/list/link.png").symlink_to(tmp_path / "other" / "a.png")
    (tmp_path / "data/list/folder").symlink_to(tmp_path / "other")
    (tmp_path / "data/list/inner.png").symlink_to("in/a.png")
    return tmp_path


def lead(folder: Path, image: object) -> Path:
    path = folder / "data" / "list" / "labels.txt"
    path.write_text(f"in/a.png\tA\n{image}\tB\n")
    return path


@pytest.mark.parametrize(
    "image", ["../a.png", "in/../../a.png", "{}/other/a.png", "link.png", "folder/a.png", "..", "../list2/a.png"]
)
def test_paths_that_lead_out_are_refused(outside, image):
    path = lead(outside, image.format(outside))
    message = r"labels.txt: line 2: .* leads out of the list's folder, to .*data.root \(--data-root\)"
    with pytest.raises(DataError, match=message):
        read_labels(path)
    assert len(read_labels(path, ListRules(roots=(outside,), max_skipped=0.5)).entries) >= 1


@pytest.mark.parametrize(
    "image", ["./in/a.png", "in/../in/a.png", "{}/data/list/in/a.png", "inner.png", "../list/in/a.png"]
)
def test_paths_that_stay_in_are_not(outside, image):
    assert len(read_labels(lead(outside, image.format(outside))).entries) == 2


def test_the_list_may_be_named_through_a_link_or_from_its_folder(outside, monkeypatch):
    lead(outside, "in/a.png")
    (outside / "other" / "same").symlink_to(outside / "data" / "list")
    assert len(read_labels(outside / "other" / "same" / "labels.txt").entries) == 2
    monkeypatch.chdir(outside / "data" / "list")
    assert len(read_labels(Path("labels.txt")).entries) == 2


def test_they_may_lead_into_the_data_root_alone(outside):
    path = lead(outside, "../a.png")
    assert len(read_labels(path, ListRules(roots=(outside / "data",))).entries) == 2
    with pytest.raises(DataError, match=r"leads out of the list's folder and of .*other, to .*data/a.png"):
        read_labels(path, ListRules(roots=(outside / "other",)))


def test_a_data_root_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"data root: .*nowhere: no such folder"):
        ListRules(roots=(tmp_path / "nowhere",))


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000 + "b"])
def test_names_that_no_file_can_have_are_missing(tmp_path, name):
    path = make_list(tmp_path, f"a.png\tA\n{name}\tB\n".encode())
    assert len(read_labels(path, HALF).missing) == 1


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


@pytest.mark.parametrize("line", ["b.png EXIT", "b.png\tEXIT\t1", "b.png", "\tEXIT", "  \tEXIT", "b\0.png\tEXIT"])
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
