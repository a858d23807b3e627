"""Every operator of the table against onnxruntime, at two batch sizes and two image sizes."""

import numpy as np
import pytest

from compress.graph.kept import KeptNode
from compress.graph.operators.table import OPS
from tests.graph.graphs import image_graph, imported, ints, number, weights
from tests.graph.operator_cases import MORE_CASES, Case

FLOAT32 = 1


POSITIVE = "p = Exp (x)"
"""Makes an operand for operators that need one above zero."""
CASES = {
    # activations
    "Relu": Case("y = Relu (x)"),
    "HardSwish": Case("y = HardSwish (x)"),
    "HardSigmoid": Case("y = HardSigmoid (x)"),
    "HardSigmoid 1/6": Case("y = HardSigmoid <alpha = 0.16666667, beta = 0.5> (x)"),
    "Sigmoid": Case("y = Sigmoid (x)"),
    "Tanh": Case("y = Tanh (x)"),
    "LeakyRelu": Case("y = LeakyRelu (x)"),
    "LeakyRelu 0.3": Case("y = LeakyRelu <alpha = 0.3> (x)"),
    "Elu": Case("y = Elu <alpha = 0.7> (x)"),
    "Gelu": Case("y = Gelu (x)", opset=20),
    "Gelu tanh": Case('y = Gelu <approximate = "tanh"> (x)', opset=20),
    "Softplus": Case("y = Softplus (x)"),
    "Clip": Case("y = Clip (x, low, high)", {"low": number(-0.5), "high": number(0.7)}),
    "Clip 0 6": Case("y = Clip (x, low, high)", {"low": number(0), "high": number(6)}),
    "Clip low": Case("y = Clip (x, low)", {"low": number(-0.5)}),
    "Clip high": Case("y = Clip (x, , high)", {"high": number(0.5)}),
    "Clip attributes, opset 9": Case("y = Clip <min = -0.5, max = 0.7> (x)", opset=9),
    "Clip computed": Case("m = ReduceMax <keepdims = 0> (c) y = Clip (x, , m)", {"c": weights(5)}),
    "Softmax": Case("y = Softmax (x)"),
    "Softmax 1": Case("y = Softmax <axis = 1> (x)"),
    "Softmax opset 11": Case("y = Softmax <axis = 3> (x)", opset=11),
    "Softmax opset 11, from axis 1": Case("y = Softmax <axis = 1> (x)", opset=11),
    "LogSoftmax": Case("y = LogSoftmax <axis = 1> (x)"),
    "Dropout": Case("t = Relu (x) d, m = Dropout (t) y = Neg (d)"),
    "Identity": Case("y = Identity (x)"),
    # element-wise arithmetic
    "Add": Case("t = Relu (x) y = Add (x, t)"),
    "Add channels": Case("y = Add (c, x)", {"c": weights(4, 1, 1)}),
    "Sub": Case("y = Sub (c, x)", {"c": number(1.5)}),
    "Mul": Case("t = Sigmoid (x) y = Mul (x, t)"),
    "Mul number": Case("y = Mul (c, x)", {"c": weights(1)}),
    "Div": Case(f"{POSITIVE} y = Div (x, p)"),
    "Div number": Case("y = Div (x, c)", {"c": number(3.0)}),
    "Div numerator": Case(f"{POSITIVE} y = Div (c, p)", {"c": number(3.0)}),
    "Sqrt": Case(f"{POSITIVE} y = Sqrt (p)"),
    "Exp": Case("y = Exp (x)"),
    "Erf": Case("y = Erf (x)"),
    "Neg": Case("y = Neg (x)"),
    "Pow": Case("y = Pow (x, c)", {"c": number(2.0)}),
    "Pow base": Case("y = Pow (c, x)", {"c": number(2.0)}),
    # pooling
    "MaxPool": Case("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    "MaxPool no strides": Case("y = MaxPool <kernel_shape = [3, 2]> (x)"),
    "MaxPool pads": Case("y = MaxPool <kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]> (x)"),
    "MaxPool uneven": Case("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], pads = [0, 0, 1, 1]> (x)"),
    "MaxPool ceil": Case("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)"),
    "MaxPool dilated": Case("y = MaxPool <kernel_shape = [2, 2], dilations = [2, 3]> (x)"),
    "AveragePool": Case("y = AveragePool <kernel_shape = [2, 3], strides = [2, 3]> (x)"),
    "AveragePool pads": Case("y = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x)"),
    "AveragePool counts pads": Case(
        "y = AveragePool <kernel_shape = [3, 3], pads = [1, 0, 1, 0], count_include_pad = 1> (x)"
    ),
    "AveragePool uneven": Case(
        "y = AveragePool <kernel_shape = [2, 2], pads = [0, 0, 1, 1], count_include_pad = 1> (x)"
    ),
    "AveragePool ceil": Case("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", opset=19),
    "GlobalAveragePool": Case("y = GlobalAveragePool (x)"),
    # moving elements
    "Concat": Case("t = Relu (x) y = Concat <axis = 1> (x, t, x)"),
    "Concat constant": Case(
        "s = ReduceMean <axes = [1, 2, 3], keepdims = 0> (x) y = Concat <axis = 0> (s, c)", {"c": weights(1)}
    ),
    "Transpose": Case("y = Transpose <perm = [0, 2, 3, 1]> (x)"),
    "Reshape": Case("y = Reshape (x, s)", {"s": ints(0, 2, 2, -1)}),
    "Reshape merged batch": Case("y = Reshape (x, s)", {"s": ints(-1, 4)}),
    "Reshape computed": Case(
        "s = Shape <start = 2> (x) t = Concat <axis = 0> (c, s) y = Reshape (x, t)", {"c": ints(-1)}
    ),
    "Flatten": Case("y = Flatten (x)"),
    "Flatten 1": Case("t = Relu (x) y = Flatten <axis = 1> (t)"),
    "Squeeze": Case("p = GlobalAveragePool (x) y = Squeeze (p, a)", {"a": ints(2, 3)}),
    "Squeeze negative": Case("p = GlobalAveragePool (x) y = Squeeze (p, a)", {"a": ints(-1)}),
    "Squeeze all": Case("w = Shape <start = 3> (x) s = Squeeze (w) f = Cast <to = 1> (s) y = Div (x, f)"),
    "Squeeze opset 11": Case("p = GlobalAveragePool (x) y = Squeeze <axes = [2, 3]> (p)", opset=11),
    "Unsqueeze": Case("y = Unsqueeze (x, a)", {"a": ints(3, 0)}),
    "Unsqueeze negative": Case("y = Unsqueeze (x, a)", {"a": ints(-1, -2)}),
    "Unsqueeze both": Case("y = Unsqueeze (x, a)", {"a": ints(-5, 4)}),
    "Unsqueeze opset 11": Case("y = Unsqueeze <axes = [1, 4]> (x)", opset=11),
    "ReduceMean": Case("y = ReduceMean <axes = [3]> (x)"),
    "ReduceMean dropped": Case("y = ReduceMean <axes = [-2, 1], keepdims = 0> (x)"),
    "ReduceMean all": Case("y = ReduceMean (x)"),
    "ReduceMean opset 11": Case("y = ReduceMean <axes = [1, 2], keepdims = 0> (x)", opset=11),
    "ReduceMean opset 18": Case("y = ReduceMean (x, a)", {"a": ints(1, -1)}, opset=18),
    "Slice": Case("y = Slice (x, s, e)", {"s": ints(0, 1), "e": ints(1, 3)}),
    "Slice axes": Case(
        "y = Slice (x, s, e, a, t)", {"s": ints(-3, 0), "e": ints(1 << 62, -1), "a": ints(3, 2), "t": ints(1, 2)}
    ),
    "Slice opset 9": Case("y = Slice <axes = [3], starts = [1], ends = [4]> (x)", opset=9),
    "Slice computed": Case(
        "s = Shape <start = 3, end = 4> (x) e = Div (s, two) y = Slice (x, zero, e, a)",
        {"two": ints(2), "zero": ints(0), "a": ints(3)},
    ),
    "Gather number": Case("y = Gather <axis = 1> (x, i)", {"i": np.array(2)}),
    "Gather negative": Case("y = Gather <axis = 3> (x, i)", {"i": np.array(-1)}),
    "Gather list of one": Case("y = Gather <axis = 1> (x, i)", {"i": ints(2)}),
    "Shape": Case(f"s = Shape (x) y = Cast <to = {FLOAT32}> (s)"),
    "Shape part": Case(f"s = Shape <start = 1, end = -1> (x) y = Cast <to = {FLOAT32}> (s)"),
    "Cast": Case(f"i = Cast <to = 7> (x) y = Cast <to = {FLOAT32}> (i)"),
    "Cast double": Case(f"i = Cast <to = 11> (x) y = Cast <to = {FLOAT32}> (i)"),
    "Split": Case("a, y = Split <axis = 1> (x, s)", {"s": ints(1, 3)}),
    "Split both used": Case("a, b = Split <axis = 1> (x, s) y = Concat <axis = 1> (b, a)", {"s": ints(1, 3)}),
    "Split even": Case("a, y = Split <axis = 1> (x)"),
    "Split opset 11": Case("a, y = Split <axis = 1, split = [3, 1]> (x)", opset=11),
    "Split opset 18": Case("a, y = Split <axis = 3, num_outputs = 2> (x)", opset=18),
    "Pad": Case("y = Pad (x, p)", {"p": ints(0, 1, 2, 0, 0, 0, 1, 3)}),
    "Pad value": Case("y = Pad (x, p, v)", {"p": ints(0, 0, 0, 1, 0, 0, 0, 1), "v": number(1.5)}),
    "Pad opset 10": Case("y = Pad <pads = [0, 0, 1, 1, 0, 0, 0, 2], value = 2.0> (x)", opset=10),
    "DepthToSpace": Case("y = DepthToSpace <blocksize = 2> (x)"),
    "DepthToSpace column first": Case('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)'),
    "DepthToSpace to three": Case('c = Concat <axis = 1> (x, x, x) y = DepthToSpace <blocksize = 2, mode = "DCR"> (c)'),
    "Expand": Case("m = GlobalAveragePool (x) y = Expand (m, s)", {"s": ints(1, 1, 3, 2)}),
    "Expand computed": Case("m = GlobalAveragePool (x) s = Shape (x) y = Expand (m, s)"),
    "Expand number": Case("s = Shape (x) e = Expand (c, s) y = Add (e, x)", {"c": number(2.0)}),
    # products of two computed values; with constants see test_layers.py
    "MatMul": Case("t = Transpose <perm = [0, 1, 3, 2]> (x) y = MatMul (x, t)"),
    "MatMul first constant": Case("f = Flatten <axis = 1> (x) g = Transpose <perm = [1, 0]> (f) y = MatMul (f, g)"),
    **MORE_CASES,
}
LAYERS = {"Conv", "ConvTranspose", "BatchNormalization", "LayerNormalization", "Gemm", "MatMul", "LSTM", "GRU", "RNN"}
LAYERS |= {"InstanceNormalization", "GroupNormalization", "PRelu"}
RESIZE = {"Resize"}
"""These have tests of their own, below or in test_layers.py."""


@pytest.mark.parametrize("name", CASES)
def test_equals_onnxruntime(name: str) -> None:
    case = CASES[name]
    imported(image_graph(case.body, case.constants, opset=case.opset, outputs=case.outputs))


def test_every_operator_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} - {"If"} | LAYERS | RESIZE == set(OPS)


