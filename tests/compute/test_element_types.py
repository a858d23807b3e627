"""Half precision taken up to float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.compute.element_types import half_types, has_half_recurrent, to_float32, type_name
from compress.errors import ModelError
from compress.graph import load_model
from compress.measure.session import Model, Session
from compress.pipeline import open_any
from tests.graph.graphs import image_graph, images, weights


def half_model(kind: int) -> onnx.ModelProto:
    """Half-precision weights, as an initialiser and in a Constant, between conversions."""
    model = image_graph(
        f"""h = Cast <to = {kind}> (x) c = Conv (h, w) k = Constant <value = float[1] {{0.5}}> () a = Mul (c, k)
        y = Cast <to = 1> (a)""",
        {"w": weights(4, 4, 1, 1)},
    )
    for tensor in (model.graph.initializer[0], model.graph.node[2].attribute[0].t):
        data = numpy_helper.to_array(tensor)
        made = helper.make_tensor(tensor.name, kind, data.shape, data.reshape(-1))
        tensor.CopyFrom(made)
    return model


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_numbers_stay_as_they_are(kind: int, tmp_path: Path) -> None:
    model = half_model(kind)
    assert half_types(model) == [type_name(kind)]
    raised = to_float32(model)
    assert half_types(raised) == []
    before = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    np.testing.assert_array_equal(numpy_helper.to_array(raised.graph.initializer[0]), before)
    x = images((2, 4, 5, 6))
    wanted = np.einsum("oi,nihw->nohw", before[:, :, 0, 0], x) * 0.5
    np.testing.assert_allclose(Session(raised).run(x), wanted, atol=1e-5)
    onnx.save(model, tmp_path / "m.onnx")
    said: list[str] = []
    np.testing.assert_allclose(Session(load_model(tmp_path / "m.onnx", said.append)).run(x), wanted, atol=1e-5)
    expected = f"holds {type_name(kind)} numbers, taken up to float32: the result is a float32 or int8 file."
    assert said == [f"{tmp_path / 'm.onnx'}: {expected}"]


def test_float32_has_no_half_types() -> None:
    assert half_types(image_graph("y = Relu (x)")) == []
    assert type_name(999) == "type 999"


def test_a_tensor_of_the_wrong_number_of_bytes_is_named() -> None:
    """Float32 numbers that say they are float16: twice as many as the shape has."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 2] x) => (float[N, 2] y) '
        "<float[2] w = {1, 2}> { y = Add(x, w) }"
    )
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(2, np.float32), "w"))
    model.graph.initializer[0].data_type = TensorProto.FLOAT16
    with pytest.raises(ModelError, match=r"^weight 'w': its numbers cannot be read as float16 \(.*\)\. The file is"):
        to_float32(model)


def half_recurrent(layer: str = "LSTM") -> onnx.ModelProto:
    """A recurrent layer in float16, input and output included."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[layer]
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]> g (float16[N, 4, 1, W] x) => (float16[W, N, 3] y) {{
        q = Squeeze (x, two) t = Transpose <perm = [2, 0, 1]> (q)
        d = {layer} <hidden_size = 3> (t, w, r) y = Squeeze (d, one) }}"""
    )
    arrays = {"w": weights(1, 3 * gates, 4).astype(np.float16), "r": weights(1, 3 * gates, 3).astype(np.float16)}
    arrays |= {"one": np.array([1]), "two": np.array([2])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("form", ["path", "external", "bytes", "model"])
def test_recurrent_layers_in_half_precision_run_in_float32(layer: str, form: str, tmp_path: Path) -> None:
    """onnxruntime itself dies of a float16 LSTM, and with it the program (SIGSEGV)."""
    model, x = half_recurrent(layer), images((2, 4, 1, 6))
    assert has_half_recurrent(model)
    wanted = Session(to_float32(model)).run(x)
    given: Model = model if form == "model" else model.SerializeToString()
    if form in ("path", "external"):
        given = tmp_path / "m.onnx"
        onnx.save(model, given, save_as_external_data=form == "external", location="w", size_threshold=0)
    np.testing.assert_array_equal(Session(given).run(x), wanted)


def test_other_layers_in_half_precision_run_as_they_are() -> None:
    assert not has_half_recurrent(half_model(TensorProto.FLOAT16))


def test_evaluate_says_what_it_runs(tmp_path: Path) -> None:
    onnx.save(half_recurrent(), tmp_path / "m.onnx")
    said: list[str] = []
    opened = open_any(str(tmp_path / "m.onnx"), on_note=said.append)
    assert half_types(onnx.ModelProto.FromString(opened)) == []
    assert said == [
        f"{tmp_path / 'm.onnx'}: onnxruntime crashes on recurrent layers in half precision: run in float32."
    ]
