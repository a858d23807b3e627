"""Put a cheaper activation in the place of another: another function, which training must compensate for."""

from collections.abc import Collection

import onnx

OP_TYPES = {"hardswish": "HardSwish", "relu": "Relu"}
"""Activations as recipes call them -> their node of the canonical form, which has one input and no attributes."""
REPLACEMENTS = {"hardswish": ("relu",)}
"""What may be replaced by what. A hard-swish in integers is an addition and a multiplication of whole tensors; a ReLU
behind a layer is the saturation of its integers, and costs nothing."""


def activations_of(model: onnx.ModelProto, kind: str) -> tuple[str, ...]:
    """Names of a canonical model's nodes of that kind, in the order they are computed.

    Args:
        model: in canonical form.
        kind: one of OP_TYPES.
    """
    return tuple(node.output[0] for node in model.graph.node if _is_kind(node, kind))


def replace_activations(
    model: onnx.ModelProto, names: Collection[str], original: str, replacement: str
) -> onnx.ModelProto:
    """A copy of the model with these activations replaced; values keep their names, all else stays as it is.

    Args:
        model: in canonical form.
        names: of nodes of kind `original`, from `activations_of`.
        original: a key of REPLACEMENTS.
        replacement: one of its values.
    """
    assert replacement in REPLACEMENTS[original]
    assert set(names) <= set(activations_of(model, original))
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.output[0] in names:
            node.op_type = OP_TYPES[replacement]
    return changed


def is_replacement(model: onnx.ModelProto, original: onnx.ModelProto) -> bool:
    """Whether a model is the original, or what `replace_activations` makes of it: weights and all else are the same.

    Args:
        model: in canonical form.
        original: in canonical form.
    """
    wanted = onnx.ModelProto()
    wanted.CopyFrom(original)
    if len(wanted.graph.node) != len(model.graph.node):
        return False
    for node, found in zip(wanted.graph.node, model.graph.node, strict=True):
        for old, many in REPLACEMENTS.items():
            if _is_kind(node, old) and any(_is_kind(found, new) for new in many):
                node.op_type = found.op_type
    return wanted.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)


def _is_kind(node: onnx.NodeProto, kind: str) -> bool:
    return node.op_type == OP_TYPES[kind] and node.domain in ("", "ai.onnx")
