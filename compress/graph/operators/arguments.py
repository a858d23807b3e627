"""Operands that are constant: lists of numbers, whatever the opset keeps them as."""

from typing import Any

import onnx

from compress.graph.importer import Attributes, Importer, Unsupported


def int_list(g: Importer, node: onnx.NodeProto, at: Attributes, name: str, position: int) -> list[int] | None:
    """A list of numbers that older opsets keep as an attribute and newer ones as a constant input."""
    if name in at:
        return [int(number) for number in at[name]]
    if len(node.input) <= position or not node.input[position]:
        return None
    found = g.constant(node.input[position])
    if found is None:
        raise Unsupported(f"{name} is computed at run time")
    return [int(number) for number in found.reshape(-1)]


def plain_sizes(g: Importer, name: str) -> Any:
    """Sizes or counts: plain numbers where they are constant."""
    found = g.constant(name)
    return g.value(name) if found is None else [int(number) for number in found.reshape(-1)]
