"""GELU that is spelled out: found however it is written, kept whole, and one operator in an int8 file."""

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from compress.graph.canonical import canonicalise
from compress.graph.gelu import OPSET, with_gelu_operators
from tests.graph.graphs import canonical, image_graph, images, number, ops, run, weights

CONSTANTS = {"root": number(math.sqrt(2)), "inverse": number(1 / math.sqrt(2)), "one": number(1), "half": number(0.5)}
ERF = "d = Div (x, root) e = Erf (d) a = Add (e, one)"
SPELLINGS = {
    "halved at the end": f"{ERF} p = Mul (x, a) y = Mul (p, half)",
    "halved first": f"{ERF} h = Mul (half, x) y = Mul (h, a)",
    "the gate first": f"{ERF} h = Mul (x, half) y = Mul (a, h)",
    "a product in front of erf": "d = Mul (inverse, x) e = Erf (d) a = Add (one, e) p = Mul (a, x) y = Mul (half, p)",
}
OTHERS = {
    "another half": f"{ERF} p = Mul (x, a) y = Mul (p, most)",
    "another root": "d = Div (x, one) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)",
    "divided the other way round": "d = Div (root, x) e = Erf (d) a = Add (e, one) p = Mul (x, a) y = Mul (p, half)",
    "no one is added": "d = Div (x, root) e = Erf (d) p = Mul (x, e) y = Mul (p, half)",
    "two values": f"r = Relu (x) {ERF} p = Mul (r, a) y = Mul (p, half)",
    "the gate is read elsewhere": f"{ERF} p = Mul (x, a) g = Mul (p, half) y = Add (g, a)",
    "the product is read elsewhere": f"{ERF} p = Mul (x, a) g = Mul (p, half) y = Add (g, p)",
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_becomes_the_operator(body: str) -> None:
    model = with_gelu_operators(canonicalise(image_graph(body, CONSTANTS)))
    assert ops(model) == {"Gelu": 1}
    assert model.opset_import[0].version == OPSET
    onnx.checker.check_model(model, full_check=True)
    x = images((2, 4, 6, 8)) * 3
    np.testing.assert_allclose(run(model, x)["y"], torch.nn.functional.gelu(torch.from_numpy(x)), atol=1e-6)


def test_constants_that_were_float16_once() -> None:
    rough = {**CONSTANTS, "root": number(float(np.float16(math.sqrt(2)))), "inverse": number(0.7070)}
    for body in SPELLINGS.values():
        assert ops(with_gelu_operators(canonicalise(image_graph(body, rough)))) == {"Gelu": 1}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_what_is_no_gelu_is_left_alone(body: str) -> None:
    model = canonicalise(image_graph(body, {**CONSTANTS, "most": number(0.6)}))
    assert with_gelu_operators(model) is model


def test_what_cannot_be_converted_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    model = canonicalise(image_graph(SPELLINGS["halved first"], CONSTANTS))
    assert with_gelu_operators(model) is model


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1]])
def test_its_half_stays_in_front_of_a_convolution(pads: list[int], tmp_path: Path) -> None:
    body = f"{SPELLINGS['halved at the end'].replace('y =', 'g =')} y = Conv <pads = {pads}> (g, w)"
    found = canonical(image_graph(body, {**CONSTANTS, "w": weights(6, 4, 3, 3)}))
    assert ops(found) == {"Div": 1, "Erf": 1, "Add": 1, "Mul": 2, "Conv": 1}
    assert "Gelu" in _optimised(found, tmp_path / "optimised.onnx")


def test_half_of_something_else_does_not() -> None:
    body = "p = Sigmoid (x) g = Mul (p, half) y = Conv <pads = [1, 1, 1, 1]> (g, w)"
    assert ops(canonical(image_graph(body, {"half": number(0.5), "w": weights(6, 4, 3, 3)}))) == {
        "Sigmoid": 1,
        "Conv": 1,
    }


def _optimised(model: onnx.ModelProto, file: Path) -> set[str]:
    """The operators that onnxruntime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(file), 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx.load(file).graph.node}
