"""Turn a canonical ONNX graph into an ordinary, trainable `torch.fx.GraphModule`.

Each weighted ONNX node becomes one plain PyTorch submodule named after the value it computes; the fx node remembers
that value's name in `meta["onnx"]` (and the operator in `meta["op_type"]`), which is how `compress.graph.write`
finds the ONNX node again.
"""

import operator
from dataclasses import dataclass
from typing import Any

import onnx
from torch import fx

from compress.errors import CompressError, UnsupportedOpError, reason
from compress.graph.importer import Attributes, Importer, Unsupported
from compress.graph.kept import KeptNode, why_not_kept
from compress.graph.operators.table import OPS


@dataclass(frozen=True)
class _Problem:
    """A node that cannot be imported."""

    operator: str
    node: str
    why: str

    @property
    def short(self) -> str:
        """For a list of several."""
        return f"{self.operator} ({self.node}{f': {self.why}' if self.why else ''})"

    @property
    def line(self) -> str:
        """For a line of its own."""
        return f"node {self.node!r} ({self.operator}): {self.why or 'this operator cannot be imported'}"


def to_torch(model: onnx.ModelProto) -> fx.GraphModule:
    """Import a canonical model as a PyTorch module in evaluation mode, with the same inputs and outputs.

    BatchNorm stays BatchNorm, so the module can be trained as it is. One output is returned plainly, several as a
    tuple.

    Raises:
        UnsupportedOpError: the graph holds operators, or forms of them, that cannot be imported; all are named.
    """
    importer = Importer(model)
    for value in model.graph.input:
        if value.name not in importer.constants:
            importer.input(value.name)
    problems = [problem for node in model.graph.node if (problem := _add(importer, node))]
    if problems:
        raise UnsupportedOpError(
            f"cannot import {len(problems)} node(s): {', '.join(problem.short for problem in problems)}. "
            f"Supported operators: {', '.join(sorted(OPS))}.",
            tuple(problem.line for problem in problems),
        )
    results = [importer.value(value.name) for value in model.graph.output]
    importer.graph.output(results[0] if len(results) == 1 else tuple(results))
    return fx.GraphModule(importer.root, importer.graph).eval()


def _made(importer: Importer, node: onnx.NodeProto, attributes: Attributes) -> Any:
    """What stands for a node: its PyTorch form, or, where it has none but may be kept, the node itself."""
    try:
        if node.domain not in ("", "ai.onnx") or node.op_type not in OPS:
            raise Unsupported("")
        return OPS[node.op_type](importer, node, attributes)
    except Unsupported as error:
        why = why_not_kept(node, importer.constants, importer.opset)
        if why:
            raise Unsupported(", ".join(filter(None, (str(error), why)))) from error
    given = [importer.value(name) for name in dict.fromkeys(node.input) if name]
    kept = KeptNode(node, importer.opset)
    outputs = [place for place, name in enumerate(node.output) if name]
    if len(outputs) == 1:
        found = [importer.module(node, kept, *given, output=outputs[0])]
    else:
        result = importer.module(node, kept, *given, output=outputs[0])
        found = [
            importer.call(node, operator.getitem, result, index, output=place) for index, place in enumerate(outputs)
        ]
    by_place = dict(zip(outputs, found, strict=True))
    return tuple(by_place.get(place) for place in range(len(node.output)))


def _add(importer: Importer, node: onnx.NodeProto) -> _Problem | None:
    """Add one node to the importer's graph; what is wrong with it if that cannot be done, else nothing."""
    if node.output[0] in importer.taken_in:
        return None
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    problem = None
    try:
        made = _made(importer, node, attributes)
    except (CompressError, MemoryError):
        raise
    except Exception as error:  # beside Unsupported: attributes or weights that make no sense, in many kinds
        why = str(error) if isinstance(error, Unsupported) else reason(error)
        operator = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        problem = _Problem(operator, node.name or node.output[0], why)
        # Stand-ins, so that the nodes behind can be checked as well; this graph is never run.
        made = tuple(importer.graph.placeholder("unsupported") for _ in node.output)
    for name, result in zip(node.output, made if isinstance(made, tuple) else (made,), strict=False):
        if name:
            importer.values[name] = result
    return problem
