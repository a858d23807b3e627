"""Numbers of a graph that count channels: a Reshape's target, a Split's parts, a Slice's bounds.

Pruning changes them with the channels. Such a node then holds plain numbers, also where its file computes them of other
sizes, and `compress.graph.write` puts them into the file.
"""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx

from compress.graph.modules import COMPUTED, onnx_reshape, onnx_slice

MEANS = {onnx_reshape: "Reshape", torch.split: "Split", torch.chunk: "Split", onnx_slice: "Slice"}
"""Function of an fx node -> the ONNX operator that it stands for."""


def set_sizes(node: fx.Node, numbers: Sequence[int], axis: int = 0) -> None:
    """Give a node of `MEANS` its numbers.

    Args:
        node: a Reshape, Split or Slice.
        numbers: the target of a Reshape (`COMPUTED` where the graph computes it), the sizes of a Split's parts, start
            and end of a Slice.
        axis: of a Slice, the one that it cuts.
    """
    given = [int(number) for number in numbers]
    if node.target is onnx_slice:
        node.args = (node.args[0], [given[0]], [given[1]], [axis], [1])
    elif COMPUTED in given:
        node.args = (node.args[0], node.args[1], given)
    else:
        node.args = (node.args[0], given)
        node.target = torch.split if node.target is torch.chunk else node.target
    node.meta["sizes"] = tuple(given)


def write_sizes(graph: onnx.GraphProto, module: fx.GraphModule) -> None:
    """Write the numbers that `set_sizes` gave to a module's nodes into the graph, and drop what computed them before.

    Args:
        graph: of the model that the module was imported from, or a part of it; changed.
        module: the pruned network.
    """
    nodes = {node.output[0]: node for node in graph.node}
    changed = False
    for made in module.graph.nodes:
        node = nodes.get(made.meta.get("onnx", "")) if "sizes" in made.meta else None
        if node is not None:
            _write(graph, node, made)
            changed = True
    if changed:
        _drop_unread(graph)


def _write(graph: onnx.GraphProto, node: onnx.NodeProto, made: fx.Node) -> None:
    numbers = made.meta["sizes"]
    if node.op_type == "Slice":
        inputs = {1: [numbers[0]], 2: [numbers[1]], 3: made.args[3], 4: [1]}
    elif COMPUTED in numbers:
        _write_some(graph, node, np.array(numbers, np.int64))
        return
    else:
        inputs = {1: list(numbers)}
    for entry in [entry for entry in node.attribute if entry.name == "num_outputs"]:
        node.attribute.remove(entry)
    node.input.extend([""] * (max(inputs) + 1 - len(node.input)))
    for place, values in inputs.items():
        node.input[place] = f"{node.output[0]}.sizes.{place}"
        array = np.array(values, np.int64)
        graph.initializer.append(numpy_helper.from_array(array, node.input[place]))


def _write_some(graph: onnx.GraphProto, node: onnx.NodeProto, numbers: np.ndarray) -> None:
    """Some of a Reshape's numbers, the others as they are computed: chosen by a Where in front of it."""
    names = [f"{node.output[0]}.sizes.{part}" for part in ("given", "numbers", "chosen")]
    for name, array in zip(names, (numbers != COMPUTED, numbers), strict=False):
        graph.initializer.append(numpy_helper.from_array(array, name))
    chosen = onnx.helper.make_node("Where", [*names[:2], node.input[1]], names[2:], name=names[2])
    graph.node.insert(list(graph.node).index(node), chosen)
    node.input[1] = names[2]


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes and constants that no node and no output reads any more."""
    read = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if read.isdisjoint(node.output):
            continue
        read.update(node.input)
        kept.append(node)
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    if len(kept) < len(graph.node):
        del graph.node[:]
        graph.node.extend(reversed(kept))
    for tensor in unread:
        graph.initializer.remove(tensor)
