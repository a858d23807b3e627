"""What a network costs: parameters and multiply-adds, of PyTorch modules and of ONNX files.

The unit is the multiply-add: one multiplication with its addition counts 1 (some tools count 2 and say "FLOPs").
Counted are convolutions, matrix products and recurrent layers; adding a bias, normalisation, activations, pooling and
resizing are not, and `Cost.uncounted` names those a file holds.

Every counted layer applies its weights at a number of positions, so that

    macs = positions * elements of its weights

holds for all of them: a convolution's positions are its output's pixels, a transposed convolution's its input's, a
linear layer's the rows it is given, a recurrent layer's the time steps. Pruning changes the weights and leaves the
positions alone, hence the cost of a pruned network needs no second forward pass.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto
from torch import Tensor, nn

from compress.artifacts import Cost
from compress.compute.channel_order import in_order_of
from compress.compute.modes import evaluating
from compress.errors import ModelError
from compress.measure.session import value_shapes

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
COUNTED_MODULES = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear, nn.RNNBase)


# --- PyTorch modules ---------------------------------------------------------------------------------------------


def module_cost(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image of `input_shape` (C, H, W).

    >>> module_cost(nn.Conv2d(3, 8, 3, padding=1), (3, 10, 10))  # 8*3*3*3 + 8; 216 weights at 100 pixels
    (224, 21600)
    """
    return parameter_count(module), macs_at(module, layer_positions(module, input_shape))


def parameter_count(module: nn.Module) -> int:
    """Number of trainable elements: weights, biases, and BatchNorm's scale and shift (not its statistics)."""
    return sum(parameter.numel() for parameter in module.parameters())


def layer_positions(module: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """How often each counted layer applies its weights to one image of `input_shape` (C, H, W), by module name.

    Layers appear in the order they first run. The module is left as it was (run in eval mode, no gradients).

    >>> layer_positions(nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(), nn.Linear(32, 5)), (1, 9, 9))
    {'0': 16, '2': 1}
    """
    positions: dict[str, int] = {}

    def count(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            positions[name] = positions.get(name, 0) + _positions(layer, inputs[0], output)

        return layer.register_forward_hook(hook)

    hooks = [count(name, layer) for name, layer in module.named_modules() if isinstance(layer, COUNTED_MODULES)]
    try:
        with evaluating(module), torch.no_grad():
            module(torch.zeros(1, *input_shape, device=next((p.device for p in module.parameters()), None)))
    finally:
        for handle in hooks:
            handle.remove()
    return positions


def macs_at(module: nn.Module, positions: Mapping[str, int]) -> int:
    """Multiply-adds of a module whose layers apply their weights at so many positions."""
    return sum(count * weight_count(module.get_submodule(name)) for name, count in positions.items())


def weight_count(layer: nn.Module) -> int:
    """Elements of a layer's weights, biases left out."""
    return sum(parameter.numel() for name, parameter in layer.named_parameters() if name.startswith("weight"))


def _positions(layer: nn.Module, given: Any, output: Any) -> int:
    if isinstance(layer, _CONVOLUTIONS):
        return int(output.numel()) // layer.out_channels
    if isinstance(layer, _TRANSPOSED):
        return int(given.numel()) // layer.in_channels
    if isinstance(layer, nn.Linear):
        return int(given.numel()) // layer.in_features
    assert isinstance(layer, nn.RNNBase)
    steps = given if isinstance(given, Tensor) else given.data  # a PackedSequence holds its steps in `data`
    return int(steps.numel()) // layer.input_size


# --- ONNX files --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counted:
    """Which inputs of an operator are weights and biases, and which value's shape tells its positions."""

    weights: tuple[int, ...]
    biases: tuple[int, ...]
    positions: str


_COUNTED = {
    "Conv": _Counted((1,), (2,), "pixels out"),
    "FusedConv": _Counted((1,), (2,), "pixels out"),
    "ConvInteger": _Counted((1,), (), "pixels out"),
    "QLinearConv": _Counted((3,), (8,), "pixels out"),
    "ConvTranspose": _Counted((1,), (2,), "pixels in"),
    "Gemm": _Counted((1,), (2,), "rows"),
    "FusedGemm": _Counted((1,), (2,), "rows"),
    "QGemm": _Counted((3,), (6,), "rows"),
    "MatMul": _Counted((1,), (), "product"),
    "FusedMatMul": _Counted((1,), (), "product"),
    "MatMulInteger": _Counted((1,), (), "product"),
    "DynamicQuantizeMatMul": _Counted((1,), (4,), "product"),
    "MatMulIntegerToFloat": _Counted((1,), (6,), "product"),
    "QLinearMatMul": _Counted((3,), (), "product"),
    "LSTM": _Counted((1, 2), (3,), "steps"),
    "GRU": _Counted((1, 2), (3,), "steps"),
    "RNN": _Counted((1, 2), (3,), "steps"),
    "DynamicQuantizeLSTM": _Counted((1, 2), (3,), "steps"),
}

_PARAMETERS_OF = {
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), (0, 1)),
}
"""Inputs that hold parameters of operators whose arithmetic is not counted."""

