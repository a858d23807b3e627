"""The operators of a network with their sizes, and the time that a table predicts for the whole of it.

The prediction is a sum over operators, with what lies between them: QuantizeLinear and DequantizeLinear where integers
meet float, and the layout changes at the ends of runs of convolutions.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from compress.measure.micro_model import INTEGER_TYPES, PARAMETERS
from compress.measure.operator_times import Activation, Operator, OperatorTime, Precision
from compress.measure.session import value_shapes

FREE = frozenset(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Constant", "Shape", "Cast"))
"""Nodes that hand a tensor on as it is, or compute next to nothing."""
CARRIERS = frozenset(("Conv", "ConvTranspose", "Gemm"))
"""Operators that an activation behind them is fused into."""
_ACTIVATIONS: frozenset[str] = frozenset(("Relu", "Clip", "HardSigmoid", "HardSwish"))
_ELEMENTWISE = frozenset(("Add", "Sub", "Mul", "Div", "Sigmoid", "Tanh")) | _ACTIVATIONS
_FOLLOWS_LAYOUT = _ELEMENTWISE | {"MaxPool", "AveragePool", "GlobalAveragePool", "Concat"}
"""Operators that work in the layout that their inputs have."""
_DEFAULTS: dict[str, Any] = {"group": 1, "auto_pad": "NOTSET", "ceil_mode": 0, "alpha": 1.0, "beta": 1.0}


Kernels = Literal["float32", "int8", "mixed"]
"""What a network's operators run in."""


class Times(Protocol):
    """What gives the times: a `LatencyTable`, or a formula."""

    def time(self, operator: Operator) -> OperatorTime:
        """Milliseconds of one operator."""
        ...

    def boundary(self, shape: tuple[int, ...], *, to: Precision) -> float:
        """Milliseconds of quantising a tensor of that shape, or of the way back."""
        ...


@dataclass(frozen=True)
class Place:
    """An operator in its network."""

    operator: Operator
    sources: tuple[str, ...]
    """For each of its inputs the place that makes it; empty where it is the network's own input."""
    rides_along: bool = False
    """A sum that a float convolution in front of it computes as it writes its output."""


def operators_of(model: onnx.ModelProto, input_shape: tuple[int, ...]) -> dict[str, Operator]:
    """The operators of a canonical float model with the sizes they have for one image, by node name.

    A BatchNorm behind a convolution is folded into it, and an activation into the convolution whose only reader it is,
    as onnxruntime does; such nodes have no entry of their own. What costs nothing (Reshape and the like) has none.

    Args:
        model: canonical, float32, batch 1 possible.
        input_shape: (C, H, W).

    Raises:
        ModelError: the model does not run on such an image.
    """
    return {name: place.operator for name, place in places_of(model, input_shape).items()}


def places_of(model: onnx.ModelProto, input_shape: tuple[int, ...]) -> dict[str, Place]:
    """`operators_of`, with how they hang together; in the order they run."""
    return _Reader(model, input_shape).places()


def predicted_ms(places: Mapping[str, Place], table: Times, kernels: Kernels = "float32") -> float:
    """Milliseconds of a network with all its operators in float32, in int8, or each in the faster of both.

    In int8 is every operator that has integer kernels, but for the stem. `mixed` is a lower bound of what choosing by
    time reaches: changes of type and of layout are left out of it.
    """
    if kernels == "mixed":
        return sum(_faster_ms(place, table) for place in places.values())
    precision: Precision = kernels
    chosen = {
        name: with_precision(place.operator, precision if any(place.sources) else "float32")
        for name, place in places.items()
    }
    times = {name: table.time(operator) for name, operator in chosen.items()}
    own = sum(times[name].kernel_ms for name in places if not is_free(places[name], chosen[name]))
    return own + _boundaries_ms(places, chosen, table) + _layouts_ms(places, chosen, times)


def _faster_ms(place: Place, table: Times) -> float:
    """An operator's own time in float32 or int8, whichever is less."""
    forms = {
        with_precision(place.operator, precision)
        for precision in ("float32", "int8" if any(place.sources) else "float32")
    }
    return min(0.0 if is_free(place, form) else table.time(form).kernel_ms for form in forms)


def with_precision(operator: Operator, precision: Precision) -> Operator:
    """The operator in this precision, where it has kernels for it."""
    integer = precision == "int8" and operator.op_type in INTEGER_TYPES
    if operator.op_type in ("MatMul", "Gemm") and not operator.weight:  # a product of two tensors stays in float
        integer = False
    return replace(operator, precision="int8" if integer else "float32")


def is_free(place: Place, operator: Operator) -> bool:
    """Whether an operator, in the precision that it has, takes no time of its own.

    A sum that rides along in float does not, nor in integers a Relu or a Clip alone, which is saturation.
    """
    if operator.precision == "int8":
        return operator.op_type in ("Relu", "Clip")
    return place.rides_along


