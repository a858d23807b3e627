"""Write a module's weights back into the ONNX graph it came from.

Pruning changes the sizes of weights, not the graph: names, dynamic axes and metadata survive.
"""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import fx, nn

from compress.errors import ModelError
from compress.graph import layers


def to_onnx(module: fx.GraphModule, template: onnx.ModelProto) -> onnx.ModelProto:
    """The template's graph with the module's weights, which may be fewer after pruning.

    Args:
        module: from `to_torch(template)`, trained, pruned, or a deep copy of either.
        template: the canonical model that the module was imported from.

    Raises:
        ModelError: the module was not imported from this template.
    """
    model = onnx.ModelProto()
    model.CopyFrom(template)
    nodes = {node.output[0]: node for node in model.graph.node}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for made in module.graph.nodes:
        if made.op == "get_attr":
            buffer = getattr(module, str(made.target))
            _replace(tensors, made.meta["onnx"], buffer.detach().cpu().numpy())
        if made.op != "call_module" or "op_type" not in made.meta:  # quantisers have no node of their own
            continue
        target = module.get_submodule(str(made.target))
        node = nodes.get(made.meta.get("onnx", ""))
        if node is None:
            raise ModelError(f"layer {made.target!r} has no node in the graph. Write back into the model it was imported from.")
        if node.op_type in layers.WRITERS and not isinstance(target, nn.Identity):
            _write_node(model, node, target, tensors, readers)
    onnx.checker.check_model(model)
    return model


def _write_node(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    module: nn.Module,
    tensors: dict[str, onnx.TensorProto],
    readers: dict[str, list[onnx.NodeProto]],
) -> None:
    for position, array in layers.WRITERS[node.op_type](module, node).items():
        if position < len(node.input) and node.input[position]:
            _replace(tensors, node.input[position], array)
            continue
        while len(node.input) <= position:
            node.input.append("")
        node.input[position] = f"{node.output[0]}.{position}"
        model.graph.initializer.append(numpy_helper.from_array(array, node.input[position]))
    if node.op_type == "MatMul" and isinstance(module, nn.Linear) and module.bias is not None:
        add = readers[node.output[0]][0]
        _replace(tensors, layers.bias_input(add, node), module.bias.detach().cpu().numpy())
    for name, value in _sizes(module).items():
        _set_attribute(node, name, value)


def _sizes(module: nn.Module) -> dict[str, Any]:
    """Attributes that follow from the module's sizes."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        return {"group": module.groups}  # also 1: a depthwise convolution may be pruned to a single channel
    if isinstance(module, nn.LSTM | nn.GRU):
        return {"hidden_size": module.hidden_size}
    return {}


def _replace(tensors: dict[str, onnx.TensorProto], name: str, array: np.ndarray) -> None:
    tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