SAME_FOR_ANY_SCALE = [
    ("nearest", "asymmetric", "floor", (2.0, 3.0)),
    ("nearest", "asymmetric", "floor", (1.0, 4.0)),
    ("nearest", "asymmetric", "round_prefer_floor", (2.0, 1.0)),
    ("nearest", "half_pixel", "round_prefer_floor", (2.0, 4.0)),
    ("nearest", "half_pixel", "round_prefer_ceil", (3.0, 2.0)),
    ("linear", "half_pixel", "floor", (2.0, 2.0)),
    ("linear", "half_pixel", "floor", (1.5, 0.5)),
    ("linear", "align_corners", "floor", (2.0, 3.0)),
    ("linear", "pytorch_half_pixel", "floor", (2.0, 3.0)),
]


@pytest.mark.parametrize(("mode", "coordinates", "rounding", "scales"), SAME_FOR_ANY_SCALE)
def test_resize_by_scales(mode: str, coordinates: str, rounding: str, scales: tuple[float, float]) -> None:
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{coordinates}", nearest_mode = "{rounding}"'
    constants = {"s": np.array([1, 1, *scales], np.float32)}
    imported(image_graph(f"y = Resize <{attributes}> (x, , s)", constants))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_resize_to_computed_sizes(mode: str, opset: int) -> None:
    coordinates = "asymmetric" if mode == "nearest" else "half_pixel"
    attributes = f'mode = "{mode}", coordinate_transformation_mode = "{coordinates}", nearest_mode = "floor"'
    body = f"""
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        s = Shape (x)
        hw = Slice (s, two, four)
        nc = Slice (s, zero, two)
        sizes = Concat <axis = 0> (nc, hw)
        y = Resize <{attributes}> (p, roi, empty, sizes)
    """
    empty = np.zeros(0, np.float32)
    constants = {"two": ints(2), "four": ints(4), "zero": ints(0), "roi": empty, "empty": empty}
    imported(image_graph(body, constants, opset=opset))


