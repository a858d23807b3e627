"""Parts of a model as models of their own: what a change of some weights can reach, and what computes its inputs.

What a change does not reach computes the same as before, and need not be computed again. Equal to the last bit: a
runtime fuses operators, and a fused addition rounds otherwise than one alone. So a value enters a part only where
nothing is fused, and what is fused with it in the whole model is in the part, too.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compress.graph.write import initializers

ENDS = frozenset(("MaxPool", "AveragePool", "GlobalAveragePool", "Resize", "Concat"))
"""Operators that are never fused with what alone reads them."""
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")
_SHAPES = ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Softmax")
BEGINS = frozenset((*_WEIGHTED, *_SHAPES, *ENDS))
"""Operators that are never fused with what computes their inputs: a kernel begins with them."""
BLOCK = 16
"""Channels that onnxruntime's kernels keep together, at most."""
COPY = ".copy"
"""Ends the name of an input's copy."""


@dataclass(frozen=True)
class Cone:
    """Part of a model's nodes, by place, and the values that they need from outside, in the order they are computed."""

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    copies: bool = True
    """Additions read copies of inputs (see `cone_model`)."""


def readers_of(model: onnx.ModelProto, tensors: Collection[str]) -> frozenset[int]:
    """Places of the nodes that read one of these tensors or compute one of these values."""
    wanted = set(tensors)
    return frozenset(
        place
        for place, node in enumerate(model.graph.node)
        if not wanted.isdisjoint(node.input) or not wanted.isdisjoint(node.output)
    )


def cone_of(model: onnx.ModelProto, changed: Collection[int], *, copies: bool = True) -> Cone:
    """The nodes that depend on changed ones, with those that may be fused with them.

    Args:
        model: in canonical form: its nodes lie in the order they run, without graphs inside.
        changed: places of nodes.
        copies: a value that several nodes read may enter an addition; else what computes it is part of the cone.
    """
    nodes, weights = model.graph.node, initializers(model)
    maker = {name: place for place, node in enumerate(nodes) for name in node.output if name}
    readers = Counter(name for node in nodes for name in node.input)
    inside = _reached(model, changed)
    waiting = sorted(inside)
    while waiting:
        node = nodes[waiting.pop()]
        for name in node.input:
            place = maker.get(name)
            if place is None or place in inside or node.op_type in BEGINS:
                continue
            alone = readers[name] == 1 and nodes[place].op_type not in ENDS
            if alone or (node.op_type == "Add" and not copies):
                inside.add(place)
                waiting.append(place)
    read = {name for place in inside for name in nodes[place].input if name and name not in weights}
    needed = [name for name in read if maker.get(name) not in inside]
    return Cone(tuple(sorted(inside)), tuple(sorted(needed, key=lambda name: maker.get(name, -1))), copies)


def _reached(model: onnx.ModelProto, changed: Collection[int]) -> set[int]:
    """Changed nodes, and all that read what they compute."""
    reached: set[int] = set()
    values: set[str] = set()
    for place, node in enumerate(model.graph.node):
        if place in changed or not values.isdisjoint(node.input):
            reached.add(place)
            values.update(node.output)
    return reached


def cone_model(model: onnx.ModelProto, cone: Cone, types: Mapping[str, onnx.TypeProto]) -> onnx.ModelProto:
    """A cone as a model: its first output is the model's.

    onnxruntime computes networks in blocks of channels. A convolution takes up an addition behind it where the other
    summand lies in blocks and has its size from the same layer, as in the whole model; a model's input has neither. So
    what an addition reads is copied first: by a pooling of 1x1, or, where channels do not fill blocks, by a convolution
    with the identity.

    Args:
        model: the whole one.
        cone: of it.
        types: of the cone's inputs.
    """
    nodes = [model.graph.node[place] for place in cone.nodes]
    added: list[onnx.TensorProto] = []
    copied: list[str] = []
    if cone.copies:
        nodes, added, copied = _with_copies(nodes, cone.inputs, types)
    inputs = [onnx.ValueInfoProto(name=name, type=types[name]) for name in cone.inputs]
    outputs = [model.graph.output[0], *_outputs(model, cone.nodes, copied)]
    return _part(model, nodes, inputs, outputs, added)


def prefix_model(model: onnx.ModelProto, values: Collection[str]) -> onnx.ModelProto:
    """What computes some inner values from the model's inputs; they are among its outputs."""
    maker = {name: place for place, node in enumerate(model.graph.node) for name in node.output if name}
    needed: set[int] = set()
    waiting = [maker[name] for name in values if name in maker]
    while waiting:
        place = waiting.pop()
        if place not in needed:
            needed.add(place)
            waiting += [maker[name] for name in model.graph.node[place].input if name in maker]
    nodes = [model.graph.node[place] for place in sorted(needed)]
    return _part(model, nodes, list(model.graph.input), _outputs(model, sorted(needed), sorted(values)), [])


def _outputs(model: onnx.ModelProto, places: Sequence[int], more: Sequence[str]) -> list[onnx.ValueInfoProto]:
    """What others read of the nodes' values, and `more`: a runtime fuses a value away where it has one reader."""
    inside = set(places)
    outside = {name for place, node in enumerate(model.graph.node) if place not in inside for name in node.input}
    made = [name for place in places for name in model.graph.node[place].output if name in outside]
    first = model.graph.output[0].name
    names = [name for name in dict.fromkeys((*made, *more)) if name != first]
    return [helper.make_empty_tensor_value_info(name) for name in names]


def _part(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    added: Sequence[onnx.TensorProto],
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, model.graph.name, inputs, outputs, [*weights, *added])
    part = helper.make_model(graph, opset_imports=model.opset_import, functions=model.functions)
    part.ir_version = model.ir_version
    return part


def _with_copies(
    nodes: Sequence[onnx.NodeProto], inputs: Collection[str], types: Mapping[str, onnx.TypeProto]
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[str]]:
    """The nodes, reading copies of the inputs that additions of images read; weights of these, and further outputs."""
    copied = {
        name: _copy(name, _dims(types[name])[1])
        for node in nodes
        if node.op_type == "Add"
        for name in node.input
        if name in inputs and len(_dims(types[name])) == 4
    }
    found = [copy for copy, _ in copied.values()]
    for node in nodes:
        reader = onnx.NodeProto()
        reader.CopyFrom(node)
        for place, name in enumerate(node.input):
            reader.input[place] = copied[name][0].output[0] if name in copied else name
        found.append(reader)
    weights = [weight for _, weight in copied.values() if weight is not None]
    # A convolution that nothing else reads would take up the addition itself.
    return found, weights, [copy.output[0] for copy, weight in copied.values() if weight is not None]


def _copy(name: str, channels: int) -> tuple[onnx.NodeProto, onnx.TensorProto | None]:
    if channels % BLOCK == 0:
        return helper.make_node("MaxPool", [name], [name + COPY], kernel_shape=[1, 1]), None
    weight = numpy_helper.from_array(np.eye(channels, dtype=np.float32)[:, :, None, None], f"{name}{COPY}.weight")
    return helper.make_node("Conv", [name, weight.name], [name + COPY]), weight


def _dims(kind: onnx.TypeProto) -> list[int]:
    return [dim.dim_value for dim in kind.tensor_type.shape.dim]
