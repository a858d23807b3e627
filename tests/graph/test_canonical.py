"""The canonical form: dimensions, names, weights and metadata; the rules have tests of their own."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compress.errors import ModelError
from compress.graph import to_onnx, to_torch
from compress.graph.canonical import IR_VERSION, OPSET, canonicalise
from tests.graph.graphs import assert_same, canonical, image_graph, initialiser, ints, node_of, ops, weights

CONV = {"w": weights(5, 4, 3, 3), "b": weights(5)}


def dims(value: onnx.ValueInfoProto) -> list[str | int]:
    """Names and numbers of a value's dimensions."""
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def with_input(shape: list[str | int | None]) -> onnx.ModelProto:
    """A network whose input is declared so."""
    model = image_graph("y = Conv (x, w, b)", CONV)
    del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, shape))
    return model


class TestDimensions:
    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ([-1, 4, "?", "?"], ["batch", 4, "height", "width"]),  # PaddlePaddle
            ([None, 4, None, None], ["batch", 4, "height", "width"]),
            ([0, 4, 8, 12], ["batch", 4, 8, 12]),
            (["N", 4, "H", "W"], ["N", 4, "H", "W"]),
            (["s", 4, "s", "s"], ["s", 4, "height", "width"]),
            (["height", 4, "?", 12], ["height", 4, "height_2", 12]),
            (["batch size", 4, "x.shape[2]", 12], ["batch", 4, "height", 12]),
            ([2, 4, 8, 12], [2, 4, 8, 12]),
        ],
    )
    def test_unknown_ones_get_names_of_their_own(self, given: list[str | int | None], named: list[str | int]) -> None:
        assert dims(canonicalise(with_input(given)).graph.input[0]) == named

    def test_output_has_the_inferred_shape_and_not_the_frozen_one(self) -> None:
        model = with_input([-1, 4, "?", "?"])
        del model.graph.output[:]
        model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 30, 30]))
        model.graph.value_info.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 32, 32]))
        found = canonicalise(model)
        assert dims(found.graph.output[0]) == ["batch", 5, "y_2", "y_3"]
        assert not found.graph.value_info

    def test_output_that_inference_cannot_tell_keeps_its_rank(self) -> None:
        body = """s = Shape (x) d = Gather (s, zero) e = ReduceSum (d) f = Concat <axis = 0> (e, rest)
            y = Reshape (x, f)"""
        constants = {"zero": ints(0), "rest": ints(2, -1)}
        model = image_graph(body, constants)
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None, None]))
        assert len(dims(canonical(model).graph.output[0])) == 3

    def test_two_inputs_share_no_names(self) -> None:
        model = image_graph("y = Add (x, z)", given="float[?, 4, ?, ?] x, float[?, 4, ?, ?] z")
        first, second = (dims(value) for value in canonicalise(model).graph.input)
        assert first == ["batch", 4, "height", "width"]
        assert second == ["z_0", 4, "z_2", "z_3"]


def test_other_formats_of_the_file_become_one() -> None:
    old = image_graph("y = Conv (x, w, b)", CONV, opset=11)
    old.ir_version = 4
    found = canonical(old)
    assert (found.opset_import[0].version, found.ir_version) == (OPSET, IR_VERSION)


@pytest.mark.parametrize("opset", [18, 20])
def test_later_opsets_stay(opset: int) -> None:
    assert canonical(image_graph("y = Relu (x)", opset=opset)).opset_import[0].version == opset


def test_weights_listed_as_inputs_are_constants() -> None:
    """As old exporters (and `keep_initializers_as_inputs`) write them."""
    model = image_graph("c = Conv (x, w) y = Add (c, o)", {"w": CONV["w"], "o": weights(5, 1, 1)}, opset=9)
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims)))
    found = canonical(model)
    assert [value.name for value in found.graph.input] == ["x"]
    assert ops(found) == {"Conv": 1}


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_metadata_and_names_survive_loading_and_writing(opset: int) -> None:
    model = image_graph("c = Conv (x, w, b) y = Identity (c)", CONV, opset=opset)
    helper.set_model_props(model, {"charset": "0123456789", "author": "somebody"})
    model.producer_name = "an exporter"
    template = canonicalise(model)
    written = to_onnx(to_torch(template), template)
    for found in (template, written):
        assert {entry.key: entry.value for entry in found.metadata_props} == {
            "charset": "0123456789",
            "author": "somebody",
        }
        assert found.producer_name == "an exporter"
        assert [dims(value) for value in found.graph.input] == [["N", 4, "H", "W"]]
        assert [(value.name, dims(value)[:2]) for value in found.graph.output] == [("y", ["N", 5])]


def test_given_model_is_left_as_it_was() -> None:
    model = image_graph("c = Conv (x, w) d = Add (c, o) y = Identity (d)", CONV | {"o": weights(5, 1, 1)})
    before = model.SerializeToString(deterministic=True)
    canonicalise(model)
    assert model.SerializeToString(deterministic=True) == before


def test_canonical_form_of_the_canonical_form_is_the_same() -> None:
    body = """c = Conv (x, w, b) n = BatchNormalization (c, b, b, b, v) h = HardSwish (n)
        p = ReduceMean <axes = [2, 3]> (h) y = Flatten (p)"""
    once = canonicalise(image_graph(body, CONV | {"v": np.abs(weights(5)) + 1}))
    assert canonicalise(once) == once


