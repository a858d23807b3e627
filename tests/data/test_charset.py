"""Charset files and greedy CTC: the classes, their order, both directions, and what is refused."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.data.charset import BLANK, Charset, check_classes, read_charset, steps_needed
from compress.data.embedded import class_names, holds_names
from compress.errors import DataError
from compress.pipeline.preparing.readiness import foreign_characters
from compress.tasks.words import check_texts


def write(folder: Path, content: bytes) -> Path:
    path = folder / "dict.txt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("content", [b"a\nb\n", b"a\nb", b"a\r\nb\r\n", b"\xef\xbb\xbfa\nb\n"])
def test_one_character_a_line_then_a_space(tmp_path, content):
    path = write(tmp_path, content)
    assert read_charset(path).characters == ("a", "b", " ")
    assert read_charset(path, use_space=False).characters == ("a", "b")
    assert read_charset(path).classes == 4


def test_a_space_in_the_file_stays_and_another_follows(tmp_path):
    """PaddleOCR's en_dict.txt is like this; a text's space is the last of them, as in its encoder."""
    charset = read_charset(write(tmp_path, b"a\n \n"))
    assert charset.characters == ("a", " ", " ")
    assert charset.encode("a ") == ([1, 3], "")
    assert charset.decode([2, 1, 3]) == " a "


def test_a_line_separator_is_a_character(tmp_path):
    assert read_charset(write(tmp_path, "a\n\u2028\n".encode()), use_space=False).characters == ("a", "\u2028")


@pytest.mark.parametrize(("content", "line"), [(b"a\n\nb\n", 2), (b"a\nbc\n", 2), (b"a\n\n", 2), (b"ab\n", 1)])
def test_lines_that_are_not_one_character(tmp_path, content, line):
    with pytest.raises(DataError, match=rf"dict.txt: line {line}: got .*Expected one character a line"):
        read_charset(write(tmp_path, content))


def test_a_character_of_several_code_points(tmp_path):
    """PP-OCRv5's charset holds flags; combining marks and joined emoji are of the same kind."""
    flag, joined, accent = "\U0001f1e9\U0001f1ea", "\U0001f469\u200d\U0001f4bb", "e\u0301"
    charset = read_charset(write(tmp_path, "\n".join(["e", flag, joined, accent]).encode()), use_space=False)
    assert charset.characters == ("e", flag, joined, accent)
    assert charset.encode(f"e{accent}{flag}x\n{joined}") == ([1, 4, 2, 3], "x\n")
    assert charset.decode([4, 0, 1, 2, 3]) == f"{accent}e{flag}{joined}"


def test_texts_are_compared_by_characters_not_by_code_points(tmp_path):
    charset = Charset(("\u0915", "\u0915\u094d\u0937", "\U0001f1e9\U0001f1ea"))
    assert charset.encode("\u0915\u094d\u0937\u0915")[0] == [2, 1]
    texts = ["\u0915", "\u0915\u094d\u0937", "\U0001f1e9\U0001f1ea"]
    assert all(charset.covers(text) and not charset.lacks(text) for text in texts)
    assert not charset.covers("\U0001f1e9")
    assert charset.lacks("x\U0001f1e9")
    check_texts(tmp_path, texts, charset)
    assert foreign_characters(texts, charset) == ""


