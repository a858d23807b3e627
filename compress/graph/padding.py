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
"""Operators of two tensors that make 0 of 0 and 0."""
POOLS = frozenset({"GlobalAveragePool", "GlobalMaxPool", "AveragePool", "MaxPool"})
Layout = tuple[int, ...]
"""The channels of a tensor as a row of sets, by number: one, but for concatenated tensors."""


@dataclass(frozen=True)
class ChannelSet:
    """Channels that several tensors must have as many of, and none of these stops from growing."""

    name: str
    """The first of the tensors, in the order of the graph."""
    channels: int
    tensors: tuple[str, ...]
    """Those that have these channels, among others where they are concatenated."""
    operators: tuple[str, ...]
    """Nodes that compute or read one of the tensors."""


def paddable_sets(model: onnx.ModelProto) -> tuple[ChannelSet, ...]:
    """The coupled sets of channels that can be widened, in the order of the graph.

    Left out is every set with a tensor that is an input or output of the network, or that an operator makes or reads of
    which it is not known what it does to channels (Reshape, Split, DepthToSpace, recurrent layers, ...).

    Args:
        model: lowered, float (see `compress.graph.lowering`).
    """
    graph = _read(model).graph
    return tuple(found for _, found in _Channels(graph).sets())


def pad_channels(model: onnx.ModelProto, widths: Mapping[str, int]) -> onnx.ModelProto:
    """The model with sets of channels widened by zeros; it computes the same.

    Args:
        model: lowered, float.
        widths: name of a set -> its new number of channels.

    Raises:
        ValueError: there is no such set, or it has more channels already.
    """
    made = _read(model)
    channels = _Channels(made.graph)
    numbers = {found.name: (number, found.channels) for number, found in channels.sets()}
    more: dict[int, int] = {}
    for name, width in widths.items():
        if name not in numbers:
            allowed = ", ".join(numbers) or "none"
            raise ValueError(f"no set of channels {name!r} that can be padded. There are: {allowed}.")
        number, before = numbers[name]
        if width < before:
            raise ValueError(f"{name}: {before} channels cannot be padded to {width}.")
        more[number] = width - before
    for node in made.graph:
        if node.op_type in ("Conv", "Gemm"):
            _widen(made.graph, node, channels.zeros(node.inputs[0], more), channels.zeros(node.outputs[0], more))
    common.RemoveUnusedNodesPass()(made)
    proto = ir.to_proto(made)
    del proto.graph.value_info[:]
    return proto


def _read(model: onnx.ModelProto) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


