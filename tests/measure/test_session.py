"""onnxruntime behind `Session`: outputs, errors, exact integers, and its own quantiser."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import DataError, ModelError
from compress.measure.machine import machine_info, saturates_int8
from compress.measure.session import Session, quantize_static_minmax, value_shapes


def conv_model(weight: np.ndarray, bias: np.ndarray, *, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weight.shape[1], "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", weight.shape[0], None, None])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    return conv_model(rng.standard_normal((4, 3, 3, 3), np.float32), np.zeros(4, np.float32))


def saturating_model(channels: int) -> onnx.ModelProto:
    """An integer convolution whose products are all 255 * 127, the largest that uint8 x int8 has."""
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "w": np.full((8, channels, 1, 1), 127, np.int8),
        "wz": np.int8(0),
        "ys": np.float32(255 * 127 * channels / 200),
    }
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
            helper.make_node("QLinearConv", ["q", "one", "zero", "w", "one", "wz", "ys", "zero"], ["c"]),
            helper.make_node("DequantizeLinear", ["c", "ys", "zero"], ["y"]),
        ],
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", channels, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8, 4, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.mark.parametrize("optimise", [True, False])
def test_runs_a_path_its_bytes_and_the_parsed_model_alike(
    model: onnx.ModelProto, tmp_path: Path, optimise: bool
) -> None:
    path = tmp_path / "small.onnx"
    onnx.save(model, path)
    images = np.random.default_rng(1).standard_normal((2, 3, 5, 7)).astype(np.float32)
    outputs = [Session(source, optimise=optimise).run(images) for source in (path, path.read_bytes(), model)]
    assert outputs[0].shape == (2, 4, 5, 7)
    np.testing.assert_array_equal(outputs[0], outputs[1])
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_shapes_are_none_where_dynamic(model: onnx.ModelProto) -> None:
    session = Session(model)
    assert session.input_shape == (None, 3, None, None)
    assert session.output_shape[:2] == (None, 4)


def test_value_shapes_sees_inner_values(model: onnx.ModelProto) -> None:
    assert value_shapes(model, ["c", "y"], np.zeros((1, 3, 6, 8), np.float32)) == {
        "c": (1, 4, 6, 8),
        "y": (1, 4, 6, 8),
    }


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.onnx: no such file"):
        Session(tmp_path / "gone.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_damaged_file_is_named_in_one_line(model: onnx.ModelProto, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString()[:-40] if content is None else content)
    with pytest.raises(ModelError, match=r"bad\.onnx: onnxruntime cannot load it: .+") as caught:
        Session(path)
    assert "\n" not in str(caught.value)


def test_images_of_the_wrong_shape_are_named_with_what_the_model_wants(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match=r"model 'small': onnxruntime fails on float32 images of shape \[1, 4, 5, 5\]"):
        Session(model).run(np.zeros((1, 4, 5, 5), np.float32))


def test_a_node_that_fails_is_named_once(capfd: pytest.CaptureFixture[str]) -> None:
    """In the error; onnxruntime's own log stays quiet."""
    body = "<ir_version: 8, opset_import: ['' : 17]> g (float[N, C] x) => (float[N, 2] y) { y = Gemm (x, w) }"
    model = onnx.parser.parse_model(body.replace("'", '"'))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 2), np.float32), "w"))
    model.graph.node[0].name = "logits"
    with pytest.raises(ModelError, match=r"Gemm node\. Name:'logits'"):
        Session(model).run(np.zeros((1, 5), np.float32))
    assert capfd.readouterr().err == ""


def test_images_of_the_wrong_type_are_named(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="float64 images"):
        Session(model).run(np.zeros((1, 3, 5, 5), np.float64))


def test_exact_int8_does_not_saturate() -> None:
    channels = 64
    images = np.full((1, channels, 4, 4), 255, np.float32)
    exact = Session(saturating_model(channels), exact_int8=True).run(images)
    np.testing.assert_allclose(exact, 255 * 127 * channels, rtol=1e-6)


@pytest.mark.skipif(not saturates_int8(machine_info()), reason="this CPU has VNNI: nothing saturates")
def test_without_it_a_cpu_without_vnni_saturates() -> None:
    images = np.full((1, 64, 4, 4), 255, np.float32)
    assert Session(saturating_model(64)).run(images).max() < 0.6 * 255 * 127 * 64


@pytest.mark.parametrize("opset", [11, 17])
def test_the_quantiser_to_beat_makes_int8_weights_per_channel(tmp_path: Path, opset: int) -> None:
    rng = np.random.default_rng(0)
    model = conv_model(rng.standard_normal((4, 3, 3, 3), np.float32), np.zeros(4, np.float32), opset=opset)
    source, target = tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    onnx.save(model, source)
    images = rng.standard_normal((4, 3, 8, 8)).astype(np.float32)
    quantize_static_minmax(source, [images], target)
    weights = [t for t in onnx.load(target).graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4]
    assert [tuple(t.dims) for t in weights] == [(4, 3, 3, 3)]
    expected = Session(source).run(images)
    found = Session(target, exact_int8=True).run(images)
    # Weights and values are off by half a step of 1/127 and 1/255 each, a hundredth of the range in all.
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_the_quantiser_to_beat_leaves_nothing_where_it_is_run(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its symbolic shape inference gives up (on the deployed detector, say), it writes what it had so far."""

    def give_up(*arguments: object, **options: object) -> None:
        Path("sym_shape_infer_temp.onnx").write_bytes(b"")
        raise Exception("Incomplete symbolic shape inference")

    monkeypatch.setattr("onnxruntime.quantization.shape_inference.quant_pre_process", give_up)
    source, here = tmp_path / "fp32.onnx", tmp_path / "here"
    here.mkdir()
    onnx.save(model, source)
    monkeypatch.chdir(here)
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    quantize_static_minmax(source, [np.ones((1, channels, 8, 8), np.float32)], tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx").exists()
    assert list(here.iterdir()) == []


def test_quantising_without_images_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    onnx.save(model, path)
    with pytest.raises(DataError, match=r"fp32\.onnx: no images to calibrate with"):
        quantize_static_minmax(path, [], tmp_path / "int8.onnx")


def test_images_that_do_not_fit_fail_with_one_line(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "fp32.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError, match=r"fp32\.onnx: onnxruntime cannot quantise it: .+"):
        quantize_static_minmax(path, [np.zeros((1, 5, 8, 8), np.float32)], tmp_path / "int8.onnx")
