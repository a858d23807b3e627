"""Settings that fit a model better are named where it scores near zero."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.data.processing import Processing, make_processing
from compress.data.synthetic import write_dataset
from compress.errors import ModelError
from compress.pipeline.diagnosis import candidates, check_outputs, check_processing, describe
from compress.tasks.recognition import RecognitionTask
from compress.zoo import models_folder, shipped


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    write_dataset(folder, 24, 5)
    return folder / "labels.txt"


def blank_last(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same recogniser with its first class behind the others."""
    output = model.graph.output[0]
    classes = output.type.tensor_type.shape.dim[2].dim_value
    order = numpy_helper.from_array(np.array([*range(1, classes), 0]), "order")
    model.graph.initializer.append(order)
    model.graph.node.append(helper.make_node("Gather", [output.name, "order"], ["turned"], axis=2))
    output.name = "turned"
    return model


def notes(model: onnx.ModelProto, words: Path, **changes: object) -> list[str]:
    said: list[str] = []
    processing = make_processing("recognition", changes=changes)
    task = RecognitionTask([], [words], charset=models_folder() / "latin.txt", processing=processing)
    check_processing(model, task, said.append)
    return said


def test_the_blank_seems_to_be_last(words: Path) -> None:
    model = blank_last(onnx.load(shipped("text_recogniser")))
    (line,) = notes(model, words)
    assert re.match(r"the model scores 0\.\d\d on 24 validation images, and 0\.", line)
    assert "with blank: last: was it trained so?" in line
    assert notes(model, words, blank="last") == []


def test_outputs_that_could_not_be_trained(words: Path) -> None:
    model = onnx.load(shipped("text_recogniser"))

    def task_of(**changes: object) -> RecognitionTask:
        processing = make_processing("recognition", changes=changes)
        return RecognitionTask([], [words], charset=models_folder() / "latin.txt", processing=processing)

    check_outputs(model, task_of())
    check_outputs(model, task_of(outputs="logits"))  # any numbers may be
    with pytest.raises(ModelError, match=r"not log-probabilities .* set task\.outputs"):
        check_outputs(model, task_of(outputs="log_probabilities"))


def test_nothing_is_said_where_nothing_is_better(words: Path) -> None:
    model = onnx.load(shipped("text_recogniser"))
    assert notes(model, words) == []
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    assert notes(model, words) == []


def test_candidates_differ_and_keep_the_size() -> None:
    given = make_processing("recognition", "mmocr")
    found = list(candidates("recognition", given))
    assert len(found) == len(set(found)) >= 2
    assert all((one.resize, one.channels) == ("stretch", 1) and one != given for one in found)
    assert {one.blank for one in candidates("recognition", Processing())} == {"first", "last"}


def test_settings_are_named_as_a_recipe_has_them() -> None:
    doctr = make_processing("recognition", "doctr")
    assert describe(doctr, Processing()) == (
        "preprocess.color: rgb, preprocess.mean: [0.694, 0.695, 0.693], preprocess.std: [0.299, 0.296, 0.301], "
        "preprocess.pad_value: 0.0, outputs: logits, blank: last"
    )
