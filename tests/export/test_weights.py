"""int8 weights behind DequantizeLinear, or behind Cast and Mul: the same numbers, different kernels."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from compress.export.weights import store_integers, store_scaled
from compress.measure.session import Session
from tests.export import files

WEIGHTS = {
    "Conv": ((4, 3, 3, 3), 0, "y = Conv(x, w)"),
    "ConvTranspose": ((3, 5, 2, 2), 1, "y = ConvTranspose(x, w)"),
    "MatMul": ((6, 5), 1, "y = MatMul(x, w)"),
}
"""Operator -> shape of its weight, dimension of the output channels, and the graph."""


def model(kind: str) -> tuple[ir.Model, np.ndarray, np.ndarray]:
    """A graph of one layer, integers, and their steps."""
    shape, axis, text = WEIGHTS[kind]
    generator = np.random.default_rng(0)
    integers = generator.integers(-127, 128, shape).astype(np.int8)
    scale = generator.uniform(0.01, 0.02, shape[axis]).astype(np.float32)
    graph = onnx.parser.parse_graph(f"g (float[1, 3, 6, 6] x) => (float[A, B, C, D] y) {{ {text} }}")
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(shape, np.float32), "w"))
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    return ir.from_proto(made), integers, scale


def written(found: ir.Model) -> onnx.ModelProto:
    del found.graph.initializers["w"]
    proto = ir.to_proto(found)
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("kind", WEIGHTS)
def test_both_forms_multiply_integers_by_their_steps(kind: str) -> None:
    """Bit for bit, also against a float file with the products in it."""
    _, axis, _ = WEIGHTS[kind]
    image = np.random.default_rng(1).standard_normal((1, 3, 6, 6)).astype(np.float32)
    results = []
    for store in (store_integers, store_scaled):
        found, integers, scale = model(kind)
        store(found.graph, found.graph[-1], 1, integers, scale, axis)
        results.append(Session(written(found), optimise=False).run(image))
    found, integers, scale = model(kind)
    along = scale.reshape([-1 if dimension == axis else 1 for dimension in range(integers.ndim)])
    plain = ir.to_proto(found)
    plain.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(integers * along, "w"))
    results.append(Session(plain, optimise=False).run(image))
    np.testing.assert_array_equal(results[0], results[2])
    np.testing.assert_array_equal(results[1], results[2])


@pytest.mark.parametrize("kind", WEIGHTS)
def test_scaled_integers_are_a_constant_once_the_file_is_loaded(kind: str) -> None:
    found, integers, scale = model(kind)
    store_scaled(found.graph, found.graph[-1], 1, integers, scale, WEIGHTS[kind][1])
    counted = files.count_ops(files.optimised(written(found)))
    assert counted[kind] == 1
    assert not {"Cast", "Mul", "DequantizeLinear"} & set(counted)


def test_a_step_for_each_row_of_each_direction() -> None:
    """Recurrent weights [D, G*H, I]: the steps [D, G*H] reach over the last dimension alone."""
    found, _, _ = model("MatMul")
    integers = np.arange(12, dtype=np.int8).reshape(2, 3, 2)
    store_scaled(found.graph, found.graph[-1], 1, integers, np.ones((2, 3), np.float32), 1)
    stored = files.initialisers(ir.to_proto(found))
    assert sorted(list(tensor.dims) for name, tensor in stored.items() if name != "w") == [[2, 3, 1], [2, 3, 2]]


@pytest.mark.parametrize(("kind", "inputs"), [("Gemm", 3), ("MatMul", 2)])
def test_a_zero_point_only_where_onnxruntime_asks_for_it(kind: str, inputs: int) -> None:
    graph = onnx.parser.parse_graph(f"g (float[2, 3] x) => (float[2, 4] y) {{ y = {kind}(x, w) }}")
    graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((3, 4), np.float32), "w"))
    found = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    store_integers(found.graph, found.graph[-1], 1, np.ones((3, 4), np.int8), np.ones(4, np.float32), 1)
    assert [len(node.inputs) for node in found.graph if node.op_type == "DequantizeLinear"] == [inputs]
