"""Networks in the spelling of exporters that cannot be run here: Paddle2ONNX, tf2onnx, and Keras's own.

Written by hand after files of theirs: which operators they use, in which order, with which attributes and constants.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from tests.graph.graphs import image_graph, ints, number
from tests.graph.graphs import weights as random
from tests.hard_cases.judging import Case

PADDLE, TF, KERAS, OTHER = "Paddle2ONNX", "tf2onnx", "Keras", "by hand"
CLASSIFIER, RECOGNISER, DETECTOR = "classifier", "recogniser", "detector"
Constants = dict[str, np.ndarray]


def kernel(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights that keep values of the order of 1."""
    return random(*shape, seed=seed, scale=1.4 / math.sqrt(max(1, math.prod(shape[1:]))))


def vector(count: int, *ones: int, seed: int = 0) -> np.ndarray:
    """An offset, or a scale around 1 where the seed is odd."""
    return (random(count, seed=seed, scale=0.2) + seed % 2).astype(np.float32).reshape(count, *ones)


def variance(count: int) -> np.ndarray:
    return np.abs(random(count, seed=9, scale=0.2)) + np.float32(0.6)


def norm(name: str, count: int) -> Constants:
    """Scale, offset, mean and variance of a BatchNorm, named s, o, m and v behind its name."""
    return {
        f"{name}s": vector(count, seed=1), f"{name}o": vector(count, seed=2),
        f"{name}m": vector(count, seed=4), f"{name}v": variance(count),
    }  # fmt: skip


def recurrent(name: str, gates: int, hidden: int, given: int, directions: int = 1, seed: int = 0) -> Constants:
    """W, R and B of a recurrent layer, behind its name."""
    return {
        f"{name}w": random(directions, gates * hidden, given, seed=seed, scale=0.4),
        f"{name}r": random(directions, gates * hidden, hidden, seed=seed, scale=0.4),
        f"{name}b": random(directions, 2 * gates * hidden, seed=seed, scale=0.2),
    }


def paddle_classifier() -> onnx.ModelProto:
    """PP-LCNet: hard-swish as Paddle2ONNX spells it, biases as Add, a trained scale and offset, '?' axes."""
    body = """c0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2], group = 1> (x, w0)
        n0 = BatchNormalization <epsilon = 1e-05, momentum = 0.9> (c0, as, ao, am, av)
        p0 = Add (n0, three) q0 = Clip (p0, zero, six) r0 = Mul (n0, q0) h0 = Div (r0, six)
        s0 = Mul (h0, k) t0 = Add (s0, l)
        c1 = Conv <pads = [1, 1, 1, 1], group = 8> (t0, w1)
        n1 = BatchNormalization (c1, bs, bo, bm, bv)
        p1 = Add (n1, three) q1 = Clip (p1, zero, six) r1 = Mul (n1, q1) h1 = Div (r1, six)
        c2 = Conv (h1, w2) a2 = Add (c2, e2) u2 = Relu (a2)
        g = GlobalAveragePool (u2) d, mask = Dropout (g) f = Flatten <axis = 1> (d)
        y0 = MatMul (f, w3) y1 = Add (y0, e3) z = Softmax <axis = -1> (y1) y = Identity (z)"""
    constants = norm("a", 8) | norm("b", 8)
    constants |= {"w0": kernel(8, 3, 3, 3), "w1": kernel(8, 1, 3, 3), "w2": kernel(16, 8, 1, 1), "w3": kernel(4, 16).T}
    constants |= {"e2": vector(16, 1, 1)[None], "e3": vector(4), "k": np.ones(1, np.float32) * 1.2, "l": vector(1)}
    constants |= {"three": number(3), "zero": number(0), "six": number(6)}
    model = image_graph(body, constants, opset=11, given="float[N, 3, H, W] x")
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("?", "", "?", "?"), strict=True):
        if name:
            dim.dim_param = name
    return model


