"""Numbers that count channels are set in a module, and follow into its file."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import fx

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.modules import COMPUTED, onnx_reshape
from compress.graph.sizes import set_sizes
from tests.graph.graphs import image_graph, ints, run

IMAGE = np.arange(1 * 4 * 8 * 8, dtype=np.float32).reshape(1, 4, 8, 8)
COMPUTED_TARGET = "s = Shape (x) h = Slice (s, two, four) t = Concat <axis = 0> (n, h) y = Reshape (x, t)"
CASES = {
    "Reshape": ("y = Reshape (x, t)", {"t": ints(0, 2, 2, 64)}, "onnx_reshape", (0, 1, 4, 64), (1, 1, 4, 64)),
    "Slice": ("y = Slice (x, a, b, c)", {"a": ints(0), "b": ints(2), "c": ints(1)}, "onnx_slice", (1, 4), (1, 3, 8, 8)),
    "Split": ("y, z = Split <axis = 1> (x, p)", {"p": ints(2, 2)}, "split", (3, 1), (1, 3, 8, 8)),
}


def imported(text: str, constants: dict[str, np.ndarray]) -> tuple[onnx.ModelProto, fx.GraphModule]:
    model = canonicalise(image_graph(text, constants))
    return model, to_torch(model)


def node_of(module: fx.GraphModule, name: str) -> fx.Node:
    return next(node for node in module.graph.nodes if node.name == name)


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_set_and_written(case: str) -> None:
    text, constants, name, numbers, shape = CASES[case]
    model, module = imported(text, constants)
    set_sizes(node_of(module, name), numbers, axis=1)
    module.recompile()
    found = module(torch.from_numpy(IMAGE))
    assert tuple(found.shape) == shape
    written = to_onnx(module, model)
    np.testing.assert_array_equal(run(written, IMAGE)["y"], found.numpy())
    read = {each for node in written.graph.node for each in node.input}
    assert {tensor.name for tensor in written.graph.initializer} <= read


def test_some_of_a_target_stay_computed() -> None:
    constants = {"two": ints(2), "four": ints(4), "n": ints(1, 4)}
    model, module = imported(COMPUTED_TARGET, constants)
    node = next(node for node in module.graph.nodes if node.target is onnx_reshape)
    set_sizes(node, (1, 4, COMPUTED, COMPUTED))
    module.recompile()
    written = to_onnx(module, model)
    assert [each.op_type for each in written.graph.node if each.op_type == "Where"] == ["Where"]
    np.testing.assert_array_equal(run(written, IMAGE)["y"], module(torch.from_numpy(IMAGE)).numpy())
    again = to_torch(canonicalise(written))
    np.testing.assert_array_equal(again(torch.from_numpy(IMAGE)).numpy(), IMAGE)


def test_what_is_not_set_is_written_as_it_was() -> None:
    model, module = imported("y = Reshape (x, t)", {"t": ints(0, 2, 2, 64)})
    (target,) = (numpy_helper.to_array(tensor) for tensor in to_onnx(module, model).graph.initializer)
    assert target.tolist() == [0, 2, 2, 64]
    assert to_onnx(module, model) == model
