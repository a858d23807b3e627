"""Sizes that weights determine are numbers; those of the image stay computed."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from compress.graph.known_sizes import fold_known_sizes

GRAPH = """
<ir_version: 8, opset_import: ["": 17]>
g (float[{batch}, 3, 8, {width}] x) => (float[] y)
<float[4, 3, 1, 1] w = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, int64 place = {{{place}}}, int64 two = {{2}}> {{
  v = Conv (x, w)
  s = Shape (v)
  n = Gather (s, place)
  y = {use}
}}
"""


def folded(place: int, use: str = "Div (n, two)", batch: str = "N", width: str = "16") -> np.ndarray | None:
    """The constant that is now in the place of the Gather, if any."""
    model = onnx.parser.parse_model(GRAPH.format(place=place, use=use, batch=batch, width=width))
    changed = fold_known_sizes(model)
    found = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "n"]
    assert changed == bool(found) == ("Gather" not in {node.op_type for node in model.graph.node})
    return found[0] if found else None


@pytest.mark.parametrize("use", ["Div (n, two)", "Cast <to = 1> (n) z = Sqrt (y)"])
def test_channels_that_arithmetic_meets_are_a_number(use: str) -> None:
    made = folded(1, use)
    assert made is not None
    assert (made, made.dtype, made.shape) == (4, np.int64, ())


@pytest.mark.parametrize("place", [0, 2, 3])
def test_sizes_of_the_image_stay_computed_also_where_the_file_declares_them(place: int) -> None:
    assert folded(place, batch="1", width="16") is None


def test_a_size_that_is_only_handed_on_stays_computed() -> None:
    assert folded(1, "Identity (n)") is None


def test_a_place_that_the_shape_lacks_is_left_to_who_runs_it() -> None:
    assert folded(7) is None