def _boundaries_ms(places: Mapping[str, Place], chosen: Mapping[str, Operator], table: Times) -> float:
    """Each tensor is quantised once for all integer readers, and dequantised once for all float ones."""
    crossings: set[tuple[str, tuple[int, ...], Precision]] = set()
    for name, place in places.items():
        for source, shape in zip(place.sources, place.operator.inputs, strict=True):
            before: Precision = chosen[source].precision if source else "float32"
            if before != chosen[name].precision:
                crossings.add((source, shape, chosen[name].precision))
    return sum(table.boundary(shape, to=to) for _, shape, to in sorted(crossings))


def _layouts_ms(
    places: Mapping[str, Place], chosen: Mapping[str, Operator], times: Mapping[str, OperatorTime]
) -> float:
    """Layout changes: once for a tensor, where its readers or the caller want another layout than its maker left it in.

    An operator that follows is in blocks where all its inputs are; a broadcasting one is not.
    """
    leaving: dict[str, float] = {"": 0.0}
    """Milliseconds to bring a place's output back to the plain layout; 0 where it is in it."""
    total = 0.0
    entered: set[str] = set()
    left: set[str] = set()
    for name, place in places.items():
        operator, found = chosen[name], times[name]
        given = [leaving[source] for source in place.sources]
        if operator.op_type in _FOLLOWS_LAYOUT and _same_sizes(operator):
            blocked = bool(given) and min(given) > 0
            leaving[name] = max(given) * _growth(operator) if blocked else 0.0
            wants_blocks = blocked
        else:
            leaving[name], wants_blocks = found.after_ms, found.before_ms > 0 or _is_first(operator, found)
        for source, cost in zip(place.sources, given, strict=True):
            if cost > 0 and not wants_blocks and source not in left:
                left.add(source)
                total += cost
            elif cost == 0 and wants_blocks and source not in entered:
                entered.add(source)
                total += found.before_ms
    read = {source for place in places.values() for source in place.sources}
    return total + sum(cost for name, cost in leaving.items() if name not in read)


def _is_first(operator: Operator, found: OperatorTime) -> bool:
    """A convolution that reads the plain layout as it is and writes blocks (the first, of three channels)."""
    return operator.op_type == "Conv" and found.before_ms == 0 and found.after_ms > 0


def _same_sizes(operator: Operator) -> bool:
    return operator.op_type not in ("Add", "Sub", "Mul", "Div") or len(set(operator.inputs)) == 1


def _growth(operator: Operator) -> float:
    """How much smaller a pooled tensor is, about."""
    if operator.op_type == "GlobalAveragePool":
        return 1.0 / math.prod(operator.inputs[0][2:])
    return 1.0


