"""Operators of old opsets mean what they meant there; the reference is onnxruntime on the file as it is."""

import itertools

import numpy as np
import onnx
import pytest

from compress.errors import ModelError
from compress.graph.canonical import canonicalise
from tests.graph.graphs import canonical, image_graph, imported


def factors(height: float, width: float) -> dict[str, np.ndarray]:
    """The scales of a Resize of images."""
    return {"s": np.array([1, 1, height, width], np.float32)}


ENLARGED = {
    "Upsample-7 nearest": (7, 'y = Upsample <mode = "nearest", scales = [1.0, 1.0, 2.0, 3.0]> (x)', {}),
    "Upsample-7 linear": (7, 'y = Upsample <mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]> (x)', {}),
    "Upsample-9 nearest": (9, 'y = Upsample <mode = "nearest"> (x, s)', factors(2, 4)),
    "Upsample-9 nearest, no whole factor": (9, 'y = Upsample <mode = "nearest"> (x, s)', factors(1.5, 2.5)),
    "Upsample-9 linear": (9, 'y = Upsample <mode = "linear"> (x, s)', factors(2, 2)),
    "Resize-10 linear": (10, 'y = Resize <mode = "linear"> (x, s)', factors(2, 3)),
    "Resize-10 nearest": (10, "y = Resize (x, s)", factors(2.5, 2)),
    "Resize-10 linear, shrunk": (10, 'y = Resize <mode = "linear"> (x, s)', factors(0.5, 0.5)),
    "Resize-10 nearest, shrunk": (10, "y = Resize (x, s)", factors(0.5, 0.7)),
    "Resize-10 linear, factors of a Constant": (
        10,
        's = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () y = Resize <mode = "linear"> (x, s)',
        {},
    ),
}


@pytest.mark.parametrize("name", ENLARGED)
def test_resizing_before_opset_11_knows_no_half_pixels(name: str) -> None:
    opset, body, constants = ENLARGED[name]
    model = image_graph(body, constants, opset=opset)
    canonical(model)
    imported(model)


def test_nearest_that_enlarges_and_shrinks_is_refused() -> None:
    """onnxruntime rounds down on one axis and up on the other."""
    model = image_graph("y = Resize (x, s)", factors(2, 0.7), opset=10)
    with pytest.raises(ModelError, match=r"node 'y' \(Resize of opset 10, nearest\) enlarges .* opset 17\."):
        canonicalise(model)


@pytest.mark.parametrize(
    ("opset", "axis"),
    [
        *itertools.product((9, 11, 12, 13), ("", "<axis = 1>", "<axis = 2>", "<axis = 3>", "<axis = 0>")),
        *itertools.product((11, 12, 13), ("<axis = -1>", "<axis = -2>")),
    ],
)
@pytest.mark.parametrize("kind", ["Hardmax", "Softmax", "LogSoftmax"])
def test_rows_of_several_axes(kind: str, axis: str, opset: int) -> None:
    """Before opset 13 all dimensions from the axis on were one row."""
    canonical(image_graph(f"r = Relu (x) h = {kind} {axis} (r) y = Add (h, r)", opset=opset))


def test_hardmax_that_is_the_output_keeps_its_name() -> None:
    found = canonical(image_graph("y = Hardmax <axis = 1> (x)", opset=11))
    assert [value.name for value in found.graph.output] == ["y"]
    onnx.checker.check_model(found, full_check=True)
