"""Write a module's weights back into the ONNX graph it came from.

Pruning changes the sizes of weights and the few numbers that count channels (see `compress.graph.sizes`), not the
graph: names, dynamic axes and metadata survive.
"""

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import fx, nn

from compress.errors import ModelError
from compress.graph.kept import KeptNode
from compress.graph.operators import layers as kinds
from compress.graph.sizes import write_sizes

ADVICE = "Write a module back into the model it was imported from."


def to_onnx(module: fx.GraphModule, template: onnx.ModelProto) -> onnx.ModelProto:
    """The template's graph with the module's weights, which may be fewer after pruning.

    Args:
        module: from `to_torch(template)`, trained, pruned, or a deep copy of either.
        template: the canonical model that the module was imported from; it is left as it was.

    Raises:
        ModelError: the module was not imported from this template.
    """
    model = onnx.ModelProto()
    model.CopyFrom(template)
    nodes = {node.output[0]: node for node in model.graph.node}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    _check_complete(module, nodes)
    for made in module.graph.nodes:
        name, target = made.meta.get("onnx", ""), str(made.target)
        if made.op == "get_attr":
            _replace(tensors, name, getattr(module, target).detach().cpu().numpy())
        elif made.op == "call_module" and "op_type" in made.meta:  # quantisers have no node of their own
            layer, node = module.get_submodule(target), nodes.get(name)
            if isinstance(layer, KeptNode):
                continue
            if node is None or node.op_type != made.meta["op_type"]:
                raise ModelError(f"layer {target!r} has no node in the graph. {ADVICE}")
            if node.op_type in kinds.WRITERS:
                _check_kind(target, layer, node)
                _write_layer(model.graph, node, layer, tensors)
    write_sizes(model.graph, module)
    onnx.checker.check_model(model)
    return model


def write_layers(part: onnx.ModelProto, module: fx.GraphModule, layers: nn.Module) -> None:
    """Put layers into a part of the graph that their network came from, in place; it is not checked as `to_onnx` does.

    Args:
        part: some of the nodes of a model, and their weights (see `compress.graph.cone`).
        module: from `to_torch` of that model.
        layers: holds some of the module's layers and tensors under their names; those of other nodes are left out. The
            numbers that count channels are those of the whole pruned network, if that is what it is.
    """
    nodes = {node.output[0]: node for node in part.graph.node}
    tensors = {tensor.name: tensor for tensor in part.graph.initializer}
    held = {**dict(layers.named_modules()), **dict(layers.named_parameters()), **dict(layers.named_buffers())}
    for made in module.graph.nodes:
        name, target = made.meta.get("onnx", ""), str(made.target)
        if target not in held or isinstance(held[target], KeptNode):
            continue
        if made.op == "get_attr" and name in tensors:
            _replace(tensors, name, held[target].detach().cpu().numpy())
        elif made.op == "call_module" and name in nodes and nodes[name].op_type in kinds.WRITERS:
            _write_layer(part.graph, nodes[name], held[target], tensors)
    if isinstance(layers, fx.GraphModule):
        write_sizes(part.graph, layers)


def initializers(model: onnx.ModelProto) -> set[str]:
    """Names of a model's weights."""
    return {tensor.name for tensor in model.graph.initializer}


def _check_complete(module: fx.GraphModule, nodes: dict[str, onnx.NodeProto]) -> None:
    known = {made.meta.get("onnx") for made in module.graph.nodes}
    missing = [name for name, node in nodes.items() if node.op_type in kinds.WRITERS and name not in known]
    if missing:
        raise ModelError(f"the module has no layer for the graph's {', '.join(missing)}. {ADVICE}")


def _check_kind(target: str, layer: nn.Module, node: onnx.NodeProto) -> None:
    fitting = kinds.KINDS[node.op_type]
    if not isinstance(layer, fitting):
        wanted = " or ".join(kind.__name__ for kind in fitting)
        raise ModelError(f"layer {target!r} is {type(layer).__name__}. Must be {wanted}, as it was imported.")


def _write_layer(
    graph: onnx.GraphProto, node: onnx.NodeProto, layer: nn.Module, tensors: dict[str, onnx.TensorProto]
) -> None:
    for position, array in kinds.WRITERS[node.op_type](layer, node).items():
        if position < len(node.input) and node.input[position]:
            _replace(tensors, node.input[position], array)
            continue
        node.input.extend([""] * (position + 1 - len(node.input)))
        node.input[position] = f"{node.output[0]}.{position}"
        graph.initializer.append(numpy_helper.from_array(array, node.input[position]))
    if node.op_type == "MatMul" and isinstance(layer, nn.Linear) and layer.bias is not None:
        add = next(reader for reader in graph.node if node.output[0] in reader.input)
        _replace(tensors, kinds.bias_input(add, node), layer.bias.detach().cpu().numpy())
    for name, value in _sizes(layer).items():
        _set_attribute(node, name, value)
    for entry in node.attribute:
        if node.op_type == "Gemm" and entry.name in ("alpha", "beta"):
            entry.f = 1.0  # the layer's weight and bias hold them


def _sizes(layer: nn.Module) -> dict[str, int]:
    """Attributes that follow from the layer's sizes."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
        return {"group": layer.groups}  # also 1: a depthwise convolution may be pruned to a single channel
    if isinstance(layer, nn.RNNBase):
        return {"hidden_size": layer.hidden_size}
    if isinstance(layer, nn.GroupNorm):
        return {"num_groups": layer.num_groups}
    return {}


def _replace(tensors: dict[str, onnx.TensorProto], name: str, array: np.ndarray) -> None:
    if name not in tensors:
        raise ModelError(f"weight {name!r} is not in the graph. {ADVICE}")
    tensors[name].CopyFrom(numpy_helper.from_array(np.asarray(array, order="C"), name))


def _set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    made = onnx.helper.make_attribute(name, value)
    for entry in node.attribute:
        if entry.name == name:
            entry.CopyFrom(made)
            return
    node.attribute.append(made)