def test_resize_of_two_axes() -> None:
    body = 'y = Resize <mode = "linear", axes = [2, 3], keep_aspect_ratio_policy = "stretch"> (x, , s)'
    imported(image_graph(body, {"s": np.array([2, 3], np.float32)}, opset=18))


def test_upsample_of_opset_9() -> None:
    imported(image_graph('y = Upsample <mode = "nearest"> (x, s)', {"s": np.array([1, 1, 2, 3], np.float32)}, opset=9))


COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("mode", ["linear", "cubic", *(f"nearest {rounding}" for rounding in ROUNDINGS)])
@pytest.mark.parametrize("factors", [(2.0, 3.0), (1.5, 0.5), (0.75, 2.5)])
def test_resize_in_every_mode(coordinates: str, mode: str, factors: tuple[float, float]) -> None:
    kind, _, rounding = mode.partition(" ")
    attributes = f'mode = "{kind}", coordinate_transformation_mode = "{coordinates}"'
    attributes += f', nearest_mode = "{rounding}"' if rounding else ""
    constants = {"s": np.array([1, 1, *factors], np.float32)}
    imported(image_graph(f"y = Resize <{attributes}> (x, , s)", constants))


@pytest.mark.parametrize("mode", ["linear", "cubic", *(f"nearest {rounding}" for rounding in ROUNDINGS)])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_factors_that_float32_does_not_hold(mode: str, coordinates: str) -> None:
    """onnxruntime multiplies in float32: 50 x 1.3 is 65, in float64 64.99. And 14.500001 it takes for 14.5."""
    kind, _, rounding = mode.partition(" ")
    attributes = f'mode = "{kind}", coordinate_transformation_mode = "{coordinates}"'
    attributes += f', nearest_mode = "{rounding}"' if rounding else ""
    model = image_graph(f"y = Resize <{attributes}> (x, , s)", {"s": np.array([1, 1, 0.7, 1.3], np.float32)})
    imported(model, shapes=((1, 4, 33, 50), (2, 4, 32, 64)), atol=1e-4)


