"""Turn a canonical ONNX graph into an ordinary, trainable `torch.fx.GraphModule`.

Each weighted ONNX node becomes one plain PyTorch submodule named after the value it computes; the fx node remembers
the ONNX node by that value's name in `meta["onnx"]` (its operator in `meta["op_type"]`), which is how `compress.graph.write` finds it again.
"""

import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from compress.errors import ModelError, UnsupportedOpError

Argument = fx.Node | float | int
Handler = Callable[["Importer", onnx.NodeProto, dict[str, Any]], Any]


class Unsupported(Exception):
    """Raised by a handler for a form of its operator that it cannot import."""


class Importer:
    """Builds the fx graph node by node; handlers in `compress.graph.ops` call its methods."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the graph's constants, and who reads each value."""
        self.model = model
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.outputs = {value.name for value in model.graph.output}
        self.values: dict[str, Any] = {}
        self.skip: set[str] = set()
        """Names of nodes that another one has taken in (a MatMul's bias)."""
        self.root = nn.Module()
        self.graph = fx.Graph()
        self._taken: set[str] = set()

    def constant(self, name: str) -> np.ndarray | None:
        """The constant of that name, or None."""
        return self.constants.get(name)

    def weight(self, name: str) -> torch.Tensor:
        """A weight that must be constant."""
        array = self.constants.get(name)
        if array is None:
            raise Unsupported(f"{name!r} is not a constant")
        return torch.from_numpy(np.array(array))

    def value(self, name: str) -> Any:
        """An operand: an fx node, a number for a one-element constant, or a buffer for a larger one."""
        if name in self.values:
            return self.values[name]
        array = self.constants.get(name)
        if array is None:
            raise ModelError(f"value {name!r} is used before it is computed. Export the model again.")
        if array.size == 1 and array.ndim <= 1 and array.dtype == np.float32:
            return float(array.reshape(-1)[0])
        target = self._free_name(name)
        self.root.register_buffer(target, torch.from_numpy(np.array(array)))
        self.values[name] = self.graph.get_attr(target)
        self.values[name].meta["onnx"] = name
        return self.values[name]

    def module(self, node: onnx.NodeProto, module: nn.Module, *inputs: Any) -> fx.Node:
        """Add a submodule, named after what the node computes, and its call."""
        target = self._free_name(node.output[0])
        self.root.add_module(target, module)
        return self._mark(self.graph.call_module(target, inputs), node)

    def call(self, node: onnx.NodeProto, function: Callable[..., Any], *inputs: Any, **options: Any) -> fx.Node:
        """Add a function call."""
        return self._mark(self.graph.call_function(function, inputs, options), node)

    def _mark(self, made: fx.Node, node: onnx.NodeProto) -> fx.Node:
        made.meta["onnx"] = node.output[0]
        made.meta["op_type"] = node.op_type
        return made

    def _free_name(self, name: str) -> str:
        base = re.sub(r"\W+", "_", name).strip("_") or "value"
        if base[0].isdigit() or keyword.iskeyword(base) or hasattr(nn.Module, base):
            base = f"v_{base}"
        unique, suffix = base, 1
        while unique in self._taken:
            unique, suffix = f"{base}_{suffix}", suffix + 1
        self._taken.add(unique)
        return unique


def to_torch(model: onnx.ModelProto) -> fx.GraphModule:
    """Import a canonical model as a PyTorch module in evaluation mode, with the same inputs and outputs.

    BatchNorm stays BatchNorm, so the module can be trained as it is; one output is returned plainly, several as a tuple.

    Raises:
        UnsupportedOpError: the graph holds operators that cannot be imported; all of them are named.
    """
    from compress.graph.ops import OPS  # the op table needs Importer

    importer = Importer(model)
    problems = [f"{node.op_type} ({node.name or node.output[0]})" for node in model.graph.node if node.op_type not in OPS]
    if problems:
        raise UnsupportedOpError(_unsupported(problems, sorted(OPS)))
    for value in model.graph.input:
        if value.name not in importer.constants:
            importer.values[value.name] = importer.graph.placeholder(re.sub(r"\W+", "_", value.name))
    for node in model.graph.node:
        if node.name in importer.skip:
            continue
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        try:
            made = OPS[node.op_type](importer, node, attributes)
        except Unsupported as error:
            problems.append(f"{node.op_type} ({node.name or node.output[0]}: {error})")
            made = importer.values[next(name for name in node.input if name in importer.values)]
        for name, result in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
            importer.values[name] = result
    if problems:
        raise UnsupportedOpError(_unsupported(problems, sorted(OPS)))
    results = [importer.value(value.name) for value in model.graph.output]
    importer.graph.output(results[0] if len(results) == 1 else tuple(results))
    module = fx.GraphModule(importer.root, importer.graph)
    return module.eval()


def _unsupported(problems: list[str], known: list[str]) -> str:
    return f"cannot import {len(problems)} node(s): {', '.join(problems)}. Supported operators: {', '.join(known)}."
