"""A model of one operator, in float32 or in QDQ form, with random weights: what is run to time it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
OPSETS = {"GroupNormalization": 21}
"""Of operators that are younger."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
BINARY = frozenset(("Add", "Div", "Mul", "Pow", "Sub"))
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
"""Layers with states, and how many gates each has."""
MOVES = frozenset(
    ("DepthToSpace", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Transpose")
)
"""Operators that hand numbers on: what goes in and what comes out have one scale."""
INTEGER_TYPES = MOVES | frozenset(
    ("Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "HardSwish", "MatMul", "Mul", "Relu")
)
"""Operators that onnxruntime computes on integers, or that only move them."""
REDUCTIONS = tuple(
    f"Reduce{name}" for name in ("Max", "Min", "Mean", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
)
"""Operators whose axes are an input from opset 18 on, and an attribute before, as here."""
PARAMETERS: dict[str, dict[int, str]] = {
    "Resize": {1: "roi", 2: "scales", 3: "sizes"},
    "Slice": {1: "starts", 2: "ends", 3: "axes", 4: "steps"},
    "Clip": {1: "min", 2: "max"},
    "Reshape": {1: "shape"},
    "Squeeze": {1: "axes"},
    "Unsqueeze": {1: "axes"},
    "Pad": {1: "pads"},
    "Split": {1: "split"},
    "ReduceSum": {1: "axes"},
    "Gather": {1: "indices"},
    "Expand": {1: "shape"},
    "Tile": {1: "repeats"},
    **{name: {1: "axes"} for name in REDUCTIONS},
}
"""Constant inputs that say how to compute: position and name."""
_FLOAT_PARAMETERS = frozenset(("scales", "min", "max"))
END = "end"
"""Name of a node behind the operator that is not of it: onnxruntime fuses no activation that makes a graph's output."""
_SCALE, _ZERO_POINT = 0.02, 128


def micro_model(
    op_type: str,
    inputs: Sequence[tuple[int, ...]],
    weight: tuple[int, ...],
    attributes: Mapping[str, Any],
    activation: str,
    *,
    integer: bool,
) -> onnx.ModelProto:
    """A model of one operator and the activation behind it.

    In integers the inputs and the output are uint8, the operator stands between DequantizeLinear and QuantizeLinear as
    an int8 file has it, weights and biases are int8 and int32, and hard-swish is two operators that have integer
    kernels (see `compress.export.qdq.expand_hard_swish`). Relu and the like are the saturation of the output.
    """
    build = _Builder(op_type, dict(attributes), integer)
    if op_type in ("QuantizeLinear", "DequantizeLinear"):
        return build.boundary(inputs[0])
    values = [build.input(f"x{place}", shape) for place, shape in enumerate(inputs)]
    if integer and op_type == "HardSwish":
        return build.finish(build.hard_swish(values[0]))
    outputs = build.operator(values, inputs, weight)
    if activation:
        outputs = [build.activation(activation, outputs[0])]
    return build.finish(outputs[0])


def chain_model(length: int) -> onnx.ModelProto:
    """A chain of operators that do next to nothing, none of which onnxruntime fuses with another."""
    build = _Builder("chain", {}, False)
    value = build.input("x0", (1, 1, 1, 1))
    for place in range(length):
        value = build.node("Sigmoid" if place % 2 else "Tanh", [value])
    return build.finish(value)


def random_feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Seeded random inputs of a micro model: normal numbers, or any bytes."""
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            feeds[value.name] = rng.standard_normal(shape, np.float32)
        else:
            feeds[value.name] = rng.integers(0, 256, shape).astype(np.uint8)
    return feeds


class _Builder:
    """Collects the nodes and constants of a micro model."""

    def __init__(self, op_type: str, attributes: dict[str, Any], integer: bool) -> None:
        self.op_type, self.attributes, self.integer = op_type, attributes, integer
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.saturates = False

    def node(self, op_type: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def input(self, name: str, shape: Sequence[int]) -> str:
        kind = TensorProto.UINT8 if self.integer else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return self.dequantize(name) if self.integer else name

    def dequantize(self, name: str, scale: float = _SCALE, zero_point: int = _ZERO_POINT) -> str:
        return self.node("DequantizeLinear", [name, *self._steps(scale, zero_point)])

    def quantize(self, name: str, scale: float = _SCALE, zero_point: int = _ZERO_POINT) -> str:
        return self.node("QuantizeLinear", [name, *self._steps(scale, zero_point)])

    def _steps(self, scale: float, zero_point: int) -> list[str]:
        return [self.constant(np.array(scale, np.float32)), self.constant(np.array(zero_point, np.uint8))]

    def operator(self, values: Sequence[str], inputs: Sequence[tuple[int, ...]], weight: tuple[int, ...]) -> list[str]:
        """The operator itself, behind its inputs."""
        names = list(values)
        if self.op_type in RECURRENT:
            names += self._recurrent(weight)
        elif self.op_type in WEIGHTED and weight:
            names += self._weights(weight)
        elif self.op_type == "BatchNormalization":
            names += [self.constant(self.rng.uniform(0.5, 1.5, weight).astype(np.float32)) for _ in range(4)]
        elif self.op_type in ("InstanceNormalization", "GroupNormalization"):
            names += [self.constant(self.rng.uniform(0.5, 1.5, weight).astype(np.float32)) for _ in range(2)]
        elif weight:
            names.append(self._other_constant(weight))
        elif self.op_type in BINARY and len(names) == 1:  # the other one is computed from sizes: a number
            names.append(self._other_constant((1,)))
        plain = dict(self.attributes)
        plain.pop("noop_with_empty_axes", None)
        for position, name in PARAMETERS.get(self.op_type, {}).items():
            if name in plain and self.op_type not in REDUCTIONS:
                names += [""] * (position - len(names))
                kind = np.float32 if name in _FLOAT_PARAMETERS else np.int64
                names.append(self.constant(np.array(plain.pop(name), kind)))
        if self.op_type == "Conv":
            plain["kernel_shape"] = list(weight[2:])
        made = [self.node(self.op_type, names, **plain)]
        if self.op_type == "Split" and "split" in self.attributes:
            self.nodes[-1].output.extend(f"{made[0]}_{part}" for part in range(1, len(self.attributes["split"])))
        return made

    def _weights(self, shape: tuple[int, ...]) -> list[str]:
        axis = self._channel_axis(len(shape))
        channels = shape[axis] * (self.attributes.get("group", 1) if self.op_type == "ConvTranspose" else 1)
        with_bias = self.op_type != "MatMul"
        if not self.integer or self.op_type == "ConvTranspose":  # it has no integer kernel
            weight = self.constant((self.rng.standard_normal(shape) * 0.1).astype(np.float32))
            return [weight, self.constant(np.zeros(channels, np.float32))] if with_bias else [weight]
        integers = self.rng.integers(-63, 64, shape).astype(np.int8)
        scale = np.full(channels, 0.005, np.float32)
        names = [self._stored(integers, scale, axis)]
        return names + ([self._stored(np.zeros(channels, np.int32), _SCALE * scale, 0)] if with_bias else [])

    def _channel_axis(self, rank: int) -> int:
        """Where a weight counts output channels."""
        if self.op_type == "MatMul" or (self.op_type == "Gemm" and not self.attributes.get("transB", 0)):
            return rank - 1
        return 1 if self.op_type == "ConvTranspose" else 0

    def _stored(self, integers: np.ndarray, scale: np.ndarray, axis: int) -> str:
        zero_point = self.constant(np.zeros(len(scale), integers.dtype))
        return self.node("DequantizeLinear", [self.constant(integers), self.constant(scale), zero_point], axis=axis)

    def _other_constant(self, shape: tuple[int, ...]) -> str:
        """A number or a tensor that is added, multiplied, ..."""
        if not self.integer:
            return self.constant(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))
        return self.dequantize(self.constant(self.rng.integers(1, 256, shape).astype(np.uint8)))

    def _recurrent(self, shape: tuple[int, ...]) -> list[str]:
        directions, hidden = shape[0], self.attributes["hidden_size"]
        gates = RECURRENT[self.op_type]
        shapes = (shape, (directions, gates * hidden, hidden), (directions, 2 * gates * hidden))
        return [self.constant((self.rng.standard_normal(each) * 0.1).astype(np.float32)) for each in shapes]

    def activation(self, kind: str, value: str) -> str:
        """What runs behind the operator; in integers it is the saturation of the output, but for hard-swish."""
        if self.integer:
            if kind == "HardSwish":
                return self.hard_swish(self.dequantize(self.quantize(value)))
            self.saturates = True
            return value
        bounds = [self.constant(np.array(bound, np.float32)) for bound in (0, 6)] if kind == "Clip6" else []
        made = self.node("Clip" if bounds else kind, [value, *bounds])
        corner = [self.constant(np.array([number], np.int64)) for number in (0, 1, 1)]
        self.nodes.append(helper.make_node("Slice", [made, *corner], [END], name=END))
        return END

    def hard_swish(self, value: str) -> str:
        three = self.dequantize(self.constant(np.array(255, np.uint8)), 3 / 255, 0)
        gate = self.quantize(self.node("Add", [value, three]), 6 / 255, 0)
        return self.node("Mul", [value, self.dequantize(gate, 1 / 255, 0)])

    def boundary(self, shape: Sequence[int]) -> onnx.ModelProto:
        """QuantizeLinear or DequantizeLinear alone."""
        leaves = self.op_type == "DequantizeLinear"
        self.integer = leaves
        value = self.input("x0", shape)
        return self._model(
            value if leaves else self.quantize(value), TensorProto.FLOAT if leaves else TensorProto.UINT8
        )

    def finish(self, value: str) -> onnx.ModelProto:
        if not self.integer:
            return self._model(value, TensorProto.FLOAT)
        same = self.op_type in MOVES
        scale, zero_point = (_SCALE, _ZERO_POINT) if same else (0.03, 0 if self.saturates else _ZERO_POINT)
        return self._model(self.quantize(value, scale, zero_point), TensorProto.UINT8)

    def _model(self, output: str, kind: int) -> onnx.ModelProto:
        made = helper.make_tensor_value_info(output, kind, None)
        graph = helper.make_graph(self.nodes, f"one {self.op_type}", self.inputs, [made], self.constants)
        opset = [helper.make_opsetid("", OPSETS.get(self.op_type, OPSET))]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
