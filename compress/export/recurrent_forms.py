"""LSTM and GRU layers of an int8 file: left in float, with int8 weights, or computed in integers.

onnxruntime has one integer kernel for them, `DynamicQuantizeLSTM`. It rounds a layer's input, and at each time step its
state, to uint8 by the range they have in that call: the images of one batch share it (with several threads, those that
one thread takes), so a reading may depend on what else is in the batch. An image alone is always read the same.
Measured on PP-OCR's recogniser, one thread: docs/history.md.
"""

from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
import torch

from compress.export.weights import store_scaled
from compress.graph.edit import array_of, constant
from compress.quant import functional

RecurrentForm = Literal["float", "weights", "dynamic"]
"""float: as trained. weights: int8, turned into float when the file is loaded; a quarter of the bytes, the same speed.
dynamic: int8 and computed in integers, for LSTM only (a GRU gets `weights`)."""
CONTRIB = "com.microsoft"
WEIGHT_BITS = 8
"""Of the form `weights`: no integer product, so nothing can saturate."""
FORM_OPS = {"weights": ("LSTM", "GRU", "RNN"), "dynamic": ("LSTM",)}
"""The operators that each form exists for."""


def forms_of(model: onnx.ModelProto) -> tuple[RecurrentForm, ...]:
    """The forms that a model's recurrent layers can take, the largest file first; float alone where it has none."""
    found = {node.op_type for node in model.graph.node}
    forms: list[RecurrentForm] = ["float"]
    if found & set(FORM_OPS["weights"]):
        forms.append("weights")
    if found & set(FORM_OPS["dynamic"]):
        forms.append("dynamic")
    return tuple(forms)


def bits_of(form: RecurrentForm, weight_bits: int) -> dict[str, int]:
    """Operator -> bits of its weights in that form; none of them where it is float."""
    if form == "float":
        return {}
    return dict.fromkeys(FORM_OPS["weights"], WEIGHT_BITS) | dict.fromkeys(
        FORM_OPS["dynamic"] if form == "dynamic" else (), weight_bits
    )


def store_recurrent(graph: ir.Graph, form: RecurrentForm, weight_bits: int) -> list[str]:
    """Give every LSTM and GRU of a float graph the form; the names of what is computed in integers are returned.

    Args:
        graph: changed; the layers' weights W [D, G*H, I] and R [D, G*H, H] are constants.
        form: see `RecurrentForm`.
        weight_bits: of the form `dynamic`, whose products saturate at 8 bits on x86 CPUs without VNNI.
    """
    if form == "float":
        return []
    results: list[str] = []
    for node in list(graph):
        if node.op_type in FORM_OPS["dynamic"] and form == "dynamic":
            results += [str(out.name) for out in node.outputs if out.name and (out.uses() or out.is_graph_output())]
            compute_in_integers(graph, node, weight_bits)
        elif node.op_type in FORM_OPS["weights"]:
            for position in (1, 2):
                store_weight(graph, node, position)
    return results


def store_weight(graph: ir.Graph, node: ir.Node, position: int) -> None:
    """Store one weight as int8 [D, G*H, I] with a step for each row [D, G*H]."""
    weight, _ = _weight(node, position)
    integers, scale = round_rows(weight.reshape(-1, weight.shape[-1]), WEIGHT_BITS)
    store_scaled(graph, node, position, integers.reshape(weight.shape), scale.reshape(weight.shape[:2]), 1)


def compute_in_integers(graph: ir.Graph, node: ir.Node, weight_bits: int) -> None:
    """LSTM -> DynamicQuantizeLSTM: weights int8 [D, I, 4H], steps and zero points [D, 4H]."""
    inputs = [*node.inputs, *[None] * (8 - len(node.inputs))]
    for position in (1, 2):
        weight, name = _weight(node, position)
        directions, units, _ = weight.shape
        integers, scale = round_rows(weight.reshape(directions * units, -1), weight_bits)
        transposed = np.ascontiguousarray(integers.reshape(weight.shape).transpose(0, 2, 1))
        inputs[position] = constant(graph, f"{name}.int", transposed)
        inputs.append(constant(graph, f"{name}.scale", scale.reshape(directions, units)))
        inputs.append(constant(graph, f"{name}.zero_point", np.zeros((directions, units), np.int8)))
    attributes = {name: found for name, found in node.attributes.items() if name != "layout"}
    made = ir.Node(CONTRIB, "DynamicQuantizeLSTM", inputs, attributes.values(), num_outputs=len(node.outputs))
    for old, new in zip(node.outputs, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
    ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)
    graph.opset_imports[CONTRIB] = 1


def round_rows(weight: np.ndarray, bit_width: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 [rows, columns] and the step of each row [rows], float32."""
    tensor = torch.tensor(weight)
    scale = functional.weight_scale(tensor, bit_width, 0)
    return functional.quantize_weight(tensor, scale, bit_width, 0).numpy(), scale.numpy()


def _weight(node: ir.Node, position: int) -> tuple[np.ndarray, str]:
    weight = array_of(node.inputs[position])
    assert weight is not None, "an imported layer's weights are constants"
    return weight, f"{node.outputs[0].name}.{position}"
