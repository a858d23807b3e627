"""The smaller spelling of a model computes the same, bit for bit."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.export.compact import compact
from compress.measure.session import Session
from tests.export import files
from tests.quant import nets


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("name", nets.ZOO)
def test_outputs_are_bit_equal(name: str, optimise: bool) -> None:
    model, images = nets.template(name), nets.images(2).numpy()
    small, _ = compact(model)
    onnx.checker.check_model(small, full_check=True)
    assert len(small.SerializeToString()) < len(model.SerializeToString())
    before = Session(model, optimise=optimise).run_all(images)
    after = Session(small, optimise=optimise).run_all(images)
    assert list(before) == list(after)
    for output in before:
        np.testing.assert_array_equal(before[output], after[output])


def test_the_model_given_is_left_alone() -> None:
    model = nets.template("mobile")
    before = model.SerializeToString()
    compact(model)
    assert model.SerializeToString() == before


def test_names_are_short_and_their_old_ones_known() -> None:
    model = nets.template("plain")
    small, renamed = compact(model)
    makers = [(old, new) for old, new in zip(model.graph.node, small.graph.node, strict=True)]
    for old, new in makers:
        assert [renamed[name] for name in old.output] == list(new.output)
        assert old.op_type == new.op_type
    inner = {name for node in small.graph.node for name in node.output} - {"output"}
    assert max(map(len, inner)) == 1
    assert renamed["x"] == "x"
    assert renamed["output"] == "output"


def graph_of(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], inputs: str = "x") -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "a long name",
        [value(inputs, TensorProto.FLOAT, ["N", 2])],
        [value("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
        doc_string="a text",
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_equal_constants_are_stored_once_and_unread_ones_not_at_all() -> None:
    one, two = np.float32([1, 1]), np.float32([2, 2])
    nodes = [
        helper.make_node("Add", ["x", "a"], ["p"], name="first", doc_string="why"),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Mul", ["q", "c"], ["y"]),
    ]
    small, renamed = compact(graph_of(nodes, {"a": one, "b": one.copy(), "c": two, "unread": two}))
    assert len(small.graph.initializer) == 2
    assert small.graph.node[0].input[1] == small.graph.node[1].input[1] == renamed["a"]
    assert not small.graph.doc_string
    assert not small.graph.node[0].doc_string
    x = np.float32([[1, 2]])
    np.testing.assert_array_equal(Session(small).run(x), (x + 2) * 2)


def test_equal_bytes_of_another_type_or_shape_are_kept_apart() -> None:
    nodes = [
        helper.make_node("Add", ["x", "a"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Reshape", ["q", "c"], ["y"]),
    ]
    constants = {"a": np.zeros(2, np.float32), "b": np.zeros((1, 2), np.float32), "c": np.zeros(2, np.int64)}
    small, _ = compact(graph_of(nodes, constants))
    assert len(small.graph.initializer) == 3


def test_short_names_do_not_meet_public_ones() -> None:
    """An input called `a` keeps its name, and no inner value takes it."""
    nodes = [helper.make_node("Add", ["a", "some constant"], ["inner"]), helper.make_node("Relu", ["inner"], ["y"])]
    small, _ = compact(graph_of(nodes, {"some constant": np.float32([1, 2])}, inputs="a"))
    names = {"a", "y", small.graph.initializer[0].name, small.graph.node[0].output[0]}
    assert len(names) == 4
    np.testing.assert_array_equal(Session(small).run(np.float32([[-5, 1]])), [[0, 3]])


def attributes(node: onnx.NodeProto) -> set[str]:
    return {entry.name for entry in compact(graph_of([node], {}))[0].graph.node[0].attribute}


@pytest.mark.parametrize(
    ("op_type", "defaults", "telling"),
    [
        ("Conv", {"group": 1, "strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "kernel_shape": [3, 3]}, {}),
        ("Conv", {"group": 1, "auto_pad": "NOTSET"}, {"strides": [1, 2], "dilations": [2, 1], "pads": [0, 0, 1, 1]}),
        ("MaxPool", {"ceil_mode": 0, "strides": [1, 1]}, {"kernel_shape": [2, 2]}),
        ("MaxPool", {"storage_order": 0}, {"kernel_shape": [1, 1], "ceil_mode": 1, "strides": [2, 2]}),
        ("Gemm", {"alpha": 1.0, "beta": 1.0, "transA": 0}, {"transB": 1}),
        ("DequantizeLinear", {"axis": 1}, {}),
        ("DequantizeLinear", {}, {"axis": 0}),
        ("Softmax", {"axis": -1}, {}),
        ("Softmax", {}, {"axis": 1}),
        ("Concat", {}, {"axis": 1}),
        ("LeakyRelu", {}, {"alpha": 0.1}),
    ],
)
def test_attributes_that_the_standard_implies_go(op_type: str, defaults: dict, telling: dict) -> None:
    node = helper.make_node(op_type, ["x"], ["y"], **defaults, **telling)
    assert attributes(node) == set(telling)


def test_an_exported_file_is_already_compact() -> None:
    model = nets.template("plain")
    once, _ = compact(model)
    twice, renamed = compact(once)
    assert twice.SerializeToString() == once.SerializeToString()
    assert all(old == new for old, new in renamed.items())
    assert files.count_ops(once) == files.count_ops(model)
