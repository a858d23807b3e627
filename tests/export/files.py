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
    """Element type that a node's constant input is stored as, looking through DequantizeLinear; None if computed."""
    maker = producers(model).get(name)
    if maker is not None and maker.op_type == "DequantizeLinear":
        name = maker.input[0]
    tensor = initialisers(model).get(name)
    return None if tensor is None else int(tensor.data_type)