RESIZED = [
    ("y = Resize (x, , , s)", {"s": ints(2, 4, 5, 5)}, 17),
    ('y = Resize <mode = "cubic", cubic_coeff_a = -0.5, exclude_outside = 1> (x, , s)', {"s": [1, 1, 2, 1.5]}, 17),
    ('y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"> (x, , s)',
     {"s": [1, 1, 1.3, 2]}, 19),
    ('y = Resize <keep_aspect_ratio_policy = "not_larger", axes = [2, 3]> (x, , , s)', {"s": ints(9, 9)}, 18),
    ('y = Resize <keep_aspect_ratio_policy = "not_smaller", axes = [3, 2]> (x, , , s)', {"s": ints(9, 15)}, 18),
    ('p = Transpose <perm = [0, 2, 3, 1]> (x) y = Resize <coordinate_transformation_mode = "asymmetric"> (p, , s)',
     {"s": [1, 2, 2, 1]}, 17),
]  # fmt: skip


@pytest.mark.parametrize(("body", "constants", "opset"), RESIZED)
def test_resize_of_other_axes_and_sizes(body: str, constants: dict[str, object], opset: int) -> None:
    arrays = {
        name: np.asarray(value, None if isinstance(value, np.ndarray) else np.float32)
        for name, value in constants.items()
    }
    imported(
        image_graph(body, arrays, opset=opset), ((2, 4, 8, 12),) if "s = " in body else ((2, 4, 8, 12), (2, 4, 6, 7))
    )


