"""Write a quantisation-aware module as an int8 ONNX file in QDQ form.

A list of small passes over the lowered float graph, each of which reads its choice from the trained module:
weights become int8 initialisers (see `compress.export.weights`), biases int32, and every tensor with a PACT gets a
QuantizeLinear/DequantizeLinear pair with alpha's scale. Activations are uint8 and weights int8, the one pair of types
that reaches the fast integer kernels of x86 CPUs.
"""

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from torch import fx, nn

from compress.export.compact import compact
from compress.export.recurrent_forms import RecurrentForm, bits_of, store_recurrent
from compress.export.weights import store_integers, store_scaled
from compress.graph import to_onnx
from compress.graph.edit import array_of, attribute, constant, is_inner, producer
from compress.graph.gelu import with_gelu_operators
from compress.quant.int8_layers import (
    GATE_SCALE,
    IntegerHardSwish,
    QuantLayer,
    input_scale,
    quantized_integers,
    weight_scale,
)
from compress.quant.nodes import is_move
from compress.quant.pact import PACT

INTEGERS = ".int"
"""Ends the name of a value's uint8 form while the graph is built."""


@dataclass(frozen=True)
class Parameters:
    """Scale and zero point of a uint8 tensor."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class Choices:
    """What the trained module says: ranges by the value's name, the rest by the name of the graph's node."""

    activations: dict[str, Parameters]
    layers: dict[str, QuantLayer]
    integer: frozenset[str]
    hard_swish: frozenset[str]
    moves: frozenset[str] = frozenset()
    """Nodes that hand integers on as they are."""


@dataclass(frozen=True)
class Exported:
    """An int8 model, and where its integers are."""

    model: onnx.ModelProto
    integers: dict[str, tuple[str, Parameters]]
    """Value of the lowered float graph -> (name of its uint8 form in the file, scale and zero point)."""
    recurrent_bits: dict[str, int] = field(default_factory=dict)
    """LSTM or GRU -> bits of its weights, where they are int8."""
    approximate: dict[str, str] = field(default_factory=dict)
    """Results of layers that choose their steps as they run: value of the lowered float graph -> name in the file."""


def export_int8(
    module: fx.GraphModule, template: onnx.ModelProto, *, recurrent: RecurrentForm = "float", weight_bits: int = 7
) -> Exported:
    """The int8 file of a quantisation-aware module.

    Args:
        module: from `prepare_qat(to_torch(template))`, calibrated and trained.
        template: the lowered float model it was imported from.
        recurrent: the form of LSTM and GRU layers.
        weight_bits: of LSTM weights in the form `dynamic`; the other layers know theirs.

    Returns:
        A model with the template's inputs, outputs and metadata; inner names are short, since they cost bytes.

    Raises:
        ModelError: the module was not imported from this template.
    """
    choices = read_choices(module)
    model = ir.from_proto(with_gelu_operators(to_onnx(module, template)))
    graph = model.graph
    remove_saturated_activations(graph, choices)
    expand_hard_swish(graph, choices)
    insert_activation_pairs(graph, choices)
    quantize_weights(graph, choices)
    results = store_recurrent(graph, recurrent, weight_bits)
    common.RemoveUnusedNodesPass()(model)
    common.TopologicalSortPass()(model)
    proto, renamed = compact(ir.to_proto(model))
    onnx.checker.check_model(proto, full_check=True)
    integers = {name: (renamed[f"{name}{INTEGERS}"], found) for name, found in choices.activations.items()}
    approximate = {name: renamed[name] for name in results}
    return Exported(proto, integers, bits_of(recurrent, weight_bits), approximate)


def read_choices(module: fx.GraphModule) -> Choices:
    """Collect ranges, layers and integer nodes from a prepared module."""
    activations: dict[str, Parameters] = {}
    layers: dict[str, QuantLayer] = {}
    integer, hard_swish, moves = set(), set(), set()
    for node in module.graph.nodes:
        name = node.meta.get("onnx", node.name)
        if is_move(node):
            moves.add(name)
        if node.meta.get("integer"):
            integer.add(name)
        if node.op != "call_module":
            continue
        target = module.get_submodule(str(node.target))
        if isinstance(target, PACT):
            scale, zero_point = target.scale_and_zero_point()
            activations[name] = Parameters(float(scale), int(zero_point))
        elif isinstance(target, QuantLayer):
            layers[name] = target
        elif isinstance(target, IntegerHardSwish):
            hard_swish.add(name)
    return Choices(activations, layers, frozenset(integer), frozenset(hard_swish), frozenset(moves))


def remove_saturated_activations(graph: ir.Graph, choices: Choices) -> None:
    """Drop a Relu or Clip(0, top) behind a convolution whose uint8 output, zero point 0, saturates at the same ends."""
    for node in list(graph):
        if node.op_type not in ("Relu", "Clip") or node.inputs[0] is None:
            continue
        before, found = node.inputs[0].producer(), choices.activations.get(str(node.outputs[0].name))
        if before is None or found is None or before.name not in choices.integer or not is_inner(node.inputs[0]):
            continue
        low, top = (0.0, np.inf) if node.op_type == "Relu" else _clip_range(node)
        if low != 0.0 or found.zero_point != 0 or found.scale * 255 > top * (1 + 1e-6):
            continue
        ir.convenience.replace_nodes_and_values(graph, node, [node], [], [node.outputs[0]], [before.outputs[0]])


def _clip_range(node: ir.Node) -> tuple[float, float]:
    bounds = [array_of(value) for value in node.inputs[1:3]]
    low = -np.inf if not bounds or bounds[0] is None else float(bounds[0])
    top = np.inf if len(bounds) < 2 or bounds[1] is None else float(bounds[1])
    return low, top


def expand_hard_swish(graph: ir.Graph, choices: Choices) -> None:
    """HardSwish(x) in integers: x + 3 saturates to [0, 6] in uint8, is reread as a gate in [0, 1], and multiplies x."""
    nodes = [node for node in graph if node.op_type == "HardSwish" and node.name in choices.hard_swish]
    if not nodes:
        return
    three = _dequantize(graph, constant(graph, "three", np.array(255, np.uint8)), Parameters(3.0 / 255.0, 0))
    _place(graph, three, None)
    for node in nodes:
        x = node.inputs[0]
        assert x is not None
        add = ir.node("Add", [x, three.outputs[0]])
        quantized = _quantize(graph, add.outputs[0], Parameters(GATE_SCALE, 0))
        gate = _dequantize(graph, quantized.outputs[0], Parameters(GATE_SCALE / 6.0, 0))
        multiply = ir.node("Mul", [x, gate.outputs[0]])
        made = [add, quantized, gate, multiply]
        ir.convenience.replace_nodes_and_values(graph, node, [node], made, [node.outputs[0]], [multiply.outputs[0]])


def quantize_weights(graph: ir.Graph, choices: Choices) -> None:
    """Store weights as int8, and where a layer's input is integer its bias as int32 (step: input x weight scale)."""
    for node in list(graph):
        layer = choices.layers.get(str(node.name))
        if layer is None:
            continue
        weight, bias = quantized_integers(layer)
        scale, step = weight_scale(layer), input_scale(layer)
        integers, axis = weight.cpu().numpy(), layer.channel_axis
        if isinstance(layer, nn.Linear) and not attribute(node, "transB", 0):
            integers, axis = np.ascontiguousarray(integers.T), 1
        # Behind DequantizeLinear a layer is integer to onnxruntime: from a float weight it would make its own integers.
        store = store_integers if producer(node.inputs[0], "DequantizeLinear") else store_scaled
        store(graph, node, 1, integers, scale.cpu().numpy(), axis)
        if bias is not None and step is not None:
            store_integers(graph, node, 2, bias.cpu().numpy(), (step * scale).cpu().numpy(), 0)


