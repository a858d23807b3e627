"""Types of elements: what they are called, and half precision taken up to float32, which can be trained."""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from compress.errors import ModelError, reason

HALF = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
RECURRENT = ("LSTM", "GRU", "RNN")
_TYPE_ATTRIBUTES = frozenset(("to", "dtype"))
"""Attributes that hold a type of elements: Cast's, and those of operators that make tensors."""


def type_name(kind: int) -> str:
    """What a type of elements is called, e.g. float16; of a number that ONNX does not know, that number."""
    known = kind in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(kind)).lower() if known else f"type {kind}"


def half_types(model: onnx.ModelProto) -> list[str]:
    """The half-precision types of a model's constants and conversions, by name; none of a model in float32."""
    kinds: set[int] = set()
    for graph in _graphs(model.graph):
        kinds |= {tensor.data_type for tensor in graph.initializer}
        for node in graph.node:
            kinds |= {entry.t.data_type for entry in node.attribute if entry.HasField("t")}
            kinds |= {entry.i for entry in node.attribute if entry.name in _TYPE_ATTRIBUTES}
    return sorted(type_name(kind) for kind in kinds & set(HALF))


def has_half_recurrent(model: onnx.ModelProto) -> bool:
    """Whether a model has recurrent layers and half-precision numbers: onnxruntime, which has no such kernels, crashes
    (SIGSEGV) while it optimises such a graph."""
    return any(node.op_type in RECURRENT for graph in _graphs(model.graph) for node in graph.node) and bool(
        half_types(model)
    )


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every half-precision constant, input, output and conversion is float32.

    float16 and bfloat16 numbers are float32 numbers, too: nothing is rounded. What is computed between them no longer
    is rounded to half precision either.

    Raises:
        ModelError: a tensor's bytes are not as many as its shape needs.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        for tensor in graph.initializer:
            _raise_tensor(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in HALF:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for entry in node.attribute:
                if entry.HasField("t"):
                    _raise_tensor(entry.t)
                if entry.name in _TYPE_ATTRIBUTES and entry.i in HALF:
                    entry.i = TensorProto.FLOAT
    return copy


def _raise_tensor(tensor: TensorProto) -> None:
    if tensor.data_type not in HALF:
        return
    try:
        numbers = numpy_helper.to_array(tensor)
    except Exception as error:  # onnx raises many kinds
        raise ModelError(
            f"weight {tensor.name!r}: its numbers cannot be read as {type_name(tensor.data_type)} ({reason(error)}). "
            "The file is damaged; export it again."
        ) from error
    tensor.CopyFrom(numpy_helper.from_array(numbers.astype(np.float32), tensor.name))


def _graphs(graph: onnx.GraphProto) -> Iterable[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for entry in node.attribute:
            for inner in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
                yield from _graphs(inner)
