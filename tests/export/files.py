"""Look at exported files: what they store, and what onnxruntime makes of them."""

import collections
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnx import TensorProto


def optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that onnxruntime really runs, all optimisation on."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)


def count_ops(model: onnx.ModelProto) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph.node)


def initialisers(model: onnx.ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def stored_type(model: onnx.ModelProto, name: str) -> int | None:
    """Element type that a constant input is stored as, behind DequantizeLinear or Cast and Mul; None if computed."""
    makers = producers(model)
    while (maker := makers.get(name)) is not None and maker.op_type in ("DequantizeLinear", "Cast", "Mul"):
        name = maker.input[0]
    tensor = initialisers(model).get(name)
    return None if tensor is None else int(tensor.data_type)


def steps_of(model: onnx.ModelProto) -> set[str]:
    """Names of all scales: of QuantizeLinear and DequantizeLinear, and what cast integers are multiplied by."""
    cast = {node.output[0] for node in model.graph.node if node.op_type == "Cast"}
    return {
        node.input[1]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") or node.input[0] in cast
    }