def paddle_recogniser() -> onnx.ModelProto:
    """CRNN of PP-OCR: squeezed columns, two LSTMs whose zero states are built from the batch's size."""

    def lstm(name: str, given: str) -> str:
        return f"""{name}s = Shape ({given}) {name}n = Slice ({name}s, one, two)
        {name}c = Concat <axis = 0> (both, {name}n, hidden)
            {name}z = ConstantOfShape ({name}c)
            {name}y = LSTM <direction = "bidirectional", hidden_size = 8>
        ({given}, {name}w, {name}r, {name}b, , {name}z, {name}z)
            {name}t = Transpose <perm = [0, 2, 1, 3]> ({name}y) {name}o = Reshape ({name}t, keep)"""

    body = f"""c0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w0) u0 = Relu (c0)
        m0 = MaxPool <kernel_shape = [16, 1], strides = [16, 1]> (u0)
        q = Squeeze <axes = [2]> (m0) t = Transpose <perm = [2, 0, 1]> (q)
        {lstm("a", "t")} {lstm("b", "ao")}
        v = Transpose <perm = [1, 0, 2]> (bo) y0 = MatMul (v, w3) y1 = Add (y0, e3) y = Softmax <axis = 2> (y1)"""
    constants = recurrent("a", 4, 8, 12, 2) | recurrent("b", 4, 8, 16, 2, seed=1)
    constants |= {"w0": kernel(12, 3, 3, 3), "w3": kernel(11, 16).T, "e3": vector(11)}
    constants |= {"one": ints(1), "two": ints(2), "both": ints(2), "hidden": ints(8), "keep": ints(0, 0, -1)}
    return image_graph(body, constants, opset=11, given="float[N, 3, 32, W] x")


def paddle_detector(mode: str) -> onnx.ModelProto:
    """DBNet: levels resized to sizes that are computed, as Paddle2ONNX writes `interpolate`."""
    how = f'mode = "{mode}", coordinate_transformation_mode = "{"asymmetric" if mode == "nearest" else "half_pixel"}"'
    how += ', nearest_mode = "floor"'
    body = f"""c0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w0) u0 = Relu (c0)
        c1 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (u0, w1) u1 = Relu (c1)
        c2 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (u1, w2) u2 = Relu (c2)
        s1 = Shape (u1) hw = Slice (s1, two, four) s2 = Shape (u2) nc = Slice (s2, zero, two)
        to = Concat <axis = 0> (nc, hw)
        r = Resize <{how}> (u2, none, none, to)
        a = Add (r, u1) f = Conv <pads = [1, 1, 1, 1]> (a, w3)
        d = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (f, w4) e = Add (d, e4) g = Relu (e)
        h = ConvTranspose <strides = [2, 2], kernel_shape = [2, 2]> (g, w5) i = Add (h, e5) y = Sigmoid (i)"""
    constants: Constants = {"w0": kernel(8, 3, 3, 3), "w1": kernel(16, 8, 3, 3), "w2": kernel(16, 16, 3, 3)}
    constants |= {"w3": kernel(8, 16, 3, 3), "w4": kernel(8, 8, 2, 2), "w5": kernel(8, 1, 2, 2)}
    constants |= {"e4": vector(8, 1, 1)[None], "e5": vector(1, 1, 1)[None]}
    constants |= {"zero": ints(0), "two": ints(2), "four": ints(4), "none": np.zeros(0, np.float32)}
    return image_graph(body, constants, opset=11, given="float[N, 3, H, W] x")


