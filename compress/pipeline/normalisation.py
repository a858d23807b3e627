"""Models that normalise their images themselves, as files made for deployment often do: what they are fed then."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from compress.measure.session import Model
from compress.pipeline.facts import real_inputs

FULL_SCALE = 255.0
FINE = 1 / 32
"""Multiplied by less than this, values of about 1 would tell a network nothing: what it is fed reaches 255."""
_MOVES = ("Cast", "Identity", "Transpose")
"""What may stand between a model's input and its arithmetic, or in it."""


@dataclass(frozen=True)
class Inner:
    """What a model does first to each channel of its images: scale * x + offset."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def expects_pixels(self) -> bool:
        """Whether x are values from 0 to 255."""
        return 0 < max(map(abs, self.scale)) < FINE

    @property
    def neutral(self) -> float:
        """The gray that it maps to 0, of all channels' mean; in [0, 255]."""
        grays = [-offset / scale for scale, offset in zip(self.scale, self.offset, strict=True) if scale]
        return float(np.clip(round(sum(grays) / len(grays), 3), 0, FULL_SCALE)) if grays else 0.0

    @property
    def said(self) -> str:
        """The arithmetic, of the first channel.

        >>> Inner((0.0078,), (-1.0,)).said
        '0.0078 x - 1'
        """
        sign = "-" if self.offset[0] < 0 else "+"
        return f"{self.scale[0]:.4g} x {sign} {abs(self.offset[0]):.4g}"

    @property
    def preprocess(self) -> dict[str, Any]:
        """Keys of a recipe's `task.preprocess` by which it is fed pixels, padded by what it maps to 0."""
        return {"mean": 0.0, "std": round(1 / FULL_SCALE, 10), "pad_value": self.neutral}


def inner_normalisation(model: Model) -> Inner | None:
    """The arithmetic with constants that a model begins with; None where it begins with anything else.

    Args:
        model: a file that can be read, its bytes, or the parsed model; its weights are not loaded from files beside it.
    """
    if isinstance(model, bytes):
        model = onnx.load_from_string(model)
    elif not isinstance(model, onnx.ModelProto):
        model = onnx.load(model, load_external_data=False)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in Counter(node.input):
            readers.setdefault(name, []).append(node)
    inputs = real_inputs(model)
    if not inputs:
        return None
    value = inputs[0].name
    scale, offset, found = np.ones(1), np.zeros(1), False
    while len(readers.get(value, ())) == 1:
        node = readers[value][0]
        if node.op_type in _MOVES:
            value = node.output[0]
            continue
        other = _other_operand(node, value, constants)
        if other is None:
            break
        scale, offset = _followed_by(node, value, other, scale, offset)
        value, found = node.output[0], True
    if not found or not np.isfinite([*scale, *offset]).all():
        return None
    scale, offset = np.broadcast_arrays(scale, offset)
    return Inner(tuple(map(float, scale)), tuple(map(float, offset)))


def _other_operand(node: onnx.NodeProto, value: str, constants: dict[str, onnx.TensorProto]) -> np.ndarray | None:
    """The constant that a node adds, multiplies by or the like: one number, or one for each of 1 or 3 channels."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == value else node.input[0]
    tensor = constants.get(other)
    if tensor is None or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    array = numpy_helper.to_array(tensor).astype(np.float64).reshape(-1)
    return array if array.size in (1, 3) else None


def _followed_by(
    node: onnx.NodeProto, value: str, other: np.ndarray, scale: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset with one more operation behind them; NaN where it is none that has them, as 1 / x."""
    is_first = node.input[0] == value
    with np.errstate(all="ignore"):
        match node.op_type:
            case "Add":
                return scale, offset + other
            case "Sub":
                return (scale, offset - other) if is_first else (-scale, other - offset)
            case "Mul":
                return scale * other, offset * other
            case _:
                return (scale / other, offset / other) if is_first else (scale * np.nan, offset * np.nan)