_COPIES = frozenset(("Cast", "Concat", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"))
_PASSES_CONSTANTS = _COPIES | {"DequantizeLinear", "QuantizeLinear", "Mul"}
_NO_ARITHMETIC = _COPIES | frozenset(
    ("Constant", "ConstantOfShape", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Pad", "Shape", "Tile")
)

_PARAMETER_TYPES = frozenset(
    (
        TensorProto.FLOAT,
        TensorProto.FLOAT16,
        TensorProto.BFLOAT16,
        TensorProto.DOUBLE,
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT32,
    )
)


def model_cost(model: onnx.ModelProto, input_shape: tuple[int, int, int], size_bytes: int) -> Cost:
    """Parameters and multiply-adds of an ONNX model, float32 or int8, for one image of `input_shape` (C, H, W).

    Parameters are the elements of weights and biases, also where they lie in int8 behind DequantizeLinear; scales and
    zero points, BatchNorm's statistics, and single numbers (the 3 and the 6 of a hard-swish) are not parameters.
    The model is run once in onnxruntime to see its shapes.

    Args:
        model: the model; of several inputs, the first of four dimensions is the image.
        input_shape: (C, H, W).
        size_bytes: of the file, handed through.

    Raises:
        ModelError: the model does not run on images of that shape.
    """
    graph = _Graph(model)
    counted = [node for node in model.graph.node if node.op_type in _COUNTED]
    shapes = graph.shapes(_values_to_see(counted), input_shape)
    return Cost(
        params=sum(math.prod(graph.constants[name].dims) for name in graph.parameters()),
        macs=sum(_macs(node, shapes) for node in counted),
        size_bytes=size_bytes,
        input_shape=tuple(input_shape),
        uncounted=tuple(sorted({node.op_type for node in graph.running()} - set(_COUNTED) - _NO_ARITHMETIC)),
    )


class _Graph:
    """Look-ups in an ONNX graph: constants by name, and the node that makes a value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t
        self.makers = {output: node for node in model.graph.node for output in node.output}
        self.inputs = [value for value in model.graph.input if value.name not in self.constants]
        if not self.inputs:
            raise ModelError(f"model {model.graph.name!r}: has no inputs. Expected one, the image, or several.")

    def shapes(self, names: Iterable[str], input_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Shapes of values for an image; other inputs are as they are declared, with 1 for what is open."""
        names_of_images = [
            value.name for value in self.inputs if len(value.type.tensor_type.shape.dim) == len(input_shape) + 1
        ]
        image = (names_of_images or [value.name for value in self.inputs])[0]
        feeds = {
            value.name: _image(value, input_shape) if value.name == image else _zeros(value) for value in self.inputs
        }
        shapes = {name: tuple(tensor.dims) for name, tensor in self.constants.items()}
        shapes |= {name: array.shape for name, array in feeds.items()}
        unknown = sorted(set(names) - set(shapes))
        if not unknown:
            return shapes
        alone = np.zeros((1, *input_shape), np.float32)
        return shapes | value_shapes(self.model, unknown, alone if len(feeds) == 1 else feeds)

    def running(self) -> list[onnx.NodeProto]:
        """The nodes that compute from the image; the others make one constant of another when the file is loaded."""
        return [node for node in self.model.graph.node if self._roots(_output(node)) is None]

    def parameters(self) -> set[str]:
        """Names of the constants that hold weights and biases, each once."""
        found: set[str] = set()
        for node in self.running():
            rule = _COUNTED.get(node.op_type)
            places = (*rule.weights, *rule.biases) if rule else _PARAMETERS_OF.get(node.op_type, ())
            for place in places:
                if place < len(node.input) and node.input[place]:
                    roots = self._roots(node.input[place]) or set()
                    # A lone number that is added or multiplied is a setting, but a lone bias is a parameter.
                    found |= {name for name in roots if rule or math.prod(self.constants[name].dims) > 1}
        return {name for name in found if self.constants[name].data_type in _PARAMETER_TYPES}

    def _roots(self, name: str) -> set[str] | None:
        """The constants a value is made of by copying and rescaling; None where it depends on the image."""
        if name in self.constants:
            return {name}
        node = self.makers.get(name)
        if node is None or node.op_type not in _PASSES_CONSTANTS:
            return None
        sources = list(node.input) if node.op_type in ("Concat", "Mul") else [node.input[0]]
        roots = [self._roots(source) for source in sources]
        if any(root is None for root in roots):
            return None
        if node.op_type == "Mul":  # of integers and their steps
            return roots[0]
        return set().union(*(root for root in roots if root is not None))


def _values_to_see(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        names |= {node.input[0], _output(node), *(node.input[place] for place in _COUNTED[node.op_type].weights)}
    return names


def _zeros(value: onnx.ValueInfoProto) -> np.ndarray:
    """Zeros for an input, of its declared type and shape; 1 for what is open, which some exporters write as -1."""
    declared = value.type.tensor_type
    sizes = [max(1, dim.dim_value) for dim in declared.shape.dim]
    return np.zeros(sizes, onnx.helper.tensor_dtype_to_np_dtype(declared.elem_type))


def _image(value: onnx.ValueInfoProto, input_shape: tuple[int, ...]) -> np.ndarray:
    """A black image (C, H, W) in the order of the input."""
    declared = [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
    return in_order_of(declared, np.zeros((1, *input_shape), np.float32))


def _output(node: onnx.NodeProto) -> str:
    """The first output in use (a recurrent layer may leave its first one out)."""
    return next(name for name in node.output if name)


def _macs(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    rule = _COUNTED[node.op_type]
    given, made = shapes[node.input[0]], shapes[_output(node)]
    if rule.positions == "product":  # [..., M, K] x [..., K, N]; also between two values, where nothing is a weight
        return math.prod(made) * given[-1]
    weights = sum(math.prod(shapes[node.input[place]]) for place in rule.weights)
    if rule.positions == "pixels out":
        return weights * (math.prod(made) // made[1])
    if rule.positions == "pixels in":
        return weights * (math.prod(given) // given[1])
    if rule.positions == "rows":
        return weights * made[0]
    return weights * given[0] * given[1]  # steps: X is [T, N, I] (or [N, T, I] with layout 1)