@pytest.mark.parametrize("line", ["a^", "^^^", "e\u0301x", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7", "ab"])
def test_several_characters_on_a_line(tmp_path, line):
    with pytest.raises(DataError, match="line 1: got "):
        read_charset(write(tmp_path, f"{line}\n".encode()))


def model_with(path, shape="N", **metadata):
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> m (float[{shape}] x) => (float[{shape}] y) {{y = Relu(x)}}'
    )
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def test_the_charset_in_an_onnx_file(tmp_path):
    """As RapidOCR's files hold it."""
    model = model_with(tmp_path / "m.onnx", character="\u3000\na\r\nb")
    assert read_charset(model).characters == ("\u3000", "a", "b", " ")
    assert holds_names(model)
    page = model_with(tmp_path / "page.onnx", character="<!DOCTYPE html>\n<html>")  # such a file is in circulation
    assert holds_names(page), "what is wrong with it is said when it is read"
    with pytest.raises(DataError, match=r"page.onnx: line 1: got '<!DOCTYPE html>'"):
        read_charset(page)


def test_onnx_files_without_a_charset(tmp_path):
    other = model_with(tmp_path / "m.onnx", author="me")
    with pytest.raises(DataError, match=r"m.onnx: its metadata hold no charset \('character'\). Give the charset file"):
        read_charset(other)
    (tmp_path / "bad.onnx").write_bytes(b"\xff\xff")
    with pytest.raises(DataError, match=r"bad.onnx: cannot be read as an ONNX model"):
        read_charset(tmp_path / "bad.onnx")
    with pytest.raises(DataError, match=r"none.onnx: no such file"):
        read_charset(tmp_path / "none.onnx")
    names = ("m.onnx", "bad.onnx", "none.onnx", "my_package.crnn:make")
    assert not any(holds_names(tmp_path / name) for name in names)


@pytest.mark.parametrize(
    ("shape", "names", "found"),
    [
        ("N,4", "0\n90\n180\n270", ("0", "90", "180", "270")),
        ("N,K", "0\n180", ("0", "180")),
        ("N,3", "0\n180", None),
        ("N,T,2", "0\n180", None),
        ("N,2", "0\n0", None),
        ("N,2", "0\n\n180", None),
        ("N,K", "one", None),
    ],
)
def test_the_class_names_in_an_onnx_file(tmp_path, shape, names, found):
    """As RapidOCR's orientation classifier holds them; such as cannot be those of its outputs are left alone."""
    assert class_names(model_with(tmp_path / "m.onnx", shape, character=names)) == found


def test_onnx_files_without_class_names(tmp_path):
    assert class_names(model_with(tmp_path / "m.onnx", "N,2")) is None
    assert class_names(tmp_path / "none.onnx") is None


@pytest.mark.parametrize("content", [b"", b"\n", b"\xef\xbb\xbf"])
def test_no_characters(tmp_path, content):
    with pytest.raises(DataError, match=r"dict.txt: no characters"):
        read_charset(write(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.txt: no such file. Expected a charset"):
        read_charset(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_charset(tmp_path)
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 0xe9 at offset 2\)"):
        read_charset(write(tmp_path, b"a\n\xe9\n"))


@pytest.mark.parametrize(
    ("classes", "use_space", "advice"),
    [
        (3, True, r"2 characters.* make 4 classes, but the model's output has 3. .*set use_space: false"),
        (4, False, r"2 characters and the blank make 3 classes, but the model's output has 4. .*set use_space: true"),
        (97, True, r"make 4 classes, but the model's output has 97. Use the charset file that the model was trained"),
    ],
)
def test_a_charset_of_another_model_names_both_numbers_and_what_to_do(tmp_path, classes, use_space, advice):
    path = write(tmp_path, b"a\nb\n")
    with pytest.raises(DataError, match=advice):
        check_classes(read_charset(path, use_space), path, classes, use_space)


def test_a_charset_that_fits(tmp_path):
    path = write(tmp_path, b"a\nb\n")
    check_classes(read_charset(path), path, 4, True)


def alignment(classes: list[int], data: st.DataObject) -> list[int]:
    """Any way that a network may spell a text: each class repeated, blanks around, and between equal neighbours."""
    steps: list[int] = []
    for number, now in enumerate(classes):
        least = 1 if number and classes[number - 1] == now else 0
        steps += [BLANK] * data.draw(st.integers(least, 2)) + [now] * data.draw(st.integers(1, 3))
    return steps + [BLANK] * data.draw(st.integers(0, 2))


@given(text=st.text("ab ", max_size=12), data=st.data())
def test_every_alignment_of_a_text_reads_as_the_text(text, data):
    charset = Charset(("a", "b", " "))
    classes, unknown = charset.encode(text)
    assert unknown == ""
    steps = alignment(classes, data)
    assert charset.decode(steps) == text
    assert steps_needed(classes) <= len(steps)


def test_the_shortest_alignment_has_as_many_steps_as_are_needed():
    assert [steps_needed(classes) for classes in ([], [1], [1, 2], [1, 1], [1, 1, 1, 2, 2])] == [0, 1, 2, 3, 8]
