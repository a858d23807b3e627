"""Constants between layers: trained where the exporter's user trained them, written back, and pruned with channels."""

import numpy as np
import pytest
import torch
from torch import nn

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.graph.constants import BEFORE_LAYERS, MASK, SINGLE, free_constants
from compress.graph.lowering import lower_for_int8
from compress.prune.channels import remove_channels
from compress.prune.groups import survey_channels
from compress.quant import prepare_qat
from tests.graph.graphs import image_graph, images, imported, initialiser, number, weights

CONV = {"w": weights(6, 4, 3, 3), "w2": weights(2, 6, 1, 1), "low": number(-100.0), "high": number(100.0)}
CHANNELS = weights(1, 6, 1, 1)
WAYS = {
    "scale": ("c = Conv (x, w) r = Relu (c) y = Mul (r, t)", CHANNELS),
    "offset": ("c = Conv (x, w) r = Relu (c) y = Add (t, r)", CHANNELS),
    "difference": ("c = Conv (x, w) r = Relu (c) y = Sub (r, t)", CHANNELS),
    "divisor": ("c = Conv (x, w) r = Relu (c) y = Div (r, t)", np.abs(CHANNELS) + 1),
    "one for each column": ("c = Conv (x, w) y = Add (c, t)", weights(1, 1, 1, 5)),
    "product that is no layer": ("c = Conv (x, w) y = MatMul (c, t)", weights(6, 5, 3)),
    "left of a product": ("c = Conv (x, w) y = MatMul (t, c)", weights(3, 6)),
    "joined": ("c = Conv (x, w) y = Concat <axis = 1> (c, t)", weights(1, 2, 6, 5)),
    "as far as the image is wide": (
        "c = Conv (x, w) s = Shape <start = 3> (c) p = Slice (t, zero, s, three) y = Add (c, p)",
        weights(1, 1, 1, 40),
    ),
}
MORE = {"zero": np.array([0]), "three": np.array([3])}
ONE = ((1, 4, 8, 7),)


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_that_meets_what_a_layer_computes_is_trained_and_written_back(way: str) -> None:
    body, constant = WAYS[way]
    module = imported(image_graph(body, CONV | MORE | {"t": constant}), ONE)
    assert [tuple(parameter.shape) for name, parameter in module.named_parameters() if "." not in name] == [
        constant.shape
    ]
    template = canonicalise(image_graph(body, CONV | MORE | {"t": constant}))
    module = to_torch(template)
    module(torch.from_numpy(images(ONE[0]))).square().sum().backward()
    trained = next(parameter for name, parameter in module.named_parameters() if "." not in name)
    assert trained.grad is not None
    assert trained.grad.abs().sum() > 0
    with torch.no_grad():
        trained += 1
    np.testing.assert_allclose(initialiser(to_onnx(module, template), "t"), constant + 1, rtol=1e-6)


FIXED = {
    "normalisation of the image": ("d = Sub (x, t) y = Conv (d, w)", weights(1, 4, 1, 1), {"t": BEFORE_LAYERS}),
    "a number": ("c = Conv (x, w) r = Relu (c) y = Mul (r, t)", number(0.3), {"t": SINGLE}),
    "a number of four dimensions": (
        "c = Conv (x, w) r = Relu (c) y = Mul (r, t)",
        weights(1, 1, 1, 1),
        {"t": SINGLE},
    ),
    "a mask": ("c = Conv (x, w) y = Add (c, t)", np.array([0, 0, -1e9, 0, 0], np.float32), {"t": MASK}),
    "ends of a clip": ("c = Conv (x, w) y = Clip (c, low, high)", number(0.0), {}),
    "a size": (
        "c = Conv (x, w) s = Shape <start = 2> (c) f = Cast <to = 1> (s) m = Mul (f, t) i = Cast <to = 7> (m) "
        "a = Shape <end = 2> (c) n = Concat <axis = 0> (a, i) y = Resize <coordinate_transformation_mode = "
        '"asymmetric", mode = "nearest", nearest_mode = "floor"> (c, , , n)',
        np.array([2, 2], np.float32),
        {},
    ),
    "weights of a layer": (
        "c = Conv (x, w) p = Transpose <perm = [0, 2, 3, 1]> (c) y = MatMul (p, t)",
        weights(6, 3),
        {},
    ),
}


@pytest.mark.parametrize("kind", FIXED)
def test_other_constants_are_not(kind: str) -> None:
    body, constant, expected = FIXED[kind]
    model = image_graph(body, CONV | {"t": constant})
    assert free_constants(canonicalise(model).graph).fixed == expected
    module = imported(model, ONE)
    assert [name for name, _ in module.named_parameters() if "." not in name] == []


def test_channels_are_pruned_with_the_constants_that_scale_them() -> None:
    body = "c = Conv (x, w) r = Relu (c) m = Mul (r, t) a = Add (m, u) k = Relu (a) y = Conv (k, w2)"
    template = canonicalise(image_graph(body, CONV | {"t": CHANNELS, "u": weights(6, 1, 1, seed=1)}))
    module = to_torch(template)
    survey = survey_channels(module, ONE[0][1:])
    group = next(group for group in survey.groups if group.name == "c")
    assert {member.layer for member in group.members} == {"c", "t", "u", "y"}
    pruned = remove_channels(module, [group], {"c": (1, 4)})
    assert [tuple(parameter.shape) for name, parameter in pruned.named_parameters() if "." not in name] == [
        (1, 4, 1, 1),
        (4, 1, 1),
    ]
    assert isinstance(pruned, nn.Module)
    written = to_onnx(pruned, template)  # type: ignore[arg-type]
    np.testing.assert_array_equal(initialiser(written, "t"), np.delete(CHANNELS, [1, 4], axis=1))


def test_a_quantised_twin_trains_them_too() -> None:
    body = "c = Conv (x, w) r = Relu (c) m = Mul (r, t) y = Conv (m, w2)"
    lowered = lower_for_int8(canonicalise(image_graph(body, CONV | {"t": CHANNELS})))
    qat = prepare_qat(to_torch(lowered))
    assert "t" in dict(qat.named_parameters())
    np.testing.assert_array_equal(initialiser(to_onnx(qat, lowered), "t"), CHANNELS)