def insert_activation_pairs(graph: ir.Graph, choices: Choices) -> None:
    """Put QuantizeLinear and DequantizeLinear behind every ranged tensor; moves (Flatten, ...) work on the integers."""
    outputs = {output.name: output for node in graph for output in node.outputs}
    values = {value.name: value for value in graph.inputs} | outputs
    for name, found in choices.activations.items():
        value = values[name]
        uses = _uses(value)
        quantized = _quantize(graph, value, found)
        _place(graph, quantized, value.producer())
        _hand_on(graph, value, quantized.outputs[0], uses, found, choices.moves)


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    return [(use.node, use.idx) for use in value.uses()]


def _hand_on(
    graph: ir.Graph,
    value: ir.Value,
    integers: ir.Value,
    uses: list[tuple[ir.Node, int]],
    found: Parameters,
    moves: frozenset[str],
) -> None:
    """Give a value's readers its dequantised form, and those that move it or ask for its size the integers."""
    for node, _ in uses:
        if node.op_type == "Shape":
            node.replace_input_with(0, integers)
    uses = [(node, index) for node, index in uses if node.op_type != "Shape"]
    movers = [node for node, index in uses if index == 0 and node.name in moves]
    readers = [(node, index) for node, index in uses if not (index == 0 and node.name in moves)]
    if readers or value.is_graph_output():
        dequantized = _dequantize(graph, integers, found)
        _place(graph, dequantized, integers.producer())
        for node, index in readers:
            node.replace_input_with(index, dequantized.outputs[0])
        if value.is_graph_output():
            _take_output(graph, value, dequantized.outputs[0])
    for node in movers:
        node.replace_input_with(0, integers)
        moved = node.outputs[0]
        _hand_on(graph, moved, moved, _uses(moved), found, moves)
        moved.type = ir.TensorType(ir.DataType.UINT8)


def _take_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make `new` the output of the graph that `old` was."""
    name, new.type, new.shape = old.name, old.type, old.shape
    old.name = f"{name}.inner"
    new.name = name
    graph.outputs[list(graph.outputs).index(old)] = new


def _quantize(graph: ir.Graph, value: ir.Value, found: Parameters) -> ir.Node:
    node = ir.node("QuantizeLinear", [value, *_constants(graph, found)])
    node.outputs[0].name = f"{value.name}{INTEGERS}" if value.name else None
    return node


def _dequantize(graph: ir.Graph, integers: ir.Value, found: Parameters) -> ir.Node:
    node = ir.node("DequantizeLinear", [integers, *_constants(graph, found)])
    node.outputs[0].name = f"{integers.name}.float" if integers.name else None
    return node


def _constants(graph: ir.Graph, found: Parameters) -> list[ir.Value]:
    """Scale (float32) and zero point (uint8) as initialisers; equal ones are merged when the file is compacted."""
    scale = constant(graph, "scale", np.array(found.scale, np.float32))
    return [scale, constant(graph, "zero_point", np.array(found.zero_point, np.uint8))]


def _place(graph: ir.Graph, node: ir.Node, producer: ir.Node | None) -> None:
    """Put a node behind what it reads: an input or a constant, or what another node makes."""
    if producer is None:
        graph.insert_before(graph[0], node)
    else:
        graph.insert_after(producer, node)
