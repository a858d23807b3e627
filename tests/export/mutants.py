"""Exported files that are wrong on purpose, and which check notices: the table of docs/parity.md.

A mutant is made of an honest file and always the same way: the middle layer, tensor or node of those that have what is
to be changed. `python -m tests.export.mutants` writes the table anew.
"""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from onnx import NodeProto, helper, numpy_helper
from torch import fx

from compress.data.synthetic import render_crop
from compress.data.synthetic_scenes import render_scene
from compress.data.transforms import resize_crop, stack_resized
from compress.errors import ParityError
from compress.export import Exported, check_parity, export_int8
from compress.export.recurrent_forms import RecurrentForm
from compress.graph import load_model, to_torch
from compress.graph.lowering import lower_for_int8
from compress.measure.session import Session
from compress.quant import calibrate, prepare_qat
from compress.quant.int8_layers import GATE_SCALE, QuantConv2d
from compress.quant.recurrent_weights import round_recurrent
from compress.zoo import shipped
from tests.export import files

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
START, END = "<!-- mutants -->\n", "<!-- /mutants -->"
DYNAMIC = "recognition, dynamic LSTM"
FAMILIES: dict[str, tuple[str, tuple[int, int, int], int, RecurrentForm]] = {
    "classification": ("direction_classifier", (3, 48, 64), 6, "float"),
    "recognition": ("text_recogniser", (3, 32, 64), 6, "weights"),
    DYNAMIC: ("text_recogniser", (3, 32, 64), 6, "dynamic"),
    "detection": ("text_detector", (3, 64, 96), 4, "float"),
}
"""Family -> shipped model, input shape, images, form of the LSTMs."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """An honest file, its network, and images to compare them on."""

    module: fx.GraphModule
    template: onnx.ModelProto
    exported: Exported
    images: np.ndarray

    def check(self, exported: Exported | None = None) -> None:
        """Raise ParityError unless the file, or this one in its place, is the network."""
        exported = exported or self.exported
        check_parity(round_recurrent(self.module, exported.recurrent_bits), exported, self.images)


def images(family: str, count: int, seed: int) -> np.ndarray:
    """Rendered crops, or for detection parts of scenes: [N, 3, H, W]."""
    shape = FAMILIES[family][1]
    generators = [np.random.default_rng([seed, index]) for index in range(count)]
    if family != "detection":
        return stack_resized([resize_crop(render_crop("text 12", rng), shape) for rng in generators], shape)
    scenes = [cv2.resize(render_scene(rng)[0], (shape[2] * 2, shape[1] * 2)) for rng in generators]
    parts = np.stack([scene[: shape[1], : shape[2]] for scene in scenes])
    return ((parts / 255.0 - 0.45) / 0.225).transpose(0, 3, 1, 2).astype(np.float32)


@cache
def subject(family: str, weight_bits: int = 7) -> Subject:
    """A shipped model, calibrated and exported; made once, to be looked at only."""
    name, _, count, form = FAMILIES[family]
    template = lower_for_int8(load_model(shipped(name)))
    module = prepare_qat(to_torch(template), weight_bits=weight_bits, asymmetric_hard_swish=True)
    calibrate(module, [images(family, 4, seed=1)])
    exported = export_int8(module, template, recurrent=form, weight_bits=weight_bits)
    return Subject(module, template, exported, images(family, count, seed=2))


# --- looking at files and changing them -------------------------------------------------------------------------


class NotThere(Exception):
    """A mutant does not exist for a family; says why."""


def middle(found: list[NodeProto], what: str) -> NodeProto:
    if not found:
        raise NotThere(what)
    return found[len(found) // 2]


def of(model: onnx.ModelProto, *kinds: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in kinds]


def value(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(files.initialisers(model)[name]).copy()


def put(model: onnx.ModelProto, node: NodeProto, position: int, array: np.ndarray) -> None:
    """Give one node a constant of its own: others may share what it had."""
    name = f"mutant{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    node.input[position] = name


def change(model: onnx.ModelProto, node: NodeProto, position: int, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    before = value(model, node.input[position])
    put(model, node, position, edit(before).astype(before.dtype))


def behind(model: onnx.ModelProto, node: NodeProto, position: int) -> NodeProto:
    """The DequantizeLinear that an input comes from."""
    maker = files.producers(model).get(node.input[position])
    assert maker is not None
    assert maker.op_type == "DequantizeLinear"
    return maker


def integer_layers(model: onnx.ModelProto) -> list[NodeProto]:
    """Convolutions with an int32 bias, at least four filters, and a rounded result."""
    stored, makers = files.initialisers(model), files.producers(model)
    found = []
    for node in of(model, "Conv"):
        sources = [makers.get(name) for name in node.input]
        if len(sources) < 3 or any(source is None or source.op_type != "DequantizeLinear" for source in sources):
            continue
        quantised = any(reader.op_type == "QuantizeLinear" for reader in readers(model, node.output[0]))
        if quantised and stored[sources[1].input[0]].dims[0] >= 4:
            found.append(node)
    return found


def readers(model: onnx.ModelProto, name: str) -> list[NodeProto]:
    return [node for node in model.graph.node if name in node.input]


def pairs(model: onnx.ModelProto) -> list[tuple[NodeProto, list[NodeProto]]]:
    """Each QuantizeLinear with the DequantizeLinears that read it, but for hard-swish's inner one."""
    found = []
    for node in of(model, "QuantizeLinear"):
        floats = [reader for reader in readers(model, node.output[0]) if reader.op_type == "DequantizeLinear"]
        if floats and all(reader.input[1] == node.input[1] for reader in floats):
            found.append((node, floats))
    return found