def paddle_svtr() -> onnx.ModelProto:
    """A block of SVTR: LayerNorm taken apart, heads by Slice and Squeeze, swish as x * sigmoid(x)."""

    def layer_norm(name: str, given: str) -> str:
        return f"""{name}a = ReduceMean <axes = [-1]> ({given}) {name}d = Sub ({given}, {name}a)
        {name}p = Pow ({name}d, two)
            {name}v = ReduceMean <axes = [-1]> ({name}p) {name}e = Add ({name}v, eps) {name}q = Sqrt ({name}e)
            {name}n = Div ({name}d, {name}q) {name}m = Mul ({name}n, {name}s) {name}y = Add ({name}m, {name}o)"""

    body = f"""c0 = Conv <pads = [1, 1, 1, 1], strides = [4, 4]> (x, w0) g0 = Sigmoid (c0) u0 = Mul (c0, g0)
        b0 = Flatten <axis = 2> (u0) b1 = Reshape (b0, rows) t = Transpose <perm = [0, 2, 1]> (b1)
        x1 = Add (t, position)
        {layer_norm("a", "x1")} k0 = MatMul (ay, w1) k1 = Add (k0, e1) k2 = Reshape (k1, heads)
        k3 = Transpose <perm = [2, 0, 3, 1, 4]> (k2)
        q0 = Slice (k3, i0, i1, i0) q1 = Squeeze <axes = [0]> (q0) q2 = Mul (q1, scale)
        r0 = Slice (k3, i1, i2, i0) r1 = Squeeze <axes = [0]> (r0) r2 = Transpose <perm = [0, 1, 3, 2]> (r1)
        v0 = Slice (k3, i2, i3, i0) v1 = Squeeze <axes = [0]> (v0)
        s0 = MatMul (q2, r2) s1 = Softmax <axis = -1> (s0) s2 = MatMul (s1, v1)
        s3 = Transpose <perm = [0, 2, 1, 3]> (s2) s4 = Reshape (s3, joined) s5 = MatMul (s4, w2) x2 = Add (x1, s5)
        {layer_norm("b", "x2")} m0 = MatMul (by, w3) m1 = Sigmoid (m0) m2 = Mul (m0, m1) m3 = MatMul (m2, w4)
        x3 = Add (x2, m3)
        y0 = MatMul (x3, w5) y1 = Add (y0, e5) y = Softmax <axis = 2> (y1)"""
    constants = {"as": vector(16, seed=1), "ao": vector(16), "bs": vector(16, seed=3), "bo": vector(16, seed=2)}
    constants |= {"w0": kernel(16, 3, 3, 3), "w1": kernel(48, 16).T, "e1": vector(48), "w2": kernel(16, 16, seed=3).T}
    constants |= {"w3": kernel(32, 16).T, "w4": kernel(16, 32).T, "w5": kernel(11, 16).T, "e5": vector(11)}
    constants |= {"position": random(1, 128, 16), "two": number(2), "eps": number(1e-5), "scale": number(8**-0.5)}
    constants |= {"rows": ints(-1, 16, 128), "heads": ints(0, 128, 3, 2, 8), "joined": ints(0, 128, 16)}
    constants |= {f"i{index}": ints(index) for index in range(4)}
    return image_graph(body, constants, opset=11, given="float[N, 3, 32, 64] x")