class _Channels:
    """Which tensors of a graph have which sets of channels; found node by node, in the order of the graph."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._sizes: list[int] = []
        """Channels of each set, by its number; 0 where unknown."""
        self._same: list[int] = []
        """A set that it turned out to be the same as."""
        self._fixed: set[int] = set()
        self._layouts: dict[str, Layout] = {}
        for node in graph:
            layout = self._made_by(node)
            if layout is None:
                for value in node.inputs:
                    self._fix(value)
                for value in node.outputs:
                    self._fix(value)
            else:
                self._layouts[_name(node.outputs[0])] = layout
        for value in graph.outputs:
            self._fix(value)

    def sets(self) -> Iterable[tuple[int, ChannelSet]]:
        """Those that can grow, with their numbers."""
        tensors: dict[int, list[str]] = {}
        for name, layout in self._layouts.items():
            for number in sorted({self._number(each) for each in layout}):
                tensors.setdefault(number, []).append(name)
        fixed = {self._number(each) for each in self._fixed}
        for number, names in tensors.items():
            if number not in fixed:
                touching = [
                    node.name or _name(node.outputs[0])
                    for node in self._graph
                    if not {_name(value) for value in (*node.inputs, *node.outputs)}.isdisjoint(names)
                ]
                yield number, ChannelSet(names[0], self._sizes[number], tuple(names), tuple(touching))

    def zeros(self, value: ir.Value | None, more: Mapping[int, int]) -> list[tuple[int, int]]:
        """Where a tensor's new channels come: (position among its old ones, how many)."""
        found, position = [], 0
        for each in self._layouts.get(_name(value), ()):
            number = self._number(each)
            position += self._sizes[number]
            if more.get(number):
                found.append((position, more[number]))
        return found

    def _made_by(self, node: ir.Node) -> Layout | None:
        """The layout of what a node computes; None where its tensors must stay as they are."""
        data = node.inputs[0] if node.inputs else None
        if node.domain not in ("", "ai.onnx") or data is None or len(node.outputs) != 1:
            return None
        if node.op_type == "Conv":
            return self._convolved(node, data)
        if node.op_type == "Gemm":
            return self._multiplied(node)
        if node.op_type in SUMS:
            return self._summed(node)
        if node.op_type == "Concat" and attribute(node, "axis") == 1:
            return tuple(number for value in node.inputs for number in self._layout(value))
        keeps = node.op_type in ELEMENTWISE or node.op_type in POOLS or _keeps_channels(node)
        return self._layout(data) if keeps else None

    def _convolved(self, node: ir.Node, data: ir.Value) -> Layout | None:
        weight, groups = array_of(node.inputs[1]), int(attribute(node, "group", 1))
        if weight is None or not _all_constant(node.inputs[1:]):
            return None
        if groups == 1:
            return self._new(weight.shape[0])
        layout = self._layout(data)
        depthwise = weight.shape[:2] == (groups, 1) and self._count(layout) == groups
        return layout if depthwise else None

    def _multiplied(self, node: ir.Node) -> Layout | None:
        weight, bias = array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if weight is None or attribute(node, "transA", 0) or not _all_constant(node.inputs[1:]):
            return None
        outputs = weight.shape[0 if attribute(node, "transB", 0) else 1]
        layout = self._new(outputs)
        if bias is not None and bias.shape != (outputs,):  # one number for all: for the new ones, too
            self._fixed.update(layout)
        return layout

    def _summed(self, node: ir.Node) -> Layout | None:
        """Operands have the same channels; of a product one may be broadcast over them, and stays as it is."""
        ranks = {None if value is None or value.shape is None else len(value.shape) for value in node.inputs}
        layouts = [self._layout(value) for value in node.inputs]
        count = max(self._count(layout) for layout in layouts)
        if len(ranks) > 1 or None in ranks or any(self._count(layout) not in (1, count) for layout in layouts):
            return None
        equal = [layout for layout in layouts if self._count(layout) == count]
        if node.op_type != "Mul" and len(equal) < len(layouts):  # zeros would not stay zeros
            return None
        for layout in layouts:
            if layout not in equal:
                self._fixed.update(layout)
        return equal[0] if all(self._join(equal[0], layout) for layout in equal[1:]) else None

    def _join(self, one: Layout, other: Layout) -> bool:
        """Make their sets the same; False where they are not split alike."""
        if [self._sizes[each] for each in one] != [self._sizes[each] for each in other]:
            return False
        for left, right in zip(one, other, strict=True):
            first, second = sorted((self._number(left), self._number(right)))
            self._same[second] = first
        return True

    def _layout(self, value: ir.Value | None) -> Layout:
        """Of a tensor; one that no node of the graph computes has channels of its own that stay."""
        name = _name(value)
        if name not in self._layouts:
            self._layouts[name] = self._new(_channels(value))
            self._fixed.update(self._layouts[name])
        return self._layouts[name]

    def _fix(self, value: ir.Value | None) -> None:
        self._fixed.update(self._layout(value))

    def _new(self, channels: int) -> Layout:
        self._sizes.append(channels)
        self._same.append(len(self._same))
        return (len(self._same) - 1,)

    def _number(self, each: int) -> int:
        while self._same[each] != each:
            each = self._same[each]
        return each

    def _count(self, layout: Layout) -> int:
        """How many channels; 0 where that is not known."""
        sizes = [self._sizes[each] for each in layout]
        return sum(sizes) if all(sizes) else 0


def _keeps_channels(node: ir.Node) -> bool:
    """A Resize by constant factors of height and width."""
    scales = array_of(node.inputs[2]) if node.op_type == "Resize" and len(node.inputs) > 2 else None
    if scales is None or scales.size <= 2 or "axes" in node.attributes:
        return False
    return bool((scales[:2] == 1).all())


def _all_constant(values: Iterable[ir.Value | None]) -> bool:
    return all(value is None or array_of(value) is not None for value in values)


def _channels(value: ir.Value | None) -> int:
    """Its second dimension; 0 where that is not known."""
    if value is None or value.shape is None or len(value.shape) < 2 or not isinstance(value.shape[1], int):
        return 0
    return int(value.shape[1])


def _widen(
    graph: ir.Graph, node: ir.Node, inputs: Sequence[tuple[int, int]], outputs: Sequence[tuple[int, int]]
) -> None:
    """Give a convolution or Gemm zeros at these positions of its inputs and outputs."""
    if not inputs and not outputs:
        return
    groups = int(attribute(node, "group", 1))
    reads, makes = (1, 0) if node.op_type == "Conv" or attribute(node, "transB", 0) else (0, 1)
    _insert(graph, node, 1, {reads: () if groups > 1 else inputs, makes: outputs})
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _insert(graph, node, 2, {0: outputs})
    if groups > 1:
        node.attributes["group"] = ir.AttrInt64("group", groups + sum(count for _, count in outputs))


def _insert(graph: ir.Graph, node: ir.Node, place: int, zeros: Mapping[int, Sequence[tuple[int, int]]]) -> None:
    """Put zeros into a constant along some of its axes."""
    value = node.inputs[place]
    array = array_of(value)
    assert value is not None
    assert array is not None
    for axis, found in zeros.items():
        array = np.insert(array, [position for position, count in found for _ in range(count)], 0, axis=axis)
    node.replace_input_with(place, constant(graph, f"{value.name}.padded", array))


def _name(value: ir.Value | None) -> str:
    return "" if value is None or value.name is None else value.name
