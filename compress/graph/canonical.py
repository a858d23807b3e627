"""The one canonical form: every exporter's spelling of an operation becomes the same nodes.

Everything after loading (import into PyTorch, pruning, quantisation, export) sees this form only:
opset 17 or later, constants folded, weights as initialisers used by one node each, hard-swish and hard-sigmoid
as single nodes, biases inside their convolution, LSTMs without spelled-out zero states, distinct symbolic dimensions.
"""

import warnings

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnxscript import optimizer

from compress.errors import ModelError
from compress.graph import rules

OPSET = 17
"""Lowest opset of the canonical form: the first with every operator that we emit."""
NO_LIMIT = 1 << 40
"""Fold constants of any size: with the default limits LSTM weights stay behind Slice and Concat chains."""


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a checked model into canonical form; outputs stay equal to float rounding.

    Raises:
        ModelError: the model's opset cannot be converted, or its constants cannot be folded.
    """
    model = _converted(model)
    _name_dimensions(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = optimizer.optimize(model, input_size_limit=NO_LIMIT, output_size_limit=NO_LIMIT)
    except Exception as error:  # the optimiser raises many kinds; all mean the same to the user
        raise ModelError(f"constants cannot be folded ({error}). Export the model again.") from error
    graph_model = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    rules.apply_rules(graph_model.graph)
    common.RemoveUnusedNodesPass()(graph_model)
    _unshare_weights(graph_model.graph)
    rules.flush_denormals(graph_model.graph)
    _name_nodes(graph_model.graph)
    graph_model.graph.doc_string = None
    result = ir.to_proto(graph_model)
    return _with_inferred_shapes(result)


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Raise the opset to OPSET; later ones stay."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        try:
            model = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # a C++ exception without a stable type
            raise ModelError(f"opset {opset} cannot be converted to {OPSET} ({error}). Export with opset 17.") from error
    else:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        model = copy
    model.ir_version = max(model.ir_version, 8)
    return model


def _name_dimensions(model: onnx.ModelProto) -> None:
    """Give every unknown dimension of an image input its own name; drop stale shapes of inner values.

    PaddlePaddle writes '?' for height and for width (one symbol: "equal"), and -1 for the batch.
    """
    names = ("batch", "channels", "height", "width")
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        seen: set[str] = set()
        for index, dim in enumerate(dims):
            unknown = not dim.HasField("dim_value") or dim.dim_value <= 0
            if unknown and (not dim.dim_param or not dim.dim_param.isidentifier() or dim.dim_param in seen):
                dim.dim_param = names[index] if len(dims) == 4 else f"{value.name}_{index}"
            seen.add(dim.dim_param)
    del model.graph.value_info[:]
    dynamic = any(d.dim_param for v in model.graph.input for d in v.type.tensor_type.shape.dim)
    if dynamic:
        for value in model.graph.output:  # exporters freeze the sizes of their example here; inference finds the true ones
            value.type.tensor_type.ClearField("shape")


def _unshare_weights(graph: ir.Graph) -> None:
    """Give each use of an initialiser by a parametric node its own copy, so that pruning one does not touch another."""
    for node in graph:
        if node.op_type not in rules.PARAMETRIC:
            continue
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is None or len(value.uses()) < 2:
                continue
            name = f"{value.name}.{node.outputs[0].name}.{index}"
            copy = rules.constant(graph, name, np.array(value.const_value.numpy()))
            node.replace_input_with(index, copy)


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after its first output: unique, and stable from stage to stage."""
    for node in graph:
        node.name = node.outputs[0].name
        node.doc_string = None
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()


def _with_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fill in the outputs' shapes; inner ones are left out, they would be stale after pruning."""
    del model.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        if found.type.tensor_type.HasField("shape"):
            value.CopyFrom(found)
            for index, dim in enumerate(value.type.tensor_type.shape.dim):
                if not dim.HasField("dim_value") and (not dim.dim_param or dim.dim_param.startswith("unk__")):
                    dim.dim_param = f"{value.name}_{index}"
    return model
