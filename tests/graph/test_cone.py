"""Parts of a graph: what depends on a change, and where it may be cut."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compress.graph.cone import COPY, cone_model, cone_of, prefix_model, readers_of
from compress.measure.session import Part, Session

CHANNELS = {"x": 3, "a": 16, "b": 16, "c": 16, "d": 16, "e": 16, "y": 2}


def residual() -> onnx.ModelProto:
    """a = conv(x); b = conv(a); c = conv(b); d = a + c; e = relu(d); y = conv(e)."""
    convs = [("x", "a"), ("a", "b"), ("b", "c"), ("e", "y")]
    weights = [
        np.random.default_rng(place).normal(size=(CHANNELS[out], CHANNELS[read], 1, 1)).astype(np.float32)
        for place, (read, out) in enumerate(convs)
    ]
    nodes = [helper.make_node("Conv", [read, f"{out}.w"], [out]) for read, out in convs]
    nodes[3:3] = [helper.make_node("Add", ["a", "c"], ["d"]), helper.make_node("Relu", ["d"], ["e"])]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", 1, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["n", 2, 8, 8])],
        [numpy_helper.from_array(weight, f"{out}.w") for weight, (_, out) in zip(weights, convs, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


TYPES = {name: helper.make_tensor_type_proto(1, ["n", count, 8, 8]) for name, count in CHANNELS.items()}


@pytest.mark.parametrize(
    ("changed", "copies", "nodes", "inputs"),
    [
        ({0}, True, (0, 1, 2, 3, 4, 5), ("x",)),
        ({1}, True, (1, 2, 3, 4, 5), ("a",)),  # two read a: nothing is fused across it
        ({1}, False, (0, 1, 2, 3, 4, 5), ("x",)),
        ({5}, True, (5,), ("e",)),  # a convolution begins a kernel
        ({4}, True, (2, 3, 4, 5), ("a", "b")),  # an activation does not: what it is fused with runs again
    ],
)
def test_what_a_change_reaches(
    changed: set[int], copies: bool, nodes: tuple[int, ...], inputs: tuple[str, ...]
) -> None:
    cone = cone_of(residual(), changed, copies=copies)
    assert (cone.nodes, cone.inputs) == (nodes, inputs)


def test_nodes_by_what_they_read_or_compute() -> None:
    assert readers_of(residual(), {"b.w"}) == {1}
    assert readers_of(residual(), {"b"}) == {1, 2}


@pytest.mark.parametrize("changed", [{1}, {2}, {3}, {5}])
def test_a_part_computes_what_the_whole_does(changed: set[int]) -> None:
    model = residual()
    images = np.random.default_rng(9).normal(size=(2, 3, 8, 8)).astype(np.float32)
    cone = cone_of(model, changed)
    values = Part(prefix_model(model, cone.inputs)).run(cone.inputs, {"x": images})
    part = cone_model(model, cone, TYPES)
    onnx.checker.check_model(part)
    found = Part(part).run(["y"], dict(zip(cone.inputs, values, strict=True)))[0]
    np.testing.assert_array_equal(found, Session(model).run(images))
    assert part.graph.output[0].name == "y"
    assert len(part.graph.initializer) <= len(cone.nodes)


def test_an_addition_reads_a_copy() -> None:
    """By a pooling where channels fill blocks, by the identity where they do not; all others read it, too."""
    part = cone_model(residual(), cone_of(residual(), {1}), TYPES)
    assert [node.op_type for node in part.graph.node][:2] == ["MaxPool", "Conv"]
    assert [node.op_type for node in part.graph.node if f"a{COPY}" in node.input] == ["Conv", "Add"]
    odd = {**TYPES, "a": helper.make_tensor_type_proto(1, ["n", 12, 8, 8])}
    part = cone_model(residual(), cone_of(residual(), {1}), odd)
    assert part.graph.node[0].op_type == "Conv"
    assert [output.name for output in part.graph.output] == ["y", f"a{COPY}"]