def tf_classifier() -> onnx.ModelProto:
    """MobileNet: images [N, H, W, C], SAME by auto_pad, ReLU6 as Min and Max, biases and scales as Mul and Add."""
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x)
        c0 = Conv <auto_pad = "SAME_UPPER", strides = [2, 2], kernel_shape = [3, 3]> (t, w0)
        m0 = Mul (c0, k0) a0 = Add (m0, e0) l0 = Max (a0, zero) u0 = Min (l0, six)
        c1 = Conv <auto_pad = "SAME_UPPER", group = 8, kernel_shape = [3, 3]> (u0, w1)
        n1 = BatchNormalization <epsilon = 0.001> (c1, as, ao, am, av) u1 = Clip (n1, zero, six)
        c2 = Conv <auto_pad = "SAME_UPPER"> (u1, w2, b2) u2 = LeakyRelu <alpha = 0.3> (c2)
        p2 = AveragePool <auto_pad = "SAME_UPPER", kernel_shape = [3, 3], strides = [2, 2]> (u2)
        g = ReduceMean <axes = [2, 3], keepdims = 0> (p2)
        y0 = MatMul (g, w3) y1 = Add (y0, e3) y = Softmax <axis = -1> (y1)"""
    constants = norm("a", 8)
    constants |= {"w0": kernel(8, 3, 3, 3), "w1": kernel(8, 1, 3, 3), "w2": kernel(16, 8, 1, 1), "b2": vector(16)}
    constants |= {
        "k0": vector(8, 1, 1, seed=1)[None],
        "e0": vector(8, 1, 1)[None],
        "w3": kernel(4, 16).T,
        "e3": vector(4),
    }
    constants |= {"zero": number(0), "six": number(6)}
    return image_graph(body, constants, opset=13, given="float[N, 32, 64, 3] x")


def tf_recogniser() -> onnx.ModelProto:
    """Columns by Reshape to rows of computed length; Bidirectional as a forward and a reverse layer, joined."""
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x) p = Pad (t, sides)
        c0 = Conv <strides = [2, 2], kernel_shape = [3, 3]> (p, w0, b0) u0 = Relu (c0)
        m0 = MaxPool <auto_pad = "SAME_UPPER", kernel_shape = [2, 1], strides = [2, 1]> (u0)
        n = Transpose <perm = [0, 3, 2, 1]> (m0)
        s = Shape (n) first = Slice (s, i0, i2) to = Concat <axis = 0> (first, wide) r = Reshape (n, to)
        d = MatMul (r, w1) e = Add (d, e1) f = Relu (e) q = Transpose <perm = [1, 0, 2]> (f)
        ay = LSTM <hidden_size = 8> (q, aw, ar, ab) as = Squeeze (ay, i1)
        by = LSTM <hidden_size = 8, direction = "reverse"> (q, bw, br, bb) bs = Squeeze (by, i1)
        j = Concat <axis = 2> (as, bs) v = Transpose <perm = [1, 0, 2]> (j)
        y0 = MatMul (v, w3) y1 = Add (y0, e3) y = Softmax <axis = -1> (y1)"""
    constants = recurrent("a", 4, 8, 12) | recurrent("b", 4, 8, 12, seed=1)
    constants |= {"w0": kernel(8, 3, 3, 3), "b0": vector(8), "w1": kernel(12, 64).T, "e1": vector(12)}
    constants |= {"w3": kernel(11, 16).T, "e3": vector(11), "sides": ints(0, 0, 0, 0, 0, 0, 1, 1), "wide": ints(64)}
    constants |= {f"i{index}": ints(index) for index in range(3)}
    return image_graph(body, constants, opset=13, given="float[N, 32, W, 3] x")


def tf_detector() -> onnx.ModelProto:
    """Resize to sizes from Shape and Mul, Conv2DTranspose cropped on one side, NHWC at both ends."""
    how = 'mode = "linear", coordinate_transformation_mode = "half_pixel", nearest_mode = "floor"'
    body = f"""t = Transpose <perm = [0, 3, 1, 2]> (x)
        c0 = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (t, w0)
        n0 = BatchNormalization (c0, as, ao, am, av) u0 = Relu (n0)
        c1 = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (u0, w1) u1 = Relu (c1)
        s = Shape (u1) hw = Slice (s, two, four) tw = Mul (hw, two) nc = Slice (s, zero, two)
        to = Concat <axis = 0> (nc, tw)
        r = Resize <{how}> (u1, none, none, to) l = Conv (u0, w2) a = Add (l, r) f = Relu (a)
        d = ConvTranspose <strides = [2, 2], pads = [0, 0, 1, 1]> (f, w3, b3) o = Sigmoid (d)
        h = Transpose <perm = [0, 2, 3, 1]> (o) y = Transpose <perm = [0, 3, 1, 2]> (h)"""
    constants = norm("a", 8) | {"w0": kernel(8, 3, 3, 3), "w1": kernel(16, 8, 3, 3), "w2": kernel(16, 8, 1, 1)}
    constants |= {"w3": kernel(16, 1, 3, 3), "b3": vector(1), "zero": ints(0), "two": ints(2), "four": ints(4)}
    return image_graph(body, constants | {"none": np.zeros(0, np.float32)}, opset=13, given="float[N, H, W, 3] x")


