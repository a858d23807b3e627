"""inference.yml, which PaddleOCR's exports have beside the model."""

from pathlib import Path

import pytest

from compress.data.charset import read_charset
from compress.data.paddle_config import PaddleConfig, config_beside, read_config
from compress.errors import DataError

RECOGNISER = """
Global: {model_name: PP-OCRv6_tiny_rec}
PostProcess:
  name: CTCLabelDecode
  character_dict:
  - '!'
  - 0
  - a
  - \u3000
  - '~'
"""
DETECTOR = """
PostProcess: {box_thresh: 0.4, max_candidates: 3000, name: DBPostProcess, thresh: 0.2, unclip_ratio: 1.4}
"""
CLASSIFIER = """
PostProcess:
  Topk: {topk: 1, label_list: [0_degree, 180_degree]}
"""


def config(folder: Path, text: str) -> Path:
    file = folder / "inference.yml"
    file.write_text(text, encoding="utf-8")
    return file


def test_what_each_kind_of_model_has(tmp_path: Path) -> None:
    characters = ("!", "0", "a", "\u3000", "~")
    boxes = {"threshold": 0.2, "box_threshold": 0.4, "unclip_ratio": 1.4, "max_candidates": 3000}
    assert read_config(config(tmp_path, RECOGNISER)) == PaddleConfig(characters=characters)
    assert read_charset(tmp_path / "inference.yml").characters == (*characters, " ")
    assert read_config(config(tmp_path, DETECTOR)) == PaddleConfig(boxes=boxes)
    assert read_config(config(tmp_path, CLASSIFIER)) == PaddleConfig(labels=("0", "180"))


def test_it_lies_beside_a_file(tmp_path: Path) -> None:
    model = tmp_path / "det.onnx"
    assert config_beside(model) is None
    file = config(tmp_path, DETECTOR)
    assert config_beside(model) is None  # of no model: package.module:factory, say
    model.touch()
    assert config_beside(model) == file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not YAML"),
        ("- a", "no PostProcess"),
        ("PostProcess: 3", "no PostProcess"),
        ("PostProcess: {character_dict: a}", "character_dict: must be a list of texts"),
        ("PostProcess: {character_dict: [[a]]}", "character_dict: must be a list of texts"),
        ("PostProcess: {Topk: {label_list: a}}", "label_list: must be a list of texts"),
        ("PostProcess: {thresh: low}", "thresh: got 'low'. Must be a number"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = config(tmp_path, text)
    with pytest.raises(DataError) as caught:
        read_config(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_charset_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_charset(tmp_path / "inference.yml")
    with pytest.raises(DataError, match="no characters"):
        read_charset(config(tmp_path, DETECTOR))
    with pytest.raises(DataError, match=r"line 1: got 'ab'"):
        read_charset(config(tmp_path, "PostProcess: {character_dict: [ab]}"))