def test_resize_by_computed_scales() -> None:
    body = "s = Shape (x) t = Div (s, s) m = Mul (t, k) f = Cast <to = 1> (m) y = Resize (x, , f)"
    imported(image_graph(body, {"k": ints(1, 1, 2, 3)}))


def test_transpose_without_perm_reverses() -> None:
    imported(image_graph("t = Transpose (x) y = Relu (t)"))


UNEVEN = [
    (op, pads, kernel, stride)
    for op in ("MaxPool", "AveragePool", "AveragePool with padding")
    for pads in ([0, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0])
    for kernel, stride in (([3, 3], [2, 2]), ([2, 3], [3, 2]), ([2, 2], [2, 1]))
]


@pytest.mark.parametrize(("op", "pads", "kernel", "stride"), UNEVEN)
def test_ceil_mode_with_uneven_padding(op: str, pads: list[int], kernel: list[int], stride: list[int]) -> None:
    """A window that lies in padding alone does not count."""
    included = ", count_include_pad = 1" if op.endswith("padding") else ""
    window = f"kernel_shape = {kernel}, strides = {stride}, pads = {pads}, ceil_mode = 1{included}"
    model = image_graph(f"y = {op.split()[0]} <{window}> (x)", opset=19)
    imported(model, shapes=((1, 4, 5, 8), (2, 4, 7, 6), (1, 4, 6, 9)))


KEPT = [
    (
        'y = Resize <mode = "linear", antialias = 1> (x, , s)',
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)},
        18,
        "Resize",
    ),
    ("y = AveragePool <kernel_shape = [2, 2], dilations = [2, 2]> (x)", {}, 19, "AveragePool"),
    ("y = MaxPool <kernel_shape = [3, 3], pads = [2, 2, 2, 2]> (x)", {}, 17, "MaxPool"),
    ("h = Cast <to = 10> (x) y = Cast <to = 1> (h)", {}, 17, "Cast"),
    (
        "s = Shape <start = 0, end = 1> (x) o = Div (s, s) r = ReduceMean (x, o) y = Reshape (r, n)",
        {"n": ints(-1, 4)},
        18,
        "ReduceMean",
    ),
    ("r = ReduceMean <axes = [2], keepdims = 0> (x) y = MaxPool <kernel_shape = [2]> (r)", {}, 17, "MaxPool"),
    ("y = Det (x)", {}, 17, "Det"),
    ("y = Hardmax <axis = 1> (x)", {}, 17, "Hardmax"),
]


@pytest.mark.parametrize(("body", "constants", "opset", "kept"), KEPT)
def test_what_has_no_trainable_form_is_kept(body: str, constants: dict[str, np.ndarray], opset: int, kept: str) -> None:
    shapes = ((1, 4, 6, 6), (3, 4, 8, 8))
    module = imported(image_graph(body, constants, opset=opset), shapes)
    assert {layer.node.op_type for layer in module.modules() if isinstance(layer, KeptNode)} == {kept}


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_ceil_mode_has_the_same_size_and_values(op: str, kernel: int, stride: int, pad: int) -> None:
    window = f"kernel_shape = [{kernel}, {kernel}], strides = [{stride}, {stride}], pads = [{pad}, {pad}, {pad}, {pad}]"
    model = image_graph(f"y = {op} <{window}, ceil_mode = 1> (x)", opset=19)
    imported(model, shapes=((1, 4, 5, 8), (2, 4, 7, 6)))