def tf_asymmetric() -> onnx.ModelProto:
    """UpSampling2D by Tile and Reshape, and ResizeBilinear of TensorFlow 1."""
    body = """c0 = Conv <pads = [1, 1, 1, 1], strides = [4, 4]> (x, w0, b0) u0 = Relu (c0)
        a = Reshape (u0, apart) b = Tile (a, twice) c = Reshape (b, together)
        r = Resize <mode = "linear", coordinate_transformation_mode = "asymmetric"> (c, , factors)
        d = Conv (r, w1, b1) y = Sigmoid (d)"""
    constants = {"w0": kernel(8, 3, 3, 3), "b0": vector(8), "w1": kernel(1, 8, 1, 1), "b1": vector(1)}
    constants |= {"apart": ints(-1, 8, 8, 1, 16, 1), "twice": ints(1, 1, 1, 2, 1, 2), "together": ints(-1, 8, 16, 32)}
    constants |= {"factors": np.array([1, 1, 2, 2], np.float32)}
    return image_graph(body, constants, opset=13, given="float[N, 3, 32, 64] x")


def keras_separable() -> onnx.ModelProto:
    """SeparableConv2D, PReLU with shared axes, hard-sigmoid of slope 0.2, dense on [N, H, W, C]."""
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x)
        c0 = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (t, w0, b0) u0 = PRelu (c0, k0)
        d1 = Conv <auto_pad = "SAME_UPPER", group = 8> (u0, w1) c1 = Conv (d1, w2, b2) u1 = PRelu (c1, k1)
        h = HardSigmoid (u1) m = Mul (u1, h) n = Transpose <perm = [0, 2, 3, 1]> (m)
        e = MatMul (n, w3) f = Add (e, e3) s = Selu (f) g = ReduceMax <axes = [1, 2], keepdims = 0> (s)
        y0 = Gemm <alpha = 1.0, beta = 1.0> (g, w4, b4) y = Sigmoid (y0)"""
    constants = {"w0": kernel(8, 3, 3, 3), "b0": vector(8), "k0": vector(8, 1, 1), "w1": kernel(8, 1, 3, 3)}
    constants |= {
        "w2": kernel(16, 8, 1, 1),
        "b2": vector(16),
        "k1": vector(1, 1, 1),
        "w3": kernel(12, 16).T,
        "e3": vector(12),
    }
    return image_graph(
        body, constants | {"w4": kernel(4, 12).T, "b4": vector(4)}, opset=13, given="float[N, 32, 64, 3] x"
    )


def keras_gru(reset_after: bool) -> onnx.ModelProto:
    """Bidirectional GRU, its second direction reversed by Slice; reset after the product or (Keras 1) before it."""
    kind = f"GRU <hidden_size = 8, linear_before_reset = {int(reset_after)}>"
    body = f"""c0 = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w0, b0) u0 = Elu (c0)
        m = ReduceMean <axes = [2], keepdims = 0> (u0) q = Transpose <perm = [2, 0, 1]> (m)
        ay = {kind} (q, aw, ar, ab) as = Squeeze (ay, one)
        back = Slice (q, last, end, zero, minus) by = {kind} (back, bw, br, bb) bs = Squeeze (by, one)
        forth = Slice (bs, last, end, zero, minus)
        j = Concat <axis = 2> (as, forth) v = Transpose <perm = [1, 0, 2]> (j)
        y0 = MatMul (v, w3) y1 = Add (y0, e3) y = LogSoftmax <axis = -1> (y1)"""
    constants = recurrent("a", 3, 8, 8) | recurrent("b", 3, 8, 8, seed=1)
    constants |= {"w0": kernel(8, 3, 3, 3), "b0": vector(8), "w3": kernel(11, 16).T, "e3": vector(11)}
    constants |= {"one": ints(1), "zero": ints(0), "last": ints(-1), "end": ints(-(1 << 62)), "minus": ints(-1)}
    return image_graph(body, constants, opset=13, given="float[N, 3, 32, W] x")


def keras_norms() -> onnx.ModelProto:
    """LayerNormalization over [H, W, C], GroupNormalization by Reshape, and a swish."""
    body = """t = Transpose <perm = [0, 3, 1, 2]> (x) c0 = Conv <auto_pad = "SAME_UPPER", strides = [4, 4]> (t, w0, b0)
        n = Transpose <perm = [0, 2, 3, 1]> (c0) l = LayerNormalization <axis = 1> (n, ls, lo)
        b = Transpose <perm = [0, 3, 1, 2]> (l)
        g0 = Reshape (b, groups) g1 = InstanceNormalization <epsilon = 0.001> (g0, gs, go)
        s = Shape (b) g2 = Reshape (g1, s)
        g3 = Mul (g2, k) g4 = Add (g3, e) h = Sigmoid (g4) u = Mul (g4, h)
        c1 = Conv (u, w1, b1) r = Relu (c1) p = GlobalMaxPool (r) f = Squeeze (p, last)
        y0 = MatMul (f, w2) y = Softmax (y0)"""
    constants = {
        "w0": kernel(8, 3, 3, 3),
        "b0": vector(8),
        "ls": random(8, 16, 8, scale=0.1) + 1,
        "lo": random(8, 16, 8, seed=1, scale=0.1),
    }
    constants |= {
        "gs": np.ones(2, np.float32),
        "go": np.zeros(2, np.float32),
        "k": vector(8, 1, 1, seed=1),
        "e": vector(8, 1, 1),
    }
    constants |= {
        "w1": kernel(12, 8, 1, 1),
        "b1": vector(12),
        "w2": kernel(4, 12).T,
        "groups": ints(0, 2, -1),
        "last": ints(2, 3),
    }
    arrays = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in constants.items()
    }
    return image_graph(body, arrays, opset=17, given="float[N, 32, 64, 3] x")


BACKBONE = "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b) u = Relu (c) v = Conv (u, k, l)"
LAYERS = {"w": kernel(8, 3, 3, 3), "b": vector(8), "k": kernel(4, 8, 1, 1), "l": vector(4)}


def behind(
    body: str, constants: Constants | None = None, opset: int = 17, outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    """Two convolutions, then something else."""
    return image_graph(
        f"{BACKBONE} {body}", LAYERS | (constants or {}), opset=opset, given="float[N, 3, 32, 64] x", outputs=outputs
    )


def shaped(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the output's shape said, which inference does not find."""
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ("N", 4, 16, 32)))
    return model


