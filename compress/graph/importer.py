"""Builds an fx graph from ONNX nodes: what the operator table's handlers work with."""

import keyword
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import fx, nn

from compress.errors import ModelError
from compress.graph.constants import free_constants

Attributes = dict[str, Any]
"""An ONNX node's attributes as plain values (texts as bytes)."""
Handler = Callable[["Importer", onnx.NodeProto, Attributes], Any]
"""Adds an ONNX node to the importer's graph and returns what its outputs are: one value, or a tuple of them."""


class Unsupported(Exception):
    """Raised by a handler for a form of its operator that it cannot import."""


class Importer:
    """The fx graph in the making, and the ONNX graph's constants and readers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Index the graph's constants, who reads each value, and how many dimensions each has."""
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._trained = free_constants(model.graph).trained
        self.outputs = {value.name for value in model.graph.output}
        self.values: dict[str, Any] = {}
        """ONNX value -> what stands for it in the fx graph."""
        self.taken_in: set[str] = set()
        """First outputs of the nodes that another one has taken in (the Add of a MatMul's bias)."""
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        self._ranks = _ranks_of(model)
        self._taken: set[str] = set()

    def constant(self, name: str) -> np.ndarray | None:
        """The constant of that name, or None."""
        return self.constants.get(name)

    def weight(self, name: str) -> torch.Tensor:
        """A trained weight: a float32 constant."""
        array = self.constants.get(name)
        if array is None:
            raise Unsupported(f"{name!r} is not a constant")
        if array.dtype != np.float32:
            raise Unsupported(f"{name!r} is {array.dtype}, not float32")
        return torch.from_numpy(np.array(array))

    def rank(self, name: str) -> int | None:
        """Number of dimensions of a value, or None where it cannot be inferred."""
        return self._ranks.get(name)

    def input(self, name: str) -> None:
        """Add an input of the network."""
        made = self.graph.placeholder(self._free_name(name))
        made.meta["onnx"] = name
        self.values[name] = made

    def value(self, name: str) -> Any:
        """A tensor operand; a constant becomes a parameter if it was trained (see `free_constants`), else a buffer."""
        if name in self.values:
            return self.values[name]
        array = self.constants.get(name)
        if array is None:
            raise ModelError(f"value {name!r} is used before it is computed. Export the model again.")
        target = self._free_name(name)
        tensor = torch.from_numpy(np.array(array))
        if name in self._trained:
            self.root.register_parameter(target, nn.Parameter(tensor))
        else:
            self.root.register_buffer(target, tensor)
        self.values[name] = self.graph.get_attr(target)
        self.values[name].meta["onnx"] = name
        return self.values[name]

    def operand(self, name: str) -> Any:
        """An operand of element-wise arithmetic, where a float constant of one element is a plain number."""
        array = self.constants.get(name)
        if array is not None and array.size == 1 and array.ndim <= 1 and array.dtype == np.float32:
            return float(array.reshape(-1)[0])
        return self.value(name)

    def module(self, node: onnx.NodeProto, module: nn.Module, *inputs: Any, output: int = 0) -> fx.Node:
        """Add a submodule, named after what the node computes, and its call."""
        target = self._free_name(node.output[output])
        self.root.add_module(target, module)
        return _mark(self.graph.call_module(target, inputs), node, output)

    def call(
        self, node: onnx.NodeProto, function: Callable[..., Any], *inputs: Any, output: int = 0, **options: Any
    ) -> fx.Node:
        """Add a function call that computes the node's output of that position."""
        return _mark(self.graph.call_function(function, inputs, options), node, output)

    def _free_name(self, name: str) -> str:
        """A Python name for a value, not yet taken and not one of the module's own."""
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
        if base[0].isdigit() or keyword.iskeyword(base) or base == "training" or hasattr(fx.GraphModule, base):
            base = f"v_{base}"
        unique, suffix = base, 1
        while unique in self._taken:
            unique, suffix = f"{base}_{suffix}", suffix + 1
        self._taken.add(unique)
        return unique


def _mark(made: fx.Node, node: onnx.NodeProto, output: int) -> fx.Node:
    made.meta["onnx"] = node.output[output]
    made.meta["op_type"] = node.op_type
    return made


def _ranks_of(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    types = {value.name: value.type.tensor_type for value in (*inferred.input, *inferred.value_info, *inferred.output)}
    return {name: len(found.shape.dim) for name, found in types.items() if found.HasField("shape")}