def output_step(model: onnx.ModelProto, layer: NodeProto) -> np.ndarray:
    """Steps of a layer's bias in one step of its result [O]."""
    quantise = next(node for node in readers(model, layer.output[0]) if node.op_type == "QuantizeLinear")
    return value(model, quantise.input[1]) / value(model, behind(model, layer, 2).input[1])


def shift_bias(model: onnx.ModelProto, layer: NodeProto, steps: float | np.ndarray) -> None:
    """Add so many output steps to an int32 bias, as far as they fit: a dead filter's steps are tiny."""
    limits = np.iinfo(np.int32)
    shift = np.rint(steps * output_step(model, layer).astype(float)).clip(limits.min, limits.max).astype(np.int64)
    change(model, behind(model, layer, 2), 0, lambda bias: (bias + shift).clip(limits.min, limits.max))


def pair(model: onnx.ModelProto) -> tuple[NodeProto, list[NodeProto]]:
    """The QuantizeLinear and DequantizeLinears of the middle tensor."""
    found = pairs(model)
    return found[len(found) // 2]


def layer(model: onnx.ModelProto) -> NodeProto:
    return middle(integer_layers(model), "no integer convolution")


# --- the mutants ------------------------------------------------------------------------------------------------


def every_bias(model: onnx.ModelProto, steps: float) -> None:
    for found in integer_layers(model):
        shift_bias(model, found, steps)


def one_bias(model: onnx.ModelProto, steps: float) -> None:
    shift_bias(model, layer(model), steps)


def one_filter(model: onnx.ModelProto) -> None:
    """The bias of a single channel."""
    found = layer(model)
    steps = np.zeros(value(model, behind(model, found, 2).input[0]).shape)
    steps[liveliest(model, found)] = 0.9
    shift_bias(model, found, steps)


def liveliest(model: onnx.ModelProto, found: NodeProto) -> int:
    """The filter with the largest weights."""
    weight = behind(model, found, 1)
    integers, scale = value(model, weight.input[0]), value(model, weight.input[1])
    sizes = np.abs(integers.astype(float)).reshape(len(integers), -1).sum(1) * scale
    return int((sizes / output_step(model, found)).argmax())


def no_bias(model: onnx.ModelProto) -> None:
    change(model, behind(model, layer(model), 2), 0, np.zeros_like)


def every_zero_point(model: onnx.ModelProto) -> None:
    for node in of(model, "QuantizeLinear"):
        change(model, node, 2, lambda zero: zero + 1)


def zero_point_of_a_pair(model: onnx.ModelProto) -> None:
    quantise, floats = pair(model)
    for node in (quantise, *floats):
        change(model, node, 2, lambda zero: zero + 1)


def zero_point_read(model: onnx.ModelProto) -> None:
    change(model, pair(model)[1][0], 2, lambda zero: zero + 1)


def scale_written(model: onnx.ModelProto) -> None:
    change(model, pair(model)[0], 1, lambda scale: scale * 1.02)


def scale_read(model: onnx.ModelProto) -> None:
    change(model, pair(model)[1][0], 1, lambda scale: scale * 1.02)


def saturating(model: onnx.ModelProto) -> None:
    """Half the range: what lies above becomes its end."""
    quantise, floats = pair(model)
    for node in (quantise, *floats):
        change(model, node, 1, lambda scale: scale / 2)


def unclipped(model: onnx.ModelProto) -> None:
    """The range of a tensor that saturation clips at zero and at its top, doubled to both sides."""
    clipped = [(node, floats) for node, floats in pairs(model) if value(model, node.input[2]) == 0]
    quantise, floats = clipped[len(clipped) // 2]
    for node in (quantise, *floats):
        change(model, node, 1, lambda scale: scale * 2)
        change(model, node, 2, lambda _: np.array(64))


def weight_scale(model: onnx.ModelProto) -> None:
    change(model, behind(model, layer(model), 1), 1, lambda scale: scale * 1.02)


def weight_scales_reversed(model: onnx.ModelProto) -> None:
    change(model, behind(model, layer(model), 1), 1, lambda scale: scale[::-1])


def wrong_axis(model: onnx.ModelProto) -> None:
    """Scales along the input's channels; loads where a layer has as many of both."""
    square = []
    for node in integer_layers(model):
        shape = value(model, behind(model, node, 1).input[0]).shape
        square += [node] if shape[0] == shape[1] else []
    found = behind(model, middle(square, "no layer has as many input channels as output channels"), 1)
    next(entry for entry in found.attribute if entry.name == "axis").i = 1


def swapped_filters(model: onnx.ModelProto) -> None:
    """Two output channels in each other's place: weights, steps and bias."""
    found = layer(model)
    first = liveliest(model, found)
    for position in (1, 2):
        source = behind(model, found, position)
        for inner in (0, 1):
            array = value(model, source.input[inner])
            order = np.arange(len(array))
            order[[first, first - 1]] = order[[first - 1, first]]
            put(model, source, inner, array[order])


def flipped_weight(model: onnx.ModelProto) -> None:
    """The sign of the largest weight."""
    found = layer(model)

    def flip(array: np.ndarray) -> np.ndarray:
        part = array[liveliest(model, found)]
        largest = np.unravel_index(np.abs(part.astype(int)).argmax(), part.shape)
        part[largest] = -part[largest]
        return array

    change(model, behind(model, found, 1), 0, flip)


def clipped_weights(model: onnx.ModelProto) -> None:
    """Weights saturate at half their range."""
    change(model, behind(model, layer(model), 1), 0, lambda array: array.clip(-31, 31))


def shifted_padding(model: onnx.ModelProto) -> None:
    """The image one pixel further up and left."""
    padded = [
        entry
        for node in of(model, "Conv")
        for entry in node.attribute
        if entry.name == "pads" and entry.ints[0] > 0 and list(entry.ints[:2]) == list(entry.ints[2:])
    ]
    entry = padded[len(padded) // 2]
    top, left, bottom, right = entry.ints
    entry.ints[:] = [top - 1, left - 1, bottom + 1, right + 1]


def gate_without_clip(model: onnx.ModelProto) -> None:
    """x + 3 saturates at 12 instead of 6 in an integer hard-swish."""
    gates = [node for node in of(model, "QuantizeLinear") if np.isclose(value(model, node.input[1]), GATE_SCALE)]
    quantise = middle(gates, "no integer hard-swish")
    for node in (quantise, *readers(model, quantise.output[0])):
        change(model, node, 1, lambda scale: scale * 2)


def other_activation(model: onnx.ModelProto) -> None:
    """ReLU in the place of the stem's hard-swish."""
    found = of(model, "HardSwish")
    middle(found, "no hard-swish in float")
    found[0].op_type = "Relu"


def scaled_image(model: onnx.ModelProto) -> None:
    """Preprocessing that divides by 256 instead of 255."""
    given = model.graph.input[0].name
    stems = readers(model, given)
    model.graph.initializer.append(numpy_helper.from_array(np.array(255 / 256, np.float32), "mutant"))
    for node in stems:
        node.input[list(node.input).index(given)] = "scaled"
    model.graph.node.insert(0, helper.make_node("Mul", [given, "mutant"], ["scaled"]))


def swapped_colours(model: onnx.ModelProto) -> None:
    """Blue for red."""
    given = model.graph.input[0].name
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "mutant"))
    for node in readers(model, given):
        node.input[list(node.input).index(given)] = "bgr"
    model.graph.node.insert(0, helper.make_node("Gather", [given, "mutant"], ["bgr"], axis=1))


def forgotten_residual(model: onnx.ModelProto) -> None:
    """An addition that takes one operand twice."""
    constants = files.initialisers(model)
    sums = []
    for node in of(model, "Add"):
        makers = [files.producers(model).get(name) for name in node.input]
        if all(one is not None and one.op_type == "DequantizeLinear" for one in makers):
            sums += [node] if all(one.input[0] not in constants for one in makers) else []
    found = middle(sums, "no sum of two tensors in integers")
    found.input[0] = found.input[1]


def block_order(model: onnx.ModelProto) -> None:
    """Channels to pixels in the other order."""
    node = middle(of(model, "DepthToSpace"), "no DepthToSpace")
    modes = [entry for entry in node.attribute if entry.name == "mode"]
    mode = b"DCR" if modes and modes[0].s == b"CRD" else b"CRD"
    for entry in modes:
        node.attribute.remove(entry)
    node.attribute.append(helper.make_attribute("mode", mode))


def last_bias(model: onnx.ModelProto) -> None:
    """The first class, or the map, favoured by 0.01 before the softmax or sigmoid."""
    last = of(model, "Softmax", "Sigmoid")[-1]
    classes = 1 if last.op_type == "Sigmoid" else model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    offset = np.eye(1, classes, dtype=np.float32)[0] * np.float32(0.01)
    model.graph.initializer.append(numpy_helper.from_array(offset, "mutant"))
    index = list(model.graph.node).index(last)
    model.graph.node.insert(index, helper.make_node("Add", [last.input[0], "mutant"], ["favoured"]))
    model.graph.node[index + 1].input[0] = "favoured"


LSTMS = ("LSTM", "DynamicQuantizeLSTM")


def lstm(model: onnx.ModelProto) -> NodeProto:
    found = of(model, *LSTMS)
    if not found:
        raise NotThere("no LSTM")
    return found[0]


def constant_of(model: onnx.ModelProto, node: NodeProto, position: int) -> tuple[NodeProto, int]:
    """Where the integers of an LSTM's weight stand: its own input, or behind Mul and Cast."""
    makers = files.producers(model)
    while node.input[position] in makers:
        node, position = makers[node.input[position]], 0
    return node, position


def gate_order(model: onnx.ModelProto) -> None:
    """PyTorch's order of gates (i, f, c, o) where ONNX's (i, o, f, c) belongs."""
    found = lstm(model)
    for position in (1, 2, 3):
        node, place = constant_of(model, found, position)
        axis = 2 if found.op_type == "DynamicQuantizeLSTM" and position < 3 else 1
        change(model, node, place, lambda array, axis=axis, halves=1 + (position == 3): _reordered(array, axis, halves))


def _reordered(array: np.ndarray, axis: int, halves: int) -> np.ndarray:
    made = []
    for part in np.split(array, halves, axis):
        i, o, f, c = np.split(part, 4, axis)
        made += [i, f, c, o]
    return np.concatenate(made, axis)


def lstm_scale(model: onnx.ModelProto) -> None:
    """Steps of the state's weights 2 % larger."""
    found = lstm(model)
    if found.op_type == "DynamicQuantizeLSTM":
        change(model, found, 10, lambda scale: scale * 1.02)
        return
    multiply = files.producers(model)[found.input[2]]
    change(model, multiply, 1, lambda scale: scale * 1.02)


def lstm_bias(model: onnx.ModelProto) -> None:
    def drop(bias: np.ndarray) -> np.ndarray:
        bias[:, bias.shape[1] // 2 :] = 0
        return bias

    change(model, lstm(model), 3, drop)


def lstm_directions(model: onnx.ModelProto) -> None:
    """Forward weights for backward ones."""
    found = lstm(model)
    for position in (1, 2, 3):
        node, place = constant_of(model, found, position)
        change(model, node, place, lambda array: array[::-1])


Mutant = Callable[[Subject], Exported]


def _on_file(edit: Callable[..., None], *arguments: float) -> Mutant:
    def mutate(given: Subject) -> Exported:
        model = copy.deepcopy(given.exported.model)
        edit(model, *arguments)
        return dataclasses.replace(given.exported, model=model)

    return mutate


def _exported_from(change: Callable[[fx.GraphModule], None]) -> Mutant:
    """The file of the network as it was at another time."""

    def mutate(given: Subject) -> Exported:
        module = copy.deepcopy(given.module)
        with torch.no_grad():
            change(module)
        form: RecurrentForm = "float"
        if given.exported.recurrent_bits:
            form = "dynamic" if given.exported.approximate else "weights"
        return export_int8(module, given.template, recurrent=form, weight_bits=7)

    return mutate


def stale_weights(module: fx.GraphModule) -> None:
    """Each weight of the network's integer layers a hundredth away, as before some steps of training."""
    generator = torch.Generator().manual_seed(0)
    for found in module.modules():
        if isinstance(found, QuantConv2d):
            found.weight *= 1 + 0.01 * torch.randn(found.weight.shape, generator=generator)


def stale_ranges(module: fx.GraphModule) -> None:
    """Thresholds 1 % away, as before some steps of training."""
    for name, parameter in module.named_parameters():
        if name.endswith("alpha"):
            parameter *= 1.01


MUTANTS: dict[str, Mutant] = {
    "all int32 biases +0.9 output steps": _on_file(every_bias, 0.9),
    "one layer's bias +0.9 output steps": _on_file(one_bias, 0.9),
    "one layer's bias +0.1 output steps": _on_file(one_bias, 0.1),
    "one layer's bias +0.035 output steps": _on_file(one_bias, 0.035),
    "one layer's bias +0.015 output steps": _on_file(one_bias, 0.015),
    "one channel's bias +0.9 output steps": _on_file(one_filter),
    "a bias dropped": _on_file(no_bias),
    "zero point +1 in every QuantizeLinear": _on_file(every_zero_point),
    "zero point +1 in a QuantizeLinear and what reads it": _on_file(zero_point_of_a_pair),
    "zero point +1 in a DequantizeLinear": _on_file(zero_point_read),
    "scale x1.02 in a QuantizeLinear": _on_file(scale_written),
    "scale x1.02 in a DequantizeLinear": _on_file(scale_read),
    "a tensor saturates at half its range": _on_file(saturating),
    "a clip dropped (range doubled to both sides)": _on_file(unclipped),
    "a layer's weight scales x1.02": _on_file(weight_scale),
    "a layer's weight scales in reverse order": _on_file(weight_scales_reversed),
    "weight scales along the wrong axis": _on_file(wrong_axis),
    "two output channels swapped": _on_file(swapped_filters),
    "sign of one weight": _on_file(flipped_weight),
    "weights saturate at half their range": _on_file(clipped_weights),
    "weights of before training (1 % noise)": _exported_from(stale_weights),
    "ranges of before training (1 %)": _exported_from(stale_ranges),
    "padding off by one": _on_file(shifted_padding),
    "clip dropped from hard-swish's gate": _on_file(gate_without_clip),
    "ReLU for hard-swish in the stem": _on_file(other_activation),
    "image divided by 256, not 255": _on_file(scaled_image),
    "colours in reverse order": _on_file(swapped_colours),
    "an addition takes one operand twice": _on_file(forgotten_residual),
    "DepthToSpace in the other order": _on_file(block_order),
    "0.01 on the first logit": _on_file(last_bias),
    "LSTM gates in PyTorch's order": _on_file(gate_order),
    "LSTM: scales of the state's weights x1.02": _on_file(lstm_scale),
    "LSTM: bias of the state dropped": _on_file(lstm_bias),
    "LSTM: directions swapped": _on_file(lstm_directions),
}
NOTHING = "–"


def caught(family: str, name: str) -> tuple[str, float]:
    """Which check refuses a mutant, and with which figure.

    Raises:
        NotThere: there is no such mutant.
        AssertionError: nobody noticed.
    """
    if family == DYNAMIC and not name.startswith("LSTM"):
        raise NotThere("as recognition")
    given = subject(family)
    mutant = MUTANTS[name](given)
    try:
        given.check(mutant)
    except ParityError as error:
        return error.check, error.figure
    found, honest = (Session(one, optimise=False).run(given.images) for one in (mutant.model, given.exported.model))
    changed = float(np.abs(found - honest).max())
    raise AssertionError(f"{name}, {family}: not noticed; its outputs differ from the honest file's by {changed:.2g}")


def cells() -> Iterator[tuple[str, str, str]]:
    """(mutant, family, check and figure or why there is none), row by row."""
    for name in MUTANTS:
        for family in FAMILIES:
            try:
                check, figure = caught(family, name)
            except NotThere as reason:
                yield name, family, f"{NOTHING} {reason}"
            else:
                yield name, family, f"{check} {figure:.3g}"


def table(found: dict[tuple[str, str], str]) -> str:
    """The Markdown table of docs/parity.md."""
    lines = ["| mutant | " + " | ".join(FAMILIES) + " |", "|---" * (len(FAMILIES) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(found[name, family] for family in FAMILIES) + " |" for name in MUTANTS]
    return "\n".join(lines) + "\n"


def checks_of(text: str) -> list[list[str]]:
    """A table's rows without its figures, which depend on the machine a little."""
    rows = [line.strip("| ").split(" | ") for line in text.strip().splitlines()]
    return [[re.sub(r" (\d\S*|inf)$", "", cell) for cell in row] for row in rows]


def page_table() -> str:
    """The table as it stands in docs/parity.md."""
    return PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0]


def write_page() -> None:
    """Put the table into docs/parity.md."""
    made = table({(name, family): cell for name, family, cell in cells()})
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    PAGE.write_text(f"{before}{START}{made}{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    write_page()