def with_if(condition: str = "") -> onnx.ModelProto:
    branches = """<then_branch = t () => (float[N, 4, 16, 32] o) { o = Sigmoid (v) },
        else_branch = e () => (float[N, 4, 16, 32] p) { p = Tanh (v) }>"""
    return shaped(behind(f"{condition} y = If (choice) {branches}", {} if condition else {"choice": np.array(True)}))


def with_loop() -> onnx.ModelProto:
    loop = """<body = g (int64 i, bool c, float[N, 4, 16, 32] a) => (bool d, float[N, 4, 16, 32] n)
        { d = Identity (c) n = Tanh (a) }>"""
    return shaped(behind(f"y = Loop (three, yes, v) {loop}", {"three": np.array(3), "yes": np.array(True)}))


def foreign() -> onnx.ModelProto:
    return shaped(behind("y = com.microsoft.FastGelu (v)"))


def two_inputs() -> onnx.ModelProto:
    given = "float[N, 3, 32, 64] x, float[N, 2] scale"
    return image_graph(
        f"{BACKBONE} g = GlobalAveragePool (v) f = Flatten (g) y = Concat <axis = 1> (f, scale)", LAYERS, given=given
    )


QDQ = """q = QuantizeLinear (x, s, z) d = DequantizeLinear (q, s, z) i = DequantizeLinear (n, t) c = Conv (d, i)
    p = GlobalAveragePool (c) y = Flatten (p)"""
