"""Widen the tensors of a network by channels of zeros, so that kernels which work on blocks of channels are filled.

onnxruntime's integer convolutions, depthwise ones above all, are slow where the number of channels is not a multiple of
their block. A tensor cannot be widened alone: what it is added to or multiplied with must have as many channels, as
must what a pooling or an activation makes of it. Such a coupled set of tensors is found by walking through the graph,
and widened as a whole: convolutions that make its tensors get filters of zeros with a bias of zero, depthwise ones too,
and convolutions that read them get weights of zero for the new channels. The outputs stay the same to the rounding of
float32, whose sums may be taken in another order.

Training keeps this. A new channel reaches nothing but weights of zero, so no gradient comes back to its filter; and it
is zero itself, so its readers' weights get none either. Only behind a Sigmoid or HardSigmoid, or a Clip above 0, is it
a constant other than zero: multiplied with a tensor of the set, as a gate is, it is gone, and a convolution that reads
it directly may learn to use it like a second bias, as the exported file then does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common

from compress.graph.edit import array_of, attribute, constant
from compress.graph.resampling import ELEMENTWISE

SUMS = frozenset({"Add", "Sub", "Mul"})
"""Operators of two tensors with as many channels each (or one, broadcast) that make 0 of 0 and 0, and 0 g = 0."""
POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool"})


@dataclass(frozen=True)
class ChannelSet:
    """Tensors that must have the same number of channels, none of which stops it from growing."""

    name: str
    """The first of them, in the order of the graph."""
    channels: int
    tensors: tuple[str, ...]
    operators: tuple[str, ...]
    """Nodes that compute or read one of them."""


def paddable_sets(model: onnx.ModelProto) -> tuple[ChannelSet, ...]:
    """The coupled sets of channels that can be widened, in the order of the graph.

    Left out is every set with a tensor that is an input or output of the network, or that an operator makes or reads of
    which it is not known what it does to channels (Concat, Reshape, Split, DepthToSpace, recurrent layers, ...).

    Args:
        model: lowered, float (see `compress.graph.lowering`).
    """
    return tuple(_sets(ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph))


def pad_channels(model: onnx.ModelProto, widths: Mapping[str, int]) -> onnx.ModelProto:
    """The model with sets of channels widened by zeros; it computes the same.

    Args:
        model: lowered, float.
        widths: name of a set -> its new number of channels.

    Raises:
        ValueError: there is no such set, or it has more channels already.
    """
    made = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    sets = {found.name: found for found in _sets(made.graph)}
    more: dict[str, int] = {}
    for name, width in widths.items():
        if name not in sets:
            raise ValueError(f"no set of channels {name!r} that can be padded. There are: {', '.join(sets) or 'none'}.")
        if width < sets[name].channels:
            raise ValueError(f"{name}: {sets[name].channels} channels cannot be padded to {width}.")
        more |= dict.fromkeys(sets[name].tensors, width - sets[name].channels)
    for node in made.graph:
        _widen(made.graph, node, more.get(_name(node.inputs[0]), 0) if node.inputs else 0, more.get(_name_of(node), 0))
    common.RemoveUnusedNodesPass()(made)
    proto = ir.to_proto(made)
    del proto.graph.value_info[:]
    return proto


def _sets(graph: ir.Graph) -> Iterable[ChannelSet]:
    """Join what each node couples, and drop what touches a barrier."""
    tensors = _Joined()
    for end in (*graph.inputs, *graph.outputs):
        tensors.fix(end)
    for node in graph:
        groups = _coupled(node)
        free = {id(value) for group in groups for value in group}
        for value in (*node.inputs, *node.outputs):
            if value is not None and id(value) not in free:
                tensors.fix(value)
        for group in groups:
            tensors.join(group)
    for members in tensors.free():
        inside = {id(value) for value in members}
        touching = [node for node in graph if any(id(value) in inside for value in (*node.inputs, *node.outputs))]
        channels = _channels(members[0])
        assert channels is not None
        names = tuple(_name(value) for value in members)
        yield ChannelSet(names[0], channels, names, tuple(node.name or _name_of(node) for node in touching))


class _Joined:
    """Tensors joined into sets, some of them fixed."""

    def __init__(self) -> None:
        self._values: dict[int, ir.Value] = {}
        self._above: dict[int, int] = {}
        self._fixed: set[int] = set()

    def join(self, values: Sequence[ir.Value]) -> None:
        """These have the same channels."""
        for value in values:
            self._above[self._top(value)] = self._top(values[0])

    def fix(self, value: ir.Value) -> None:
        """Its channels stay as many as they are."""
        self._fixed.add(id(value))

    def free(self) -> list[list[ir.Value]]:
        """The sets without a fixed member, and their members, in the order in which they came."""
        found: dict[int, list[ir.Value]] = {}
        for value in self._values.values():
            found.setdefault(self._top(value), []).append(value)
        return [members for members in found.values() if not any(id(value) in self._fixed for value in members)]

    def _top(self, value: ir.Value) -> int:
        self._values.setdefault(id(value), value)
        at = id(value)
        while self._above.get(at, at) != at:
            at = self._above[at]
        return at


def _coupled(node: ir.Node) -> tuple[tuple[ir.Value, ...], ...]:
    """The tensors around a node whose channels may grow, those that must stay equal together; its others must stay."""
    data = node.inputs[0] if node.inputs else None
    if node.domain not in ("", "ai.onnx") or data is None or len(node.outputs) != 1:
        return ()
    made = node.outputs[0]
    groups: tuple[tuple[ir.Value, ...], ...] = ()
    if node.op_type == "Conv":
        groups = _around_convolution(node, data, made)
    elif node.op_type == "Gemm":
        groups = _around_gemm(node, data, made)
    elif node.op_type in SUMS:
        groups = _around_sum(node, made)
    elif node.op_type in ELEMENTWISE or node.op_type in POOLS or _keeps_channels(node):
        groups = ((data, made),)
    known = all(_channels(value) is not None and value.const_value is None for group in groups for value in group)
    return groups if known else ()


def _around_convolution(node: ir.Node, data: ir.Value, made: ir.Value) -> tuple[tuple[ir.Value, ...], ...]:
    weight, constants = array_of(node.inputs[1]), _all_constant(node.inputs[1:])
    if weight is None or not constants:
        return ()
    groups = int(attribute(node, "group", 1))
    if groups == 1:
        return (data,), (made,)
    depthwise = weight.shape[:2] == (groups, 1) and _channels(data) == groups
    return ((data, made),) if depthwise else ()


def _around_gemm(node: ir.Node, data: ir.Value, made: ir.Value) -> tuple[tuple[ir.Value, ...], ...]:
    if attribute(node, "transA", 0) or not _all_constant(node.inputs[1:]):
        return ()
    bias = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    plain = bias is None or bias.shape == (_channels(made),)
    return ((data,), (made,)) if plain else ((data,),)


def _around_sum(node: ir.Node, made: ir.Value) -> tuple[tuple[ir.Value, ...], ...]:
    """The operands with as many channels as the result; one that is broadcast over channels stays as it is."""
    equal: list[ir.Value] = []
    for value in node.inputs:
        if value is None or value.shape is None or made.shape is None or len(value.shape) != len(made.shape):
            return ()
        if _channels(value) == _channels(made):
            equal.append(value)
        elif _channels(value) != 1:
            return ()
    return ((*equal, made),)


def _keeps_channels(node: ir.Node) -> bool:
    """A Resize by constant factors of height and width."""
    scales = array_of(node.inputs[2]) if node.op_type == "Resize" and len(node.inputs) > 2 else None
    sized = len(node.inputs) > 3 and node.inputs[3] is not None
    return (
        scales is not None
        and scales.size > 2
        and bool((scales[:2] == 1).all())
        and not (sized or "axes" in node.attributes)
    )


def _all_constant(values: Iterable[ir.Value | None]) -> bool:
    return all(value is None or array_of(value) is not None for value in values)


def _channels(value: ir.Value) -> int | None:
    """Its second dimension, where that is known."""
    if value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return None
    return int(value.shape[1])


def _widen(graph: ir.Graph, node: ir.Node, inputs: int, outputs: int) -> None:
    """Give a convolution or Gemm zeros for so many more inputs and outputs."""
    if node.op_type not in ("Conv", "Gemm") or not (inputs or outputs):
        return
    groups = int(attribute(node, "group", 1))
    axes = (1, 0) if node.op_type == "Conv" or attribute(node, "transB", 0) else (0, 1)
    _extend(graph, node, 1, {axes[0]: 0 if groups > 1 else inputs, axes[1]: outputs})
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _extend(graph, node, 2, {0: outputs})
    if groups > 1:
        node.attributes["group"] = ir.AttrInt64("group", groups + outputs)


def _extend(graph: ir.Graph, node: ir.Node, place: int, more: Mapping[int, int]) -> None:
    """Put zeros behind a constant along some of its axes."""
    value = node.inputs[place]
    array = array_of(value)
    assert value is not None
    assert array is not None
    wider = np.pad(array, [(0, more.get(axis, 0)) for axis in range(array.ndim)])
    node.replace_input_with(place, constant(graph, f"{value.name}.padded", wider))


def _name(value: ir.Value | None) -> str:
    return "" if value is None or value.name is None else value.name


def _name_of(node: ir.Node) -> str:
    return _name(node.outputs[0])
