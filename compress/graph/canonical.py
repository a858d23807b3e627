"""The one canonical form: every exporter's spelling of an operation becomes the same nodes.

Everything after loading (import into PyTorch, pruning, quantisation, export) sees this form only: opset 17 or later,
constants folded, weights as initialisers that one node each uses, hard-swish, hard-sigmoid and LayerNorm as single
nodes, biases inside their convolution, LSTMs without spelled-out zero states, distinct symbolic dimensions, each node
named after the value it computes.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.errors import CompressError, ModelError, reason
from compress.graph import rules
from compress.graph.edit import array_of, constant
from compress.graph.folding import fold
from compress.graph.known_sizes import fold_known_sizes
from compress.graph.old_opsets import restore_meaning

OPSET = 17
"""Lowest opset of the canonical form: the first with every operator that we emit."""
IR_VERSION = 8
"""Lowest version of the file format: the one that came with opset 17."""
ROUNDS = 5
"""Most rounds of folding and rewriting; two do for every model seen."""
PARAMETRIC = frozenset(
    (
        *("Conv", "ConvTranspose", "BatchNormalization", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "LayerNormalization"),
        *("InstanceNormalization", "GroupNormalization", "PRelu"),
    )
)
"""Operators whose constant inputs are trained weights."""


def canonicalise(model: onnx.ModelProto) -> onnx.ModelProto:
    """Bring a checked model into canonical form; outputs stay equal to float rounding, the given model as it was.

    Raises:
        ModelError: the model's opset cannot be converted, its constants cannot be folded, or its shapes contradict one
            another.
    """
    try:
        return _canonicalised(_converted(model))
    except (CompressError, MemoryError):
        raise
    except Exception as error:  # of onnx's inference, onnx_ir or numpy, on a graph that makes no sense
        raise ModelError(
            f"cannot be brought into canonical form ({reason(error)}). Export the model again; "
            "onnx.checker.check_model(..., full_check=True) may say where it contradicts itself."
        ) from error


def _canonicalised(model: onnx.ModelProto) -> onnx.ModelProto:
    ranks = [len(value.type.tensor_type.shape.dim) for value in model.graph.output]
    _drop_weight_inputs(model.graph)
    _name_dimensions(model.graph)
    for _ in range(ROUNDS):  # a rule may uncover more to fold, e.g. two Transposes that an Identity kept apart
        graph_model, changed = _simplified(model)
        model = ir.to_proto(graph_model)
        if not (fold_known_sizes(model) or changed):
            break
    _unshare_weights(graph_model.graph)
    rules.flush_denormals(graph_model.graph)
    _name_nodes(graph_model.graph)
    graph_model.graph.doc_string = None
    result = ir.to_proto(graph_model)
    _infer_output_shapes(result, ranks)
    return result


def _simplified(model: onnx.ModelProto) -> tuple[ir.Model, bool]:
    """Fold constants and apply the rules; whether a rule applied."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = fold(model)
    except Exception as error:  # the optimiser raises many kinds; all mean the same to the user
        raise ModelError(f"constants cannot be folded ({error}). Export the model again.") from error
    graph_model = ir.from_proto(onnx.shape_inference.infer_shapes(model, data_prop=True))
    changed = rules.apply_rules(graph_model.graph)
    common.RemoveUnusedNodesPass()(graph_model)
    return graph_model, changed


def _converted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the opset raised to OPSET; later ones stay."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    copy = onnx.ModelProto()
    if opset >= OPSET:
        copy.CopyFrom(model)
    else:
        try:
            copy = onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:  # a C++ exception without a stable type
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"opset {opset} cannot be converted to {OPSET} ({reason}). Export the model with opset {OPSET}."
            ) from error
        restore_meaning(copy, opset)
    copy.ir_version = max(copy.ir_version, IR_VERSION)
    return copy


def _drop_weight_inputs(graph: onnx.GraphProto) -> None:
    """Old exporters list weights among the graph's inputs, which would keep them from being constants."""
    weights = {tensor.name for tensor in graph.initializer}
    kept = [value for value in graph.input if value.name not in weights]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del graph.input[:]
    graph.input.extend(copies)


def _name_dimensions(graph: onnx.GraphProto) -> None:
    """Give every unknown dimension of an input its own name; drop stale shapes of inner values and outputs.

    PaddlePaddle writes '?' for height and for width (one symbol: "equal"), and -1 for the batch. Exporters freeze the
    sizes of their example in inner values and outputs; inference finds the true ones.
    """
    image_names = ("batch", "channels", "height", "width")
    dynamic = False
    for position, value in enumerate(graph.input):
        dims = value.type.tensor_type.shape.dim
        seen: set[str] = set()
        for index, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            if not dim.dim_param.isidentifier() or dim.dim_param in seen:
                name = image_names[index] if len(dims) == 4 and position == 0 else f"{value.name}_{index}"
                dim.dim_param = name if name not in seen else f"{name}_{index}"
            seen.add(dim.dim_param)
            dynamic = True
    del graph.value_info[:]
    if dynamic:
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def _unshare_weights(graph: ir.Graph) -> None:
    """Give each use of a float constant its own copy, so that training or pruning one does not touch another."""
    for node in graph:
        for index, value in enumerate(node.inputs):
            array = array_of(value)
            if value is None or array is None or array.dtype != np.float32 or len(value.uses()) < 2:
                continue
            if array.size == 1 and node.op_type not in PARAMETRIC:  # a number: the 0 and 6 of a Clip
                continue
            copy = constant(graph, f"{value.name}.{node.outputs[0].name}.{index}", np.array(array))
            node.replace_input_with(index, copy)


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after its first output: unique, and stable from stage to stage."""
    for node in graph:
        first = node.outputs[0]
        if not first.name:  # a recurrent layer of which only the last state is used
            first.name = next(f"{output.name}.{first.index()}" for output in node.outputs if output.name)
        node.name = first.name
        node.doc_string = None
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()


def _infer_output_shapes(model: onnx.ModelProto, ranks: Sequence[int]) -> None:
    """Fill in the outputs' shapes, by rank alone where inference gives up; inner ones would be stale after pruning."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for value, found, rank in zip(model.graph.output, inferred.graph.output, ranks, strict=True):
        if found.type.tensor_type.HasField("shape"):
            value.CopyFrom(found)
        else:
            value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(rank))
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and (not dim.dim_param or dim.dim_param.startswith("unk__")):
                dim.dim_param = f"{value.name}_{index}"
