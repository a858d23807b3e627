"""Small ONNX graphs from text, and the comparisons that every test of the graph package makes."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import numpy_helper, parser

from compress.graph import to_onnx, to_torch
from compress.graph.canonical import canonicalise
from compress.measure.session import Session

TOLERANCE = 1e-5
"""onnxruntime and PyTorch sum in another order; the values compared are of the order of 1."""
SHAPES = ((1, 4, 8, 12), (3, 4, 6, 7))
"""Two batch sizes and two image sizes, for graphs of `image_graph`."""


def weights(*shape: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    """Random float32 weights."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * scale).astype(np.float32)


def number(value: float) -> np.ndarray:
    """A float32 constant without dimensions."""
    return np.array(value, np.float32)


def ints(*values: int) -> np.ndarray:
    """An int64 constant, e.g. axes."""
    return np.array(values, np.int64)


def image_graph(
    body: str,
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    given: str = "float[N, 4, H, W] x",
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    """A model with the nodes of `body` (ONNX's text form) and those of the constants that they read.

    Outputs are float, of a rank that inference finds.
    """
    made = ", ".join(f"float[] {name}" for name in outputs)
    imports = f'["" : {opset}, "com.microsoft" : 1]' if "com.microsoft" in body else f'["" : {opset}]'
    model = parser.parse_model(f"<ir_version: 8, opset_import: {imports}> g ({given}) => ({made}) {{ {body} }}")
    read = {name for node in model.graph.node for name in node.input}
    kept = {name: array for name, array in (constants or {}).items() if name in read}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in kept.items())
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del model.graph.output[:]
    model.graph.output.extend(inferred.graph.output)
    return model


def ops(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator occurs."""
    return Counter(node.op_type for node in model.graph.node)


def initialiser(model: onnx.ModelProto, name: str) -> np.ndarray:
    """The constant of that name."""
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def node_of(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """The node that computes a value."""
    return next(node for node in model.graph.node if output in node.output)


def images(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """Random float32 values of the order of 1."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(model: onnx.ModelProto, x: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs in onnxruntime, its own rewriting off: the reference."""
    return Session(model, optimise=False).run_all(x)


def assert_same(
    one: onnx.ModelProto, other: onnx.ModelProto, shapes: Sequence[Sequence[int]] = SHAPES, atol: float = TOLERANCE
) -> None:
    """Both models have the same outputs, by name, and compute the same for every shape."""
    for seed, shape in enumerate(shapes):
        x = images(shape, seed)
        expected, found = run(one, x), run(other, x)
        assert list(found) == list(expected)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=TOLERANCE, atol=atol, err_msg=f"{name} for {shape}")


def canonical(model: onnx.ModelProto, shapes: Sequence[Sequence[int]] = SHAPES) -> onnx.ModelProto:
    """The canonical form, checked to compute the same as the model."""
    onnx.checker.check_model(model)
    result = canonicalise(model)
    onnx.checker.check_model(result, full_check=True)
    assert_same(model, result, shapes)
    return result


def imported(
    model: onnx.ModelProto, shapes: Sequence[Sequence[int]] = SHAPES, atol: float = TOLERANCE
) -> torch.fx.GraphModule:
    """The PyTorch module of a model, checked: it, and what is written back of it, compute the same as the model."""
    onnx.checker.check_model(model)
    template = canonicalise(model)
    module = to_torch(template)
    for seed, shape in enumerate(shapes):
        x = images(shape, seed)
        with torch.no_grad():
            results = module(torch.from_numpy(x))
        results = results if isinstance(results, tuple) else (results,)
        for (name, expected), result in zip(run(model, x).items(), results, strict=True):
            assert tuple(result.shape) == expected.shape, f"{name} for {shape}"
            np.testing.assert_allclose(result.numpy(), expected, rtol=TOLERANCE, atol=atol, err_msg=f"{name}, {shape}")
    assert_same(model, to_onnx(module, template), shapes, atol)
    return module


def literal(text: str) -> str:
    """A text for pytest's `match=`, taken as it is."""
    return re.escape(text)