INTEGERS: Constants = {"s": number(0.02), "z": np.array(128, np.uint8), "t": number(0.01)}
INTEGERS["n"] = np.random.default_rng(0).integers(-127, 127, (4, 3, 3, 3)).astype(np.int8)
DEFORMED = {"dw": kernel(4, 4, 3, 3), "dk": kernel(18, 4, 1, 1)}
PEEPHOLE = recurrent("a", 4, 8, 4) | {"peep": random(1, 24)}
CASES = [
    Case(PADDLE, CLASSIFIER, "PP-LCNet: hard-swish spelled out, trained scale and offset", paddle_classifier),
    Case(PADDLE, RECOGNISER, "CRNN: two LSTMs with states built from the batch's size", paddle_recogniser),
    Case(PADDLE, RECOGNISER, "SVTR: LayerNorm spelled out, heads by Slice", paddle_svtr),
    Case(PADDLE, DETECTOR, "DBNet: nearest Resize to a computed size", lambda: paddle_detector("nearest")),
    Case(PADDLE, DETECTOR, "DBNet: bilinear Resize to a computed size", lambda: paddle_detector("linear")),
    Case(TF, CLASSIFIER, "MobileNet: SAME, ReLU6 as Min and Max, [N, H, W, C]", tf_classifier),
    Case(TF, RECOGNISER, "CRNN: an LSTM each way, rows by computed Reshape", tf_recogniser),
    Case(TF, DETECTOR, "Resize to twice the size, transposed convolution cropped on one side", tf_detector),
    Case(TF, DETECTOR, "upsampled by Tile, asymmetric Resize", tf_asymmetric),
    Case(KERAS, CLASSIFIER, "separable convolutions, PReLU, dense on [N, H, W, C]", keras_separable),
    Case(KERAS, CLASSIFIER, "LayerNorm of whole images, GroupNorm by Reshape", keras_norms),
    Case(KERAS, RECOGNISER, "GRU each way, reset after", lambda: keras_gru(True)),
    Case(KERAS, RECOGNISER, "GRU each way, reset before", lambda: keras_gru(False)),
    Case(OTHER, CLASSIFIER, "If of a constant condition", with_if),
    Case(OTHER, CLASSIFIER, "node without a trainable form (Hardmax)", lambda: behind("y = Hardmax <axis = 1> (v)")),
    Case(OTHER, CLASSIFIER, "channels in another order (Gather)", lambda: behind(
        "o = Gather <axis = 1> (v, order) y = Conv (o, m)", {"order": ints(2, 0, 3, 1), "m": kernel(3, 4, 1, 1)})),
    Case(OTHER, CLASSIFIER, "places written by ScatterND", lambda: behind(
        "t = Tanh (v) y = ScatterND (t, places, rows)", {"places": np.array([[0, 1]]), "rows": random(1, 16, 32)})),
    Case(OTHER, CLASSIFIER, "If that depends on the image", lambda: with_if(
        "m = ReduceMean <keepdims = 0> (v) choice = Cast <to = 9> (m)")),
    Case(OTHER, CLASSIFIER, "Loop", with_loop),
    Case(OTHER, CLASSIFIER, "operator of another domain", foreign),
    Case(OTHER, CLASSIFIER, "DeformConv", lambda: behind(
        "o = Conv (v, dk) y = DeformConv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (v, dw, o)", DEFORMED, 19)),
    Case(OTHER, RECOGNISER, "LSTM with peepholes", lambda: behind(
        """m = ReduceMean <axes = [2], keepdims = 0> (v) q = Transpose <perm = [2, 0, 1]> (m)
        y = LSTM <hidden_size = 8> (q, aw, ar, ab, , , , peep)""", PEEPHOLE)),
    Case(OTHER, CLASSIFIER, "int8 already (QDQ)", lambda: image_graph(QDQ, INTEGERS, given="float[N, 3, 32, 64] x")),
    Case(OTHER, CLASSIFIER, "two inputs", two_inputs),
]  # fmt: skip
