"""Two ways to store a weight in int8: for a layer whose input is integer, and for one that computes in float.

onnxruntime keeps a DequantizeLinear for the kernels that read integers. Where there is none it runs it in every call,
and the layer, whose weight is then no constant, loses what is prepared when a file is loaded: blocked convolutions with
their activation fused, packed recurrent weights. A Cast and a Mul of constants it computes once, as the file is loaded.
"""

import numpy as np
import onnx_ir as ir

from compress.graph.edit import constant


def store_integers(
    graph: ir.Graph, node: ir.Node, position: int, integers: np.ndarray, scale: np.ndarray, axis: int
) -> None:
    """Put a constant of a layer whose input is integer behind DequantizeLinear; a step for each index of `axis`."""
    name = f"{node.outputs[0].name}.{position}"
    inputs = [constant(graph, f"{name}.int", integers), constant(graph, f"{name}.scale", scale)]
    if node.op_type == "Gemm" and position == 1:  # onnxruntime fuses no Gemm whose weight has its zero point left out
        inputs.append(constant(graph, f"{name}.zero_point", np.zeros(scale.shape, integers.dtype)))
    _feed(graph, node, position, [ir.node("DequantizeLinear", inputs, {"axis": axis})])


def store_scaled(
    graph: ir.Graph, node: ir.Node, position: int, integers: np.ndarray, scale: np.ndarray, axis: int
) -> None:
    """Put a weight of a float layer behind Cast and Mul.

    Args:
        graph: changed.
        node: the layer.
        position: of the weight among its inputs.
        integers: int8.
        scale: one step for each index of the dimensions up to `axis` that are longer than 1.
        axis: the last dimension that has steps of its own.
    """
    name = f"{node.outputs[0].name}.{position}"
    steps = scale.reshape(*scale.shape, *[1] * (integers.ndim - 1 - axis))
    cast = ir.node("Cast", [constant(graph, f"{name}.int", integers)], {"to": ir.DataType.FLOAT})
    multiply = ir.node("Mul", [cast.outputs[0], constant(graph, f"{name}.scale", steps)])
    _feed(graph, node, position, [cast, multiply])


def _feed(graph: ir.Graph, node: ir.Node, position: int, made: list[ir.Node]) -> None:
    """Put nodes in front of another one, whose input is what the last of them computes."""
    graph.insert_before(node, made)
    made[-1].outputs[0].name = f"{node.outputs[0].name}.{position}.float"
    node.replace_input_with(position, made[-1].outputs[0])
