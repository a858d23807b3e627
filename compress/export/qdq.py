"""Write a quantisation-aware module as an int8 ONNX file in QDQ form.

A list of small passes over the lowered float graph, each of which reads its choice from the trained module:
weights become int8 initialisers behind DequantizeLinear, biases int32, and every tensor with a PACT gets a
QuantizeLinear/DequantizeLinear pair with alpha's scale. Activations are uint8 and weights int8, the one pair of types
that reaches the fast integer kernels of x86 CPUs.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from torch import fx

from compress.export.compact import compact
from compress.graph import to_onnx
from compress.graph.edit import array_of, constant
from compress.quant.layers import GATE_SCALE, IntegerHardSwish, QuantConv2d, QuantLinear
from compress.quant.pact import PACT
from compress.quant.prepare import PASS_THROUGH

INTEGERS = ".int"
"""Ends the name of a value's uint8 form while the graph is built."""


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of a uint8 tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Choices:
    """What the trained module says about each value of the graph, by the value's name."""

    activations: dict[str, Parameters]
    layers: dict[str, QuantConv2d | QuantLinear]
    integer: frozenset[str]
    hard_swish: frozenset[str]


@dataclass(frozen=True)
class Exported:
    """An int8 model, and where its integers are."""

    model: onnx.ModelProto
    integers: dict[str, tuple[str, Parameters]]
    """Value of the lowered float graph -> (name of its uint8 form in the file, scale and zero point)."""


def export_int8(module: fx.GraphModule, template: onnx.ModelProto) -> Exported:
    """The int8 file of a quantisation-aware module.

    Args:
        module: from `prepare_qat(to_torch(template))`, calibrated and trained.
        template: the lowered float model it was imported from.

    Returns:
        A model with the template's inputs, outputs and metadata; inner names are short, since they cost bytes.

    Raises:
        ModelError: the module was not imported from this template.
    """
    choices = read_choices(module)
    model = ir.from_proto(to_onnx(module, template))
    graph = model.graph
    remove_saturated_activations(graph, choices)
    expand_hard_swish(graph, choices)
    insert_activation_pairs(graph, choices)
    quantize_weights(graph, choices)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    proto, renamed = compact(ir.to_proto(model))
    onnx.checker.check_model(proto, full_check=True)
    integers = {name: (renamed[f"{name}{INTEGERS}"], found) for name, found in choices.activations.items()}
    return Exported(proto, integers)


def read_choices(module: fx.GraphModule) -> Choices:
    """Collect ranges, layers and integer nodes from a prepared module."""
    activations: dict[str, Parameters] = {}
    layers: dict[str, QuantConv2d | QuantLinear] = {}
    integer, hard_swish = set(), set()
    for node in module.graph.nodes:
        name = node.meta.get("onnx", node.name)
        if node.meta.get("integer"):
            integer.add(name)
        if node.op != "call_module":
            continue
        target = module.get_submodule(str(node.target))
        if isinstance(target, PACT):
            scale, zero_point = target.scale_and_zero_point()
            activations[name] = Parameters(float(scale), int(zero_point))
        elif isinstance(target, QuantConv2d | QuantLinear):
            layers[name] = target
        elif isinstance(target, IntegerHardSwish):
            hard_swish.add(name)
    return Choices(activations, layers, frozenset(integer), frozenset(hard_swish))


def remove_saturated_activations(graph: ir.Graph, choices: Choices) -> None:
    """Drop a Relu or Clip(0, top) behind a convolution whose uint8 output, zero point 0, saturates at the same ends."""
    for node in list(graph):
        if node.op_type not in ("Relu", "Clip") or node.outputs[0].name not in choices.activations:
            continue
        before = node.inputs[0].producer() if node.inputs[0] is not None else None
        found = choices.activations[str(node.outputs[0].name)]
        low, top = (0.0, np.inf) if node.op_type == "Relu" else _clip_range(node)
        tight = low == 0.0 and found.zero_point == 0 and found.scale * 255 <= top * (1 + 1e-6)
        if (
            before is None
            or before.outputs[0].name not in choices.integer
            or len(before.outputs[0].uses()) != 1
            or not tight
        ):
            continue
        result, name = before.outputs[0], node.outputs[0].name
        ir.convenience.replace_all_uses_with(node.outputs[0], result)
        graph.remove(node, safe=True)
        choices.layers[str(name)] = choices.layers.pop(str(result.name))
        result.name = name


def _clip_range(node: ir.Node) -> tuple[float, float]:
    bounds = [array_of(value) for value in node.inputs[1:3]]
    low = -np.inf if not bounds or bounds[0] is None else float(bounds[0])
    top = np.inf if len(bounds) < 2 or bounds[1] is None else float(bounds[1])
    return low, top