def test_each_node_is_named_after_its_value() -> None:
    model = image_graph("c = Conv (x, w, b) h = HardSwish (c) y = Neg (h)", CONV)
    model.graph.node[0].name = "some_exporter's_name"
    model.graph.node[0].doc_string = "stack trace"
    found = canonicalise(model)
    assert [node.name for node in found.graph.node] == ["c", "h", "y"]
    assert not any(node.doc_string for node in found.graph.node)


def test_node_whose_first_output_is_unused_has_a_name() -> None:
    body = """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q)
        , y = LSTM <hidden_size = 3> (t, w, r)"""
    found = canonical(image_graph(body, {"w": weights(1, 12, 4), "r": weights(1, 12, 3)}))
    assert all(node.name and node.output[0] for node in found.graph.node)


class TestUnsharedWeights:
    def test_each_layer_has_its_own(self) -> None:
        body = """c = Conv <pads = [1, 1, 1, 1]> (x, w) d = Conv <pads = [1, 1, 1, 1]> (c, w)
            y = BatchNormalization (d, s, o, o, s)"""
        constants = {"w": weights(4, 4, 3, 3), "s": np.abs(weights(4)) + 0.5, "o": weights(4, seed=1)}
        found = canonical(image_graph(body, constants))
        read = [name for node in found.graph.node for name in node.input[1:]]
        assert len(set(read)) == len(read) == 6

    def test_training_one_layer_leaves_the_other(self) -> None:
        body = "c = Conv <pads = [1, 1, 1, 1]> (x, w) y = Conv <pads = [1, 1, 1, 1]> (c, w)"
        template = canonicalise(image_graph(body, {"w": weights(4, 4, 3, 3)}))
        module = to_torch(template)
        module.c.weight.data.zero_()  # type: ignore[operator, union-attr]
        written = to_onnx(module, template)
        assert not initialiser(written, node_of(written, "c").input[1]).any()
        np.testing.assert_array_equal(initialiser(written, node_of(written, "y").input[1]), weights(4, 4, 3, 3))

    def test_biases_added_to_two_products(self) -> None:
        body = """t = Transpose <perm = [0, 2, 3, 1]> (x) m = MatMul (t, w) a = Add (m, b)
            n = MatMul (a, w) y = Add (n, b)"""
        found = canonical(image_graph(body, {"w": weights(4, 4), "b": weights(4)}))
        assert node_of(found, "a").input[1] != node_of(found, "y").input[1]

    def test_numbers_stay_shared(self) -> None:
        """The 0 and 1 of two Clips: no weights, and copies would cost bytes."""
        body = "a = Clip (x, zero, one) n = Neg (a) y = Clip (n, zero, one)"
        found = canonical(image_graph(body, {"zero": np.array(0, np.float32), "one": np.array(1, np.float32)}))
        assert len(found.graph.initializer) == 2


def test_constants_are_folded_into_weights() -> None:
    """PaddlePaddle's reordered LSTM gates: slices and concatenations of constants, of any size."""
    w = weights(1, 400, 128, scale=0.1)
    body = """q = ReduceMean <axes = [2], keepdims = 0> (x) t = Transpose <perm = [2, 0, 1]> (q) z = MatMul (t, up)
        i = Slice (w, zero, h, one) f = Slice (w, h, all, one) v = Concat <axis = 1> (f, i)
        y = LSTM <hidden_size = 100> (z, v, r)"""
    constants = {"w": w, "r": weights(1, 400, 100, scale=0.1), "up": weights(4, 128)}
    constants |= {"zero": ints(0), "one": ints(1), "h": ints(200), "all": ints(400)}
    found = canonical(image_graph(body, constants))
    assert ops(found) == {"ReduceMean": 1, "Transpose": 1, "MatMul": 1, "LSTM": 1}
    folded = initialiser(found, node_of(found, "y").input[1])
    np.testing.assert_array_equal(folded, np.concatenate([w[:, 200:], w[:, :200]], axis=1))


def test_functions_are_inlined() -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[N, 4, H, W] x) => (float[N, 4, H, W] y) { y = local.swish (x) }
        <domain: "local", opset_import: ["" : 17]> swish (a) => (b) { s = Sigmoid (a) b = Mul (a, s) }"""
    assert ops(canonical(onnx.parser.parse_model(text))) == {"Sigmoid": 1, "Mul": 1}


def test_opset_that_cannot_be_converted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise RuntimeError("No Adapter From Version 9 for Frobnicate\nmore")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ModelError, match=r"opset 9 cannot be converted to 17 \(No Adapter .* Frobnicate\)\. Export"):
        canonicalise(image_graph("y = Relu (x)", opset=9))


def test_constants_that_cannot_be_folded_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto) -> onnx.ModelProto:
        raise IndexError("no such thing")

    monkeypatch.setattr("compress.graph.canonical.fold", fail)
    with pytest.raises(ModelError, match=r"constants cannot be folded \(no such thing\)\. Export the model again"):
        canonicalise(image_graph("y = Relu (x)"))


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = image_graph(
        "c = Conv (x, w) d = Conv (c, v) y = Identity (d)", {"w": weights(5, 4, 1, 1), "v": weights(5, 5, 1, 1)}
    )
    model.graph.initializer.append(numpy_helper.from_array(weights(3), "unused"))
    assert_same(model, canonicalise(model))
    assert capfd.readouterr() == ("", "")
