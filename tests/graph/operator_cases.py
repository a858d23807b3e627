"""Cases of operators beyond the first table: what other exporters write, each computing y from x [N, 4, H, W]."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tests.graph.graphs import ints, number, weights

FLOAT32 = 1


@dataclass(frozen=True)
class Case:
    """One node, or a few, that compute y from x [N, 4, H, W]."""

    body: str
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    opset: int = 17
    outputs: tuple[str, ...] = ("y",)


P = "p = Exp (x)"
"""An operand above zero."""
F = f"<to = {FLOAT32}>"
"""What makes a boolean or whole number comparable with onnxruntime's floats."""
UNARY = {
    name: Case(f"s = Tanh (x) y = {name} (s)")
    for name in ("Abs", "Acos", "Asin", "Atan", "Ceil", "Cos", "Floor", "Round", "Sign", "Sin", "Softsign", "Tan")
}
COMPARED = {
    name: Case(f"t = Floor (x) u = Round (x) b = {name} (t, u) y = Cast {F} (b)")
    for name in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
}
LOGIC = {
    name: Case(
        f"t = Greater (x, a) u = Less (x, b) l = {name} (t, u) y = Cast {F} (l)", {"a": number(0), "b": number(0.5)}
    )
    for name in ("And", "Or", "Xor")
}
REDUCED = {
    f"{name} {how}": case
    for name in (
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMin", "ReduceProd"),
        *("ReduceSum", "ReduceSumSquare"),
    )
    for how, case in {
        "all": Case(f"{P} y = {name} (p)"),
        "axes": Case(f"{P} y = {name} (p, a)", {"a": ints(1, -1)}, 18),
        "dropped": Case(f"{P} y = {name} <keepdims = 0> (p, a)", {"a": ints(2)}, 18),
        "none": Case(f"{P} y = {name} <noop_with_empty_axes = 1> (p, a)", {"a": ints()}, 18),
    }.items()
    if not (how == "none" and name in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"))
}
MORE_CASES: dict[str, Case] = {
    **UNARY,
    **COMPARED,
    **LOGIC,
    **REDUCED,
    "Log": Case(f"{P} y = Log (p)"),
    "Reciprocal": Case(f"{P} y = Reciprocal (p)"),
    "Mish": Case("y = Mish (x)", opset=18),
    "Not": Case(f"g = Greater (x, a) n = Not (g) y = Cast {F} (n)", {"a": number(0)}),
    "IsNaN": Case(f"g = IsNaN (x) y = Cast {F} (g)"),
    "Selu": Case("y = Selu (x)"),
    "Selu of its own": Case("y = Selu <alpha = 2.0, gamma = 0.5> (x)"),
    "Celu": Case("y = Celu <alpha = 0.7> (x)"),
    "ThresholdedRelu": Case("y = ThresholdedRelu <alpha = 0.3> (x)"),
    "Shrink": Case("y = Shrink <bias = 0.1, lambd = 0.4> (x)"),
    "LeakyRelu as Where": Case(
        "g = Greater (x, z) m = Mul (x, a) y = Where (g, x, m)", {"z": number(0), "a": number(0.1)}
    ),
    "Where constant": Case("g = Greater (x, z) y = Where (g, x, c)", {"z": number(0), "c": weights(4, 1, 1)}),
    "Min": Case("t = Neg (x) y = Min (x, t, c)", {"c": weights(4, 1, 1)}),
    "Max": Case("t = Neg (x) y = Max (x, t, c)", {"c": weights(4, 1, 1)}),
    "Max one": Case("t = Neg (x) m = Max (t) y = Neg (m)"),
    "Sum": Case("t = Tanh (x) y = Sum (x, t, c)", {"c": weights(4, 1, 1)}),
    "Mean": Case("t = Tanh (x) y = Mean (x, t, c)", {"c": weights(4, 1, 1)}),
    "Mod": Case(f"s = Shape (x) m = Mod (s, k) y = Cast {F} (m)", {"k": ints(3)}),
    "Mod fmod": Case("y = Mod <fmod = 1> (x, k)", {"k": number(0.3)}),
    "CumSum": Case("y = CumSum (x, a)", {"a": np.array(2)}),
    "Einsum": Case('y = Einsum <equation = "nchw,nchv->ncwv"> (x, x)'),
    "Einsum linear": Case(
        't = Transpose <perm = [0, 2, 3, 1]> (x) y = Einsum <equation = "nhwc,cd->nhwd"> (t, w)', {"w": weights(4, 6)}
    ),
    "ArgMax": Case(f"i = ArgMax <axis = 1> (x) y = Cast {F} (i)"),
    "ArgMin": Case(f"i = ArgMin <axis = 3, keepdims = 0> (x) y = Cast {F} (i)"),
    "TopK": Case("y, i = TopK <axis = 1> (x, k)", {"k": ints(2)}),
    "TopK smallest": Case(f"v, i = TopK <axis = 2, largest = 0> (x, k) y = Cast {F} (i)", {"k": ints(3)}),
    "GlobalMaxPool": Case("y = GlobalMaxPool (x)"),
    "LRN": Case("y = LRN <size = 3, alpha = 0.1, beta = 0.5, bias = 2.0> (x)"),
    "GatherElements": Case(
        "i = ArgMax <axis = 1> (x) y = GatherElements <axis = 1> (x, i)",
    ),
    "GatherND": Case("y = GatherND (x, i)", {"i": np.array([[0, 1], [0, 3]])}),
    "GatherND batches": Case("y = GatherND <batch_dims = 0> (x, i)", {"i": np.array([[[0, 1, 2]]])}),
    "ScatterND": Case("u = GatherND (x, i) t = Neg (u) y = ScatterND (x, i, t)", {"i": np.array([[0, 1], [0, 3]])}),
    "ScatterND add": Case(
        'u = GatherND (x, i) y = ScatterND <reduction = "add"> (x, i, u)', {"i": np.array([[0, 1], [0, 3]])}, 18
    ),
    "ScatterElements": Case(
        "i = ArgMax <axis = 1> (x) m = ReduceMax <axes = [1]> (x) n = Neg (m) y = ScatterElements <axis = 1> (x, i, n)"
    ),
    "Tile": Case("y = Tile (x, r)", {"r": ints(1, 2, 1, 3)}),
    "Tile computed": Case(
        "s = Shape <start = 0, end = 1> (x) t = Div (s, s) r = Concat <axis = 0> (t, t, t, k) y = Tile (x, r)",
        {"k": ints(2)},
    ),
    "SpaceToDepth": Case("u = DepthToSpace <blocksize = 2> (x) t = Tanh (u) y = SpaceToDepth <blocksize = 2> (t)"),
    "Trilu": Case("y = Trilu <upper = 0> (x)"),
    "Trilu upper": Case("y = Trilu (x, k)", {"k": np.array(1)}),
    "OneHot": Case(
        "i = ArgMax <axis = 1, keepdims = 0> (x) y = OneHot <axis = 1> (i, d, v)", {"d": np.array(4), "v": weights(2)}
    ),
    "GridSample": Case(
        "g = Transpose <perm = [0, 2, 3, 1]> (x) c = Slice (g, z, e, a) t = Tanh (c) y = GridSample (x, t)",
        {"z": ints(0), "e": ints(2), "a": ints(3)},
    ),
    "GridSample others": Case(
        """g = Transpose <perm = [0, 2, 3, 1]> (x) c = Slice (g, z, e, a) t = Mul (c, k)
        y = GridSample <mode = "nearest", padding_mode = "border", align_corners = 1> (x, t)""",
        {"z": ints(0), "e": ints(2), "a": ints(3), "k": number(1.3)},
    ),
    "ConstantOfShape": Case("s = Shape (x) c = ConstantOfShape (s) y = Sub (x, c)"),
    "ConstantOfShape value": Case("s = Shape (x) c = ConstantOfShape <value = float[1] {2.5}> (s) y = Mul (x, c)"),
    "Range": Case(
        f"s = Shape <start = 3> (x) n = Squeeze (s) r = Range (z, n, o) f = Cast {F} (r) y = Add (x, f)",
        {"z": np.array(0), "o": np.array(1)},
    ),
    "Size": Case(f"s = Size (x) f = Cast {F} (s) y = Div (x, f)"),
    # forms that other exporters give to operators of the first table
    "Flatten 2": Case("y = Flatten <axis = 2> (x)"),
    "Flatten 0": Case("y = Flatten <axis = 0> (x)"),
    "Slice backwards": Case(
        "y = Slice (x, s, e, a, t)", {"s": ints(-1, 9), "e": ints(-1 << 62, 0), "a": ints(3, 2), "t": ints(-1, -2)}
    ),
    "Gather list": Case("y = Gather <axis = 1> (x, i)", {"i": ints(2, 0, -1)}),
    "Gather matrix": Case("y = Gather <axis = 3> (x, i)", {"i": np.array([[0, 2], [1, -1]])}),
    "Gather computed": Case("i = ArgMax <axis = 1, keepdims = 0> (x) y = Gather (c, i)", {"c": weights(4, 3)}),
    "Gather negative one": Case("y = Gather <axis = 1> (x, i)", {"i": ints(-1)}),
    "Pad reflect": Case('y = Pad <mode = "reflect"> (x, p)', {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}),
    "Pad edge": Case('y = Pad <mode = "edge"> (x, p)', {"p": ints(0, 1, 2, 1, 0, 0, 1, 3)}),
    "Pad wrap": Case('y = Pad <mode = "wrap"> (x, p)', {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}, 19),
    "Pad axes": Case("y = Pad (x, p, , a)", {"p": ints(1, 0, 1, 2), "a": ints(3, -2)}, 18),
    "Pad crop": Case("y = Pad (x, p)", {"p": ints(0, 0, -1, 0, 0, 0, 1, -2)}),
    "Pad computed fill": Case(
        "v = ReduceMean <keepdims = 0> (x) y = Pad (x, p, v)", {"p": ints(0, 0, 1, 1, 0, 0, 1, 1)}
    ),
    "Pad computed": Case(
        """s = Shape <start = 0, end = 1> (x) z = Sub (s, s) p = Concat <axis = 0> (z, z, k, k, z, z, k, z)
        y = Pad (x, p)""",
        {"k": ints(1)},
    ),
    "ReduceMean nothing": Case("t = Tanh (x) y = ReduceMean <noop_with_empty_axes = 1> (t)", opset=18),
    "AveragePool uneven left out": Case("y = AveragePool <kernel_shape = [2, 2], pads = [0, 0, 1, 1]> (x)"),
    "AveragePool same": Case('y = AveragePool <kernel_shape = [3, 2], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)'),
    "AveragePool same lower": Case('y = AveragePool <kernel_shape = [2, 2], auto_pad = "SAME_LOWER"> (x)'),
    "MaxPool same": Case('y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)'),
    "MaxPool same stride 1": Case('y = MaxPool <kernel_shape = [2, 2], auto_pad = "SAME_LOWER"> (x)'),
    "Cast int8": Case(f"i = Cast <to = 3> (x) y = Cast {F} (i)"),
    "Cast bool": Case(f"f = Floor (x) i = Cast <to = 9> (f) y = Cast {F} (i)"),
    "Gemm of two values": Case(
        "f = Flatten (x) g = Tanh (f) y = Gemm <alpha = 0.5, transB = 1> (f, g)",
    ),
    "If constant": Case(
        """y = If (c) <then_branch = t () => (float[N, 4, H, W] o) { o = Relu (x) },
        else_branch = e () => (float[N, 4, H, W] p) { p = Neg (x) }>""",
        {"c": np.array(False)},
    ),
}  # fmt: skip
"""Name, beginning with the operator -> case."""