def expand_hard_swish(graph: ir.Graph, choices: Choices) -> None:
    """HardSwish(x) in integers: x + 3 saturates to [0, 6] in uint8, is reread as a gate in [0, 1], and multiplies x."""
    nodes = [node for node in graph if node.op_type == "HardSwish" and node.outputs[0].name in choices.hard_swish]
    if not nodes:
        return
    pair = _Pairs(graph)
    three = pair.dequantize(
        constant(graph, "three", np.array(255, np.uint8)), Parameters(3.0 / 255.0, 0), nodes[0], before=True
    )
    for node in nodes:
        x = node.inputs[0]
        assert x is not None
        add = ir.node("Add", [x, three])
        quantized = pair.quantize(add.outputs[0], Parameters(GATE_SCALE, 0), None)
        gate = ir.node("DequantizeLinear", [quantized.outputs[0], *pair.constants(Parameters(GATE_SCALE / 6.0, 0))])
        multiply = ir.node("Mul", [x, gate.outputs[0]])
        name = node.outputs[0].name
        made = [add, quantized, gate, multiply]
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [node.outputs[0]], [multiply.outputs[0]])
        multiply.outputs[0].name = name


def insert_activation_pairs(graph: ir.Graph, choices: Choices) -> None:
    """Put QuantizeLinear and DequantizeLinear behind every ranged tensor; moves (Flatten, MaxPool, ...) work on the integers."""
    pair = _Pairs(graph)
    values = {value.name: value for value in graph.inputs} | {
        output.name: output for node in graph for output in node.outputs
    }
    for name, found in choices.activations.items():
        value = values[name]
        uses = _uses(value)
        quantized = pair.quantize(value, found, value.producer())
        _dequantize_for(pair, quantized, uses, found)


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    return [(use.node, use.idx) for use in value.uses()]


def _dequantize_for(pair: "_Pairs", integers: ir.Node, uses: list[tuple[ir.Node, int]], found: Parameters) -> None:
    """Give the readers of a float tensor its integers' dequantised form; moves read the integers themselves."""
    readers = []
    for node, index in uses:
        if node.op_type in PASS_THROUGH and index == 0:
            later = _uses(node.outputs[0])
            node.replace_input_with(0, integers.outputs[0])
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
            _dequantize_for(pair, node, later, found)
        else:
            readers.append((node, index))
    if not readers:
        return
    dequantized = pair.dequantize(integers.outputs[0], found, integers)
    for node, index in readers:
        node.replace_input_with(index, dequantized)


def quantize_weights(graph: ir.Graph, choices: Choices) -> None:
    """Store every layer's weight as int8, and the bias of integer layers as int32 in steps of input scale x weight scale."""
    for node in list(graph):
        layer = choices.layers.get(str(node.outputs[0].name))
        if layer is None or node.op_type not in ("Conv", "Gemm", "MatMul") or node.inputs[1] is None:
            continue
        integers, scale = (tensor.detach().cpu().numpy() for tensor in (layer.integers(), layer.weight_scale()))
        axis = 0
        if node.op_type != "Conv" and not (node.attributes.get("transB") and node.attributes["transB"].value):
            integers, axis = np.ascontiguousarray(integers.T), 1
        _replace_weight(graph, node, 1, integers, scale, axis)
        if not layer.source or layer.bias is None or len(node.inputs) < 3:
            continue
        step = layer.bias_scale().detach().cpu().numpy()
        bias = np.rint(layer.bias.detach().cpu().numpy().astype(np.float64) / step)
        limits = np.iinfo(np.int32)
        _replace_weight(graph, node, 2, bias.clip(limits.min, limits.max).astype(np.int32), step, 0)


def _replace_weight(
    graph: ir.Graph, node: ir.Node, position: int, integers: np.ndarray, scale: np.ndarray, axis: int
) -> None:
    name = f"{node.outputs[0].name}.{position}"
    stored = constant(graph, f"{name}.int", integers)
    scales = constant(graph, f"{name}.scale", scale)
    dequantize = ir.node("DequantizeLinear", [stored, scales], {"axis": axis})
    graph.insert_before(node, dequantize)
    dequantize.outputs[0].name = f"{name}.float"
    node.replace_input_with(position, dequantize.outputs[0])


class _Pairs:
    """Makes quantise and dequantise nodes, sharing equal scales and zero points."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph

    def constants(self, found: Parameters) -> list[ir.Value]:
        """Scale (float32) and zero point (uint8) as initialisers; equal ones are merged when the file is compacted."""
        return [
            constant(self.graph, "scale", np.array(found.scale, np.float32)),
            constant(self.graph, "zero_point", np.array(found.zero_point, np.uint8)),
        ]

    def quantize(self, value: ir.Value, found: Parameters, producer: ir.Node | None) -> ir.Node:
        """A QuantizeLinear of a value, placed behind its producer if it has one in the graph."""
        node = ir.node("QuantizeLinear", [value, *self.constants(found)])
        node.outputs[0].name = f"{value.name}{INTEGERS}" if value.name else None
        if producer is not None:
            self.graph.insert_after(producer, node)
        elif value.is_graph_input():
            self.graph.insert_before(self.graph[0], node)
        return node

    def dequantize(self, integers: ir.Value, found: Parameters, at: ir.Node, before: bool = False) -> ir.Value:
        """The float form of integers, placed behind (or before) a node."""
        node = ir.node("DequantizeLinear", [integers, *self.constants(found)])
        node.outputs[0].name = f"{integers.name}.float"
        if before:
            self.graph.insert_before(at, node)
        else:
            self.graph.insert_after(at, node)
        return node.outputs[0]
