"""Files in several runtimes: one that fails loses no other, and outputs are compared with onnxruntime's."""

import sys
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import CompressError, ModelError
from compress.measure import runtimes
from compress.measure.runtimes import Runners, check_runtimes, open_runner, open_runners, output_differences
from tests.graph.graphs import image_graph

SHAPE = (3, 4, 4)
BOTH = ("onnxruntime", "openvino")


def add_model(constant: float) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *SHAPE]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["y"])],
        "add",
        [x],
        [y],
        [numpy_helper.from_array(np.float32(constant), "c")],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )


class Biased:
    """A runtime that computes x + 1.25, whatever the file says; or none of the files named `bad`."""

    output_shape = (None, *SHAPE)

    def __init__(self, model: bytes, input_shape: tuple[int, ...], *, name: str, threads: int) -> None:
        if name.startswith("bad"):
            raise ModelError(f"{name}: OpenVINO cannot load it: no such operator.")
        self.threads, self.input_shape = threads, input_shape

    def run(self, images: np.ndarray) -> np.ndarray:
        return images + np.float32(1.25)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "OpenVinoSession", Biased)


def test_unknown_runtimes_are_refused() -> None:
    with pytest.raises(CompressError, match=r"--runtime: got 'tflite'. Must be of onnxruntime, openvino, with commas."):
        check_runtimes(["onnxruntime", "tflite"])
    with pytest.raises(CompressError, match=r"--runtime: got ''"):
        check_runtimes([])


def test_each_file_in_each_runtime(fake: None) -> None:
    opened = open_runners({"a": add_model(1), "b": add_model(2)}, SHAPE, BOTH, threads=2)
    assert list(opened.runners) == [("a", BOTH[0]), ("a", BOTH[1]), ("b", BOTH[0]), ("b", BOTH[1])]
    assert opened.failed == {}
    runner: Any = opened.runners["a", "openvino"]
    assert (runner.threads, runner.input_shape) == (2, (1, *SHAPE))


def test_what_one_runtime_cannot_read_loses_nothing_else(fake: None) -> None:
    opened = open_runners({"bad": add_model(1), "b": add_model(2)}, SHAPE, BOTH)
    assert list(opened.runners) == [("bad", "onnxruntime"), ("b", "onnxruntime"), ("b", "openvino")]
    assert opened.failed == {("bad", "openvino"): "bad: OpenVINO cannot load it: no such operator."}


def test_a_file_that_fails_when_it_runs_is_found_before_anything_is_timed(fake: None) -> None:
    opened = open_runners({"b": add_model(2)}, (5, 4, 4), BOTH)
    assert list(opened.runners) == [("b", "openvino")]
    assert "b: onnxruntime fails on float32 images of shape [1, 5, 4, 4]" in opened.failed["b", "onnxruntime"]


def test_a_file_whose_input_is_not_of_floats() -> None:
    model = image_graph("f = Cast <to = 1> (x) y = Relu (f)", given="uint8[N, 4, 8, 8] x").SerializeToString()
    with pytest.raises(ModelError, match=r"^m: its input is not of floats\. Expected float images\. Export it with"):
        open_runners({"m": model}, (4, 8, 8), ("onnxruntime",))


def test_nothing_that_runs_is_an_error(fake: None) -> None:
    with pytest.raises(ModelError, match=r"bad1: OpenVINO cannot load it: no such operator"):
        open_runners({"bad1": b"", "bad2": b""}, SHAPE, ("openvino",))


def test_a_runtime_that_is_not_installed_is_an_error_whatever_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(CompressError, match="--runtime: openvino is not installed"):
        open_runners({"a": add_model(1)}, SHAPE, BOTH)


def test_a_runner_for_images_of_any_size(fake: None) -> None:
    runner: Any = open_runner("openvino", add_model(1), None)
    assert runner.input_shape is None


def test_differences_are_of_the_first_output_and_named(fake: None) -> None:
    models = {"a": add_model(1)}
    found = output_differences(models, open_runners(models, SHAPE, BOTH), SHAPE)
    other, own = found
    assert (other.file, other.runtime, other.count) == ("a", "openvino", runtimes.DIFFERENCE_IMAGES)
    assert other.max_abs == pytest.approx(0.25, abs=1e-6)
    assert other.mean_abs == pytest.approx(0.25, abs=1e-6)
    assert 2 < other.largest < 8  # of 384 values of N(1, 1)
    assert (own.runtime, own.max_abs) == (runtimes.UNOPTIMISED, 0.0)


@pytest.mark.parametrize("names", [("onnxruntime",), ("openvino",)])
def test_one_runtime_alone_has_nothing_to_compare(fake: None, names: Any) -> None:
    models = {"a": add_model(1)}
    assert output_differences(models, open_runners(models, SHAPE, names), SHAPE) == ()


def test_files_that_onnxruntime_cannot_run_are_not_compared(fake: None) -> None:
    assert (
        output_differences({"a": b""}, Runners({("a", "openvino"): Biased(b"", (), name="a", threads=1)}, {}), SHAPE)
        == ()
    )
