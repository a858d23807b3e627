"""Make a file no larger than it has to be: names, repeated constants and default attributes cost bytes too."""

import itertools
import string
from collections.abc import Iterator
from typing import Any

import onnx

DEFAULTS: dict[str, dict[str, Any]] = {
    "Conv": {"group": 1, "auto_pad": b"NOTSET"},
    "MaxPool": {"ceil_mode": 0, "storage_order": 0, "auto_pad": b"NOTSET"},
    "DequantizeLinear": {"axis": 1},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "Flatten": {"axis": 1},
    "Softmax": {"axis": -1},
}
"""Attributes that say what the standard says anyway."""
UNIFORM = {"dilations": 1, "strides": 1, "pads": 0}
"""Lists whose default is one number throughout (Conv and pooling)."""


def compact(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The same model in fewer bytes: equal constants once, default attributes and node names gone, inner names short.

    Inputs, outputs, opsets and metadata stay as they are.

    Returns:
        The model, and the new name of every value by its old one.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    _merge_constants(graph)
    for node in graph.node:
        _drop_defaults(node)
        node.ClearField("name")
        node.ClearField("doc_string")
    del graph.value_info[:]
    graph.ClearField("doc_string")
    graph.name = "g"
    renamed = _shorten_names(graph)
    result.producer_name, result.producer_version = "compress", ""
    return result, renamed


def _merge_constants(graph: onnx.GraphProto) -> None:
    """Keep one of each set of equal initialisers, and none that nothing reads."""
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = []
    for tensor in graph.initializer:
        if tensor.name not in used:
            continue
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.name = ""
        name = first.setdefault(content.SerializeToString(deterministic=True), tensor.name)
        renamed[tensor.name] = name
        if name == tensor.name:
            kept.append(tensor)
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)


def _drop_defaults(node: onnx.NodeProto) -> None:
    defaults = DEFAULTS.get(node.op_type, {})
    kept = []
    for entry in node.attribute:
        value = onnx.helper.get_attribute_value(entry)
        if entry.name in defaults and defaults[entry.name] == value:
            continue
        if (
            node.op_type in ("Conv", "MaxPool", "AveragePool", "ConvTranspose")
            and entry.name in UNIFORM
            and set(value) == {UNIFORM[entry.name]}
        ):
            continue
        if node.op_type == "Conv" and entry.name == "kernel_shape":  # the weight's shape says it
            continue
        kept.append(entry)
    copies = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in kept]
    del node.attribute[:]
    node.attribute.extend(copies)


def _shorten_names(graph: onnx.GraphProto) -> dict[str, str]:
    public = {value.name for value in graph.input} | {value.name for value in graph.output}
    fresh = (name for name in _short_names() if name not in public)
    short = {name: name for name in public} | {"": ""}
    for tensor in graph.initializer:
        tensor.name = short.setdefault(tensor.name, tensor.name if tensor.name in public else next(fresh))
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name not in short:
                    short[name] = next(fresh)
                names[index] = short[name]
    return short


def _short_names() -> Iterator[str]:
    """a, b, ..., Z, aa, ab, ..."""
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)
