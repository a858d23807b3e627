"""Looking at graphs and replacing nodes."""

import numpy as np
import onnx_ir as ir
import pytest

from compress.graph.edit import (
    array_of,
    attribute,
    constant,
    dims_of,
    is_inner,
    producer,
    replace_node,
    scalar_of,
)
from tests.graph.graphs import image_graph, node_of, weights


def graph_of(body: str, constants: dict[str, np.ndarray] | None = None, outputs: tuple[str, ...] = ("y",)) -> ir.Model:
    return ir.from_proto(image_graph(body, constants, outputs=outputs))


def value(model: ir.Model, name: str) -> ir.Value:
    return next(output for node in model.graph for output in node.outputs if output.name == name)


def test_constants_get_names_of_their_own() -> None:
    graph = graph_of("y = Relu (x)").graph
    made = [constant(graph, "w", weights(2, 3, seed=seed)) for seed in range(3)]
    assert [item.name for item in made] == ["w", "w.1", "w.2"]
    np.testing.assert_array_equal(array_of(made[2]), weights(2, 3, seed=2))


@pytest.mark.parametrize("array", [np.array(2.5, np.float32), np.array([2.5], np.float32), np.full((1, 1), 2.5)])
def test_scalar_of_any_shape(array: np.ndarray) -> None:
    graph = graph_of("y = Relu (x)").graph
    assert scalar_of(constant(graph, "s", array)) == 2.5


def test_what_is_no_constant_or_no_number() -> None:
    model = graph_of("y = Relu (x)")
    assert array_of(value(model, "y")) is None
    assert array_of(None) is None
    assert scalar_of(value(model, "y")) is None
    assert scalar_of(constant(model.graph, "v", weights(2))) is None


def test_attribute_or_its_default() -> None:
    node = graph_of("y = LeakyRelu <alpha = 0.5> (x)").graph[0]
    assert attribute(node, "alpha", 0.01) == 0.5
    assert attribute(node, "beta", 0.25) == 0.25


def test_producer_of_a_type() -> None:
    model = graph_of("a = Relu (x) y = Neg (a)")
    assert producer(value(model, "a"), "Relu") is model.graph[0]
    assert producer(value(model, "a"), "Neg") is None
    assert producer(model.graph.inputs[0], "Relu") is None
    assert producer(None, "Relu") is None


def test_is_inner_only_with_one_reader_and_no_output() -> None:
    model = graph_of("a = Relu (x) b = Neg (a) c = Exp (b) d = Exp (b) y = Add (c, d)", outputs=("y", "c"))
    assert [is_inner(value(model, name)) for name in "abcdy"] == [True, False, False, True, False]


def test_replaced_node_keeps_name_and_readers() -> None:
    model = graph_of("a = Relu (x) b = Neg (a) y = Exp (a)", outputs=("y", "b", "a"))
    made = replace_node(model.graph, model.graph[0], "LeakyRelu", [model.graph.inputs[0]], alpha=0.5)
    proto = ir.to_proto(model)
    assert made.name == "a"
    assert [value.name for value in proto.graph.output] == ["y", "b", "a"]
    assert node_of(proto, "a").op_type == "LeakyRelu"
    assert [node_of(proto, name).input[0] for name in ("b", "y")] == ["a", "a"]


def test_dims_are_numbers_and_names_or_unknown() -> None:
    model = graph_of("y = Relu (x)")
    assert dims_of(model.graph.inputs[0]) == ("N", 4, "H", "W")
    assert dims_of(None) is None
    assert dims_of(ir.val("v", shape=ir.Shape([None, 3]))) is None
    assert dims_of(ir.val("v", shape=ir.Shape([-1, 3]))) is None
    assert dims_of(ir.val("v")) is None
