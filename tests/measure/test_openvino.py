"""OpenVINO behind `OpenVinoSession`: with the real package where it is installed, and what is said where it is not."""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import CompressError, ModelError
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.openvino import OpenVinoSession
from compress.measure.session import Session

SHAPE = (1, 3, 6, 8)
IMAGES = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed: pip install 'compress[openvino]'",
)


def value(name: str, channels: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, "H", "W"])


def as_bytes(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], channels: int) -> bytes:
    initialisers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x", 3)], [value("y", channels)], initialisers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def conv_model() -> bytes:
    weight = np.random.default_rng(1).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
    return as_bytes(nodes, {"w": weight}, 4)


def int8_model(weight: np.ndarray, input_scale: float, zero_point: int, output_scale: float) -> bytes:
    """As this project's files are: uint8 input, int8 weights per channel, int32 bias, uint8 output."""
    scales = np.linspace(0.01, 0.04, 4, dtype=np.float32)
    constants = {
        "xs": np.float32(input_scale),
        "xz": np.uint8(zero_point),
        "w": weight,
        "ws": scales,
        "b": np.zeros(4, np.int32),
        "bs": scales * np.float32(input_scale),
        "ys": np.float32(output_scale),
        "yz": np.uint8(0),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["c"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "ys", "yz"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "ys", "yz"], ["y"]),
    ]
    return as_bytes(nodes, constants, 4)


# --- the real package -------------------------------------------------------------------------------------------


@needs_openvino
def test_a_float_model_computes_what_it_does_in_onnxruntime() -> None:
    found = OpenVinoSession(conv_model(), SHAPE).run(IMAGES)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, Session(conv_model()).run(IMAGES), rtol=1e-5, atol=1e-5)


@needs_openvino
def test_one_int8_layer_agrees_to_one_step() -> None:
    """All sums fit 16 bits with 7-bit weights: what is left is the rounding of the output."""
    weight = np.random.default_rng(2).integers(-63, 64, (4, 3, 3, 3), np.int8)
    step = 0.05
    model = int8_model(weight, 0.03, 128, step)
    apart = np.abs(OpenVinoSession(model, SHAPE).run(IMAGES) - Session(model).run(IMAGES))
    assert apart.max() <= step * 1.001


@needs_openvino
@pytest.mark.parametrize("largest", [63, 127])
def test_only_8_bit_weights_saturate_and_only_where_they_do_in_onnxruntime(largest: int) -> None:
    """All inputs 255, all weights the largest: pairs of products of 8 bits are cut to 32767 on x86 without VNNI."""
    whole = 255 * largest * 3 * 9 * 0.01  # the first channel, with all nine taps inside
    model = int8_model(np.full((4, 3, 3, 3), largest, np.int8), 1.0, 0, whole / 200)
    images = np.full(SHAPE, 255, np.float32)
    found = [one.run(images)[0, 0, 3, 3] for one in (OpenVinoSession(model, SHAPE), Session(model))]
    if largest == 63 or not saturates_int8(machine_info()):
        assert found == pytest.approx([whole, whole], rel=0.01)
    else:  # 32767 of 2 * 255 * 127 = 64770, beside single products, which are whole
        assert max(found) < 0.7 * whole


@needs_openvino
def test_without_a_shape_images_of_any_size_are_computed() -> None:
    session = OpenVinoSession(conv_model(), None)
    assert session.output_shape == (None, 4, None, None)
    for size in ((2, 3, 6, 8), (1, 3, 4, 4)):
        images = np.random.default_rng(3).standard_normal(size).astype(np.float32)
        np.testing.assert_allclose(session.run(images), Session(conv_model()).run(images), rtol=1e-5, atol=1e-5)


@needs_openvino
def test_images_that_are_not_contiguous_are_computed_as_they_are() -> None:
    images = np.ascontiguousarray(IMAGES.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    session = OpenVinoSession(conv_model(), SHAPE)
    np.testing.assert_array_equal(session.run(images), session.run(IMAGES))


@needs_openvino
def test_an_output_stays_after_the_next_run() -> None:
    session = OpenVinoSession(conv_model(), SHAPE)
    first = session.run(IMAGES)
    kept = first.copy()
    session.run(IMAGES + 1)
    np.testing.assert_array_equal(first, kept)


@needs_openvino
def test_operators_that_openvino_does_not_know_are_named() -> None:
    model = as_bytes([helper.make_node("Foo", ["x"], ["y"], domain="my.own")], {}, 3)
    with pytest.raises(ModelError, match=r"^a\.onnx: OpenVINO cannot load it: No conversion rule .*my\.own\.Foo\.$"):
        OpenVinoSession(model, SHAPE, name="a.onnx")


@needs_openvino
def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^b\.onnx: OpenVINO cannot load it: Unable to read the model"):
        OpenVinoSession(b"no model", SHAPE, name="b.onnx")


@needs_openvino
def test_images_of_another_shape_are_refused() -> None:
    session = OpenVinoSession(conv_model(), SHAPE, name="c.onnx")
    with pytest.raises(ModelError, match=r"c\.onnx: OpenVINO fails on float32 images of shape \[1, 3, 5, 5\]"):
        session.run(np.zeros((1, 3, 5, 5), np.float32))


# --- without it -------------------------------------------------------------------------------------------------


class FakeOutput:
    """An output [N, 4], of which the number of images is open."""

    def get_partial_shape(self) -> list[Any]:
        return [SimpleNamespace(is_static=False), SimpleNamespace(is_static=True, get_length=lambda: 4)]


class FakeOpenVino(ModuleType):
    """OpenVINO as far as it is used; keeps what it was requested, and gives images back."""

    def __init__(self, inputs: int = 1) -> None:
        super().__init__("openvino")
        self.inputs = [object()] * inputs
        self.outputs = [FakeOutput(), FakeOutput()]
        self.asked: dict[str, Any] = {}

    def Core(self) -> "FakeOpenVino":
        return self

    def read_model(self, model: bytes) -> Any:
        return SimpleNamespace(inputs=self.inputs, reshape=lambda shape: self.asked.update(shape=shape))

    def compile_model(self, network: Any, device: str, settings: dict[str, Any]) -> "FakeOpenVino":
        self.asked.update(device=device, settings=settings)
        return self

    def create_infer_request(self) -> Any:
        first, second = self.outputs
        return SimpleNamespace(infer=lambda feeds, share_inputs: {first: feeds[0] + 1, second: feeds[0]})


def test_one_stream_so_many_threads_float32_and_a_fixed_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOpenVino()
    monkeypatch.setitem(sys.modules, "openvino", fake)
    session = OpenVinoSession(b"", SHAPE, threads=2)
    assert fake.asked == {
        "shape": list(SHAPE),
        "device": "CPU",
        "settings": {
            "INFERENCE_NUM_THREADS": 2,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        },
    }
    assert session.output_shape == (None, 4)
    np.testing.assert_array_equal(session.run(IMAGES), IMAGES + 1)  # the first output


def test_models_of_several_inputs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", FakeOpenVino(inputs=2))
    with pytest.raises(ModelError, match=r"two\.onnx: has 2 inputs\. Expected one image input\."):
        OpenVinoSession(b"", SHAPE, name="two.onnx")


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)  # what `import` takes for not installed
    with pytest.raises(CompressError, match=r"--runtime: openvino is not installed .*pip install 'compress\[openvino"):
        OpenVinoSession(conv_model(), SHAPE)
