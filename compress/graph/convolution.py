"""Plain convolutions in an onnx_ir graph: recognise one with its weights, and put a new one into the graph."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from compress.graph.edit import array_of, attribute, auto_pad, constant


@dataclass(frozen=True)
class Convolution:
    """A convolution with constant weights of one group, stride and dilation 1, that keeps height and width."""

    node: ir.Node
    data: ir.Value
    weight: np.ndarray
    """[O, I, k, k], float64."""
    bias: np.ndarray | None
    """[O], float64."""

    @property
    def kernel(self) -> int:
        """Its side, odd."""
        return int(self.weight.shape[-1])


def as_convolution(node: ir.Node) -> Convolution | None:
    """The node as a plain convolution of one group that keeps height and width, or None where it is something else."""
    if node.op_type != "Conv" or node.inputs[0] is None:
        return None
    weight = array_of(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 else None
    bias = array_of(given)
    if weight is None or weight.ndim != 4 or (given is not None and bias is None):
        return None
    side = weight.shape[2]
    keeps = (
        weight.shape[3] == side
        and side % 2 == 1
        and list(attribute(node, "pads", [0] * 4)) == [(side - 1) // 2] * 4
        and set(attribute(node, "strides", [1, 1])) == {1}
        and set(attribute(node, "dilations", [1, 1])) == {1}
        and int(attribute(node, "group", 1)) == 1
        and auto_pad(node) == "NOTSET"
    )
    if not keeps:
        return None
    return Convolution(
        node, node.inputs[0], weight.astype(np.float64), None if bias is None else bias.astype(np.float64)
    )


def insert_convolution(
    graph: ir.Graph,
    before: ir.Node,
    value: ir.Value,
    weight: np.ndarray,
    bias: np.ndarray | None,
    padding: int,
    name: str,
) -> ir.Value:
    """A new convolution with stride 1 in front of a node."""
    parameters = [constant(graph, f"{name}.weight", weight.astype(np.float32))]
    if bias is not None:
        parameters.append(constant(graph, f"{name}.bias", bias.astype(np.float32)))
    attributes: dict[str, Any] = {
        "kernel_shape": list(weight.shape[2:]),
        "pads": [padding] * 4,
        "strides": [1, 1],
        "group": 1,
    }
    made = ir.node("Conv", [value, *parameters], attributes)
    made.outputs[0].name = name
    made.outputs[0].shape = ir.Shape([None, weight.shape[0], None, None])
    made.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(before, made)
    return made.outputs[0]
