"""Half precision taken up to float32."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ModelError
from compress.graph import load_model
from compress.graph.element_types import half_types, to_float32, type_name
from compress.measure.session import Session
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