class _Reader:
    """Reads the operators of one model."""

    def __init__(self, model: onnx.ModelProto, input_shape: tuple[int, ...]) -> None:
        self.graph = model.graph
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.nodes = [node for node in model.graph.node if node.op_type != "Constant"]
        self.uses = Counter(name for node in self.nodes for name in node.input if name)
        self.uses.update(output.name for output in model.graph.output)
        self.sizes = self._size_values()
        self.readers = {name: node for node in self.nodes for name in node.input if self.uses[name] == 1}
        self.shapes = _shapes(model, input_shape, self._wanted())

    def places(self) -> dict[str, Place]:
        """All operators in the order of the graph."""
        made_by = {value.name: "" for value in self.graph.input}
        found: dict[str, Place] = {}
        absorbed: set[str] = set()
        for node in self.nodes:
            if _output(node) in self.sizes:
                continue
            given = self._given(node)
            if node.op_type in FREE or _output(node) in absorbed:
                made_by.update(dict.fromkeys(node.output, made_by.get(given[0], "") if given else ""))
                continue
            name = node.name or _output(node)
            activation: Activation = ""
            if node.op_type in CARRIERS:
                activation, followers = self._fused(node)
                absorbed |= followers
            operator = Operator(
                node.op_type,
                tuple(self.shapes[each] for each in given),
                self._weight(node),
                self._attributes(node),
                activation,
            )
            sources = tuple(made_by.get(each, "") for each in given)
            found[name] = Place(operator, sources, self._rides_along(node, sources, found))
            made_by.update(dict.fromkeys(node.output, name))
        return found

    def _given(self, node: onnx.NodeProto) -> list[str]:
        """The tensors that a node computes from."""
        return [name for name in node.input if name and name not in self.constants and name not in self.sizes]

    def _size_values(self) -> set[str]:
        """Values that are computed from sizes alone: some numbers that say how to compute, in no time."""
        found: set[str] = set()
        for node in self.nodes:
            given = [name for name in node.input if name and name not in self.constants]
            if node.op_type == "Shape" or not given or found.issuperset(given):
                found.update(node.output)
        return found

    def _fused(self, node: onnx.NodeProto) -> tuple[Activation, set[str]]:
        """The activation that runs with a convolution, and the outputs of the nodes that it takes in."""
        taken: set[str] = set()
        reader = self.readers.get(_output(node))
        if node.op_type != "Gemm" and reader is not None and reader.op_type == "BatchNormalization":
            taken.add(_output(reader))
            reader = self.readers.get(_output(reader))
        activation = "" if reader is None else self._activation(reader)
        if reader is None or not activation:
            return "", taken
        return activation, taken | {_output(reader)}

    def _activation(self, node: onnx.NodeProto) -> Activation:
        if node.op_type == "Relu":
            return "Relu"
        if node.op_type == "HardSigmoid":
            return "HardSigmoid"
        if node.op_type == "HardSwish":
            return "HardSwish"
        if node.op_type == "Clip":  # whatever its ends are, it takes as long
            return "Clip6"
        return ""

    def _rides_along(self, node: onnx.NodeProto, sources: Sequence[str], found: Mapping[str, Place]) -> bool:
        """Whether onnxruntime's float convolution adds the other tensor to what it writes."""
        if node.op_type != "Add" or len(sources) != 2 or not all(sources):
            return False
        shapes = {self.shapes[each] for each in node.input}
        makers = [found[source].operator for source in sources]
        return len(shapes) == 1 and any(
            maker.op_type == "Conv" and not maker.activation and self._reads_alone(node, name)
            for maker, name in zip(makers, node.input, strict=True)
        )

    def _reads_alone(self, node: onnx.NodeProto, name: str) -> bool:
        reader = self.readers.get(name)
        return reader is not None and _output(reader) == _output(node)

    def _weight(self, node: onnx.NodeProto) -> tuple[int, ...]:
        known = PARAMETERS.get(node.op_type, {})
        for place, name in enumerate(node.input):
            if name in self.constants and place not in known:
                return tuple(self.constants[name].dims) or (1,)
        return ()

    def _attributes(self, node: onnx.NodeProto) -> tuple[tuple[str, Any], ...]:
        """Attributes that are not the default, and constant inputs that say how to compute."""
        found = {each.name: _plain(helper.get_attribute_value(each)) for each in node.attribute}
        if node.op_type in ("Conv", "ConvTranspose"):
            found.pop("kernel_shape", None)
        for place, name in PARAMETERS.get(node.op_type, {}).items():
            if place < len(node.input) and node.input[place] in self.constants:
                values = numpy_helper.to_array(self.constants[node.input[place]])
                if values.size and name != "roi":  # which only a mode that nobody uses reads
                    found[name] = _plain(values.tolist())
        if node.op_type == "Slice" and not {"starts", "ends"} <= set(found):  # from or to a size that is computed
            pairs = list(zip(self.shapes[node.input[0]], self.shapes[_output(node)], strict=True))
            cut = [axis for axis, (before, after) in enumerate(pairs) if before != after] or [0]
            ends = tuple(pairs[axis][1] for axis in cut)
            found = {"starts": (0,) * len(cut), "ends": ends, "axes": tuple(cut)}
        if node.op_type == "Resize" and not {"scales", "sizes"} & set(found):  # to a size that is computed
            before, after = self.shapes[node.input[0]], self.shapes[_output(node)]
            found["scales"] = tuple(large / small for large, small in zip(after, before, strict=True))
        return tuple(sorted((name, value) for name, value in found.items() if not _is_default(node, name, value)))

    def _wanted(self) -> set[str]:
        """Values whose shapes are requested."""
        return {
            name
            for node in self.nodes
            if node.op_type not in FREE and _output(node) not in self.sizes
            for name in (*self._given(node), *(node.output if node.op_type in ("Resize", "Slice") else ()))
        }


def _shapes(model: onnx.ModelProto, input_shape: tuple[int, ...], wanted: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Shapes for one image: inferred where that tells them all, which is quick, else by running the model."""
    image = model.graph.input[0]
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    del fixed.graph.value_info[:]
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(dims, (1, *input_shape), strict=True):
        dim.Clear()
        dim.dim_value = size
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    shapes = {image.name: (1, *input_shape)}
    for value in inferred.graph.value_info:
        sizes = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if all(sizes):
            shapes[value.name] = sizes
    unknown = sorted(set(wanted) - set(shapes))
    return shapes | (value_shapes(model, unknown, np.zeros((1, *input_shape), np.float32)) if unknown else {})


def _is_default(node: onnx.NodeProto, name: str, value: Any) -> bool:
    if name in ("strides", "dilations"):
        return all(each == 1 for each in value)
    if name in ("pads", "output_padding"):
        return node.op_type != "Pad" and not any(value)
    return name in _DEFAULTS and value == _DEFAULTS[name] and node.op_type in (*CARRIERS, "MaxPool", "AveragePool")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | tuple):
        return tuple(_plain(each) for each in value)
    return value


def _output(node: onnx.NodeProto) -> str:
    """The first output in use (a recurrent layer may leave its first one out)."""
    return next(name for name in node.output if name)
